"""A record that is being written, read and killed: no acknowledged step is lost, and nobody sees half of one.

Processes are forked from this one, which has no connection open: SQLite's locks belong to processes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.synchronize import Event as Stop
from pathlib import Path

import pytest

from burnish.lock import InUseError
from burnish.store import queries
from burnish.store.sqlite import SQLiteStore
from tests.recorded import PARTS, RUN, evaluation, learning_step, store_at

FORK = multiprocessing.get_context("fork")
GROUPS, GROUP_SIZE = 4, 4
MADE = [learning_step(n, groups=GROUPS, group_size=GROUP_SIZE, tokens=8) for n in range(12)]

WHOLE = f"""
SELECT (SELECT count(*) FROM steps WHERE live) - (SELECT coalesce(max(step), 0) FROM steps WHERE live),
  (SELECT count(*) FROM rollouts) - coalesce(sum(n_rollouts), 0),
  (SELECT count(*) FROM rollouts) - {GROUPS * GROUP_SIZE} * count(*),
  (SELECT count(*) FROM groups) - {GROUPS} * count(*),
  (SELECT coalesce(sum(n), 0) FROM step_status) - coalesce(sum(n_rollouts), 0),
  (SELECT count(*) FROM bodies) - coalesce(sum(n_bodies), 0),
  (SELECT count(*) FROM tokens) - coalesce(sum(n_token_arrays), 0),
  (SELECT count(DISTINCT step_id) FROM metrics) - count(*),
  (SELECT coalesce(sum(n_groups), 0) FROM prompt_stats) - {GROUPS} * coalesce(sum(live), 0)
