"""The policy term of an objective: a surrogate of `algorithms.surrogates` with its settings, ready for pieces.

    clipped      PPO, GRPO, DAPO, Dr.GRPO, Lite PPO, REINFORCE++; with `ratio` GSPO and RLOO
    capped       CISPO
    gated        SAPO
    geometric    GMPO

To add one: write the surrogate beside its kin, and a function here that returns it as a `Surrogate`.

Shape letters: N completion tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from burnish.algorithms import surrogates
from burnish.batch import Batch, PolicyOutput, Prepared

TokenLoss = Callable[[PolicyOutput, Prepared], Tensor]
"""(the policy on a piece, the piece) -> float32 [N], unreduced, with a graph."""

Codes = Callable[[Tensor, Prepared], Tensor]
"""(log-probabilities [N], the piece) -> int8 [N]: where a token is held, in the CODE_ constants of `surrogates`."""


@dataclass(frozen=True, slots=True)
class Surrogate:
    loss: TokenLoss
    codes: Codes | None = None
    """None when it holds nothing."""


def _pooled(mean: bool) -> Callable[[Tensor, Batch], Tensor]:
    def pool(values_N: Tensor, batch: Batch) -> Tensor:
        return surrogates.pooled(values_N, batch.mask_N, batch.sequence_N, num_sequences=batch.num_sequences, mean=mean)

    return pool


RATIOS: Mapping[str, Callable[[Tensor, Batch], Tensor]] = {
    "token": lambda values_N, _: values_N,
    "sequence_mean": _pooled(mean=True),
    "sequence": _pooled(mean=False),
}
"""Name -> what becomes of log-probabilities before they are compared."""


def clipped(*, clip_low: float, clip_high: float, dual_clip: float | None, ratio: str = "token") -> Surrogate:
    """See `surrogates.clipped`.

    Args:
        ratio: what is compared with the old policy, a key of `RATIOS`: each `token`; the completion's mean
            log-probability (`sequence_mean`: GSPO); the whole completion's (`sequence`: RLOO).
    """
    pool = RATIOS[ratio]

    def loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        batch = prepared.batch
        return surrogates.clipped(
            pool(output.logprobs_N, batch),
            pool(batch.old_logprobs_N, batch),
            prepared.advantages_N,
            clip_low=clip_low,
            clip_high=clip_high,
            dual_clip=dual_clip,
        )

    def codes(logprobs_N: Tensor, prepared: Prepared) -> Tensor:
        batch = prepared.batch
        return surrogates.clip_codes(
            pool(logprobs_N, batch),
            pool(batch.old_logprobs_N, batch),
            prepared.advantages_N,
            clip_low=clip_low,
            clip_high=clip_high,
            dual_clip=dual_clip,
        )

    return Surrogate(loss, codes)


def capped(*, low: float | None, high: float) -> Surrogate:
    """See `surrogates.capped`."""

    def loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        return surrogates.capped(
            output.logprobs_N, prepared.batch.old_logprobs_N, prepared.advantages_N, low=low, high=high
        )

    def codes(logprobs_N: Tensor, prepared: Prepared) -> Tensor:
        return surrogates.capped_codes(logprobs_N, prepared.batch.old_logprobs_N, low=low, high=high)

    return Surrogate(loss, codes)


def gated(*, tau_positive: float, tau_negative: float) -> Surrogate:
    """See `surrogates.gated`."""

    def loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        return surrogates.gated(
            output.logprobs_N,
            prepared.batch.old_logprobs_N,
            prepared.advantages_N,
            tau_positive=tau_positive,
            tau_negative=tau_negative,
        )

    return Surrogate(loss)


def geometric(*, log_low: float, log_high: float) -> Surrogate:
    """See `surrogates.geometric`."""

    def loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        batch = prepared.batch
        return surrogates.geometric(
            output.logprobs_N,
            batch.old_logprobs_N,
            prepared.advantages_N,
            batch.mask_N,
            batch.sequence_N,
            num_sequences=batch.num_sequences,
            log_low=log_low,
            log_high=log_high,
        )

    def codes(logprobs_N: Tensor, prepared: Prepared) -> Tensor:
        return surrogates.geometric_codes(
            logprobs_N, prepared.batch.old_logprobs_N, prepared.advantages_N, log_low=log_low, log_high=log_high
        )

    return Surrogate(loss, codes)


def reinforce() -> Surrogate:
    """See `surrogates.reinforce`."""
    return Surrogate(lambda output, prepared: surrogates.reinforce(output.logprobs_N, prepared.advantages_N))
