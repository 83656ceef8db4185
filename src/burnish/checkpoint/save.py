"""Writing a checkpoint so that a kill at any moment leaves the older ones whole, and deleting the oldest."""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from burnish.checkpoint.durable import reason, refuse_link, sync
from burnish.checkpoint.manifest import MANIFEST, STATE, DamagedError, folder_name, seal, total_size, verify
from burnish.checkpoint.restore import steps_on_disk
from burnish.errors import DISK_FULL, StorageError


def save(
    root: Path,
    step: int,
    *,
    write: Callable[[Path], None],
    state: Mapping[str, Any],
    keep: int,
    warn: Callable[[str], None] = warnings.warn,
) -> Path:
    """Save one checkpoint and delete the oldest, so that `keep` (at least 2) whole ones stay.

    `write` puts the weights and `resume/` into the folder it is given; `state` is plain JSON. All of it is written to
    `step-000123.tmp-<pid>`, synced, sealed with a manifest and renamed to `step-000123`, whose path is returned. A
    checkpoint of the same step is replaced. `warn` hears of old checkpoints that cannot be deleted.

    Raises:
        StorageError: the disk is full or refuses; what was half written is removed, older checkpoints are untouched.
    """
    assert keep >= 2, "with one checkpoint there is none while the next is being written"
    target = root / folder_name(step)
    aside = root / f"{target.name}.tmp-{os.getpid()}"
    try:
        refuse_link(root)
        root.mkdir(parents=True, exist_ok=True)
        _check_room(root, step)
        _write(aside, step, write, state)
        _put_in_place(aside, target, warn)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"cannot save step {step}: {reason(error)} in {root}; {last_good(root)}") from error
    _retain(root, keep, warn)
    return target


def _check_room(root: Path, step: int) -> None:
    """Refuse before writing when the disk has less room than the last checkpoint took."""
    needed, free = _last_size(root), shutil.disk_usage(root).free
    if free < needed:
        raise _disk_full(root, step, needed, free)


def _last_size(root: Path) -> int:
    """Bytes of the newest checkpoint; 0 without one."""
    for _, folder in steps_on_disk(root):
        try:
            return total_size(folder)
        except (DamagedError, OSError):
            continue
    return 0


def _write(aside: Path, step: int, write: Callable[[Path], None], state: Mapping[str, Any]) -> None:
    """Fill and seal the folder, or leave nothing of it."""
    if aside.exists():
        shutil.rmtree(aside)
    aside.mkdir()
    try:
        write(aside)
        assert not (aside / MANIFEST).exists(), f"{MANIFEST} belongs to the checkpoint and not to the learner"
        assert not (aside / STATE).exists(), f"{STATE} belongs to the checkpoint and not to the learner"
        (aside / STATE).parent.mkdir(exist_ok=True)
        (aside / STATE).write_text(json.dumps(state), encoding="utf-8")
        seal(aside, step)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)  # what went wrong first is what the user must hear
        if _is_disk_full(error):
            raise _disk_full(
                aside.parent, step, _last_size(aside.parent), shutil.disk_usage(aside.parent).free
            ) from error
        raise


def _is_disk_full(error: BaseException) -> bool:
    """Also when a library (safetensors) passes the system's error on as a text of its own."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in DISK_FULL
    return os.strerror(errno.ENOSPC) in str(error)


def _put_in_place(aside: Path, target: Path, warn: Callable[[str], None]) -> None:
    """Rename; a checkpoint of the same step is first moved to a name that `clean` knows how to put back."""
    replaced = target.with_name(f"{target.name}.old-{os.getpid()}")
    if target.exists():
        if replaced.exists():
            shutil.rmtree(replaced)
        target.rename(replaced)
    try:
        aside.rename(target)
    except OSError:
        if replaced.exists():
            replaced.rename(target)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(target.parent)
    if replaced.exists():
        _delete(replaced, target.name, warn)


def _retain(root: Path, keep: int, warn: Callable[[str], None]) -> None:
    """Delete what is older than the `keep` newest whole checkpoints. What is whole is asked of the disk each time.

    A folder is renamed before its files go, so that a kill leaves no half checkpoint under a whole one's name.
    Symbolic links are neither counted nor deleted.
    """
    whole = 0
    for step, folder in steps_on_disk(root):
        if folder.is_symlink():
            continue
        if whole < keep:
            whole += _is_whole(folder, step)
            continue
        doomed = root / f"{folder.name}.tmp-{os.getpid()}"
        try:
            folder.rename(doomed)
        except OSError as error:
            warn(f"old checkpoint {folder.name} cannot be deleted: {reason(error)}")
        else:
            _delete(doomed, folder.name, warn)


def _delete(folder: Path, name: str, warn: Callable[[str], None]) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        warn(f"old checkpoint {name} cannot be deleted: {reason(error)}; what is left of it is {folder}")


def _is_whole(folder: Path, step: int) -> bool:
    try:
        verify(folder, step)
    except DamagedError:
        return False
    return True


def _disk_full(root: Path, step: int, needed: int, free: int) -> StorageError:
    needs = _bytes(needed) if needed > free else f"more than {_bytes(free)}"
    return StorageError(
        f"cannot save step {step}: no space left on {root} (needs {needs}, free {_bytes(free)}); {last_good(root)}"
    )


def last_good(root: Path) -> str:
    """`last good: ` and the name of the newest whole checkpoint, or `none`."""
    names = (folder.name for step, folder in steps_on_disk(root) if _is_whole(folder, step))
    return f"last good: {next(names, 'none')}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
