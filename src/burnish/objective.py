"""An objective is an advantage and a sum of terms; a term is a weight and a loss for each token.

    loss = sum over terms k, tokens n of   weights[k, n] * loss_k[n]

`Objective.prepare` sees the whole update and fixes advantages and weights (coefficient and normaliser in one number).
`Objective.loss` sees any piece of it; the losses of disjoint pieces add up to the loss of the whole, so gradient
accumulation, ranks and packing change nothing. `clipped_objective` makes the group-relative family (DAPO, GRPO,
Dr.GRPO, Lite PPO) from names looked up in `ADVANTAGES`, `REDUCTIONS` and `KL_ESTIMATORS`: to add one, add a row.

Shape letters: N completion tokens, B sequences, K terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.algorithms import advantages, kl, reductions, surrogates
from burnish.batch import Batch, Marker, PolicyOutput, Prepared
from burnish.types import Shares

Advantage = Callable[[Batch, Tensor], Tensor]
"""(batch, current log-probabilities [N]) -> float32 [N]. The second is the old ones unless `needs_current`."""

Weights = Callable[[Batch], Tensor]
"""The whole batch -> float32 [N], 0 where the mask is False."""

TokenLoss = Callable[[PolicyOutput, Prepared], Tensor]
"""(the policy on a piece, the piece) -> float32 [N], unreduced, with a graph."""


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
class Clip:
    """The edges of a clipped surrogate, as ratio 1 - low, 1 + high and dual."""

    low: float
    high: float
    dual: float | None = None


@dataclass(frozen=True, slots=True)
class Objective:
    advantage: Advantage
    terms: tuple[Term, ...]
    clip: Clip | None = None
    """Where the policy term clips, so that it can be recorded; None when it does not clip."""
    tracked_ids: tuple[int, ...] = ()
    """Token ids whose log-probabilities the terms read (`PolicyOutput.tracked_NJ`)."""
    needs_current: bool = False
    """`prepare` wants log-probabilities under the weights before the update."""
    needs_reference: bool = False
    """A term reads `PolicyOutput.ref_logprobs_N`."""
    mask_truncated: bool = False
    """Overlong filtering: completions cut at the length limit do not train. They still count in their group's baseline
    (as in the DAPO paper and TRL) and in the number of sequences."""
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
        if self.mask_truncated:
            batch = replace(batch, mask_N=batch.mask_N & ~batch.truncated_B[batch.sequence_N])
        current_N = batch.old_logprobs_N if current_logprobs_N is None else current_logprobs_N
        return Prepared(
            batch=batch,
            advantages_N=self.advantage(batch, current_N),
            weights_KN=torch.stack([term.weights(batch) for term in self.terms]),
            num_trained=int(batch.mask_N.sum()),
            num_sequences=batch.num_sequences,
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
            clip/low, /high, /dual  tokens held at each edge, when the objective clips; clip/fraction any of them
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
        batch = prepared.batch
        if self.clip is None:
            return torch.zeros_like(batch.mask_N, dtype=torch.int8)
        codes_N = surrogates.clip_codes(
            logprobs_N,
            batch.old_logprobs_N,
            prepared.advantages_N,
            clip_low=self.clip.low,
            clip_high=self.clip.high,
            dual_clip=self.clip.dual,
        )
        return codes_N.masked_fill(~batch.mask_N, surrogates.CODE_NONE)

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
        if self.clip is not None:
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
    "batch_scaled": lambda batch: advantages.batch_scaled(batch.scores_B, batch.group_B, std=batch.score_std),
    "leave_one_out": lambda batch: advantages.leave_one_out(batch.scores_B, batch.group_B),
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


def clipped_objective(
    *,
    advantage: str,
    reduction: str,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    max_new_tokens: int,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3_plus",
    entropy_coef: float = 0.0,
    mask_truncated: bool = False,
) -> Objective:
    """The group-relative family: an advantage, a clipped surrogate, a reduction, and optional KL and entropy terms.

    Both optional terms weigh their tokens as the policy term does, times their coefficient, and exist only when it is
    not 0.

    Args:
        advantage: a key of `ADVANTAGES`.
        reduction: a key of `REDUCTIONS`.
        clip_low: see `surrogates.clipped`, as for `clip_high` and `dual_clip`.
        max_new_tokens: the divisor of the `fixed_length` reduction.
        kl_estimator: a key of `KL_ESTIMATORS`.

    Example:
        clipped_objective(advantage="standardized", reduction="token_mean", clip_low=0.2, clip_high=0.28,
                          dual_clip=10.0, max_new_tokens=20480)   # DAPO
    """
    compare, weigh, estimate = ADVANTAGES[advantage], REDUCTIONS[reduction], KL_ESTIMATORS[kl_estimator]

    def per_token(batch: Batch, _current_N: Tensor) -> Tensor:
        return compare(batch)[batch.sequence_N]

    def weights(coef: float) -> Weights:
        return lambda batch: coef * weigh(batch, max_new_tokens)

    def policy_loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        return surrogates.clipped(
            output.logprobs_N,
            prepared.batch.old_logprobs_N,
            prepared.advantages_N,
            clip_low=clip_low,
            clip_high=clip_high,
            dual_clip=dual_clip,
        )

    def kl_loss(output: PolicyOutput, _prepared: Prepared) -> Tensor:
        assert output.ref_logprobs_N is not None, "the KL term needs the reference model's log-probabilities"
        return estimate(output.logprobs_N, output.ref_logprobs_N)

    candidates = (
        (1.0, "policy", policy_loss),
        (kl_coef, "kl", kl_loss),
        (entropy_coef, "entropy", lambda output, _: -output.entropy_N),
    )
    return Objective(
        advantage=per_token,
        terms=tuple(Term(name, weights(coef), loss) for coef, name, loss in candidates if coef != 0.0),
        clip=Clip(clip_low, clip_high, dual_clip),
        needs_reference=kl_coef != 0.0,
        mask_truncated=mask_truncated,
    )


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
