"""`Batch`: the tensors of one update, flat and free of padding.

Shape letters: N completion tokens (all sequences end to end), B sequences, P prompts (= groups), R reward parts,
K terms, J tracked ids. Position n of every `_N` tensor speaks about completion token n; prompt tokens appear only in
`prompt_ids`, and no tensor is shifted by one anywhere above the learner.

`Batch` is what was collected. `Prepared` is a batch an objective has seen as a whole: advantages and weights are
fixed, so it may be cut into pieces anywhere. Two types, so that no loss can see an unprepared batch.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.types import Group, Shares

NO_TAG, MANY_TAGS = -1, -2
"""In place of a token's index: the text has no tag where it should have one; it has several."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What an objective looks for in the text of a completion: the one place where it states its confidence."""

    token: int
    """Index within the completion of the token that decides what is stated; else `NO_TAG` or `MANY_TAGS`."""
    first: int = 0
    """First token of the whole tag, `end` the one after its last; both 0 where nobody asks."""
    end: int = 0
    target: float | None = None
    """What should be stated, from 0 to 1; None where that is not known."""


Marker = Callable[[Group], Sequence[Mark]]
"""A mark for each rollout of a group."""


@dataclass(frozen=True, slots=True)
class Credit:
    """What a value head said of the tokens before the step's first update, and the credit that follows from it."""

    values_N: Tensor
    """float32, what was expected of the score before each token."""
    returns_N: Tensor
    """float32, what should have been."""
    advantages_N: Tensor
    """float32, whitened over the step where the objective whitens."""

    def at(self, index: Tensor) -> Credit:
        """That of the tokens at `index`."""
        return Credit(self.values_N[index], self.returns_N[index], self.advantages_N[index])


@dataclass(frozen=True, slots=True)
class Spread:
    """How the scores of a step spread. Standard deviations have ddof 1, and are 0 for fewer than two values."""

    score_std: float
    """Of all scores."""
    centered_mean: float
    """Over completion tokens, of score - group mean: not 0 where right and wrong answers differ in length."""
    centered_std: float
    """Over the same."""


