"""The group-relative family of objectives (DAPO, GRPO, GSPO, CISPO, ...), made from a surrogate of `policy_terms` and
names looked up in `ADVANTAGES`, `REDUCTIONS`, `KL_ESTIMATORS` and `CORRECTIONS`: to add one, add a row.

Shape letters: N completion tokens, B sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from burnish.algorithms import advantages, kl, mismatch, reductions
from burnish.batch import Batch, PolicyOutput, Prepared
from burnish.objective import policy_terms
from burnish.objective.objective import Advantage, Objective, Term, Weights, not_truncated
from burnish.objective.policy_terms import Surrogate, TokenLoss
from burnish.types import Shares

ADVANTAGES: Mapping[str, Callable[[Batch], Tensor]] = {
    "standardized": lambda batch: advantages.standardized(batch.scores_B, batch.group_B),
    "centered": lambda batch: advantages.centered(batch.scores_B, batch.group_B),
    "batch_scaled": lambda batch: advantages.batch_scaled(batch.scores_B, batch.group_B, std=batch.spread.score_std),
    "leave_one_out": lambda batch: advantages.leave_one_out(batch.scores_B, batch.group_B),
    "whitened": lambda batch: advantages.whitened(
        batch.scores_B, batch.group_B, mean=batch.spread.centered_mean, std=batch.spread.centered_std
    ),
    "length_weighted": lambda batch: advantages.length_weighted(batch.scores_B, batch.group_B, batch.lengths_B),
    "best_of_group": lambda batch: advantages.best_of_group(batch.scores_B, batch.group_B),
}
"""batch -> [B]."""

REDUCTIONS: Mapping[str, Callable[[Batch, int], Tensor]] = {
    "token_mean": lambda batch, _: reductions.token_mean(batch.mask_N),
    "prompt_mean": lambda batch, _: reductions.prompt_mean(batch.mask_N, batch.sequence_N, batch.group_B),
    "sequence_mean": lambda batch, _: reductions.sequence_mean(
        batch.mask_N, batch.sequence_N, num_sequences=batch.num_sequences
    ),
    "fixed_length": lambda batch, max_new_tokens: reductions.fixed_length(
        batch.mask_N, num_sequences=batch.num_sequences, length=max_new_tokens
    ),
}
"""(batch, limit on new tokens) -> weights [N]."""

KL_ESTIMATORS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1_plus": kl.k1_plus,
    "k2": kl.k2,
    "k3": kl.k3,
    "k3_plus": kl.k3_plus,
}
"""(log-probabilities [N], reference's [N]) -> [N]. k1 is no loss: its gradient is 0 in expectation."""


CORRECTIONS: Mapping[str, Callable[[Batch], Tensor] | None] = {
    "off": None,
    "token": lambda batch: mismatch.token_weights(batch.old_logprobs_N, batch.engine_logprobs_N, batch.mask_N),
    "sequence": lambda batch: mismatch.sequence_weights(
        batch.old_logprobs_N,
        batch.engine_logprobs_N,
        batch.mask_N,
        batch.sequence_N,
        num_sequences=batch.num_sequences,
    ),
}
"""batch -> importance weights [N] of the learner against the engine, not yet truncated."""


def group_objective(surrogate: Surrogate, *, advantage: str, **policy_gradient: Any) -> Objective:
    """The group-relative family.

    Args:
        advantage: a key of `ADVANTAGES`: what siblings are worth, for each token of a completion the same.
        policy_gradient: the other arguments of `policy_gradient_objective`.
    """
    compare = ADVANTAGES[advantage]
    return policy_gradient_objective(
        surrogate, advantage=lambda batch, _current_N: compare(batch)[batch.sequence_N], **policy_gradient
    )


def policy_gradient_objective(
    surrogate: Surrogate,
    *,
    advantage: Advantage,
    reduction: str,
    max_new_tokens: int,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3_plus",
    entropy_coef: float = 0.0,
    mask_truncated: bool = False,
    correction: str = "off",
    correction_cap: float = math.inf,
) -> Objective:
    """An advantage, a surrogate, a reduction, and optional KL and entropy terms.

    Both optional terms weigh their tokens as the policy term does, times their coefficient, and exist only when it is
    not 0.

    Args:
        reduction: a key of `REDUCTIONS`.
        max_new_tokens: the divisor of the `fixed_length` reduction.
        kl_estimator: a key of `KL_ESTIMATORS`.
        mask_truncated: overlong filtering: completions cut at the length limit do not train. They still count in their
            group's baseline, as in the DAPO paper and TRL.
        correction: a key of `CORRECTIONS`, truncated importance sampling against the engine; see `mismatch`.
        correction_cap: largest weight of the correction.
    """
    weigh, importance = REDUCTIONS[reduction], CORRECTIONS[correction]

    def plain(batch: Batch) -> Tensor:
        return weigh(batch, max_new_tokens)

    def corrected(batch: Batch) -> Tensor:
        return plain(batch) if importance is None else plain(batch) * importance(batch).clamp(max=correction_cap)

    def survey(batch: Batch, _current_N: Tensor) -> Shares:
        assert importance is not None
        weight_N = importance(batch)[batch.mask_N].double()
        count = float(len(weight_N))
        return {
            "mismatch/weight": (weight_N.clamp(max=correction_cap).sum().item(), count),
            "mismatch/capped": (float((weight_N > correction_cap).sum()), count),
        }

    return Objective(
        advantage=advantage,
        terms=(
            Term("policy", corrected, surrogate.loss),
            *optional_terms(plain, kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef),
        ),
        codes=surrogate.codes,
        needs_reference=kl_coef != 0.0,
        needs_old=importance is not None,
        trains=not_truncated if mask_truncated else None,
        survey=None if importance is None else survey,
    )


def clipped_objective(*, clip_low: float, clip_high: float, dual_clip: float | None, **family: Any) -> Objective:
    """`group_objective` with the clipped surrogate; `family` are its other arguments.

    Example:
        clipped_objective(advantage="standardized", reduction="token_mean", clip_low=0.2, clip_high=0.28,
                          dual_clip=10.0, max_new_tokens=20480)   # DAPO
    """
    surrogate = policy_terms.clipped(clip_low=clip_low, clip_high=clip_high, dual_clip=dual_clip)
    return group_objective(surrogate, **family)


def optional_terms(weigh: Weights, *, kl_coef: float, kl_estimator: str, entropy_coef: float) -> tuple[Term, ...]:
    """KL to the reference and entropy, each if its coefficient is not 0, with the weights of `weigh` times it."""

    def scaled(coef: float) -> Weights:
        return lambda batch: coef * weigh(batch)

    estimate = KL_ESTIMATORS[kl_estimator]

    def kl_loss(output: PolicyOutput, _prepared: Prepared) -> Tensor:
        assert output.ref_logprobs_N is not None, "the KL term needs the reference model's log-probabilities"
        return estimate(output.logprobs_N, output.ref_logprobs_N)

    candidates: tuple[tuple[float, str, TokenLoss], ...] = (
        (kl_coef, "kl", kl_loss),
        (entropy_coef, "entropy", lambda output, _: -output.entropy_N),
    )
    return tuple(Term(name, scaled(coef), loss) for coef, name, loss in candidates if coef != 0.0)