FROM steps
"""
"""Zeros when every step there is, is there whole, and live steps are 1, 2, ..., each once. In one statement: readers
see the same moment everywhere."""


def open_again(path: Path) -> SQLiteStore:
    return SQLiteStore(path, run=RUN, parts=PARTS, raw_range=(-1.0, 1.0), seed=1)


def write(path: Path, after: int, acknowledged: Path, stop: Stop | None = None) -> None:
    """Record steps after `after` until killed or told to stop, saying of each when it is on the disk."""
    store = open_again(path)
    store.open_attempt(after)
    said = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = after
    while stop is None or not stop.is_set():
        number += 1
        store.record(replace(MADE[number % len(MADE)], step=number))
        if number % 5 == 0:
            store.record_evaluation(evaluation(number))
        if number % 3 == 0:
            store.flush()
            os.write(said, f"{number}\n".encode())
    store.close()


def read(path: Path, stop: Stop, report: Path) -> None:
    """Ask whether all is whole, again and again; report how often, and all that was wrong."""
    asked, wrong = 0, list[str]()
    db: sqlite3.Connection | None = None
    while not stop.is_set():
        try:
            if db is None or asked % 10 == 0:
                db = queries.open_store(path)
            found = db.execute(WHOLE).fetchone()
            if any(found):
                wrong.append(f"not whole: {found}")
            [len(queries.rollouts_of_step(db, point.step)) for point in queries.metric_curve(db, "loss")[-2:]]
        except Exception as error:
            wrong.append(repr(error))
        asked += 1
    report.write_text("\n".join([str(asked), *wrong]))


def numbers(path: Path) -> list[int]:
    """Whole lines of what a killed process said."""
    text = path.read_text() if path.exists() else ""
    return [int(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def readers(path: Path, count: int, stop: Stop) -> list[tuple[multiprocessing.process.BaseProcess, Path]]:
    started = []
    for index in range(count):
        report = path.with_name(f"reader-{index}")
        process = FORK.Process(target=read, args=(path, stop, report))
        process.start()
        started.append((process, report))
    return started


def finish(reading: list[tuple[multiprocessing.process.BaseProcess, Path]], stop: Stop) -> None:
    """Stop the readers; each asked, and heard of nothing wrong."""
    stop.set()
    for process, report in reading:
        process.join(60)
        asked, *wrong = report.read_text().splitlines()
        assert int(asked) > 0
        assert wrong == []


@pytest.mark.slow
@pytest.mark.reliability(17)
def test_a_kill_at_any_moment_loses_no_acknowledged_step_and_no_reader_sees_half_of_one(
    tmp_path: Path, attempts: Callable[..., int]
):
    path = tmp_path / "run.sqlite"
    store_at(path).close()
    rng, stop, last = random.Random(17), FORK.Event(), 0
    reading = readers(path, 4, stop)
    for kill in range(attempts(quick=4, long=50)):
        acknowledged = tmp_path / f"acknowledged-{kill}"
        writer = FORK.Process(target=write, args=(path, last, acknowledged))
        writer.start()
        if kill % 2:
            wait_for(lambda found=acknowledged: numbers(found) != [])
        time.sleep(rng.random() / 4)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
        said = numbers(acknowledged)
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert not any(db.execute(WHOLE).fetchone())
        (recorded,) = db.execute("SELECT coalesce(max(step), 0) FROM steps WHERE live").fetchone()
        db.close()
        assert recorded >= max(said, default=last)
        last = rng.choice([*said, recorded, max(0, recorded - 4)])  # a checkpoint may be older than the record
    finish(reading, stop)


@pytest.mark.reliability(17)
def test_a_kill_while_the_file_is_made_leaves_one_that_can_be_opened(tmp_path: Path, attempts: Callable[..., int]):
    for kill in range(attempts(quick=5, long=40)):
        path = tmp_path / f"{kill}.sqlite"
        writer = FORK.Process(target=write, args=(path, 0, tmp_path / f"acknowledged-{kill}"))
        writer.start()
        time.sleep(random.Random(kill).random() / 25)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        with store_at(path) as store:
            store.record(replace(MADE[0], step=1))
        with queries.open_store(path) as db:
            assert not any(db.execute(WHOLE).fetchone())
            assert [row["step"] for row in queries.steps(db)] == [1]


def stray(path: Path, stop: Stop, report: Path) -> None:
    """Try to become a second writer, again and again; report every answer."""
    answers = set[str]()
    while not stop.is_set():
        try:
            open_again(path).close()
            answers.add("opened")
        except InUseError as error:
            answers.add(str(error).partition(" on host ")[0])
        except Exception as error:
            answers.add(repr(error))
        time.sleep(0.01)
    report.write_text("\n".join(sorted(answers)))


def meddle(path: Path, stop: Stop, report: Path) -> None:
    """Write with a plain connection, as a person with `sqlite3` might, in short transactions."""
    wrong, written = list[str](), 0
    while not stop.is_set():
        db = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE runs SET name = name || 'x'")
            time.sleep(0.005)
            db.execute("ROLLBACK" if written % 2 else "COMMIT")
            written += 1
        except sqlite3.Error as error:
            wrong.append(repr(error))
        db.close()
        time.sleep(0.01)
    report.write_text("\n".join([str(written), *wrong]))


@pytest.mark.slow
@pytest.mark.reliability(18)
def test_one_writer_eight_readers_and_strays_for_a_while_and_nobody_finds_the_record_locked(
    tmp_path: Path, attempts: Callable[..., int]
):
    path, acknowledged = tmp_path / "run.sqlite", tmp_path / "acknowledged"
    store_at(path).close()
    stop = FORK.Event()
    writer = FORK.Process(target=write, args=(path, 0, acknowledged, stop))
    writer.start()
    wait_for(lambda: numbers(acknowledged) != [])
    reading = readers(path, 8, stop)
    strays = [FORK.Process(target=f, args=(path, stop, tmp_path / f.__name__)) for f in (stray, meddle)]
    for process in strays:
        process.start()
    seconds = attempts(quick=2, long=60)
    time.sleep(seconds)
    finish(reading, stop)
    for process in (writer, *strays):
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "stray").read_text() == f"{path} is in use by pid {writer.pid}"
    written, *wrong = (tmp_path / "meddle").read_text().splitlines()
    assert (int(written) > 0, wrong) == (True, [])
    assert max(numbers(acknowledged)) > 3 * seconds
    with queries.open_store(path) as db:
        assert not any(db.execute(WHOLE).fetchone())


def test_a_second_store_in_the_same_process_is_refused_until_the_first_is_closed(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    first = store_at(path)
    with pytest.raises(InUseError, match="by this process already"):
        open_again(path)
    first.record(MADE[0])
    first.close()
    open_again(path).close()
    assert [found.name for found in tmp_path.iterdir()] == ["run.sqlite"]


def test_a_store_that_cannot_be_opened_gives_its_lock_back(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    path.write_text("no database" * 100)
    for _ in range(2):
        with pytest.raises(OSError, match="burnish store rebuild"):
            open_again(path)
    assert [found.name for found in tmp_path.iterdir()] == ["run.sqlite"]


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():  # the test's own time limit ends a wait in vain
        time.sleep(0.005)
