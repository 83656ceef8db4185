"""PPO: advantages by a value head instead of siblings, so that one completion per prompt is enough.

    credit    values of the whole step, before its first update -> GAE -> advantages (whitened over the step), returns
    prepare   the advantages as they are
    loss      a clipped surrogate, and a term that pulls values to returns, with the policy term's weights times `coef`

The value head shares the policy's trunk, which both terms train. A completion without a score trains nothing.

Shape letters: N completion tokens, B sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from burnish.algorithms import gae
from burnish.batch import Batch, Credit, PolicyOutput, Prepared
from burnish.objective.family import REDUCTIONS, policy_gradient_objective
from burnish.objective.objective import Objective, Term, not_truncated
from burnish.objective.policy_terms import Surrogate
from burnish.types import Shares


def ppo_objective(
    surrogate: Surrogate,
    *,
    gamma: float,
    lam: float,
    whiten: bool,
    value_coef: float,
    value_clip: float | None,
    reduction: str,
    max_new_tokens: int,
    mask_truncated: bool = False,
    **policy_gradient: Any,
) -> Objective:
    """Proximal Policy Optimization (arXiv:1707.06347, equation 9) with generalised advantage estimation.

    Args:
        gamma, lam: see `gae.gae`.
        whiten: see `gae.whitened`; over the step's tokens that train.
        value_coef: of the value term.
        value_clip: see `gae.value_loss`.
        reduction: a key of `REDUCTIONS`, for the policy and the value term.
        mask_truncated: overlong filtering: completions cut at the length limit train neither.
        policy_gradient: the other arguments of `policy_gradient_objective`.
    """
    plain = policy_gradient_objective(
        surrogate,
        advantage=lambda batch, _current_N: _credit(batch).advantages_N,
        reduction=reduction,
        max_new_tokens=max_new_tokens,
        **policy_gradient,
    )

    def trains(batch: Batch) -> Tensor:
        scored_B = ~batch.scores_B.isnan()
        return scored_B & not_truncated(batch) if mask_truncated else scored_B

    def credit(batches: Sequence[Batch], values: Sequence[Tensor]) -> Sequence[Credit]:
        pairs = [
            gae.gae(values_N, batch.scores_B.nan_to_num(), batch.lengths_B, gamma=gamma, lam=lam)
            for batch, values_N in zip(batches, values, strict=True)
        ]
        advantages_N = torch.cat([advantages_N for advantages_N, _ in pairs])
        if whiten:
            masks = [batch.mask_N & trains(batch)[batch.sequence_N] for batch in batches]
            advantages_N = gae.whitened(advantages_N, torch.cat(masks))
        split = advantages_N.split([batch.num_tokens for batch in batches])
        return [
            Credit(values_N, returns_N, advantages_N)
            for values_N, (_, returns_N), advantages_N in zip(values, pairs, split, strict=True)
        ]

    def loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        before = _credit(prepared.batch)
        return gae.value_loss(_values(output), before.values_N, before.returns_N, clip=value_clip)

    def report(output: PolicyOutput, prepared: Prepared) -> Shares:
        before, mask_N, values_N = _credit(prepared.batch), prepared.batch.mask_N, _values(output)
        measured = {
            "value/loss": loss(output, prepared),
            "value/mean": values_N,
            "value/clipped": gae.is_held(values_N, before.values_N, before.returns_N, clip=value_clip),
        }
        count = float(mask_N.sum())
        return {name: ((mask_N * x_N).sum(dtype=torch.float64).item(), count) for name, x_N in measured.items()}

    def survey(batch: Batch, current_N: Tensor) -> Shares:
        of_policy = {} if plain.survey is None else plain.survey(batch, current_N)
        return of_policy | _credit_shares(batch)

    value = Term("value", lambda batch: value_coef * REDUCTIONS[reduction](batch, max_new_tokens), loss, report)
    return replace(plain, terms=(*plain.terms, value), credit=credit, trains=trains, survey=survey)


def _credit(batch: Batch) -> Credit:
    assert batch.credit is not None, "this objective needs what a value head said of the batch"
    return batch.credit


def _values(output: PolicyOutput) -> Tensor:
    assert output.values_N is not None, "this objective needs a value head"
    return output.values_N


def _credit_shares(batch: Batch) -> Shares:
    """What the value head was worth before the step, over the tokens of an update that train."""
    credit, mask_N = _credit(batch), batch.mask_N
    values_N, returns_N = credit.values_N[mask_N], credit.returns_N[mask_N]
    raw_N, count = (returns_N - values_N).double(), float(mask_N.sum())
    shares: Shares = {
        "value/return": (returns_N.double().sum().item(), count),
        "value/advantage": (raw_N.sum().item(), count),
        "value/advantage_size": (raw_N.abs().sum().item(), count),
    }
    explained, total = gae.explained(values_N, returns_N)
    return shares | ({"value/explained_variance": (explained, total)} if total > 0.0 else {})
