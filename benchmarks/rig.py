"""Engine and learner around a model, as the configuration makes them, without data, reward or record.

    rig = Rig(model, max_new_tokens=256)
    groups = rig.generate(prompts, group_size=8, seed=0)
    prepared = rig.prepare(groups)
    rig.update(prepared)

What `step.py`, `growth_points.py` and `gpu.py` measure. `ours.py` measures the loop with everything around it.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from benchmarks import models
from burnish import build
from burnish.batch import Prepared, collate
from burnish.build.objective import make_objective
from burnish.overrides import validate
from burnish.seeds import sample_seed
from burnish.types import Completion, Group, Prompt, Request, Rollout, Sampling, Score


def compared(max_new_tokens: int, *, dtype: str, sampling_dtype: str = "float32") -> dict[str, Any]:
    """What all comparisons fix of a configuration: one update per step, the clipped loss without its companions."""
    correct = "off" if sampling_dtype == "float32" else "token"
    return {
        "model": {"dtype": dtype},
        "data": {"train": "unused", "template": False},
        "sampling": {"max_new_tokens": max_new_tokens, "dtype": sampling_dtype},
        "objective": {
            "name": "dapo",
            "dual_clip": None,
            "dynamic_sampling": False,
            "overlong": {"buffer": 0},
            "mismatch": {"correct": correct},
        },
        "train": {"updates_per_step": 1},
    }


class Rig:
    """Reads nothing from a disk. A score is 1 for an odd number of tokens."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        max_new_tokens: int,
        dtype: str = "float32",
        sampling_dtype: str = "float32",
    ) -> None:
        config = validate(compared(max_new_tokens, dtype=dtype, sampling_dtype=sampling_dtype))
        vocabulary = model.config.vocab_size
        tokenizer = models.tokenizer(vocabulary)
        self.objective = make_objective(config, vocab_size=vocabulary)
        self.learner = build.make_learner(config, model, tokenizer, self.objective)
        self.engine = build.make_engine(config, model, tokenizer, lambda prompt: array("i", prompt.meta["ids"]))
        self.engine.load(self.learner.publish(0))
        self._sampling = Sampling(max_new_tokens=max_new_tokens)

    def generate(self, prompts: Sequence[Sequence[int]], *, group_size: int, seed: int) -> list[Group]:
        """A group for each prompt, in order."""
        siblings = range(group_size)
        requests = [
            Request(p, Prompt(str(p), meta={"ids": ids}), tuple(sample_seed(seed, 0, str(p), 0, g) for g in siblings))
            for p, ids in enumerate(prompts)
        ]
        found: dict[int, tuple[Completion, ...]] = dict(self.engine.generate(requests, self._sampling))
        return [Group(r.id, r.prompt, tuple(Rollout(c, parity(c)) for c in found[r.id])) for r in requests]

    def prepare(self, groups: Sequence[Group]) -> Prepared:
        """With a forward pass of the learner's own where the engine draws in other numbers than it computes in."""
        old_N = self.learner.logprobs(collate(groups)) if self.objective.needs_old else None
        return self.objective.prepare(collate(groups, old_logprobs_N=old_N))

    def update(self, prepared: Prepared) -> None:
        self.learner.forward_backward(prepared)
        self.learner.step()


def parity(completion: Completion) -> Score:
    return Score(float(len(completion.token_ids) % 2))


def completions(groups: Sequence[Group]) -> list[Completion]:
    return [rollout.completion for group in groups for rollout in group.rollouts]


def num_tokens(groups: Sequence[Group]) -> int:
    return sum(len(completion.token_ids) for completion in completions(groups))
