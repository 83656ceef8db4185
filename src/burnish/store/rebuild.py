"""A record that was lost or damaged, made again from what else a run wrote.

    metrics.jsonl -> steps, their metrics, evaluations      checkpoints, summary -> intervals of evaluations

Rollouts, prompts, texts, scores and events were in the record alone and are gone; so is what each attempt was. What
could not be recovered is said in sentences, for the person and in the record (`store/rebuilt`).
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from burnish.metric_names import PROMISED
from burnish.records import Event
from burnish.store.opening import Transaction, connect, create, set_up
from burnish.store.sqlite import write_run
from burnish.store.text import clean
from burnish.store.writing import Policy, Writer, completions_of

Interval = tuple[float, float, float]
"""Value, low, high."""
Intervals = Mapping[tuple[int, str, str], Interval]
"""(step, suite, metric) -> its interval, where a checkpoint or the summary has it."""

ALIASES = frozenset(theirs for theirs, ours in PROMISED.items() if theirs != ours)
"""Names that sinks get besides ours; the record has ours alone."""


@dataclass
class Rebuilt:
    """What was recovered, and what was not."""

    attempts: int = 0
    steps: int = 0
    superseded: int = 0
    evaluations: int = 0
    lost: list[str] = field(default_factory=list[str])
    """One sentence for each kind of thing that could not be recovered."""

    def __str__(self) -> str:
        found = f"recovered the metrics of {self.steps:,} steps"
        if self.superseded:
            found += f" and of {self.superseded:,} that a later attempt made again"
        return f"{found}, and {self.evaluations:,} evaluations"


def is_whole(path: Path) -> bool:
    """Whether SQLite finds nothing wrong with the file.

    Raises:
        sqlite3.OperationalError: it cannot be asked: another process has locked the file.
    """
    db = sqlite3.connect(path.absolute().as_uri() + "?mode=ro", uri=True)
    try:
        return db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return False
    finally:
        db.close()


def rebuild(
    path: Path,
    *,
    metrics: Path,
    run: Mapping[str, Any],
    created: float,
    raw_range: tuple[float, float],
    intervals: Intervals,
) -> Rebuilt:
    """Write a new record to `path`, where there is none.

    `metrics`: the run's `metrics.jsonl`. `created`: seconds since the epoch. The other arguments are those of
    `SQLiteStore`. Attempts are told apart where a step number falls back: what an attempt made again is superseded.
    """
    lines, unreadable = read_lines(metrics)
    db = connect(path)
    try:
        set_up(db, path, lambda _: None)  # whoever opens the record next hears what there is to hear
        with Transaction(db):
            create(db)
            write_run(db, path, run, raw_range, created=created)
            return _write(db, Writer(db, Policy(0, *raw_range, None, 0), {}), lines, unreadable, intervals, created)
    finally:
        db.close()


@dataclass(frozen=True, slots=True)
class Line:
    step: int
    metrics: dict[str, float]
    """Of the training step; empty in a line of evaluations."""
    held_out: dict[tuple[str, str], float]
    """(suite, metric) -> value."""


def read_lines(path: Path) -> tuple[list[Line], list[int]]:
    """The lines of `metrics.jsonl`, and the numbers of those that cannot be read: a kill cuts the last one short."""
    lines: list[Line] = []
    unreadable: list[int] = []
    if not path.exists():
        return lines, unreadable
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                lines.append(_line(json.loads(raw.decode("utf-8"))))
            except (ValueError, TypeError, KeyError, RecursionError):
                unreadable.append(number)
    return lines, unreadable


def _line(row: Mapping[str, Any]) -> Line:
    step, metrics, held_out = row["step"], {}, {}
    if not isinstance(step, int) or step < 0:
        raise ValueError(f"step {step!r}")
    for name, said in row.items():
        if name == "step" or name in ALIASES:
            continue
        value = float(said)  # `NaN` and `Infinity` are words in JSON
        if name.startswith("eval/"):
            suite, _, metric = name.removeprefix("eval/").rpartition("/")
            held_out[suite, metric] = value
        else:
            metrics[name] = value
    return Line(step, metrics, held_out)


def _write(
    db: sqlite3.Connection,
    writer: Writer,
    lines: Sequence[Line],
    unreadable: Sequence[int],
    intervals: Intervals,
    created: float,
) -> Rebuilt:
    found = Rebuilt()
    last, without_interval, suites = 0, 0, dict[str, int]()
    attempt = _attempt(db, found, from_step=0)
    for line in lines:
        if line.metrics:
            if line.step <= last:
                attempt = _attempt(db, found, from_step=line.step - 1)
                found.superseded += db.execute(
                    "UPDATE steps SET live = 0 WHERE live AND step >= ?", (line.step,)
                ).rowcount
            writer.bare_step(db, line.step, line.metrics, attempt)
            last = line.step
        for suite, values in _by_suite(line.held_out):
            without_interval += _evaluation(db, suites, suite, line.step, values, intervals, attempt)
            found.evaluations += 1
    (found.steps,) = db.execute("SELECT count(*) FROM steps WHERE live").fetchone()
    found.lost = list(_lost(db, found.steps, last, unreadable, without_interval))
    data = {"lost": found.lost}
    writer.event(db, Event("store/rebuilt", str(found), severity=2, data=data), attempt, created)
    return found


def _attempt(db: sqlite3.Connection, found: Rebuilt, *, from_step: int) -> int:
    found.attempts += 1
    statement = "INSERT INTO attempts(from_step, reason) VALUES (?, 'rebuilt from metrics.jsonl')"
    return db.execute(statement, (from_step,)).lastrowid or 0


def _by_suite(held_out: Mapping[tuple[str, str], float]) -> Iterator[tuple[str, dict[str, float]]]:
    for suite in sorted({suite for suite, _ in held_out}):
        yield suite, {metric: value for (of, metric), value in held_out.items() if of == suite}


def _evaluation(
    db: sqlite3.Connection,
    suites: dict[str, int],
    suite: str,
    step: int,
    values: Mapping[str, float],
    intervals: Intervals,
    attempt: int,
) -> bool:
    """Write an evaluation; whether any of its values has no interval."""
    if suite not in suites:
        suites[suite] = db.execute("INSERT INTO suites(name) VALUES (?)", (clean(suite)[0],)).lastrowid or 0
    eval_id = db.execute(
        "INSERT INTO evaluations(suite_id, step, attempt) VALUES (?,?,?)", (suites[suite], step, attempt)
    ).lastrowid
    missing = False
    for metric, value in values.items():
        known = intervals.get((step, suite, metric))
        low, high = known[1:] if known is not None and known[0] == value else (None, None)
        missing |= low is None
        row = (eval_id, metric, completions_of(metric), value, low, high, math.isnan(value))
        db.execute("INSERT INTO evals VALUES (?,?,?,?,?,?,?)", row)
    return missing


def _lost(
    db: sqlite3.Connection, steps: int, last: int, unreadable: Sequence[int], without_interval: int
) -> Iterator[str]:
    if unreadable:
        yield f"what stood in line {_listed(unreadable)} of metrics.jsonl, which cannot be read"
    recorded = {step for (step,) in db.execute("SELECT step FROM steps WHERE live")}
    gaps = [step for step in range(1, last + 1) if step not in recorded]
    if gaps:
        yield f"step {_listed(gaps)}, which metrics.jsonl has not"
    if steps:
        yield f"groups, rollouts, scores, texts, token arrays and times of day of all {steps:,} steps"
    yield "prompts, the verdict on each held-out prompt, and events"
    yield "when each attempt started and how it ended; attempts that repeated no step are counted as one"
    if without_interval:
        yield f"the 95 % intervals of {without_interval:,} evaluations, which no checkpoint and no summary has"


def _listed(numbers: Sequence[int], most: int = 8) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    return shown + (f" and {len(numbers) - most:,} more" if len(numbers) > most else "")
