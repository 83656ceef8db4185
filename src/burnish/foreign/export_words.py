"""A config in the words of verl or TRL: `burnish.foreign.aliases` read backwards, and units converted back.

`verl_words` and `trl_words` give the words, and the keys of ours that they, the exported data or the exported reward
express. `unexpressed` names the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from burnish.assets import embedded_base_path
from burnish.config import RunConfig, resolved
from burnish.config.objectives import PPO
from burnish.foreign.aliases import TABLE
from burnish.foreign.aliases.rows import ACTOR, MODEL, ROLLOUT, Choice, Same
from burnish.overrides import ConfigError
from burnish.trees import flattened

System = Literal["verl", "trl"]

IN_FILES = (
    *("data.train", "data.split", "data.limit", "data.columns.", "data.system", "data.suffix", "data.duplicates"),
    *("data.template", "eval.data", "eval.prompts", "reward."),
)
"""Keys that the exported data and reward express begin so."""
BY_FILES = frozenset(("data.train", "data.split", "data.limit", "data.columns.prompt", "data.shuffle", "eval.data"))
ADVANTAGES_IN_VERL = {
    "standardized": "grpo",
    "centered": "grpo",
    "leave_one_out": "rloo",
    "length_weighted": "opo",
    "best_of_group": "grpo_passk",
    "whitened": "reinforce_plus_plus_baseline",
}
LOSSES_IN_TRL = {"token_mean": "dapo", "sequence_mean": "grpo", "fixed_length": "dr_grpo"}
NO_DUAL_CLIP = "1000000"
"""verl always has a dual clip; this one never holds anything."""
AT_REST: Mapping[str, Any] = {
    "confidence": None,
    "objective.mismatch.correct": "off",
    "objective.mismatch.cap": None,
    "objective.overlong.mask_truncated": False,
    "objective.kl.estimator": None,
    "data.sampler": "shuffled",
    **dict.fromkeys(("data.history.min_variance", "data.history.scale", "data.history.reinclude")),
    "sampling.min_p": 0.0,
    "optimizer.eps": 1e-8,
}
"""Keys that say nothing at this value (at any, if None) where no word expresses them."""
WHY: Mapping[str, str] = {
    "sampling.slots": "the other engine's own matter",
    "sampling.dtype": "the other engine's own matter",
    "sampling.surplus": "surplus groups are dropped there",
    "sampling.max_rounds": "there are no rounds",
    "sampling.on_exhausted": "a step that cannot be filled is an error there",
    "data.max_prompt_tokens": "prompts have no limit there",
    "data.overlong_prompts": "prompts have no limit there",
    "data.sampler": "prompts are drawn without their history",
    "train.threads": "the machine's own matter",
    "train.tokens_per_piece": "pieces are cut by sequences there",
    "eval.greedy": "evaluation samples only",
    "objective.dynamic_sampling": "groups without signal are not replaced there",
    "objective.overlong.mask_truncated": "truncated completions always train there",
    "objective.advantage": "advantages are not computed so there",
    "objective.reduction": "losses are not reduced so there",
    "objective.value.coef": "the critic is a model of its own, with an optimiser of its own",
    "objective.value.clip": "values are always held there",
    "objective.whiten": "advantages are always whitened there",
    "objective.ratio": "ratios are not taken so there",
    "objective.kl.estimator": "the divergence is not estimated so there",
    "confidence": "there is no confidence term",
    "checkpoint.keep": "it keeps other numbers",
    "log.sinks": "only these sinks are there as well",
}


@dataclass(slots=True)
class Words:
    """Words of another system under way."""

    config: RunConfig
    ours: dict[str, Any] = field(init=False)
    """Leaves of the config by key."""
    pairs: dict[str, Any] = field(default_factory=dict)
    """Their key -> value."""
    expressed: set[str] = field(default_factory=set)
    """Keys of ours."""

    def __post_init__(self) -> None:
        self.ours = dict(flattened(resolved(self.config)))

    def say(self, their_key: str, value: Any, *our_keys: str) -> None:
        self.pairs[their_key] = value
        self.expressed |= set(our_keys)

    def same(self, system: str, *, without: frozenset[str]) -> None:
        """All rows of one key and one meaning."""
        for row in TABLE[system]:
            if isinstance(row, Same) and row.to in self.ours and row.to not in self.expressed | without:
                value = self.ours[row.to]
                if value is not None and not row.needs:
                    self.say(row.spellings[0], row.off if row.off and value == 0 else value, row.to)

    def choices(self, system: str, *names: str) -> None:
        """The named rows of kind `Choice`: the first value whose settings the config has."""
        for row in TABLE[system]:
            if isinstance(row, Choice) and row.spellings[0] in names:
                for spellings, settings in row.values.items():
                    if settings and all(_typed(self.ours.get(k)) == v for k, v in settings.items()):
                        value = spellings.split()[0]
                        self.say(row.spellings[0], {"true": True, "false": False}.get(value, value), *settings)
                        break

    def unexpressed(self) -> list[str]:
        """Keys that have no word there, as `key = value: why`."""
        found: list[str] = []
        for key, value in self.ours.items():
            covered = key in self.expressed or key.startswith(IN_FILES)
            if covered or (key in AT_REST and AT_REST[key] in (None, value)):
                continue
            why = WHY.get(key) or WHY.get(key.split(".")[0]) or "it has no counterpart there"
            found.append(f"{key} = {value}: {why}")
        return found


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(config: RunConfig, system: str, names: tuple[str, ...]) -> None:
    if config.objective.name in names:
        raise ConfigError(
            f"objective.name is {config.objective.name}, which {system} has not. Nothing was written; "
            "type objective.name=dapo for one that it has"
        )


def _model_path(config: RunConfig) -> str:
    return str(embedded_base_path()) if config.model.path == "embedded" else config.model.path


def _objective_leaf(words: Words, key: str) -> Any:
    return words.ours.get(f"objective.{key}")


def verl_words(config: RunConfig, rows: int) -> Words:
    """Overrides for `python -m verl.trainer.main_ppo`, without those of data and reward files."""
    _refuse(config, "verl", ("adpo",))
    words = Words(config)
    sampling, train = config.sampling, config.train
    words.say(f"{MODEL}path", _model_path(config), "model.path")
    words.say("trainer.experiment_name", config.name, "name")
    words.say("trainer.default_local_dir", config.out.format(name=config.name, seed=config.seed), "out")
    _verl_objective(words)
    words.say("data.train_batch_size", sampling.prompts_per_step, "sampling.prompts_per_step")
    minibatch = sampling.prompts_per_step // train.updates_per_step
    words.say(f"{ACTOR}ppo_mini_batch_size", minibatch, "train.updates_per_step")
    words.say(f"{ACTOR}use_dynamic_bsz", True)
    overlong = config.data.overlong_prompts
    words.say("data.filter_overlong_prompts", overlong == "drop", "data.overlong_prompts")
    words.say("data.truncation", "left" if overlong == "truncate_left" else "error")
    words.say("data.shuffle", config.data.shuffle, "data.shuffle")
    words.say("reward.reward_manager.name", "dapo")
    buffer = "+reward.reward_kwargs.overlong_buffer_cfg."
    words.say(f"{buffer}enable", bool(config.overlong_buffer), "objective.overlong.buffer")
    words.say(f"{buffer}len", config.overlong_buffer)
    words.say(f"{buffer}penalty_factor", config.objective.overlong.factor, "objective.overlong.factor")
    words.say(f"{buffer}log", False)
    words.say("+reward.reward_kwargs.max_resp_len", sampling.max_new_tokens)
    if config.objective.dynamic_sampling:
        words.say("algorithm.filter_groups.max_num_gen_batches", sampling.max_rounds, "sampling.max_rounds")
        words.say("algorithm.filter_groups.metric", "acc")
    words.say("algorithm.filter_groups.enable", config.objective.dynamic_sampling, "objective.dynamic_sampling")
    if sampling.on_exhausted == "error" or not config.objective.dynamic_sampling:
        words.expressed |= {"sampling.on_exhausted", "sampling.max_rounds"}
    if sampling.surplus == "discard":
        words.expressed |= {"sampling.surplus"}
    optimizer = config.optimizer
    words.say(f"{ACTOR}optim.betas", [optimizer.beta1, optimizer.beta2], "optimizer.beta1", "optimizer.beta2")
    steps = math.ceil(optimizer.warmup_updates / (train.updates_per_step * train.epochs))
    words.say(f"{ACTOR}optim.lr_warmup_steps", steps, "optimizer.warmup_updates")
    if optimizer.schedule != "linear":
        words.say(f"{ACTOR}optim.lr_scheduler_type", optimizer.schedule, "optimizer.schedule")
    passes = math.ceil(train.steps * sampling.prompts_per_step * sampling.max_rounds / max(rows, 1))
    words.say("trainer.total_epochs", max(1, passes))
    words.say("trainer.logger", ["console", *(s for s in config.log.sinks if s in ("tensorboard", "wandb", "trackio"))])
    words.expressed |= {"log.sinks"}
    words.say("trainer.n_gpus_per_node", 1)
    words.say(f"{ROLLOUT}name", "vllm")
    words.say(f"{ROLLOUT}tensor_model_parallel_size", 1)
    words.say(f"{ROLLOUT}val_kwargs.do_sample", config.eval.temperature > 0.0)
    words.choices("verl", f"{ACTOR}fsdp_config.dtype", "trainer.device", "algorithm.rollout_correction.rollout_is")
    if config.model.device in ("auto", "cuda"):
        words.expressed |= {"model.device"}
    words.same("verl", without=BY_FILES | {"objective.mismatch.cap"})
    if "algorithm.rollout_correction.rollout_is" in words.pairs:
        cap = words.ours["objective.mismatch.cap"]
        words.say("algorithm.rollout_correction.rollout_is_threshold", cap, "objective.mismatch.cap")
    return words


def _verl_objective(words: Words) -> None:
    chosen = words.config.objective
    if isinstance(chosen, PPO):
        _verl_critic(words, chosen)
    else:
        advantage = str(_objective_leaf(words, "advantage"))
        said = ("objective.name", *(("objective.advantage",) if advantage in ADVANTAGES_IN_VERL else ()))
        words.say("algorithm.adv_estimator", ADVANTAGES_IN_VERL.get(advantage, "grpo"), *said)
        words.say("algorithm.norm_adv_by_std_in_grpo", advantage != "centered")
    words.say(f"{ACTOR}use_kl_loss", chosen.kl.coef > 0.0)
    words.say(f"{ACTOR}kl_loss_coef", chosen.kl.coef, "objective.kl.coef")
    words.choices("verl", f"{ACTOR}kl_loss_type", f"{ACTOR}loss_agg_mode", f"{ACTOR}policy_loss.loss_mode")
    if _objective_leaf(words, "reduction") == "fixed_length":
        words.say(f"{ACTOR}loss_scale_factor", words.config.sampling.max_new_tokens)
    for edge in ("low", "high"):
        for key in (f"clip_{edge}", f"log_clip_{edge}"):
            if _objective_leaf(words, key) is not None:
                words.say(f"{ACTOR}clip_ratio_{edge}", _objective_leaf(words, key), f"objective.{key}")
    if chosen.name == "cispo":
        words.say(f"{ACTOR}policy_loss.loss_mode", "cispo")
        words.say(f"{ACTOR}clip_ratio_high", chosen.largest_weight - 1.0, "objective.cap", "objective.cap_is")
    if "objective.dual_clip" in words.ours:
        dual = words.ours["objective.dual_clip"]
        words.say(f"{ACTOR}clip_ratio_c", NO_DUAL_CLIP if dual is None else dual, "objective.dual_clip")
    if _objective_leaf(words, "ratio") == ("sequence_mean" if chosen.name == "gspo" else "token"):
        words.expressed |= {"objective.ratio"}


def _verl_critic(words: Words, chosen: PPO) -> None:
    """The value head, as the model of its own that it is there."""
    config = words.config
    words.say("algorithm.adv_estimator", "gae", "objective.name")
    words.say("critic.model.path", _model_path(config))
    rate = chosen.value.learning_rate or config.optimizer.learning_rate
    words.say("critic.optim.lr", rate, "objective.value.learning_rate")
    if chosen.whiten:
        words.expressed |= {"objective.whiten"}
    if config.sampling.temperature == 0.0:
        words.say(f"{ROLLOUT}do_sample", False)


def trl_words(config: RunConfig) -> Words:
    """Arguments of TRL's GRPO trainer."""
    _refuse(config, "TRL's GRPO trainer", ("adpo", "gmpo", "ppo"))
    words = Words(config)
    sampling, train = config.sampling, config.train
    updates_per_step = train.updates_per_step * train.epochs
    words.say("model_name_or_path", _model_path(config), "model.path")
    words.say("output_dir", config.out.format(name=config.name, seed=config.seed), "out")
    _trl_objective(words)
    accumulation = sampling.prompts_per_step // train.updates_per_step
    words.say("per_device_train_batch_size", sampling.group_size, "sampling.prompts_per_step")
    words.say("gradient_accumulation_steps", accumulation, "train.updates_per_step")
    words.say("steps_per_generation", accumulation * train.updates_per_step)
    words.say("max_steps", train.steps * updates_per_step, "train.steps")
    optimizer = config.optimizer
    words.say("warmup_steps", optimizer.warmup_updates, "optimizer.warmup_updates")
    constant = optimizer.schedule == "constant"
    words.say("lr_scheduler_type", "constant_with_warmup" if constant else optimizer.schedule, "optimizer.schedule")
    words.say("shuffle_dataset", config.data.shuffle, "data.shuffle")
    words.say("bf16", config.model.dtype == "bfloat16", "model.dtype")
    if config.model.device in ("auto", "cuda", "cpu"):
        words.say("use_cpu", config.model.device == "cpu", "model.device")
    words.say("report_to", [s for s in config.log.sinks if s != "jsonl"] or ["none"], "log.sinks")
    words.say("save_strategy", "steps" if config.checkpoint.every else "no")
    words.say("save_steps", max(1, config.checkpoint.every * updates_per_step), "checkpoint.every")
    words.say("eval_strategy", "steps" if config.eval.every else "no")
    words.say("eval_steps", max(1, config.eval.every * updates_per_step), "eval.every")
    words.say("per_device_eval_batch_size", config.eval.samples)
    words.say("num_generations_eval", config.eval.samples, "eval.samples")
    words.say("seed", config.seed, "seed")
    for key in ("eval.temperature", "eval.top_p"):
        if words.ours[key] == words.ours[key.replace("eval.", "sampling.")]:
            words.expressed |= {key}
    words.same("TRL", without=BY_FILES | NOT_IN_TRL)
    words.expressed |= {"objective.overlong.buffer", "objective.overlong.factor"}  # by the exported reward
    return words


