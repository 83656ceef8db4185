"""What every measured process is told and reports. Standard library only: it runs in every peer's environment.

A process reads a `Job` from a file, works through its steps, and prints JSON as its last line of output (`report`). The
first step warms up and is not reported. Seconds are kept twice: of the wall, and of the CPU over all threads.
"""

from __future__ import annotations

import json
import re
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

WARM_UP = 1
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Job:
    model: str
    """Folder in `save_pretrained` layout."""
    prompts: list[list[int]]
    """Token ids for all steps, in the order in which they are asked."""
    prompts_per_step: int
    group_size: int
    max_new_tokens: int
    rows_per_piece: int
    threads: int
    seed: int

    @property
    def steps(self) -> int:
        return len(self.prompts) // self.prompts_per_step

    @classmethod
    def read(cls, path: Path) -> Job:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


@dataclass
class Step:
    tokens: int = 0
    """Generated, ends included."""
    sequences: int = 0
    wall: dict[str, float] = field(default_factory=dict)
    """Seconds by phase: `generate`, `update`, and `step` for all of it."""
    cpu: dict[str, float] = field(default_factory=dict)


class Stopwatch:
    """Adds up the seconds of named phases; `lap` hands them over as a step and starts the next."""

    def __init__(self) -> None:
        self._spent: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._lap = self._now()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        started = self._now()
        try:
            yield
        finally:
            self._add(phase, started)

    def lap(self, *, tokens: int, sequences: int) -> Step:
        self._add("step", self._lap)
        spent = dict(self._spent)
        self._spent.clear()
        self._lap = self._now()
        wall, cpu = ({phase: pair[side] for phase, pair in spent.items()} for side in (0, 1))
        return Step(tokens, sequences, wall, cpu)

    def _add(self, phase: str, started: tuple[float, float]) -> None:
        spent, now = self._spent[phase], self._now()
        for side in (0, 1):
            spent[side] += now[side] - started[side]

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB.

    Linux hands `ru_maxrss` on from a process to the programs that it starts, so that a child of a large parent seems
    large; the high-water mark in /proc is the program's own.
    """
    if STATUS.exists():
        return _status_mb("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def resident_mb() -> float:
    """The memory that this process holds now, in MB; where there is no /proc, the most that it has held."""
    return _status_mb("VmRSS") if STATUS.exists() else peak_mb()


def _status_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB$", STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{STATUS} has no {name}"
    return int(found[1]) * 1024 / 1e6


def report(steps: list[Step], *, loaded_mb: float, versions: dict[str, str]) -> None:
    """Print the last line of a measured process."""
    found = {"steps": [asdict(step) for step in steps[WARM_UP:]], "loaded_mb": loaded_mb, "peak_mb": peak_mb()}
    print("\n" + json.dumps(found | {"versions": versions}), flush=True)
