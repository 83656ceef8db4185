"""Locks: one process at a time writes here, and who it is can be asked. Used for run folders and for their record.

The kernel's lock decides: it ends with its process, however that ends, and no child inherits it. Only where the file
system has no locks does the process id in the file decide. The lock of another machine is never taken over, since
whether its process lives cannot be seen from here.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path

_held: set[Path] = set()
"""Lock files that this process holds: the kernel's lock does not keep a process out of what it has locked itself."""


class InUseError(ValueError):
    """Another process writes there. The message has its process id, its machine and since when."""


class Lock:
    """Held from the call until `release`, or until this process ends.

    Example:
        lock = Lock(path / "lock", path, "Wait for its end, or type another out=")
        ...
        lock.release()
    """

    def __init__(self, file: Path, what: Path, advice: str) -> None:
        """Take the lock. `file` holds who has it, `what` is what an error says to be in use, `advice` how to go on.

        Raises:
            InUseError: another process holds it, or this one does already.
            OSError: the file cannot be made.
        """
        self._file = file.parent.resolve() / file.name
        if self._file in _held:
            raise InUseError(f"{what} is in use by this process already")
        self._descriptor, self.note = _acquire(self._file, what, advice)
        """`note` says whose lock was taken over, when one was left behind."""
        self._holder = os.getpid()
        _held.add(self._file)

    def release(self) -> None:
        """Give the lock back. A second call does nothing, nor does one in a forked child."""
        if self._file in _held and self._holder == os.getpid():
            _held.discard(self._file)
            self._file.unlink(missing_ok=True)
            os.close(self._descriptor)


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs on this machine, as anybody's."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _acquire(file: Path, what: Path, advice: str) -> tuple[int, str | None]:
    """The open, locked file, and a note about the lock that was taken over, if any was."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            note = _claim(file, what, advice, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if _same_file(descriptor, file):
            break
        os.close(descriptor)  # its holder removed it between our opening and our locking
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    except OSError:  # a full disk
        file.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return descriptor, note


def _claim(file: Path, what: Path, advice: str, descriptor: int) -> str | None:
    locked = _kernel_lock(descriptor)
    pid, host, since = _owner(os.pread(descriptor, 4096, 0))
    here = socket.gethostname()
    if pid is None:
        if locked is False:
            raise InUseError(f"{what} is in use by another process. {advice}")
        return None
    who = f"pid {pid} on host {host} since {since}"
    if host != here:
        raise InUseError(
            f"{what} is in use by {who}, and this is host {here}. If that process has ended, remove {file}"
        )
    if locked is False or (locked is None and is_alive(pid) and pid != os.getpid()):
        raise InUseError(f"{what} is in use by {who}. {advice}")
    return f"took over the lock that {who} left behind"


def _kernel_lock(descriptor: int) -> bool | None:
    """True: locked. False: another process has it. None: this file system has no locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _owner(data: bytes) -> tuple[int | None, str, str]:
    """What a lock file says; (None, "", "") when it is empty or was cut short."""
    try:
        found = json.loads(data)
        host, since = ("".join(filter(str.isprintable, str(found[key])))[:100] for key in ("host", "since"))
        return int(found["pid"]), host, since
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "", ""


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
