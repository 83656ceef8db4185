"""The objective's part: it marks where completions state their confidence, trains the statement, and reports it.

    objective = with_confidence(objective, Marking(Tag(), decode, offset, correctness), ids, coef=0.1, ...)

`Marking` runs when groups are collated, with the whole group in view, and puts the deciding token and the target into
the batch. The weight is coef / (valid statements of the whole update), fixed in `Objective.prepare`, so it may be
cut like any other. `PolicyOutput.tracked_NJ` holds the log-probabilities of both words at every token, packed or not.

A statement is valid when there is exactly one tag and a target, and the completion trains (overlong filtering).

Shape letters: N completion tokens, B sequences, V valid statements, J tracked ids (high, low).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from burnish.algorithms import confidence
from burnish.batch import MANY_TAGS, NO_TAG, Batch, Mark, PolicyOutput, Prepared
from burnish.confidence.tag import Tag
from burnish.confidence.tokens import Decode, Places
from burnish.objective import Objective, Term, Weights
from burnish.types import FAULTS, Group, Rollout, Shares

ScoreName = Literal["softmax", "prob_diff"]
LossName = Literal["regression", "classification"]

Target = Callable[[Group], Sequence[float | None]]
"""What each rollout of a group should state; None where nobody knows."""

TOKEN_OF = {"missing": NO_TAG, "multiple": MANY_TAGS}

SCORES: Mapping[ScoreName, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": confidence.softmax_score,
    "prob_diff": confidence.prob_diff_score,
}
"""(log P(high), log P(low)) -> score."""

LOSSES: Mapping[tuple[LossName, ScoreName], Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    ("regression", "softmax"): lambda h, lo, t: confidence.squared_error(confidence.softmax_score(h, lo), t),
    ("regression", "prob_diff"): lambda h, lo, t: confidence.squared_error(confidence.prob_diff_score(h, lo), t),
    ("classification", "softmax"): confidence.softmax_cross_entropy,
    ("classification", "prob_diff"): lambda h, lo, t: confidence.cross_entropy(confidence.prob_diff_score(h, lo), t),
}
"""(log P(high), log P(low), target) -> loss."""

COLUMNS: Mapping[LossName, str] = {"regression": "target_confidence", "classification": "confidence_label"}
"""Where a row of data holds the target."""


# -- targets ----------------------------------------------------------------------------------------------------------


def from_data(column: str) -> Target:
    """The prompt's own column, the same for all of its completions."""

    def target(group: Group) -> Sequence[float | None]:
        value = group.prompt.meta.get(column)
        return [None if value is None else float(value)] * len(group.rollouts)

    return target


def group_accuracy(group: Group) -> Sequence[float | None]:
    """The share of right siblings, itself included, among those with a verdict: how well the policy does here."""
    rights = [right for right in correctness(group) if right is not None]
    return [sum(rights) / len(rights) if rights else None] * len(group.rollouts)


def correctness(group: Group) -> Sequence[float | None]:
    """1 for a right completion, 0 for a wrong one; with either loss a proper scoring rule."""
    return [_right(rollout) for rollout in group.rollouts]


def _right(rollout: Rollout) -> float | None:
    status = rollout.score.status
    return None if status in FAULTS else float(status == "ok")


# -- marks ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marking:
    """A `Marker`: finds each completion's tag, and what it should say."""

    tag: Tag
    decode: Decode
    offset: int
    """See `tokens.Decision`."""
    target: Target
    spans: bool = False
    """Also find the tokens of the whole tag."""

    def __call__(self, group: Group) -> list[Mark]:
        targets = self.target(group)
        return [self._mark(r.completion.token_ids, t) for r, t in zip(group.rollouts, targets, strict=True)]

    def _mark(self, ids: Sequence[int], target: float | None) -> Mark:
        text = self.decode(ids)
        found = self.tag.find(text)
        if isinstance(found, str):
            return Mark(TOKEN_OF[found], target=target)
        places = Places(ids, self.decode, length=len(text))
        token = places.token_at(found.value_start + self.offset)
        if not self.spans:
            return Mark(token, target=target)
        return Mark(token, first=places.token_at(found.start), end=places.token_at(found.end - 1) + 1, target=target)


