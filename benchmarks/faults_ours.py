"""This project's side of `peer_reliability.py`; see `faults.py`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import faults
from benchmarks.faults import GROUP_SIZE, KILLED, LEARNING_RATE, MAX_NEW_TOKENS, REWARDS, Case
from burnish import api
from burnish.api import Completion, Prompt, Score, Term
from burnish.batch import Batch
from burnish.rewards.verify import Verifier


class Kill:
    """The weights of a term that weighs nothing; dies when the update after the last wanted one is prepared."""

    def __init__(self, after: int | None) -> None:
        self.after, self.updates = after, 0

    def __call__(self, batch: Batch) -> Tensor:
        if self.updates == self.after:
            os._exit(KILLED)
        self.updates += 1
        return torch.zeros(batch.num_tokens)


class ByRule:
    """A reward that says what the case wants; numbers that are none are the run's business."""

    def __init__(self, name: str) -> None:
        self.rule = REWARDS[name]

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        values = [self.rule(len(c.token_ids), sibling) for sibling, c in enumerate(completions)]
        return [Score(value, value, status="ok" if value else "wrong") for value in values]


def train(case: Case) -> Path:
    updates = case.updates_per_generation * case.uses
    experiment = api.load(
        {
            "out": case.out,
            "seed": 1,
            "model": {"path": case.model},
            "data": {"train": case.data, "template": False},
            "sampling": {
                "prompts_per_step": case.prompts_per_generation,
                "group_size": GROUP_SIZE,
                "max_new_tokens": MAX_NEW_TOKENS,
            },
            "objective": {
                "name": "dapo",
                "advantage": "standardized" if case.standardized else "centered",
                "dynamic_sampling": False,
                "overlong": {"buffer": 0},
            },
            "optimizer": {"learning_rate": LEARNING_RATE},
            "train": {
                "steps": case.generations,
                "updates_per_step": case.updates_per_generation,
                "epochs": case.uses,
                "threads": 1,
            },
            "checkpoint": {"every": 0 if case.save_every is None else max(1, case.save_every // updates)},
        }
    )
    nothing = Term("kill", Kill(case.kill_after), lambda output, prepared: torch.zeros_like(output.logprobs_N))
    done = api.train(experiment.with_reward(ByRule(case.reward)).with_term(nothing), resume=case.resume)
    return Path(done.model)


def grader() -> Callable[[str, str], float | None]:
    verify = Verifier("auto", right=1.0, wrong=0.0, seconds=5.0)

    def grade(text: str, answer: str) -> float | None:
        return verify(text, answer).raw

    return grade


if __name__ == "__main__":
    faults.main(train, grader)
