"""The promise of the package: `burnish train` with nothing else learns, and held-out prompts show it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Command, read_rows


@pytest.mark.slow
def test_six_steps_of_the_default_raise_held_out_accuracy_by_a_fifth(burnish: Command, tmp_path: Path) -> None:
    ended = burnish("train", "train.steps=6", "eval.prompts=100", f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.err
    held_out = json.loads((tmp_path / "run/summary.json").read_text())["held_out"]
    before, after = held_out["before"]["avg@2"], held_out["after"]["avg@2"]
    assert after["value"] >= before["value"] + 0.2
    assert after["low"] > before["high"], "the intervals are apart"
    rows = [row for row in read_rows(tmp_path / "run/metrics.jsonl") if "loss" in row]
    assert all(row["groups/admitted"] == 32 for row in rows)
    assert all(row["mismatch/max"] < 1e-4 for row in rows)
    assert rows[-1]["reward/mean"] > rows[0]["reward/mean"]
    assert "held out (add23, 100 prompts): before -> after" in ended.out
