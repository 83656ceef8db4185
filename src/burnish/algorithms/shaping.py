"""Shaping: additions to a completion's score. Numbers in, numbers out; no torch, so that rewards stay light."""

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
