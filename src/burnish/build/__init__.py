"""The composition root: turns a config into live objects. Nothing else names concrete classes."""

from burnish.build.run import (
    NOTHING,
    Parts,
    Swaps,
    assemble,
    eval_sampling,
    heldout_prompts,
    make_confidence,
    make_plan,
    make_run,
    make_sampler,
    make_sinks,
    make_statements,
    training_prompts,
    training_sampling,
)

__all__ = [
    "NOTHING",
    "Parts",
    "Swaps",
    "assemble",
    "eval_sampling",
    "heldout_prompts",
    "make_confidence",
    "make_plan",
    "make_run",
    "make_sampler",
    "make_sinks",
    "make_statements",
    "training_prompts",
    "training_sampling",
]