NOT_IN_TRL = frozenset(("eval.temperature", "eval.top_p", "eval.prompts", "data.max_prompt_tokens"))
"""Keys of `train_dapo.py` alone."""


def _trl_objective(words: Words) -> None:
    chosen = words.config.objective
    reduction = _objective_leaf(words, "reduction")
    words.choices("TRL", "scale_rewards", "use_bias_correction_kl", "importance_sampling_level")
    words.expressed |= {"objective.name"}
    if chosen.name in ("cispo", "sapo"):
        words.say("loss_type", chosen.name)
        if reduction == type(chosen).model_fields["reduction"].default:
            words.expressed |= {"objective.reduction"}
    elif reduction in LOSSES_IN_TRL:
        words.say("loss_type", LOSSES_IN_TRL[str(reduction)], "objective.reduction")
    if _objective_leaf(words, "ratio") == "token":
        words.expressed |= {"objective.ratio"}
    if chosen.name == "cispo":
        words.say("epsilon_high", chosen.largest_weight, "objective.cap", "objective.cap_is")
    elif chosen.name != "sapo":
        words.say("epsilon", _objective_leaf(words, "clip_low"), "objective.clip_low")
        words.say("epsilon_high", _objective_leaf(words, "clip_high"), "objective.clip_high")
    if _objective_leaf(words, "dual_clip") is None:
        words.expressed |= {"objective.dual_clip"}
    if not chosen.dynamic_sampling:
        words.expressed |= {"objective.dynamic_sampling", "sampling.max_rounds", "sampling.on_exhausted"}
