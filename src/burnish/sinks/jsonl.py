"""Metrics as lines of JSON: one object per call with `step` and what was measured, on the disk when `write` returns."""

from __future__ import annotations

import json
import os
from pathlib import Path

from burnish.sinks.quiet import QuietSink, sayable
from burnish.types import Metrics


class JsonlSink(QuietSink):
    """Appends to a file. Lines of one step (training, evaluation) belong together; a resumed run repeats steps, and
    what stands further down replaces what stands above. A line that a kill cut short is ended, so that it does not
    take the next one with it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        cut = _is_cut(path)
        self._file = path.open("a", encoding="utf-8")
        if cut:
            self._file.write("\n")

    def send(self, step: int, metrics: Metrics) -> None:
        row = {"step": step} | {name: sayable(value) for name, value in metrics.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

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
