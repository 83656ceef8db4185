"""Stated confidence in the store: per rollout where the record has it, and counted per step."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from burnish.records import TokenTrace
from burnish.store.text import content_sha
from tests.recorded import judged, rollout, step, store_at, trace


def stated(confidence: float | None, target: float | None) -> TokenTrace:
    return replace(trace(4), confidence=confidence, target=target)


ROLLOUTS = (rollout(status="ok"), rollout(status="wrong"), rollout(status="ok"), rollout(status="timeout"), rollout())
TRACES = {
    (0, 0): stated(0.85, 1.0),
    (0, 1): stated(0.8, 0.0),
    (0, 2): stated(None, 1.0),
    (0, 3): stated(0.8, None),
}
"""The last was not trained on, so nothing is known of what it states."""


def test_confidence_and_target_are_recorded_where_they_are_known(tmp_path: Path):
    with_traces = step(1, judged(*ROLLOUTS), traces=TRACES)
    store = store_at(tmp_path / "run.sqlite")
    store.record(with_traces)
    store.close()
    with sqlite3.connect(tmp_path / "run.sqlite") as db:
        rows = db.execute("SELECT confidence, target FROM rollouts ORDER BY sibling").fetchall()
        calibration = db.execute("SELECT bin, n, sum_conf, sum_right, sum_sq FROM step_calib").fetchall()
    assert rows == [(0.85, 1.0), (0.8, 0.0), (None, 1.0), (0.8, None), (None, None)]
    [(bin_, n, sum_confidence, sum_right, sum_squares)] = calibration
    assert (bin_, n, sum_right) == (8, 2, 1.0)  # a fault has no verdict
    assert sum_confidence == pytest.approx(1.65)
    assert sum_squares == pytest.approx(0.15**2 + 0.8**2)


def test_steps_that_state_other_confidence_are_told_apart():
    a = step(1, judged(*ROLLOUTS), traces=TRACES)
    b = step(1, judged(*ROLLOUTS), traces=TRACES | {(0, 0): stated(0.86, 1.0)})
    assert content_sha(a) == content_sha(step(1, judged(*ROLLOUTS), traces=TRACES))
    assert content_sha(a) != content_sha(b)
