"""Where the seconds of a step go."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from burnish.types import Metrics

T = TypeVar("T")


class Clock:
    """Adds up wall time by phase between laps.

    What happens at the end of a step, after its metrics are made (recording, evaluation, checkpoints), counts in the
    lap that follows, so that laps add up to the whole run.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lap_started = time.perf_counter()
        self.totals: defaultdict[str, float] = defaultdict(float)
        """Seconds per phase since the clock was made."""

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - started)

    def add(self, phase: str, seconds: float) -> None:
        """Count seconds that were measured elsewhere."""
        self._seconds[phase] += seconds
        self.totals[phase] += seconds

    def each(self, phase: str, items: Iterator[T]) -> Iterator[T]:
        """Iterate, timing only the time that `items` takes and not what the caller does in between."""
        while True:
            with self(phase):
                item = next(items, _END)
            if item is _END:
                return
            yield item  # pyright: ignore[reportReturnType]

    def lap(self) -> Metrics:
        """`time/<phase>` and `time/step` in seconds since the last lap; starts the next."""
        now = time.perf_counter()
        metrics = {f"time/{phase}": seconds for phase, seconds in self._seconds.items()}
        metrics["time/step"] = now - self._lap_started
        self._seconds.clear()
        self._lap_started = now
        return metrics


_END = object()
