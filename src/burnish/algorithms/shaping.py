"""Shaping: what a completion's form adds to its score, or takes from it. Numbers in, numbers out; no torch, so that
rewards stay light.

    overlong_penalty        an amount: DAPO's soft overlong punishment
    target_length_share     a share of the score: what a completion far beyond a wanted length loses
    lost                    a share of a score as an amount that is never a gain
"""

from __future__ import annotations


def overlong_penalty(length: int, *, max_length: int, buffer: int, factor: float = 1.0) -> float:
    """DAPO's soft overlong punishment (arXiv:2503.14476, equation 13), added to the task's score.

    0 up to `max_length - buffer`, then linear down to -`factor` at `max_length`, and -`factor` beyond. (verl has no
    such floor: there a completion of 24576 tokens against 20480 loses 2.)

    Args:
        length: generated tokens, the end-of-sequence token included, prompt and padding excluded.
        max_length: limit on generated tokens.
        buffer: tokens before the limit over which the penalty grows; 0 is off, for any length.
        factor: the largest penalty.

    Example:
        overlong_penalty(18432, max_length=20480, buffer=4096) == -0.5
    """
    if buffer == 0:
        return 0.0
    return factor * max(-1.0, min(0.0, (max_length - buffer - length) / buffer))


TOLERATED, WORST = 1.5, 2.0
"""Multiples of the wanted length: up to the first nothing is lost, from the second on the most."""
MOST_LOST = 0.5


def target_length_share(length: int, *, target: int) -> float:
    """Share of its score that a completion loses for exceeding a wanted length.

    0 up to 1.5 `target`, then linear up to 0.5 at twice `target`, and 0.5 beyond:
    0.5 min(1, (length - 1.5 target) / (0.5 target)).

    Args:
        length: generated tokens, the end-of-sequence token included.
        target: wanted length.

    Example:
        [target_length_share(n, target=100) for n in (150, 175, 200)] == [0.0, 0.25, 0.5]
    """
    excess = (length - TOLERATED * target) / ((WORST - TOLERATED) * target)
    return MOST_LOST * min(1.0, max(0.0, excess))


def lost(score: float, share: float) -> float:
    """What `score` changes by when it loses a share of its size: -share * |score|, never positive.

    The plain factor, score * (1 - share), is right for scores of at least 0 alone: it takes -1 to -0.5 and so rewards
    a wrong answer for being long. Here a score below 0 goes further down: score * (1 + share).

    Example:
        [score + lost(score, 0.5) for score in (1.0, -1.0)] == [0.5, -1.5]
    """
    return 0.0 - share * abs(score)
