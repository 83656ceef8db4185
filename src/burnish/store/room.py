"""How large a record becomes, and keeping it under its limit: the oldest text goes, numbers stay.

Every rollout has a row of numbers for good. Bodies and token arrays are most of the bytes; when the file is over
`store.max_bytes`, those of the oldest steps are dropped, a tenth of what is there at a time, and an event says so. The
file does not shrink; what was freed is used again.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from burnish.store.keep import RANDOM_PER_GROUP
from burnish.store.sql import named

ROLLOUT_BYTES = 190
"""Row of a rollout with three parts of its score, its index entries, and its share of a group and of rollups."""
TEXT_BYTES = 1.75
"""Per token of a body: 4.1 characters of English, compressed, in pages of the file."""
TOKEN_BYTES = 12.0
"""Per token of the token arrays: 6 where a rollout was not trained on, 17 where it was."""
STEP_BYTES = 16_000
"""Metrics, histograms and extremes of a step."""
KEPT_PER_GROUP = 2 + RANDOM_PER_GROUP
"""Bodies of a group without faults: best, worst, and random ones."""


def step_bytes(*, groups: int, group_size: int, tokens: int, token_groups: int) -> int:
    """About how much a step adds to the record when every completion has `tokens` tokens of English: an upper figure.

    Example: 512 groups of 16 completions of 4,096 tokens, 4 of the groups with token arrays: 20 MB.
    """
    whole = min(groups, token_groups)
    bodies = whole * group_size + (groups - whole) * min(group_size, KEPT_PER_GROUP)
    return round(
        STEP_BYTES
        + groups * group_size * ROLLOUT_BYTES
        + bodies * tokens * TEXT_BYTES
        + whole * group_size * tokens * TOKEN_BYTES
    )


def size(num_bytes: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"


@dataclass(frozen=True, slots=True)
class Dropped:
    bodies: int
    token_arrays: int
    below: int
    """Rollouts with a smaller id have lost theirs."""


def used_bytes(db: sqlite3.Connection) -> int:
    """What the record takes, without pages that wait to be used again."""
    pages, free, size = (
        db.execute(named("PRAGMA {}", name)).fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def make_room(db: sqlite3.Connection, max_bytes: int) -> Dropped | None:
    """Drop the oldest bodies and token arrays until the record is under its limit or has none left. Within a
    transaction. None when there was nothing to drop."""
    bodies = token_arrays = bound = 0
    while used_bytes(db) > max_bytes:
        first, last = db.execute("SELECT min(rollout_id), max(rollout_id) FROM bodies").fetchone()
        if first is None:
            break
        bound = first + (last - first) // 10 + 1
        bodies += db.execute("DELETE FROM bodies WHERE rollout_id < ?", (bound,)).rowcount
        token_arrays += db.execute("DELETE FROM tokens WHERE rollout_id < ?", (bound,)).rowcount
    return Dropped(bodies, token_arrays, bound) if bodies else None
