"""Questions to a recorded run: plain functions over a read-only connection, for plots, summaries, pages and people.

    db = open_store(Path("runs/run-1/run.sqlite"))
    for point in metric_curve(db, "reward/mean"): ...

Only live steps answer: what a resumed run superseded is in the tables and not here. `limit` with `before` or `after`
pages through long answers by key: no page costs more than the first, and none holds a snapshot while somebody reads it.
The same tables answer SQL; `rollouts_v`, `groups_v`, `metrics_v` and `evals_v` are for that.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from burnish.store import codes
from burnish.store.opening import BUSY_SECONDS, version_of
from burnish.store.sql import named
from burnish.store.text import unpacked


class Point(NamedTuple):
    step: int
    value: float | None
    """None when the value was NaN."""
    se: float | None


class EvaluationPoint(NamedTuple):
    step: int
    suite: str
    metric: str
    k: int
    value: float | None
    low: float | None
    high: float | None


class Count(NamedTuple):
    step: int
    word: str
    n: int


class HistogramBin(NamedTuple):
    step: int
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class RolloutRow:
    """One rollout as people read it."""

    rollout_id: int
    step: int
    prompt: str
    group_id: int
    sibling: int
    status: str
    finish_reason: str
    answer: str | None
    raw: float | None
    total: float | None
    advantage: float | None
    length: int
    message: str | None
    text: str | None
    """None when the text was not kept, or dropped for room."""


_ROLLOUT = """
SELECT v.rollout_id, v.step, v.prompt, v.group_id, v.sibling, v.status, v.finish_reason, v.answer, v.raw, v.total,
  v.advantage, v.length, v.message, b.text FROM rollouts_v v LEFT JOIN bodies b USING(rollout_id)
"""


def open_store(path: Path, *, unwritten: bool = False) -> sqlite3.Connection:
    """Open read-only: a reader never blocks the writer and cannot change the file.

    `unwritten`: nobody writes meanwhile, and the reader leaves no file beside it (`-wal`, `-shm`) that was not there.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no store, is damaged, or is of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no store at {path}")
    is_settled = unwritten and not path.with_name(path.name + "-wal").exists()
    uri = path.absolute().as_uri() + ("?mode=ro&immutable=1" if is_settled else "?mode=ro")
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)
    try:
        db.execute("PRAGMA query_only = ON")
        _check_version(db, path)
    except sqlite3.DatabaseError as error:
        db.close()
        raise ValueError(f"cannot read {path}: {error}. Type `burnish store rebuild {path.parent}`") from error
    except ValueError:
        db.close()
        raise
    return db


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    version = version_of(db, path)
    if version is None:
        raise ValueError(f"{path} is empty, and not a store of a run")
    if version < codes.SCHEMA_VERSION:
        raise ValueError(
            f"{path} is a store of version {version}, and this burnish reads version {codes.SCHEMA_VERSION}. "
            f"Type `burnish store migrate {path.parent}`, which keeps a copy"
        )


# -- the run -----------------------------------------------------------------------------------------------------------


def run_info(db: sqlite3.Connection) -> dict[str, Any]:
    """The row of `runs`."""
    return _dicts(db, "SELECT * FROM runs")[0]


