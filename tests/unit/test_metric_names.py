"""The table of metrics: complete, unambiguous, and the page made from it up to date."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from burnish.metric_names import METRICS, PROMISED, RESERVED_PARTS, find, markdown, with_promised_names
from burnish.step_metrics import rollup, throughput
from tests.recorded import judged, learning_step, rollout

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("row", METRICS.values(), ids=lambda row: row.name)
def test_every_metric_says_what_it_is(row):
    assert row.unit
    assert len(row.formula) > 5


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        ("reward/mean", "reward/mean"),
        ("reward/format", "reward/<part>"),
        ("eval/add23/avg@2", "eval/<suite>/avg@<n>"),
        ("eval/aime-2024/pass@16", "eval/<suite>/pass@<n>"),
        ("eval/add23/greedy", "eval/<suite>/greedy"),
    ],
)
def test_a_metric_is_found_by_its_name(name: str, listed: str):
    found = find(name)
    assert found is not None
    assert found.name == listed


@pytest.mark.parametrize(
    "name", ["", "reward", "reward/a/b", "eval/x/avg@", "eval/x/avg@two", "losses", "loss/policy2"]
)
def test_a_name_that_is_not_listed_is_not_found(name: str):
    assert find(name) is None


def test_a_parts_name_cannot_hide_another_metric():
    assert {"mean", "std", "se", "total"} == RESERVED_PARTS
    with pytest.raises(ValueError, match=r"reward part is named 'mean'"):
        rollup([judged(rollout(parts={"mean": 1.0}))])


def test_every_metric_that_a_step_emits_is_listed():
    metrics = learning_step(1).metrics
    assert [name for name in rollup(learning_step(1).judged) | throughput(metrics) if find(name) is None] == []


def test_every_metric_name_written_in_the_code_is_listed():
    prefixes = (
        "adpo|confidence|loss|kl|clip|ratio|length|groups|rollouts|tokens|mismatch|value|time|throughput|update|reward"
    )
    names = {
        name
        for path in (ROOT / "src" / "burnish").rglob("*.py")
        if path.parent.name != "rewards"
        for name in re.findall(rf'"((?:{prefixes})/[a-z_]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(names) > 20
    assert [name for name in sorted(names - {"tokens/s"}) if find(name) is None] == []


def test_promised_names_are_emitted_beside_ours():
    found = with_promised_names({"clip/fraction": 0.01, "loss/policy": 0.5, "entropy": 1.0})
    assert found == {
        "clip/fraction": 0.01,
        "clip_fraction": 0.01,
        "loss/policy": 0.5,
        "actor/pg_loss": 0.5,
        "entropy": 1.0,
    }
    assert [ours for ours in PROMISED.values() if ours not in METRICS] == []


def test_the_page_is_made_from_the_table():
    page = ROOT / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == markdown() + "\n", "python -m burnish.metric_names > docs/metrics.md"
