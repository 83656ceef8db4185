"""Spellings of systems built on verl and TRL."""

from __future__ import annotations

from burnish.foreign.aliases.rows import (
    ACTOR,
    BFLOAT16,
    FLOAT32,
    NONE,
    Choice,
    Ignored,
    Quantity,
    Refused,
    Row,
    Same,
)

TRAIN_DAPO: tuple[Row, ...] = (
    Same("clip_ratio_c", "objective.dual_clip", "5.0"),
    Same("entropy_coeff", "objective.entropy_coef", "0.001"),
    Same("lr_warmup_steps", "optimizer.warmup_updates", "10"),
    Same("wandb_project", "log.project", "my-project"),
    Quantity("apply_overlong_penalty", "overlong_on"),
    Quantity("overlong_buffer_len", "overlong_tokens"),
    Same("overlong_penalty_factor", "objective.overlong.factor", "0.5"),
    Quantity("filter_groups_enable", "filter_on"),
    Quantity("filter_groups_metric", "filter_metric"),
    Same("max_filter_gen_batches", "sampling.max_rounds", "20", special={"0": "1000", "-1": "1000"}),
    Refused("val_split", "the held-out data has its own key", "type eval.data=FILE", NONE),
    Ignored("val_fraction val_seed", "no rows are split off: held-out data is given by eval.data"),
    Ignored("eval_max_completion_length", "evaluation has the limit of training, sampling.max_new_tokens"),
)
"""What the command line of DAPO on TRL (`train_dapo.py`) adds to TRL's."""

MAIN_DAPO: tuple[Row, ...] = (
    Same("model.pretrained_model_name_or_path", "model.path", "some/model"),
    Choice("model.force_float32", {"true": FLOAT32, "false": BFLOAT16}, "it is true or false"),
    Same("sampling.context_max_len", "data.max_prompt_tokens", "64", also={"data.overlong_prompts": "truncate_left"}),
    Same("data.train_path", "data.train", "modchain"),
    Same("train.total_steps", "train.steps", "50"),
    Quantity("ppo.batch_size", "prompts"),
    Quantity("ppo.mini_batch_size", "minibatch"),
)
"""Overrides of the light-weight multi-objective trainer (`main_dapo.py`)."""

ADPO: tuple[Row, ...] = (
    Same("algorithm.tau", "objective.tau", "0.7"),
    Same("algorithm.beta_reward", "objective.beta_reward", "0.4"),
    Same("algorithm.adaptive_tau_alpha", "objective.adaptive_tau.alpha", "0.6"),
    Same("algorithm.adaptive_tau_min", "objective.adaptive_tau.low", "0.1"),
    Same("algorithm.beta_anchor_kl", "objective.beta_anchor_kl", "0.1"),
    Same("algorithm.drop_all_failed_prompts", "objective.drop_all_failed_prompts", "True"),
    Choice(
        "algorithm.use_adaptive_tau",
        {"true": {"objective.adaptive_tau.mode": "entropy_up"}, "false": {"objective.adaptive_tau.mode": "off"}},
        "it is true or false",
        notes={"true": "as documented; the code of that release did the opposite: entropy_down"},
    ),
    Choice(
        "algorithm.scale_rewards",
        {
            "group true": {"objective.advantage": "standardized"},
            "none false": {"objective.advantage": "centered"},
            "batch": {"objective.advantage": "batch_scaled"},
        },
        "it is group, batch or none: type objective.advantage=standardized",
    ),
    Choice("algorithm.anchor_update_mode", {"on_policy": {}}, "the anchor is the policy that sampled: leave it out"),
    Choice(
        "algorithm.use_q_centering", {"true": {}}, "the target is a softmax, which shifts do not change: leave it out"
    ),
    Quantity("trainer.per_device_train_batch_size", "device_batch"),
)
"""What ADPO's trainer (`main_adpo`) adds to verl's."""

CONFIDENCE: tuple[Row, ...] = (
    Quantity("use_confidence_loss", "confidence_on", under=ACTOR),
    Choice(
        "conf_loss_type",
        {
            "regression": {"confidence.loss": "regression"},
            "classification": {"confidence.loss": "classification"},
        },
        "it is regression or classification",
        needs="confidence_on",
        under=ACTOR,
    ),
    Choice(
        "conf_score_method",
        {"softmax": {"confidence.score": "softmax"}, "prob_diff": {"confidence.score": "prob_diff"}},
        "it is softmax or prob_diff",
        needs="confidence_on",
        under=ACTOR,
    ),
    Same("conf_loss_coef", "confidence.coef", "0.2", needs="confidence_on", under=ACTOR),
    Same("high_token_id", "confidence.high_token_id", "11", needs="confidence_on", under=ACTOR),
    Same("low_token_id", "confidence.low_token_id", "12", needs="confidence_on", under=ACTOR),
)
"""What confidence-aware training adds to verl's."""
