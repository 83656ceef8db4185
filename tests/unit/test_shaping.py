"""The soft overlong punishment."""

from __future__ import annotations

import subprocess
import sys

import pytest

from burnish.algorithms.shaping import overlong_penalty
from tests.reference_vectors import reference

PAPER = {"max_length": 20480, "buffer": 4096}


def test_reproduces_the_papers_column_exactly():
    for row in reference("overlong_max20480_cache4096"):
        assert overlong_penalty(row["len"], **PAPER, factor=1.0) == row["paper_trl"]


def test_within_the_limit_it_is_verls_and_beyond_it_has_a_floor_that_verls_lacks():
    rows = reference("overlong_max20480_cache4096")
    for row in rows:
        assert overlong_penalty(row["len"], **PAPER, factor=1.0) == max(row["verl_pf1"], -1.0)
    assert min(row["verl_pf1"] for row in rows) < -1.0


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(0, 0.0), (16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (20481, -1.0), (24576, -1.0)],
)
def test_grows_over_the_buffer_and_has_a_floor(length, penalty):
    assert overlong_penalty(length, **PAPER) == penalty


def test_factor_scales_the_slope_and_the_floor():
    assert overlong_penalty(18432, **PAPER, factor=0.5) == -0.25
    assert overlong_penalty(30000, **PAPER, factor=0.5) == -0.5


def test_no_buffer_means_no_penalty_at_any_length():
    assert [overlong_penalty(n, max_length=10, buffer=0) for n in (0, 9, 10, 11, 1000)] == [0.0] * 5


def test_needs_no_torch():
    code = "import sys, burnish.algorithms.shaping; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
