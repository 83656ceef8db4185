"""Learning-rate schedules: functions of the update index (0 for the first update of a run) to a factor of the rate.

A schedule is driven by updates, not by steps of the loop: a step makes several. During a linear warm-up over W updates
the factor is (index + 1) / W, so that update 0 already moves the weights. After it, with T planned updates:

    constant  1
    linear    (T - index) / (T - W)
    cosine    (1 + cos(pi * (index - W) / (T - W))) / 2

Both decays start at 1 and would reach 0 at index T, one past the last planned update: no planned update has rate 0.
To add one: write its decay over [0, 1) and name it in `DECAYS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

Schedule = Callable[[int], float]
"""Update index, from 0 -> factor of the learning rate, in [0, 1]."""

DECAYS: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
}
"""Name -> factor after the warm-up, as a function of the share of the remaining plan that is done, in [0, 1]."""


def make_schedule(name: str, warmup_updates: int, planned_updates: int) -> Schedule:
    """The schedule of that name. Updates past the plan keep the decay's end value.

    Args:
        name: a key of `DECAYS`.
        warmup_updates: 0 is no warm-up.
        planned_updates: of the whole run.
    """
    decay = DECAYS[name]

    def factor(update: int) -> float:
        if update < warmup_updates:
            return (update + 1) / warmup_updates
        remaining = max(planned_updates - warmup_updates, 1)
        return decay(min((update - warmup_updates) / remaining, 1.0))

    return factor