@dataclass(frozen=True, slots=True)
class Batch:
    prompt_ids: tuple[array[int], ...]
    """Token ids of the prompt of each group, P arrays."""
    tokens_N: Tensor
    """int64."""
    old_logprobs_N: Tensor
    """float32, under the policy that sampled, at the sampling temperature. The engine's, or the learner's own where the
    objective wants those (`Objective.needs_old`)."""
    engine_logprobs_N: Tensor
    """float32, as the engine that sampled reported them."""
    mask_N: Tensor
    """bool, True on tokens that train."""
    position_N: Tensor
    """int64, index of the token within its completion."""
    sequence_N: Tensor
    """int64, 0..B-1, non-decreasing: the sequence of each token."""
    lengths_B: Tensor
    """int64, tokens per completion; may be 0."""
    group_B: Tensor
    """int64, 0..P-1: the group of each sequence."""
    scores_B: Tensor
    """float64, total scores; NaN where the score is missing."""
    raw_B: Tensor
    """float64, the task metric; NaN where missing."""
    parts_BR: Tensor
    """float64, reward parts in the order of `part_names`; NaN where missing."""
    part_names: tuple[str, ...]
    truncated_B: Tensor
    """bool, the engine stopped at the length limit."""
    target_B: Tensor
    """float32, target confidence of the sequence; NaN where there is none."""
    tag_B: Tensor
    """int64, index within the completion of the token that decides the stated confidence; `NO_TAG`, `MANY_TAGS`."""
    tag_N: Tensor
    """bool, the token belongs to the tag that states the confidence."""
    spread: Spread
    """Of the whole step, of which this batch may be a part."""
    credit: Credit | None = None
    """None unless the objective has a value head (`Objective.credit`)."""

    @property
    def num_sequences(self) -> int:
        return len(self.lengths_B)

    @property
    def num_groups(self) -> int:
        return len(self.prompt_ids)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens_N)

    def token_index(self, sequences: Tensor) -> Tensor:
        """Positions in the flat `_N` tensors of the tokens of `sequences` (int64 indices), in their order."""
        starts_B = self.lengths_B.cumsum(0) - self.lengths_B
        lengths = self.lengths_B[sequences]
        placed = lengths.cumsum(0) - lengths
        return torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts_B[sequences] - placed, lengths)

    def select(self, sequences: Tensor) -> Batch:
        """The batch of the given sequences (int64 indices, any order). Groups keep their ids; none is renumbered."""
        index = self.token_index(sequences)
        lengths = self.lengths_B[sequences]
        return replace(
            self,
            tokens_N=self.tokens_N[index],
            old_logprobs_N=self.old_logprobs_N[index],
            engine_logprobs_N=self.engine_logprobs_N[index],
            mask_N=self.mask_N[index],
            position_N=self.position_N[index],
            sequence_N=torch.repeat_interleave(torch.arange(len(lengths)), lengths),
            lengths_B=lengths,
            group_B=self.group_B[sequences],
            scores_B=self.scores_B[sequences],
            raw_B=self.raw_B[sequences],
            parts_BR=self.parts_BR[sequences],
            truncated_B=self.truncated_B[sequences],
            target_B=self.target_B[sequences],
            tag_B=self.tag_B[sequences],
            tag_N=self.tag_N[index],
            credit=None if self.credit is None else self.credit.at(index),
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A batch an objective has seen as a whole. Made by `Objective.prepare` only."""

    batch: Batch
    advantages_N: Tensor
    """float32."""
    weights_KN: Tensor
    """float32; the loss is the sum over terms and tokens of weights_KN * loss_KN."""
    num_trained: int
    """Masked-in tokens of the whole update, and not only of this piece."""
    num_sequences: int
    """Sequences of the whole update."""
    shares: Shares
    """Metrics of the whole update that were known before it was cut; not to be added up over pieces."""

    @property
    def trains(self) -> bool:
        """Whether any token has a weight in any term. An update of a batch without would still move the weights, by
        the optimiser's moments and weight decay."""
        return bool(self.weights_KN.any())

    def select(self, sequences: Tensor) -> Prepared:
        """A piece: the given sequences with the weights that the whole batch gave them."""
        index = self.batch.token_index(sequences)
        return replace(
            self,
            batch=self.batch.select(sequences),
            advantages_N=self.advantages_N[index],
            weights_KN=self.weights_KN[:, index],
        )


@dataclass(frozen=True, slots=True)
class PolicyOutput:
    """What the current policy says about the completion tokens of a piece. Carries gradient where it trains."""

    logprobs_N: Tensor
    """float32, log-probability of each token at the sampling temperature, over the full vocabulary."""
    entropy_N: Tensor
    """float32, entropy in nats of the distribution each token was drawn from, at the sampling temperature."""
    tracked_NJ: Tensor
    """float32, log-probabilities of the objective's `tracked_ids`; [N, 0] when it watches none."""
    ref_logprobs_N: Tensor | None = None
    """float32, under the frozen reference model; None unless the objective's `needs_reference`."""
    values_N: Tensor | None = None
    """float32, what the value head expects of the score before each token; None without a value head."""


def spread(groups: Sequence[Group]) -> Spread:
    """How the total scores of `groups` spread; rollouts without a score do not count."""
    scores: list[float] = []
    centered: list[tuple[float, int]] = []
    for group in groups:
        scored = [(r.score.total, len(r.completion.token_ids)) for r in group.rollouts if r.score.total is not None]
        mean = math.fsum(score for score, _ in scored) / max(len(scored), 1)
        scores += [score for score, _ in scored]
        centered += [(score - mean, length) for score, length in scored]
    _, score_std = _moments([(score, 1) for score in scores])
    return Spread(score_std, *_moments(centered))


def _moments(weighted: Sequence[tuple[float, int]]) -> tuple[float, float]:
    """Mean and standard deviation (ddof 1) of values that occur so many times each."""
    count = sum(times for _, times in weighted)
    mean = math.fsum(value * times for value, times in weighted) / max(count, 1)
    squares = math.fsum((value - mean) ** 2 * times for value, times in weighted)
    return mean, math.sqrt(squares / (count - 1)) if count > 1 else 0.0


def collate(
    groups: Sequence[Group],
    *,
    step: Spread | None = None,
    old_logprobs_N: Tensor | None = None,
    credit: Credit | None = None,
    mark: Marker | None = None,
) -> Batch:
    """Lay the rollouts of `groups` end to end, group by group. Every token is masked in.

    Args:
        step: spread of the whole step's scores, where `groups` are a part of it.
        old_logprobs_N: the learner's own; None takes the engine's.
        credit: of the same rollouts, where there is a value head.
        mark: the objective's; without one, no sequence has a tag or a target.
    """
    rollouts = [(p, rollout) for p, group in enumerate(groups) for rollout in group.rollouts]
    completions = [rollout.completion for _, rollout in rollouts]
    scores = [rollout.score for _, rollout in rollouts]
    part_names = tuple(sorted({name for score in scores for name in score.parts}))
    lengths_B = torch.tensor([len(c.token_ids) for c in completions], dtype=torch.int64)
    ends_B = lengths_B.cumsum(0)
    sequence_N = torch.repeat_interleave(torch.arange(len(completions)), lengths_B)
    tokens_N = _flat([c.token_ids for c in completions], torch.int64)
    missing = float("nan")
    marks = [found for group in groups for found in mark(group)] if mark else [Mark(NO_TAG)] * len(completions)
    tag_B = torch.tensor([found.token for found in marks], dtype=torch.int64)
    spans_B2 = torch.tensor([(found.first, found.end) for found in marks], dtype=torch.int64).reshape(len(marks), 2)
    first_B, end_B = spans_B2.unbind(1)
    position_N = torch.arange(len(tokens_N)) - (ends_B - lengths_B)[sequence_N]
    engine_logprobs_N = _flat([c.logprobs for c in completions], torch.float32)
    return Batch(
        prompt_ids=tuple(group.rollouts[0].completion.prompt_ids if group.rollouts else array("i") for group in groups),
        tokens_N=tokens_N,
        old_logprobs_N=engine_logprobs_N if old_logprobs_N is None else old_logprobs_N,
        engine_logprobs_N=engine_logprobs_N,
        mask_N=torch.ones(len(tokens_N), dtype=torch.bool),
        position_N=position_N,
        sequence_N=sequence_N,
        lengths_B=lengths_B,
        group_B=torch.tensor([p for p, _ in rollouts], dtype=torch.int64),
        scores_B=torch.tensor([missing if s.total is None else s.total for s in scores], dtype=torch.float64),
        raw_B=torch.tensor([missing if s.raw is None else s.raw for s in scores], dtype=torch.float64),
        parts_BR=torch.tensor(
            [[s.parts.get(name, missing) for name in part_names] for s in scores], dtype=torch.float64
        ).reshape(len(scores), len(part_names)),
        part_names=part_names,
        truncated_B=torch.tensor([c.finish_reason == "length" for c in completions], dtype=torch.bool),
        target_B=torch.tensor([missing if m.target is None else m.target for m in marks], dtype=torch.float32),
        tag_B=tag_B,
        tag_N=(position_N >= first_B[sequence_N]) & (position_N < end_B[sequence_N]),
        spread=spread(groups) if step is None else step,
        credit=credit,
    )


def _flat(rows: Sequence[array[int]] | Sequence[array[float]], dtype: torch.dtype) -> Tensor:
    return torch.cat([torch.tensor(row, dtype=dtype) for row in rows]) if rows else torch.zeros(0, dtype=dtype)
