"""Confidence-aware training from the command line: a base that states its confidence, training, evaluation."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from burnish import cli
from burnish.prompts.tasks import task
from tests.e2e.conftest import TINY_STEPS, Command, read_rows, write_rows

pytestmark = pytest.mark.slow  # runs of the product, seconds each


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bases") / "confident"
    assert cli.main(["base", "add23", "--confidence", "embedded", "--out", str(out), "--seed", "5"]) == 0
    return out


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trained_statements_are_worth_more_than_untrained_ones(burnish: Command, base: Path, tmp_path: Path):
    found: dict[str, dict[str, float]] = {}
    for train in ("true", "false"):
        words = ("train.steps=10", "eval.every=0", "seed=4", "confidence.target=correctness")
        out = tmp_path / train
        ended = burnish("train", "add23", f"model.path={base}", f"out={out}", f"confidence.train={train}", *words)
        assert ended.code == 0, ended.err
        assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
        with sqlite3.connect(out / "run.sqlite") as db:
            found[train] = dict(db.execute("SELECT metric, value FROM evals_v WHERE step = 10"))
    trained, untrained = found["true"], found["false"]
    assert trained["brier"] < untrained["brier"] - 0.02
    assert trained["ece"] < untrained["ece"] - 0.05
    assert abs(trained["avg@2"] - untrained["avg@2"]) < 0.1
    assert trained["tagged"] > 0.9


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_loss_falls_towards_targets_of_the_data_and_all_is_recorded(burnish: Command, base: Path, tmp_path: Path):
    prompts = task("add23").sample(64, "train")
    rows = [{"prompt": list(p.messages), "answer": p.answer, "target_confidence": 0.9} for p in prompts]
    out, data = tmp_path / "run", write_rows(tmp_path / "rows.jsonl", rows)
    words = ("train.steps=5", "sampling.prompts_per_step=16", "confidence.coef=1", "confidence.target=data", "seed=4")
    ended = burnish("train", "add23", f"model.path={base}", f"data.train={data}", f"out={out}", *words)
    assert ended.code == 0, ended.err
    steps = [row for row in read_rows(out / "metrics.jsonl") if "loss" in row]
    assert len(steps) == 5
    assert steps[-1]["confidence/loss"] < 0.5 * steps[0]["confidence/loss"]
    assert steps[-1]["confidence/score_mean"] > steps[0]["confidence/score_mean"] + 0.1
    for ours, theirs in (
        ("confidence/loss", "actor/conf_loss"),
        ("confidence/score_mean", "actor/conf_score_mean"),
        ("confidence/valid_ratio", "actor/conf_valid_ratio"),
        ("loss/policy", "actor/pg_loss"),
    ):
        assert all(row[ours] == row[theirs] for row in steps)
    for row in steps:
        parts = row["confidence/valid_ratio"] + row["confidence/missing"] + row["confidence/multiple"]
        assert parts == pytest.approx(1.0)
        assert row["confidence/valid_ratio"] > 0.85
        assert row["loss/confidence"] == pytest.approx(row["confidence/loss"], rel=0.2)

    with sqlite3.connect(out / "run.sqlite") as db:
        squares, stated, target = db.execute(
            "SELECT avg((confidence - target) * (confidence - target)), count(confidence), max(target) FROM rollouts"
        ).fetchone()
        (in_bins,) = db.execute("SELECT sum(n) FROM step_calib").fetchone()
    assert stated == in_bins > 5 * 16 * 8 * 0.5
    assert target == pytest.approx(0.9)
    assert squares == pytest.approx(sum(row["confidence/loss"] for row in steps) / 5, abs=0.01)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_evaluation_draws_reliability(burnish: Command, base: Path, tmp_path: Path):
    picture = tmp_path / "reliability.png"
    sizes = ("eval.prompts=20", "eval.greedy=false", "sampling.max_new_tokens=64", "train.threads=1")
    ended = burnish("eval", base, "add23", "confidence.train=false", f"--reliability={picture}", *sizes)
    assert ended.code == 0, ended.err
    assert "  brier " in ended.out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_reliability_plot_of_nothing_is_refused(burnish: Command, tmp_path: Path):
    ended = burnish("eval", "embedded", "add23", f"--reliability={tmp_path / 'x.png'}")
    assert ended.code == 2
    assert "Type confidence.train=false" in ended.err


def test_a_model_without_tags_trains_and_is_counted(burnish: Command, tmp_path: Path):
    out = tmp_path / "run"
    ended = burnish(
        "train", "add23", *TINY_STEPS, f"out={out}", "sampling.max_new_tokens=48", "eval.prompts=4",
        "confidence.target=group_accuracy",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    rows = [row for row in read_rows(out / "metrics.jsonl") if "confidence/missing" in row]
    assert rows
    assert all(row["confidence/missing"] == 1.0 and row["confidence/valid_ratio"] == 0.0 for row in rows)
    assert not any("confidence/loss" in row for row in rows)
    assert not (out / "reliability.png").exists()


def test_targets_from_the_data_are_asked_for_by_name(burnish: Command, model_dir, tmp_path: Path):
    rows = [{"prompt": f"{a}+1", "answer": str(a + 1), "target_confidence": 0.9} for a in range(8)]
    del rows[3]["target_confidence"]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    words = (
        "train",
        "dapo",
        *TINY_STEPS,
        f"model.path={model_dir('qwen3')}",
        f"data.train={data}",
        "confidence.coef=0.2",
    )
    ended = burnish(*words, f"out={tmp_path / 'a'}")
    assert ended.code == 2
    assert "'target_confidence' in every row, and 1 of 8 prompts have none" in ended.err

    write_rows(data, [row | {"target_confidence": 0.9} for row in rows])
    ended = burnish(*words, f"out={tmp_path / 'b'}")
    assert ended.code == 0, ended.err
