"""Errors that speak to the user, by what they mean for the run; and the exit codes that tell them apart.

Wrong input is a plain `ValueError`. An error's notes (`add_note`) say what to type next; the command line prints them
below the error, Python does so below a traceback.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

EXIT_CODES: Mapping[int, str] = {
    0: "done",
    2: "wrong usage, configuration or data; nothing was changed",
    3: "training fault: numbers that are not finite, nothing to train on, a grader that fails",
    4: "storage fault: a checkpoint or the record cannot be written, a full disk for instance",
    5: "resume refused: what the run depends on has changed, or no checkpoint is whole",
    130: "stopped by Ctrl-C (SIGINT); what was done is saved",
    143: "stopped by SIGTERM; what was done is saved",
}
"""Exit code of every command -> what it means. Anything else is a bug, and comes with a traceback."""

BUG = 1
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class TrainingError(RuntimeError):
    """The run cannot go on: nothing to train on, a grader that fails, numbers that are not finite."""


class StorageError(OSError):
    """The record or a checkpoint cannot be written."""


class ResumeError(RuntimeError):
    """The run cannot be continued as it was asked to."""


def exit_code(error: BaseException) -> int:
    """The exit code that a command ends with when `error` ends it; `BUG` when nobody foresaw it."""
    match error:
        case SystemExit(code=int(code)):
            return code
        case KeyboardInterrupt():
            return 130
        case TrainingError() | FloatingPointError():
            return 3
        case StorageError():
            return 4
        case OSError(errno=number) if number in DISK_FULL:
            return 4
        case ResumeError():
            return 5
        case ValueError() | FileNotFoundError():
            return 2
    return BUG
