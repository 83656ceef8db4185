"""The store: one SQLite file per run, written by one thread.

    trainer -> record(...) -> queue -> writer thread -> BEGIN IMMEDIATE ... COMMIT -> file (WAL) <- readers, mode=ro

`record` hands over and returns; rows are made and written beside the training. The queue is short, so a disk that
cannot keep up slows the run and never fills the memory. What goes wrong in the thread is raised by the next call.
Resuming supersedes: `open_attempt(k)` takes `live` from the steps after k and deletes nothing.

`schema.sql` is the interface to all readers. A file of an older version is brought to this one (`migrate.py`), one of
a newer version is refused. A second writer is refused by `<file>.lock`, whoever it is.
"""

from __future__ import annotations

import os
import queue
import socket
import sqlite3
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from burnish.errors import StorageError
from burnish.lock import Lock
from burnish.records import Evaluation, Event, StepRecord
from burnish.store.codes import SCHEMA_VERSION
from burnish.store.migrate import migrate
from burnish.store.opening import BUSY_SECONDS, Transaction, connect, create, set_up, version_of
from burnish.store.room import make_room, used_bytes
from burnish.store.sql import named
from burnish.store.text import clean, json_text
from burnish.store.writing import Policy, TokenBytes, Writer

RUN_KEYS = ("run_id", "name", "objective", "config", "data", "packages", "code", "host")
QUEUED_STEPS = 2
"""Steps that may wait to be written before `record` waits too."""
TIDY_EVERY = 50
"""Transactions between full checkpoints of the write-ahead log, which cut it to nothing."""
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
        token_groups: int = 4,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        """Create or open the file.

        `run`: `RUN_KEYS` -> value; what is not text is written as JSON. `parts`: reward part -> (weight, whether it is
        the task metric). `raw_range`: lowest and highest raw score, the scale of `steps.group_strip`. `seed` decides
        which random rollouts are kept. `token_bytes`: token ids -> bytes of text of each; without it `tokens.n_bytes`
        is NULL. Over `max_bytes` the oldest bodies and token arrays are dropped, with an event that says so.
        `token_groups`: groups of a step whose token arrays are kept. `warn` hears what a person should know now: from
        this thread while opening, from the writer's later.

        Raises:
            InUseError: another process writes to the file.
            ValueError: `run` lacks a key; the file is no store, is of a newer version, or records another run.
            StorageError: the file cannot be created, opened or brought to this version.
        """
        self.path = path
        self._max_bytes = max_bytes
        self._warn = warn
        self._attempt: int | None = None
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maxsize=QUEUED_STEPS)
        self._error: BaseException | None = None
        self._raised = self._closed = False
        self._written = 0
        self._full = self._stuck = False
        """Said already: numbers alone are over the limit; a reader holds the write-ahead log."""
        try:
            with ExitStack() as opened:
                self._lock = Lock(path.with_name(path.name + ".lock"), path, "Wait for its end")
                opened.callback(self._lock.release)
                self._db = connect(path)
                opened.callback(self._db.close)
                _prepare(self._db, path, warn)
                with Transaction(self._db):
                    write_run(self._db, path, run, raw_range, created=time.time())
                    self._writer = Writer(self._db, Policy(seed, *raw_range, token_bytes, token_groups), parts)
                opened.pop_all()
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"cannot open the store {path}: {error}{_advice(error, path)}") from error
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
                "INSERT INTO attempts(started, beat, from_step, reason, config_diff, pid, host) VALUES (?,?,?,?,?,?,?)",
                (now, now, from_step, _clean(reason), _clean(config_diff), os.getpid(), socket.gethostname()),
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
        """Wait until all that was recorded is on the disk. Call it before a checkpoint: a run must not continue from
        a step that its record lacks, after a power failure neither.

        Raises:
            StorageError: something could not be written.
        """
        self._jobs.join()
        self._raise()
        try:
            descriptor = os.open(self._wal, os.O_RDONLY)
        except FileNotFoundError:
            return  # nothing was written since the log was last cut, or there is none and every commit syncs
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise StorageError(f"cannot write the store {self.path} to the disk: {error}") from error
        finally:
            os.close(descriptor)

    def end_attempt(self, exit_code: int, reason: str | None = None) -> None:
        """Write how the attempt ended. An attempt without an end was killed, or its store could not be written; then
        this does nothing, so that it never hides why, and `close` says what went wrong if nothing has said it yet.
        """
        attempt = self._current()
        if self._error is not None:
            return
        statement = "UPDATE attempts SET ended = ?, exit_code = ?, reason = coalesce(?, reason) WHERE attempt = ?"
        values = (time.time(), exit_code, _clean(reason), attempt)
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
        self._lock.release()
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
                said = f"cannot write {what} to the store {self.path}: {error}{_advice(error, self.path)}"
                raise StorageError(said) from error

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
            with Transaction(self._db):
                job(self._db)
                self._db.execute("UPDATE attempts SET beat = ? WHERE attempt = ?", (time.time(), self._attempt))
                self._make_room()
            self._written += 1
            if self._written % TIDY_EVERY == 0 or self._wal_bytes() > WAL_LIMIT:
                self._tidy()
        except sqlite3.Error as error:
            raise StorageError(f"cannot write to the store {self.path}: {error}") from error

    def _make_room(self) -> None:
        """Keep the record under its limit, and say what that took."""
        if self._attempt is None or used_bytes(self._db) <= self._max_bytes:
            return
        limit = f"store.max_bytes={self._max_bytes}"
        if dropped := make_room(self._db, self._max_bytes):
            message = (
                f"the record reached {limit}: dropped the text of {dropped.bodies:,} rollouts (below rollout "
                f"{dropped.below}), {dropped.token_arrays:,} of them with token arrays. All numbers stay"
            )
            data = {"below": dropped.below, "bodies": dropped.bodies, "token_arrays": dropped.token_arrays}
            self._event(Event("store/dropped", message, value=dropped.bodies, threshold=self._max_bytes, data=data))
        if used_bytes(self._db) > self._max_bytes and not self._full:
            self._full = True
            message = f"the record is over {limit} with its numbers alone, which are never dropped; it goes on growing"
            self._event(Event("store/full", message, severity=2, threshold=self._max_bytes))
            self._warn(message)

    def _tidy(self) -> None:
        """Move the write-ahead log into the file and cut it, as far as readers let it.

        Without waiting for them: a reader that holds a snapshot would hold up the writer for the whole busy time.
        """
        self._db.execute("PRAGMA busy_timeout = 0")
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            self._db.execute(named("PRAGMA busy_timeout = {}", round(BUSY_SECONDS * 1000)))
        size = self._wal_bytes()
        if size <= WAL_LIMIT:
            self._stuck = False
        elif not self._stuck and self._attempt is not None:
            self._stuck = True
            message = f"{self._wal} has grown to {size:,} bytes: a reader holds an old snapshot open. Close it"
            with Transaction(self._db):
                self._event(Event("store/wal", message, severity=2, value=size, threshold=WAL_LIMIT))
            self._warn(message)

    @property
    def _wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def _wal_bytes(self) -> int:
        try:
            return self._wal.stat().st_size
        except FileNotFoundError:
            return 0

    def _event(self, event: Event) -> None:
        self._writer.event(self._db, event, self._current(), time.time())

    def _current(self) -> int:
        assert self._attempt is not None, "open_attempt comes before anything is recorded"
        return self._attempt

    def _raise(self) -> None:
        if self._error is not None:
            self._raised = True
            raise self._error


