"""The part of the composition root that turns `[objective]` of a config into an `Objective`.

A method is a surrogate with its settings in a group-relative frame or beside a value head, or the anchored listwise
objective. A new method that only has other defaults needs nothing here; one with a surrogate of its own needs a line
in `_surrogate`.
"""

from __future__ import annotations

from typing import Any

from burnish.config import RunConfig
from burnish.config.objectives import ADPO, CISPO, GMPO, PPO, SAPO, Clip, Common, GroupRelative, PolicyGradient
from burnish.objective import Objective, group_objective, policy_terms
from burnish.objective.adpo import Tau, adpo_objective
from burnish.objective.policy_terms import Surrogate
from burnish.objective.ppo import ppo_objective


def make_objective(config: RunConfig, *, vocab_size: int) -> Objective:
    """The configured objective.

    Args:
        vocab_size: of the model; ADPO's temperature can depend on the policy's entropy relative to its maximum.
    """
    match config.objective:
        case ADPO() as chosen:
            return _anchored(chosen, vocab_size)
        case PPO() as chosen:
            return _with_value_head(chosen, config.sampling.max_new_tokens)
        case chosen:
            return _group_relative(chosen, config.sampling.max_new_tokens)


def value_learning_rate(config: RunConfig) -> float | None:
    """Of the value head; None where the objective has none."""
    chosen = config.objective
    return (chosen.value.learning_rate or config.optimizer.learning_rate) if isinstance(chosen, PPO) else None


def _group_relative(chosen: GroupRelative, max_new_tokens: int) -> Objective:
    return group_objective(_surrogate(chosen), advantage=chosen.advantage, **_policy_gradient(chosen, max_new_tokens))


def _with_value_head(chosen: PPO, max_new_tokens: int) -> Objective:
    return ppo_objective(
        _surrogate(chosen),
        gamma=chosen.gamma,
        lam=chosen.lam,
        whiten=chosen.whiten,
        value_coef=chosen.value.coef,
        value_clip=chosen.value.clip,
        **_policy_gradient(chosen, max_new_tokens),
    )


def _surrogate(chosen: PolicyGradient) -> Surrogate:
    match chosen:
        case Clip():
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


def _policy_gradient(chosen: PolicyGradient, max_new_tokens: int) -> dict[str, Any]:
    """What every objective with a surrogate takes."""
    return {
        "reduction": chosen.reduction,
        "max_new_tokens": max_new_tokens,
        "correction": chosen.mismatch.correct,
        "correction_cap": chosen.mismatch.cap,
        **_common(chosen),
    }


def _common(chosen: Common) -> dict[str, Any]:
    """What every objective takes."""
    return {
        "kl_coef": chosen.kl.coef,
        "kl_estimator": chosen.kl.estimator,
        "entropy_coef": chosen.entropy_coef,
        "mask_truncated": chosen.overlong.mask_truncated,
    }
