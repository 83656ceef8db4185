"""`Shaped`: what a completion loses of its total for its length, whatever reward gave it.

Penalties in proportion to the reward, so they follow its scale and spare a reward of 0. The parts `length` and
`truncated` of `form.py` take fixed amounts instead.

    target_length   up to half, beyond 1.5 times a wanted length
    truncation      a share, where the engine cut the completion at its limit

The second is taken from what the first left. Both are recorded as parts, as the amounts by which they change the total
(0 or below, also for totals below 0), so the total stays the sum of what is recorded. `raw` and the verdict stay as
they were: dynamic sampling and reward curves read the task metric alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from burnish.algorithms.shaping import lost, target_length_share
from burnish.types import Completion, Prompt, Score

Judge = Callable[[Prompt, Sequence[Completion]], Sequence[Score]]
"""A `Reward`, by its shape."""

TARGET_LENGTH, TRUNCATION = "target_length", "truncation"


class Shaped:
    """A reward around a reward.

    Example:
        Shaped(reward, target_length=100, truncation=0.2)
    """

    def __init__(self, reward: Judge, *, target_length: int | None, truncation: float) -> None:
        """
        Args:
            target_length: wanted length in tokens; None takes nothing for length.
            truncation: share of its total that a cut completion loses, from 0 to 1; 0 takes nothing.
        """
        self._reward = reward
        self._target_length = target_length
        self._truncation = truncation

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        scores = self._reward(prompt, completions)
        return [self._shape(s, c) for s, c in zip(scores, completions, strict=True)]

    def _shape(self, score: Score, completion: Completion) -> Score:
        if score.total is None:
            return score
        total, parts = score.total, dict(score.parts)
        if self._target_length is not None:
            share = target_length_share(len(completion.token_ids), target=self._target_length)
            parts[TARGET_LENGTH] = lost(total, share)
            total += parts[TARGET_LENGTH]
        if self._truncation:
            share = self._truncation if completion.finish_reason == "length" else 0.0
            parts[TRUNCATION] = lost(total, share)
            total += parts[TRUNCATION]
        return replace(score, total=total, parts=parts)
