"""Whether two runs are the same run: weights, optimiser, and everything recorded but wall-clock times, bit for bit."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from burnish import checkpoint
from burnish.store import queries
from burnish.store.text import timeless

IDS = {"step_id", "group_id", "rollout_id", "prompt_id", "eval_id", "attempt", "first_rollout", "beat"}
"""Numbers that the record gives out as it goes: an attempt that was superseded has used some of them."""
CLOCK = {"started", "seconds", "reward_ms", "t"}

LIVE = {
    "steps": "SELECT * FROM steps s WHERE s.live ORDER BY s.step",
    "groups": "SELECT s.step, p.uid, t.* FROM groups t JOIN steps s USING(step_id) JOIN prompts p USING(prompt_id) "
    "WHERE s.live ORDER BY s.step, t.group_id",
    "rollouts": "SELECT s.step, p.uid, t.* FROM rollouts t JOIN steps s USING(step_id) JOIN prompts p USING(prompt_id) "
    "WHERE s.live ORDER BY s.step, t.rollout_id",
    "bodies": "SELECT s.step, r.sibling, t.* FROM bodies t JOIN rollouts r USING(rollout_id) JOIN steps s "
    "USING(step_id) WHERE s.live ORDER BY s.step, t.rollout_id",
    "tokens": "SELECT s.step, r.sibling, t.* FROM tokens t JOIN rollouts r USING(rollout_id) JOIN steps s "
    "USING(step_id) WHERE s.live ORDER BY s.step, t.rollout_id",
    "score_parts": "SELECT s.step, n.name, t.rollout_id, t.value FROM score_parts t JOIN part_names n USING(part_id) "
    "JOIN rollouts r USING(rollout_id) JOIN steps s USING(step_id) WHERE s.live ORDER BY s.step, t.rollout_id, n.name",
    "evaluations": "SELECT * FROM evals_v ORDER BY step, suite, metric, k",
}


def recorded(run: Path) -> dict[str, Any]:
    """The live record of a run, without ids and clocks."""
    with closing(queries.open_store(run / "run.sqlite")) as db:
        db.row_factory = sqlite3.Row
        found: dict[str, Any] = {name: [_timeless(row) for row in db.execute(sql)] for name, sql in LIVE.items()}
        names = [row["step"] for row in db.execute("SELECT step FROM steps WHERE live ORDER BY step")]
        found["metrics"] = {step: timeless(queries.metrics_at(db, step)) for step in names}
    return found


def weights(run: Path) -> dict[str, Any]:
    """sha256 of the files of the newest whole checkpoint, and where the run stands."""
    newest = checkpoint.latest(run / "checkpoints")
    assert newest is not None
    files = [path for path in newest.path.rglob("*") if path.is_file()]
    found: dict[str, Any] = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    del found["manifest.json"], found["state.json"]
    stands = {key: newest.state[key] for key in ("prompts", "reward", "random")}
    progress = dict(newest.state["progress"])
    for group in progress["surplus"]:
        for rollout in group["rollouts"]:
            rollout["score"]["ms"] = None
    return found | stands | {"step": newest.step, "progress": progress}


def assert_same(a: Path, b: Path) -> None:
    """Two finished runs are one."""
    first, second = weights(a), weights(b)
    for name in first:
        assert first[name] == second[name], f"{name} of {a} and {b}"
    first, second = recorded(a), recorded(b)
    assert first["rollouts"]
    for name in first:
        assert first[name] == second[name], f"{name} of {a} and {b}"
    kept = [json.loads((run / "summary.json").read_text(encoding="utf-8")) for run in (a, b)]
    for key in ("steps", "updates", "held_out", "tokens", "data"):
        assert kept[0][key] == kept[1][key]


def _timeless(row: sqlite3.Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in row.keys() if name not in IDS | CLOCK)  # noqa: SIM118 (not a mapping)
