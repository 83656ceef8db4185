"""Metrics as TensorBoard event files, written by TensorBoard's own writer (no torch, no TensorFlow)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from burnish.sinks.quiet import QuietSink
from burnish.types import Metrics


class TensorBoardSink(QuietSink):
    """One file of scalars per attempt. TensorBoard shows, where steps were repeated, those of the latest attempt."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        events: Any = event_pb2  # protobuf makes the classes at import, so no type checker sees them
        summaries: Any = summary_pb2
        self._event, self._session, self._summary = events.Event, events.SessionLog, summaries.Summary
        self._writer = EventFileWriter(str(folder), flush_secs=10)
        self._started = False

    def send(self, step: int, metrics: Metrics) -> None:
        now = time.time()
        if not self._started:
            start = self._session(status=self._session.START)
            self._writer.add_event(self._event(wall_time=now, step=step, session_log=start))
            self._started = True
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._writer.add_event(self._event(wall_time=now, step=step, summary=self._summary(value=values)))
        self._writer.flush()

    def finish(self) -> None:
        self._writer.close()
