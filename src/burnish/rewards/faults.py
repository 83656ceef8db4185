"""What becomes of a completion that could not be graded. A fault is never a number by itself.

fail       the run stops (`TrainingError`)
drop       it has no score, and its group is compared without it
score:X    it scores X, and stays marked as a fault: accuracies leave it out
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from burnish.errors import TrainingError
from burnish.types import FAULTS, Completion, Metrics, Prompt, Score

Judge = Callable[[Prompt, Sequence[Completion]], Sequence[Score]]
"""A `Reward`, by its shape."""


class Judged:
    """A reward around a reward: what comes out is a usable number, or a fault that the policy was applied to."""

    def __init__(self, reward: Judge, *, fails: bool, score: float | None = None) -> None:
        """
        Args:
            fails: stop at a fault.
            score: of a fault; None gives it none.
        """
        self._reward = reward
        self._fails = fails
        self._score = score

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        """
        Raises:
            TrainingError: there is a fault and the policy is `fail`, or there is not one score for each completion.
        """
        scores = self._reward(prompt, completions)
        if len(scores) != len(completions):
            raise TrainingError(
                f"the reward gave {len(scores)} scores for the {len(completions)} completions of prompt {prompt.id}; "
                "it needs one for each"
            )
        return [self._settled(prompt, index, _checked(score)) for index, score in enumerate(scores)]

    def _settled(self, prompt: Prompt, index: int, score: Score) -> Score:
        if score.status not in FAULTS:
            return score
        if self._fails:
            raise TrainingError(
                f"grading completion {index} of prompt {prompt.id} ended with {score.status}: {score.message}. "
                "Type reward.on_fault=drop to leave such completions out of their group"
            )
        return score if self._score is None else replace(score, total=self._score, raw=self._score)


def require_few_faults(metrics: Metrics, *, most: float) -> None:
    """
    Args:
        metrics: of a step.
        most: share of its completions that may be faults.

    Raises:
        TrainingError: there are more.
    """
    faults, generated = metrics["rollouts/faults"], metrics["rollouts/generated"]
    if faults > most * generated:
        raise TrainingError(
            f"{faults:.0f} of the step's {generated:.0f} completions could not be graded "
            f"({faults / generated:.1%}, and reward.max_fault_rate is {most:.1%}). The record has each with its "
            "message: status, message in rollouts_v of run.sqlite. Type reward.max_fault_rate=1 to go on regardless"
        )


def _checked(score: Score) -> Score:
    """The score, or a fault in its place where a number is missing or not finite. Rewards from Python come unread."""
    if score.status in FAULTS:
        return replace(score, total=None, raw=None)
    wrong = [v for v in (score.total, score.raw, *score.parts.values()) if v is not None and not math.isfinite(v)]
    if score.total is not None and not wrong:
        return score
    found = f"has the number {wrong[0]}" if wrong else "has no total"
    return replace(
        score, total=None, raw=None, parts={}, status="invalid", message=f"the reward's score {found}, and no fault"
    )
