"""Scalarisations against the reference numbers, by hand, and as properties."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from burnish.algorithms import advantages, scalarize
from burnish.algorithms.scalarize import Weight
from tests.reference_vectors import TOLERANCE, reference

NAMES: tuple[str, ...] = ("correctness", "clarity", "detail", "creativity")
WEIGHTS = dict(zip(NAMES, (0.5, 0.25, 0.15, 0.1), strict=True))
IDEAL = dict.fromkeys(NAMES, 1.0)
EXAMPLE_A = dict(zip(NAMES, (1.0, 1.0, 0.75, 0.5), strict=True))
EXAMPLE_B = dict(zip(NAMES, (0.0, 1.0, 1.0, 0.2), strict=True))


def near(values: Any) -> Any:
    return pytest.approx(values, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize("example", ["A", "B", "C"])
def test_reproduces_the_reference_numbers(example: str) -> None:
    vectors = reference("scalarise")
    weights = dict(zip(NAMES, vectors["w"], strict=True))
    ideal = dict(zip(NAMES, vectors["ideal"], strict=True))
    parts = dict(zip(NAMES, vectors[example]["r"], strict=True))
    assert scalarize.weighted_sum(parts, weights) == near(vectors[example]["weighted_sum"])
    assert scalarize.chebyshev(parts, weights, ideal=ideal) == near(vectors[example]["chebyshev"])
    assert scalarize.chebyshev(parts, weights, ideal=ideal, rho=0.05) == near(vectors[example]["aug_rho.05"])


@pytest.mark.parametrize(("parts", "total"), [(EXAMPLE_A, 0.9125), (EXAMPLE_B, 0.42)])
def test_the_worked_examples_of_a_weighted_sum(parts: dict[str, float], total: float) -> None:
    assert scalarize.weighted_sum(parts, WEIGHTS) == pytest.approx(total, abs=1e-12)


def test_chebyshev_sees_only_the_worst_part_and_the_augmented_form_breaks_ties() -> None:
    weights, ideal = {"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 1.0}
    balanced, better = {"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.9}
    assert scalarize.chebyshev(balanced, weights, ideal=ideal) == scalarize.chebyshev(better, weights, ideal=ideal)
    assert scalarize.chebyshev(balanced, weights, ideal=ideal, rho=0.05) == pytest.approx(-0.25 - 0.05 * 0.5)
    assert scalarize.chebyshev(better, weights, ideal=ideal, rho=0.05) == pytest.approx(-0.25 - 0.05 * 0.3)


def test_chebyshev_reaches_a_compromise_that_no_weighted_sum_prefers() -> None:
    extremes, compromise = ({"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}), {"a": 0.4, "b": 0.4}
    ideal = {"a": 1.0, "b": 1.0}
    half = {"a": 0.5, "b": 0.5}
    of_compromise = scalarize.chebyshev(compromise, half, ideal=ideal) or 0.0
    assert all(of_compromise > (scalarize.chebyshev(extreme, half, ideal=ideal) or 0.0) for extreme in extremes)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        weights = {"a": share, "b": 1.0 - share}
        best = max(scalarize.weighted_sum(extreme, weights) or 0.0 for extreme in extremes)
        assert best > (scalarize.weighted_sum(compromise, weights) or 0.0)


def test_a_part_of_weight_zero_does_not_hide_a_completion_beyond_the_ideal() -> None:
    weights, ideal = {"a": 1.0, "b": 0.0}, {"a": 1.0, "b": 1.0}
    assert scalarize.chebyshev({"a": 1.5, "b": 0.0}, weights, ideal=ideal) == pytest.approx(0.5)


def test_a_closed_gate_gives_no_credit_for_style_and_keeps_penalties() -> None:
    weights = {"answer": 1.0, "clarity": 0.5, "overlong": 1.0}
    gate = {"gate": "answer", "threshold": 1.0}
    right = {"answer": 1.0, "clarity": 0.8, "overlong": -0.25}
    assert scalarize.gated(right, weights, **gate) == pytest.approx(1.0 + 0.4 - 0.25)
    wrong = {"answer": -1.0, "clarity": 0.8, "overlong": -0.25}
    assert scalarize.gated(wrong, weights, **gate) == pytest.approx(-1.0 - 0.25)


def test_a_gate_that_was_not_measured_is_closed() -> None:
    assert scalarize.gated({"clarity": 0.8}, {"answer": 1.0, "clarity": 0.5}, gate="answer", threshold=1.0) == 0.0


def test_a_constraint_costs_in_proportion_to_how_far_it_is_missed() -> None:
    weights, floors = {"answer": 1.0}, {"safety": 0.9, "clarity": 0.5}
    kept = {"answer": 1.0, "safety": 0.95, "clarity": 0.5}
    missed = {"answer": 1.0, "safety": 0.4, "clarity": 0.25}
    assert scalarize.constrained(kept, weights, floors=floors, penalty=4.0) == pytest.approx(1.0)
    assert scalarize.constrained(missed, weights, floors=floors, penalty=4.0) == pytest.approx(1.0 - 4.0 * (0.5 + 0.25))


def test_a_part_that_was_not_measured_takes_no_part() -> None:
    weights = {"a": 1.0, "b": 2.0}
    assert scalarize.weighted_sum({"a": 0.5}, weights) == 0.5
    assert scalarize.chebyshev({"a": 0.5}, weights, ideal={"a": 1.0, "b": 1.0}) == -0.5
    assert scalarize.constrained({"a": 0.5}, weights, floors={"b": 1.0}, penalty=9.0) == 0.5
    assert scalarize.normalized_sum([{"a": 1.0}, {"a": 0.0, "b": 1.0}], [weights] * 2, eps=0.0) == pytest.approx(
        [0.5**0.5, -(0.5**0.5)]
    )


def test_without_a_weighted_part_there_is_no_total() -> None:
    parts, weights = {"seen": 1.0}, {"a": 1.0}
    assert scalarize.weighted_sum(parts, weights) is None
    assert scalarize.chebyshev(parts, weights, ideal={"a": 1.0}) is None
    assert scalarize.gated(parts, weights, gate="seen", threshold=2.0) is None
    assert scalarize.constrained(parts, weights, floors={}, penalty=1.0) is None
    assert scalarize.normalized_sum([parts], [weights]) == [None]


def multi_reward() -> tuple[dict[str, Any], list[dict[str, float]], dict[str, float], torch.Tensor]:
    vectors = reference("multi_reward")
    parts = [{"c": c, "f": f} for c, f in zip(vectors["correct"], vectors["format"], strict=True)]
    weights = dict(zip("cf", vectors["weights"], strict=True))
    groups = torch.tensor([b // vectors["group_size"] for b in range(len(parts))])
    return vectors, parts, weights, groups


def normalized(parts: list[dict[str, float]], weights: dict[str, float], size: int, eps: float) -> torch.Tensor:
    totals: list[float | None] = []
    for start in range(0, len(parts), size):
        totals += scalarize.normalized_sum(parts[start : start + size], [weights] * size, eps=eps)
    return torch.tensor(totals, dtype=torch.float64)


def test_summing_then_normalising_is_the_reference_of_trl() -> None:
    vectors, parts, weights, groups = multi_reward()
    totals = torch.tensor([scalarize.weighted_sum(p, weights) for p in parts], dtype=torch.float64)
    found = advantages.standardized(totals, groups, eps=1e-4)
    assert found.tolist() == near(vectors["trl_sum_then_normalize"])


def test_normalising_then_summing_and_scaling_by_the_batch_is_gdpo_as_in_trl() -> None:
    vectors, parts, weights, groups = multi_reward()
    totals = normalized(parts, weights, vectors["group_size"], eps=1e-4)
    found = advantages.batch_scaled(totals, groups, eps=1e-4)
    assert found.tolist() == near(vectors["trl_normalize_then_sum_gdpo"])


@pytest.mark.parametrize("lengths", ["equal", "given"])
def test_normalising_then_summing_and_whitening_tokens_is_gdpo_as_in_verl(lengths: str) -> None:
    vectors, parts, weights, groups = multi_reward()
    totals = normalized(parts, weights, vectors["group_size"], eps=1e-6)
    lengths_B = [2] * len(parts) if lengths == "equal" else vectors["verl_gdpo_lengths"]
    per_token = totals.repeat_interleave(torch.tensor(lengths_B))
    found = advantages.whitened(totals, groups, mean=per_token.mean().item(), std=per_token.std().item(), eps=0.0)
    expected = "verl_gdpo_equal_lengths_2_tokens" if lengths == "equal" else "verl_gdpo_var_lengths"
    assert found.tolist() == near(vectors[expected])


def test_a_part_alike_in_its_group_adds_nothing_to_a_normalised_sum() -> None:
    parts = [{"a": 0.9125, "b": b} for b in (0.0, 1.0, 1.0)]
    alone = scalarize.normalized_sum([{"b": p["b"]} for p in parts], [{"b": 2.0}] * 3)
    assert scalarize.normalized_sum(parts, [{"a": 1e6, "b": 2.0}] * 3) == alone


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=8), st.floats(1e-2, 1e2))
def test_a_normalised_sum_has_mean_zero_and_does_not_see_the_scale_of_a_part(
    values: list[tuple[float, float]], scale: float
) -> None:
    weights = [{"a": 1.0, "b": 0.5}] * len(values)
    parts = [{"a": round(a, 2), "b": round(b, 2)} for a, b in values]
    found = scalarize.normalized_sum(parts, weights, eps=0.0)
    scaled = scalarize.normalized_sum([{"a": p["a"], "b": scale * p["b"]} for p in parts], weights, eps=0.0)
    assert sum(total or 0.0 for total in found) == pytest.approx(0.0, abs=1e-9)
    assert scaled == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize(("step", "weight"), [(0, 1.0), (25, 0.8), (100, 0.2), (5000, 0.2)])
def test_a_weight_goes_linearly_to_its_end_and_stays_there(step: int, weight: float) -> None:
    assert Weight(1.0, 0.2, steps=100).at(step) == pytest.approx(weight)


def test_a_constant_weight_is_the_same_at_every_step() -> None:
    assert [Weight.constant(0.3).at(step) for step in (0, 1, 1000)] == pytest.approx([0.3] * 3)
