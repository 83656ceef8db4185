"""Whether the scores of a group differ, asked by their range: the standard deviation of equal floats need not be 0.

Numbers only, no torch: what filters groups and what computes advantages must agree.
"""

from __future__ import annotations

CLOSE = 1e-6
"""Scores that are closer are alike."""
ROUNDING = 1.5 * 2.0**-23
"""So are scores that differ by one rounding of float32, as a share of their magnitude; from a magnitude of 6 on that is
more than `CLOSE`."""


def differ(low: float, high: float) -> bool:
    """Whether the lowest and the highest score of a group are different scores."""
    return high - low >= max(CLOSE, ROUNDING * max(abs(low), abs(high)))
