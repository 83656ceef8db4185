"""The parent's end of one child process (`child.py`): its life, and the bytes in both directions. Nothing here waits.

starting -> ready <-> busy          `Worker` looks at it whenever something may have happened
    \\________\\_______\\___> ended   by itself, by somebody's kill, or by `end`
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOG_BYTES = 1 << 20
"""Of what jobs print, beyond which it is thrown away."""
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Return codes of a process that something else ended: a person, a scheduler, the kernel when memory is short."""


class DiedError(Exception):
    """The process is gone. The message is its last words."""

    def __init__(self, words: str, *, from_outside: bool) -> None:
        super().__init__(words)
        self.from_outside = from_outside


class Child:
    """A fresh interpreter (no fork: no locks, threads or CUDA state of the parent) in a session of its own."""

    def __init__(self, module: str, memory: int, trusted: bool) -> None:
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed by `end`)
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "burnish.rewards.child", module),
                *(str(memory), str(int(trusted)), str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": paths},
            # Ctrl-C in the terminal is for the parent to handle.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to, self.replies = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        os.set_blocking(self.replies, False)
        self._owner = os.getpid()
        self._outgoing = b""
        self._received = b""
        self.started = time.monotonic()
        """When it was started, or last began something it may take its time for."""
        self.ready = False
        self.is_set_up = False
        self.num_jobs = 0
        """Jobs done."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def jobs(self) -> int | None:
        """Descriptor to wait for until more can be written; None when all is written."""
        return self._to if self._outgoing else None

    @property
    def is_gone(self) -> bool:
        return self._process.poll() is not None

    def send(self, job: bytes) -> None:
        """Queue a job, and write what the pipe takes now."""
        self._outgoing += job
        self.write()

    def write(self) -> None:
        """Write on. That the process is gone shows when its reply is read."""
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self._to, self._outgoing) :]

    def receive(self) -> dict[str, Any] | None:
        """The next reply; None when it is not there yet.

        Raises:
            DiedError: the process is gone, and left no reply.
        """
        while b"\n" not in self._received:
            try:
                chunk = os.read(self.replies, 65536)
            except BlockingIOError:
                return None
            if not chunk:
                raise self._died()
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        if os.fstat(self._log.fileno()).st_size > _LOG_BYTES:
            os.ftruncate(self._log.fileno(), 0)
        return json.loads(line)

    @property
    def resident(self) -> int:
        """Resident bytes (Linux; elsewhere 0, and only the child's own limit holds)."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as statm:
                return int(statm.read().split()[1]) * _PAGE
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def end(self) -> None:
        """Kill the process and whatever it started, and reap it. In a fork of the parent: only let go of it."""
        if os.getpid() != self._owner:
            self._process.returncode = 0  # it is not this process's child: nothing to wait for
        elif not self.is_gone:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _died(self) -> DiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)  # its pipe closes a moment before it is gone
        code = self._process.returncode
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace").strip()
        if code is not None and code < 0:
            words = f"killed by {signal.Signals(-code).name}"
        else:
            words = tail.rsplit("\n", 1)[-1] or f"exit code {code}"
        return DiedError(words, from_outside=code in _FROM_OUTSIDE)
