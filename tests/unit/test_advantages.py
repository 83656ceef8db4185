"""Advantages against the reference implementations, by hand, and as properties."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.algorithms import advantages
from tests.reference_vectors import TOLERANCE, reference

ALL = {
    "standardized": advantages.standardized,
    "standardized_tiny_eps": partial(advantages.standardized, eps=1e-8),
    "centered": advantages.centered,
    "batch_scaled": advantages.batch_scaled,
    "leave_one_out": advantages.leave_one_out,
}
NAN = math.nan


def of(function, scores, groups):
    return function(torch.tensor(scores, dtype=torch.float64), torch.tensor(groups, dtype=torch.int64))


def equal_to(values):
    return pytest.approx(values, abs=TOLERANCE, rel=0)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("verl_grpo_eps1e-6_ddof1", advantages.standardized),
        ("verl_drgrpo_norm_adv_by_std_false", advantages.centered),
        ("verl_rloo", advantages.leave_one_out),
        ("trl_group_eps1e-4", partial(advantages.standardized, eps=1e-4)),
        ("trl_batch_eps1e-4", partial(advantages.batch_scaled, eps=1e-4)),
        ("trl_none", advantages.centered),
        ("seed003_doc_ddof1_eps1e-8", partial(advantages.standardized, eps=1e-8)),
    ],
)
def test_reproduces_the_reference_implementation(name, function):
    vectors = reference("advantages")
    groups = [b // vectors["group_size"] for b in range(len(vectors["rewards"]))]
    assert of(function, vectors["rewards"], groups).tolist() == equal_to(vectors[name])


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_a_lone_completion_gets_what_the_references_recommend_and_not_its_raw_reward(function):
    vectors = reference("singleton_group")
    assert vectors["verl"] == pytest.approx(vectors["reward"] / (1.0 + 1e-6))  # verl takes mean 0 and std 1 for it
    assert of(function, [vectors["reward"]], [0]).tolist() == [vectors["recommended"]]


def test_one_right_of_four_by_hand():
    scores, groups = [1.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]
    assert of(advantages.standardized, scores, groups).tolist() == equal_to([1.5, -0.5, -0.5, -0.5])
    assert of(advantages.centered, scores, groups).tolist() == equal_to([0.75, -0.25, -0.25, -0.25])
    assert of(advantages.leave_one_out, scores, groups).tolist() == equal_to([1.0, -1 / 3, -1 / 3, -1 / 3])
    assert of(advantages.batch_scaled, scores, groups).tolist() == equal_to([1.5, -0.5, -0.5, -0.5])


def test_batch_scale_is_the_std_of_every_score_while_the_mean_is_the_groups():
    scores, groups = [1.0, 0.0, 1.0, 1.0], [0, 0, 1, 1]
    std = math.sqrt((3 * 0.25**2 + 0.75**2) / 3)
    assert of(advantages.batch_scaled, scores, groups).tolist() == equal_to([0.5 / std, -0.5 / std, 0.0, 0.0])


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_equal_scores_that_float32_cannot_tell_are_equal_give_exactly_zero(function):
    assert torch.tensor([0.9125] * 8).std() > 0
    assert of(function, [0.9125] * 8, [0] * 8).tolist() == [0.0] * 8


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_a_group_equal_up_to_float32_rounding_gives_exactly_zero(function):
    scores = [0.1, float(torch.tensor(0.1)), 1e6, 1e6 + 0.1]
    assert of(function, scores, [0, 0, 1, 1]).tolist() == [0.0] * 4


def test_a_small_but_real_difference_is_kept():
    assert of(advantages.standardized, [0.5, 0.5001], [0, 0]).tolist() == pytest.approx([-0.70711, 0.70711], abs=0.02)


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_a_singleton_gives_exactly_zero(function):
    assert of(function, [0.7, 1.0, 0.0], [5, 3, 3])[0].item() == 0.0


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_a_missing_score_gives_zero_and_leaves_its_siblings_as_if_it_were_not_there(function):
    with_missing = of(function, [1.0, NAN, 0.0, 0.5], [0, 0, 0, 0])
    without = of(function, [1.0, 0.0, 0.5], [0, 0, 0])
    assert with_missing[1].item() == 0.0
    assert with_missing[[0, 2, 3]].tolist() == without.tolist()


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_a_group_left_with_one_score_or_none_gives_exactly_zero(function):
    scores, groups = [1.0, NAN, NAN, NAN, 1.0, 0.0], [0, 0, 1, 1, 2, 2]
    assert of(function, scores, groups)[:4].tolist() == [0.0] * 4


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_when_every_score_is_missing_every_advantage_is_zero(function):
    assert of(function, [NAN, NAN], [0, 0]).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_an_empty_batch_has_no_advantages(function):
    assert of(function, [], []).shape == (0,)


@pytest.mark.parametrize("function", ALL.values(), ids=ALL)
def test_result_is_float32(function):
    assert of(function, [1.0, 0.0], [0, 0]).dtype == torch.float32


@given(k=st.integers(-300, 300), size=st.integers(2, 32), name=st.sampled_from(sorted(ALL)))
@settings(max_examples=200, deadline=None)
def test_a_constant_group_gives_exactly_zero_whatever_the_constant_and_the_size(k, size, name):
    scores = [k * 0.01] * size + [1.0, 0.0]
    assert of(ALL[name], scores, [0] * size + [1, 1])[:size].tolist() == [0.0] * size


@st.composite
def ragged_groups(draw):
    groups = draw(st.lists(st.integers(-3, 40), min_size=1, max_size=24))
    score = st.one_of(st.sampled_from([-1.0, 0.0, 1.0, NAN]), st.floats(-2, 2))
    return draw(st.lists(score, min_size=len(groups), max_size=len(groups))), groups


@given(rows=ragged_groups(), random=st.randoms(use_true_random=False), name=st.sampled_from(sorted(ALL)))
@settings(max_examples=200, deadline=None)
def test_permuting_rows_permutes_advantages(rows, random, name):
    scores, groups = rows
    order = list(range(len(groups)))
    random.shuffle(order)
    straight = of(ALL[name], scores, groups)
    shuffled = of(ALL[name], [scores[i] for i in order], [groups[i] for i in order])
    assert shuffled.tolist() == pytest.approx(straight[order].tolist(), abs=1e-6)


@given(rows=ragged_groups(), offset=st.integers(-1000, 1000), name=st.sampled_from(sorted(ALL)))
@settings(max_examples=50, deadline=None)
def test_only_which_ids_are_equal_matters_and_not_the_ids(rows, offset, name):
    scores, groups = rows
    renamed = [offset - 7 * g for g in groups]
    assert of(ALL[name], scores, groups).tolist() == pytest.approx(of(ALL[name], scores, renamed).tolist(), abs=1e-6)
