"""A disk that can be filled: a small tmpfs in a mount namespace of the process's own, so that no rights are needed."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from pathlib import Path

import pytest

_NEW_USER, _NEW_MOUNTS, _RECURSIVE_PRIVATE = 0x10000000, 0x00020000, 0x44000

needs_namespaces = pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode != 0,
    reason="user namespaces are not available",
)


def mount(folder: Path, size: int) -> None:
    """Put a disk of `size` bytes at `folder`, for this process alone. It must have one thread only."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    _check(libc.unshare(_NEW_USER | _NEW_MOUNTS))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _check(libc.mount(b"none", b"/", None, _RECURSIVE_PRIVATE, None))
    folder.mkdir(parents=True, exist_ok=True)
    _check(libc.mount(b"none", os.fsencode(folder), b"tmpfs", 0, f"size={size}".encode()))


def fill(folder: Path, leave: int) -> None:
    """Write until about `leave` bytes are free; the kernel counts whole pages."""
    with (folder / "ballast").open("ab", buffering=0) as ballast:
        while (free := _free(folder)) > leave:
            try:
                ballast.write(bytes(min(free - leave, 1 << 20)))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


def make_room(folder: Path) -> None:
    (folder / "ballast").unlink(missing_ok=True)


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
