"""The file: what every connection that writes to it sets, its schema, and whether it may be written by this version."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from burnish.store import codes
from burnish.store.filesystem import journal_mode
from burnish.store.sql import named

BUSY_SECONDS = 10.0
"""How long a connection waits for another's lock. The writer's are short: one step."""
SCHEMA = Path(__file__).with_name("schema.sql")


class Transaction:
    """All or nothing. IMMEDIATE: a transaction that reads first and asks for the write lock later gets `database is
    locked` at once, without waiting, when another has written in between."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # also when there was no room for the commit
                self._db.execute("ROLLBACK")


def connect(path: Path) -> sqlite3.Connection:
    """A connection that writes, in autocommit mode. It may be handed to another thread."""
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def version_of(db: sqlite3.Connection, path: Path) -> int | None:
    """The schema version of a store; None for an empty file.

    Raises:
        ValueError: it is another SQLite file, or of a version that is newer than this program's.
    """
    if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
        return None
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != codes.APPLICATION_ID:
        raise ValueError(f"{path} is an SQLite file, but not a store of a run; give another path")
    if version > codes.SCHEMA_VERSION:
        raise ValueError(
            f"{path} is a store of version {version}, and this burnish reads up to version {codes.SCHEMA_VERSION}. "
            "Install the burnish that wrote it, or a newer one"
        )
    return version


def set_up(db: sqlite3.Connection, path: Path, warn: Callable[[str], None]) -> None:
    """Set what holds for a connection that writes.

    `synchronous = NORMAL`: a kill of the process loses nothing; a power failure may lose the latest transactions, whole
    ones, and never damages the file. `SQLiteStore.flush` asks the disk to keep them, so a checkpoint never knows a step
    that the record forgot, and FULL would pay a sync per transaction for nothing more.
    """
    wanted = journal_mode(path)
    (mode,) = db.execute(named("PRAGMA journal_mode = {}", wanted)).fetchone()
    if mode.upper() != "WAL":
        why = "is on a network file system" if wanted != "WAL" else "cannot be shared through a write-ahead log"
        warn(
            f"{path} {why}: readers and the writer take turns (journal_mode={mode}). For a record that can be read at "
            "any time, type out= with a folder on a local disk"
        )
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA secure_delete = OFF")  # where it is on, dropping old text would write as much as it frees


def create(db: sqlite3.Connection) -> None:
    """The tables of this version, in an empty file. Within a transaction."""
    for statement in statements():
        db.execute(statement)
    write_constants(db)


def write_constants(db: sqlite3.Connection) -> None:
    """What the schema holds beside tables: codes, bins and version. Within a transaction."""
    db.executemany("INSERT INTO codes VALUES (?,?,?)", codes.code_rows())
    db.executemany(
        "INSERT INTO hist_kinds VALUES (?,?,?,?)", [(h.what, h.name, h.scale, h.width) for h in codes.HISTOGRAMS]
    )
    db.execute(named("PRAGMA application_id = {}", codes.APPLICATION_ID))
    db.execute(named("PRAGMA user_version = {}", codes.SCHEMA_VERSION))


def statements() -> Iterator[str]:
    """The statements of the schema, one by one, so that they run within a transaction (`executescript` commits)."""
    piece = ""
    for line in SCHEMA.read_text(encoding="utf-8").splitlines(keepends=True):
        piece += line
        if sqlite3.complete_statement(piece):
            yield piece.strip()
            piece = ""