# -- the term ---------------------------------------------------------------------------------------------------------


def with_confidence(
    objective: Objective,
    marking: Marking,
    ids: tuple[int, int],
    *,
    coef: float,
    loss: LossName,
    score: ScoreName,
    mask_tag: bool = False,
) -> Objective:
    """The objective with a confidence term.

    Args:
        ids: token ids of high and low at the deciding position.
        coef: weight of the mean loss over the valid statements of an update.
        mask_tag: the tokens of the tag train by this term alone; `marking` must find spans then.
    """
    assert not objective.tracked_ids, "the tracked ids are the confidence term's"
    assert marking.spans or not mask_tag, "masking a tag needs its span"
    rate, lose = SCORES[score], LOSSES[loss, score]

    def weights(batch: Batch) -> Tensor:
        index_V = _valid(batch)[1]
        return torch.zeros(batch.num_tokens).index_fill(0, index_V, coef / max(len(index_V), 1))

    def losses_V(output: PolicyOutput, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Index of the deciding tokens, losses, scores."""
        sequences_V, index_V = _valid(batch)
        high_V, low_V = output.tracked_NJ[index_V].unbind(1)
        return index_V, lose(high_V, low_V, batch.target_B[sequences_V]), rate(high_V, low_V)

    def token_loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        index_V, loss_V, _ = losses_V(output, prepared.batch)
        return torch.zeros_like(output.logprobs_N).index_put((index_V,), loss_V)

    def report(output: PolicyOutput, prepared: Prepared) -> Shares:
        _, loss_V, score_V = losses_V(output, prepared.batch)
        num_valid, num_sequences = float(len(loss_V)), float(prepared.batch.num_sequences)
        return {
            "confidence/loss": (loss_V.sum(dtype=torch.float64).item(), num_valid),
            "confidence/score_mean": (score_V.sum(dtype=torch.float64).item(), num_valid),
            "confidence/valid_ratio": (num_valid, num_sequences),
            "confidence/missing": (float((prepared.batch.tag_B == NO_TAG).sum()), num_sequences),
            "confidence/multiple": (float((prepared.batch.tag_B == MANY_TAGS).sum()), num_sequences),
        }

    def stated(tracked_NJ: Tensor, batch: Batch) -> Tensor:
        sequences, index = _deciding(batch, batch.tag_B >= 0)
        found_B = torch.full((batch.num_sequences,), float("nan"))
        found_B[sequences] = rate(*tracked_NJ[index].unbind(1))
        return found_B

    terms = tuple(_without_tag(term) for term in objective.terms) if mask_tag else objective.terms
    return replace(
        objective,
        terms=(*terms, Term("confidence", weights, token_loss, report)),
        tracked_ids=ids,
        mark=marking,
        confidence=stated,
    )


def _valid(batch: Batch) -> tuple[Tensor, Tensor]:
    """The valid statements: their sequences, and their deciding tokens in the flat tensors; both int64 [V]."""
    sequences, index = _deciding(batch, (batch.tag_B >= 0) & ~batch.target_B.isnan())
    trains = batch.mask_N[index]
    return sequences[trains], index[trains]


def _deciding(batch: Batch, where_B: Tensor) -> tuple[Tensor, Tensor]:
    starts_B = batch.lengths_B.cumsum(0) - batch.lengths_B
    return where_B.nonzero().squeeze(1), (starts_B + batch.tag_B)[where_B]


def _without_tag(term: Term) -> Term:
    weigh: Weights = term.weights
    return replace(term, weights=lambda batch: weigh(replace(batch, mask_N=batch.mask_N & ~batch.tag_N)))
