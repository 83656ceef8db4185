"""The growth benchmark's points, tables and charts, with sizes that take no time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks import growth, models
from benchmarks.growth import table
from benchmarks.growth_axes import AXES, number
from benchmarks.growth_charts import draw
from benchmarks.growth_points import SEQUENCES, WORKLOADS, data_point, step_point, store_points, write_rows
from benchmarks.peers import DOC
from matplotlib.image import imread


def test_axes_name_what_the_points_measure():
    for name, work in WORKLOADS.items():
        for size in AXES[name].sizes:
            assert work(size).group_size * work(size).num_prompts <= 1024
    assert {WORKLOADS["group"](size).num_prompts * size for size in AXES["group"].sizes} == {SEQUENCES}
    assert [WORKLOADS["batch"](size).num_prompts * 8 for size in AXES["batch"].sizes] == list(AXES["batch"].sizes)
    assert WORKLOADS["vocabulary"](151_936).shape.vocabulary == models.SHAPES["medium"].vocabulary


@pytest.mark.slow
def test_a_step_point_gives_the_cost_of_a_token():
    work = replace(WORKLOADS["batch"](16), max_new_tokens=16)
    point = step_point(work)
    assert point["rollout_us"] > 0
    assert point["update_us"] > 0
    assert point["peak_mb"] > 10


def test_a_data_point_reads_the_rows_that_were_written(tmp_path: Path):
    write_rows(tmp_path / "rows.jsonl", 50)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert len(set(lines)) == 50
    point = data_point(50)
    assert point["file_mb"] == pytest.approx(sum(len(line) + 1 for line in lines) / 1e6)
    assert point["seconds"] > 0


@pytest.mark.slow
def test_store_points_lie_at_the_sizes_that_were_asked_for():
    small, large = store_points([1000, 8000])
    assert 1000 <= small["size"] < 3000
    assert 8000 <= large["size"] < 10_000
    assert small["instructions"] > 0


def test_the_table_has_a_row_for_each_size_and_three_digits():
    points = [{"size": 64, "rollout_us": 123.4, "update_us": 12.34, "peak_mb": 1234.5}]
    lines = table(AXES["batch"], points)
    assert lines[2] == "| 64 | 123 | 12.3 | 1,234 |"
    assert number(0.1234) == "0.12"


@pytest.mark.parametrize("name", list(AXES))
def test_every_axis_is_drawn_and_has_its_place_in_the_page(tmp_path: Path, name: str):
    axis = AXES[name]
    keys = [quantity.key for panel in axis.panels for quantity in panel.quantities]
    points = [{"size": size, **{key: float(size + i) for i, key in enumerate(keys)}} for size in axis.sizes]
    picture = draw(axis, points, tmp_path / "images" / "chart.png")
    assert imread(picture).shape[1] == 900
    assert (growth.IMAGES / f"growth-{name}.png").is_file()
    assert f"<!-- bench growth-{name} -->" in DOC.read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_point_that_fails_says_why():
    with pytest.raises(RuntimeError, match="invalid choice"):
        growth.reported("nothing", [1])
