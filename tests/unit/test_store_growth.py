"""Recording a step costs what it did, however much is recorded already."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from benchmarks.store_growth import costs

GROUPS, PAGE = 64, 4096


@pytest.mark.slow
def test_a_step_costs_the_same_with_thirty_times_as_much_in_the_record(tmp_path: Path):
    first, last = costs(tmp_path / "run.sqlite", at=(0, 32_000), groups=GROUPS)

    def medians(name: str) -> tuple[float, float]:
        """Of the first steps and of the last."""
        before, after = (statistics.median(getattr(cost, name) for cost in side) for side in (first, last))
        return before, after

    assert last[0].stored >= 30 * first[0].stored
    before, after = medians("instructions")  # not seconds: a loaded machine changes nothing
    assert after < 1.1 * before
    before, after = medians("log_bytes")
    own_pages = 3 * GROUPS * PAGE  # each prompt may come to lie on a page of its own in the trees that are by prompt
    assert after < before + 1.1 * own_pages
