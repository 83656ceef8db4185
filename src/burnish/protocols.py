"""The seams. Everything slow, remote or replaceable sits behind one of these; each has a second implementation.

How a step passes through them (`train.py`):

    PromptSampler.take -> RolloutEngine.generate -> Reward -> PromptSampler.observe -> GroupFilter
        -> Learner.forward_backward, Learner.step -> Learner.publish -> RolloutEngine.load -> Store.record
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from burnish.records import Evaluation, Event, StepRecord
from burnish.types import Completion, Group, Metrics, Outcome, Prompt, Request, Sampling, Score, Shares

if TYPE_CHECKING:
    from torch import Tensor

    from burnish.batch import Batch, Prepared


@dataclass(frozen=True, slots=True)
class Publication:
    """A frozen handle on one version of the policy's weights."""

    version: int
    weights: Any
    """What the engine at hand loads: a module in this process; a file or a transport handle across processes."""


class RolloutEngine(Protocol):
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (request id, its completions in seed order) as requests finish, in any order of requests."""
        ...

    def load(self, publication: Publication, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """What one forward and backward pass over a whole prepared mini-batch brought to light, in batch order."""

    shares: Shares
    logprobs_N: Tensor
    """float32, current log-probabilities, before the update that follows."""
    entropy_N: Tensor
    """float32."""
    push_N: Tensor
    """float32, -d(loss)/d(logprob_n): how hard the update pushes each token's log-probability, and which way."""
    tracked_NJ: Tensor | None = None
    """float32, log-probabilities of the objective's `tracked_ids`; None where it watches none."""


class Learner(Protocol):
    def logprobs(self, batch: Batch, /) -> Tensor:
        """Log-probabilities under the current weights, float32 [N] in batch order, without gradient."""
        ...

    def values(self, batch: Batch, /) -> Tensor:
        """What the value head expects before each token, as `logprobs`. Asked only where the objective has a head."""
        ...

    def forward_backward(self, prepared: Prepared, /) -> Pass:
        """Accumulate the gradient of the objective over the whole prepared mini-batch.

        The learner cuts it into pieces by its own token budget: only it knows its memory.
        """
        ...

    def step(self) -> Metrics:
        """Clip the gradient, update the weights, zero the gradient. Norms and maxima are reported here.

        With a loss or a gradient that is not finite it updates nothing and reports `update/skipped` as 1.
        """
        ...

    def not_finite(self) -> tuple[str, ...]:
        """What kept the last `step` from updating: `the loss`, `the gradient of` a parameter; empty when it updated."""
        ...

    def publish(self, version: int, /) -> Publication: ...
    def save(self, folder: Path, /) -> None:
        """Write weights (`save_pretrained` layout) into `folder` and the optimiser's state into `folder/resume`."""
        ...

    def restore(self, folder: Path, /) -> None: ...


class Reward(Protocol):
    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Score]:
        """Score one prompt's completions together, so that a reward may compare siblings."""
        ...


class Statements(Protocol):
    def __call__(self, groups: Sequence[Group], /) -> Sequence[Sequence[float | None]]:
        """The confidence that each rollout of each group states, from 0 to 1; None where it states none."""
        ...


class PromptSampler(Protocol):
    """Chooses prompts; never judges or admits."""

    def take(self, n: int, /) -> list[Prompt]: ...
    def observe(self, group: Group, /) -> None:
        """Hear of every generated group, whether it trains or not."""
        ...

    def report(self) -> Metrics:
        """What choosing came to since the last report."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what `take` returns next, as plain JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], /) -> None: ...


class GroupFilter(Protocol):
    def __call__(self, group: Group, /) -> Outcome:
        """`admitted`, or why not."""
        ...


class Sink(Protocol):
    """Receives every step's metrics. A sink that fails warns and never stops the run."""

    def write(self, step: int, metrics: Metrics, /) -> None: ...
    def close(self) -> None: ...


class Store(Protocol):
    """The record. One call is one transaction; readers open the file read-only."""

    def record(self, step: StepRecord, /) -> None: ...
    def record_evaluation(self, evaluation: Evaluation, /) -> None: ...
    def record_event(self, event: Event, /) -> None: ...
    def close(self) -> None:
        """Write what is queued and close."""
        ...


class PromptEncoder(Protocol):
    def __call__(self, prompt: Prompt, /) -> Sequence[int]:
        """Token ids of the rendered prompt."""
        ...
