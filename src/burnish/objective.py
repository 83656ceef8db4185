"""An objective is an advantage and a sum of terms; a term is a weight and a loss for each token.

    loss = sum over terms k, tokens n of   weights[k, n] * loss_k[n]

`Objective.prepare` sees the whole update and fixes advantages and weights (coefficient and normaliser in one number).
`Objective.loss` sees any piece of it; the losses of disjoint pieces add up to the loss of the whole, so gradient
accumulation, ranks and packing change nothing.

`group_objective` makes the group-relative family (DAPO, GRPO, GSPO, CISPO, ...) from a surrogate of `policy_terms` and
names looked up in `ADVANTAGES`, `REDUCTIONS`, `KL_ESTIMATORS` and `CORRECTIONS`: to add one, add a row. `adpo` makes
the anchored listwise one.

Shape letters: N completion tokens, B sequences, K terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from burnish import policy_terms
from burnish.algorithms import advantages, kl, mismatch, reductions, surrogates
from burnish.batch import Batch, Marker, PolicyOutput, Prepared
from burnish.policy_terms import Codes, Surrogate, TokenLoss
from burnish.types import Shares

Advantage = Callable[[Batch, Tensor], Tensor]
"""(batch, current log-probabilities [N]) -> float32 [N]. The second is the old ones unless `needs_current`."""

Weights = Callable[[Batch], Tensor]
"""The whole batch -> float32 [N], 0 where the mask is False."""

Survey = Callable[[Batch, Tensor], Shares]
"""(the whole batch, current log-probabilities [N]) -> metrics of the update that no piece could know."""


@dataclass(frozen=True, slots=True)
class Term:
    """One summand of the loss."""

    name: str
    """Reported as `loss/<name>`."""
    weights: Weights
    loss: TokenLoss
    report: Callable[[PolicyOutput, Prepared], Shares] = lambda output, prepared: {}
    """Further shares of metrics, of a piece. Called without gradient."""


@dataclass(frozen=True, slots=True)
class Objective:
    advantage: Advantage
    terms: tuple[Term, ...]
    codes: Codes | None = None
    """Where the policy term holds a token, so that it can be recorded; None when it holds none."""
    tracked_ids: tuple[int, ...] = ()
    """Token ids whose log-probabilities the terms read (`PolicyOutput.tracked_NJ`)."""
    needs_current: bool = False
    """`prepare` wants log-probabilities under the weights before the update."""
    needs_reference: bool = False
    """A term reads `PolicyOutput.ref_logprobs_N`."""
    needs_old: bool = False
    """The old log-probabilities of a batch must be the learner's own, and not the engine's."""
    trains: Callable[[Batch], Tensor] | None = None
    """batch -> bool [B], the sequences that train; None trains all. The others still count in their group's baseline
    and in the number of sequences."""
    survey: Survey | None = None
    """What to report of a whole update before it is cut."""
    mark: Marker | None = None
    """Finds what the terms read in the text (`Batch.tag_B`, `tag_N`, `target_B`) when groups are collated."""
    confidence: Callable[[Tensor, Batch], Tensor] | None = None
    """(tracked log-probabilities [N, J], batch) -> stated confidence, float32 [B], NaN where none is stated; for the
    record."""

    def prepare(self, batch: Batch, current_logprobs_N: Tensor | None = None) -> Prepared:
        """Fix advantages and weights for one update. Call it once, on the whole update, before anything is cut.

        Args:
            current_logprobs_N: float32, under the weights before this update; needed when `needs_current`.
        """
        assert current_logprobs_N is not None or not self.needs_current, (
            "this objective needs current log-probabilities"
        )
        if self.trains is not None:
            batch = replace(batch, mask_N=batch.mask_N & self.trains(batch)[batch.sequence_N])
        current_N = batch.old_logprobs_N if current_logprobs_N is None else current_logprobs_N
        return Prepared(
            batch=batch,
            advantages_N=self.advantage(batch, current_N),
            weights_KN=torch.stack([term.weights(batch) for term in self.terms]),
            num_trained=int(batch.mask_N.sum()),
            num_sequences=batch.num_sequences,
            shares={} if self.survey is None else self.survey(batch, current_N),
        )

    def loss(self, output: PolicyOutput, prepared: Prepared) -> tuple[Tensor, Shares]:
        """A piece's share of the loss, and of the metrics.

        The scalar always has a graph, also when no token of the piece trains: it is then 0 with zero gradient.

        Shares add up over the pieces of an update:
            loss, loss/<term>       (share of the loss, share of the update's sequences); counts add up to 1
            entropy                 the rest are (sum, number) over tokens that train; nats
            kl/old                  k3 estimate of KL(old || current), on tokens that old drew
            kl/ref                  k3 estimate of KL(current || reference), when there is a reference
            ratio/mean              pi / pi_old
            clip/low, /high, /dual  tokens held at each edge, when the surrogate has edges; clip/fraction any of them
        """
        output, prepared = _silence(output, prepared)
        parts_K = torch.stack(
            [
                (weights_N * term.loss(output, prepared)).sum()
                for term, weights_N in zip(self.terms, prepared.weights_KN, strict=True)
            ]
        )
        loss = parts_K.sum()
        part = prepared.batch.num_sequences / prepared.num_sequences
        shares: Shares = {
            f"loss/{term.name}": (value, part)
            for term, value in zip(self.terms, parts_K.detach().tolist(), strict=True)
        }
        shares["loss"] = (loss.item(), part)
        with torch.no_grad():
            for term in self.terms:
                shares |= term.report(output, prepared)
        return loss, shares | self._token_shares(output, prepared)

    def clip_codes(self, logprobs_N: Tensor, prepared: Prepared) -> Tensor:
        """Where the policy term holds the ratio at an edge: int8 [N], -1 low, 1 high, 2 dual, 0 free or masked out."""
        mask_N = prepared.batch.mask_N
        if self.codes is None:
            return torch.zeros_like(mask_N, dtype=torch.int8)
        return self.codes(logprobs_N, prepared).masked_fill(~mask_N, surrogates.CODE_NONE)

    @torch.no_grad()
    def _token_shares(self, output: PolicyOutput, prepared: Prepared) -> Shares:
        mask_N, old_N = prepared.batch.mask_N, prepared.batch.old_logprobs_N
        measured = {
            "entropy": output.entropy_N,
            "kl/old": kl.k3(old_N, output.logprobs_N),
            "ratio/mean": surrogates.log_ratio(output.logprobs_N, old_N).exp(),
        }
        if output.ref_logprobs_N is not None:
            measured["kl/ref"] = kl.k3(output.logprobs_N, output.ref_logprobs_N)
        if self.codes is not None:
            codes_N = self.clip_codes(output.logprobs_N, prepared)
            measured["clip/low"] = codes_N == surrogates.CODE_LOW
            measured["clip/high"] = codes_N == surrogates.CODE_HIGH
            measured["clip/dual"] = codes_N == surrogates.CODE_DUAL
            measured["clip/fraction"] = codes_N != surrogates.CODE_NONE
        totals = torch.stack([(mask_N * values_N).sum(dtype=torch.float64) for values_N in measured.values()])
        count = float(mask_N.sum())
        return {name: (total, count) for name, total in zip(measured, totals.tolist(), strict=True)}


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


def group_objective(
    surrogate: Surrogate,
    *,
    advantage: str,
    reduction: str,
    max_new_tokens: int,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3_plus",
    entropy_coef: float = 0.0,
    mask_truncated: bool = False,
    correction: str = "off",
    correction_cap: float = math.inf,
) -> Objective:
    """The group-relative family: an advantage, a surrogate, a reduction, and optional KL and entropy terms.

    Both optional terms weigh their tokens as the policy term does, times their coefficient, and exist only when it is
    not 0.

    Args:
        advantage: a key of `ADVANTAGES`.
        reduction: a key of `REDUCTIONS`.
        max_new_tokens: the divisor of the `fixed_length` reduction.
        kl_estimator: a key of `KL_ESTIMATORS`.
        mask_truncated: overlong filtering: completions cut at the length limit do not train. They still count in their
            group's baseline, as in the DAPO paper and TRL.
        correction: a key of `CORRECTIONS`, truncated importance sampling against the engine; see `mismatch`.
        correction_cap: largest weight of the correction.
    """
    compare, weigh, importance = ADVANTAGES[advantage], REDUCTIONS[reduction], CORRECTIONS[correction]

    def per_token(batch: Batch, _current_N: Tensor) -> Tensor:
        return compare(batch)[batch.sequence_N]

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
        advantage=per_token,
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


def not_truncated(batch: Batch) -> Tensor:
    """Overlong filtering: the sequences that the engine did not cut, bool [B]."""
    return ~batch.truncated_B


def _silence(output: PolicyOutput, prepared: Prepared) -> tuple[PolicyOutput, Prepared]:
    """Put 0 where the mask is False. Such tokens may hold -inf or NaN, and 0 * inf would spoil the sum."""
    out_N = ~prepared.batch.mask_N
    ref_N = output.ref_logprobs_N
    output = replace(
        output,
        logprobs_N=output.logprobs_N.masked_fill(out_N, 0.0),
        entropy_N=output.entropy_N.masked_fill(out_N, 0.0),
        ref_logprobs_N=None if ref_N is None else ref_N.masked_fill(out_N, 0.0),
    )
    old_N = prepared.batch.old_logprobs_N.masked_fill(out_N, 0.0)
    return output, replace(prepared, batch=replace(prepared.batch, old_logprobs_N=old_N))
