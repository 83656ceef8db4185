"""The curves as a picture."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from burnish.plots.curves import curves_png
from tests.recorded import evaluation, judged, learning_step, rollout, step, store_at

PNG = b"\x89PNG\r\n\x1a\n"


def size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header.startswith(PNG)
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_a_run_folder_becomes_a_picture_of_a_thousand_pixels(tmp_path: Path):
    with store_at(tmp_path / "run.sqlite") as store:
        store.record_evaluation(evaluation(0))
        for number in range(1, 9):
            store.record(learning_step(number))
        store.record_evaluation(evaluation(8, value=0.9))
    out = curves_png(tmp_path, tmp_path / "curves.png")
    assert size(out) == (1000, 760)
    assert len(out.read_bytes()) > 20_000


@pytest.mark.parametrize(
    "steps",
    [[], [step(1, judged(rollout()))], [step(1, judged(rollout()), metrics={"reward/mean": math.nan})]],
    ids=["no step", "one step", "nan"],
)
def test_a_run_that_recorded_little_is_drawn_too(tmp_path: Path, steps: list):
    with store_at(tmp_path / "run.sqlite") as store:
        for found in steps:
            store.record(found)
    assert size(curves_png(tmp_path / "run.sqlite", tmp_path / "curves.png"))[0] == 1000


def test_more_recorded_is_more_drawn(tmp_path: Path):
    pictures = []
    for name, numbers in (("few", range(1, 2)), ("many", range(1, 9))):
        with store_at(tmp_path / name) as store:
            for number in numbers:
                store.record(learning_step(number))
        pictures.append(curves_png(tmp_path / name, tmp_path / f"{name}.png").read_bytes())
    assert pictures[0] != pictures[1]
