"""A record stays within its budget, loses no number, and its log does not grow without end."""

from __future__ import annotations

import base64
import json
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from burnish.store import queries, room, sqlite
from burnish.store.room import size, step_bytes
from tests.recorded import judged, learning_step, rollout, step, store_at
from tests.reliability.recording import large_step, prose, shuffled

GROUPS, GROUP_SIZE, TOKENS, SCALE = 8, 16, 4096, 64
"""A step of 512 prompts x 16 completions x 4,096 tokens, with a 64th of its prompts."""
STEP_BUDGET = 20_000_000
"""Bytes of a step at full scale."""


def one(path: Path, statement: str) -> tuple:
    db = sqlite3.connect(path)
    try:
        return db.execute(statement).fetchone()
    finally:
        db.close()


@pytest.mark.slow
@pytest.mark.reliability(36)
def test_a_record_keeps_its_budget_and_every_number(tmp_path: Path, attempts: Callable[..., int]):
    steps = attempts(quick=60, long=200)
    tokens, token_groups, max_bytes = (4096, 4, 300_000_000) if steps == 200 else (256, 0, 2_200_000)
    path = tmp_path / "run.sqlite"
    made = [
        large_step(n, groups=GROUPS, group_size=GROUP_SIZE, tokens=tokens, source=shuffled(prose(), n))
        for n in range(4)
    ]
    largest = largest_log = 0
    with store_at(path, max_bytes=max_bytes, token_groups=token_groups) as store:
        for number in range(1, steps + 1):
            store.record(replace(made[number % 4], step=number))
            if number % 10 == 0:
                store.flush()
                largest = max(largest, path.stat().st_size)
                largest_log = max(largest_log, path.with_name("run.sqlite-wal").stat().st_size)
    assert 0.9 * max_bytes < max(largest, path.stat().st_size) <= 1.05 * max_bytes
    assert largest_log <= 16_000_000

    rollouts = GROUPS * GROUP_SIZE
    assert one(path, "SELECT count(*), count(raw), count(length) FROM rollouts") == (steps * rollouts,) * 3
    assert one(path, "SELECT count(*) FROM score_parts") == (3 * steps * rollouts,)
    assert one(path, "SELECT min(n), max(n) FROM (SELECT count(*) AS n FROM metrics GROUP BY step_id)")[0] > 5
    (left,) = one(path, "SELECT count(*) FROM bodies")
    assert 0 < left < one(path, "SELECT sum(n_bodies) FROM steps")[0]
    (dropped,) = one(path, "SELECT sum(value) FROM events WHERE kind = 'store/dropped'")
    assert dropped + left == one(path, "SELECT sum(n_bodies) FROM steps")[0]
    (below,) = one(path, "SELECT max(json_extract(data, '$.below')) FROM events WHERE kind = 'store/dropped'")
    assert below <= one(path, "SELECT min(rollout_id) FROM bodies")[0]


@pytest.mark.slow
@pytest.mark.reliability(36)
def test_a_step_at_full_scale_is_within_its_budget(tmp_path: Path, record_property: Callable[[str, object], None]):
    path, steps = tmp_path / "run.sqlite", 4
    made = [
        large_step(n, groups=GROUPS, group_size=GROUP_SIZE, tokens=TOKENS, source=shuffled(prose(), n))
        for n in range(steps)
    ]
    store_at(path).close()
    empty = path.stat().st_size
    with store_at(path) as store:
        for number, found in enumerate(made, start=1):
            store.record(replace(found, step=number))
    whole = "rollout_id IN (SELECT rollout_id FROM tokens)"
    arrays = ("ids", "n_bytes", "old", "learner", "new", "entropy", "push", "clip", "mask")
    (of_tokens,) = one(path, f"SELECT sum({' + '.join(f'coalesce(length({a}), 0)' for a in arrays)}) FROM tokens")
    (of_whole,) = one(path, f"SELECT sum(length(text)) FROM bodies WHERE {whole}")
    (of_others,) = one(path, f"SELECT sum(length(text)) FROM bodies WHERE NOT {whole}")
    bodies = of_whole + of_others
    rest = path.stat().st_size - empty - of_tokens - bodies
    slack = 1 + rest / (of_tokens + bodies)  # pages that are not full, counted as if all of them were text's
    whole_groups, others = 4, GROUPS - 4
    full = of_tokens + of_whole + of_others * (GROUPS * SCALE - whole_groups) / others
    full = full * slack / steps
    print(f"512 x 16 x 4,096 tokens: {size(full)} a step, {size(1000 * full)} for 1,000 steps")
    record_property("bytes_per_step", full)
    assert full <= STEP_BUDGET
    expected = step_bytes(groups=GROUPS * SCALE, group_size=GROUP_SIZE, tokens=TOKENS, token_groups=4)
    assert 0.75 * expected <= full <= 1.05 * expected


