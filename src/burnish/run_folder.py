"""The run folder: one place for everything a run writes, held by one process at a time.

    runs/add23-1/
      config.json     the resolved configuration, secrets masked       metrics.jsonl   one line per step
    run.json        which run it is, and what it depends on
      run.sqlite      the store                                        tensorboard/    event files
      checkpoints/    step-000010, step-000020, ...                    curves.png      the learning curve
      summary.json    what came of it                                  reliability.png stated confidence, where measured
      lock            who writes here, while it does

`RunFolder.open_new` makes one, `RunFolder.open_existing` takes one up again. Either holds the lock until `close`.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from burnish.checkpoint.durable import reason, write_atomically
from burnish.errors import DISK_FULL, StorageError
from burnish.lock import Lock
from burnish.masking import masked

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
LOCK = "lock"
LEFTOVER = re.compile(r"[a-z]+\.(json|png)\.tmp-[0-9]{1,18}", re.ASCII)


class RunFolder:
    """A run folder, locked. A context manager: leaving it gives the lock back."""

    def __init__(self, path: Path, lock: Lock) -> None:
        self.path = path
        self.note = lock.note
        """Says whose lock was taken over, when one was left behind."""
        self._lock = lock

    @classmethod
    def open_new(cls, path: Path) -> Self:
        """Make the folder, or take an empty one.

        Raises:
            InUseError: another process is writing into it.
            ValueError: it has content, its name will not do, or it cannot be made.
        """
        path = cls.require_new(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _refused(f"cannot make the run folder {path}", error) from error
        folder = cls(path, _lock(path))
        _remove_leftovers(path)
        try:
            _refuse_content(path)
        except ValueError:
            folder.close()
            raise
        return folder

    @staticmethod
    def require_new(path: Path) -> Path:
        """See that a run may begin in `path`, which is returned without dots and links, and make nothing.

        Raises:
            ValueError: it has content, its name will not do, or it cannot be made.
        """
        is_link, path = path.is_symlink(), path.resolve()
        if not re.fullmatch(NAME, path.name, re.ASCII):
            raise ValueError(
                f"the run folder's name is {path.name!r}; it needs 1 to 100 letters, digits, dots, dashes or "
                "underscores, and starts with a letter or a digit. Type out=runs/my-run"
            )
        if is_link:
            raise ValueError(f"the run folder is a symbolic link to {path}. Type out={path}")
        try:
            place = next(folder for folder in (path, *path.parents) if folder.exists())
        except OSError as error:
            raise _refused(f"cannot make the run folder {path}", error) from error
        if not place.is_dir() or not os.access(place, os.W_OK):
            why = "cannot be written to" if place.is_dir() else "is no folder"
            raise ValueError(f"cannot make the run folder {path}: {place} {why}. Type another out=")
        if place == path and not (path / LOCK).is_file():
            _refuse_content(path)
        return path

    @classmethod
    def open_existing(cls, path: Path) -> Self:
        """Take up the folder of an earlier run.

        Raises:
            InUseError: another process is writing into it.
            ValueError: there is no run in it.
        """
        path = path.resolve()
        if not (path / "config.json").is_file():
            found = "it has no config.json" if path.is_dir() else "there is no such folder"
            raise ValueError(f"{path} is not a run folder: {found}. Type the `out` of a run, such as runs/run-1")
        folder = cls(path, _lock(path))
        _remove_leftovers(path)
        return folder

    @property
    def config_path(self) -> Path:
        return self.path / "config.json"

    @property
    def run_path(self) -> Path:
        return self.path / "run.json"

    @property
    def metrics_path(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def store_path(self) -> Path:
        return self.path / "run.sqlite"

    @property
    def tensorboard_path(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints_path(self) -> Path:
        return self.path / "checkpoints"

    @property
    def curves_path(self) -> Path:
        return self.path / "curves.png"

    @property
    def reliability_path(self) -> Path:
        return self.path / "reliability.png"

    @property
    def parts_path(self) -> Path:
        return self.path / "parts.png"

    @property
    def summary_path(self) -> Path:
        return self.path / "summary.json"

    @property
    def resume_command(self) -> str:
        """What to type to continue the run in it."""
        path = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        return f"burnish train --resume {shlex.quote(str(path))}"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the resolved configuration; values that look like secrets are replaced by `***`."""
        write_atomically(self.config_path, _json(masked(config)))

    def read_config(self) -> dict[str, Any]:
        """The configuration as it was written.

        Raises:
            ValueError: the file is not one JSON object.
        """
        return _read(self.config_path)

    def write_run(self, run: Mapping[str, Any]) -> None:
        """Write which run this is and what it depends on; see `launch.origin`."""
        write_atomically(self.run_path, _json(run))

    def read_run(self) -> dict[str, Any] | None:
        """What `write_run` wrote; None before it has.

        Raises:
            ValueError: the file is not one JSON object.
        """
        return _read(self.run_path) if self.run_path.is_file() else None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write what came of the run. Numbers that are not finite become null, which JSON has."""
        write_atomically(self.summary_path, _json(_finite(summary)))

    def clear(self) -> None:
        """Remove what a run wrote here, and nothing else."""
        for folder in (self.checkpoints_path, self.tensorboard_path):
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
        beside = [self.store_path.with_name(self.store_path.name + end) for end in ("-wal", "-shm", ".lock")]
        pictures = (self.curves_path, self.reliability_path, self.parts_path)
        texts = (self.config_path, self.run_path, self.metrics_path, self.summary_path)
        for file in (*texts, self.store_path, *beside, *pictures):
            file.unlink(missing_ok=True)

    def close(self) -> None:
        """Give the lock back. A second call does nothing, nor does one in a forked child."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _refuse_content(path: Path) -> None:
    names = sorted(p.name for p in path.iterdir() if p.name != LOCK and not LEFTOVER.fullmatch(p.name))
    if not names:
        return
    found = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    resume = f"continue the run in it with `burnish train --resume {path}`, or " if "config.json" in names else ""
    raise ValueError(f"{path} is not empty (it has {found}): {resume}type another out=")


def _remove_leftovers(path: Path) -> None:
    """Remove what a killed process was writing (`durable.write_atomically`). With the lock held nobody else is."""
    for file in path.iterdir():
        if LEFTOVER.fullmatch(file.name) and file.is_file() and not file.is_symlink():
            file.unlink()


def _lock(path: Path) -> Lock:
    try:
        return Lock(path / LOCK, path, "Wait for its end, or type another out=")
    except OSError as error:
        raise _refused(f"cannot lock {path} ({path / LOCK})", error) from error


def _refused(what: str, error: OSError) -> Exception:
    """A full disk is a fault of the storage; anything else is another folder's turn."""
    if error.errno in DISK_FULL:
        return StorageError(f"{what}: {reason(error)}. Free some space or type another out=")
    return ValueError(f"{what}: {reason(error)}. Type another out=")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). Put back a good copy of it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object. Put back a good copy of it")
    return found


def _json(value: Any) -> bytes:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes the escape that JSON has for it
