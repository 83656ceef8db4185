"""Child processes that can be killed: the only way to bound the time of code that a model's text can steer.

A job is a name and JSON arguments. A child runs only the functions of one module's `JOBS`; jobs and replies are lines
of JSON on its pipes, nothing is pickled. The module is imported once, in a process that does nothing else, and children
are forks of that one (`forkserver.py`): where one has to be replaced, the next is there at once.

    parent                                   child (child.py)
    call(name, args)  --- {"job", "args", "seconds"} -->  JOBS[name](**args)
    deadline, memory watch                   |
    Reply             <-- {"value"} | {"error"} | {"oom"} --

The parent owns the deadline: at it, the child is killed with SIGKILL and replaced, whatever it was doing. A child has
one job at a time, and a job's time starts when it is sent. `call_all` spreads jobs over up to `size` children, which
start as they are needed; replies come in the order of the jobs, and which child ran one makes no difference to it.
Calls from several threads queue.

A job whose child was killed by somebody else is run again, and so is one that outgrew a child which earlier jobs may
have filled: what happens to a process is no fact about the job. An orphan, whose parent was killed, ends by itself:
within a second, or within its job's deadline of CPU time when one long computation in C keeps it from noticing.
"""

from __future__ import annotations

import json
import os
import selectors
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from burnish.errors import TrainingError
from burnish.rewards.process import Child, DiedError, ForkServer

START_SECONDS = 120.0
"""How long the module may take to be imported, and a child to be set up, on a busy machine."""
WATCH_SECONDS = 0.05
"""How often the memory of a busy child is read."""
MAX_KILLS = 5
"""Kills from outside that one job survives."""
MAX_START_KILLS = 25
"""Starts in a row that may be killed from outside."""
MAX_SIZE = 8
AGAIN: Literal["again"] = "again"


class StartError(TrainingError):
    """No child can be started; its own words are in the message."""


class ClosedError(Exception):
    """The worker was closed during a call, by another thread."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a job. `error` includes the death of the child."""

    status: Literal["done", "timeout", "error", "oom"]
    value: Any = None
    message: str = ""
    seconds: float = 0.0
    """From the moment it was sent."""


@dataclass
class _Task:
    index: int
    line: bytes
    seconds: float
    kills: int = 0
    sent: float = 0.0
    outgrew: bool = False
    """It outgrew a child that was not fresh, and is run once more in what is left of its time."""

    @property
    def deadline(self) -> float:
        return self.sent + self.seconds


