"""Stand-ins for the seams of the loop that tests share. The engine's is public: `burnish.rollout.scripted`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from burnish.batch import Batch, Prepared
from burnish.objective import Objective, clipped_objective
from burnish.prompts.filters import ConstantGroups
from burnish.prompts.sampler import ShuffledSampler
from burnish.protocols import Pass, Publication
from burnish.records import Evaluation, Event, StepRecord
from burnish.rollout.scripted import Script, ScriptedEngine
from burnish.train import Plan, Run
from burnish.types import Completion, Metrics, Prompt, Sampling, Score


class RecordingLearner:
    """Learns nothing and remembers every mini-batch; its log-probabilities are the engine's."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective
        self.minibatches: list[Prepared] = []
        self.steps = 0

    def logprobs(self, batch: Batch, /) -> Tensor:
        return batch.old_logprobs_N

    def values(self, batch: Batch, /) -> Tensor:
        return torch.zeros(batch.num_tokens)

    def forward_backward(self, prepared: Prepared, /) -> Pass:
        self.minibatches.append(prepared)
        zeros_N = torch.zeros_like(prepared.advantages_N)
        return Pass({"loss": (0.0, 1.0)}, prepared.batch.old_logprobs_N, zeros_N, zeros_N)

    def step(self) -> Metrics:
        self.steps += 1
        return {"grad_norm": 1.0, "learning_rate": 0.1, "update/skipped": 0.0}

    def not_finite(self) -> tuple[str, ...]:
        return ()

    def publish(self, version: int, /) -> Publication:
        return Publication(version, None)

    def save(self, folder: Path, /) -> None:
        raise NotImplementedError

    def restore(self, folder: Path, /) -> None:
        raise NotImplementedError


@dataclass
class ListStore:
    steps: list[StepRecord] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def record(self, step: StepRecord, /) -> None:
        self.steps.append(step)

    def record_evaluation(self, evaluation: Evaluation, /) -> None:
        self.evaluations.append(evaluation)

    def record_event(self, event: Event, /) -> None:
        self.events.append(event)

    def close(self) -> None: ...


def questions(n: int) -> tuple[Prompt, ...]:
    return tuple(Prompt(f"q{i}", text=f"q{i}", answer="yes") for i in range(n))


def yes_is_right(prompt: Prompt, completions: Sequence[Completion]) -> list[Score]:
    return [Score(1.0, 1.0, status="ok") if c.text == "yes" else Score(-1.0, -1.0, status="wrong") for c in completions]


def make_run(script: Script, *, num_prompts: int = 8, order=tuple, **plan) -> Run:
    """A run whose policy is `script` and whose reward is +1 for the text `yes`, -1 for anything else."""
    objective = clipped_objective(
        advantage="standardized",
        reduction="token_mean",
        clip_low=0.2,
        clip_high=0.28,
        dual_clip=None,
        max_new_tokens=8,
    )
    sizes = {
        "steps": 1, "prompts_per_step": 4, "group_size": 2, "updates_per_step": 2, "epochs": 1, "max_rounds": 4,
        "on_exhausted": "train", "keep_surplus": False, "sampling": Sampling(max_new_tokens=8), "seed": 1,
    }  # fmt: skip
    return Run(
        plan=Plan(**(sizes | plan)),
        engine=ScriptedEngine(script, order=order),
        learner=RecordingLearner(objective),
        reward=yes_is_right,
        objective=objective,
        prompts=ShuffledSampler(questions(num_prompts), seed=1, shuffle=False),
        admit=ConstantGroups(),
        store=ListStore(),
    )
