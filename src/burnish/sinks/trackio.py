"""Metrics to trackio, a local tracker with the calls of Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.sinks.quiet import QuietSink, tracker
from burnish.types import Metrics


class TrackioSink(QuietSink):
    """A run named `name`; the same name continues it.

    Raises:
        ValueError: trackio is not installed.
    """

    def __init__(self, *, project: str, name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        trackio = tracker("trackio")
        self._run = trackio.init(project=project, name=name, config=dict(config), resume="allow")

    def send(self, step: int, metrics: Metrics) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._run.finish()
