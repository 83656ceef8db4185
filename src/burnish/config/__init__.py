"""The configuration of a run: its schema, and how it looks from outside. No torch."""

from burnish.config.objectives import DAPO
from burnish.config.run import (
    Checkpoint,
    Columns,
    Confidence,
    Data,
    Eval,
    History,
    Log,
    Model,
    Optimizer,
    RunConfig,
    SamplingConfig,
    Train,
    resolved,
)

__all__ = [
    "DAPO",
    "Checkpoint",
    "Columns",
    "Confidence",
    "Data",
    "Eval",
    "History",
    "Log",
    "Model",
    "Optimizer",
    "RunConfig",
    "SamplingConfig",
    "Train",
    "resolved",
]
