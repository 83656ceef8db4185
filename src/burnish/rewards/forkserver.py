"""The process that grading children are forks of: `python -m burnish.rewards.forkserver MODULE MEMORY TRUSTED PARENT`.

It imports the module once, and then does what it is asked through the socket that is its standard input:

    parent (process.py)                        this process
    FORK, with the child's three files  -->    forks; the child goes on in child.py
                                        <--    its process id
    REAP, a process id                  -->    waits a moment for its end
                                        <--    its exit code, or ALIVE

So a child that replaces another is there within milliseconds, where an interpreter of its own would first import for a
second, on a busy machine for several; and all children share the memory of what is imported. It has one thread and runs
nothing of a model's, so that a fork of it is as good as new. A process that has ended keeps its id until it is reaped:
the parent may kill by id and cannot hit another.

It ends, and all children with it, when the parent shuts the socket down or is gone.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from burnish.rewards.child import LOOK_SECONDS, leave_signals_to_the_parent, limit, serve

REQUEST, REPLY = struct.Struct("!cq"), struct.Struct("!q")
FORK, REAP = b"f", b"r"
FILES = 3
"""Of a child: jobs to read, replies to write, a log."""
READY = 0
"""The first reply, unasked."""
ALIVE = 1 << 32
"""In place of the exit code of a child that has not ended."""
PATIENCE_SECONDS = 1.0
"""A child's pipes close a moment before it is gone."""


def main(module: str, memory: int, trusted: bool, parent: int) -> None:
    control = _take_control()
    leave_signals_to_the_parent()
    limit(resource.RLIMIT_CORE, 0)
    if sys.platform == "linux" and not trusted:
        # The parent kills at `memory` resident bytes; this stops a single huge allocation between two looks.
        limit(resource.RLIMIT_AS, 2 * memory)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    loaded = importlib.import_module(module)
    loaded.self_check()
    gc.freeze()  # a collection in a child would touch, and so copy, every page that it shares
    begin = partial(serve, loaded.JOBS, memory=memory, trusted=trusted, server=os.getpid())
    children: set[int] = set()
    try:
        _answer_requests(control, parent, children, begin)
    except ConnectionError:
        pass  # the parent is gone
    finally:
        _end_all(children)


def _answer_requests(
    control: socket.socket, parent: int, children: set[int], begin: Callable[[int, int, int], NoReturn]
) -> None:
    control.sendall(REPLY.pack(READY))
    while os.getppid() == parent:
        if not select.select([control], [], [], LOOK_SECONDS)[0]:
            continue
        request, files, _, _ = socket.recv_fds(control, REQUEST.size, FILES)
        if not request:
            return
        what, pid = REQUEST.unpack(request)
        if what == REAP:
            code = _reap(pid)
            if code != ALIVE:
                children.discard(pid)
            control.sendall(REPLY.pack(code))
        else:
            pid = _fork(control, partial(begin, *files))
            children.add(pid)
            for file in files:
                os.close(file)
            control.sendall(REPLY.pack(pid))


def _fork(control: socket.socket, begin: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        control.close()
        begin()
    except BaseException:
        traceback.print_exc()  # its last line is what the parent tells of the end
    finally:
        os._exit(1)  # whatever happens, this process must not return into the server's code


def _reap(pid: int) -> int:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return ALIVE
        time.sleep(0.002)


def _end_all(children: set[int]) -> None:
    for pid in children:
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                end(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)


def _take_control() -> socket.socket:
    """The socket under another number; the standard input, which children inherit, becomes harmless."""
    control = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    return control


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", int(sys.argv[4]))
