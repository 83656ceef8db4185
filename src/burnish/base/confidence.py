"""`burnish base TASK --confidence MODEL`: a base that states its confidence, and knows nothing of it yet.

A model that never writes the tag gives the confidence term nothing to train. So a base of a built-in task is taught the
form, by some more supervised updates on worked completions with the tag before the answer. Which word stands in it is
drawn: `high` at 0.65 after worked steps, at 0.35 after an answer at once, whatever the problem. What the statement is
worth is left to training to find out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from transformers import PreTrainedModel

from burnish import __version__
from burnish.base.warmup import (
    RECIPES,
    Report,
    Trainer,
    Writer,
    measure,
    require_empty,
    save,
    using_threads,
)
from burnish.prompts.task_tokenizer import VOCABULARY
from burnish.prompts.tasks import CONFIDENCE_WORDS, Style, Task, task
from burnish.types import Prompt

OPENING, CLOSING, HIGH, LOW = CONFIDENCE_WORDS

HIGH_SHARE: Mapping[Style, float] = {"direct": 0.35, "steps": 0.65, "check": 0.65}
"""Style -> how often the taught statement is high."""
UPDATES = 300
RATES = (0.75, 0.03)
"""Learning rate at the first and last update, as shares of the recipe's; linear between."""


@dataclass(frozen=True, slots=True)
class Taught:
    """How a base came to state its confidence; also the contents of `recipe.json`."""

    task: str
    model: str
    seed: int
    updates: int
    rates: tuple[float, float]
    high_share: Mapping[Style, float]
    sampled: float
    """Accuracy on the `tuning` split at temperature 1."""
    greedy: float
    seconds: float
    burnish: str


def teach_confidence(
    task_name: str, model: PreTrainedModel, out: Path, *, taken_from: str, seed: int, report: Report, threads: int = 1
) -> Taught:
    """Teach `model`, a base of `task_name`, in place, and write it to `out`.

    Raises:
        ValueError: there is no such task, `out` holds files, or the model is no base of a built-in task.
    """
    made_for, recipe = task(task_name), RECIPES[task_name]
    require_empty(out)
    if model.config.vocab_size != len(VOCABULARY):
        raise ValueError(
            f"{taken_from} has {model.config.vocab_size:,} tokens, and bases of built-in tasks have {len(VOCABULARY)}. "
            f"Type --confidence embedded, or a folder that `burnish base {task_name}` made"
        )
    started = time.perf_counter()
    with using_threads(threads):
        model.train()
        trainer = Trainer(model, made_for, recipe, seed=seed, write=writer(made_for))
        for index in range(UPDATES):
            share = RATES[0] + (RATES[1] - RATES[0]) * index / (UPDATES - 1)
            loss = trainer.update(recipe.mixture_styles, recipe.learning_rate * share)
            if (index + 1) % 100 == 0:
                report(f"update {index + 1:4d}  loss {loss:.3f}")
        accuracy = measure(model.eval(), made_for, made_for.sample(recipe.measured_prompts, "tuning"), seed=seed)
    taught = Taught(
        task=task_name,
        model=taken_from,
        seed=seed,
        updates=UPDATES,
        rates=RATES,
        high_share=dict(HIGH_SHARE),
        sampled=accuracy.sampled,
        greedy=accuracy.greedy,
        seconds=round(time.perf_counter() - started, 1),
        burnish=__version__,
    )
    save(model, out, asdict(taught))
    report(f"wrote {out} (sampled accuracy {accuracy.sampled:.3f}) in {taught.seconds:.0f} s")
    return taught


def writer(made_for: Task) -> Writer:
    """`Task.worked` with a statement before the answer."""

    def write(prompt: Prompt, style: Style, rng: Random) -> str:
        steps, marker, answer = made_for.worked(prompt, style, rng).rpartition("Answer: ")
        word = HIGH if rng.random() < HIGH_SHARE[style] else LOW
        return f"{steps}{OPENING}{word}{CLOSING}\n{marker}{answer}"

    return write
