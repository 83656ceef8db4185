"""The commands that users of five other systems have, typed as they have them: each trains to its end.

`burnish train` stands before them; paths lead to small local models and data, and sizes are small where a command's own
are a cluster's. `docs/requirements.md` numbers the systems: confidence-aware DAPO (000), DAPO with TRL (001),
multi-objective rewards (002), the guide (003), ADPO (004).
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet
from transformers import AutoModelForCausalLM

from burnish import cli
from burnish.api import Completion, Prompt, load, train
from burnish.assets import embedded_base_path
from burnish.base import confidence as base_confidence
from burnish.prompts.tasks import task
from burnish.rewards.good_accuracy import good_accuracy
from tests.e2e.conftest import Command, Ended, read_rows, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

POSITIONS = 32_768
"""Of the models that these systems train; a command's lengths must fit."""
QUICK = "train.threads=1 eval.prompts=8 eval.every=0"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base with the positions of a full-size model."""
    folder = tmp_path_factory.mktemp("models") / "base"
    shutil.copytree(embedded_base_path(), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": POSITIONS}))
    return folder


@pytest.fixture(scope="module")
def confident(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that writes confidence tags, after a few seconds of teaching."""
    out = tmp_path_factory.mktemp("models") / "confident"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base_confidence, "UPDATES", 100)
        assert cli.main(["base", "add23", "--confidence", str(base), "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are typed in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(number: int) -> list[Prompt]:
    return list(task("add23").sample(number, "train", seed=3))


def asked(prompt: Prompt) -> str:
    return prompt.messages[-1]["content"]


def paste(burnish: Command, command: str) -> Ended:
    """`burnish train` and the command, with its line breaks and quotes, as a shell would hand it over."""
    ended = burnish("train", *shlex.split(command.replace("\\\n", " ")))
    assert ended.code == 0, ended.err
    return ended


def steps(run: Path) -> list[dict[str, float]]:
    """Metrics of the training steps; the run left a checkpoint that transformers loads, and a record that agrees."""
    rows = [row for row in read_rows(run / "metrics.jsonl") if "loss" in row]
    (newest,) = sorted((run / "checkpoints").iterdir())[-1:]
    assert newest.name == f"step-{len(rows):06d}"
    assert AutoModelForCausalLM.from_pretrained(newest).num_parameters() > 0
    with sqlite3.connect(run / "run.sqlite") as db:
        assert db.execute("SELECT max(step), count(*) > 0 FROM rollouts_v").fetchone() == (len(rows), 1)
    return rows


def config_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "config.json").read_text(encoding="utf-8"))


def names(rows: Sequence[dict[str, float]]) -> set[str]:
    return {name for row in rows for name in row}


# -- 000 --------------------------------------------------------------------------------------------------------------

CONF_METRICS = {"actor/conf_loss", "actor/conf_score_mean", "actor/conf_valid_ratio", "actor/pg_loss"}


def confidence_rows(number: int, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"prompt": asked(prompt), "response": f"<confidence>high</confidence> {prompt.answer}", **columns}
        | {"answer": prompt.answer}
        for prompt in problems(number)
    ]


