"""The objectives of a run: one class for each method, whose defaults are its published setting.

`Common` has what every objective has, `PolicyGradient` what a surrogate needs, `GroupRelative` the comparison with
siblings, `Clip` PPO's surrogate, and `Clipped` both of these. To add a method: a class here with a `name`, a row in
`ObjectiveConfig`, and its parts in `build.make_objective`.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from burnish.config.section import Section, Share


class KL(Section):
    coef: NonNegativeFloat = 0.0
    """0 loads no reference model."""
    estimator: Literal["k1_plus", "k2", "k3", "k3_plus"] = "k3_plus"
    """`k2`: half the squared log-ratio; `k3`: low variance, biased gradient; `_plus`: that value with k2's gradient,
    which is the unbiased one."""


class Overlong(Section):
    buffer: NonNegativeInt | Literal["auto"] = 0
    """Tokens before `max_new_tokens` over which the penalty grows from 0 to `factor`; 0 is off, `auto` is a fifth of
    `max_new_tokens` (the paper's 4096 of 20480)."""
    factor: NonNegativeFloat = 1.0
    mask_truncated: bool = False
    """Overlong filtering: completions cut at the limit do not train (they still count in their group's baseline)."""


AdvantageName = Literal[
    "standardized", "centered", "batch_scaled", "leave_one_out", "whitened", "length_weighted", "best_of_group"
]
ReductionName = Literal["token_mean", "prompt_mean", "sequence_mean", "fixed_length"]
RatioName = Literal["token", "sequence_mean", "sequence"]


class Mismatch(Section):
    """Truncated importance sampling for an engine whose log-probabilities are not the learner's."""

    correct: Literal["off", "token", "sequence"] = "off"
    """Weigh each token by learner / engine probability, its own or its completion's. Costs a forward pass per step."""
    cap: PositiveFloat = 2.0
    """Largest weight."""


class Common(Section):
    """What every objective has."""

    min_siblings: ClassVar[int] = 2
    """Completions of a prompt that must have a score for any of them to train."""

    dynamic_sampling: bool = False
    """Drop groups whose siblings all have the same raw score, and generate more until the batch is full."""
    overlong: Overlong = Overlong()
    kl: KL = KL()
    entropy_coef: NonNegativeFloat = 0.0

    @property
    def corrects_mismatch(self) -> bool:
        """Whether it corrects for an engine whose log-probabilities are not the learner's."""
        return False


class PolicyGradient(Common):
    """What every surrogate has."""

    reduction: ReductionName = "sequence_mean"
    """What every token weighs: `token_mean` the same in the whole batch; `prompt_mean` the same within a prompt's
    group (the DAPO paper's equation); `sequence_mean` its sequence's share; `fixed_length` 1 / max_new_tokens."""
    mismatch: Mismatch = Mismatch()

    @property
    def corrects_mismatch(self) -> bool:
        return self.mismatch.correct != "off"


class GroupRelative(PolicyGradient):
    """An advantage, a surrogate, a reduction. Variants differ in the surrogate's settings, and in defaults."""

    advantage: AdvantageName = "standardized"
    """Score against its siblings': minus their mean, over their std (`standardized`), over nothing (`centered`), over
    the batch's std (`batch_scaled`); minus the others' mean (`leave_one_out`) or a length-weighted one
    (`length_weighted`); centred, then whitened over all tokens (`whitened`); the best one's lead (`best_of_group`)."""


class Clip(PolicyGradient):
    """PPO's surrogate: the ratio to the old policy is held at an edge."""

    ratio: RatioName = "token"
    """What the ratio is of: each token; a completion's geometric mean (`sequence_mean`); a whole completion."""
    clip_low: PositiveFloat = 0.2
    clip_high: PositiveFloat = 0.2
    dual_clip: Annotated[float, Field(gt=1.0)] | None = None
    """Bound on the loss of a token with negative advantage, as a multiple of the advantage."""

    @model_validator(mode="after")
    def _clips_in_order(self) -> Self:
        if self.clip_low >= 1.0:
            raise ValueError(f"clip_low is {self.clip_low}; it must be below 1. Type objective.clip_low=0.2")
        if self.dual_clip is not None and self.dual_clip <= 1.0 + self.clip_high:
            raise ValueError(
                f"dual_clip is {self.dual_clip}; it must be above 1 + clip_high = {1.0 + self.clip_high}. "
                "Type objective.dual_clip=10"
            )
        return self


class Clipped(GroupRelative, Clip):
    """Siblings compared, ratios clipped."""


class DAPO(Clipped):
    """arXiv:2503.14476: clip-higher, dynamic sampling, token-level loss, soft overlong punishment."""

    name: Literal["dapo"] = "dapo"
    reduction: ReductionName = "token_mean"
    clip_high: PositiveFloat = 0.28
    dual_clip: Annotated[float, Field(gt=1.0)] | None = 10.0
    """From the authors' recipe; the paper has none."""
    dynamic_sampling: bool = True
    overlong: Overlong = Overlong(buffer="auto")


class GRPO(Clipped):
    """arXiv:2402.03300, outcome supervision."""

    name: Literal["grpo"] = "grpo"


class DrGRPO(Clipped):
    """arXiv:2503.20783: no division by the group's std, nor by the realised length."""

    name: Literal["dr_grpo"] = "dr_grpo"
    advantage: AdvantageName = "centered"
    reduction: ReductionName = "fixed_length"


class LitePPO(Clipped):
    """arXiv:2508.08221: group mean, batch std, token-level loss."""

    name: Literal["lite_ppo"] = "lite_ppo"
    advantage: AdvantageName = "batch_scaled"
    reduction: ReductionName = "token_mean"


class GSPO(Clipped):
    """arXiv:2507.18071: one ratio per completion, the geometric mean of its tokens'; therefore narrow clips."""

    name: Literal["gspo"] = "gspo"
    ratio: RatioName = "sequence_mean"
    clip_low: PositiveFloat = 3e-4
    clip_high: PositiveFloat = 4e-4


class RLOO(Clipped):
    """arXiv:2402.14740: the others' mean as baseline, a completion as one action. At the first update this is the
    paper's plain policy gradient; later ones are held by a clip, as in TRL."""

    name: Literal["rloo"] = "rloo"
    advantage: AdvantageName = "leave_one_out"
    ratio: RatioName = "sequence"


class ReinforcePP(Clipped):
    """arXiv:2501.03262, REINFORCE++ with the group baseline: group mean, then whitened over all tokens of the step."""

    name: Literal["reinforce_pp"] = "reinforce_pp"
    advantage: AdvantageName = "whitened"
    reduction: ReductionName = "token_mean"


class CISPO(GroupRelative):
    """arXiv:2506.13585: the importance weight is capped and carries no gradient; every token keeps its own."""

    name: Literal["cispo"] = "cispo"
    reduction: ReductionName = "token_mean"
    cap: PositiveFloat = 5.0
    """From ScaleRL (arXiv:2510.13786) by way of TRL; the paper states none."""
    cap_is: Literal["ratio", "excess"] = "ratio"
    """`ratio`: weights are at most `cap` (TRL's `epsilon_high`); `excess`: at most 1 + `cap` (the paper's formula, and
    verl's `clip_ratio_high`)."""
    clip_low: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Weights are at least 1 - `clip_low`; None, as published, sets no lower bound."""

    @property
    def largest_weight(self) -> float:
        return self.cap if self.cap_is == "ratio" else 1.0 + self.cap

    @property
    def smallest_weight(self) -> float | None:
        return None if self.clip_low is None else 1.0 - self.clip_low


class SAPO(GroupRelative):
    """arXiv:2511.20347: a smooth gate in place of a clip."""

    name: Literal["sapo"] = "sapo"
    tau_positive: PositiveFloat = 1.0
    """How fast the gate closes as the ratio leaves 1, for tokens of positive advantage."""
    tau_negative: PositiveFloat = 1.05
    """The same for the others."""


class GMPO(GroupRelative):
    """arXiv:2507.20673: the geometric mean of a completion's ratios, each held in log space first."""

    name: Literal["gmpo"] = "gmpo"
    log_clip_low: PositiveFloat = 0.4
    """Log-ratios are held at -0.4, so ratios at exp(-0.4)."""
    log_clip_high: PositiveFloat = 0.4


class Value(Section):
    """The value head of PPO."""

    coef: PositiveFloat = 0.1
    """Weight of the mean over tokens of half the squared error to the return."""
    clip: PositiveFloat | None = 0.2
    """A value that has moved by more since the start of the step has no gradient; in units of the score. None: none."""
    learning_rate: PositiveFloat | None = None
    """Of the head alone, for the trunk is the policy's; None takes optimizer.learning_rate."""


class PPO(Clip):
    """arXiv:1707.06347 with a value head, as set for language models in arXiv:1909.08593: one completion is enough."""

    min_siblings: ClassVar[int] = 1

    name: Literal["ppo"] = "ppo"
    reduction: ReductionName = "token_mean"
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Discount for each token."""
    lam: Share = 0.95
    """Of generalised advantage estimation: 1 compares the score with the value, 0 the next value with the value."""
    whiten: bool = True
    """Advantages to mean 0 and standard deviation 1 over the step's tokens. Within a single completion this leaves no
    sign of how good it was; type false for steps of one."""
    value: Value = Value()


class AdaptiveTau(Section):
    """One temperature for each group. See `docs/adpo.md`."""

    mode: Literal["entropy_up", "entropy_down", "hybrid", "off"] = "entropy_up"
    """`entropy_up`: uncertain groups get a high temperature, as documented; `entropy_down`: a low one, as in the code
    of the same release; `hybrid`: the paper's, of entropy and reward; `off`: `tau` for all."""
    entropy_of: Literal["target", "policy"] = "target"
    """Of the target over a group's siblings, or of the policy over its vocabulary (the paper's)."""
    alpha: NonNegativeFloat = 0.5
    """Strength."""
    reward_alpha: NonNegativeFloat = 1.0
    """`hybrid` only: further strength where the policy is certain and the reward low."""
    low: PositiveFloat = 0.05
    high: PositiveFloat = 5.0
    """`hybrid` only; the other modes never exceed `tau`."""


class ADPO(Common):
    """arXiv:2510.18913: siblings as a distribution, anchored at the policy that sampled them."""

    name: Literal["adpo"] = "adpo"
    advantage: AdvantageName = "standardized"
    """What the target is made of: the scores over the group's std (`standardized`), the batch's (`batch_scaled`), or
    only centred (`centered`); see the other objectives."""
    tau: PositiveFloat = 0.8
    """Temperature of the policy's distribution over siblings."""
    beta_reward: PositiveFloat = 0.5
    """Temperature of the target: softmax(advantage / beta_reward)."""
    score_reduction: Literal["sum", "mean"] = "sum"
    """Log-probability of a completion: the sum over its tokens, as published, or their mean (for long completions)."""
    adaptive_tau: AdaptiveTau = AdaptiveTau()
    beta_anchor_kl: NonNegativeFloat = 0.0
    """Coefficient of a penalty on the distance to the anchor."""
    drop_all_failed_prompts: bool = False
    """Leave out prompts whose siblings all have a raw score of 0 or less."""

    @model_validator(mode="after")
    def _temperatures_in_order(self) -> Self:
        low, high = self.adaptive_tau.low, self.adaptive_tau.high
        if self.adaptive_tau.mode != "off" and not low <= self.tau <= high:
            raise ValueError(
                f"tau is {self.tau}, outside of adaptive_tau.low={low} to adaptive_tau.high={high}. "
                "Type objective.adaptive_tau.mode=off for a fixed temperature"
            )
        return self


ObjectiveConfig = Annotated[
    DAPO | GRPO | DrGRPO | LitePPO | GSPO | CISPO | SAPO | GMPO | RLOO | ReinforcePP | PPO | ADPO,
    Field(discriminator="name"),
]
