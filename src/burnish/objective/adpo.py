"""ADPO as an objective: the pull of `algorithms.anchored` as an advantage, recomputed before every update.

    prepare   current log-probabilities -> drift from the anchor -> p; scores -> q; temperature; advantage (q - p) / tau
    loss      -advantage * log pi at each token, weight 1 / prompts: the gradient of the listwise cross-entropy

The anchor is the old policy, so no further model is held. At the first update on fresh rollouts the current policy is
the anchor; afterwards `prepare` needs a forward pass (`Objective.needs_current`).

Shape letters: N completion tokens, B sequences, P prompts (= groups).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from burnish.algorithms import anchored, groups, kl, reductions, temperature
from burnish.algorithms.anchored import Siblings
from burnish.batch import Batch, PolicyOutput, Prepared
from burnish.objective import ADVANTAGES, Objective, Term, Weights, not_truncated, optional_terms, policy_terms
from burnish.types import Shares


@dataclass(frozen=True, slots=True)
class Tau:
    """Temperature of the policy's distribution over siblings. Fields as in `config.objectives.AdaptiveTau`."""

    start: float
    mode: str
    """A key of `MODES`."""
    entropy_of: str
    """A key of `ENTROPIES`."""
    alpha: float
    reward_alpha: float
    low: float
    high: float
    vocab_size: int


class _Listwise(NamedTuple):
    """A whole update as ADPO sees it; float64."""

    of: Siblings
    kept_P: Tensor
    """bool, the prompt counts."""
    drift_B: Tensor
    target_B: Tensor
    gone_B: Tensor
    tau_P: Tensor

    def mean(self, values_P: Tensor) -> tuple[float, float]:
        """A share that is the mean over the prompts that count."""
        return values_P[self.kept_P].sum().item(), float(self.kept_P.sum())


MODES: Mapping[str, Callable[[Tensor, Tensor, Tau], Tensor]] = {
    "off": lambda h_P, r_P, tau: torch.full_like(h_P, tau.start),
    "entropy_up": lambda h_P, r_P, tau: temperature.entropy_up(h_P, tau=tau.start, alpha=tau.alpha, low=tau.low),
    "entropy_down": lambda h_P, r_P, tau: temperature.entropy_down(h_P, tau=tau.start, alpha=tau.alpha, low=tau.low),
    "hybrid": lambda h_P, r_P, tau: temperature.hybrid(
        h_P, r_P, tau=tau.start, alpha=tau.alpha, reward_alpha=tau.reward_alpha, low=tau.low, high=tau.high
    ),
}
"""(normalised entropy [P], rescaled mean score [P], settings) -> temperature [P]."""

ENTROPIES: Mapping[str, Callable[[Batch, Tensor, Siblings, Tau], Tensor]] = {
    "target": lambda batch, target_B, of, tau: temperature.target_entropy(anchored.entropy(target_B, of), of.size_P),
    "policy": lambda batch, target_B, of, tau: temperature.policy_entropy(
        batch.old_logprobs_N, batch.mask_N, of.index_B[batch.sequence_N], of.num_groups, vocab_size=tau.vocab_size
    ),
}
"""(batch, target [B], siblings, settings) -> normalised entropy [P]."""

TOKEN_SHARES: Mapping[str, Callable[[Batch], Tensor]] = {
    "sum": lambda batch: batch.mask_N.float(),
    "mean": lambda batch: (
        reductions.sequence_mean(batch.mask_N, batch.sequence_N, num_sequences=batch.num_sequences)
        * batch.num_sequences
    ),
}
"""What each token counts for in the log-probability of its completion, [N]."""


