"""What grows in `growth.py`, to which sizes, and what is shown of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    key: str
    """Of a point."""
    name: str
    unit: str


@dataclass(frozen=True)
class Panel:
    """One chart: quantities of one unit over the sizes."""

    title: str
    quantities: tuple[Quantity, ...]
    log: bool = False
    """The quantity grows by orders of magnitude, so it is drawn that way."""


@dataclass(frozen=True)
class Axis:
    """What grows."""

    name: str
    sizes: tuple[int, ...]
    panels: tuple[Panel, ...]
    together: bool = False
    """All sizes are passed on the way to the largest, in one process."""


ROLLOUT = Quantity("rollout_us", "rollout", "us")
UPDATE = Quantity("update_us", "update", "us")
COST = Panel("CPU microseconds per generated token", (ROLLOUT, UPDATE))
PEAK = Panel("Peak memory of the process (MB)", (Quantity("peak_mb", "peak memory", "MB"),))

AXES: Mapping[str, Axis] = {
    "group": Axis("completions per prompt, of 128 in all", (2, 4, 8, 16, 32, 64), (COST, PEAK)),
    "length": Axis("most tokens of a completion", (64, 256, 1024, 4096), (COST, PEAK)),
    "batch": Axis("completions of a step", (64, 128, 256, 512, 1024), (COST, PEAK)),
    "vocabulary": Axis(
        "tokens of the vocabulary",
        (100, 1000, 10_000, 32_000, 151_936),
        (Panel(COST.title, COST.quantities, log=True), PEAK),
    ),
    "data": Axis(
        "prompts of the data set",
        (1000, 10_000, 100_000, 1_000_000),
        (
            Panel("Seconds until a step has its first prompt", (Quantity("seconds", "first prompt", "s"),), log=True),
            Panel("Memory added, at its peak (MB)", (Quantity("added_mb", "memory added", "MB"),), log=True),
        ),
    ),
    "store": Axis(
        "rollouts in the record",
        (1000, 10_000, 100_000, 1_000_000),
        (
            Panel("CPU milliseconds to record a step of 1,024", (Quantity("step_ms", "a step", "ms"),)),
            Panel("SQLite instructions for it", (Quantity("instructions", "instructions", ""),)),
        ),
        together=True,
    ),
}


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