def test_000_step_1_to_4(burnish: Command, confident: Path, here: Path):
    ids = burnish("token-ids", "--model_path", confident)
    assert ids.code == 0, ids.err
    high, low = (re.search(rf"'{word}' is a single token: (\d+)", ids.out) for word in ("high", "low"))
    assert high
    assert low
    parquet.write_table(Table.from_pylist(confidence_rows(8, target_confidence=0.95)), here / "data.parquet")
    folder = here / "recipe/dapo/config"
    folder.mkdir(parents=True)
    (folder / "my_config.yaml").write_text(
        f"""
actor_rollout_ref:
  actor:
    use_confidence_loss: true
    conf_loss_type: regression  # or "classification"
    conf_loss_coef: 0.1  # Weight of confidence loss
    conf_score_method: softmax  # or "prob_diff"
    high_token_id: {high[1]}  # Replace with your token ID
    low_token_id: {low[1]}   # Replace with your token ID
"""
    )
    paste(
        burnish,
        f"""python -m verl.trainer.main_ppo \\
    --config-name my_config \\
    data.train_files={here}/data.parquet \\
    actor_rollout_ref.model.path={confident} \\
    data.train_batch_size=4 trainer.total_epochs=1 trainer.default_local_dir=run {QUICK}""",
    )
    rows = steps(here / "run")
    assert len(rows) == 2
    assert names(rows) >= CONF_METRICS
    assert all(row["actor/conf_valid_ratio"] > 0.5 for row in rows)
    assert all(row["actor/pg_loss"] == row["loss/policy"] for row in rows)
    confidence = config_of(here / "run")["confidence"]
    assert (confidence["high_token_id"], confidence["low_token_id"]) == (int(high[1]), int(low[1]))
    with sqlite3.connect(here / "run/run.sqlite") as db:
        targets = db.execute("SELECT DISTINCT round(target, 2) FROM rollouts WHERE confidence IS NOT NULL")
        assert targets.fetchall() == [(0.95,)]


@pytest.mark.parametrize("score", ["softmax", "prob_diff"])
def test_000_classification_with_both_scores(burnish: Command, confident: Path, here: Path, score: str):
    write_rows(here / "labels.jsonl", confidence_rows(4, confidence_label=0))
    paste(
        burnish,
        f"""python -m verl.trainer.main_ppo --config-name dapo_confidence_trainer
        data.train_files=labels.jsonl actor_rollout_ref.model.path={confident}
        actor_rollout_ref.actor.conf_loss_type=classification actor_rollout_ref.actor.conf_score_method={score}
        data.train_batch_size=4 trainer.total_epochs=1 trainer.default_local_dir=run {QUICK}""".replace("\n", " "),
    )
    (row,) = steps(here / "run")
    confidence = config_of(here / "run")["confidence"]
    assert (confidence["loss"], confidence["score"]) == ("classification", score)
    assert row["actor/conf_loss"] > 0.0
    assert 0.0 < row["actor/conf_score_mean"] < 1.0


def test_000_the_full_training_command(burnish: Command, confident: Path, here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(here))
    (here / "data").mkdir()
    rows = confidence_rows(8, target_confidence=0.95)
    parquet.write_table(Table.from_pylist(rows), here / "data/my_dataset.parquet")
    ended = paste(
        burnish,
        f"""python -m verl.trainer.main_ppo \\
    --config-name dapo_confidence_trainer \\
    data.train_files=~/data/my_dataset.parquet \\
    data.train_batch_size=4 \\
    actor_rollout_ref.model.path={confident} \\
    actor_rollout_ref.actor.use_confidence_loss=true \\
    actor_rollout_ref.actor.conf_loss_type=regression \\
    actor_rollout_ref.actor.conf_loss_coef=0.1 \\
    actor_rollout_ref.actor.high_token_id=28 \\
    actor_rollout_ref.actor.low_token_id=29 \\
    algorithm.filter_groups.enable=true \\
    algorithm.filter_groups.metric=acc \\
    trainer.n_gpus_per_node=8 \\
    trainer.total_epochs=3 {QUICK} out=run""",
    )
    rows = steps(here / "run")
    assert len(rows) == 3 * 8 // 4
    assert names(rows) >= CONF_METRICS
    assert config_of(here / "run")["objective"]["dynamic_sampling"] is True
    assert "ignored    trainer.n_gpus_per_node=8" in ended.err


# -- 001 --------------------------------------------------------------------------------------------------------------

TRL_METRICS = {"reward/mean", "reward/std", "loss", "learning_rate", "clip_fraction", "entropy"}

ADVANCED = r"""python train_dapo.py \
    --model_name_or_path "{model}" \
    --dataset_name "{data}" \
    --output_dir "./outputs/my_experiment" \
    --num_train_epochs 1 \
    --per_device_train_batch_size 1 \
    --gradient_accumulation_steps 32 \
    --learning_rate 1e-6 \
    --num_generations 16 \
    --epsilon 0.2 \
    --epsilon_high 0.28 \
    --loss_type dapo \
    --temperature 1.0 \
    --top_p 1.0 \
    --max_prompt_length 2048 \
    --max_completion_length 20480 \
    --overlong_buffer_len 4096 \
    --overlong_penalty_factor 1.0 \
    --apply_overlong_penalty \
    --bf16 \
    --report_to tensorboard"""


