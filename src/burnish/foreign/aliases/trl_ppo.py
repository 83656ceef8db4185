"""Spellings of TRL's PPO trainer, beside those it shares with the others."""

from __future__ import annotations

from burnish.foreign.aliases.rows import (
    INSTEAD_DROP,
    INSTEAD_FULL,
    NONE,
    ON_OFF,
    WHY_LOG,
    WHY_OFF,
    WHY_PIECES,
    Ignored,
    Quantity,
    Refused,
    Row,
    Same,
)

TRL_PPO: tuple[Row, ...] = (
    Same("sft_model_path", "model.path", "some/model"),
    Quantity("reward_model_path", "score_model"),
    Same("response_length", "sampling.max_new_tokens", "53"),
    Quantity("cliprange", "clip"),
    Same("cliprange_value", "objective.value.clip", "0.4"),
    Same("vf_coef", "objective.value.coef", "0.5"),
    Same("gamma", "objective.gamma", "0.99"),
    Same("lam", "objective.lam", "0.9"),
    Same("num_ppo_epochs", "train.epochs", "4"),
    Quantity("num_mini_batches", "mini_batches"),
    Quantity("total_episodes", "episodes"),
    Same(
        "missing_eos_penalty",
        "reward.parts.truncated.weight",
        "2.0",
        also={"reward.parts.truncated.kind": "truncated"},
    ),
    Ignored("stop_token", "a completion ends with any of the model's end-of-sequence tokens"),
    Refused("stop_token_id", "a completion ends with any of the model's end-of-sequence tokens", INSTEAD_DROP, NONE),
    Refused(
        "kl_coef",
        "the divergence from a reference is a term of the loss here, not a part of the reward",
        "type --kl_coef 0, and objective.kl.coef=0.05 for the term",
        ("0", "0.0"),
    ),
    Refused("whiten_rewards", "advantages are whitened, and the score comes at once", INSTEAD_DROP, ON_OFF),
    Refused("model_adapter_name ref_adapter_name", "there are no adapters", INSTEAD_FULL, NONE),
    Refused(
        "batch_size mini_batch_size local_batch_size local_mini_batch_size micro_batch_size world_size "
        "num_total_batches",
        "there it follows from other sizes",
        "type --per_device_train_batch_size, --gradient_accumulation_steps, --num_mini_batches and --total_episodes",
        NONE,
    ),
    Ignored("kl_estimator", WHY_OFF),
    Ignored("local_rollout_forward_batch_size", WHY_PIECES),
    Ignored("num_sample_generations", WHY_LOG),
    Ignored("exp_name dataset_num_proc", "it names that script, and splits its preparation"),
)
"""`PPOConfig` and the model arguments of TRL's PPO scripts, up to 1.9."""
