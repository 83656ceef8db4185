"""The part of the composition root that turns `[objective]` of a config into an `Objective`.

A method is a surrogate with its settings in a group-relative frame, or the anchored listwise objective. A new method
that only has other defaults needs nothing here; one with a surrogate of its own needs a line in `_surrogate`.
"""

from __future__ import annotations

from typing import Any

from burnish.config import RunConfig
from burnish.config.objectives import ADPO, CISPO, GMPO, SAPO, Clipped, Common, GroupRelative
from burnish.objective import Objective, group_objective, policy_terms
from burnish.objective.adpo import Tau, adpo_objective
from burnish.objective.policy_terms import Surrogate


def make_objective(config: RunConfig, *, vocab_size: int) -> Objective:
    """The configured objective.

    Args:
        vocab_size: of the model; ADPO's temperature can depend on the policy's entropy relative to its maximum.
    """
    chosen = config.objective
    if isinstance(chosen, ADPO):
        return _anchored(chosen, vocab_size)
    return _group_relative(chosen, config.sampling.max_new_tokens)


def _group_relative(chosen: GroupRelative, max_new_tokens: int) -> Objective:
    return group_objective(
        _surrogate(chosen),
        advantage=chosen.advantage,
        reduction=chosen.reduction,
        max_new_tokens=max_new_tokens,
        correction=chosen.mismatch.correct,
        correction_cap=chosen.mismatch.cap,
        **_common(chosen),
    )


def _surrogate(chosen: GroupRelative) -> Surrogate:
    match chosen:
        case Clipped():
            return policy_terms.clipped(
                clip_low=chosen.clip_low, clip_high=chosen.clip_high, dual_clip=chosen.dual_clip, ratio=chosen.ratio
            )
        case CISPO():
            return policy_terms.capped(low=chosen.smallest_weight, high=chosen.largest_weight)
        case SAPO():
            return policy_terms.gated(tau_positive=chosen.tau_positive, tau_negative=chosen.tau_negative)
        case GMPO():
            return policy_terms.geometric(log_low=chosen.log_clip_low, log_high=chosen.log_clip_high)
        case _:
            raise AssertionError(f"{type(chosen).__name__} has no surrogate")


def _anchored(chosen: ADPO, vocab_size: int) -> Objective:
    adaptive = chosen.adaptive_tau
    return adpo_objective(
        advantage=chosen.advantage,
        tau=Tau(
            start=chosen.tau,
            mode=adaptive.mode,
            entropy_of=adaptive.entropy_of,
            alpha=adaptive.alpha,
            reward_alpha=adaptive.reward_alpha,
            low=adaptive.low,
            high=adaptive.high,
            vocab_size=vocab_size,
        ),
        beta_reward=chosen.beta_reward,
        score_reduction=chosen.score_reduction,
        beta_anchor_kl=chosen.beta_anchor_kl,
        drop_all_failed_prompts=chosen.drop_all_failed_prompts,
        **_common(chosen),
    )


def _common(chosen: Common) -> dict[str, Any]:
    """What every objective takes."""
    return {
        "kl_coef": chosen.kl.coef,
        "kl_estimator": chosen.kl.estimator,
        "entropy_coef": chosen.entropy_coef,
        "mask_truncated": chosen.overlong.mask_truncated,
    }
