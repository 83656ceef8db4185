"""The nouns. Plain frozen Python, no torch: these cross processes and are what the store records.

A `Prompt` is asked; a `Request` asks an engine for completions of it; the engine returns `Completion`s; a reward
turns each into a `Score`; completion + score is a `Rollout`; the rollouts of one request are a `Group`, the unit of
reward, filtering and advantage. A group is keyed by its own id, never by its position and never by its prompt: the
same prompt drawn twice makes two groups.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
"""`stop`: the policy sampled an end-of-sequence token. `length`: the engine cut it at `max_new_tokens`."""

Status = Literal["ok", "wrong", "unparsed", "timeout", "error", "oom", "invalid"]
"""`ok` right answer; `wrong`; `unparsed` no answer found in the text. The other four are faults of the grader."""

FAULTS: frozenset[Status] = frozenset(("timeout", "error", "oom", "invalid"))

Metrics = dict[str, float]
"""Metric name -> value, ready to be reported. Names are listed in `burnish.metric_names`."""

Shares = dict[str, tuple[float, float]]
"""Metric name -> (sum, count). Shares of disjoint pieces add up, on any number of ranks; sum / count is the metric."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked.

    Example:
        Prompt(id="add23-5-00012", messages=({"role": "user", "content": "628-371"},), answer="257")
    """

    id: str
    """Stable: the same row of the same data has the same id in every run."""
    messages: tuple[Mapping[str, str], ...] = ()
    """A conversation, rendered with the tokenizer's chat template. Empty when `text` is given."""
    text: str | None = None
    """Raw text, encoded as it is, without a template."""
    answer: str | None = None
    """Ground truth for the reward; None when the reward needs none."""
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """All other columns of the row."""

    @property
    def shown(self) -> str:
        """The prompt as a person reads it."""
        if self.text is not None:
            return self.text
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.messages)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature=0` is greedy decoding."""

    temperature: float = 1.0
    top_p: float = 1.0
    """Keep the smallest set of tokens whose probability reaches `top_p`."""
    top_k: int = 0
    """Keep the `top_k` most likely tokens; 0 keeps all."""
    min_p: float = 0.0
    """Keep tokens at least `min_p` times as likely as the likeliest."""
    max_new_tokens: int = 64


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and as many completions as there are seeds."""

    id: int
    """Dispatch number, unique within a run; becomes the group's id."""
    prompt: Prompt
    seeds: tuple[int, ...]
    """One 63-bit seed per completion: hash(run seed, policy version, prompt id, draw, sample index), so that retries,
    other engine counts and resumed runs draw the same completions."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returns for one seed. Token ids are kept as sampled and never re-tokenised."""

    prompt_ids: array[int]
    """array('i')."""
    token_ids: array[int]
    """array('i'); includes the end-of-sequence token when `finish_reason` is `stop`."""
    logprobs: array[float]
    """array('f'), one per token: under the sampling policy at the sampling temperature, over the whole vocabulary
    (nucleus and top-k truncation not renormalised). At temperature 0: at temperature 1."""
    text: str
    """Decoded without special tokens of the end of sequence."""
    finish_reason: FinishReason
    policy_version: int


@dataclass(frozen=True, slots=True)
class Score:
    """The verdict on one completion. A fault has no number: `total` and `raw` are None."""

    total: float | None
    """What the objective maximises: weighted sum of the parts."""
    raw: float | None = None
    """The task metric before weights and shaping; what the group filter and the reward curves read."""
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    status: Status = "ok"
    message: str = ""
    answer: str | None = None
    """The extracted answer, at most 80 characters."""
    ms: float | None = None
    """Wall time that grading took, in milliseconds."""


@dataclass(frozen=True, slots=True)
class Rollout:
    completion: Completion
    score: Score


@dataclass(frozen=True, slots=True)
class Group:
    id: int
    prompt: Prompt
    rollouts: tuple[Rollout, ...]

    @property
    def raw(self) -> tuple[float, ...]:
        """Raw scores of the rollouts that have one."""
        return tuple(r.score.raw for r in self.rollouts if r.score.raw is not None)


Outcome = Literal["admitted", "all_right", "all_wrong", "constant", "fault", "surplus"]
"""What became of a group: trained on; dropped because every sibling was right, wrong, or scored alike; dropped because
fewer than two siblings have a score; or admitted beyond what the step needed."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A generated group and what became of it. Every generated group is recorded, trained on or not."""

    group: Group
    outcome: Outcome
    round: int
    """Generation round of the step, from 0."""
