"""Credit for single tokens by a value function: generalised advantage estimation, and what the value function loses.

Position n is completion token n, an action; `values_N` is what the value function expects of the score *before* that
action, from the prompt and the tokens 0..n-1. The score comes with the last token, after which nothing follows: the
value beyond it is 0. That holds for a completion that was cut at the length limit too. The limit belongs to the task
here, for the cut text is scored as it is, and bootstrapping is right only where a limit does not
(arXiv:1712.00378, section 3). verl and TRL do not bootstrap either.

Shape letters: N completion tokens (all sequences end to end), B sequences.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8
"""Added to the variance under the root before it divides; verl's and TRL's value."""

ALIKE = 1e-6
"""Advantages closer than this, relative to max(1, the largest magnitude), are taken as equal."""


def gae(values_N: Tensor, scores_B: Tensor, lengths_B: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns, float32 [N] each: generalised advantage estimation (arXiv:1506.02438, equation 16).

        delta_n = r_n + gamma * V_(n+1) - V_n;   A_n = delta_n + gamma * lam * A_(n+1);   return_n = A_n + V_n

    with r_n the score at the last token of a sequence and 0 before it. With gamma = lam = 1, A_n is score - V_n. The
    same as verl's `compute_gae_advantage_return` and TRL's PPO trainer before they whiten.

    Args:
        values_N: float32, the value before each token.
        scores_B: float64, finite.
        lengths_B: int64, tokens per sequence, in the order in which they lie end to end; may be 0.
    """
    values_N, longest = values_N.double(), int(lengths_B.max()) if len(lengths_B) else 0
    advantages_N = torch.zeros_like(values_N)
    order_B = lengths_B.argsort(descending=True)
    ends_B, reward_B = lengths_B.cumsum(0)[order_B], scores_B.double()[order_B]
    alive_T = len(lengths_B) - torch.bincount(lengths_B, minlength=longest + 1).cumsum(0)
    following_B, advantage_B = torch.zeros_like(reward_B), torch.zeros_like(reward_B)
    for t in range(longest):  # all last tokens, then all before them, and so on
        alive = int(alive_T[t])
        index = ends_B[:alive] - 1 - t
        value_B = values_N[index]
        advantage_B = reward_B[:alive] + gamma * following_B[:alive] - value_B + gamma * lam * advantage_B[:alive]
        advantages_N[index] = advantage_B
        following_B, reward_B = value_B, torch.zeros_like(value_B)
    return advantages_N.float(), (advantages_N + values_N).float()


def whitened(advantages_N: Tensor, mask_N: Tensor) -> Tensor:
    """(advantage - mean) / sqrt(variance + 1e-8), both over the tokens that train; float32 [N], 0 for the others.

    As verl and TRL do before a policy update, over all tokens of a step. The variance has n - 1 in the denominator.
    Deviates from them where advantages are all alike, a single one among them: they become exactly 0 here, and an
    error or a quotient of rounding errors there.

    Args:
        mask_N: bool, the tokens that train.
    """
    chosen = advantages_N[mask_N].double()
    if len(chosen) == 0 or chosen.max() - chosen.min() <= ALIKE * max(1.0, float(chosen.abs().max())):
        return torch.zeros_like(advantages_N)
    centered = chosen - chosen.mean()
    variance = centered.square().sum() / (len(chosen) - 1)
    return torch.zeros_like(advantages_N).masked_scatter(mask_N, (centered / (variance + EPS).sqrt()).float())


def value_loss(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, clip: float | None) -> Tensor:
    """max((V - return)^2, (held V - return)^2) / 2, float32 [N], with V held within `clip` of the old value.

    The larger of the two: a value that has already moved by `clip` towards its target gets no gradient. Introduced with
    PPO's reference code and used for language models since arXiv:1909.08593; verl's `compute_value_loss` and TRL's PPO
    trainer.

    Args:
        values_N: float32, carries the gradient.
        old_values_N: float32, from before the step's first update.
        clip: in units of the score; None holds nothing.
    """
    error_N = (values_N - returns_N).square()
    if clip is not None:
        error_N = torch.maximum(error_N, (_within(values_N, old_values_N, clip) - returns_N).square())
    return 0.5 * error_N


def is_held(values_N: Tensor, old_values_N: Tensor, returns_N: Tensor, *, clip: float | None) -> Tensor:
    """Where `value_loss` takes the held value, which has no gradient: bool [N]."""
    if clip is None:
        return torch.zeros_like(values_N, dtype=torch.bool)
    held_N = _within(values_N, old_values_N, clip)
    return (held_N - returns_N).square() > (values_N - returns_N).square()


def explained(values_N: Tensor, returns_N: Tensor) -> tuple[float, float]:
    """(explained, total): the sum of squares of the returns around their mean, and the part of it that values explain.

    Their quotient is the explained variance 1 - Var(return - value) / Var(return): 1 for exact values, 0 for constant
    ones, below 0 for values that are worse than a constant.
    """
    if len(returns_N) == 0:
        return 0.0, 0.0
    total, unexplained = (
        (x - x.mean()).square().sum().item() for x in (returns_N.double(), (returns_N - values_N).double())
    )
    return total - unexplained, total


def _within(values_N: Tensor, old_values_N: Tensor, clip: float) -> Tensor:
    return torch.maximum(torch.minimum(values_N, old_values_N + clip), old_values_N - clip)
