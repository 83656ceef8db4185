"""The lead over the plain way holds. Both run in turn in this process, so that what else the machine does cancels."""

from __future__ import annotations

import pytest
from benchmarks.step import bench

HELD = {"generate": 4.0, "update": 2.5, "step": 3.0}
"""Part of a step -> how many times the plain way's CPU seconds per token it may not fall below: about half the lead
that `make bench-step` shows."""


def test_a_step_keeps_its_lead_over_transformers_generate_and_a_padded_loop(capsys: pytest.CaptureFixture[str]):
    ratios = bench(1, 16, 8, 256)
    table = capsys.readouterr().out
    assert all(ratios[part] >= least for part, least in HELD.items()), f"lost the lead of {HELD}:\n{table}"
