"""Surrogates: what the policy loses at each token, *unreduced*. [N] in, [N] out; what a token weighs is `reductions`.

Shape letters: N completion tokens.

The clipped family is one sentence: the loss is -advantage * ratio, and the ratio is held at an edge where the policy
has already moved far enough in the direction that its advantage rewards. `_held` is that "where", and both the loss and
the recorded clip codes read it, so they cannot disagree.
"""

from __future__ import annotations

import torch
from torch import Tensor

CODE_NONE, CODE_LOW, CODE_HIGH, CODE_DUAL = 0, -1, 1, 2
"""What `clip_codes` says of a token: free; held at 1 - clip_low; held at 1 + clip_high; held at the dual clip."""

MAX_LOG_RATIO = 20.0
"""exp(20) = 4.9e8: far outside every clip, and finite in float32."""


def log_ratio(logprobs_N: Tensor, old_logprobs_N: Tensor) -> Tensor:
    """log(pi / pi_old), clamped to +-20 as verl does, so that one hopeless token cannot make the loss infinite."""
    return (logprobs_N - old_logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def clipped(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A), with r = exp(logprobs - old_logprobs).

    PPO (arXiv:1707.06347) with clip_low = clip_high; DAPO's clip-higher with clip_high > clip_low (arXiv:2503.14476,
    equation 8). With `dual_clip` (arXiv:1912.09729; verl's `clip_ratio_c`, TRL's `delta`), tokens of negative advantage
    lose at most dual_clip * |A|; it must be above 1 + clip_high. The DAPO paper has no dual clip, its recipe has 10.

    Args:
        logprobs_N: float32, under the policy that trains; carries the gradient.
        old_logprobs_N: float32, under the policy that sampled.
        advantages_N: float32.

    Returns:
        float32 [N]. The gradient of a token is 0 where `clip_codes` is not 0 (and where the log-ratio is clamped).
    """
    ratio_N = log_ratio(logprobs_N, old_logprobs_N).exp()
    low_N, high_N, dual_N = _held(ratio_N, advantages_N, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    held_N = ratio_N.masked_fill(low_N, 1.0 - clip_low).masked_fill(high_N, 1.0 + clip_high)
    if dual_clip is not None:
        held_N = held_N.masked_fill(dual_N, dual_clip)
    return -advantages_N * held_N


def clip_codes(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> Tensor:
    """Which tokens `clipped` held, and where: int8 [N], one of the CODE_ constants. Arguments as in `clipped`.

    Signs matter: a token of negative advantage is never clipped high, nor one of positive advantage low. In verl's
    metrics `pg_clipfrac` counts low and high, and `pg_clipfrac_lower` counts the dual clip (not low).
    """
    ratio_N = log_ratio(logprobs_N, old_logprobs_N).exp()
    low_N, high_N, dual_N = _held(ratio_N, advantages_N, clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    codes_N = torch.full_like(ratio_N, CODE_NONE, dtype=torch.int8)
    return codes_N.masked_fill(low_N, CODE_LOW).masked_fill(high_N, CODE_HIGH).masked_fill(dual_N, CODE_DUAL)


def reinforce(logprobs_N: Tensor, advantages_N: Tensor) -> Tensor:
    """-A log pi: the plain policy gradient (Williams 1992), for advantages that are up to date with the policy."""
    return -advantages_N * logprobs_N


def _held(
    ratio_N: Tensor, advantages_N: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the ratio is held low, high, and at the dual clip: three disjoint masks, bool [N]."""
    low_N = (advantages_N < 0) & (ratio_N < 1.0 - clip_low)
    high_N = (advantages_N > 0) & (ratio_N > 1.0 + clip_high)
    never = torch.inf if dual_clip is None else dual_clip
    return low_N, high_N, (advantages_N < 0) & (ratio_N > never)
