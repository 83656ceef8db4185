"""What an attempt to continue a run says of the attempt before it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from burnish.store import queries

REASON_CHARACTERS = 100


def told(store: Path, checkpoint: str | None, step: int) -> str:
    """How the previous attempt ended, where this one begins, and what will be repeated: one sentence.

    Args:
        store: the record, which may be missing.
        checkpoint: the name of the one that is taken; None where there is none yet.
        step: where this attempt begins.
    """
    begins = f"resuming from {checkpoint}" if checkpoint else "there is no checkpoint yet, so it starts over"
    if not store.is_file():
        return begins
    with closing(queries.open_store(store)) as db:
        attempts, last = queries.attempts(db), queries.last_step(db)
    if not attempts:
        return begins
    repeated = max(0, last - step)
    steps = {0: "no step", 1: "1 step"}.get(repeated, f"{repeated} steps")
    return f"previous attempt ended {_how(attempts[-1])} after step {last}; {begins}; {steps} will be repeated"


def _how(attempt: dict) -> str:
    if attempt["ended"] is None:
        return "without a record"
    if attempt["exit_code"] == 0:
        return "as planned"
    reason = str(attempt["reason"] or "with an error").strip(": \n")
    return f"({reason if len(reason) <= REASON_CHARACTERS else reason[:REASON_CHARACTERS] + '...'})"
