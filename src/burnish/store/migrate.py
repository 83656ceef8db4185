"""From an older schema to this one: forward only, a copy first, and in one transaction.

    run.sqlite (version 1) -> copy to run.sqlite.v1 -> BEGIN ... COMMIT -> run.sqlite (version 2)

Every table whose definition changed is made anew and filled with the columns that both versions have; a column that is
new holds its default. So an added column, table, index, view or foreign key needs nothing but the new `schema.sql` and
a higher `codes.SCHEMA_VERSION`; a change of what a column means needs its UPDATE here as well. A kill at any moment
leaves the old version or the new one, never a mixture: the version is part of the transaction.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from pathlib import Path

from burnish.errors import StorageError
from burnish.store import codes
from burnish.store.opening import Transaction, statements, write_constants
from burnish.store.sql import named

CONSTANTS = frozenset(("codes", "hist_kinds"))
"""Tables that this program fills, and no run."""


def migrate(db: sqlite3.Connection, path: Path, version: int) -> str:
    """Bring an open store of an older version to this one; returns a sentence that says so, with the copy's path.

    Raises:
        StorageError: there is no room for the copy, or rows refer to rows that do not exist. The store is as it was.
    """
    copy = path.with_name(f"{path.name}.v{version}")
    _copy(db, path, copy)
    db.execute("PRAGMA foreign_keys = OFF")  # tables come and go within the transaction; all are checked at its end
    db.execute("PRAGMA legacy_alter_table = ON")  # else references and views follow a table that is renamed
    try:
        with Transaction(db):
            _rebuild_changed_tables(db)
            write_constants(db)
            _check(db, path)
    finally:
        db.execute("PRAGMA legacy_alter_table = OFF")
        db.execute("PRAGMA foreign_keys = ON")
    return f"brought {path} from version {version} to {codes.SCHEMA_VERSION}; as it was, it is in {copy}"


def _copy(db: sqlite3.Connection, path: Path, copy: Path) -> None:
    """Copy the store, what is in its write-ahead log included, so that the copy is whole or has another name."""
    needed, free = path.stat().st_size, shutil.disk_usage(path.parent).free
    if free < 2 * needed:
        raise StorageError(
            f"cannot bring {path} to version {codes.SCHEMA_VERSION}: a copy and the change take up to "
            f"{2 * needed:,} bytes, and {free:,} are free. Free some space"
        )
    aside = copy.with_name(f"{copy.name}.tmp")
    aside.unlink(missing_ok=True)
    target = sqlite3.connect(aside)
    try:
        db.backup(target)
        target.execute("PRAGMA journal_mode = DELETE").fetchone()  # one file, that any program can take along
    finally:
        target.close()
    _sync(aside)
    aside.replace(copy)
    _sync(copy.parent)


def _rebuild_changed_tables(db: sqlite3.Connection) -> None:
    """Make the schema that of `schema.sql`, and keep every row."""
    there = {
        (kind, name): sql
        for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    }
    wanted = {_subject(statement): statement for statement in statements()}
    for kind, name in there:
        if kind in ("view", "index"):
            db.execute(named("DROP {} {}", kind.upper(), name))
    tables = [name for kind, name in there if kind == "table"]
    changed = [
        name for name in tables if name in CONSTANTS or _bare(there["table", name]) != _bare(wanted["table", name])
    ]
    for name in changed:
        db.execute(named("ALTER TABLE {} RENAME TO old_{}", name, name))
    for (kind, name), statement in wanted.items():
        if kind != "table" or name in changed or name not in tables:
            db.execute(statement)
    for name in changed:
        if name not in CONSTANTS:
            old, new = _columns(db, f"old_{name}"), _columns(db, name)
            both = ", ".join(column for column in new if column in old)
            db.execute(named("INSERT INTO {}({}) SELECT {} FROM old_{}", name, both, both, name))
        db.execute(named("DROP TABLE old_{}", name))


def _check(db: sqlite3.Connection, path: Path) -> None:
    wrong = db.execute("PRAGMA foreign_key_check").fetchall()
    if wrong:
        table, _, parent, _ = wrong[0]
        raise StorageError(
            f"{path} is damaged: {len(wrong):,} rows refer to rows that are not there, the first in {table} to "
            f"{parent}. Type `burnish store rebuild {path.parent}`"
        )


def _subject(statement: str) -> tuple[str, str]:
    """Kind and name of what a CREATE statement makes."""
    found = re.search(r"^CREATE (?:UNIQUE )?(TABLE|INDEX|VIEW) (\w+)", statement, re.M)
    assert found, statement
    return found[1].lower(), found[2]


def _bare(statement: str) -> str:
    """A statement without comments, line breaks and its semicolon."""
    return " ".join(re.sub(r"--[^\n]*", "", statement).split()).rstrip("; ")


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(named("PRAGMA table_info({})", table))]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
