"""Surrogates: what the policy loses at each token, *unreduced*. [N] in, [N] out; what a token weighs is `reductions`.

Shape letters: N completion tokens, B sequences.

    clipped      min(r A, held r A)          PPO, GRPO, DAPO; with `pooled` log-probabilities GSPO and RLOO
    capped       sg(min(r, cap)) A log pi    CISPO
    gated        A gate(r)                   SAPO
    geometric    A exp(mean held log r)      GMPO
    reinforce    A log pi                    for advantages that are up to date with the policy

`pooled` and `geometric` look at whole completions, so a piece must not cut through one (`Prepared.select` never does).

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
    """log(pi / pi_old), clamped to +-20 as verl does, so that one hopeless token cannot make the loss infinite.

    In float32 at least, whatever it is given: exp of 20 is infinite in float16.
    """
    least = torch.promote_types(logprobs_N.dtype, torch.float32)
    return (logprobs_N.to(least) - old_logprobs_N.to(least)).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


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
    return _codes(low_N, high_N).masked_fill(dual_N, CODE_DUAL)


def pooled(values_N: Tensor, mask_N: Tensor, sequence_N: Tensor, *, num_sequences: int, mean: bool) -> Tensor:
    """Mean or sum over each completion's unmasked tokens, given to all its tokens: float32 [N].

    Pooled log-probabilities make a surrogate treat a completion as one action. The mean gives the ratio of GSPO
    (arXiv:2507.18071, equation 7: the geometric mean of its tokens' ratios), the sum that of whole completions, as in
    RLOO (arXiv:2402.14740). Give both the new and the old log-probabilities.
    """
    kept_N = values_N.masked_fill(~mask_N, 0.0)
    total_B = kept_N.new_zeros(num_sequences).index_add(0, sequence_N, kept_N)
    if mean:
        total_B = total_B / _lengths(mask_N, sequence_N, num_sequences)
    return total_B[sequence_N]


def capped(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, *, low: float | None, high: float
) -> Tensor:
    """-sg(clip(r, low, high)) A log pi: CISPO (arXiv:2506.13585, equations 4 and 5). Every token keeps a gradient.

    Args:
        low: smallest weight; None, as published, for no bound.
        high: largest weight, as a ratio. TRL's `epsilon_high` is this number; verl's `clip_ratio_high` is `high` - 1.
    """
    weight_N = log_ratio(logprobs_N, old_logprobs_N).exp().clamp(min=low, max=high).detach()
    return -advantages_N * weight_N * logprobs_N


def capped_codes(logprobs_N: Tensor, old_logprobs_N: Tensor, *, low: float | None, high: float) -> Tensor:
    """Which tokens' weights `capped` held, and where: int8 [N]. Not a lost gradient, only a bounded one."""
    ratio_N = log_ratio(logprobs_N, old_logprobs_N).exp()
    return _codes(ratio_N < (0.0 if low is None else low), ratio_N > high)


def gated(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, *, tau_positive: float, tau_negative: float
) -> Tensor:
    """-A 4/tau sigmoid(tau (r - 1)): SAPO (arXiv:2511.20347). At r = 1 the gradient is REINFORCE's; it fades smoothly
    on both sides, the faster the larger tau, which depends on the sign of A."""
    ratio_N = log_ratio(logprobs_N, old_logprobs_N).exp()
    tau_N = torch.full_like(advantages_N, tau_negative).masked_fill(advantages_N > 0, tau_positive)
    return -advantages_N * 4.0 / tau_N * (tau_N * (ratio_N - 1.0)).sigmoid()


def geometric(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    mask_N: Tensor,
    sequence_N: Tensor,
    *,
    num_sequences: int,
    log_low: float,
    log_high: float,
) -> Tensor:
    """-A exp(mean of the held log-ratios), the same at every token of a completion: GMPO (arXiv:2507.20673).

    Each token's log-ratio is held at -log_low or log_high by the sign of its advantage, as `clipped` holds a ratio,
    before the mean is taken over the completion.
    """
    change_N = log_ratio(logprobs_N, old_logprobs_N)
    low_N, high_N = _held_logs(change_N, advantages_N, log_low=log_low, log_high=log_high)
    held_N = change_N.masked_fill(low_N, -log_low).masked_fill(high_N, log_high)
    return -advantages_N * pooled(held_N, mask_N, sequence_N, num_sequences=num_sequences, mean=True).exp()


def geometric_codes(
    logprobs_N: Tensor, old_logprobs_N: Tensor, advantages_N: Tensor, *, log_low: float, log_high: float
) -> Tensor:
    """Which tokens `geometric` held, and where: int8 [N]."""
    change_N = log_ratio(logprobs_N, old_logprobs_N)
    return _codes(*_held_logs(change_N, advantages_N, log_low=log_low, log_high=log_high))


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


def _held_logs(change_N: Tensor, advantages_N: Tensor, *, log_low: float, log_high: float) -> tuple[Tensor, Tensor]:
    """Where a log-ratio is held low and high: two disjoint masks, bool [N]."""
    return (advantages_N < 0) & (change_N < -log_low), (advantages_N > 0) & (change_N > log_high)


def _codes(low_N: Tensor, high_N: Tensor) -> Tensor:
    codes_N = torch.full_like(low_N, CODE_NONE, dtype=torch.int8)
    return codes_N.masked_fill(low_N, CODE_LOW).masked_fill(high_N, CODE_HIGH)


def _lengths(mask_N: Tensor, sequence_N: Tensor, num_sequences: int) -> Tensor:
    """Unmasked tokens of each completion, float32 [B]; 1 for none, so that it can divide."""
    return torch.zeros(num_sequences, device=mask_N.device).index_add(0, sequence_N, mask_N.float()).clamp(min=1)
