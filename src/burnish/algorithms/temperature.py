"""ADPO's adaptive temperature: one tau for each group, from how uncertain the group is. No gradient flows through it.

Three formulas go by this name. With h a normalised entropy in 0..1 (of the target over its siblings, or of the policy
over its vocabulary) and r the group's mean score, rescaled to 0..1 over the batch:

    entropy_up     max(low, tau (1 - alpha (1 - h)))       the documented one: uncertain, therefore explore
    entropy_down   max(low, tau (1 - alpha h))             what the code of the same release does
    hybrid         tau (1 + alpha h + reward_alpha (1 - h) (1 - r)), within low..high       the paper's

Of the *target*, entropy is lowest for a group with one right answer and highest for one that is all right or all wrong:
"hard prompts have high entropy" is true of the policy's entropy only. See `docs/adpo.md`.

Shape letters: N completion tokens, B sequences, P groups.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from burnish.algorithms import groups


def entropy_up(entropy_P: Tensor, *, tau: float, alpha: float, low: float) -> Tensor:
    """High entropy, high temperature. `entropy_P` is normalised to 0..1."""
    return (tau * (1.0 - alpha * (1.0 - entropy_P))).clamp(min=low)


def entropy_down(entropy_P: Tensor, *, tau: float, alpha: float, low: float) -> Tensor:
    """High entropy, low temperature. `entropy_P` is normalised to 0..1."""
    return (tau * (1.0 - alpha * entropy_P)).clamp(min=low)


def hybrid(
    entropy_P: Tensor, reward_P: Tensor, *, tau: float, alpha: float, reward_alpha: float, low: float, high: float
) -> Tensor:
    """High where the policy is uncertain, and where it is certain and wrong. Both inputs are normalised to 0..1."""
    sure_and_wrong_P = (1.0 - entropy_P) * (1.0 - reward_P)
    return (tau * (1.0 + alpha * entropy_P + reward_alpha * sure_and_wrong_P)).clamp(low, high)


def target_entropy(entropy_P: Tensor, size_P: Tensor) -> Tensor:
    """Entropy of a target in nats over its maximum, log of the number of siblings; 0 for fewer than two of them."""
    return entropy_P / size_P.clamp(min=2).to(entropy_P.dtype).log()


def policy_entropy(
    old_logprobs_N: Tensor, mask_N: Tensor, token_group_N: Tensor, num_groups: int, *, vocab_size: int
) -> Tensor:
    """Mean entropy of the policy at a group's tokens, over log(vocabulary): float64 [P], within 0..1.

    Estimated by the mean of -log pi over the tokens it drew, which is unbiased at full sampling (no top-p or top-k).

    Args:
        token_group_N: int64, group of each token, 0..P-1.
    """
    surprise_N = -old_logprobs_N.double()
    return (groups.mean(surprise_N, token_group_N, num_groups, among_B=mask_N) / math.log(vocab_size)).clamp(0.0, 1.0)


def rescaled(mean_P: Tensor, among_P: Tensor) -> Tensor:
    """The batch's smallest mean score becomes 0, its largest 1; all 0.5 where they are equal. float64 [P].

    Args:
        among_P: bool, groups that have a score; the others are 0.5.
    """
    if not among_P.any():
        return torch.full_like(mean_P, 0.5)
    least, most = mean_P[among_P].min(), mean_P[among_P].max()
    if most <= least:
        return torch.full_like(mean_P, 0.5)
    return ((mean_P - least) / (most - least)).masked_fill(~among_P, 0.5)
