"""Advantages: how much better was this rollout than its siblings?

Shape letters: B sequences, P groups. `group_B` holds one group id per sequence: any integers, any order, any sizes.

All functions agree on the edges, and give exactly 0, never a small number, where there is nothing to learn:

- a missing score (NaN) takes no part in any mean or standard deviation, and its own advantage is 0;
- a group with fewer than two scores has nobody to compare with;
- a group whose scores are all alike carries no signal. Alike is tested by max - min: the standard deviation of eight
  equal floats need not be 0 (eight float32 0.9125 give 6.4e-8), and dividing one rounding error by another invents an
  advantage of the order of 1.

Statistics are computed in float64 and results returned in float32.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from burnish.algorithms import alike
from burnish.algorithms.groups import dense, total

EPS = 1e-6
"""Added to a standard deviation before it divides; verl's value (TRL adds 1e-4)."""


def standardized(scores_B: Tensor, group_B: Tensor, *, eps: float = EPS) -> Tensor:
    """(score - group mean) / (group std + eps): GRPO (arXiv:2402.03300) and DAPO (arXiv:2503.14476, equation 9).

    Args:
        scores_B: float64, NaN where missing.
        group_B: int64 group ids.

    Returns:
        float32 [B]. The standard deviation is the sample's (n - 1 in the denominator), as in verl and TRL; the papers
        leave it open.
    """
    groups = _compare(scores_B, group_B)
    std_B = (groups.squares_B / (groups.size_B - 1).clamp(min=1)).sqrt()
    return groups.learnable(groups.centered_B / (std_B + eps))