def attempts(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Every start of the run, oldest first."""
    return _dicts(db, "SELECT * FROM attempts ORDER BY attempt")


def last_step(db: sqlite3.Connection) -> int:
    """The last step that is recorded and not superseded; 0 before the first."""
    return db.execute("SELECT coalesce(max(step), 0) FROM steps WHERE live").fetchone()[0]


def steps(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """The live steps, without their blobs."""
    names = "step_id, step, attempt, started, seconds, policy_version, n_updates, n_rounds, first_rollout, n_rollouts"
    statement = "SELECT {}, n_tokens, n_bodies, n_token_arrays FROM steps WHERE live ORDER BY step"
    return _dicts(db, named(statement, names))


def events(db: sqlite3.Connection, *, severity: int = 0, limit: int = 100, before: int | None = None) -> list[dict]:
    """Events of at least this severity, newest first; of superseded attempts too, for they happened."""
    return _dicts(
        db,
        "SELECT * FROM events WHERE severity >= ? AND (? IS NULL OR event_id < ?) ORDER BY event_id DESC LIMIT ?",
        (severity, before, before, limit),
    )


# -- curves ------------------------------------------------------------------------------------------------------------


def recorded_metrics(db: sqlite3.Connection) -> list[str]:
    """Names of the metrics that were recorded."""
    return [name for (name,) in db.execute("SELECT name FROM metric_names ORDER BY name")]


def metric_curve(db: sqlite3.Connection, name: str) -> list[Point]:
    """A metric by step; empty when it was never recorded."""
    return [
        Point(*row) for row in db.execute("SELECT step, value, se FROM metrics_v WHERE name = ? ORDER BY step", (name,))
    ]


def metrics_at(db: sqlite3.Connection, step: int) -> dict[str, float | None]:
    """All metrics of a step."""
    return dict(db.execute("SELECT name, value FROM metrics_v WHERE step = ? ORDER BY name", (step,)))


def evaluations(
    db: sqlite3.Connection, *, suite: str | None = None, metric: str | None = None
) -> list[EvaluationPoint]:
    """Held-out results by step, with 95 % intervals."""
    rows = db.execute(
        "SELECT step, suite, metric, k, value, lo, hi FROM evals_v "
        "WHERE (:suite IS NULL OR suite = :suite) AND (:metric IS NULL OR metric = :metric) "
        "ORDER BY suite, metric, step",
        {"suite": suite, "metric": metric},
    )
    return [EvaluationPoint(*row) for row in rows]


def evaluation_items(db: sqlite3.Connection, suite: str, metric: str, step: int) -> list[dict[str, Any]]:
    """Every held-out prompt's verdicts in the evaluation that gave this result, for comparisons paired by prompt."""
    return _dicts(
        db,
        "SELECT p.uid AS prompt, i.n, i.n_right, i.majority_right, i.len_mean, i.conf_mean FROM eval_items i "
        "JOIN prompts p USING(prompt_id) WHERE i.eval_id = "
        "(SELECT eval_id FROM evals_v WHERE suite = ? AND metric = ? AND step = ?) ORDER BY i.item",
        (suite, metric, step),
    )


def status_counts(db: sqlite3.Connection) -> list[Count]:
    """Rollouts by step and status, over all generated groups."""
    return _counts(
        db,
        "SELECT s.step, c.word, sum(n) FROM step_status t JOIN steps s USING(step_id) "
        "JOIN codes c ON c.kind = 'status' AND c.code = t.status WHERE s.live GROUP BY s.step, t.status",
    )


def finish_counts(db: sqlite3.Connection) -> list[Count]:
    """Rollouts by step and finish reason."""
    return _counts(
        db,
        "SELECT s.step, c.word, sum(n) FROM step_status t JOIN steps s USING(step_id) "
        "JOIN codes c ON c.kind = 'finish' AND c.code = t.finish WHERE s.live GROUP BY s.step, t.finish",
    )


def outcome_counts(db: sqlite3.Connection) -> list[Count]:
    """Generated groups by step and outcome."""
    return _counts(
        db,
        "SELECT s.step, c.word, t.n FROM step_outcome t JOIN steps s USING(step_id) "
        "JOIN codes c ON c.kind = 'outcome' AND c.code = t.outcome WHERE s.live ORDER BY s.step, t.outcome",
    )


def histogram(db: sqlite3.Connection, name: str) -> list[HistogramBin]:
    """Rollouts by step and bin of one quantity; names in `codes.HISTOGRAMS`."""
    kind = {h.name: h for h in codes.HISTOGRAMS}[name]
    rows = db.execute(
        "SELECT s.step, h.bin, h.n FROM step_hist h JOIN steps s USING(step_id) WHERE s.live AND h.what = ? "
        "ORDER BY s.step, h.bin",
        (kind.what,),
    )
    return [HistogramBin(step, kind.edge(bin_), kind.edge(bin_ + 1), n) for step, bin_, n in rows]


def parts(db: sqlite3.Connection) -> list[dict[str, Any]]:
    """Mean, spread, range and share in the advantage of every reward part, by step."""
    return _dicts(
        db,
        "SELECT s.step, p.name, p.weight, t.n, t.mean, t.sd, t.lo, t.hi, t.share FROM step_parts t "
        "JOIN part_names p USING(part_id) JOIN steps s USING(step_id) WHERE s.live ORDER BY p.name, s.step",
    )


def group_strips(db: sqlite3.Connection) -> list[tuple[int, bytes]]:
    """(step, a byte per generated group): the whole run at a glance. Bytes are explained at `steps` in schema.sql."""
    statement = "SELECT step, group_strip FROM steps WHERE live AND group_strip IS NOT NULL ORDER BY step"
    return db.execute(statement).fetchall()


# -- rollouts ----------------------------------------------------------------------------------------------------------


def extremes(db: sqlite3.Connection, what: str, *, limit: int = codes.EXTREMES_PER_STEP) -> list[RolloutRow]:
    """The run's most extreme rollouts; `what` is a word of `codes.EXTREMES`. At most `EXTREMES_PER_STEP` are exact."""
    order = "ASC" if what in codes.SMALLEST_FIRST else "DESC"
    return _rollouts(
        db,
        f"{_ROLLOUT} JOIN (SELECT rollout_id, value FROM step_extremes JOIN steps s USING(step_id) "
        f"WHERE what = ? AND s.live ORDER BY value {order}, rollout_id LIMIT ?) e USING(rollout_id) "
        f"ORDER BY e.value {order}, rollout_id",
        (codes.EXTREMES[what], min(limit, codes.EXTREMES_PER_STEP)),
    )


def best_rollouts(db: sqlite3.Connection, *, limit: int = codes.EXTREMES_PER_STEP) -> list[RolloutRow]:
    """Highest totals."""
    return extremes(db, "best", limit=limit)


def worst_rollouts(db: sqlite3.Connection, *, limit: int = codes.EXTREMES_PER_STEP) -> list[RolloutRow]:
    """Lowest totals. Faults have none; see `faults`."""
    return extremes(db, "worst", limit=limit)


def faults(db: sqlite3.Connection, *, limit: int = 50, before: int | None = None) -> list[RolloutRow]:
    """Rollouts that the grader failed on, newest first."""
    marks = ",".join(str(code) for code in sorted(codes.FAULT_CODES))
    return _rollouts(
        db,
        f"{_ROLLOUT} WHERE v.rollout_id IN (SELECT r.rollout_id FROM rollouts r JOIN steps s USING(step_id) "
        f"WHERE s.live AND r.status >= 2 AND r.status IN ({marks}) AND (? IS NULL OR r.rollout_id < ?) "
        "ORDER BY r.rollout_id DESC LIMIT ?) ORDER BY v.rollout_id DESC",
        (before, before, limit),
    )


def rollouts_of_step(
    db: sqlite3.Connection, step: int, *, limit: int | None = None, after: int = 0
) -> list[RolloutRow]:
    """The rollouts of a step, group by group: at most `limit` of them, those behind rollout `after`."""
    return _rollouts(
        db,
        f"{_ROLLOUT} WHERE v.rollout_id >= max((SELECT first_rollout FROM steps WHERE live AND step = ?1), ?2 + 1) "
        "AND v.rollout_id < (SELECT first_rollout + n_rollouts FROM steps WHERE live AND step = ?1) "
        "ORDER BY v.rollout_id LIMIT ?3",
        (step, after, -1 if limit is None else limit),
    )


def siblings(db: sqlite3.Connection, rollout_id: int) -> list[RolloutRow]:
    """The whole group of a rollout."""
    row = db.execute(
        "SELECT g.first_rollout, g.first_rollout + g.n FROM groups g JOIN rollouts r USING(group_id) "
        "WHERE r.rollout_id = ?",
        (rollout_id,),
    ).fetchone()
    if row is None:
        return []
    return _rollouts(db, f"{_ROLLOUT} WHERE v.rollout_id >= ? AND v.rollout_id < ? ORDER BY v.rollout_id", row)


def token_arrays(db: sqlite3.Connection, rollout_id: int) -> dict[str, NDArray[Any]]:
    """Arrays of one value per completion token: ids, n_bytes, old, learner, new, entropy, push, clip, mask.

    Only those that were recorded; empty when the rollout is not among those kept in full. `push` is
    -d(loss) / d(logprob) as float32.
    """
    kinds = {
        "ids": "<i4",
        "n_bytes": "<u2",
        "old": "<f4",
        "learner": "<f4",
        "new": "<f4",
        "entropy": "<f2",
        "push": "<f2",
        "clip": "i1",
        "mask": "i1",
    }
    found = _dicts(db, "SELECT * FROM tokens WHERE rollout_id = ?", (rollout_id,))
    if not found:
        return {}
    row = found[0]
    arrays = {name: np.frombuffer(zlib.decompress(row[name]), kind) for name, kind in kinds.items() if row[name]}
    if "push" in arrays:
        arrays["push"] = arrays["push"].astype(np.float32) * np.float32(row["push_scale"])
    return arrays


def prompt_history(db: sqlite3.Connection, prompt: str) -> list[dict[str, Any]]:
    """Every live group of one prompt, by step."""
    return _dicts(
        db,
        "SELECT g.group_id, s.step, c.word AS outcome, g.first_rollout, g.n, g.n_right, g.n_fault, g.raw_mean, "
        "g.len_mean FROM groups g JOIN steps s USING(step_id) "
        "JOIN codes c ON c.kind = 'outcome' AND c.code = g.outcome "
        "WHERE s.live AND g.prompt_id = (SELECT prompt_id FROM prompts WHERE uid = ?) ORDER BY g.group_id",
        (prompt,),
    )


def group_scores(db: sqlite3.Connection) -> Iterator[tuple[str, list[float]]]:
    """(prompt, raw scores) of every live group, in the order in which the groups were asked for.

    Groups that did not train are among them; rollouts without a score are not.
    """
    rows = db.execute(
        "SELECT g.group_id, p.uid, r.raw FROM groups g JOIN steps s USING(step_id) JOIN prompts p USING(prompt_id) "
        "JOIN rollouts r USING(group_id) WHERE s.live AND r.raw IS NOT NULL "
        "ORDER BY g.dispatch, g.group_id, r.rollout_id"
    )
    for (_, prompt), found in groupby(rows, key=lambda row: row[:2]):
        yield prompt, [raw for _, _, raw in found]


def hardest_prompts(db: sqlite3.Connection, *, limit: int = 50) -> list[dict[str, Any]]:
    """Prompts by the share of right rollouts among those with a verdict, lowest first."""
    return _dicts(
        db,
        "SELECT p.uid AS prompt, p.text, p.answer, t.*, CAST(t.n_right AS REAL) / (t.n - t.n_fault) AS accuracy "
        "FROM prompt_stats t JOIN prompts p USING(prompt_id) WHERE t.n > t.n_fault "
        "ORDER BY accuracy, p.prompt_id LIMIT ?",
        (limit,),
    )


# -- rows --------------------------------------------------------------------------------------------------------------


def _dicts(db: sqlite3.Connection, statement: str, values: tuple[Any, ...] = ()) -> list[dict[str, Any]]:
    cursor = db.execute(statement, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _counts(db: sqlite3.Connection, statement: str) -> list[Count]:
    return [Count(*row) for row in db.execute(statement)]


def _rollouts(db: sqlite3.Connection, statement: str, values: tuple[Any, ...]) -> list[RolloutRow]:
    rows = db.execute(statement, values)
    return [RolloutRow(*row[:-1], text=None if row[-1] is None else unpacked(row[-1])) for row in rows]
