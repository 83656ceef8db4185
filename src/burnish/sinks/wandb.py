"""Metrics to Weights & Biases. Its own environment variables hold: WANDB_MODE, WANDB_API_KEY, WANDB_ENTITY, ..."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from burnish.sinks.quiet import QuietSink, tracker
from burnish.types import Metrics


class WandbSink(QuietSink):
    """A run named `name`; the same name continues it.

    Raises:
        ValueError: wandb is not installed.
    """

    def __init__(self, *, project: str, name: str, config: Mapping[str, Any]) -> None:
        super().__init__()
        wandb = tracker("wandb")
        self._run = wandb.init(project=project, name=name, id=name, resume="allow", config=dict(config))
        # Its own step counter cannot go back, and a resumed run does.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def send(self, step: int, metrics: Metrics) -> None:
        self._run.log({"step": step} | metrics)

    def finish(self) -> None:
        self._run.finish()
