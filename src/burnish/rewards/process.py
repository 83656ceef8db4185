"""The parent's end of grading processes: a `ForkServer` (`forkserver.py`), and each `Child` that is a fork of it
(`child.py`).

    ForkServer   not there -> importing -> ready          `start`, then `receive` until it is ready; `fork`; `end`
    Child        being set up -> ready <-> busy           `Worker` looks at it whenever something may have happened
                     \\__________\\________\\___> ended   by itself, by somebody's kill, or by `end`

Nothing here waits for a module or a job; what is asked of a server that is ready takes it milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

from burnish.rewards.forkserver import ALIVE, FORK, REAP, REPLY, REQUEST

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOG_BYTES = 1 << 20
"""Of what jobs print, beyond which it is thrown away."""
_FROM_OUTSIDE = (-signal.SIGKILL, -signal.SIGTERM)
"""Return codes of a process that something else ended: a person, a scheduler, the kernel when memory is short."""
_ANSWER_SECONDS = 60.0
"""How long a server that is ready may take to answer, on a busy machine."""
_END_SECONDS = 5.0
"""How long a server may take to end its children."""


class DiedError(Exception):
    """The process is gone. The message is its last words."""

    def __init__(self, words: str, *, from_outside: bool) -> None:
        super().__init__(words)
        self.from_outside = from_outside


class ForkServer:
    """A fresh interpreter (no fork of the trainer: none of its locks, threads or CUDA state) that imports one module,
    and the children that are forks of it."""

    def __init__(self, module: str, memory: int, trusted: bool) -> None:
        self._words = [module, str(memory), str(int(trusted))]
        self._process: subprocess.Popen[bytes] | None = None
        self.children: list[Child] = []
        self.is_ready = False
        self.started = 0.0

    @property
    def is_there(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    def start(self) -> None:
        self._log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed by `end`)
        self.control, theirs = socket.socketpair()
        self.control.settimeout(_ANSWER_SECONDS)
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "burnish.rewards.forkserver", *self._words, str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=self._log,
                stderr=self._log,
                env={**os.environ, "PYTHONPATH": paths},
                # Ctrl-C in the terminal is for the parent to handle.
                start_new_session=True,
            )
        self._owner = os.getpid()
        self.is_ready, self.started = False, time.monotonic()

    def receive(self) -> None:
        """Look whether it has become ready.

        Raises:
            DiedError: it could not import its module, or was killed.
        """
        self.control.setblocking(False)
        try:
            self._answer()
        except BlockingIOError:
            return
        finally:
            self.control.settimeout(_ANSWER_SECONDS)
        self.is_ready = True

    def fork(self) -> Child:
        """A new child.

        Raises:
            DiedError: the server is gone.
        """
        jobs, to = os.pipe()
        replies, answers = os.pipe()
        log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed by the child's `end`)
        try:
            pid = self._ask(FORK, 0, [jobs, answers, log.fileno()])
        except BaseException:
            for file in (to, replies):
                os.close(file)
            log.close()
            raise
        finally:
            for file in (jobs, answers):
                os.close(file)
        child = Child(self, pid, to, replies, log)
        self.children.append(child)
        return child

    def reap(self, pid: int) -> int | None:
        """The exit code of a child that has ended; None when it has not.

        Raises:
            DiedError: the server is gone, and its children with it.
        """
        code = self._ask(REAP, pid)
        return None if code == ALIVE else code

    def end(self) -> None:
        """Kill all children and whatever they started, and the server. In a fork of the parent: only let go of them."""
        if self._process is None:
            return
        if os.getpid() != self._owner:
            self._process.returncode = 0  # it is not this process's child: nothing to wait for
        else:
            self._end_process(self._process)
        self.control.close()
        self._log.close()
        while self.children:
            self.children.pop().let_go()
        self._process, self.is_ready = None, False

    def _end_process(self, process: subprocess.Popen[bytes]) -> None:
        """A server that is ready ends its children first: nobody else can wait for them."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # a fork of this process may hold it open
        if self.is_ready:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_END_SECONDS)
        process.kill()
        process.wait()

    def _ask(self, what: bytes, pid: int, files: list[int] | None = None) -> int:
        try:
            socket.send_fds(self.control, [REQUEST.pack(what, pid)], files or [])
        except OSError:
            raise self._died() from None
        return self._answer()

    def _answer(self) -> int:
        try:
            answer = self.control.recv(REPLY.size)
        except BlockingIOError:
            raise
        except OSError:
            answer = b""
        if not answer:
            raise self._died()
        return REPLY.unpack(answer)[0]

    def _died(self) -> DiedError:
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)  # its socket closes a moment before it is gone
        self._process.kill()  # one that does not answer is as good as gone
        return _death(self._process.wait(), self._log)


class Child:
    """A process in a session of its own. `ForkServer.fork` makes it."""

    def __init__(self, server: ForkServer, pid: int, to: int, replies: int, log: IO[bytes]) -> None:
        self._server = server
        self.pid = pid
        self._to, self.replies = to, replies
        os.set_blocking(to, False)
        os.set_blocking(replies, False)
        self._log = log
        self._outgoing = b""
        self._received = b""
        self.started = time.monotonic()
        self.ready = False
        self.num_jobs = 0
        """Jobs done."""
        self._is_reaped = False
        """Whether its process id may be that of another process by now."""

    @property
    def jobs(self) -> int | None:
        """Descriptor to wait for until more can be written; None when all is written."""
        return self._to if self._outgoing else None

    @property
    def is_gone(self) -> bool:
        """Of a child that is asked nothing: it has closed its end."""
        try:
            self._read()
        except DiedError:
            return True
        return False

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
            if not self._read():
                return None
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
        """Kill the process and whatever it started."""
        if not self._is_reaped:
            for end in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    end(self.pid, signal.SIGKILL)
            self._reap()
        self.let_go()

    def let_go(self) -> None:
        """Close what belongs to it here."""
        os.close(self._to)
        os.close(self.replies)
        self._log.close()

    def _read(self) -> bool:
        """Read on; False when there is nothing."""
        try:
            chunk = os.read(self.replies, 65536)
        except BlockingIOError:
            return False
        if not chunk:
            raise _death(self._reap(), self._log)
        self._received += chunk
        return True

    def _reap(self) -> int | None:
        try:
            code = self._server.reap(self.pid)
        except DiedError:
            code = -signal.SIGKILL  # that is how a child ends whose server is gone
        self._is_reaped = code is not None
        return code


def _death(code: int | None, log: IO[bytes]) -> DiedError:
    size = os.fstat(log.fileno()).st_size
    tail = os.pread(log.fileno(), 2000, max(0, size - 2000)).decode(errors="replace").strip()
    if code is not None and code < 0:
        words = f"killed by {signal.Signals(-code).name}"
    else:
        words = tail.rsplit("\n", 1)[-1] or f"exit code {code}"
    return DiedError(words, from_outside=code in _FROM_OUTSIDE)
