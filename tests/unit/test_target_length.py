"""The guide's penalties for length: its own numbers, and never a gain for a wrong answer."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.algorithms.shaping import lost, target_length_share
from burnish.build.reward import make_reward, reward_parts
from burnish.build.reward import shaped as shaping_of
from burnish.overrides import ConfigError, load_config
from burnish.rewards.shaped import Shaped
from burnish.types import Completion, FinishReason, Prompt, Score

PROMPT = Prompt("p", text="2+2=", answer="4")
TARGET = 100


def shaped(
    total: float | None, *, length: int = 10, finish: FinishReason = "stop", raw: float | None = 0.25, **settings
) -> Score:
    """How a completion of `length` tokens comes out of both penalties, as published unless told otherwise."""
    completion = Completion(array("i", [1]), array("i", [2] * length), array("f", [0.0] * length), "x", finish, 0)
    given = Score(total, raw, {"answer": 0.75}, "wrong", "said so", "5", 1.5)
    reward = Shaped(lambda prompt, completions: [given], **({"target_length": TARGET, "truncation": 0.2} | settings))
    (found,) = reward(PROMPT, [completion])
    return found


def as_published(reward: float, length: int, is_truncated: bool) -> float:
    """The guide's code, word for word but for its names."""
    if length > TARGET * 1.5:
        length_penalty = min(1.0, (length - TARGET * 1.5) / (TARGET * 0.5))
        reward = reward * (1.0 - length_penalty * 0.5)
    if is_truncated:
        reward = reward * (1.0 - 0.2)
    return reward


@pytest.mark.parametrize(("length", "total"), [(100, 1.0), (150, 1.0), (175, 0.75), (200, 0.5), (1000, 0.5)])
def test_a_reward_of_one_ends_where_the_guide_says(length: int, total: float):
    assert shaped(1.0, length=length).total == total


@given(reward=st.floats(0, 100), length=st.integers(1, 400), cut=st.booleans())
def test_rewards_that_are_not_negative_are_the_guides(reward: float, length: int, cut: bool):
    found = shaped(reward, length=length, finish="length" if cut else "stop")
    assert found.total == pytest.approx(as_published(reward, length, cut), abs=1e-12)


@pytest.mark.parametrize(
    ("length", "finish", "total"), [(200, "stop", -1.5), (10, "length", -1.2), (200, "length", -1.8)]
)
def test_a_wrong_answer_loses_by_being_long_or_cut(length: int, finish: FinishReason, total: float):
    assert as_published(-1.0, length, finish == "length") > -1.0  # the trap
    assert shaped(-1.0, length=length, finish=finish).total == pytest.approx(total)


@given(score=st.floats(-1e4, 1e4), share=st.floats(0, 1))
def test_a_loss_is_never_a_gain_and_grows_with_the_share(score: float, share: float):
    assert lost(score, share) <= 0.0
    assert lost(score, share / 2) >= lost(score, share)


@given(length=st.integers(0, 1000), more=st.integers(0, 100), target=st.integers(1, 500))
def test_the_share_never_falls_with_length_and_stays_within_a_half(length: int, more: int, target: int):
    shorter, longer = (target_length_share(n, target=target) for n in (length, length + more))
    assert 0.0 <= shorter <= longer <= 0.5


def test_only_the_total_changes_and_the_parts_say_by_how_much():
    found = shaped(1.0, length=200, finish="length", raw=0.25)
    assert found.parts == {"answer": 0.75, "target_length": -0.5, "truncation": pytest.approx(-0.1)}
    assert found.total == pytest.approx(0.4)
    assert (found.raw, found.status, found.message, found.answer, found.ms) == (0.25, "wrong", "said so", "5", 1.5)


def test_a_completion_of_good_length_has_both_parts_at_zero():
    found = shaped(1.0)
    assert (found.total, found.parts["target_length"], found.parts["truncation"]) == (1.0, 0.0, 0.0)


def test_what_is_off_is_no_part():
    assert shaped(1.0, length=500, finish="length", target_length=None).parts.keys() == {"answer", "truncation"}
    assert shaped(1.0, length=500, finish="length", truncation=0.0).parts.keys() == {"answer", "target_length"}


def test_a_fault_stays_a_fault():
    found = shaped(None, length=500, finish="length", raw=None)
    assert (found.total, found.parts) == (None, {"answer": 0.75})


# -- from a configuration ----------------------------------------------------------------------------------------------


def test_both_are_off_by_default():
    config = load_config(["dapo", "model.path=x"])
    reward = make_reward(config)
    assert shaping_of(config, reward) is reward
    reward.close()
    assert reward_parts(config).keys() == {"answer", "overlong"}


def test_they_are_configured_beside_any_reward():
    words = ["reward.target_length=100", "reward.truncation=0.2", "objective.overlong.buffer=0"]
    config = load_config(words)
    reward = make_reward(config)
    long = Completion(array("i", [1]), array("i", [2] * 200), array("f", [0.0] * 200), "Answer: 5", "length", 0)
    (found,) = shaping_of(config, reward)(PROMPT, [long])
    reward.close()
    assert (found.raw, found.status, found.total) == (-1.0, "wrong", pytest.approx(-1.8))
    assert found.total == pytest.approx(sum(found.parts.values()))
    assert reward_parts(config) == {
        "answer": (1.0, True),
        "target_length": (1.0, False),
        "truncation": (1.0, False),
    }


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("reward.target_length=0", "reward.target_length: found '0'"),
        ("reward.truncation=1.5", "reward.truncation: found '1.5'"),
        ("reward.parts.truncation.kind=truncated", "a part 'truncation', which has keys of its own"),
    ],
)
def test_a_wrong_value_is_named(word: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config([word])