def math_rows(folder: Path, number: int) -> Path:
    """Rows in the layout of DAPO-Math-17k."""
    rows = [
        {
            "data_source": "math_dapo",
            "prompt": [dict(message) for message in prompt.messages],
            "ability": "MATH",
            "reward_model": {"ground_truth": prompt.answer, "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": prompt.id},
        }
        for prompt in problems(number)
    ]
    parquet.write_table(Table.from_pylist(rows), folder / "dapo-math.parquet")
    return folder / "dapo-math.parquet"


def test_001_the_whole_list_of_flags(burnish: Command, base: Path, here: Path):
    paste(burnish, ADVANCED.format(model=base, data=math_rows(here, 6)))
    run = here / "outputs/my_experiment"
    rows = steps(run)
    assert len(rows) == 6 // 2
    assert names(rows) >= TRL_METRICS
    config = config_of(run)
    assert (config["sampling"]["max_new_tokens"], config["objective"]["overlong"]["buffer"]) == (20480, 4096)
    assert list((run / "tensorboard").glob("events*"))
    assert all(row["rollouts/generated"] == 32 for row in rows)


def test_001_the_options_that_are_off_by_default(burnish: Command, base: Path, here: Path):
    more = "--filter_groups_enable --max_filter_gen_batches 5 --beta 0.04 --entropy_coeff 0.001 --max_grad_norm 1.0"
    paste(burnish, f"{ADVANCED.format(model=base, data=math_rows(here, 4))} --gradient_checkpointing true {more}")
    rows = steps(here / "outputs/my_experiment")
    assert len(rows) == 2
    assert names(rows) >= {"loss/kl", "loss/entropy", "kl/ref", "groups/all_wrong"}
    assert all(row["rounds"] <= 5 for row in rows)


# -- 002 --------------------------------------------------------------------------------------------------------------

PLUGIN = """
def compute_score(split: str, solution_str: str, ground_truth: str, info: dict) -> dict:
    correctness = 1.0 if ground_truth and ground_truth.strip() in solution_str else 0.0
    clarity = min(1.0, solution_str.count("\\n") / 8.0 + 0.2)
    detail = min(1.0, len(solution_str) / 1200.0)
    creativity = 0.5 if "alternative" in solution_str.lower() else 0.2
    score = 0.5 * correctness + 0.25 * clarity + 0.15 * detail + 0.10 * creativity
    breakdown = {"correctness": correctness, "clarity": clarity, "detail": detail, "creativity": creativity}
    return {"score": float(score), "breakdown": breakdown}
"""


def test_002_the_minimal_example_with_the_plugin_beside_it(burnish: Command, base: Path, here: Path):
    (here / "my_multiobj_reward_fixed.py").write_text(PLUGIN)
    (here / "data").mkdir()
    questions = [{"qid": f"sum_{p.id}", "prompt": asked(p), "ground_truth": p.answer} for p in problems(8)]
    write_rows(here / "data/train.jsonl", questions)
    paste(
        burnish,
        f"""python ./main_dapo.py   model.pretrained_model_name_or_path={base}   model.force_float32=true """
        """sampling.max_new_tokens=16 sampling.context_max_len=64   ppo.batch_size=1 ppo.mini_batch_size=1 """
        """data.train_path=./data/train.jsonl   train.total_steps=50 out=checkpoints train.threads=1""",
    )
    rows = steps(here / "checkpoints")
    assert len(rows) == 50
    chosen = config_of(here / "checkpoints")
    assert (chosen["objective"]["name"], chosen["sampling"]["group_size"]) == ("ppo", 1)
    assert chosen["sampling"]["temperature"] == 0.0
    assert names(rows) >= {"value/loss", "critic/vf_loss", "value/mean", "value/advantage"}
    assert all(row["rollouts/generated"] == row["groups/admitted"] == 1 for row in rows)
    # The engine's log-probabilities and the learner's are at the same temperature, though the decoding has none.
    assert max(row["mismatch/max"] for row in rows) < 1e-4
    for row in rows:
        parts = {name: row[f"reward/{name}"] for name in ("correctness", "clarity", "detail", "creativity")}
        weighed = sum(w * parts[p] for p, w in zip(parts, (0.5, 0.25, 0.15, 0.1), strict=True))
        assert row["reward/custom"] == pytest.approx(weighed)
    with sqlite3.connect(here / "checkpoints/run.sqlite") as db:
        asked_ids = {name for (name,) in db.execute("SELECT DISTINCT prompt FROM rollouts_v")}
        per_step = db.execute("SELECT DISTINCT count(*) FROM rollouts_v GROUP BY step").fetchall()
    assert asked_ids == {row["qid"] for row in questions}
    assert per_step == [(1,)]


