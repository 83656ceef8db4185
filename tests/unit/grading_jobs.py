"""Jobs that misbehave, for the tests of the grading process."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

IMPORTED_BY = os.getpid()


def self_check() -> None: ...


def imported_by() -> int:
    return IMPORTED_BY


def double(number: int) -> int:
    return 2 * number


def hang() -> None:
    while True:
        try:
            sum(range(10**8))
        except BaseException:
            continue


def hang_in_c() -> int:
    """One call of a function in C that never looks for signals."""
    return sum(range(10**12))


def sleep(started: str) -> None:
    Path(started).write_text(str(os.getpid()))
    time.sleep(600)


def bloat() -> int:
    kept = []
    while True:
        kept.append(bytearray(b"x") * (1 << 22))


def die(code: int) -> None:
    os._exit(code)


def leave() -> None:
    sys.exit("leaving")


def fail() -> None:
    raise LookupError("no such thing")


def chatter() -> str:
    print('{"value": "forged"}', flush=True)
    os.write(1, b'{"value": "forged"}\n')
    return "said"


def print_(text: str) -> None:
    print(text)


def read_input() -> str:
    return sys.stdin.read()


def nap(seconds: float) -> None:
    time.sleep(seconds)


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)


def killed_until(path: str, kills: int) -> int:
    """Gets its process killed the first times; how often, is in a file."""
    count = len(Path(path).read_text()) if Path(path).exists() else 0
    if count < kills:
        Path(path).write_text("x" * (count + 1))
        kill_me()
    return count


def wait_until_killed(path: str) -> str:
    """Waits the first time that it is called; a file knows of that."""
    if Path(path).exists():
        return "again"
    Path(path).touch()
    time.sleep(600)
    return "never killed"


_KEPT: list[object] = []


def keep(mebibytes: int) -> None:
    _KEPT.append(bytearray(b"x") * (mebibytes << 20))
    time.sleep(0.1)


def remember(value: int) -> None:
    _KEPT.append(value)


def recall() -> object:
    return _KEPT[-1]


def length(text: str) -> int:
    return len(text)


def inheritable() -> list[int]:
    """Descriptors that a program started from here would have."""
    there = [int(name) for name in os.listdir("/dev/fd")]
    return [number for number in there if number > 2 and is_open(number) and os.get_inheritable(number)]


def is_open(number: int) -> bool:
    """The one that listed the others is not any more."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def loaded() -> list[str]:
    return sorted(name for name in ("torch", "numpy", "transformers") if name in sys.modules)


JOBS: dict[str, Any] = {
    job.__name__: job
    for job in (
        *(double, hang, hang_in_c, sleep, bloat, die, leave, fail, chatter, read_input, loaded, nap, kill_me),
        *(killed_until, keep, remember, recall, length, print_, imported_by, wait_until_killed, inheritable),
    )
}
