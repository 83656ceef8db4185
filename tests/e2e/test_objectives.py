"""Every objective through the real engine and learner, and ADPO on the embedded task."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import get_args

import pytest

from burnish.config.objectives import ObjectiveConfig
from tests.e2e.conftest import Command

EMBEDDED = ("train.steps=8", "eval.prompts=60", "eval.every=0", "eval.greedy=false", 'log.sinks=["jsonl"]')
SHORT = ("train.steps=1", "sampling.prompts_per_step=8", "eval.prompts=4", "eval.every=0", 'log.sinks=["jsonl"]')


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def held_out(out: Path) -> list[float]:
    return [line["eval/add23/avg@2"] for line in lines(out) if "eval/add23/avg@2" in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", [c.model_fields["name"].default for c in get_args(get_args(ObjectiveConfig)[0])])
def test_every_objective_makes_its_updates(burnish: Command, tmp_path: Path, name: str):
    ended = burnish("train", f"objective.name={name}", *SHORT, "objective.kl.coef=0.01", f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    step = next(line for line in lines(tmp_path / "run") if "updates" in line)
    assert step["updates"] == 4
    assert step["update/skipped"] == 0
    assert step["grad_norm"] > 0
    assert step["loss/kl"] >= 0
    assert all(math.isfinite(value) for value in step.values())


@pytest.mark.slow
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_an_engine_that_agrees_with_the_learner_needs_no_correction(burnish: Command, tmp_path: Path, level: str):
    ended = burnish("train", f"objective.mismatch.correct={level}", *SHORT, f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    step = next(line for line in lines(tmp_path / "run") if "updates" in line)
    assert step["mismatch/weight"] == pytest.approx(1.0, abs=1e-4)
    assert step["mismatch/capped"] == 0
    assert step["mismatch/kl"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_ppo_learns_the_embedded_task_from_one_completion_per_prompt(burnish: Command, tmp_path: Path):
    single = ("objective.name=ppo", "sampling.group_size=1", "sampling.prompts_per_step=256")
    ended = burnish("train", *single, *EMBEDDED, f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    before, after = held_out(tmp_path / "run")
    assert after - before > 0.25
    first, *_, last = [line for line in lines(tmp_path / "run") if "value/loss" in line]
    assert first["value/explained_variance"] == 0.0
    assert last["value/mean"] - first["value/mean"] > 0.05
    assert last["value/loss"] < first["value/loss"]


@pytest.mark.slow
def test_adpo_learns_the_embedded_task(burnish: Command, tmp_path: Path):
    ended = burnish("train", "objective.name=adpo", *EMBEDDED, f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    before, after = held_out(tmp_path / "run")
    assert after - before > 0.25
    last = [line for line in lines(tmp_path / "run") if "adpo/loss" in line][-1]
    assert 0 < last["adpo/loss"] < 2 * math.log(8)
    assert 0.4 <= last["adpo/mean_tau"] <= 0.8
    assert last["adpo/anchor_kl"] > 0


@pytest.mark.slow
def test_rounded_weights_draw_and_the_difference_is_measured_and_corrected_for(burnish: Command, tmp_path: Path):
    words = ("sampling.dtype=bfloat16", "objective.mismatch.correct=token", *SHORT)
    ended = burnish("train", *words, f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    step = next(line for line in lines(tmp_path / "run") if "updates" in line)
    assert 1e-5 < step["mismatch/mean"] < 0.05
    assert abs(step["mismatch/weight"] - 1.0) < 0.05