def centered(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """Score - group mean: Dr.GRPO (arXiv:2503.20783). Shapes as in `standardized`."""
    groups = _compare(scores_B, group_B)
    return groups.learnable(groups.centered_B)


def batch_scaled(scores_B: Tensor, group_B: Tensor, *, std: float | None = None, eps: float = EPS) -> Tensor:
    """(score - group mean) / (std of all scores + eps): Lite PPO (arXiv:2508.08221). Shapes as in `standardized`.

    The standard deviation is taken around the mean of the whole batch, over every score that is present, those of
    groups without signal included.

    Args:
        std: that of the step's scores, when these are a part of them; None takes it over `scores_B`.
    """
    groups = _compare(scores_B, group_B)
    if std is None:
        present = scores_B.double()[groups.present_B]
        std = ((present - present.mean()).square().sum() / max(len(present) - 1, 1)).sqrt().item()
    return groups.learnable(groups.centered_B / (std + eps))


def leave_one_out(scores_B: Tensor, group_B: Tensor) -> Tensor:
    """Score - mean of the *other* scores of its group: RLOO (arXiv:2402.14740). Shapes as in `standardized`.

    Computed as (score - group mean) * n / (n - 1), which is the same number.
    """
    groups = _compare(scores_B, group_B)
    return groups.learnable(groups.centered_B * groups.size_B / (groups.size_B - 1).clamp(min=1))


def length_weighted(scores_B: Tensor, group_B: Tensor, lengths_B: Tensor) -> Tensor:
    """Score - length-weighted mean of the group's scores: OPO (arXiv:2505.23585). Shapes as in `standardized`.

    The baseline sum(length * score) / sum(length) has the least variance when a completion's squared gradient grows
    with its length.

    Args:
        lengths_B: int64, tokens of each completion.
    """
    groups = _compare(scores_B, group_B)
    length_B = lengths_B.double().masked_fill(~groups.present_B, 0.0)
    baseline_B = groups.total(length_B * groups.centered_B) / groups.total(length_B).clamp(min=1.0)
    return groups.learnable(groups.centered_B - baseline_B)


def best_of_group(scores_B: Tensor, group_B: Tensor, *, eps: float = EPS) -> Tensor:
    """(best - second best) / (group std + eps) for the group's best, 0 for the others: pass@k training as in verl's
    `grpo_passk` (arXiv:2503.19595). A tie for the best leaves nothing to learn. Shapes as in `standardized`."""
    groups = _compare(scores_B, group_B)
    best_B = groups.most(groups.centered_B)
    is_best_B = groups.present_B & (groups.centered_B == best_B)
    others_B = groups.centered_B.masked_fill(is_best_B, -torch.inf)
    second_B = groups.most(others_B)
    alone_B = is_best_B & (groups.total(is_best_B.double()) == 1)
    std_B = (groups.squares_B / (groups.size_B - 1).clamp(min=1)).sqrt()
    return groups.learnable(((best_B - second_B) / (std_B + eps)).masked_fill(~alone_B, 0.0))


def whitened(scores_B: Tensor, group_B: Tensor, *, mean: float, std: float, eps: float = EPS) -> Tensor:
    """(score - group mean - mean) / (std + eps): REINFORCE++ with the group baseline (arXiv:2501.03262; verl's
    `reinforce_plus_plus_baseline`). Shapes as in `standardized`.

    Deviates from verl in that a group whose scores are all alike stays at exactly 0, not at -mean / std.

    Args:
        mean: of (score - group mean) over all completion tokens of the step; 0 when all are equally long.
        std: its standard deviation over the same tokens.
    """
    groups = _compare(scores_B, group_B)
    return groups.learnable((groups.centered_B - mean) / (std + eps))


class _Groups(NamedTuple):
    """Each sequence seen against its group, [B]; float64 unless said."""

    index_B: Tensor
    """int64, the group, 0..P-1."""
    num_groups: int
    present_B: Tensor
    """bool, the sequence has a score."""
    size_B: Tensor
    """How many of the group's scores are present."""
    centered_B: Tensor
    """Score - group mean; 0 where missing."""
    squares_B: Tensor
    """Sum of the group's squared `centered_B`."""
    signal_B: Tensor
    """bool, the sequence has a score, and its group has two that differ."""

    def total(self, values_B: Tensor) -> Tensor:
        """Sum over the group, given to its members."""
        return total(values_B, self.index_B, self.num_groups)[self.index_B]

    def most(self, values_B: Tensor) -> Tensor:
        """Largest of the group's present values, given to its members."""
        return _most(values_B.masked_fill(~self.present_B, -torch.inf), self.index_B, self.num_groups)

    def learnable(self, values_B: Tensor) -> Tensor:
        """The values where there is something to learn, and exactly 0 elsewhere, in float32."""
        return values_B.masked_fill(~self.signal_B, 0.0).float()


def _compare(scores_B: Tensor, group_B: Tensor) -> _Groups:
    index_B, num_groups = dense(group_B)
    present_B = ~scores_B.isnan()
    known_B = scores_B.double().masked_fill(~present_B, 0.0)
    size_B = total(present_B.double(), index_B, num_groups)[index_B]
    mean_B = total(known_B, index_B, num_groups)[index_B] / size_B.clamp(min=1)
    centered_B = (known_B - mean_B).masked_fill(~present_B, 0.0)
    squares_B = total(centered_B.square(), index_B, num_groups)[index_B]
    highest_B = _most(known_B.masked_fill(~present_B, -torch.inf), index_B, num_groups)
    lowest_B = -_most((-known_B).masked_fill(~present_B, -torch.inf), index_B, num_groups)
    least_B = (alike.ROUNDING * torch.maximum(highest_B.abs(), lowest_B.abs())).clamp(min=alike.CLOSE)
    signal_B = present_B & (highest_B - lowest_B >= least_B)  # `alike.differ`; the spread of a single score is 0
    return _Groups(index_B, num_groups, present_B, size_B, centered_B, squares_B, signal_B)


def _most(values_B: Tensor, index_B: Tensor, num_groups: int) -> Tensor:
    least_P = values_B.new_full((num_groups,), -torch.inf)
    return least_P.scatter_reduce(0, index_B, values_B, "amax")[index_B]
