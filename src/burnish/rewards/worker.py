"""One child process that can be killed: the only way to bound the time of code that a model's text can steer.

A job is a name and JSON arguments. The child imports one module, given to the constructor, and runs only the functions
of that module's `JOBS`; jobs and replies are lines of JSON on its pipes, nothing is pickled. The child is a fresh
interpreter (no fork: no locks, threads or CUDA state of the parent), starts at the first job, and imports from the same
places as its parent.

    parent                                   child (child.py)
    call(name, args)  --- {"job", "args", "seconds"} -->  JOBS[name](**args)
    deadline, memory watch                   |
    Reply             <-- {"value"} | {"error"} | {"oom"} --

The parent owns the deadline: at it, the child is killed with SIGKILL and replaced, whatever it was doing. One job is
in flight per worker; calls from several threads queue, and a job's time starts when it is sent. An orphan, whose
parent was killed, ends by itself: at once when idle, within its job's deadline of CPU time when not.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass
from typing import Any, Literal

START_SECONDS = 120.0
"""How long a child may take to import its module, on a busy machine."""
WATCH_SECONDS = 0.05
"""How often the memory of a busy child is read."""
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a job. `error` includes the death of the child."""

    status: Literal["done", "timeout", "error", "oom"]
    value: Any = None
    message: str = ""


class Worker:
    """Runs the jobs of one module in a child process. Use as a context manager, or `close` it; it also ends at exit.

    Example:
        with Worker("burnish.rewards.symbolic", seconds=5.0) as worker:
            worker.call("equal", gold="x^2", answer="x*x", links=[]).value
    """

    def __init__(self, module: str, *, seconds: float, memory: int = 1 << 30, trusted: bool = False) -> None:
        """
        Args:
            module: dotted name of the module whose `JOBS` the child runs.
            seconds: deadline of one job.
            memory: resident bytes over which the child is killed.
            trusted: the jobs are code that the user chose; it may use several threads and any address space.
        """
        self._module = module
        self._seconds = seconds
        self._memory = memory
        self._trusted = trusted
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._stop = None

    def call(self, job: str, /, *, deadline: float | None = None, **args: Any) -> Reply:
        """Run a job and wait for its reply, at most until the deadline.

        Args:
            deadline: seconds for this job, where they are not the worker's.

        Raises:
            RuntimeError: the child does not start; its own words are in the message.
        """
        with self._lock:
            if self._child is not None and self._child.died_idle:
                self._end()
            child = self._child or self._start()
            try:
                child.await_ready()
                seconds = self._seconds if deadline is None else deadline
                reply = child.ask({"job": job, "args": args, "seconds": seconds}, seconds, self._memory)
            except BaseException:
                self._end()
                raise
            if reply.status == "timeout" or not child.fit:
                self._end()
                self._start()
            return reply

    def close(self) -> None:
        with self._lock:
            self._end()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child; None while there is none."""
        return None if self._child is None else self._child.process.pid

    def _start(self) -> _Child:
        self._child = _Child(self._module, self._memory, self._trusted)
        self._stop = weakref.finalize(self, self._child.end)
        return self._child

    def _end(self) -> None:
        if self._stop is not None:
            self._stop()
        self._child = self._stop = None


class _Child:
    def __init__(self, module: str, memory: int, trusted: bool) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        paths = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "burnish.rewards.child", module, str(memory), str(int(trusted))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": paths},
            # Ctrl-C in the terminal is for the parent to handle.
            start_new_session=True,
        )
        self.fit = True
        """False once the child has died or outgrown its memory."""
        self._ready = False
        self._received = b""

    @property
    def died_idle(self) -> bool:
        """Killed from outside after it was ready: no job's fault."""
        return self._ready and self.process.poll() is not None

    def await_ready(self) -> None:
        if self._ready:
            return
        try:
            line = self._line(time.monotonic() + START_SECONDS)
        except EOFError:
            raise RuntimeError(f"the grading process does not start: {self._last_words()}") from None
        if line is None:
            raise RuntimeError(f"the grading process was not ready after {START_SECONDS:.0f} s")
        self._ready = True

    def ask(self, job: dict[str, Any], seconds: float, memory: int) -> Reply:
        deadline = time.monotonic() + seconds
        try:
            self._send(json.dumps(job).encode() + b"\n")
            line = self._line(deadline, memory)
        except (BrokenPipeError, EOFError):
            self.fit = False
            return Reply("error", message=f"the grading process died: {self._last_words()}")
        except MemoryError:
            self.fit = False
            return _outgrown(memory)
        if line is None:
            return Reply("timeout", message=f"no verdict within {seconds:g} s")
        if "oom" in line:
            self.fit = False
            return _outgrown(memory)
        if "error" in line:
            return Reply("error", message=line["error"])
        return Reply("done", value=line["value"])

    def end(self) -> None:
        """Kill the child and whatever it started, and reap it."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        while data:
            data = data[self.process.stdin.write(data) :]

    def _line(self, deadline: float, memory: int | None = None) -> dict[str, Any] | None:
        """The child's next line, or None at the deadline. EOFError: it died. MemoryError: it outgrew `memory`."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._received:
                left = deadline - time.monotonic()
                if left <= 0.0:
                    return None
                if selector.select(min(left, WATCH_SECONDS)):
                    chunk = os.read(self.process.stdout.fileno(), 65536)
                    if not chunk:
                        raise EOFError
                    self._received += chunk
                elif memory is not None and _resident(self.process.pid) > memory:
                    raise MemoryError
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=1.0)  # its pipe closes a moment before it is gone
        self.log.seek(0, os.SEEK_END)
        self.log.seek(max(0, self.log.tell() - 2000))
        words = self.log.read().decode(errors="replace").strip()
        return words.rsplit("\n", 1)[-1] or f"exit code {self.process.returncode}"


def _outgrown(memory: int) -> Reply:
    return Reply("oom", message=f"grading needs more than {memory >> 20} MiB")


def _resident(pid: int) -> int:
    """Resident bytes of a process (Linux; elsewhere 0, and only the child's own limit holds)."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE
    except FileNotFoundError:
        return 0
