"""An objective is an advantage and a sum of terms; a term is a weight and a loss for each token.

    loss = sum over terms k, tokens n of   weights[k, n] * loss_k[n]

`Objective.prepare` sees the whole update and fixes advantages and weights (coefficient and normaliser in one number).
`Objective.loss` sees any piece of it; the losses of disjoint pieces add up to the loss of the whole, so gradient
accumulation, ranks and packing change nothing.

`family` makes the group-relative ones (DAPO, GRPO, GSPO, CISPO, ...), `ppo` the one with a value head, `adpo` the
anchored listwise one.

Shape letters: N completion tokens, B sequences, K terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from burnish.algorithms import kl, surrogates
from burnish.batch import Batch, Credit, Marker, PolicyOutput, Prepared
from burnish.objective.policy_terms import Codes, TokenLoss
from burnish.types import Shares

Advantage = Callable[[Batch, Tensor], Tensor]
"""(batch, current log-probabilities [N]) -> float32 [N]. The second is the old ones unless `needs_current`."""

Weights = Callable[[Batch], Tensor]
"""The whole batch -> float32 [N], 0 where the mask is False."""

Crediting = Callable[[Sequence[Batch], Sequence[Tensor]], Sequence[Credit]]
"""(the batches of a step, their values [N]) -> the credit of each batch."""

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
    credit: Crediting | None = None
    """Makes `Batch.credit` from what a value head says before a step's first update; None needs no value head."""
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


def not_truncated(batch: Batch) -> Tensor:
    """Overlong filtering: the sequences that the engine did not cut, bool [B]."""
    return ~batch.truncated_B


def _silence(output: PolicyOutput, prepared: Prepared) -> tuple[PolicyOutput, Prepared]:
    """Put 0 where the mask is False. Such tokens may hold -inf or NaN, and 0 * inf would spoil the sum."""
    out_N = ~prepared.batch.mask_N
    ref_N, values_N = output.ref_logprobs_N, output.values_N
    output = replace(
        output,
        logprobs_N=output.logprobs_N.masked_fill(out_N, 0.0),
        entropy_N=output.entropy_N.masked_fill(out_N, 0.0),
        ref_logprobs_N=None if ref_N is None else ref_N.masked_fill(out_N, 0.0),
        values_N=None if values_N is None else values_N.masked_fill(out_N, 0.0),
    )
    old_N = prepared.batch.old_logprobs_N.masked_fill(out_N, 0.0)
    return output, replace(prepared, batch=replace(prepared.batch, old_logprobs_N=old_N))
