"""Files that survive a kill: written aside, synced, renamed into place."""

from __future__ import annotations

import os
from pathlib import Path

from burnish.errors import StorageError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the content of `path`: readers, and a kill at any moment, find the old content or the new, whole.

    A symbolic link at `path` is replaced and not followed.

    Raises:
        StorageError: the file system refuses; the old content is untouched.
    """
    aside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        try:
            aside.unlink(missing_ok=True)
            aside.write_bytes(data)
            sync(aside)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        sync(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {reason(error)}. Free some space or type another out=") from error


def sync(path: Path) -> None:
    """Ask the disk to keep a file's content, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def refuse_link(folder: Path) -> None:
    """Raise a StorageError when a folder that things are deleted in is a link to somewhere else."""
    if folder.is_symlink():
        raise StorageError(f"{folder} is a symbolic link, and nothing is deleted through one. Make it a folder")


def reason(error: OSError) -> str:
    """What the operating system said, in lower case as the middle of a sentence."""
    words = error.strerror or str(error)
    return words[:1].lower() + words[1:]
