"""A reward tried out before the first step, on completions made up for the purpose.

Faults appear before anything is spent, and a reward that gives one text two scores is known for it: such a reward makes
runs that cannot be repeated.
"""

from __future__ import annotations

import math
import statistics
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from burnish.rewards.extract import gold_answer
from burnish.rewards.upkeep import NO_UPKEEP, Upkeep
from burnish.types import FAULTS, Completion, Prompt, Score

ROWS = 2
"""Prompts that are tried."""


def try_out(
    reward: Callable[[Prompt, Sequence[Completion]], Sequence[Score]],
    prompts: Sequence[Prompt],
    upkeep: Upkeep = NO_UPKEEP,
) -> list[str]:
    """Score made-up completions of the first prompts, twice; return what a person should know.

    One completion states the prompt's answer, the other does not. State that the reward declares is as before each
    time, and afterwards. Whatever the reward raises passes through.
    """
    state = upkeep.state_dict()

    def ask(prompt: Prompt, completions: Sequence[Completion]) -> list[Score]:
        scores = list(reward(prompt, completions))
        if state is not None:
            upkeep.load_state_dict(state)
        return scores

    faults: list[str] = []
    moods: list[str] = []
    for prompt in prompts[:ROWS]:
        completions = [_completion(text) for text in (f"Answer: {prompt.answer or 'yes'}", "I do not know.")]
        first, second = (ask(prompt, completions) for _ in range(2))
        if len(first) != len(completions):
            raise ValueError(f"the reward gave {len(first)} scores for {len(completions)} completions")
        for one, other in zip(first, second, strict=True):
            if one.status in FAULTS:
                faults.append(f"the reward failed on prompt {prompt.id} with {one.status}: {one.message}")
            elif replace(one, ms=None) != replace(other, ms=None):
                moods.append(
                    f"the reward is not deterministic: on one completion of prompt {prompt.id} it gave {_shown(one)}, "
                    f"then {_shown(other)}. Runs with it cannot be repeated"
                )
    return list(dict.fromkeys(faults)) + moods[:1] + upkeep.remarks()


# -- gold and junk ----------------------------------------------------------------------------------------------------

FORMS = ("{whole}", "Answer: {gold}", "#### {gold}", "\\boxed{{{gold}}}")
"""Ways to state a right answer: the row's own (a whole solution in some data), and each style's."""
JUNK = ("I do not know.", "Answer: ")
GRADED_PROMPTS = 64
GRADED_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Trial:
    """How a reward takes right answers and junk."""

    prompts: int
    """How many with an answer were tried."""
    gold: int
    """For how many of them a statement of the right answer is right."""
    junk: int
    """For how many of them junk is: no answer at all, or that of another prompt."""
    gold_mean: float
    """Mean task metric of the best statement of the right answer."""
    junk_mean: float
    """Of the best junk."""
    refused: tuple[str, ...]
    """Ids of prompts whose right answer is not."""
    faults: tuple[str, ...]
    """What went wrong in grading, each said once."""
    ms: float
    """Median time of one verdict."""


def grade_gold(
    reward: Callable[[Prompt, Sequence[Completion]], Sequence[Score]],
    prompts: Sequence[Prompt],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Trial | None:
    """Score stated answers and junk for prompts from all over the data; None when no prompt has an answer.

    Stops early when it takes long, so that a slow reward costs seconds.
    """
    spread = prompts[:: max(len(prompts) // GRADED_PROMPTS, 1)][:GRADED_PROMPTS]
    tried = [prompt for prompt in spread if prompt.answer is not None]
    started = clock()
    best: list[tuple[float, float]] = []
    right_junk = 0
    refused: list[str] = []
    faults: dict[str, None] = {}
    times: list[float] = []
    for prompt in tried:
        if best and clock() - started > GRADED_SECONDS:
            break
        texts, num_gold = _statements(prompt, tried)
        before = clock()
        scores = reward(prompt, [_completion(text) for text in texts])
        times.append(1000.0 * (clock() - before) / len(texts))
        faults |= dict.fromkeys(f"{s.status}: {s.message}" for s in scores if s.status in FAULTS)
        gold, junk = scores[:num_gold], scores[num_gold:]
        if not any(score.status == "ok" for score in gold):
            refused.append(prompt.id)
        right_junk += any(score.status == "ok" for score in junk)
        best.append((_best(gold), _best(junk)))
    if not best:
        return None
    gold_mean, junk_mean = (statistics.fmean(column) for column in zip(*best, strict=True))
    num_right = len(best) - len(refused)
    return Trial(
        len(best), num_right, right_junk, gold_mean, junk_mean, tuple(refused), tuple(faults), statistics.median(times)
    )


def _statements(prompt: Prompt, others: Sequence[Prompt]) -> tuple[list[str], int]:
    """Texts that state the right answer, then junk; and how many of the former."""
    assert prompt.answer is not None
    gold = gold_answer(prompt.answer)
    right = list(dict.fromkeys(form.format(whole=prompt.answer, gold=gold) for form in FORMS))
    wrong = next((o.answer for o in others if o.answer and gold_answer(o.answer) != gold), None)
    junk = [*JUNK, *([f"Answer: {gold_answer(wrong)}"] if wrong else [])]
    return [*right, *junk], len(right)


def _best(scores: Sequence[Score]) -> float:
    """The best task metric; not a number where grading always failed."""
    return max((score.raw for score in scores if score.raw is not None), default=math.nan)


def _shown(score: Score) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in {"total": score.total, **score.parts}.items())


def _completion(text: str) -> Completion:
    tokens = range(len(text.split()))
    return Completion(array("i", [0]), array("i", tokens), array("f", [0.0] * len(tokens)), text, "stop", 0)
