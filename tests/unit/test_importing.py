"""`burnish import`: what is pasted becomes a file that resolves alike."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from burnish import cli
from burnish.foreign.importing import import_text, import_words
from burnish.overrides import ConfigError, load_config, resolve

SCRIPT = r"""#!/usr/bin/env bash
# Launch with the defaults of the paper; every value can be set from outside.
set -euo pipefail
MODEL_PATH="${MODEL_PATH:-some/small-model}"
PER_DEVICE_BATCH_SIZE=${PER_DEVICE_BATCH_SIZE:-1}
GRADIENT_ACCUMULATION_STEPS=${GRADIENT_ACCUMULATION_STEPS:-32}
NUM_GENERATIONS=${NUM_GENERATIONS:-16}
REPORT_TO=${REPORT_TO:-tensorboard}
OVERLONG=$((64 / 4))
BF16=
mkdir -p "$(dirname "$0")/logs"
python prepare.py --out data
accelerate launch --num_processes 2 \
    "$(dirname "$0")/train_dapo.py" \
    --model_name_or_path "$MODEL_PATH" \
    --dataset_name modchain --max_steps 50 \
    --per_device_train_batch_size $PER_DEVICE_BATCH_SIZE \
    --gradient_accumulation_steps $GRADIENT_ACCUMULATION_STEPS \
    --num_generations $NUM_GENERATIONS --max_completion_length 64 \
    --apply_overlong_penalty true --overlong_buffer_len $OVERLONG \
    --report_to $REPORT_TO ${BF16:+--bf16} --attn_implementation sdpa "$@" 2>&1 | tee logs/train.log
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "run_dapo.sh"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("suffix", [".toml", ".yaml"])
@pytest.mark.parametrize(
    "words",
    [
        "--model_name_or_path some/model --delta 5 --beta 0.1 --max_steps 10",
        "--model_name_or_path some/model --max_steps 10",
        "actor_rollout_ref.model.path=some/model trainer.total_training_steps=5 trainer.logger=[console,wandb]",
        "python -m verl.trainer.main_adpo algorithm.tau=0.7 custom_reward_function.path=my.py",
        "--reward_funcs accuracy_reward think_format_reward my.rewards.tidy",
        "--epsilon_high 0.3 seed=5 data.suffix=\\boxed{}",
    ],
)
def test_the_file_resolves_as_the_words_do(words: str, suffix: str, tmp_path: Path):
    path = tmp_path / f"run{suffix}"
    path.write_text(import_text(import_words(words.split()), suffix=suffix))
    assert load_config([str(path)]) == resolve(words.split()).config
    assert resolve([str(path)]).translation is None, "the file has no foreign word left"


def test_a_launch_script_is_read_with_its_defaults(script: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("MODEL_PATH", "PER_DEVICE_BATCH_SIZE", "GRADIENT_ACCUMULATION_STEPS", "NUM_GENERATIONS", "REPORT_TO"):
        monkeypatch.delenv(name, raising=False)
    config = resolve(import_words([str(script)])).config
    assert (config.model.path, config.sampling.group_size) == ("some/small-model", 16)
    assert (config.sampling.prompts_per_step, config.train.steps) == (4, 50)
    assert (config.objective.overlong.buffer, config.model.dtype) == (16, "float32")


def test_the_environment_overrides_the_scripts_defaults(script: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in (
        ("MODEL_PATH", "Qwen/Qwen2.5-7B-Instruct"),
        ("PER_DEVICE_BATCH_SIZE", "2"),
        ("GRADIENT_ACCUMULATION_STEPS", "16"),
        ("NUM_GENERATIONS", "8"),
        ("REPORT_TO", "wandb"),
    ):
        monkeypatch.setenv(name, value)
    config = resolve(import_words([str(script)])).config
    assert (config.model.path, config.sampling.group_size) == ("Qwen/Qwen2.5-7B-Instruct", 8)
    assert (config.sampling.prompts_per_step, config.log.sinks) == (8, ("jsonl", "wandb"))


def test_every_key_says_where_it_comes_from_and_the_end_what_was_ignored(script: Path):
    text = import_text(import_words([str(script)]), suffix=".toml")
    assert "prompts_per_step = 4" in text
    assert "--num_processes=2 (64 completions / 16 per prompt)" in text
    assert "train_dapo.py's default --epsilon 0.2" in text
    assert "# ignored  --attn_implementation sdpa: " in text


def test_null_is_written_so_that_toml_can_hold_it(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text(import_text(["--model_name_or_path", "some/model"], suffix=".toml"))
    assert 'dual_clip = "none"' in path.read_text()
    assert load_config([str(path)]).objective.dual_clip is None


def test_the_command_may_be_one_text_or_come_from_standard_input(monkeypatch: pytest.MonkeyPatch):
    text = "python -m verl.trainer.main_ppo \\\n  data.max_response_length=99 \\\n  data.seed=3"
    assert resolve(import_words([text])).config.sampling.max_new_tokens == 99
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert resolve(import_words([])).config.seed == 3


def test_of_several_commands_the_one_that_trains_is_taken():
    text = "python prepare.py --seed 3\npython train.py --num_generations 4 --beta 0.1\npython plot.py --seed 5"
    assert resolve(import_words([text])).config.sampling.group_size == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cd somewhere\nls", "no command that starts a training was found, only cd, ls"),
        ("python train.py --num_generations $UNSET_NUMBER", "$UNSET_NUMBER has no value"),
        ("python train.py --num_generations '4", "a quote is not closed"),
        ("if true; then\n  N=4\nfi\npython train.py --num_generations $N", "a branch or loop sets it"),
        ("python train.py --output_dir out-$(date +%s)", "it holds an expression"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, message: str):
    with pytest.raises(ConfigError) as caught:
        resolve(import_words([text]))
    assert message in str(caught.value)


def test_a_script_that_is_too_large_is_not_read(tmp_path: Path):
    path = tmp_path / "big.sh"
    path.write_text("#" * (1 << 21))
    with pytest.raises(ConfigError, match="at most 1,048,576 are read"):
        import_words([str(path)])


def test_the_command_prints_or_writes(tmp_path: Path, script: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["import", "--", "python", "train.py", "--num_generations", "4", "data.seed=3"]) == 0
    assert "group_size = 4" in capsys.readouterr().out
    out = tmp_path / "run.yaml"
    assert cli.main(["import", "--out", str(out), "--", str(script)]) == 0
    assert f"burnish train {out}" in capsys.readouterr().err
    assert load_config([str(out)]).sampling.group_size == 16
    assert cli.main(["import", "--", "python", "train.py", "--use_peft"]) == cli.EXIT_USAGE
    assert "--use_peft is refused" in capsys.readouterr().err
