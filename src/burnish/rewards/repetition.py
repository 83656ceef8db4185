"""How much a completion repeats itself: the share of its n-grams that occurred before.

    share = 1 - distinct n-grams / n-grams,   0 for fewer than n items

Open-R1's repetition penalty is `max_penalty * share` over lower-cased words, TRL's the same over token ids. As a part
of a reward (`repetition`) the value is -share, and the part's weight is the largest penalty.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from burnish.rewards.measured import Measured
from burnish.types import Completion, Prompt

Unit = Literal["words", "tokens"]


def repeated_share(items: Sequence[Hashable], n: int) -> float:
    """Share of the n-grams of `items` that are repetitions, from 0 to below 1.

    Example:
        repeated_share("a b c d a b c d a b c d".split(), 4) == 5 / 9
    """
    total = len(items) - n + 1
    if total < 1:
        return 0.0
    return 1.0 - len({tuple(items[start : start + n]) for start in range(total)}) / total


def words(text: str) -> list[str]:
    return text.lower().split()


class Repetition:
    """Part of a reward: -(share of repeated n-grams), from 0 down to -1."""

    def __init__(self, *, ngram_size: int, unit: Unit) -> None:
        self._n = ngram_size
        self._items = _ITEMS[unit]

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        # 0.0 - x: a completion without repetition is worth 0.0, not -0.0.
        return [Measured(0.0 - repeated_share(self._items(completion), self._n)) for completion in completions]


_ITEMS: dict[Unit, Callable[[Completion], Sequence[Hashable]]] = {
    "words": lambda completion: words(completion.text),
    "tokens": lambda completion: completion.token_ids,
}
