"""Every released schema is brought to this one with all its rows, and a kill leaves the old version or the new one.

`tests/unit/stores/version-N.sqlite.gz` is a store as the last program of schema version N wrote it: two attempts, a
superseded step, faults, numbers that are not finite, evaluations, an event. They are never made again.
"""

from __future__ import annotations

import gzip
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.errors import StorageError
from burnish.store import codes, queries
from burnish.store.migrate import migrate
from burnish.store.opening import connect, set_up
from burnish.store.sqlite import SQLiteStore
from tests.recorded import PARTS, RUN, learning_step, store_at

RELEASED = sorted((Path(__file__).parents[1] / "unit" / "stores").glob("version-*.sqlite.gz"))
CONSTANTS = ("codes", "hist_kinds")
OPS = 20
"""Instructions of SQLite's virtual machine between two looks at whether it is time to be killed."""


@pytest.fixture(params=RELEASED, ids=lambda path: path.name.removesuffix(".sqlite.gz"))
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "run.sqlite"
    path.write_bytes(gzip.decompress(request.param.read_bytes()))
    return path


def content(path: Path, like: Path | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that runs fill, of the columns that `like` has."""
    db, other = sqlite3.connect(path), sqlite3.connect(like or path)
    tables = other.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").fetchall()
    found = {}
    for (table,) in tables:
        if table not in CONSTANTS:
            names = ", ".join(row[1] for row in other.execute(f"PRAGMA table_info({table})"))
            found[table] = sorted(db.execute(f"SELECT {names} FROM {table}"), key=repr)
    db.close()
    other.close()
    return found


def schema(path: Path) -> list[tuple[str, str]]:
    db = sqlite3.connect(path)
    rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").fetchall()
    rows += db.execute("SELECT kind || code, word FROM codes ORDER BY 1").fetchall()
    rows += [(name, db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version")]
    db.close()
    return rows


def version(path: Path) -> int:
    db = sqlite3.connect(path)
    (found,) = db.execute("PRAGMA user_version").fetchone()
    db.close()
    return found


def open_for_writing(path: Path, heard: list[str] | None = None) -> SQLiteStore:
    warn = (heard if heard is not None else []).append
    return SQLiteStore(path, run=RUN, parts=PARTS, raw_range=(-1.0, 1.0), seed=1, warn=warn)


def test_there_is_a_store_of_every_older_version():
    assert [path.name for path in RELEASED] == [f"version-{n}.sqlite.gz" for n in range(1, codes.SCHEMA_VERSION)]


def test_an_older_store_becomes_one_of_this_version_with_every_row(old: Path, tmp_path: Path):
    original = tmp_path / "original"
    original.write_bytes(old.read_bytes())
    heard: list[str] = []
    open_for_writing(old, heard).close()
    store_at(tmp_path / "fresh").close()
    assert schema(old) == schema(tmp_path / "fresh")
    assert content(old, like=original) == content(original)
    before = version(original)
    copy = old.with_name(f"run.sqlite.v{before}")
    assert heard == [f"brought {old} from version {before} to {codes.SCHEMA_VERSION}; as it was, it is in {copy}"]
    assert version(copy) == before
    assert content(copy) == content(original)


def test_a_migrated_store_goes_on(old: Path):
    db = sqlite3.connect(old)
    (last,) = db.execute("SELECT max(step) FROM steps WHERE live").fetchone()
    db.close()
    with open_for_writing(old) as store:
        store.open_attempt(last)
        store.record(learning_step(last + 1))
    with queries.open_store(old) as found:
        assert [row["step"] for row in queries.steps(found)] == list(range(1, last + 2))
        assert found.execute("PRAGMA foreign_key_check").fetchall() == []
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_reader_of_an_older_store_is_told_what_to_type(old: Path):
    with pytest.raises(ValueError, match=rf"version {version(old)}, .*burnish store migrate {old.parent}"):
        queries.open_store(old)


@pytest.mark.parametrize("opened", [open_for_writing, queries.open_store])
def test_a_newer_store_is_refused_by_its_version_and_not_touched(tmp_path: Path, opened: Callable[[Path], object]):
    path = tmp_path / "run.sqlite"
    store_at(path).close()
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {codes.SCHEMA_VERSION + 7}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"store of version {codes.SCHEMA_VERSION + 7}"):
        opened(path)
    assert path.read_bytes() == before


def test_without_room_for_the_copy_nothing_is_begun(old: Path, monkeypatch: pytest.MonkeyPatch):
    before, was = content(old), version(old)
    monkeypatch.setattr("shutil.disk_usage", lambda path: _Usage(100))
    with pytest.raises(StorageError, match=r"takes? up to [\d,]+ bytes, and 100 are free"):
        open_for_writing(old)
    assert (content(old), version(old)) == (before, was)


class _Usage:
    def __init__(self, free: int) -> None:
        self.free = free


def test_a_row_that_refers_to_nothing_stops_the_migration_and_undoes_it(old: Path):
    db = sqlite3.connect(old)
    with db:
        db.execute("INSERT INTO bodies VALUES (987654, x'00', NULL)")
    db.close()
    before = content(old)
    with pytest.raises(StorageError, match=r"1 rows refer to rows that are not there, the first in bodies to rollouts"):
        open_for_writing(old)
    assert content(old) == before
    assert version(old) < codes.SCHEMA_VERSION


@pytest.mark.reliability(35)
def test_a_kill_at_any_moment_leaves_the_old_version_or_the_new_one(
    old: Path, tmp_path: Path, attempts: Callable[..., int]
):
    original = tmp_path / "original"
    original.write_bytes(old.read_bytes())
    expected = content(original)
    length = work(original)
    rng = random.Random(35)
    kills = attempts(quick=3, long=10)
    for kill in range(kills):
        old.write_bytes(original.read_bytes())
        moment = int(length * (kill + rng.random()) / kills)
        assert killed_after(old, moment) == -signal.SIGKILL
        assert version(old) in (version(original), codes.SCHEMA_VERSION)
        assert content(old, like=original) == expected
        open_for_writing(old).close()
        assert version(old) == codes.SCHEMA_VERSION
        assert content(old, like=original) == expected
        for left in old.parent.glob("run.sqlite.*"):
            left.unlink()


def work(path: Path) -> int:
    """How often the migration of a copy of the file looks whether it is time."""
    copy = path.with_name("measured")
    copy.write_bytes(path.read_bytes())
    looks = [0]

    def look() -> int:
        looks[0] += 1
        return 0

    migrate_watched(copy, look)
    return looks[0]


def killed_after(path: Path, moment: int) -> int:
    """Migrate in a child that kills itself at that look; the child's exit code."""
    child = os.fork()
    if child == 0:
        left = [moment]

        def look() -> int:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return 0

        try:
            migrate_watched(path, look)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def migrate_watched(path: Path, look: Callable[[], int]) -> None:
    db = connect(path)
    set_up(db, path, pytest.fail)
    found = db.execute("PRAGMA user_version").fetchone()[0]
    db.set_progress_handler(look, OPS)
    migrate(db, path, found)
    db.close()