class Worker:
    """Runs the jobs of one module in child processes. Use as a context manager, or `close` it; it also ends at exit.

    Example:
        with Worker("burnish.rewards.symbolic", seconds=5.0) as worker:
            worker.call("equal", gold="x^2", answer="x*x", links=[]).value
    """

    def __init__(
        self,
        module: str,
        *,
        seconds: float,
        memory: int = 1 << 30,
        trusted: bool = False,
        size: int = 1,
        setup: Callable[[], tuple[str, Mapping[str, Any]]] | None = None,
    ) -> None:
        """
        Args:
            module: dotted name of the module whose `JOBS` the children run.
            seconds: deadline of one job.
            memory: resident bytes over which a child is killed.
            trusted: the jobs are code that the user chose; it may use several threads and any address space.
            size: children at most.
            setup: gives the job that every child runs first, and that must not fail.
        """
        self._seconds = seconds
        self._memory = memory
        self._size = size
        self._setup = setup
        self._lock = threading.Lock()
        self._closing = False
        self._owner = os.getpid()
        self._server = ForkServer(module, memory, trusted)
        self._children: list[Child] = self._server.children
        self._busy: dict[Child, _Task] = {}
        self._failed_starts = 0
        self.restarts = 0
        """Children that died or were killed before `close`."""
        weakref.finalize(self, self._server.end)

    def call(self, job: str, /, *, deadline: float | None = None, **args: Any) -> Reply:
        """Run a job and wait for its reply, at most until the deadline.

        Args:
            deadline: seconds for this job, where they are not the worker's.

        Raises:
            StartError: no child starts.
        """
        return self.call_all(job, [args], deadline=deadline)[0]

    def call_all(self, job: str, /, args: Sequence[Mapping[str, Any]], *, deadline: float | None = None) -> list[Reply]:
        """Run a job once for each of `args`; each has the whole deadline.

        Raises:
            StartError: no child starts.
            ClosedError: `close` was called meanwhile.
        """
        if self._owner != os.getpid():
            self._let_go()
        seconds = self._seconds if deadline is None else deadline
        tasks = [_Task(index, _line(job, a, seconds), seconds) for index, a in enumerate(args)]
        with self._lock:
            try:
                replies = self._run(tasks)
            except BaseException:
                self._end()  # a reply that is still to come would be taken for the next job's
                raise
        return [replies[task.index] for task in tasks]

    def close(self) -> None:
        """End all children. A call that another thread is in ends within `WATCH_SECONDS`, with `ClosedError`."""
        if self._owner != os.getpid():
            self._let_go()
        self._closing = True
        try:
            with self._lock:
                self._end()
        finally:
            self._closing = False

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the children that are there now."""
        return [child.pid for child in self._children]

    # -- one round of jobs ---------------------------------------------------------------------------------------------

    def _run(self, tasks: Sequence[_Task]) -> dict[int, Reply]:
        waiting, replies = deque(tasks), dict[int, Reply]()
        while len(replies) < len(tasks):
            if self._closing:
                raise ClosedError
            self._hand_out(waiting)
            self._wait()
            self._import()
            for child in [*self._children]:
                if child not in self._busy:
                    self._get_ready(child)
                    continue
                task = self._busy[child]
                reply = self._look(child, task)
                if reply == AGAIN:
                    waiting.appendleft(task)
                elif reply is not None:
                    replies[task.index] = reply
        return replies

    def _hand_out(self, waiting: deque[_Task]) -> None:
        """Start children for waiting jobs, and give these to those that are ready."""
        for child in [*self._children]:
            if child.ready and child not in self._busy and child.is_gone:
                self._drop(child)  # killed from outside between two jobs
        num_free = len(self._children) - len(self._busy)
        for _ in range(min(len(waiting) - num_free, self._size - len(self._children))):
            self._start()
        for child in self._children:
            if waiting and child.ready and child not in self._busy:
                task = waiting.popleft()
                if not task.outgrew:
                    task.sent = time.monotonic()
                self._busy[child] = task
                child.send(task.line)

    def _wait(self) -> None:
        """Until a child may have something to say, at most until the next deadline or look at their memory."""
        now = time.monotonic()
        until = [task.deadline for task in self._busy.values()]
        with selectors.DefaultSelector() as selector:
            if self._server.is_there and not self._server.is_ready:
                selector.register(self._server.control, selectors.EVENT_READ)
            for child in self._children:
                if child in self._busy or not child.ready:
                    selector.register(child.replies, selectors.EVENT_READ)
                if child.jobs is not None:
                    selector.register(child.jobs, selectors.EVENT_WRITE)
            selector.select(max(0.0, min([WATCH_SECONDS, *(deadline - now for deadline in until)])))

    def _get_ready(self, child: Child) -> None:
        """A child that is being set up says when that is done."""
        if child.ready:
            return
        try:
            child.write()
            line = child.receive()
        except DiedError as death:
            self._drop(child)
            self._failed(death)
            return
        if line is None:
            if time.monotonic() - child.started > START_SECONDS:
                raise StartError(f"the grading process was not ready after {START_SECONDS:.0f} s")
        elif "error" in line:
            raise StartError(line["error"])
        else:
            child.ready, self._failed_starts = True, 0

    def _look(self, child: Child, task: _Task) -> Reply | Literal["again"] | None:
        """What became of a child's job; None while there is nothing to say. Then the child is free, or replaced."""
        try:
            child.write()
            line = child.receive()
        except DiedError as death:
            self._drop(child)
            task.kills += death.from_outside
            again = death.from_outside and task.kills <= MAX_KILLS
            return AGAIN if again else Reply("error", message=f"the grading process died: {death}")
        reply = self._reply(child, task, line)
        if reply is None:
            return None
        del self._busy[child]
        child.num_jobs += 1
        if reply.status in ("timeout", "oom"):
            self._drop(child)
            self._start()  # it gets ready while the parent goes on
        if reply.status == "oom" and child.num_jobs > 1 and not task.outgrew and time.monotonic() < task.deadline:
            task.outgrew = True
            return AGAIN
        return reply

    def _reply(self, child: Child, task: _Task, line: Mapping[str, Any] | None) -> Reply | None:
        seconds = time.monotonic() - task.sent
        outgrown = Reply("oom", message=f"grading needs more than {self._memory >> 20} MiB", seconds=seconds)
        if line is not None:
            if "oom" in line:
                return outgrown
            if "error" in line:
                return Reply("error", message=line["error"], seconds=seconds)
            return Reply("done", value=line["value"], seconds=seconds)
        if time.monotonic() >= task.deadline:
            late = Reply("timeout", message=f"no verdict within {task.seconds:g} s", seconds=seconds)
            return outgrown if task.outgrew else late
        return outgrown if child.resident > self._memory else None

    # -- children ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """A child, if the process that it is to be a fork of is ready for that."""
        if not self._server.is_there:
            self._server.start()
        if not self._server.is_ready:
            return
        try:
            child = self._server.fork()
        except DiedError as death:
            if not self._children:  # any others end with it; their jobs are taken back first
                self._server.end()
                self._failed(death)
            return
        if self._setup is None:
            child.ready, self._failed_starts = True, 0
        else:
            job, args = self._setup()
            child.send(_line(job, args, START_SECONDS))

    def _import(self) -> None:
        """Look whether the server has imported the module."""
        if self._server.is_ready or not self._server.is_there:
            return
        try:
            self._server.receive()
        except DiedError as death:
            self._server.end()
            self._failed(death)
            return
        if not self._server.is_ready and time.monotonic() - self._server.started > START_SECONDS:
            raise StartError(f"the grading process was not ready after {START_SECONDS:.0f} s")

    def _failed(self, death: DiedError) -> None:
        self._failed_starts += 1
        if not death.from_outside or self._failed_starts > MAX_START_KILLS:
            raise StartError(f"the grading process does not start: {death}") from None

    def _drop(self, child: Child) -> None:
        self._busy.pop(child, None)
        self._children.remove(child)
        child.end()
        self.restarts += 1

    def _end(self) -> None:
        self._busy.clear()
        self._server.end()

    def _let_go(self) -> None:
        """This is a fork of the process that started the children: they are not ours to use or to kill."""
        self._owner = os.getpid()
        self._lock = threading.Lock()  # a thread that is not here any more may have held it
        self._end()


def usable_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _line(job: str, args: Mapping[str, Any], seconds: float) -> bytes:
    return json.dumps({"job": job, "args": dict(args), "seconds": seconds}).encode() + b"\n"
