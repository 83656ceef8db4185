"""What people paste: the commands and files of other systems, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from burnish.overrides import ConfigError, load_config, resolve

ACTOR = "actor_rollout_ref.actor."


def settings(words: str | list[str]) -> dict[str, Any]:
    """Key -> value that the foreign words set, defaults of the other system left out."""
    translation = resolve(words.split() if isinstance(words, str) else words).translation
    assert translation is not None
    return {key: setting.value for key, setting in translation.settings.items() if setting.rank >= 0}


def refusal(words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(words.split())
    return str(caught.value)


def lines(words: str) -> str:
    translation = resolve(words.split()).translation
    assert translation is not None
    return "\n".join(translation.lines())


@pytest.fixture
def train_jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    rows = [{"qid": f"q{i}", "prompt": f"What is {i} + 1?", "ground_truth": str(i + 1)} for i in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# -- whole commands ---------------------------------------------------------------------------------------------------


def test_verl_overrides_become_ours(train_jsonl: Path):
    config = resolve(
        [
            *(f"{ACTOR}clip_ratio_low=0.2", f"{ACTOR}clip_ratio_high=0.28", "algorithm.adv_estimator=grpo"),
            *("algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=acc", f"{ACTOR}clip_ratio_c=10.0"),
            *("algorithm.filter_groups.max_num_gen_batches=7", f"data.train_files={train_jsonl}"),
            *("data.train_batch_size=32", f"{ACTOR}ppo_mini_batch_size=8", "actor_rollout_ref.rollout.n=16"),
            *("data.max_prompt_length=2048", "data.max_response_length=20480", "trainer.total_epochs=2"),
            *("reward_model.overlong_buffer.enable=True", "reward_model.overlong_buffer.len=4096"),
            *("reward_model.overlong_buffer.penalty_factor=1.0", "actor_rollout_ref.model.path=some/model"),
            *(f"{ACTOR}optim.lr_warmup_steps=10", "trainer.test_freq=5", "trainer.save_freq=-1"),
        ]
    ).config
    assert (config.objective.clip_high, config.objective.dual_clip) == (0.28, 10.0)
    assert (config.objective.dynamic_sampling, config.objective.overlong.buffer) == (True, 4096)
    assert (config.sampling.max_rounds, config.sampling.on_exhausted) == (7, "error")
    assert (config.sampling.prompts_per_step, config.sampling.group_size, config.train.updates_per_step) == (32, 16, 4)
    assert config.train.steps == 100 * 2 // 32
    assert config.optimizer.warmup_updates == 10 * 4
    assert (config.eval.every, config.checkpoint.every) == (5, 0)
    assert (config.sampling.max_new_tokens, config.data.max_prompt_tokens) == (20480, 2048)


def test_the_full_command_of_dapo_on_trl_becomes_ours(train_jsonl: Path, tmp_path: Path):
    command = f"""python train_dapo.py --model_name_or_path some/model --dataset_name {train_jsonl}
        --output_dir {tmp_path}/my_experiment --num_train_epochs 1 --per_device_train_batch_size 1
        --gradient_accumulation_steps 32 --learning_rate 1e-6 --num_generations 16 --epsilon 0.2 --epsilon_high 0.28
        --loss_type dapo --temperature 1.0 --top_p 1.0 --max_prompt_length 2048 --max_completion_length 20480
        --overlong_buffer_len 4096 --overlong_penalty_factor 1.0 --apply_overlong_penalty --bf16
        --report_to tensorboard"""
    config = resolve(command.split()).config
    assert (config.sampling.prompts_per_step, config.sampling.group_size) == (2, 16)
    assert (config.train.updates_per_step, config.train.steps) == (1, 50)
    assert (config.objective.name, config.objective.clip_low, config.objective.clip_high) == ("dapo", 0.2, 0.28)
    assert (config.objective.overlong.buffer, config.objective.overlong.factor) == (4096, 1.0)
    assert (config.objective.dynamic_sampling, config.objective.dual_clip) == (False, 10.0)
    assert (config.model.dtype, config.log.sinks) == ("bfloat16", ("jsonl", "tensorboard"))
    assert (config.optimizer.weight_decay, config.optimizer.warmup_updates) == (0.1, 10)


def test_the_flags_of_filtering_become_dynamic_sampling():
    found = settings("--filter_groups_enable --max_filter_gen_batches 5 --beta 0.01 --entropy_coeff 0.001")
    assert found == {
        "objective.dynamic_sampling": "true",
        "sampling.max_rounds": "5",
        "objective.kl.coef": "0.01",
        "objective.entropy_coef": "0.001",
    }


def test_the_overrides_of_the_multi_objective_trainer_become_ours(train_jsonl: Path):
    config = resolve(
        f"""python ./main_dapo.py model.pretrained_model_name_or_path=some/model model.force_float32=true
        sampling.max_new_tokens=16 sampling.context_max_len=64 ppo.batch_size=1 ppo.mini_batch_size=1
        data.train_path={train_jsonl} train.total_steps=50""".split()
    ).config
    assert (config.model.path, config.model.dtype) == ("some/model", "float32")
    assert (config.sampling.max_new_tokens, config.data.max_prompt_tokens) == (16, 64)
    assert (config.sampling.prompts_per_step, config.train.updates_per_step, config.train.steps) == (1, 1, 50)
    assert config.data.train == str(train_jsonl)
    assert (config.objective.name, config.sampling.group_size, config.sampling.temperature) == ("ppo", 1, 0.0)


def test_what_a_systems_keys_imply_gives_way_to_words():
    words = "ppo.batch_size=4 ppo.mini_batch_size=4"
    assert settings(words) == {
        "objective.name": "ppo",
        "sampling.group_size": "1",
        "sampling.temperature": "0",
        "sampling.prompts_per_step": "4",
        "train.updates_per_step": "1",
    }
    drawn = resolve(f"{words} sampling.temperature=0.7 sampling.group_size=2".split()).config
    assert (drawn.objective.name, drawn.sampling.temperature, drawn.sampling.group_size) == ("ppo", 0.7, 2)
    groups = resolve(f"{words} objective.name=dapo".split()).config
    assert (groups.objective.name, groups.sampling.temperature, groups.sampling.group_size) == ("dapo", 1.0, 8)
    assert "main_dapo.py's keys say so" in lines(words)


def test_a_command_of_verls_ppo_becomes_ours(train_jsonl: Path):
    config = resolve(
        f"""python3 -m verl.trainer.main_ppo algorithm.adv_estimator=gae data.train_files={train_jsonl}
        data.train_batch_size=256 actor_rollout_ref.model.path=some/model {ACTOR}optim.lr=1e-6
        {ACTOR}ppo_mini_batch_size=64 critic.optim.lr=2e-5 critic.model.path=some/model
        critic.ppo_micro_batch_size_per_gpu=4 algorithm.gamma=0.99 trainer.critic_warmup=0
        algorithm.kl_ctrl.kl_coef=0.001 trainer.total_training_steps=10""".split()
    ).config
    chosen = config.objective
    assert chosen.name == "ppo"
    assert (chosen.gamma, chosen.lam, chosen.value.clip, chosen.value.learning_rate) == (0.99, 1.0, 0.5, 2e-5)
    assert (chosen.clip_low, chosen.clip_high, chosen.dual_clip, chosen.reduction) == (0.2, 0.2, 3.0, "token_mean")
    assert (config.sampling.group_size, config.sampling.prompts_per_step) == (1, 256)
    assert (config.train.updates_per_step, config.optimizer.learning_rate) == (4, 1e-6)
    assert resolve(["algorithm.adv_estimator=gae", "actor_rollout_ref.rollout.n=4"]).config.sampling.group_size == 4
    assert "train together" in refusal("algorithm.adv_estimator=gae trainer.critic_warmup=20")


def test_settings_of_a_critic_are_left_out_by_name_where_the_objective_has_no_value_head():
    words = "algorithm.adv_estimator=grpo algorithm.lam=0.9 critic.optim.lr=1e-5"
    assert resolve(words.split()).config.objective.name == "grpo"
    assert "grpo has no lam" in lines(words)
    assert "grpo has no value.learning_rate" in lines(words)


def test_a_command_of_trls_ppo_becomes_ours(train_jsonl: Path):
    config = resolve(
        f"""accelerate launch --num_processes 2 ppo.py --dataset_name {train_jsonl} --model_name_or_path some/model
        --sft_model_path some/model --per_device_train_batch_size 4 --gradient_accumulation_steps 8 --num_mini_batches 2
        --num_ppo_epochs 1 --total_episodes 1280 --vf_coef 0.2 --cliprange_value 0.3 --lam 0.9
        --missing_eos_penalty 1.0 --stop_token eos --kl_coef 0 --learning_rate 3e-6""".split()
    ).config
    chosen = config.objective
    assert chosen.name == "ppo"
    assert (chosen.value.coef, chosen.value.clip, chosen.lam, chosen.gamma) == (0.2, 0.3, 0.9, 1.0)
    assert (chosen.clip_low, chosen.clip_high, chosen.dual_clip) == (0.2, 0.2, None)
    assert (config.sampling.group_size, config.sampling.prompts_per_step) == (1, 2 * 4 * 8 * 2)
    assert (config.train.updates_per_step, config.train.epochs, config.train.steps) == (2, 1, 10)
    assert (config.sampling.max_new_tokens, config.sampling.temperature) == (53, 0.7)
    assert config.reward.parts["truncated"].kind == "truncated"
    assert "objective.kl.coef=0.05" in refusal("--vf_coef 0.1 --kl_coef 0.05")
    assert "kl_coef=0.05, in the reward" in lines("--model_name_or_path some/model --vf_coef 0.1 train.steps=3")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "algorithm.adv_estimator=adpo algorithm.tau=0.8 algorithm.num_generations=8",
            {"objective.name": "adpo", "objective.tau": "0.8", "sampling.group_size": "8"},
        ),
        (
            "algorithm.use_adaptive_tau=true algorithm.adaptive_tau_alpha=0.5 algorithm.adaptive_tau_min=0.05",
            {
                "objective.name": "adpo",
                "objective.adaptive_tau.mode": "entropy_up",
                "objective.adaptive_tau.alpha": "0.5",
                "objective.adaptive_tau.low": "0.05",
            },
        ),
        (
            "custom_reward_function.path=verl/trainer/adpo/reward.py custom_reward_function.name=good_accuracy",
            {
                "objective.name": "adpo",
                "reward.style": "none",
                "reward.parts.good_accuracy.kind": "good_accuracy",
            },
        ),
    ],
)
def test_the_commands_of_adpo_become_ours(words: str, expected: dict[str, str]):
    assert settings("python -m verl.trainer.main_adpo " + words) == expected


def test_the_command_of_confidence_aware_training_becomes_ours(train_jsonl: Path):
    config = resolve(
        f"""python -m verl.trainer.main_ppo --config-name dapo_confidence_trainer data.train_files={train_jsonl}
        data.train_batch_size=16 {ACTOR}ppo_mini_batch_size=4 actor_rollout_ref.model.path=some/model
        {ACTOR}use_confidence_loss=true {ACTOR}conf_loss_type=classification {ACTOR}conf_loss_coef=0.2
        {ACTOR}high_token_id=5487 {ACTOR}low_token_id=3347 algorithm.filter_groups.enable=true
        algorithm.filter_groups.metric=acc trainer.n_gpus_per_node=8 trainer.total_epochs=3""".split()
    ).config
    assert config.confidence is not None
    assert (config.confidence.loss, config.confidence.coef) == ("classification", 0.2)
    assert (config.confidence.high_token_id, config.confidence.low_token_id) == (5487, 3347)
    assert (config.objective.dynamic_sampling, config.train.steps) == (True, 300 // 16)


def test_settings_of_a_confidence_term_that_is_off_are_ignored_by_name():
    found = resolve(f"{ACTOR}use_confidence_loss=false {ACTOR}conf_loss_coef=0.2".split())
    assert found.config.confidence is None
    assert f"{ACTOR}conf_loss_coef=0.2" in lines(f"{ACTOR}use_confidence_loss=false {ACTOR}conf_loss_coef=0.2")


# -- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "prompts", "updates", "epochs"),
    [
        ("--per_device_train_batch_size 1 --gradient_accumulation_steps 32 --num_generations 16", 2, 1, 1),
        ("--per_device_train_batch_size 8 --num_generations 8", 1, 1, 1),
        ("--per_device_train_batch_size 4 --gradient_accumulation_steps 4 --num_processes 2", 4, 1, 1),
        ("--per_device_train_batch_size 8 --gradient_accumulation_steps 2 --generation_batch_size 64", 8, 4, 1),
        ("--per_device_train_batch_size 8 --steps_per_generation 4 --num_iterations 3", 4, 4, 3),
        ("--per_device_train_batch_size 8 --gradient_accumulation_steps 4 --steps_per_generation 2", 4, 1, 1),
        (f"data.train_batch_size=64 {ACTOR}ppo_mini_batch_size=16 {ACTOR}ppo_epochs=2", 64, 4, 2),
        (f"data.train_batch_size=64 {ACTOR}ppo_mini_batch_size=64 actor_rollout_ref.rollout.n=4", 64, 1, 1),
        ("trainer.per_device_train_batch_size=16 algorithm.num_generations=8", 2, 1, 1),
    ],
)
def test_batches_are_counted_in_prompts(words: str, prompts: int, updates: int, epochs: int):
    config = resolve(words.split()).config
    assert (config.sampling.prompts_per_step, config.train.updates_per_step, config.train.epochs) == (
        prompts,
        updates,
        epochs,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--per_device_train_batch_size 3 --num_generations 8",
            "3 completions per step do not divide into groups of 8. Type sampling.prompts_per_step=1",
        ),
        (
            "--per_device_train_batch_size 8 --generation_batch_size 20",
            "does not divide by the 8 completions of a micro-step",
        ),
        (
            "--per_device_train_batch_size 8 --gradient_accumulation_steps 4 --steps_per_generation 6",
            "do not divide each other. Type --steps_per_generation 4",
        ),
        ("--generation_batch_size 16 --steps_per_generation 2", "cannot both be given. Leave one out"),
        (f"data.train_batch_size=64 {ACTOR}ppo_mini_batch_size=30", f"Type {ACTOR}ppo_mini_batch_size=32"),
        ("--per_device_train_batch_size many", "found 'many'; it needs a number"),
        ("--per_device_train_batch_size 0.5", "it needs a whole number above 0"),
        ("--per_device_train_batch_size nan", "it needs a finite number"),
        ("--eval_strategy epoch", "it is counted in steps. Type eval.every=10"),
        ("--loss_type grpo --epsilon_high lots", "objective.clip_high: found 'lots'"),
        (f"{ACTOR}loss_scale_factor=100", "the constant divisor is sampling.max_new_tokens, 64"),
        ("data.truncation=right", "Type data.overlong_prompts=truncate_left or =drop"),
        ("--dataset_name owner/hub-name --num_train_epochs 1", "'owner/hub-name' is not here to be counted"),
    ],
)
def test_quantities_that_do_not_fit_are_named_with_what_to_type(words: str, message: str):
    assert message in refusal(words)


def test_steps_are_passes_over_the_rows(train_jsonl: Path):
    words = f"--dataset_name {train_jsonl} --per_device_train_batch_size 8 --num_train_epochs 2.5"
    assert resolve(words.split()).config.train.steps == 250
    assert "100 rows x 2.5 / 1 prompts per step" in lines(words)


def test_the_rows_of_a_parquet_file_are_counted_without_reading_them(tmp_path: Path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"prompt": ["a"] * 64, "answer": ["b"] * 64}), tmp_path / "train.parquet")
    words = f"data.train_files={tmp_path}/train.parquet data.train_batch_size=8 trainer.total_epochs=3"
    assert resolve(words.split()).config.train.steps == 64 * 3 // 8


def test_a_number_of_updates_beats_passes_and_train_steps_beats_both():
    both = "--max_steps 40 --num_train_epochs 3"
    assert resolve(both.split()).config.train.steps == 10
    assert resolve([*both.split(), "train.steps=7"]).config.train.steps == 7


def test_updates_become_steps_and_ratios_become_updates():
    words = "--max_steps 100 --warmup_ratio 0.1 --save_steps 0.5 --eval_steps 8 --steps_per_generation 2"
    config = resolve([*words.split(), "--per_device_train_batch_size", "8"]).config
    assert (config.train.updates_per_step, config.train.steps) == (2, 50)
    assert config.optimizer.warmup_updates == 10
    assert (config.checkpoint.every, config.eval.every) == (25, 4)


# -- who wins ---------------------------------------------------------------------------------------------------------


def test_an_own_key_beats_a_foreign_one_wherever_it_stands_and_the_table_says_so():
    for words in ("sampling.group_size=4 --num_generations 16", "--num_generations 16 sampling.group_size=4"):
        assert resolve(words.split()).config.sampling.group_size == 4
        assert "overruled  --num_generations 16  by sampling.group_size = 4" in lines(words)


def test_own_keys_take_part_in_conversions():
    config = resolve(["--per_device_train_batch_size", "32", "sampling.group_size=4"]).config
    assert config.sampling.prompts_per_step == 8


def test_the_later_of_two_foreign_words_wins():
    assert settings("--beta 0.1 --beta 0.2") == {"objective.kl.coef": "0.2"}
    assert settings("model.force_float32=true --bf16")["model.dtype"] == "bfloat16"
    assert "overruled  model.force_float32=true  by --bf16" in lines("model.force_float32=true --bf16")


def test_words_beat_a_file_of_ours_and_a_preset(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text("[sampling]\ngroup_size = 4\n[objective]\nclip_high = 0.3\n")
    assert resolve([str(path), "--num_generations", "16"]).config.sampling.group_size == 16
    assert resolve([str(path), "--num_generations", "16"]).config.objective.clip_high == 0.3
    assert resolve(["grpo", "--num_generations", "16"]).config.objective.kl.coef == 0.04


def test_an_own_objective_starts_from_its_published_setting_and_keeps_explicit_foreign_words():
    words = "--model_name_or_path some/model --epsilon_high 0.3 objective.name=grpo"
    objective = resolve(words.split()).config.objective
    assert (objective.name, objective.clip_high, objective.reduction) == ("grpo", 0.3, "sequence_mean")


# -- the other system's defaults --------------------------------------------------------------------------------------


def test_a_foreign_model_brings_the_defaults_of_its_system_and_an_own_one_does_not():
    trl = resolve(["--model_name_or_path", "some/model"]).config
    assert (trl.objective.clip_high, trl.objective.dual_clip, trl.objective.dynamic_sampling) == (0.2, None, False)
    assert (trl.sampling.prompts_per_step, trl.optimizer.schedule, trl.objective.advantage) == (
        1,
        "linear",
        "standardized",
    )
    verl = resolve(["actor_rollout_ref.model.path=some/model"]).config
    assert (verl.objective.dual_clip, verl.objective.reduction, verl.sampling.prompts_per_step) == (
        3.0,
        "token_mean",
        1024,
    )
    assert resolve(["model.path=some/model", "--beta", "0.1"]).config.objective.dual_clip == 10.0
    assert "default    train.steps = ours" in lines("--model_name_or_path some/model")
    assert "TRL's default --epsilon 0.2" in lines("--model_name_or_path some/model")


def test_without_a_model_the_embedded_default_runs():
    config = resolve(["--epsilon_high", "0.3"]).config
    assert (config.name, config.model.path, config.objective.clip_high) == ("add23", "embedded", 0.3)


def test_a_default_minibatch_that_is_larger_than_the_batch_is_one_update():
    words = "actor_rollout_ref.model.path=some/model data.train_batch_size=64"
    assert resolve(words.split()).config.train.updates_per_step == 1


def test_a_given_minibatch_that_is_larger_than_the_batch_is_refused():
    assert "Type" in refusal(f"data.train_batch_size=64 {ACTOR}ppo_mini_batch_size=128")


def test_one_clip_for_both_edges_where_only_one_is_given():
    assert settings("objective.name=grpo --epsilon 0.3") == {"objective.clip_low": "0.3", "objective.clip_high": "0.3"}
    found = settings(f"objective.name=grpo {ACTOR}clip_ratio=0.3 {ACTOR}clip_ratio_high=0.4")
    assert found == {"objective.clip_low": "0.3", "objective.clip_high": "0.4"}


def test_the_cap_of_cispo_keeps_the_meaning_that_its_system_gives_it():
    trl = resolve(["--loss_type", "cispo", "--epsilon_high", "5.0"]).config.objective
    verl = resolve(f"{ACTOR}policy_loss.loss_mode=cispo {ACTOR}clip_ratio_high=4.0".split()).config.objective
    assert trl.name == verl.name == "cispo"
    assert trl.largest_weight == verl.largest_weight == 5.0


# -- divergence, punishment, filter -----------------------------------------------------------------------------------


def test_a_divergence_that_is_not_turned_on_is_off():
    assert settings(f"{ACTOR}kl_loss_coef=0.02") == {"objective.kl.coef": "0"}
    assert settings(f"{ACTOR}use_kl_loss=True {ACTOR}kl_loss_coef=0.02 {ACTOR}kl_loss_type=k2") == {
        "objective.kl.coef": "0.02",
        "objective.kl.estimator": "k2",
    }
    assert "type objective.kl.estimator=k3_plus" in refusal(f"{ACTOR}use_kl_loss=True {ACTOR}kl_loss_type=k1")


def test_a_punishment_that_is_not_turned_on_is_off():
    assert settings("--overlong_buffer_len 40") == {"objective.overlong.buffer": "0"}
    assert settings("--apply_overlong_penalty --overlong_buffer_len 40") == {"objective.overlong.buffer": "40"}
    assert settings("reward_model.overlong_buffer.enable=true") == {"objective.overlong.buffer": "auto"}


def test_a_filter_on_the_shaped_reward_is_refused_only_where_it_would_filter():
    metric = "algorithm.filter_groups.metric=seq_reward"
    assert "Type acc as the metric" in refusal(f"algorithm.filter_groups.enable=true {metric}")
    assert settings(f"algorithm.filter_groups.enable=false {metric}") == {"objective.dynamic_sampling": "false"}


# -- rewards ----------------------------------------------------------------------------------------------------------


def test_reward_functions_become_parts():
    config = resolve(["custom_reward_function.path=my.py", "custom_reward_function.reward_kwargs.ngram_size=3"]).config
    assert config.reward.style == "none"
    part = config.reward.parts["custom"]
    assert (part.kind, part.function, part.args) == ("function", "my.py:compute_score", {"ngram_size": 3})
    config = resolve(["--reward_funcs", "accuracy_reward", "think_format_reward", "my_lib.rewards.tidy"]).config
    assert (config.reward.style, config.reward.wrong) == ("equivalence", 0.0)
    assert config.reward.format is not None
    assert config.reward.parts["tidy"].function == "my_lib/rewards.py:tidy"


def test_the_plugin_beside_a_script_that_loads_one_is_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    command = "python ./main_dapo.py ppo.batch_size=1 ppo.mini_batch_size=1"
    assert resolve(command.split()).config.reward.parts == {}
    (tmp_path / "my_multiobj_reward_fixed.py").write_text("def compute_score(*_): return 0.0\n")
    reward = resolve(command.split()).config.reward
    assert (reward.style, reward.parts["custom"].function) == ("none", "my_multiobj_reward_fixed.py:compute_score")
    other = resolve([*command.split(), "reward.style=none", "reward.parts.mine.function=my.py:f"]).config.reward
    assert list(other.parts) == ["mine"]
    assert resolve(["python", "train_dapo.py", "--epsilon_high", "0.3"]).config.reward.parts == {}


@pytest.mark.parametrize(
    "words",
    ["--reward_funcs my.tidy", "--reward_funcs think_format_reward", "--reward_model_name_or_path judge"],
)
def test_without_an_answer_check_among_the_rewards_none_is_made(words: str):
    assert resolve(words.split()).config.reward.style == "none"


def test_weights_belong_to_the_reward_model_and_then_to_the_functions_in_their_order():
    words = "--reward_model_name_or_path judge --reward_funcs accuracy_reward my.tidy think_format_reward"
    weighted = resolve([*words.split(), "--reward_weights", "0.5", "2", "0.25", "0.125"]).config.reward
    assert {name: weight.start for name, weight in weighted.weights.items()} == {
        "model": 0.5,
        "answer": 2.0,
        "tidy": 0.25,
        "format": 0.125,
    }
    assert weighted.parts["model"].path == "judge"
    as_yaml = resolve([*words.split(), "--reward_weights=[0.5, 2, 0.25, 0.125]"]).config.reward
    assert as_yaml == weighted


def test_the_weight_of_the_overlong_punishment_is_its_factor():
    words = ["--reward_funcs", "accuracy_reward", "get_soft_overlong_punishment", "--reward_weights", "1", "0.5"]
    objective = resolve([*words, "sampling.max_new_tokens=1280", "data.train=modchain"]).config.objective
    assert (objective.overlong.buffer, objective.overlong.factor) == (256, 0.5)


def test_a_reward_model_of_verl_takes_the_place_of_the_rules_wherever_they_are_named():
    model = "reward_model.enable=True reward_model.model.path=judge reward_model.micro_batch_size_per_gpu=4"
    for manager in ("", "reward_model.reward_manager=dapo", "reward_model.reward_manager=naive"):
        reward = resolve([*model.split(), *manager.split()]).config.reward
        assert (reward.style, list(reward.parts)) == ("none", ["model"])
        assert (reward.parts["model"].path, reward.parts["model"].batch_size) == ("judge", 4)
    newer = "reward.reward_model.enable=True reward.reward_model.model_path=judge reward.reward_model.rollout.name=vllm"
    assert resolve(newer.split()).config.reward.parts["model"].path == "judge"
    off = resolve(["reward_model.enable=False", "reward_model.model.path=judge", "reward_model.max_length=99"])
    assert off.config.reward.parts == {}


def test_a_reward_model_in_a_file_beats_the_manager_among_the_words(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("reward_model: {enable: true, model: {path: judge, input_tokenizer: null}, max_length: null}\n")
    reward = resolve(["--config", str(path), "reward_model.reward_manager=naive"]).config.reward
    assert (reward.style, list(reward.parts)) == ("none", ["model"])


def test_the_objectives_of_gdpo_are_entries_of_the_function():
    reward = resolve(
        [
            *("algorithm.adv_estimator=gdpo", "custom_reward_function.path=my.py"),
            *("algorithm.gdpo_reward_keys=[right,tidy]", "algorithm.gdpo_reward_weights=[1.0,0.5]"),
        ]
    ).config.reward
    assert (reward.style, reward.combine.name) == ("none", "normalized_sum")
    assert {name: weight.start for name, weight in reward.weights.items()} == {"custom": 0.0, "right": 1.0, "tidy": 0.5}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--reward_weights 1 2", "nothing to weigh without --reward_funcs. Type reward.weight=1"),
        (
            "--reward_funcs accuracy_reward my.tidy --reward_weights 1",
            "found 1 weights for 2 rewards (accuracy_reward, tidy)",
        ),
        ("--reward_funcs my.tidy --reward_weights much", "found 'much'; it needs a finite number for each reward"),
        ("--reward_funcs nonsense", "nonsense is refused: choose the grader with reward.style"),
        ("--reward_funcs a.tidy b.tidy", "two rewards are named tidy. Leave one out"),
        ("--reward_funcs accuracy_reward reasoning_accuracy_reward", "two rewards are named accuracy_reward"),
        ("reward_model.reward_manager=batch", "batch is refused: choose the grader with reward.style"),
        ("reward_model.enable=true", "no reward model is given. Type reward_model.model.path=DIRECTORY"),
        ("reward_model.enable=true reward_model.model.path=judge reward_model.max_length=512", "scored whole"),
        ("reward_model.enable=true reward_model.model.path=judge reward_model.mean=0.5", "has no counterpart here"),
        (
            "reward_model.enable=true reward_model.model.path=judge custom_reward_function.path=my.py",
            "depends on the release of verl. Leave one out",
        ),
        ("algorithm.gdpo_reward_weights=[1] custom_reward_function.path=my.py", "no entries of a function to weigh"),
    ],
)
def test_rewards_that_cannot_be_honoured_are_named_with_what_to_type(words: str, message: str):
    assert message in refusal(words)


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--epsilon_hihg 0.28", "unknown key 'epsilon_hihg'; did you mean 'epsilon_high' (TRL)?"),
        (
            f"{ACTOR}clip_ratio_hihg=0.28",
            f"unknown key '{ACTOR}clip_ratio_hihg'; did you mean '{ACTOR}clip_ratio_high'",
        ),
        ("data.train_filez=x", "did you mean 'data.train_files' (verl)?"),
        ("objective.clip_hihg=0.3", "did you mean 'objective.clip_high'?"),
        ("sampling.group_sise=4", "did you mean 'sampling.group_size'?"),
        ("--nonsense 3", "unknown key 'nonsense'; `burnish config --keys` lists all keys"),
        ("algorithm.adv_estimator=remax", "algorithm.adv_estimator=remax is refused"),
        (
            "--use_peft --lora_r 8",
            "--use_peft is refused: there are no adapters. Leave it out: all weights are trained",
        ),
        ("actor_rollout_ref.model.lora_rank=8", "there are no adapters"),
        ("data.train_files=['a.parquet','b.parquet']", "it takes one value here, and has 2"),
        ("data.train_files=$(ls)", "it holds an expression. Type its value"),
        ("trainer.experiment_name=${oc.env:NAME}", "it holds an expression. Type its value"),
        ("trainer.logger=['console','mlflow']", "the sinks are tensorboard, wandb and trackio"),
        ("--num_generations 16 stray", "found 'stray' among the overrides"),
        ("--resume_from_checkpoint out/checkpoint-5", "type `burnish train --resume RUN`"),
    ],
)
def test_what_cannot_be_understood_is_named(words: str, message: str):
    assert message.lower() in refusal(words).lower()


def test_all_refusals_are_told_at_once():
    text = refusal("--use_peft --top_entropy_quantile 0.2 --per_device_train_batch_size 3")
    assert [part in text for part in ("--use_peft", "--top_entropy_quantile 0.2", "3 completions")] == [True] * 3


# -- files ------------------------------------------------------------------------------------------------------------


def test_a_trl_yaml_is_read_as_what_it_is(tmp_path: Path):
    path = tmp_path / "grpo.yaml"
    path.write_text(
        "model_name_or_path: some/model\nlearning_rate: 1e-6\nepsilon_high: 0.28\nnum_generations: 4\n"
        "report_to: [tensorboard, wandb]\ngradient_checkpointing: true\ndelta: null\nseed: 7\n"
        "env:\n  CUDA_VISIBLE_DEVICES: '0'\n"
    )
    for words in ([str(path)], ["--config", str(path)], ["trl", "grpo", "--config", str(path)]):
        config = resolve(words).config
        assert (config.optimizer.learning_rate, config.objective.clip_high, config.seed) == (1e-6, 0.28, 7)
        assert (config.sampling.group_size, config.log.sinks) == (4, ("jsonl", "tensorboard", "wandb"))
        assert (config.model.gradient_checkpointing, config.objective.dual_clip) == (True, None)
    assert resolve(["--config", str(path), "--num_generations", "8"]).config.sampling.group_size == 8
    assert resolve(["--config", str(path), "sampling.group_size=2"]).config.sampling.group_size == 2
    path.write_text("epsilon_hihg: 0.28\n")
    assert "did you mean 'epsilon_high' (TRL)?" in refusal(str(path))


def test_a_verl_config_is_found_by_name_with_its_defaults_and_interpolations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MODEL", "some/model")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text(
        "defaults:\n  - base\n  - adpo_trainer\n  - actor@actor_rollout_ref.actor: dp_actor\n  - _self_\n"
        "actor_rollout_ref:\n  model: {path: '${oc.env:MODEL}'}\n  rollout: {n: 4}\n"
        "data: {train_batch_size: '${lengths.answer}', max_response_length: 99}\n"
    )
    (tmp_path / "conf" / "base.yaml").write_text(
        "algorithm: {tau: 0.7}\ndata: {max_response_length: 11, max_prompt_length: '${.max_response_length}'}\n"
        "trainer: {experiment_name: 'tau-${algorithm.tau}'}\n"
    )
    words = ["--config-path", str(tmp_path / "conf"), "--config-name", "mine", "data.train_batch_size=16"]
    config = resolve(words).config
    assert (config.objective.name, config.objective.tau, config.model.path) == ("adpo", 0.7, "some/model")
    assert (config.sampling.group_size, config.sampling.max_new_tokens, config.data.max_prompt_tokens) == (4, 99, 11)
    assert (config.sampling.prompts_per_step, config.name) == (16, "tau-0.7")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "here.yaml").write_text("algorithm: {tau: 0.6}\n")
    assert resolve(["-cn", "here"]).config.objective.tau == 0.6
    assert "there is no" in refusal("--config-name nowhere")
    assert "Type --config-path FOLDER" in refusal("--config-name nowhere")


def test_defaults_that_lead_in_a_circle_end(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("defaults: [b]\n")
    (tmp_path / "b.yaml").write_text("defaults: [a]\n")
    assert "there is no" in refusal(f"--config-path {tmp_path} --config-name a")


def test_the_number_of_processes_is_read_from_the_launchers_file(tmp_path: Path):
    path = tmp_path / "zero3.yaml"
    path.write_text("compute_environment: LOCAL_MACHINE\nnum_processes: 4\nmixed_precision: bf16\n")
    command = f"accelerate launch --config_file {path} train.py --per_device_train_batch_size 4"
    config = resolve(command.split()).config
    assert (config.sampling.prompts_per_step, config.model.dtype) == (2, "bfloat16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("#" * (1 << 21), "at most 1,048,576 are read"),
    ],
)
def test_foreign_files_are_read_as_safely_as_ours(tmp_path: Path, text: str, message: str):
    path = tmp_path / "grpo.yaml"
    path.write_text(text)
    assert message in refusal(f"--config {path}")


# -- what is told -----------------------------------------------------------------------------------------------------


def test_the_table_goes_to_stderr_only_when_there_are_foreign_words(capsys: pytest.CaptureFixture[str]):
    load_config(["seed=2"])
    assert capsys.readouterr().err == ""
    load_config(["--num_generations", "16", "--attn_implementation", "sdpa"])
    told = capsys.readouterr()
    assert told.out == ""
    assert "mapped     sampling.group_size = 16  --num_generations 16" in told.err
    assert "ignored    --attn_implementation sdpa" in told.err


def test_secrets_and_control_characters_are_not_printed():
    assert "hf_secret" not in lines("--hub_token hf_secret")
    assert "\x1b" not in lines("trainer.project_name=\x1b[31mred")


def test_a_flag_can_be_turned_off_by_its_negative():
    assert settings("--no_gradient_checkpointing") == {"model.gradient_checkpointing": "false"}


def test_hydra_prefixes_are_understood():
    assert settings("+algorithm.filter_groups.enable=True ++data.max_response_length=32") == {
        "objective.dynamic_sampling": "true",
        "sampling.max_new_tokens": "32",
    }


def test_quotes_and_lists_of_one_are_unwrapped():
    assert settings(["data.train_files=['modchain']", "trainer.project_name='a b'"]) == {
        "data.train": "modchain",
        "log.project": "a b",
    }


def test_the_documentation_shows_what_is_printed(capsys: pytest.CaptureFixture[str]):
    page = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")
    command, printed = page.split("```")[1].strip().replace("\\\n", " ").split("\n", 1)
    load_config(command.removeprefix("$ burnish train ").split())
    assert capsys.readouterr().err == printed + "\n"
