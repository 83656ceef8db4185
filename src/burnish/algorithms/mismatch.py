"""Correcting for an engine whose log-probabilities differ from the learner's for the very same weights.

Kernels, precision and batching make the engine's policy mu another one than the learner's pi_old that it is meant to
be. Truncated importance sampling (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
training") keeps pi / pi_old for the surrogate and weighs each token by min(pi_old / mu, cap). Without it, log-
probabilities of the engine stand for pi_old, and the surrogate's own ratio pi / mu holds the mismatch too.

Shape letters: N completion tokens, B sequences.
"""

from __future__ import annotations

from torch import Tensor

from burnish.algorithms import groups
from burnish.algorithms.surrogates import MAX_LOG_RATIO


def token_weights(old_logprobs_N: Tensor, engine_logprobs_N: Tensor, mask_N: Tensor) -> Tensor:
    """pi_old / mu of each token, not yet truncated: float32 [N], 1 where the mask is False."""
    return _gap(old_logprobs_N, engine_logprobs_N, mask_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def sequence_weights(
    old_logprobs_N: Tensor, engine_logprobs_N: Tensor, mask_N: Tensor, sequence_N: Tensor, num_sequences: int
) -> Tensor:
    """pi_old / mu of each token's whole completion, the product over its tokens, not yet truncated: float32 [N]."""
    total_B = groups.total(_gap(old_logprobs_N, engine_logprobs_N, mask_N), sequence_N, num_sequences)
    return total_B.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()[sequence_N]


def _gap(old_logprobs_N: Tensor, engine_logprobs_N: Tensor, mask_N: Tensor) -> Tensor:
    return (old_logprobs_N - engine_logprobs_N).masked_fill(~mask_N, 0.0)