# -- 003 --------------------------------------------------------------------------------------------------------------

GUIDE = """
model: {path: embedded}
data: {train: add23, limit: 12, sampler: history, history: {min_variance: 0.01, reinclude: 0.2}}
reward: {style: dapo, target_length: 20, truncation: 0.2}
sampling: {prompts_per_step: 4, group_size: 4, max_new_tokens: 64}
objective: {name: dapo, clip_low: 0.2, clip_high: 0.28, dynamic_sampling: false}
train: {steps: 6, updates_per_step: 2, tokens_per_piece: 256, threads: 1}
checkpoint: {every: 3, keep: 3}
eval: {every: 3, prompts: 6}
"""


def test_003_a_yaml_file_and_the_same_from_python_with_a_reward_of_ones_own(burnish: Command, here: Path):
    (here / "guide.yaml").write_text(GUIDE)
    paste(burnish, "guide.yaml out=yaml")
    rows = steps(here / "yaml")
    assert len(rows) == 6
    assert names(rows) >= {"prompts/skipped", "prompts/reincluded", "reward/target_length", "reward/truncation"}
    assert {path.name for path in (here / "yaml/checkpoints").iterdir()} == {"step-000003", "step-000006"}
    with sqlite3.connect(here / "yaml/run.sqlite") as db:
        evaluated = db.execute("SELECT DISTINCT step FROM evals_v ORDER BY 1").fetchall()
        assert evaluated == [(0,), (3,), (6,)]
        (kept,) = db.execute("SELECT count(DISTINCT prompt) FROM rollouts_v").fetchone()
        assert 4 <= kept <= 12

    def right(prompt: Prompt, completion: Completion) -> float:
        return float(completion.text.strip().endswith(f"Answer: {prompt.answer}"))

    done = train(load("guide.yaml", "out=python").with_reward(right))
    assert len(steps(here / "python")) == 6
    assert 0.0 <= done.after["avg@2"].value <= 1.0
    assert done.model.is_dir()


# -- 004 --------------------------------------------------------------------------------------------------------------

ADPO_METRICS = {"adpo/anchor_kl", "adpo/mean_tau", "adpo/loss"}
SHORT = f"{QUICK} train.steps=2 out=run"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            r"""python -m verl.trainer.main_adpo \
    algorithm.adv_estimator=adpo \
    algorithm.tau=0.8 \
    algorithm.num_generations=8""",
            {"tau": 0.8},
        ),
        (
            r"""python -m verl.trainer.main_adpo \
    algorithm.use_adaptive_tau=true \
    algorithm.adaptive_tau_alpha=0.5 \
    algorithm.adaptive_tau_min=0.05""",
            {"adaptive_tau": {"mode": "entropy_up", "alpha": 0.5, "low": 0.05}},
        ),
        (
            r"""python -m verl.trainer.main_adpo \
    custom_reward_function.path=verl/trainer/adpo/reward.py \
    custom_reward_function.name=good_accuracy""",
            {},
        ),
    ],
    ids=["basic", "adaptive temperature", "good_accuracy"],
)
def test_004_commands_1_to_3(burnish: Command, here: Path, command: str, expected: dict[str, Any]):
    paste(burnish, f"{command} {SHORT}")
    rows = steps(here / "run")
    assert len(rows) == 2
    assert names(rows) >= ADPO_METRICS
    objective = config_of(here / "run")["objective"]
    assert objective["name"] == "adpo"
    for key, value in expected.items():
        assert (objective[key] | value if isinstance(value, dict) else value) == objective[key]
    if "good_accuracy" in command:
        assert "reward/good_accuracy" in names(rows)


