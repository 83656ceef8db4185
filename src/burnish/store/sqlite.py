"""The store: one SQLite file per run, written by one thread.

    trainer -> record(...) -> queue -> writer thread -> BEGIN IMMEDIATE ... COMMIT -> file (WAL) <- readers, mode=ro

`record` hands over and returns; rows are made and written beside the training. The queue is short, so a disk that
cannot keep up slows the run and never fills the memory. What goes wrong in the thread is raised by the next call.
Resuming supersedes: `open_attempt(k)` takes `live` from the steps after k and deletes nothing.

`schema.sql` is the interface to all readers. A file of another schema version is refused.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from burnish.errors import StorageError
from burnish.records import Evaluation, Event, StepRecord
from burnish.store import codes
from burnish.store.filesystem import journal_mode
from burnish.store.text import clean, json_text
from burnish.store.writing import Policy, TokenBytes, Writer

RUN_KEYS = ("run_id", "name", "objective", "config", "data", "packages", "code", "host")
BUSY_SECONDS = 10.0
QUEUED_STEPS = 2
"""Steps that may wait to be written before `record` waits too."""
TIDY_EVERY = 50
"""Transactions between full checkpoints of the write-ahead log."""
WAL_LIMIT = 256 * 2**20
"""Bytes of write-ahead log over which a reader must be holding it."""

_Job = Callable[[sqlite3.Connection], None]


class SQLiteStore:
    """Implements `protocols.Store`.

    Example:
        parts = {"answer": (1.0, True)}
        with SQLiteStore(path, run=info, parts=parts, raw_range=(-1.0, 1.0), seed=1) as store:
            store.open_attempt(0)
            store.record(step)
    """

    def __init__(
        self,
        path: Path,
        *,
        run: Mapping[str, Any],
        parts: Mapping[str, tuple[float | None, bool | None]],
        raw_range: tuple[float, float],
        seed: int,
        token_bytes: TokenBytes | None = None,
        max_bytes: int = 10 * 2**30,
    ) -> None:
        """Create or open the file.

        `run`: `RUN_KEYS` -> value; what is not text is written as JSON. `parts`: reward part -> (weight, whether it is
        the task metric). `raw_range`: lowest and highest raw score, the scale of `steps.group_strip`. `seed` decides
        which random rollouts are kept. `token_bytes`: token ids -> bytes of text of each; without it `tokens.n_bytes`
        is NULL. Over `max_bytes` the oldest bodies and token arrays are dropped, with an event that says so.

        Raises:
            ValueError: `run` lacks a key; the file is no store, is of another version, or records another run.
            StorageError: the file cannot be created or opened.
        """
        self.path = path
        self._max_bytes = max_bytes
        self._attempt: int | None = None
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maxsize=QUEUED_STEPS)
        self._error: BaseException | None = None
        self._raised = self._closed = False
        self._written = 0
        try:
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise StorageError(f"cannot open the store {path}: {error}") from error
        try:
            _prepare(self._db, path)
            with _Transaction(self._db):
                _write_run(self._db, path, run, raw_range)
                self._writer = Writer(self._db, Policy(seed, *raw_range, token_bytes), parts)
        except Exception as error:
            self._db.close()
            if isinstance(error, sqlite3.Error):
                raise StorageError(f"cannot open the store {path}: {error}") from error
            raise
        self._thread = threading.Thread(target=self._work, name="burnish-store", daemon=True)
        self._thread.start()

    def open_attempt(self, from_step: int, *, reason: str | None = None, config_diff: str | None = None) -> int:
        """Start an attempt that continues after `from_step`; returns its number, from 1.

        Later steps of earlier attempts are superseded: they stay, without `live`. Waits until that is written.
        """
        opened: list[int] = []

        def job(db: sqlite3.Connection) -> None:
            now = time.time()
            cursor = db.execute(
                "INSERT INTO attempts(started, beat, from_step, reason, config_diff) VALUES (?,?,?,?,?)",
                (now, now, from_step, reason, config_diff),
            )
            opened.append(cursor.lastrowid or 0)
            superseded = db.execute("UPDATE steps SET live = 0 WHERE live AND step > ?", (from_step,)).rowcount
            if superseded:
                self._writer.restart(db)
            (last,) = db.execute("SELECT coalesce(max(step), 0) FROM steps WHERE live").fetchone()
            if last < from_step:
                message = f"steps {last + 1} to {from_step} are missing from the record"
                self._writer.event(db, Event("gap", message, severity=2, step=from_step), opened[0], now)

        self._put(job)
        self.flush()
        self._attempt = opened[0]
        return self._attempt

    def record(self, step: StepRecord, /) -> None:
        """Queue one step; it is written whole or not at all.

        Raises:
            StorageError: an earlier call could not be written.
        """
        attempt = self._current()
        self._put(lambda db: self._writer.step(db, step, attempt), f"step {step.step}")

    def record_evaluation(self, evaluation: Evaluation, /) -> None:
        attempt = self._current()
        what = f"the evaluation after step {evaluation.step}"
        self._put(lambda db: self._writer.evaluation(db, evaluation, attempt), what)

    def record_event(self, event: Event, /) -> None:
        attempt, now = self._current(), time.time()
        self._put(lambda db: self._writer.event(db, event, attempt, now), f"the event {event.kind!r}")

    def beat(self) -> None:
        """Say that the run is alive; every transaction says so too."""
        self._current()
        self._put(lambda db: None, "the beat")

    def flush(self) -> None:
        """Wait until all that was recorded is in the file. Call it before a checkpoint: a run must not continue from
        a step that its record lacks.

        Raises:
            StorageError: something could not be written.
        """
        self._jobs.join()
        self._raise()

    def end_attempt(self, exit_code: int, reason: str | None = None) -> None:
        """Write how the attempt ended. An attempt without an end was killed, or its store could not be written; then
        this does nothing, so that it never hides why, and `close` says what went wrong if nothing has said it yet.
        """
        attempt = self._current()
        if self._error is not None:
            return
        statement = "UPDATE attempts SET ended = ?, exit_code = ?, reason = coalesce(?, reason) WHERE attempt = ?"
        values = (time.time(), exit_code, reason, attempt)
        self._put(lambda db: db.execute(statement, values) and None, "the end of the attempt")

    def close(self) -> None:
        """Write what is queued and close the file. Closing twice is closing once.

        Raises:
            StorageError: something could not be written, and no call has said so yet.
        """
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._db.close()
        if not self._raised:
            self._raise()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the writer thread ---------------------------------------------------------------------------------------------

    def _put(self, job: _Job, what: str = "the attempt") -> None:
        assert not self._closed, f"{self.path} is closed"
        self._raise()

        def named(db: sqlite3.Connection) -> None:
            try:
                job(db)
            except Exception as error:
                raise StorageError(f"cannot write {what} to the store {self.path}: {error}") from error

        self._jobs.put(named)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None:
                    self._write(job)
            except Exception as error:
                self._error = error
            finally:
                self._jobs.task_done()

    def _write(self, job: _Job) -> None:
        try:
            with _Transaction(self._db):
                job(self._db)
                self._db.execute("UPDATE attempts SET beat = ? WHERE attempt = ?", (time.time(), self._attempt))
                self._make_room()
            self._written += 1
            if self._written % TIDY_EVERY == 0:
                self._tidy()
        except sqlite3.Error as error:
            raise StorageError(f"cannot write to the store {self.path}: {error}") from error

    def _make_room(self) -> None:
        """Drop the bodies and token arrays of the oldest tenth of the steps that have any, while over the limit."""
        pages, free, size = (
            self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        if (pages - free) * size <= self._max_bytes or self._attempt is None:
            return
        first, last = self._db.execute("SELECT min(rollout_id), max(rollout_id) FROM bodies").fetchone()
        if first is None:
            return
        bound = first + (last - first) // 10 + 1
        dropped = self._db.execute("DELETE FROM bodies WHERE rollout_id < ?", (bound,)).rowcount
        self._db.execute("DELETE FROM tokens WHERE rollout_id < ?", (bound,))
        message = f"the store is over {self._max_bytes:,} bytes: dropped the text of {dropped:,} rollouts below {bound}"
        self._writer.event(self._db, Event("store/dropped", message, value=dropped), self._attempt, time.time())

    def _tidy(self) -> None:
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        wal = self.path.with_name(self.path.name + "-wal")
        size = wal.stat().st_size if wal.exists() else 0
        if size > WAL_LIMIT and self._attempt is not None:
            message = f"{wal} has grown to {size:,} bytes: a reader holds an old snapshot open"
            with _Transaction(self._db):
                event = Event("store/wal", message, severity=2, value=size, threshold=WAL_LIMIT)
                self._writer.event(self._db, event, self._attempt, time.time())

    def _current(self) -> int:
        assert self._attempt is not None, "open_attempt comes before anything is recorded"
        return self._attempt

    def _raise(self) -> None:
        if self._error is not None:
            self._raised = True
            raise self._error


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._db.execute("COMMIT")
        elif self._db.in_transaction:
            self._db.execute("ROLLBACK")


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the file a store of this version, or check that it is one."""
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if not empty and application != codes.APPLICATION_ID:
        raise ValueError(f"{path} is an SQLite file, but not a store of a run; give another path")
    if not empty and version != codes.SCHEMA_VERSION:
        raise ValueError(
            f"{path} is a store of version {version}, and this is burnish with version {codes.SCHEMA_VERSION}; "
            "continue the run with the burnish that started it"
        )
    db.execute(f"PRAGMA journal_mode = {journal_mode(path)}").fetchone()
    db.execute("PRAGMA synchronous = NORMAL")
    if empty:
        with _Transaction(db):
            for statement in _statements(Path(__file__).with_name("schema.sql").read_text()):
                db.execute(statement)
            db.executemany("INSERT INTO codes VALUES (?,?,?)", codes.code_rows())
            kinds = [(h.what, h.name, h.scale, h.width) for h in codes.HISTOGRAMS]
            db.executemany("INSERT INTO hist_kinds VALUES (?,?,?,?)", kinds)
            db.execute(f"PRAGMA application_id = {codes.APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {codes.SCHEMA_VERSION}")


