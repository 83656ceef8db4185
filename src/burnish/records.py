"""What a run records: one `StepRecord` per step, evaluations, events. Plain frozen Python, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from burnish.types import Judged, Metrics, Prompt


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """What the learner saw of one rollout. Arrays are array('f'), one value per completion token."""

    advantage: float
    new_logprobs: Sequence[float]
    """Under the trainer's weights at the last update of the step that used this rollout, before that update."""
    learner_logprobs: Sequence[float] | None
    """Under the trainer's weights when the rollout was sampled; None when not computed."""
    entropy: Sequence[float]
    push: Sequence[float]
    clip: Sequence[int]
    """-1 clipped low, 1 clipped high, 2 dual clip, 0 not clipped."""
    mask: Sequence[int]
    confidence: float | None = None
    """Stated, from 0 to 1, under the trainer's weights as `new_logprobs`; None where none is stated or measured."""
    target: float | None = None
    """What it should have stated."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """All of one step, for the store."""

    step: int
    policy_version: int
    started: float
    """Seconds since the epoch."""
    seconds: float
    num_updates: int
    num_rounds: int
    judged: Sequence[Judged]
    """Every generated group, in dispatch order."""
    traces: Mapping[tuple[int, int], TokenTrace]
    """(group id, sibling index) -> trace, for rollouts that were trained on."""
    metrics: Metrics


@dataclass(frozen=True, slots=True)
class EvaluationItem:
    """One held-out prompt's verdicts."""

    prompt: Prompt
    num_completions: int
    num_right: int
    majority_right: bool | None
    mean_length: float
    mean_confidence: float | None = None


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Completions whose stated confidence lies in the same tenth."""

    n: int
    confidence: float
    """Mean."""
    accuracy: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of one suite. `values` maps `avg@2`, `pass@4`, ... to (value, low, high): 95 % bootstrap."""

    step: int
    suite: str
    values: Mapping[str, tuple[float, float, float]]
    items: Sequence[EvaluationItem]
    reliability: Sequence[ReliabilityBin] = ()
    """Rising confidence; empty where none is stated or measured."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something a person should know: a fault, a decision, a limit reached."""

    kind: str
    message: str
    severity: int = 1
    """0 debug, 1 info, 2 warning, 3 error."""
    step: int | None = None
    rule: str | None = None
    value: float | None = None
    threshold: float | None = None
    advice: str | None = None
    data: Mapping[str, Any] | None = None