def test_numbers_alone_over_the_limit_are_kept_and_said_once(tmp_path: Path):
    path, heard = tmp_path / "run.sqlite", list[str]()
    with store_at(path, max_bytes=1000, warn=heard.append) as store:
        for number in (1, 2, 3):
            store.record(learning_step(number))
    assert one(path, "SELECT count(*) FROM rollouts") == (3 * 128,)
    assert one(path, "SELECT count(*) FROM bodies") == (0,)
    assert heard == [
        "the record is over store.max_bytes=1000 with its numbers alone, which are never dropped; it goes on growing"
    ]
    assert one(path, "SELECT count(*) FROM events WHERE kind = 'store/full'") == (1,)


def test_dropping_text_costs_the_log_nothing_near_what_it_frees(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    source = prose()
    rollouts = [rollout(text=source[i * 100 :][:60_000], raw=float(i % 2)) for i in range(16)]
    store = store_at(path, token_groups=0)
    store.record(step(1, *[judged(*rollouts, id=i) for i in range(8)], metrics={}))
    store.flush()
    db = store._db
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    before = room.used_bytes(db)
    with sqlite.Transaction(db):
        dropped = room.make_room(db, before // 4)
    assert dropped is not None
    freed = before - room.used_bytes(db)
    assert freed > before / 2
    assert path.with_name("run.sqlite-wal").stat().st_size < freed / 10
    store.close()


def test_a_dropped_text_is_told_from_one_that_was_not_kept(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path, max_bytes=600_000) as store:
        for number in range(1, 16):
            store.record(learning_step(number))
    with queries.open_store(path) as db:
        events = [json.loads(e["data"]) for e in queries.events(db) if e["kind"] == "store/dropped"]
        below = max(event["below"] for event in events)
        lost = (
            "SELECT max(r.rollout_id) FROM rollouts r LEFT JOIN bodies b USING(rollout_id) "
            "WHERE r.kept & 1 AND b.text IS NULL"
        )
        assert db.execute(lost).fetchone()[0] < below
        assert db.execute("SELECT count(*) FROM rollouts WHERE kept & 1 AND rollout_id < ?", (below,)).fetchone() == (
            sum(event["bodies"] for event in events),
        )


# -- the write-ahead log -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.reliability(37)
def test_a_reader_that_stays_is_named_holds_nobody_up_and_leaves_no_log_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: Callable[..., int]
):
    path, heard = tmp_path / "run.sqlite", list[str]()
    wal = path.with_name("run.sqlite-wal")
    steps = attempts(quick=8, long=100)
    limit, texts_per_step = (sqlite.WAL_LIMIT, 48) if steps == 100 else (5 * 2**20, 16)
    monkeypatch.setattr(sqlite, "WAL_LIMIT", limit)
    monkeypatch.setattr(sqlite, "TIDY_EVERY", 7)
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 600.0)  # a writer that waits for the reader does not end in time
    rng = random.Random(37)
    texts = [base64.b64encode(rng.randbytes(80_000)).decode() for _ in range(texts_per_step)]  # hardly compressible
    large = step(1, *[judged(*map(_long, texts[i : i + 16]), id=i) for i in range(0, texts_per_step, 16)], metrics={})
    store = store_at(path, warn=heard.append)
    store.record(replace(large, step=1))
    store.flush()
    reader = queries.open_store(path)
    reader.execute("BEGIN")
    assert len(queries.steps(reader)) == 1
    for number in range(2, steps + 2):
        store.record(replace(large, step=number))
        store.flush()
        assert bool(heard) == (wal.stat().st_size > limit)
    assert wal.stat().st_size > limit, "the reader held too little"
    assert len(heard) == 1
    assert f"{wal} has grown to" in heard[0]
    assert "a reader holds an old snapshot open" in heard[0]
    assert one(path, "SELECT count(*) FROM events WHERE kind = 'store/wal'") == (1,)
    assert len(queries.steps(reader)) == 1  # its snapshot is what it was
    reader.execute("COMMIT")
    assert len(queries.steps(reader)) == steps + 1
    store.record(learning_step(steps + 2))
    store.flush()
    assert wal.stat().st_size <= 4 * 2**20
    reader.close()
    store.close()


def _long(text: str):
    return rollout(text=text, ids=range(64))
