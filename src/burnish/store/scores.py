"""Scores as they were given, for a run that goes on from an earlier step than the last that it recorded."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from burnish.store import codes
from burnish.types import Status

Key = tuple[int, str, int, int]
"""(policy version, prompt id, sibling, fingerprint of the completion's tokens)."""


@dataclass(frozen=True, slots=True)
class RecordedScore:
    """A score as it was given."""

    status: Status
    total: float | None
    raw: float | None
    parts: dict[str, float]
    answer: str | None
    message: str | None
    """None when it was not kept."""
    ms: float | None


def scores_after(db: sqlite3.Connection, step: int) -> dict[Key, RecordedScore]:
    """The scores of all later steps that are live. Those that the tables do not hold as they were (not finite, cut,
    cleaned of what SQLite cannot hold) are left out."""
    words: dict[int, Any] = {code: word for word, code in codes.STATUS.items()}
    unlike = codes.TEXT_CLEANED | codes.SCORE_NOT_FINITE | codes.MESSAGE_CUT
    parts: dict[int, dict[str, float]] = {}
    for rollout_id, name, value in db.execute(
        "SELECT p.rollout_id, n.name, p.value FROM score_parts p JOIN part_names n USING(part_id) "
        "JOIN rollouts r USING(rollout_id) JOIN steps s USING(step_id) WHERE s.live AND s.step > ?",
        (step,),
    ):
        parts.setdefault(rollout_id, {})[name] = value
    found: dict[Key, RecordedScore] = {}
    for rollout_id, *key, status, total, raw, answer, message, ms in db.execute(
        "SELECT r.rollout_id, r.policy_version, p.uid, r.sibling, r.text_sha, r.status, r.total, r.raw, r.answer, "
        "b.message, r.reward_ms FROM rollouts r JOIN steps s USING(step_id) JOIN prompts p USING(prompt_id) "
        "LEFT JOIN bodies b USING(rollout_id) WHERE s.live AND s.step > ? AND NOT r.flags & ? ORDER BY r.rollout_id",
        (step, unlike),
    ):
        version, uid, sibling, sha = key
        score = RecordedScore(words[status], total, raw, parts.get(rollout_id, {}), answer, message, ms)
        found.setdefault((version, uid, sibling, sha), score)
    return found
