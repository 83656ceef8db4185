"""What a step generated, as metrics: numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from burnish.step_metrics import clustered_se, rollup, throughput
from tests.recorded import judged, rollout

RIGHT = rollout(raw=1.0, total=1.5, parts={"format": 0.5}, ids=[1, 2])
WRONG = rollout(status="wrong", raw=-1.0, total=-1.0, parts={"format": 0.0}, ids=[1, 2, 3, 4], finish="length")
UNPARSED = rollout(status="unparsed", raw=-1.0, total=-1.0, ids=[1])
FAULT = rollout(status="timeout", raw=None, ids=[])


def test_rewards_are_over_all_generated_rollouts_and_not_the_admitted_ones():
    metrics = rollup(
        [
            judged(RIGHT, WRONG, uid="a", id=0),
            judged(WRONG, UNPARSED, uid="b", id=1, outcome="all_wrong", round=1),
            judged(RIGHT, FAULT, uid="c", id=2, outcome="fault", round=1),
        ]
    )
    # raw: 1 -1 | -1 -1 | 1: mean -0.2; squares about it: 1.44 .64 .64 .64 1.44 = 4.8
    assert metrics["reward/mean"] == pytest.approx(-0.2)
    assert metrics["reward/std"] == pytest.approx(math.sqrt(4.8 / 5))
    # sums of deviations by prompt: 0.4, -1.6, 1.2
    assert metrics["reward/se"] == pytest.approx(math.sqrt(3 / 2 * (0.16 + 2.56 + 1.44)) / 5)
    assert metrics["reward/total"] == pytest.approx((1.5 - 1.0 - 1.0 - 1.0 + 1.5) / 5)
    assert metrics["reward/format"] == pytest.approx((0.5 + 0.0 + 0.0 + 0.5) / 4)
    assert metrics["accuracy"] == pytest.approx(2 / 5)
    assert metrics["rollouts/generated"] == 6
    assert metrics["rollouts/faults"] == 1
    assert metrics["tokens/generated"] == 13
    assert metrics["length/mean"] == pytest.approx(13 / 6)
    assert metrics["length/max"] == 4
    assert metrics["length/truncated"] == pytest.approx(2 / 6)
    assert metrics["groups/generated"] == 3
    assert metrics["groups/admitted"] == 1
    assert metrics["groups/all_wrong"] == 1
    assert metrics["groups/fault"] == 1
    assert metrics["groups/surplus"] == 0
    assert metrics["groups/effective"] == pytest.approx(1 / 3)
    assert metrics["rounds"] == 2


def test_what_has_no_value_is_absent():
    metrics = rollup([judged(FAULT, FAULT, outcome="fault")])
    assert not {"reward/mean", "reward/std", "reward/se", "reward/total", "accuracy"} & metrics.keys()
    assert metrics["rollouts/faults"] == 2
    assert "length/mean" not in rollup([])
    assert rollup([])["groups/generated"] == 0


def test_the_same_prompt_drawn_twice_is_one_cluster():
    twice = [judged(RIGHT, uid="a", id=0), judged(WRONG, uid="a", id=1)]
    assert "reward/se" not in rollup(twice)
    assert "reward/se" in rollup([*twice, judged(WRONG, uid="b", id=2)])


def test_with_one_value_per_cluster_the_clustered_error_is_the_usual_one():
    values = [1.0, 2.0, 4.0, 9.0]  # mean 4, squares 9 4 0 25: sample variance 38 / 3
    assert clustered_se([[value] for value in values]) == pytest.approx(math.sqrt(38 / 3 / 4))


def test_copies_within_a_cluster_add_no_certainty():
    once = clustered_se([[0.0], [1.0], [1.0]])
    assert clustered_se([[0.0] * 8, [1.0] * 8, [1.0] * 8]) == pytest.approx(once)


def test_throughput_is_tokens_over_seconds_where_both_are_known():
    metrics = {"tokens/generated": 100.0, "time/generate": 4.0, "tokens/trained": 10.0, "time/learn": 0.0}
    assert throughput(metrics) == {"throughput/generate": 25.0}
