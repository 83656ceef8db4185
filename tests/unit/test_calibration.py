"""Calibration by hand, and as evaluation reports and draws it."""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from burnish.calibration import Stated, auroc, brier, expected_calibration_error, gather, measures, reliability
from burnish.evaluate import evaluate, table
from burnish.metric_names import find
from burnish.plots.curves import reliability_png
from burnish.protocols import Publication
from burnish.records import Evaluation, ReliabilityBin
from burnish.types import Completion, Group, Prompt, Request, Sampling, Score

SMALL = gather([[0.9, 0.8], [0.3, None], [0.3, 0.6]], [[True, False], [False, True], [True, None]])
"""Four pairs: 0.9 right, 0.8 wrong, 0.3 wrong, 0.3 right."""


def test_what_lacks_a_confidence_or_a_verdict_takes_no_part():
    assert SMALL.confidence_C.tolist() == [0.9, 0.8, 0.3, 0.3]
    assert SMALL.right_C.tolist() == [1.0, 0.0, 0.0, 1.0]
    assert SMALL.prompt_C.tolist() == [0, 0, 1, 2]


def test_measures_are_those_worked_out_by_hand():
    assert brier(SMALL) == pytest.approx((0.01 + 0.64 + 0.09 + 0.49) / 4)
    # bins: 0.9 alone (off by 0.1), 0.8 alone (0.8), both 0.3 (mean 0.3 against accuracy 0.5)
    assert expected_calibration_error(SMALL) == pytest.approx((0.1 + 0.8 + 2 * 0.2) / 4)
    # pairs of a right and a wrong one: 0.9 over 0.8, 0.9 over 0.3, 0.3 under 0.8, 0.3 with 0.3
    assert auroc(SMALL) == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_counting_a_completion_twice_is_having_it_twice():
    often = [2, 1, 3, 0]
    twice = Stated(SMALL.confidence_C.repeat(often), SMALL.right_C.repeat(often), SMALL.prompt_C.repeat(often))
    times_C = np.array([2.0, 1.0, 3.0, 0.0])
    for measure in (brier, expected_calibration_error, auroc):
        assert measure(SMALL, times_C) == pytest.approx(measure(twice))


def test_a_constant_statement_of_the_accuracy_is_calibrated_and_knows_nothing():
    rights = [True] * 7 + [False] * 3
    stated = gather([[0.7] * 10], [rights])
    assert brier(stated) == pytest.approx(0.7 * 0.3)
    assert expected_calibration_error(stated) == pytest.approx(0.0, abs=1e-12)
    assert auroc(stated) == 0.5


@pytest.mark.parametrize("right", [True, False])
def test_where_all_are_alike_there_is_no_order_to_measure(right: bool):
    found = measures(gather([[0.2, 0.9]], [[right, right]]), num_prompts=1, num_resamples=10, seed=1)
    assert found.keys() == {"brier", "ece"}


def test_without_statements_nothing_is_measured():
    nothing = gather([[None], []], [[True], []])
    assert measures(nothing, num_prompts=2, num_resamples=10, seed=1) == {}
    assert reliability(nothing) == ()


def test_bins_are_tenths_and_edges_belong_to_the_upper_one():
    stated = gather([[0.0, 0.1, 0.3, 0.7, 1.0, 0.95]], [[False, True, True, False, True, True]])
    assert reliability(stated) == (
        ReliabilityBin(1, 0.0, 0.0),
        ReliabilityBin(1, 0.1, 1.0),
        ReliabilityBin(1, 0.3, 1.0),
        ReliabilityBin(1, 0.7, 0.0),
        ReliabilityBin(2, 0.975, 1.0),
    )


def test_intervals_hold_the_value_and_narrow_with_more_prompts():
    def width(num_prompts: int) -> float:
        draw = random.Random(2)
        confidences = [[draw.random()] for _ in range(num_prompts)]
        rights = [[draw.random() < c[0]] for c in confidences]
        found = measures(gather(confidences, rights), num_prompts=num_prompts, num_resamples=200, seed=3)
        assert all(low <= value <= high for value, low, high in found.values()) or num_prompts < 100
        assert found["auroc"][0] > 0.6
        return found["brier"][2] - found["brier"][1]

    assert width(1600) < 0.5 * width(100)


# -- as evaluation reports it -----------------------------------------------------------------------------------------


class Alternating:
    """Every prompt gets a right and a wrong completion."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        for request in requests:
            texts = ["right" if i % 2 == 0 else "wrong" for i in range(len(request.seeds))]
            yield (
                request.id,
                tuple(Completion(array("i"), array("i", [1]), array("f", [0.0]), t, "stop", 0) for t in texts),
            )

    def load(self, publication: Publication, /) -> None: ...


def grade(prompt: Prompt, completions: Sequence[Completion]) -> list[Score]:
    return [Score(1.0, 1.0, status="ok" if c.text == "right" else "wrong", answer=c.text) for c in completions]


def state(groups: Sequence[Group]) -> list[list[float | None]]:
    """Sure of the right ones, less so of the wrong ones; the last prompt states nothing."""
    found: list[list[float | None]] = [
        [0.8 if r.completion.text == "right" else 0.4 for r in group.rollouts] for group in groups
    ]
    found[-1] = [None] * len(groups[-1].rollouts)
    return found


def evaluated(**changed: object) -> Evaluation:
    prompts = [Prompt(f"p{i}", text="?") for i in range(4)]
    return evaluate(
        Alternating(),
        grade,
        prompts,
        suite="made",
        step=3,
        policy_version=0,
        samples=2,
        sampling=Sampling(),
        seed=1,
        greedy=False,
        **changed,  # pyright: ignore[reportArgumentType]
    )


def test_an_evaluation_reports_calibration_where_confidence_is_stated():
    found = evaluated(statements=state)
    values = {name: value for name, (value, _, _) in found.values.items()}
    assert values["brier"] == pytest.approx((0.04 + 0.16) / 2)
    assert values["ece"] == pytest.approx((0.2 + 0.4) / 2)
    assert values["auroc"] == 1.0
    assert values["confidence"] == pytest.approx(0.6)
    assert values["tagged"] == 0.75
    assert [item.mean_confidence for item in found.items] == [pytest.approx(0.6)] * 3 + [None]
    assert [(b.n, pytest.approx(b.confidence), b.accuracy) for b in found.reliability] == [(3, 0.4, 0.0), (3, 0.8, 1.0)]
    assert all(find(f"eval/made/{name}") for name in found.values)
    assert any(line.startswith("  confidence") for line in table(found))


def test_an_evaluation_without_statements_says_nothing_of_them():
    found = evaluated()
    assert not {"brier", "ece", "auroc", "confidence", "tagged"} & found.values.keys()
    assert found.reliability == ()


@pytest.mark.parametrize("count", [1, 2])
def test_the_reliability_plot_is_a_picture(tmp_path: Path, count: int):
    out = reliability_png([evaluated(statements=state)] * count, tmp_path / "reliability.png")
    assert out.read_bytes().startswith(b"\x89PNG")
