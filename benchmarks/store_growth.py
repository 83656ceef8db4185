"""What recording a step costs when much is recorded already.

    python -m benchmarks.store_growth --rollouts 1000000

Fills a record step by step and measures some steps on the way: CPU seconds, instructions of SQLite's virtual machine
(which grow with every row that is looked at, and do not depend on the machine), bytes written to the log. A step that
costs more at the end than at the beginning has an index too few or too many.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from pathlib import Path

from tests.recorded import learning_step, store_at

from burnish.records import StepRecord
from burnish.store.sqlite import SQLiteStore
from burnish.types import Judged

PROMPTS = 17_000
"""Distinct prompts, about as many as DAPO's training set has; a step visits some of them."""
MEASURED = 5
"""Steps measured at each point."""
OPS = 100
"""Instructions between two counts."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of recording one step."""

    stored: int
    """Rollouts in the record before it."""
    seconds: float
    """CPU, of making its rows and of writing them."""
    instructions: int
    log_bytes: int


def costs(path: Path, *, at: Sequence[int], groups: int = 64, group_size: int = 16) -> list[list[Cost]]:
    """Costs of the `MEASURED` steps from each number of stored rollouts on; the first step of all warms up.

    Args:
        at: ascending, and at least that many steps apart.
    """
    per_step = groups * group_size
    assert all(after - before >= MEASURED * per_step for before, after in pairwise(at)), "steps would count twice"
    found: list[list[Cost]] = [[] for _ in at]
    left = deque(zip(at, found, strict=True))
    with store_at(path) as store:
        for index, step in enumerate(_steps(groups, group_size)):
            stored = index * per_step
            if index and stored >= left[0][0]:
                left[0][1].append(_measured(store, step, stored))
                if len(left[0][1]) == MEASURED:
                    left.popleft()
                if not left:
                    return found
            else:
                store.record(step)
    raise AssertionError("steps never end")


def _steps(groups: int, group_size: int) -> Iterator[StepRecord]:
    """Steps without end; every one visits other prompts."""
    made = [learning_step(n, groups=groups, group_size=group_size) for n in range(8)]
    for number in count(1):
        found = made[number % len(made)]
        judged = [_of_prompt(j, (number * groups + g) * 7919 % PROMPTS) for g, j in enumerate(found.judged)]
        yield replace(found, step=number, judged=judged)


def _of_prompt(judged: Judged, prompt: int) -> Judged:
    group = judged.group
    return replace(judged, group=replace(group, prompt=replace(group.prompt, id=f"p{prompt}")))


def _measured(store: SQLiteStore, step: StepRecord, stored: int) -> Cost:
    db, looks = store._db, [0]

    def look() -> int:
        looks[0] += 1
        return 0

    store.flush()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    db.set_progress_handler(look, OPS)
    started = time.process_time()
    store.record(step)
    store.flush()
    seconds = time.process_time() - started
    db.set_progress_handler(None, 0)
    log = store.path.with_name(store.path.name + "-wal").stat().st_size
    return Cost(stored, seconds, looks[0] * OPS, log)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    rollouts = parser.parse_args().rollouts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.sqlite"
        first, last = costs(path, at=(0, rollouts))
        file_bytes = path.stat().st_size
    print(
        f"{'stored rollouts':>16} {'CPU ms':>8} {'instructions':>13} {'log bytes':>12}   of one step of 1,024, medians"
    )
    medians = [
        [statistics.median(getattr(c, n) for c in side) for n in ("seconds", "instructions", "log_bytes")]
        for side in (first, last)
    ]
    for side, (seconds, instructions, log_bytes) in zip((first, last), medians, strict=True):
        print(f"{side[0].stored:>16,} {1e3 * seconds:>8.1f} {instructions:>13,.0f} {log_bytes:>12,.0f}")
    ratios = [after / before for before, after in zip(*medians, strict=True)]
    print(f"{'ratio':>16} {ratios[0]:>8.2f} {ratios[1]:>13.2f} {ratios[2]:>12.2f}   file {file_bytes / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