def rename_run(path: Path, run_id: str) -> None:
    """Give the run that a store records another id: its folder is a copy, and no two runs share one.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        with closing(connect(path)) as db:
            db.execute("UPDATE runs SET run_id = ?", (clean(run_id)[0],))
    except sqlite3.Error as error:
        raise StorageError(f"cannot open the store {path}: {error}{_advice(error, path)}") from error


def _advice(error: BaseException, path: Path) -> str:
    """What to type when the file is damaged."""
    damaged = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorname", "").startswith(damaged):
        return f". It is damaged: type `burnish store rebuild {path.parent}`"
    return ""


def _clean(sentence: str | None) -> str | None:
    return None if sentence is None else clean(sentence)[0]


def _prepare(db: sqlite3.Connection, path: Path, warn: Callable[[str], None]) -> None:
    """Make the file a store of this version."""
    version = version_of(db, path)
    set_up(db, path, warn)
    if version is None:
        with Transaction(db):
            create(db)
    elif version < SCHEMA_VERSION:
        warn(migrate(db, path, version))


def write_run(
    db: sqlite3.Connection, path: Path, run: Mapping[str, Any], raw_range: tuple[float, float], *, created: float
) -> None:
    """Write what the run is, or check that the record is of this one. Within a transaction."""
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
                values["run_id"], values["name"], created, values["objective"], values["config"], config_sha,
                values["data"], values["packages"], values["code"], values["host"], *raw_range,
            ),
        )  # fmt: skip
