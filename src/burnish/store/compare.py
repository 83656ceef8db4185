"""Where two recorded runs part: one look at a fingerprint per step, then at the rollouts of the first that differs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two runs first differ."""

    step: int
    what: str
    """`missing` (one run has not this step), `tokens`, `verdict`, or `metrics` (all rollouts agree)."""
    rollout_a: int | None
    rollout_b: int | None


def first_divergence(a: sqlite3.Connection, b: sqlite3.Connection) -> Divergence | None:
    """The first step at which two runs recorded anything different but times, and the first rollout there.

    None when all steps agree. A rollout differs by its prompt or tokens (`tokens`), or by what grading said. Steps of a
    rebuilt record have no fingerprint and are not compared.
    """
    for (step_a, sha_a), (step_b, sha_b) in zip_longest(_shas(a), _shas(b), fillvalue=(None, None)):
        if step_a != step_b:
            step = min(step for step in (step_a, step_b) if step is not None)
            return Divergence(step, "missing", None, None)
        if sha_a != sha_b and None not in (sha_a, sha_b):
            assert step_a is not None
            return _rollout_divergence(a, b, step_a)
    return None


def step_divergence(a: sqlite3.Connection, b: sqlite3.Connection, step: int) -> Divergence | None:
    """Whether two runs differ in one step, and where in it first."""
    sha_a, sha_b = (dict(_shas(db)).get(step) for db in (a, b))
    if sha_a is None or sha_b is None:
        return Divergence(step, "missing", None, None)
    return None if sha_a == sha_b else _rollout_divergence(a, b, step)


def _rollout_divergence(a: sqlite3.Connection, b: sqlite3.Connection, step: int) -> Divergence:
    nothing = (None,) * 3
    for row_a, row_b in zip_longest(_fingerprints(a, step), _fingerprints(b, step), fillvalue=nothing):
        if row_a[1] != row_b[1]:
            return Divergence(step, "tokens", row_a[0], row_b[0])
        if row_a[2] != row_b[2]:
            return Divergence(step, "verdict", row_a[0], row_b[0])
    return Divergence(step, "metrics", None, None)


def _shas(db: sqlite3.Connection) -> Iterator[tuple[int | None, bytes | None]]:
    return db.execute("SELECT step, content_sha FROM steps WHERE live ORDER BY step")


def _fingerprints(db: sqlite3.Connection, step: int) -> Iterator[tuple[Any, ...]]:
    """(rollout id, tokens, verdict) of each rollout of a step."""
    rows = db.execute(
        "SELECT r.rollout_id, r.text_sha, p.uid, r.status, r.answer, r.raw, r.total FROM rollouts r "
        "JOIN prompts p USING(prompt_id) JOIN steps s USING(step_id) WHERE s.live AND s.step = ? "
        "AND r.rollout_id >= s.first_rollout AND r.rollout_id < s.first_rollout + s.n_rollouts ORDER BY r.rollout_id",
        (step,),
    )
    return ((rollout_id, (sha, uid), tuple(verdict)) for rollout_id, sha, uid, *verdict in rows)
