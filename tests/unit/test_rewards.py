"""Verdicts become scores: values, parts, weights, penalties, and faults that never become numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from burnish.algorithms import scalarize
from burnish.algorithms.scalarize import Weight
from burnish.protocols import Reward
from burnish.rewards.answer import Answer
from burnish.rewards.compose import FunctionReward, Part, PartsReward, each
from burnish.rewards.form import FORMAT_TEXT, Format, Length, Overlong, Truncated, length_penalty
from burnish.rewards.measured import Measured
from burnish.rewards.verify import Verifier
from burnish.types import Completion, FinishReason, Prompt, Status

PROMPT = Prompt(id="p-1", text="2+2=", answer="4")


def completion(text: str, tokens: int = 3, version: int = 0, finish: FinishReason = "stop") -> Completion:
    ids = array("i", range(tokens))
    return Completion(array("i", [1]), ids, array("f", [0.0] * tokens), text, finish, version)


def answer(right: float = 1.0, wrong: float = -1.0, weight: float = 1.0) -> Part:
    return Part("answer", Answer("dapo", right=right, wrong=wrong, seconds=5.0), Weight.constant(weight))


def part(name: str, *values: float | None, weight: float = 1.0, **more: Any) -> Part:
    """A part that gives these values, whatever the completions are."""
    return Part(name, lambda prompt, completions: [Measured(v, **more) for v in values], Weight.constant(weight))


@pytest.fixture
def reward() -> Iterator[PartsReward]:
    reward = PartsReward([answer()])
    yield reward
    reward.close()


def test_the_default_is_plus_one_and_minus_one(reward: PartsReward) -> None:
    as_protocol: Reward = reward
    scores = as_protocol(PROMPT, [completion("Answer: 4"), completion("Answer: 5"), completion("four")])
    assert [score.total for score in scores] == [1.0, -1.0, -1.0]
    assert [score.raw for score in scores] == [1.0, -1.0, -1.0]
    assert [score.status for score in scores] == ["ok", "wrong", "unparsed"]
    assert [score.answer for score in scores] == ["4", "5", None]
    assert [dict(score.parts) for score in scores] == [{"answer": 1.0}, {"answer": -1.0}, {"answer": -1.0}]
    assert all(score.ms is not None and score.ms >= 0.0 for score in scores)


def test_parts_are_unweighted_and_the_total_is_their_weighted_sum() -> None:
    form = Part("format", Format(r"<think>.*</think>"), Weight.constant(0.1))
    reward = PartsReward([answer(right=2.0, wrong=0.5, weight=3.0), form], right=2.0)
    right, wrong = reward(PROMPT, [completion("<think>x</think> Answer: 4"), completion("Answer: 5")])
    assert right.parts == {"answer": 2.0, "format": 1.0}
    assert right.total == pytest.approx(6.1)
    assert wrong.parts == {"answer": 0.5, "format": 0.0}
    assert wrong.total == pytest.approx(1.5)
    assert (right.raw, wrong.raw) == (2.0, 0.5)
    assert (right.status, wrong.status) == ("ok", "wrong")


def test_the_format_is_searched_in_a_bounded_text() -> None:
    inside, outside = (completion("." * dots + "z") for dots in (FORMAT_TEXT - 1, FORMAT_TEXT))
    assert [m.value for m in Format("z")(PROMPT, [inside, outside])] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("tokens", "penalty"), [(16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (24576, -1.0)]
)
def test_the_overlong_penalty_counts_generated_tokens_and_leaves_raw_alone(tokens: int, penalty: float) -> None:
    reward = PartsReward([answer(), Part("overlong", Overlong(max_length=20480, buffer=4096, factor=1.0))])
    (score,) = reward(PROMPT, [completion("Answer: 4", tokens)])
    assert score.parts["overlong"] == pytest.approx(penalty)
    assert score.total == pytest.approx(1.0 + penalty)
    assert score.raw == 1.0


@pytest.mark.parametrize(("tokens", "score"), [(100, 1.0), (150, 1.0), (175, 0.75), (200, 0.5), (900, 0.5)])
@pytest.mark.parametrize("raw", [1.0, -1.0])
def test_a_wanted_length_costs_a_right_and_a_wrong_answer_the_same(tokens: int, score: float, raw: float) -> None:
    reward = PartsReward([part("answer", raw), Part("length", Length(100), Weight.constant(0.5))])
    (found,) = reward(PROMPT, [completion("", tokens)])
    assert found.total == pytest.approx(raw - (1.0 - score))
    assert length_penalty(tokens, target=100) == pytest.approx(2.0 * (score - 1.0))


def test_a_completion_that_was_cut_loses_the_weight_of_that_part() -> None:
    reward = PartsReward([part("answer", 1.0, -1.0, 1.0), Part("truncated", Truncated(), Weight.constant(0.2))])
    cut = completion("", finish="length")
    assert [s.total for s in reward(PROMPT, [cut, cut, completion("")])] == pytest.approx([0.8, -1.2, 1.0])


def test_a_fault_in_one_part_leaves_the_whole_score_without_a_number() -> None:
    slow = Answer("boxed", right=1.0, wrong=-1.0, seconds=0.5)
    reward = PartsReward([Part("answer", slow, upkeep=slow), Part("format", Format("boxed"))])
    (score,) = reward(Prompt(id="p", answer="1"), [completion("\\boxed{(x+y+z+w+1)^{600}}")])
    reward.close()
    assert (score.status, score.total, score.raw, score.parts) == ("timeout", None, None, {})
    assert "0.5 s" in score.message


@pytest.mark.parametrize("status", ["timeout", "error", "oom", "invalid"])
def test_siblings_of_a_fault_are_scored(status: Status) -> None:
    faulty = Part("style", lambda *_: [Measured(None, status=status, message="why"), Measured(0.5)])
    broken, whole = PartsReward([part("answer", 1.0, 1.0), faulty])(PROMPT, [completion("")] * 2)
    assert (broken.status, broken.total, broken.message) == (status, None, "why")
    assert (whole.status, whole.total) == ("ok", 1.5)


def test_a_part_that_does_not_apply_is_absent_and_takes_no_part_in_the_total() -> None:
    reward = PartsReward([part("maths", 1.0, None), part("code", None, 0.25, weight=2.0)])
    first, second = reward(PROMPT, [completion("")] * 2)
    assert (first.parts, first.total, first.raw, first.status) == ({"maths": 1.0}, 1.0, 1.0, "ok")
    assert (second.parts, second.total, second.raw, second.status) == ({"code": 0.25}, 0.5, 0.5, "wrong")


def test_a_completion_that_no_part_applies_to_is_invalid() -> None:
    (score,) = PartsReward([part("maths", None), part("code", None)])(PROMPT, [completion("")])
    assert (score.status, score.total, score.raw) == ("invalid", None, None)
    assert "no part of the reward applies to this completion; it needs one of maths, code" in score.message


def test_the_task_metric_is_the_part_or_entry_that_is_named() -> None:
    scored = part("quality", 0.9125, 0.42, parts={"correctness": 1.0})
    first, second = PartsReward([scored])(PROMPT, [completion("")] * 2)
    assert ([first.raw, second.raw], first.status) == ([0.9125, 0.42], "wrong")
    first, _ = PartsReward([scored], task="correctness")(PROMPT, [completion("")] * 2)
    assert (first.raw, first.total, first.status) == (1.0, 0.9125, "ok")


def test_entries_with_weights_are_objectives_and_the_others_are_only_recorded() -> None:
    measure = part("quality", 0.5, parts={"clarity": 0.8, "detail": 0.4}).measure
    reward = PartsReward([Part("quality", measure, Weight.constant(0.0), {"clarity": Weight.constant(0.25)})])
    (score,) = reward(PROMPT, [completion("")])
    assert score.parts == {"quality": 0.5, "clarity": 0.8, "detail": 0.4}
    assert score.total == pytest.approx(0.2)


def test_an_entry_cannot_hide_another_part_or_metric() -> None:
    for name in ("answer", "mean"):
        reward = PartsReward([part("answer", 1.0), part("quality", 0.5, parts={name: 0.0})])
        (score,) = reward(PROMPT, [completion("")])
        assert (score.status, score.total) == ("invalid", None)
        assert f"entry {name!r}, and that name is taken" in score.message


def test_two_parts_cannot_return_entries_of_one_name() -> None:
    parts = [part(name, 1.0, parts={"acc": 1.0}) for name in ("a", "b")]
    (score,) = PartsReward(parts)(PROMPT, [completion("")])
    assert (score.status, score.message) == (
        "invalid",
        "part 'b' has an entry 'acc', and that name is taken; rename it",
    )


def test_a_part_that_gives_another_number_of_verdicts_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        PartsReward([part("a", 1.0)])(PROMPT, [completion("")] * 2)


@pytest.mark.parametrize(
    ("names", "words"), [((), "at least one"), (("a", "a"), "the same name"), (("mean",), "reward/mean is another")]
)
def test_names_of_parts_are_checked_when_the_reward_is_made(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PartsReward([part(name, 1.0) for name in names])


def test_weights_are_those_of_the_step_that_sampled_the_completion() -> None:
    style = Part("style", part("style", 1.0, 1.0, 1.0).measure, Weight(1.0, 0.0, steps=10))
    reward = PartsReward([part("answer", 0.0, 0.0, 0.0), style])
    assert [s.total for s in reward(PROMPT, [completion("", version=v) for v in (0, 5, 99)])] == [1.0, 0.5, 0.0]


def test_a_combination_sees_one_completion_or_the_whole_group() -> None:
    parts = [part("answer", 1.0, 0.0), part("style", 0.0, 1.0)]
    gated = PartsReward(parts, combine=each(scalarize.gated, gate="answer", threshold=1.0))
    assert [s.total for s in gated(PROMPT, [completion("")] * 2)] == [1.0, 0.0]
    normalized = PartsReward([parts[0]], combine=scalarize.normalized_sum)
    found = [s.total for s in normalized(PROMPT, [completion("")] * 2)]
    assert found == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)


def test_a_fault_is_no_member_of_the_group_that_is_normalised() -> None:
    values = [Measured(1.0), Measured(None, status="error", message="why"), Measured(0.0)]
    reward = PartsReward([Part("answer", lambda *_: values)], combine=scalarize.normalized_sum)
    found = [s.total for s in reward(PROMPT, [completion("")] * 3)]
    assert found[1] is None
    assert [found[0], found[2]] == pytest.approx([0.5**0.5, -(0.5**0.5)], abs=1e-5)


def test_a_prompt_without_an_answer_is_refused(reward: PartsReward) -> None:
    with pytest.raises(ValueError, match=r"prompt p-2 has no answer.*data.columns.answer=NAME"):
        reward(Prompt(id="p-2", text="?"), [completion("Answer: 4")])


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        Format("(")


def test_the_extracted_answer_is_kept_to_eighty_characters() -> None:
    with Verifier("boxed", right=1.0, wrong=0.0, seconds=5.0) as verify:
        score = verify("\\boxed{" + "7" * 200 + "}", "5")
    assert score.answer == "7" * 80


@pytest.mark.parametrize(
    ("style", "text", "answer", "status"),
    [
        ("gsm8k", "#### 1,234", "steps\n#### 1234", "ok"),
        ("gsm8k", "#### 50%", "50", "ok"),
        ("gsm8k", "#### 5", "6", "wrong"),
        ("gsm8k", "The answer is 5", "5", "unparsed"),
        ("gsm8k", "#### " + "7" * 2000, "5", "unparsed"),
        ("gsm8k", "#### 5", "five", "error"),
        ("boxed", "\\boxed{\\frac{2}{4}}", "0.5", "ok"),
        ("boxed", "Answer: 5", "5", "unparsed"),
        ("equivalence", "so we get 5 in all", "5", "ok"),
        ("auto", "so we get 5 in all", "5", "unparsed"),
        ("auto", "**Answer:** 540.", "540", "ok"),
        ("auto", "#### 18", "#### 18", "ok"),
        ("auto", "Answer: 5", "", "error"),
        ("dapo", "Answer: 5", "  ", "error"),
    ],
)
def test_each_style_gives_its_verdict(style: Any, text: str, answer: str, status: str) -> None:
    with Verifier(style, right=1.0, wrong=0.0, seconds=5.0) as verify:
        score = verify(text, answer)
    assert score.status == status
    assert score.raw == {"ok": 1.0, "wrong": 0.0, "unparsed": 0.0, "error": None}[status]


def test_a_plain_function_is_lifted() -> None:
    reward: Reward = FunctionReward(lambda prompt, completion: float(completion.text == prompt.answer))
    assert [score.total for score in reward(PROMPT, [completion("4"), completion("5")])] == [1.0, 0.0]


def test_a_function_may_return_its_parts() -> None:
    (score,) = FunctionReward(lambda *_: {"score": 0.75, "style": 1, "right": True})(PROMPT, [completion("4")])
    assert (score.total, score.raw) == (0.75, 0.75)
    assert score.parts == {"score": 0.75, "style": 1.0, "right": 1.0}


@pytest.mark.parametrize(("value", "status"), [(1.0, "ok"), (1, "ok"), (True, "ok"), (0.99, "wrong"), (-1.0, "wrong")])
def test_a_function_says_right_from_one_on(value: float, status: str) -> None:
    (score,) = FunctionReward(lambda *_: value)(PROMPT, [completion("4")])
    assert (score.raw, score.status) == (float(value), status)


def test_a_function_that_raises_is_an_error_and_its_siblings_are_scored() -> None:
    reward = FunctionReward(lambda _, completion: 1.0 / len(completion.text))
    broken, whole = reward(PROMPT, [completion(""), completion("4")])
    assert (broken.status, broken.total, broken.raw) == ("error", None, None)
    assert "ZeroDivisionError" in broken.message
    assert whole.total == 1.0


@pytest.mark.parametrize(
    "result", [float("nan"), float("inf"), 1e38, None, "1.0", [1.0], {"points": 1.0}, {"score": None}]
)
def test_a_result_that_is_no_finite_number_is_invalid(result: Any) -> None:
    (score,) = FunctionReward(lambda *_: result)(PROMPT, [completion("4")])
    assert (score.status, score.total, score.raw) == ("invalid", None, None)
    assert "needs" in score.message


def test_an_interrupt_in_a_function_passes_through() -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionReward(interrupted)(PROMPT, [completion("4")])