def adpo_objective(
    *,
    advantage: str,
    tau: Tau,
    beta_reward: float,
    score_reduction: str,
    beta_anchor_kl: float = 0.0,
    drop_all_failed_prompts: bool = False,
    kl_coef: float = 0.0,
    kl_estimator: str = "k3_plus",
    entropy_coef: float = 0.0,
    mask_truncated: bool = False,
) -> Objective:
    """Anchored Direct Preference Optimization (arXiv:2510.18913), with the old policy as the anchor.

    Groups may have any number of siblings. A sequence without a score takes no part. The KL to the reference and the
    entropy, if any, are means over tokens.

    Args:
        advantage: a key of `ADVANTAGES`, what the target is made of.
        beta_reward: temperature of the target.
        score_reduction: a key of `TOKEN_SHARES`.
        beta_anchor_kl: coefficient of the mean over tokens of exp(-d) + d - 1, with d = log(pi / anchor).
        drop_all_failed_prompts: leave prompts whose raw scores are all 0 or less out of the mean.
        mask_truncated: overlong filtering, see `objective.group_objective`.
    """
    compare, share = ADVANTAGES[advantage], TOKEN_SHARES[score_reduction]

    def kept(batch: Batch) -> Tensor:
        return ~_all_failed(batch) if drop_all_failed_prompts else torch.ones(_num_groups(batch), dtype=torch.bool)

    def trains(batch: Batch) -> Tensor:
        index_B, _ = groups.dense(batch.group_B)
        kept_B = kept(batch)[index_B]
        return kept_B & not_truncated(batch) if mask_truncated else kept_B

    def see(batch: Batch, current_N: Tensor) -> _Listwise:
        of = anchored.siblings(batch.group_B, batch.scores_B)
        drift_B = anchored.drift(
            current_N,
            batch.old_logprobs_N,
            batch.sequence_N,
            share_N=share(batch),
            num_sequences=batch.num_sequences,
        )
        target_B = anchored.target(compare(batch), of, beta_reward=beta_reward)
        entropy_P = ENTROPIES[tau.entropy_of](batch, target_B, of, tau)
        tau_P = MODES[tau.mode](entropy_P, _rescaled_scores(batch, of), tau)
        gone_B = anchored.gone(drift_B, of, tau_P=tau_P)
        return _Listwise(of, kept(batch), drift_B, target_B, gone_B, tau_P)

    def pull(batch: Batch, current_N: Tensor) -> Tensor:
        seen = see(batch, current_N)
        return anchored.pull(seen.target_B, seen.gone_B, seen.of, tau_P=seen.tau_P)[batch.sequence_N]

    def weights(batch: Batch) -> Tensor:
        return share(batch) / kept(batch).sum().clamp(min=1)

    def survey(batch: Batch, current_N: Tensor) -> Shares:
        shares = _listwise_shares(see(batch, current_N)) | _anchor_shares(batch, current_N, penalty=beta_anchor_kl > 0)
        if drop_all_failed_prompts:
            shares["adpo/dropped_prompts"] = (float((~kept(batch)).sum()), 1.0)
        return shares

    policy = policy_terms.reinforce()
    anchor: tuple[Term, ...] = ()
    if beta_anchor_kl:
        anchor = (Term("anchor_kl", _token_mean(beta_anchor_kl), _anchor_kl),)
    return Objective(
        advantage=pull,
        terms=(
            Term("policy", weights, policy.loss),
            *anchor,
            *optional_terms(_token_mean(1.0), kl_coef=kl_coef, kl_estimator=kl_estimator, entropy_coef=entropy_coef),
        ),
        needs_current=True,
        needs_reference=kl_coef != 0.0,
        trains=trains,
        survey=survey,
    )


def _listwise_shares(seen: _Listwise) -> Shares:
    among_B = seen.of.among_B & seen.kept_P[seen.of.index_B]
    return {
        "adpo/loss": seen.mean(anchored.cross_entropy(seen.target_B, seen.gone_B, seen.of)),
        "adpo/anchor_kl": (seen.drift_B[among_B].abs().sum().item(), float(among_B.sum())),
        "adpo/mean_tau": seen.mean(seen.tau_P),
        "adpo/q_entropy": seen.mean(anchored.entropy(seen.target_B, seen.of)),
    }


def _anchor_shares(batch: Batch, current_N: Tensor, *, penalty: bool) -> Shares:
    mask_N = batch.mask_N
    old_N, current_N, count = batch.old_logprobs_N[mask_N], current_N[mask_N], float(mask_N.sum())
    shares: Shares = {"adpo/anchor_kl_k3": (kl.k3(old_N, current_N).double().sum().item(), count)}
    if penalty:
        shares["adpo/kl_penalty"] = (kl.k3(current_N, old_N).double().sum().item(), count)
    return shares


def _anchor_kl(output: PolicyOutput, prepared: Prepared) -> Tensor:
    return kl.k3(output.logprobs_N, prepared.batch.old_logprobs_N)


def _token_mean(coef: float) -> Weights:
    return lambda batch: coef * reductions.token_mean(batch.mask_N)


def _num_groups(batch: Batch) -> int:
    return groups.dense(batch.group_B)[1]


def _all_failed(batch: Batch) -> Tensor:
    """Prompts that have raw scores, all of them 0 or less: bool [P]."""
    index_B, num_groups = groups.dense(batch.group_B)
    judged_P = groups.total((~batch.raw_B.isnan()).long(), index_B, num_groups) > 0
    return judged_P & (groups.total((batch.raw_B > 0).long(), index_B, num_groups) == 0)


def _rescaled_scores(batch: Batch, of: Siblings) -> Tensor:
    scores_B = batch.scores_B.masked_fill(~of.among_B, 0.0)
    mean_P = groups.mean(scores_B, of.index_B, of.num_groups, among_B=of.among_B)
    return temperature.rescaled(mean_P, of.size_P > 0)
