"""Metrics as lines of JSON: one object per call with `step` and what was measured, on the disk when `write` returns."""

from __future__ import annotations

import json
from pathlib import Path

from burnish.sinks.quiet import QuietSink, sayable
from burnish.types import Metrics


class JsonlSink(QuietSink):
    """Appends to a file. Lines of one step (training, evaluation) belong together; a resumed run repeats steps, and
    what stands further down replaces what stands above."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("a", encoding="utf-8")

    def send(self, step: int, metrics: Metrics) -> None:
        row = {"step": step} | {name: sayable(value) for name, value in metrics.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def finish(self) -> None:
        self._file.close()