COMPLETE = """
defaults:
  - adpo_trainer

algorithm:
  adv_estimator: adpo
  num_generations: 8
  tau: 0.8
  use_adaptive_tau: True
  adaptive_tau_alpha: 0.5
  adaptive_tau_min: 0.05
  beta_reward: 0.5
  scale_rewards: group
  beta_anchor_kl: 0.0
  drop_all_failed_prompts: False

custom_reward_function:
  path: verl/trainer/adpo/reward.py
  name: good_accuracy

reward_model:
  reward_kwargs:
    ngram_size: 4
    max_penalty: -0.5
    penalty_scale_factor: 0.1

trainer:
  project_name: my_adpo_project
  experiment_name: adpo_math_gsm8k
  total_epochs: 30
"""


def test_004_the_complete_file(burnish: Command, here: Path):
    (here / "config").mkdir()
    (here / "config/my_adpo_config.yaml").write_text(COMPLETE)
    paste(burnish, f"python -m verl.trainer.main_adpo --config-name my_adpo_config {SHORT}")
    rows, config = steps(here / "run"), config_of(here / "run")
    assert len(rows) == 2
    assert names(rows) >= {*ADPO_METRICS, "reward/good_accuracy"}
    assert not names(rows) & {"adpo/kl_penalty", "adpo/dropped_prompts"}
    assert (config["name"], config["log"]["project"]) == ("adpo_math_gsm8k", "my_adpo_project")
    assert config["reward"]["parts"]["good_accuracy"]["ngram_size"] == 4


def test_004_switches_and_memory_settings(burnish: Command, here: Path):
    (here / "config").mkdir()
    (here / "config/mine.yaml").write_text(
        """
algorithm: {adv_estimator: adpo, num_generations: 8, beta_anchor_kl: 0.1, drop_all_failed_prompts: True}
trainer:
  gradient_checkpointing: true
  bf16: true
  per_device_train_batch_size: 16
actor_rollout_ref:
  rollout:
    free_cache_engine: true
    gpu_memory_utilization: 0.65
"""
    )
    paste(burnish, f"python -m verl.trainer.main_adpo --config-name mine {SHORT}")
    rows, config = steps(here / "run"), config_of(here / "run")
    assert names(rows) >= {*ADPO_METRICS, "adpo/kl_penalty", "adpo/dropped_prompts"}
    assert (config["model"]["dtype"], config["model"]["gradient_checkpointing"]) == ("bfloat16", True)
    assert config["sampling"]["prompts_per_step"] == 16 // 8


def test_004_a_reward_function_of_ones_own_and_good_accuracy_called_directly(burnish: Command, here: Path):
    (here / "my_rewards.py").write_text(
        """
def my_custom_reward(completions, solution, **kwargs):
    rewards = []
    for comp, sol in zip(completions, solution):
        content = comp[0]["content"]
        rewards.append(float(content.strip().endswith(sol)))
    return rewards
"""
    )
    function = "custom_reward_function.path=my_rewards.py custom_reward_function.name=my_custom_reward"
    paste(burnish, f"python -m verl.trainer.main_adpo {function} {SHORT}")
    rows = steps(here / "run")
    assert all(row["reward/custom"] == row["reward/mean"] for row in rows)
    completions = [
        [{"role": "assistant", "content": r"so \boxed{4}"}],
        [{"role": "assistant", "content": r"\boxed{5}"}],
    ]
    scores = good_accuracy(
        completions=completions, solution=["4", "4"], ngram_size=4, max_penalty=-0.5, penalty_scale_factor=0.1
    )
    assert scores == [1.0, 0.0]
