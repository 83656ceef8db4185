"""A reward function of the user through the command line: named, recorded part by part, stopped when it fails."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import TINY_STEPS, Command, write_rows

QUALITY = """
def compute_score(split: str, solution_str: str, ground_truth: str, info: dict) -> dict:
    correctness = 1.0 if ground_truth and ground_truth.strip() in solution_str else 0.0
    detail = min(1.0, len(solution_str) / 20.0)
    return {"score": 0.8 * correctness + 0.2 * detail, "breakdown": {"correctness": correctness, "detail": detail}}
"""


@pytest.fixture
def words(tmp_path: Path, model_dir: Callable[[str], Path]) -> list[str]:
    """A tiny run on rows of {qid, prompt, ground_truth} with the function above."""
    rows = [
        {"qid": f"sum-{a}{b}", "prompt": f"{a}+{b}", "ground_truth": str(a + b)} for a in range(5) for b in range(5)
    ]
    (tmp_path / "rewards.py").write_text(QUALITY)
    return [
        *(*TINY_STEPS, f"model.path={model_dir('qwen3')}", f"data.train={write_rows(tmp_path / 'rows.jsonl', rows)}"),
        *(f"out={tmp_path / 'run'}", "objective.overlong.buffer=0", "reward.style=none"),
        f"reward.parts.quality.function={tmp_path / 'rewards.py'}:compute_score",
    ]


def test_a_plugin_trains_a_run_and_every_part_is_recorded(burnish: Command, words: list[str], tmp_path: Path) -> None:
    weights = ["weight=0", "entries.correctness=0.8", "entries.detail=0.2"]
    more = [*(f"reward.parts.quality.{word}" for word in weights), "reward.task=correctness"]
    combine = ["reward.combine.name=normalized_sum", "objective.advantage=batch_scaled"]
    ended = burnish("train", *words, *more, *combine)
    assert ended.code == 0, ended.err
    fingerprint = hashlib.sha256((tmp_path / "rewards.py").read_bytes()).hexdigest()
    assert f"rewards.py:compute_score (sha256 {fingerprint})" in ended.out + ended.err
    assert (tmp_path / "run/parts.png").read_bytes().startswith(b"\x89PNG")
    db = sqlite3.connect(tmp_path / "run/run.sqlite")
    parts = "SELECT p.name, count(*) FROM score_parts JOIN part_names p USING(part_id) GROUP BY p.name ORDER BY 1"
    (rollouts,) = db.execute("SELECT count(*) FROM rollouts").fetchone()
    assert db.execute(parts).fetchall() == [(name, rollouts) for name in ("correctness", "detail", "quality")]
    assert db.execute("SELECT name FROM part_names WHERE is_task").fetchall() == [("correctness",)]
    unlike = (
        "SELECT count(*) FROM rollouts r JOIN score_parts s USING(rollout_id) JOIN part_names p USING(part_id) "
        "WHERE p.name = 'correctness' AND s.value != r.raw"
    )
    assert db.execute(unlike).fetchone() == (0,)
    ((message,),) = db.execute("SELECT message FROM events WHERE kind = 'plugin'").fetchall()
    assert fingerprint in message
    db.close()


def test_a_plugin_that_fails_ends_the_run_before_its_first_step(burnish: Command, words: list[str], tmp_path: Path):
    (tmp_path / "rewards.py").write_text("def compute_score(solution_str): return 1 / 0")
    ended = burnish("train", *words)
    assert ended.code == 3
    assert "rewards.py:compute_score, completion 0: raised ZeroDivisionError" in ended.err
    assert not (tmp_path / "run/run.sqlite").exists()


def test_a_plugin_that_fails_now_and_then_is_left_out_of_its_groups_if_told_so(
    burnish: Command, words: list[str], tmp_path: Path
) -> None:
    (tmp_path / "rewards.py").write_text(
        "def compute_score(solution_str, ground_truth):\n"
        "    return float('nan') if solution_str.endswith('7') else float(ground_truth in solution_str)"
    )
    ended = burnish("train", *words, "reward.on_fault=drop", "reward.max_fault_rate=1")
    assert ended.code == 0, ended.err
    db = sqlite3.connect(tmp_path / "run/run.sqlite")
    faults = db.execute("SELECT count(*), count(total), count(raw) FROM rollouts_v WHERE status = 'invalid'").fetchone()
    db.close()
    assert faults[0] > 0
    assert faults[1:] == (0, 0)


def test_a_function_that_is_not_there_is_wrong_usage(burnish: Command, words: list[str], tmp_path: Path) -> None:
    ended = burnish("train", *words[:-1], f"reward.parts.quality.function={tmp_path / 'rewards.py'}:compute_scores")
    assert ended.code == 2
    assert "has no function 'compute_scores'; did you mean 'compute_score'?" in ended.err
