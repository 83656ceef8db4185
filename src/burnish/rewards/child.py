"""The child's end of `worker.py`: `python -m burnish.rewards.child MODULE MEMORY_BYTES TRUSTED PARENT_PID`.

Reads jobs from its standard input, one JSON object per line, and ends when that closes or when its parent is gone. What
a job prints goes to the error stream, so that it cannot pose as a reply.
"""

from __future__ import annotations

import importlib
import json
import logging
import math
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.5
"""How often a child looks whether its parent is still there."""
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def main(module: str, memory: int, trusted: bool, parent: int) -> None:
    jobs_in, replies = _take_pipes()
    _leave_signals_to_the_parent()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _limit(resource.RLIMIT_CORE, 0)
    processors = (os.cpu_count() or 1) if trusted else 1
    if sys.platform == "linux" and not trusted:
        # The parent kills at `memory` resident bytes; this stops a single huge allocation between two looks.
        _limit(resource.RLIMIT_AS, 2 * memory)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    loaded = importlib.import_module(module)
    loaded.self_check()
    _send(replies, {"ready": True})
    with os.fdopen(jobs_in, "rb") as lines:
        for line in lines:
            job = json.loads(line)
            _limit_cpu(processors * job["seconds"])
            _send(replies, _run(loaded.JOBS, job, memory))


def _end_with(parent: int) -> None:
    """End this process and whatever it started soon after its parent, also while a job sleeps or waits for a lock.

    The end of the job pipe would not tell: a fork of the parent may hold it open.
    """
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _run(jobs: dict[str, Callable[..., Any]], job: dict[str, Any], memory: int) -> dict[str, Any]:
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
    """The most bytes that were ever resident in this program.

    Linux keeps `ru_maxrss` across exec, so there it would count what the parent held when it started this process.
    """
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
    with open("/proc/self/status", "rb") as status:
        peak = next(line for line in status if line.startswith(b"VmHWM:"))
    return int(peak.split()[1]) * 1024


def _leave_signals_to_the_parent() -> None:
    """A batch system sends SIGTERM to every process of a job. Dying of it here would make a verdict a fault, while the
    parent still has a step to finish. What a user's code forks from here can be ended as usual."""
    stopping = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, frame: None) for number in stopping}
    os.register_at_fork(after_in_child=lambda: [signal.signal(*item) for item in before.items()])


def _take_pipes() -> tuple[int, int]:
    """Private copies of the two pipes; the standard streams become harmless."""
    jobs_in, replies = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return jobs_in, replies


def _send(replies: int, reply: dict[str, Any]) -> None:
    data = json.dumps(reply).encode() + b"\n"
    while data:
        data = data[os.write(replies, data) :]


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(which, (value, hard))


def _limit_cpu(seconds: float) -> None:
    """The kernel ends a job whose parent is gone, even inside one long computation in C."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _limit(resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds) + 2)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1", int(sys.argv[4]))
