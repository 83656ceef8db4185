"""Which groups train: by the raw metric, by range, and never because of shaping."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.prompts.filters import AdmitAll, ConstantGroups
from burnish.types import Completion, Group, Outcome, Prompt, Rollout, Score, Status

EMPTY = Completion(
    prompt_ids=array("i"), token_ids=array("i"), logprobs=array("f"), text="", finish_reason="stop", policy_version=0
)


def group(*scores: Score) -> Group:
    return Group(id=0, prompt=Prompt(id="a", text="a"), rollouts=tuple(Rollout(EMPTY, score) for score in scores))


def ok(raw: float = 1.0, total: float | None = None) -> Score:
    return Score(total=raw if total is None else total, raw=raw, status="ok")


def wrong(raw: float = -1.0, status: Status = "wrong") -> Score:
    return Score(total=raw, raw=raw, status=status)


FAULT = Score(total=None, status="timeout")


@pytest.mark.parametrize(
    ("scores", "outcome"),
    [
        ([ok(), wrong()], "admitted"),
        ([ok(), wrong(), FAULT], "admitted"),
        ([ok(), ok()], "all_right"),
        ([ok(), ok(), FAULT], "all_right"),
        ([wrong(), wrong()], "all_wrong"),
        ([wrong(), wrong(status="unparsed")], "all_wrong"),
        ([ok(0.5), wrong(0.5)], "constant"),
        ([ok(), FAULT], "fault"),
        ([FAULT, FAULT], "fault"),
        ([], "fault"),
    ],
)
def test_a_group_is_judged_by_what_its_siblings_scored(scores: Sequence[Score], outcome: Outcome) -> None:
    assert ConstantGroups()(group(*scores)) == outcome


def test_shaping_does_not_admit_a_group_that_is_all_right() -> None:
    assert ConstantGroups()(group(ok(1.0, total=1.0), ok(1.0, total=0.3))) == "all_right"
    assert ConstantGroups()(group(ok(1.0, total=0.0), Score(total=0.0, raw=-1.0, status="wrong"))) == "admitted"


@given(raw=st.floats(-1e6, 1e6), size=st.integers(2, 32))
def test_equal_scores_are_alike_whatever_their_value(raw: float, size: int) -> None:
    assert ConstantGroups()(group(*[ok(raw)] * size)) == "all_right"


@given(raw=st.floats(-1.0, 1.0), size=st.integers(2, 32))
def test_a_spread_above_the_tolerance_is_always_admitted(raw: float, size: int) -> None:
    assert ConstantGroups()(group(*[ok(raw)] * size, ok(raw + 2.1e-6))) == "admitted"


def test_rounding_is_relative_to_the_size_of_the_scores() -> None:
    assert ConstantGroups()(group(ok(1e6), ok(1e6 + 0.1))) == "all_right"
    assert ConstantGroups()(group(ok(-1e6), ok(-1e6 - 0.1))) == "all_right"
    assert ConstantGroups()(group(ok(0.5), ok(0.5 + 2e-6))) == "admitted"


def test_admit_all_wants_only_two_scores_to_compare() -> None:
    admit = AdmitAll()
    assert admit(group(ok(), ok())) == "admitted"
    assert admit(group(wrong(), FAULT, wrong())) == "admitted"
    assert admit(group(ok(), FAULT)) == "fault"
    assert admit(group()) == "fault"


def test_with_a_value_head_one_score_is_enough() -> None:
    admit = AdmitAll(min_siblings=1)
    assert admit(group(wrong())) == "admitted"
    assert admit(group(ok(), FAULT)) == "admitted"
    assert admit(group(FAULT)) == "fault"
