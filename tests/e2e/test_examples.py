"""Every example runs to its end as its README says, at small sizes, without a network."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

SMALL = (
    "sampling.prompts_per_step=4",
    "train.updates_per_step=2",
    "sampling.group_size=4",
    "sampling.max_new_tokens=24",
)
SHORT = ("train.steps=2", "eval.prompts=4", "eval.every=0", "train.threads=1")

pytestmark = pytest.mark.slow


def run(name: str, tmp_path: Path, *words: str, script: str = "run.sh", **env: str) -> str:
    """A script of a copy of the example runs in a folder of its own; what it printed."""
    folder = tmp_path / "examples" / name
    shutil.copytree(EXAMPLES / name, folder, ignore=shutil.ignore_patterns("runs", "outputs", "__pycache__"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(
        [str(folder / script), *words],
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **env},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return ended.stdout + ended.stderr


def metrics(tmp_path: Path, name: str, run_name: str) -> list[dict[str, float]]:
    file = tmp_path / "examples" / name / "runs" / run_name / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def names(rows: list[dict[str, float]]) -> set[str]:
    return {name for row in rows for name in row}


def test_stated_confidence_in_four_steps(tmp_path: Path):
    said = run("000-confidence", tmp_path, *SMALL, *SHORT)
    assert "high_token_id: 28" in said
    rows = metrics(tmp_path, "000-confidence", "confidence")
    assert {"confidence/loss", "confidence/score_mean", "loss/confidence"} <= names(rows)
    assert max(row.get("confidence/valid_ratio", 0.0) for row in rows) > 0.5
    calibrated = names(metrics(tmp_path, "000-confidence", "calibrated"))
    assert {"confidence/loss", "eval/add23/brier", "eval/add23/ece", "eval/add23/auroc"} <= calibrated


def test_flags_of_trl_and_the_variables_of_a_launch_script(tmp_path: Path):
    said = run(
        "001-dapo-trl-flags",
        tmp_path,
        *("eval.prompts=4", "eval.every=0", "train.threads=1"),
        MAX_STEPS="2",
        NUM_GENERATIONS="4",
        GRADIENT_ACCUMULATION_STEPS="16",
        MAX_COMPLETION_LENGTH="24",
        OVERLONG_BUFFER_LEN="4",
    )
    assert "16 completions / 4 per prompt" in said
    assert {"reward/mean", "reward/std", "loss", "learning_rate", "clip/fraction", "entropy"} <= names(
        metrics(tmp_path, "001-dapo-trl-flags", "dapo")
    )


def test_the_quick_test_takes_ten_samples_two_generations_and_two_steps(tmp_path: Path):
    said = run("001-dapo-trl-flags", tmp_path, "train.threads=1", script="test_dapo.sh")
    assert "each of 2 steps: 2 prompts x 2 = 4 rollouts" in said
    assert "read 10 rows" in said
    steps = [row for row in metrics(tmp_path, "001-dapo-trl-flags", "test") if "loss" in row]
    assert [row["rollouts/generated"] for row in steps] == [4.0, 4.0]


def test_the_launch_script_takes_its_settings_from_variables(tmp_path: Path):
    said = run(
        "001-dapo-trl-flags",
        tmp_path,
        *("eval.prompts=4", "eval.every=0", "train.threads=1"),
        script="run_dapo.sh",
        MODEL_PATH="embedded",
        DATASET_NAME="add23",
        PER_DEVICE_BATCH_SIZE="2",
        GRADIENT_ACCUMULATION_STEPS="16",
        NUM_GENERATIONS="16",
        MAX_STEPS="2",
        MAX_PROMPT_LENGTH="32",
        MAX_COMPLETION_LENGTH="64",
        OVERLONG_BUFFER_LEN="12",
        REPORT_TO="tensorboard",
    )
    assert "each of 2 steps: 2 prompts x 16 = 32 rollouts -> 1 updates, learning rate 1e-06" in said
    run_folder = tmp_path / "examples/001-dapo-trl-flags/outputs/DAPO-TRL"
    assert list((run_folder / "tensorboard").glob("events*"))
    assert json.loads((run_folder / "config.json").read_text())["model"]["dtype"] == "bfloat16"


def test_a_reward_of_several_objectives(tmp_path: Path):
    run("002-multi-objective", tmp_path, *SMALL, *SHORT)
    row = metrics(tmp_path, "002-multi-objective", "multi-objective")[1]
    parts = {part: row[f"reward/{part}"] for part in ("correctness", "clarity", "detail", "creativity")}
    assert parts["creativity"] == pytest.approx(0.2)
    weighed = sum(w * parts[p] for p, w in zip(parts, (0.5, 0.25, 0.15, 0.1), strict=True))
    assert row["reward/multi"] == pytest.approx(weighed)


def test_the_guides_system_from_yaml_and_from_python(tmp_path: Path):
    said = run("003-guide", tmp_path, *SMALL, *SHORT)
    assert "given from Python: reward" in said
    found = names(metrics(tmp_path, "003-guide", "yaml"))
    assert {"reward/answer", "reward/target_length", "reward/truncation"} <= found
    assert metrics(tmp_path, "003-guide", "python")
    assert "(1, 'wrong'" in said


def test_anchored_preferences_three_times(tmp_path: Path):
    run("004-adpo", tmp_path, *SMALL, *SHORT)
    for name in ("basic", "adaptive", "complete"):
        found = names(metrics(tmp_path, "004-adpo", name))
        assert {"adpo/loss", "adpo/anchor_kl", "adpo/mean_tau"} <= found
    assert "reward/good_accuracy" in names(metrics(tmp_path, "004-adpo", "complete"))


@pytest.mark.parametrize("script", sorted(str(p.relative_to(EXAMPLES)) for p in EXAMPLES.glob("*/*.sh")))
def test_every_script_can_be_started_and_is_shell(script: str):
    assert os.access(EXAMPLES / script, os.X_OK)
    subprocess.run(["bash", "-n", str(EXAMPLES / script)], check=True)


@pytest.mark.parametrize("example", sorted(p.parent.name for p in EXAMPLES.glob("*/run.sh")))
def test_an_example_is_a_readme_and_one_command_that_has_a_test(example: str):
    assert os.access(EXAMPLES / example / "run.sh", os.X_OK)
    readme = (EXAMPLES / example / "README.md").read_text(encoding="utf-8")
    assert "./run.sh" in readme
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (EXAMPLES / example / target).exists()
    assert f'"{example}"' in Path(__file__).read_text(encoding="utf-8")
