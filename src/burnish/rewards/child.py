"""The child's end of `worker.py`, in a fork of the process in `forkserver.py`.

Reads jobs from a pipe, one JSON object per line, and ends when that closes or when the process that it is a fork of is
gone. What a job prints goes to the log, so that it cannot pose as a reply.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

LOOK_SECONDS = 0.25
"""How often a process looks whether the one above it is still there."""
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024
_STOPPING = (signal.SIGTERM, signal.SIGINT)

Jobs = Mapping[str, Callable[..., Any]]


def serve(jobs: Jobs, jobs_in: int, replies: int, log: int, *, memory: int, trusted: bool, server: int) -> NoReturn:
    """Run jobs to the end of this process, which was forked a moment ago.

    Args:
        jobs_in, replies, log: descriptors, the child's own.
        server: process id of the server.
    """
    os.setsid()
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    for pipe in (jobs_in, replies):
        os.set_inheritable(pipe, False)  # what a user's code starts must not speak in its place
    os.register_at_fork(after_in_child=_heed_signals)  # what a user's code forks from here can be ended as usual
    threading.Thread(target=_end_with, args=(server,), daemon=True).start()
    processors = (os.cpu_count() or 1) if trusted else 1
    with os.fdopen(jobs_in, "rb") as lines:
        for line in lines:
            job = json.loads(line)
            _limit_cpu(processors * job["seconds"])
            _send(replies, _run(jobs, job, memory))
    os._exit(0)


def leave_signals_to_the_parent() -> None:
    """A batch system sends SIGTERM to every process of a job. Dying of it here would make a verdict a fault, while the
    parent still has a step to finish."""
    for number in _STOPPING:
        signal.signal(number, lambda number, frame: None)


def limit(which: int, value: int) -> None:
    """Set a resource limit of this process, as far as it may be set."""
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, hard))


def _heed_signals() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end_with(server: int) -> None:
    """End this process and whatever it started soon after its server, also while a job sleeps or waits for a lock.

    The end of the job pipe would not tell: a fork of the parent may hold it open.
    """
    while os.getppid() == server:
        time.sleep(LOOK_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _run(jobs: Jobs, job: dict[str, Any], memory: int) -> dict[str, Any]:
    """A fault boundary: a job works on a model's text, and its failure is a verdict, not the end of the child."""
    try:
        reply = {"value": jobs[job["job"]](**job["args"])}
    except MemoryError:
        return {"oom": True}
    except (Exception, SystemExit) as error:
        reply = {"error": f"{type(error).__name__}: {error}"[:1000]}
    # A library that swallows MemoryError would otherwise turn it into a verdict.
    return {"oom": True} if _peak() > memory else reply


def _peak() -> int:
    """The most bytes that were ever resident in this process.

    Linux keeps `ru_maxrss` across exec, so there it would count what the trainer held when it started the server.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    with open("/proc/self/status", "rb") as status:
        peak = next(line for line in status if line.startswith(b"VmHWM:"))
    return int(peak.split()[1]) * 1024


def _send(replies: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    while data:
        data = data[os.write(replies, data) :]


def _limit_cpu(seconds: float) -> None:
    """The kernel ends a job whose parent is gone, even inside one long computation in C."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds) + 2)
