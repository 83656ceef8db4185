"""Metrics as lines of JSON: one object per call with `step` and what was measured, on the disk when `write` returns."""

from __future__ import annotations

import json
import os
from pathlib import Path

from burnish.sinks.quiet import QuietSink, sayable
from burnish.types import Metrics


class JsonlSink(QuietSink):
    """Appends whole lines to a file, or nothing.

    Lines of one step (training, evaluation) belong together; a resumed run repeats steps, and what stands further down
    replaces what stands above. A line that a kill cut short is ended, so that it does not take the next one with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        cut = _is_cut(path)
        self._file = path.open("ab", buffering=0)
        if cut:
            self._file.write(b"\n")

    def send(self, step: int, metrics: Metrics) -> None:
        row = {"step": step} | {name: sayable(value) for name, value in metrics.items()}
        line = memoryview(json.dumps(row, allow_nan=False).encode() + b"\n")
        before = os.fstat(self._file.fileno()).st_size
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError:
            self._file.truncate(before)  # on a full disk
            raise

    def finish(self) -> None:
        self._file.close()


def _is_cut(path: Path) -> bool:
    """Whether the file's last line has no end."""
    try:
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except FileNotFoundError:
        return False
