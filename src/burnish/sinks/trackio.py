"""Metrics to trackio, a local tracker with the calls of Weights & Biases."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from burnish.sinks.quiet import QuietSink
from burnish.types import Metrics


class TrackioSink(QuietSink):
    """A run named `name`; the same name continues it.

    Raises:
        ValueError: trackio is not installed.
    """

    def __init__(self, *, project: str, name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        try:
            trackio = importlib.import_module("trackio")
        except ModuleNotFoundError as error:
            raise ValueError(
                "log.sinks has trackio, which is not installed. Type pip install 'burnish[wandb]', or leave it out"
            ) from error
        self._run = trackio.init(project=project, name=name, config=dict(config), resume="allow")

    def send(self, step: int, metrics: Metrics) -> None:
        self._run.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._run.finish()
