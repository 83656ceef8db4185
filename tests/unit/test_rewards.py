"""Verdicts become scores: values, parts, weights, penalties, and faults that never become numbers."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import Any

import pytest

from burnish.protocols import Reward
from burnish.rewards.compose import FORMAT_TEXT, AnswerReward, FunctionReward
from burnish.rewards.verify import Verifier
from burnish.types import Completion, Prompt

PROMPT = Prompt(id="p-1", text="2+2=", answer="4")


def completion(text: str, tokens: int = 3) -> Completion:
    return Completion(array("i", [1]), array("i", range(tokens)), array("f", [0.0] * tokens), text, "stop", 0)


@pytest.fixture
def reward() -> Iterator[AnswerReward]:
    reward = AnswerReward("dapo")
    yield reward
    reward.close()


def test_the_default_is_plus_one_and_minus_one(reward: AnswerReward) -> None:
    as_protocol: Reward = reward
    scores = as_protocol(PROMPT, [completion("Answer: 4"), completion("Answer: 5"), completion("four")])
    assert [score.total for score in scores] == [1.0, -1.0, -1.0]
    assert [score.raw for score in scores] == [1.0, -1.0, -1.0]
    assert [score.status for score in scores] == ["ok", "wrong", "unparsed"]
    assert [score.answer for score in scores] == ["4", "5", None]
    assert [dict(score.parts) for score in scores] == [{"answer": 1.0}, {"answer": -1.0}, {"answer": -1.0}]
    assert all(score.ms is not None and score.ms >= 0.0 for score in scores)


def test_parts_are_unweighted_and_the_total_is_their_weighted_sum() -> None:
    reward = AnswerReward(
        "dapo", right=2.0, wrong=0.5, weight=3.0, format_pattern=r"<think>.*</think>", format_weight=0.1
    )
    right, wrong = reward(PROMPT, [completion("<think>x</think> Answer: 4"), completion("Answer: 5")])
    assert right.parts == {"answer": 2.0, "format": 1.0}
    assert right.total == pytest.approx(6.1)
    assert wrong.parts == {"answer": 0.5, "format": 0.0}
    assert wrong.total == pytest.approx(1.5)
    assert (right.raw, wrong.raw) == (2.0, 0.5)


def test_the_format_is_searched_in_a_bounded_text() -> None:
    reward = AnswerReward("dapo", format_pattern="z")
    inside, outside = (completion("." * dots + "z") for dots in (FORMAT_TEXT - 1, FORMAT_TEXT))
    assert [score.parts["format"] for score in reward(PROMPT, [inside, outside])] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("tokens", "penalty"), [(16384, 0.0), (16385, -1 / 4096), (18432, -0.5), (20480, -1.0), (24576, -1.0)]
)
def test_the_overlong_penalty_counts_generated_tokens_and_leaves_raw_alone(tokens: int, penalty: float) -> None:
    reward = AnswerReward("dapo", overlong=(20480, 4096, 1.0))
    (score,) = reward(PROMPT, [completion("Answer: 4", tokens)])
    assert score.parts["overlong"] == pytest.approx(penalty)
    assert score.total == pytest.approx(1.0 + penalty)
    assert score.raw == 1.0


def test_a_fault_has_no_number() -> None:
    reward = AnswerReward("boxed", timeout=0.5, format_pattern="boxed", overlong=(10, 5, 1.0))
    (score,) = reward(Prompt(id="p", answer="1"), [completion("\\boxed{(x+y+z+w+1)^{600}}")])
    reward.close()
    assert (score.status, score.total, score.raw, score.parts) == ("timeout", None, None, {})
    assert "0.5 s" in score.message


def test_a_prompt_without_an_answer_is_refused(reward: AnswerReward) -> None:
    with pytest.raises(ValueError, match=r"prompt p-2 has no answer.*data.columns.answer=NAME"):
        reward(Prompt(id="p-2", text="?"), [completion("Answer: 4")])


def test_a_pattern_that_is_no_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'\(' is no regular expression"):
        AnswerReward("dapo", format_pattern="(")


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