def _statements(script: str) -> list[str]:
    """The statements of a script, so that they run within a transaction (`executescript` commits first)."""
    found, piece = [], ""
    for line in script.splitlines(keepends=True):
        piece += line
        if sqlite3.complete_statement(piece):
            found.append(piece)
            piece = ""
    return found


def _write_run(db: sqlite3.Connection, path: Path, run: Mapping[str, Any], raw_range: tuple[float, float]) -> None:
    if sorted(run) != sorted(RUN_KEYS):
        raise ValueError(f"`run` has the keys {sorted(run)}; it needs {sorted(RUN_KEYS)}")
    if not raw_range[0] < raw_range[1]:
        raise ValueError(f"raw_range is {raw_range}; it needs (lowest, highest) raw score, the first below the second")
    values = {key: clean(value if isinstance(value, str) else json_text(value))[0] for key, value in run.items()}
    recorded = db.execute("SELECT run_id FROM runs").fetchone()
    if recorded is not None and recorded[0] != values["run_id"]:
        raise ValueError(f"{path} records the run {recorded[0]!r}, not {values['run_id']!r}; use another folder")
    if recorded is None:
        config_sha = sha256(values["config"].encode()).hexdigest()
        db.execute(
            "INSERT INTO runs VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                values["run_id"], values["name"], time.time(), values["objective"], values["config"], config_sha,
                values["data"], values["packages"], values["code"], values["host"], *raw_range,
            ),
        )  # fmt: skip
