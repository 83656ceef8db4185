"""Parts of a reward that look at a completion's form: its format, its length, whether it came to an end.

    format      1 when the text contains a match of a pattern, else 0
    length      from 0, up to 1.5 times a wanted length, down to -1 at twice that length and beyond
    truncated   -1 when the engine cut the completion at its limit, else 0
    overlong    DAPO's soft punishment, from 0, a buffer before the limit on tokens, down to -factor at the limit

Penalties are added to the total, never multiplied with it: a factor that lowers a positive reward raises a negative
one, and would reward wrong answers for being long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from burnish.algorithms.shaping import overlong_penalty
from burnish.rewards.measured import Measured
from burnish.types import Completion, Prompt

FORMAT_TEXT = 50_000
"""Characters of a completion that a pattern searches, from its start."""
TOLERATED = 1.5
"""Multiple of the wanted length up to which nothing is lost."""
WORST = 2.0
"""Multiple of the wanted length from which everything is."""


class Format:
    """The wanted form, as a regular expression; yours, so mind its own cost.

    Raises:
        ValueError: the pattern is no regular expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"the format's pattern {pattern!r} is no regular expression ({error}); it needs one such as "
                "'<answer>.*'"
            ) from None

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        return [Measured(float(self._pattern.search(c.text[:FORMAT_TEXT]) is not None)) for c in completions]


class Length:
    """A wanted length in tokens; see `length_penalty`."""

    def __init__(self, target: int) -> None:
        self._target = target

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        return [Measured(length_penalty(len(c.token_ids), target=self._target)) for c in completions]


class Truncated:
    """Completions that never came to an end."""

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        return [Measured(-1.0 if c.finish_reason == "length" else 0.0) for c in completions]


class Overlong:
    """DAPO's soft overlong punishment; see `shaping.overlong_penalty`."""

    def __init__(self, *, max_length: int, buffer: int, factor: float) -> None:
        """
        Args:
            max_length: limit on generated tokens.
            buffer: tokens before the limit over which the penalty grows.
            factor: the largest penalty.
        """
        self._max_length = max_length
        self._buffer = buffer
        self._factor = factor

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        return [Measured(self._penalty(len(completion.token_ids))) for completion in completions]

    def _penalty(self, length: int) -> float:
        return overlong_penalty(length, max_length=self._max_length, buffer=self._buffer, factor=self._factor)


def length_penalty(length: int, *, target: int) -> float:
    """0 up to 1.5 times `target`, then linear down to -1 at twice `target`, and -1 beyond.

    Example:
        [length_penalty(n, target=100) for n in (150, 175, 200)] == [0.0, -0.5, -1.0]
    """
    excess = (length - TOLERATED * target) / ((WORST - TOLERATED) * target)
    return 0.0 - min(1.0, max(0.0, excess))
