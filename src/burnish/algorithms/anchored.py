"""ADPO's listwise objective (arXiv:2510.18913): siblings as a distribution, anchored at the policy that sampled them.

Within a group, with s_i the log-probability of completion i and s_i' that of the anchor (the old policy),

    q = softmax(A / beta_reward)                what the scores ask for
    p = softmax((s - s') / tau)                 how far the policy has gone, relative to the anchor
    loss = mean over groups of  -sum_i q_i log p_i,          d loss / d s_i = (p_i - q_i) / tau / groups

The gradient is that of a plain policy gradient on s with advantage (q - p) / tau. So a group need not be whole where
the loss is computed: `pull` is taken from the whole update under the current policy, before anything is cut.

At the anchor p is uniform: the loss is log G whatever q is, and says nothing; its gradient is (1/G - q) / tau. A group
whose scores are all alike has a uniform q: no gradient at the anchor, and a pull back to it elsewhere.

Shape letters: N completion tokens, B sequences, P groups.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from burnish.algorithms import groups


class Siblings(NamedTuple):
    """Who is compared with whom."""

    index_B: Tensor
    """int64, group of each sequence, 0..P-1."""
    num_groups: int
    among_B: Tensor
    """bool, the sequence takes part. A group of which one or none takes part has nothing to compare."""

    @property
    def size_P(self) -> Tensor:
        """How many take part in each group, int64."""
        return groups.total(self.among_B.long(), self.index_B, self.num_groups)


def siblings(group_B: Tensor, scores_B: Tensor) -> Siblings:
    """Siblings by group id, of any number, in any order; a sequence whose score is NaN takes no part."""
    return Siblings(*groups.dense(group_B), ~scores_B.isnan())


def target(advantages_B: Tensor, of: Siblings, *, beta_reward: float) -> Tensor:
    """q = softmax(advantage / beta_reward) within each group: float64 [B], 0 for those who take no part."""
    return groups.log_softmax(advantages_B.double() / beta_reward, of.index_B, of.num_groups, among_B=of.among_B).exp()


def drift(
    logprobs_N: Tensor, old_logprobs_N: Tensor, sequence_N: Tensor, *, share_N: Tensor, num_sequences: int
) -> Tensor:
    """s - s': log-probability of each completion minus the anchor's, float64 [B].

    Args:
        share_N: what each token counts for in s: 1 for the sum, as published, 1 / length for the mean; 0 where the
            mask is False.
    """
    gap_N = (logprobs_N - old_logprobs_N).double().masked_fill(share_N == 0, 0.0)
    return groups.total(share_N * gap_N, sequence_N, num_sequences)


def gone(drift_B: Tensor, of: Siblings, *, tau_P: Tensor) -> Tensor:
    """log p = log softmax(drift / tau) within each group: float64 [B], -inf for those who take no part."""
    return groups.log_softmax(drift_B / tau_P[of.index_B], of.index_B, of.num_groups, among_B=of.among_B)


def pull(target_B: Tensor, gone_B: Tensor, of: Siblings, *, tau_P: Tensor) -> Tensor:
    """The advantage (q - p) / tau: float32 [B], exactly 0 for those who take no part or have no sibling who does."""
    return ((target_B - gone_B.exp()) / tau_P[of.index_B]).float()


def cross_entropy(target_B: Tensor, gone_B: Tensor, of: Siblings) -> Tensor:
    """-sum q log p of each group: float64 [P], in nats; 0 where nobody takes part."""
    return groups.total(-target_B * gone_B.masked_fill(~of.among_B, 0.0), of.index_B, of.num_groups)


def entropy(target_B: Tensor, of: Siblings) -> Tensor:
    """Entropy of each group's target: float64 [P], in nats."""
    return groups.total(-torch.xlogy(target_B, target_B), of.index_B, of.num_groups)
