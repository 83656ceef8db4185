"""The parts of a reward as a picture."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.plots.parts import front, parts_png
from tests.recorded import judged, rollout, step, store_at

POINTS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12)


def test_the_front_is_what_no_other_point_beats_in_both():
    assert front([(0.0, 1.0), (1.0, 0.0), (0.5, 0.0), (0.0, 0.0), (0.6, 0.6)]) == [True, True, False, False, True]
    assert front([(1.0, 1.0), (1.0, 1.0), (1.0, 0.5)]) == [True, True, False]
    assert front([]) == []


@given(POINTS)
def test_every_point_off_the_front_is_beaten_by_one_on_it(points: list[tuple[int, int]]):
    on = [point for point, is_on in zip(points, front(points), strict=True) if is_on]
    for point, is_on in zip(points, front(points), strict=True):
        assert is_on or any(x >= point[0] and y >= point[1] for x, y in on)
    assert bool(on) == bool(points)


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_any_number_of_steps_is_drawn(tmp_path: Path, steps: int):
    with store_at(tmp_path / "run.sqlite") as store:
        for number in range(1, steps + 1):
            parts = {"answer": number / 4, "clarity": 1 / number}
            store.record(step(number, judged(rollout(parts=parts), rollout(parts=parts))))
    out = parts_png(tmp_path, tmp_path / "parts.png", pair=("answer", "clarity"))
    assert out.read_bytes().startswith(b"\x89PNG")
