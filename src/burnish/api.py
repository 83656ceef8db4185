"""The public Python API: a configuration, parts of your own in it, and training.

    from burnish.api import load, train

    def short(prompt, completion):
        return float(len(completion.token_ids) < 20)

    done = train(load("add23", "train.steps=5").with_reward(short))
    print(done.after["length"].value, done.model)

`load` takes what `burnish train` takes. Whatever is not swapped is as configured, and a run leaves the same folder as
one from the command line. What the parts are given and have to return is in `protocols.py` and `types.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from burnish.build import NOTHING, Parts, Swaps
from burnish.config import RunConfig
from burnish.launch import local
from burnish.launch.identity import folder_of
from burnish.launch.session import Finished
from burnish.objective import Term
from burnish.overrides import ConfigError, load_config, validate
from burnish.protocols import PromptSampler, Reward, RolloutEngine
from burnish.rewards.compose import FunctionReward
from burnish.types import Completion, Group, Prompt, Score

__all__ = [
    "Completion",
    "Experiment",
    "Finished",
    "Group",
    "Parts",
    "Prompt",
    "PromptSampler",
    "Reward",
    "RolloutEngine",
    "Score",
    "Term",
    "load",
    "train",
]


@dataclass(frozen=True)
class Experiment:
    """A configuration and what replaces parts of it. Every `with_` gives a new one."""

    config: RunConfig
    swaps: Swaps = NOTHING

    def with_reward(self, reward: Reward | Callable[..., Any]) -> Experiment:
        """Reward completions with `reward` instead of what `[reward]` says; held-out evaluation uses it too.

        Args:
            reward: a `Reward`, told by its parameters `(prompt, completions)`; or a plain function of one completion,
                with any signature that `rewards/adapters.py` knows, right from a value of `reward.right` on.
        """
        if list(inspect.signature(reward).parameters) != ["prompt", "completions"]:
            reward = FunctionReward(reward, right=self.config.reward.right)
        return self._with(reward=reward)

    def with_term(self, term: Term) -> Experiment:
        """Add a term to the loss, beside the objective's own and those added before."""
        return self._with(terms=(*self.swaps.terms, term))

    def with_sampler(self, make: Callable[[Sequence[Prompt], int], PromptSampler]) -> Experiment:
        """Choose prompts with `make(prompts, seed)`."""
        return self._with(sampler=make)

    def with_engine(self, make: Callable[[Parts], RolloutEngine]) -> Experiment:
        """Generate with `make(parts)`, which finds model, tokenizer and the configured engine in `parts`."""
        return self._with(engine=make)

    def _with(self, **changes: Any) -> Experiment:
        return replace(self, swaps=replace(self.swaps, **changes))


def load(*source: str | Path | Mapping[str, Any]) -> Experiment:
    """A configuration, from a preset or a file and overrides, or from one nested mapping.

    Raises:
        ValueError: unknown key or preset, unreadable file, wrong value, or values that do not fit together.

    Example:
        load()                                              # the embedded default
        load("dapo", "model.path=./my-model", "seed=3")     # a preset, then overrides
        load("run.yaml", "train.steps=5")
        load({"data": {"train": "add23"}, "train": {"steps": 5}})
    """
    words = [str(word) for word in source if not isinstance(word, Mapping)]
    trees = [tree for tree in source if isinstance(tree, Mapping)]
    if not trees:
        return Experiment(load_config(words))
    if len(source) > 1:
        raise ConfigError("a mapping is a whole configuration; write what else you want into it")
    return Experiment(validate(trees[0]))


def train(experiment: Experiment, *, resume: bool = False, allow_change: Sequence[str] = ()) -> Finished:
    """Train in a new run folder, `out` of the configuration.

    Args:
        resume: continue the run in that folder. Configuration, data, model and swaps must be those it was started with.
        allow_change: keys, sections, `data`, `model` or `reward` that may differ all the same; see docs/checkpoints.md.

    Raises:
        ValueError: the folder has content, or none to resume; wrong data or model.
        TrainingError: a grader fault, or a step that could not be filled.
        ResumeError: the run in the folder was started with something else.
    """
    config, swaps = experiment.config, experiment.swaps
    if resume:
        return local.resume(folder_of(config), swaps, revise=lambda saved: config, allowed=allow_change)
    return local.start(config, swaps)
