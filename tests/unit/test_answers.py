"""Where answers are found, and the published string rule of DAPO."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.rewards import dapo
from burnish.rewards.extract import MAX_TEXT, Style, find_answer, gold_answer
from burnish.rewards.verify import Verifier


def dapo_value(text: str, gold: str = "540") -> tuple[float | None, str]:
    with Verifier("dapo", right=1.0, wrong=-1.0, seconds=5.0) as verify:
        score = verify(text, gold)
    return score.raw, score.status


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("Answer: 540", "540"),
        ("Answer: $540$.", "540"),
        ("Answer: \\boxed{540}", "540"),
        ("answer : 1,000", "1000"),
        ("Answer: x=540", "540"),
        ("Answer: 540 dollars", "540"),
        ("Answer: \\frac12", "\\frac{1}{2}"),
        ("Answer: pizza 3", "pizz3"),
        ("Answer: 7\nAnswer: 8", "8"),
        ("Answer:\n540", "540"),
        ("Answer: 540\r", "540"),
        ("Answer: 90^\\circ", "90"),
        ("Answer: \\text{(A)}", "(A)"),
        ("Answer: \\sqrt2", "\\sqrt{2}"),
        ("Answer: an integer", "integer"),
    ],
)
def test_the_published_rule_accepts(text: str, gold: str) -> None:
    assert dapo_value(text, gold) == (1.0, "ok")


@pytest.mark.parametrize(
    ("text", "gold"),
    [
        ("Answer: 540.", "540"),
        ("**Answer:** 540", "540"),
        ("Answer: **540**", "540"),
        ("Answer: 033", "33"),
        ("Answer: 1/2", "\\frac{1}{2}"),
        ("Answer: 0.5", "1/2"),
        ("Answer: 5%", "5"),
        ("Answer: 3 apples", "3"),
        ("Answer: 7 ... Answer: 8", "7"),
        ("Answer: 7\nAnswer: 8", "7"),
    ],
)
def test_the_published_rule_rejects(text: str, gold: str) -> None:
    assert dapo_value(text, gold) == (-1.0, "wrong")


@pytest.mark.parametrize("text", ["\\boxed{540}", "540", "", "Answer:", "Answer: 540\n" + "." * 300])
def test_without_an_answer_line_near_the_end_the_text_is_unparsed(text: str) -> None:
    assert dapo_value(text) == (-1.0, "unparsed")


def test_an_answer_within_the_last_300_characters_counts() -> None:
    line = "Answer: 540\n"
    assert dapo_value(line + "." * (300 - len(line))) == (1.0, "ok")
    assert dapo_value(line + "." * (301 - len(line))) == (-1.0, "unparsed")


def test_the_score_shows_the_normalised_answer() -> None:
    with Verifier("dapo", right=1.0, wrong=-1.0, seconds=5.0) as verify:
        assert verify("Answer: x = 1,000 dollars", "1000").answer == "1000"


@settings(deadline=None)
@given(st.text(max_size=300))
def test_normalising_never_fails(text: str) -> None:
    assert dapo.same_answer(text, text)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 18.\n#### 18", "18"),
        ("#### 1,234", "1,234"),
        ("#### $18.50 dollars", "18.50"),
        ("#### -$5", "-5"),
        ("#### 50%", "50"),
        ("#### 1/2", "1/2"),
        ("#### 18.", "18"),
        ("#### **72**", "72"),
        ("#### 3\n#### 4\nThanks!", "4"),
        ("#### 5kg", "5"),
        ("####72", "72"),
    ],
)
def test_the_number_behind_the_hashes_is_found(text: str, answer: str) -> None:
    assert find_answer(text, "gsm8k") == answer


@pytest.mark.parametrize(
    "text",
    ["18", "#### ", "#### many", "#### 3=5", "#### 5 + 6", "#### 5-6", "#### 5^2", "#### 5**2", "#### 10:30", "### 5"],
)
def test_a_formula_behind_the_hashes_is_no_number(text: str) -> None:
    assert find_answer(text, "gsm8k") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\fbox{7}", "7"),
        ("\\boxed {7}", "7"),
        ("\\boxed 5$", "5"),
        ("$\\boxed{\\{1, 2\\}}$", "\\{1, 2\\}"),
        ("\\boxed{[0, 1)}", "[0, 1)"),
        ("\\boxed{\\left\\{1\\right.}", "\\left\\{1\\right."),
        ("\\boxed{\\boxed{3}}", "3"),
    ],
)
def test_the_last_box_is_found_with_its_braces_matched(text: str, answer: str) -> None:
    assert find_answer(text, "boxed") == answer


@pytest.mark.parametrize("text", ["Answer: 5", "\\boxed{1} then \\boxed{2", "\\boxed{", "\\boxed{}", "\\boxedfoo{5}"])
def test_a_box_that_is_not_there_or_never_closes_is_no_answer(text: str) -> None:
    assert find_answer(text, "boxed") is None


STATED = [
    ("\\boxed{5}\nAnswer: 6", "5"),
    ("<answer>7</answer>\nAnswer: 6", "7"),
    ("<answer>The answer is 7.</answer>", "7"),
    ("<answer>\\boxed{8}</answer>", "8"),
    ("#### 1. Understand\nAnswer: 6", "6"),
    ("The answer is small.\n#### 18", "18"),
    ("Answer: 540.", "540"),
    ("**Answer:** 540", "540"),
    ("Answer: **540**", "540"),
    ("Answer:\n540", "540"),
    ("**Final Answer**: \\(x=3\\)", "x=3"),
    ("The final answer is $\\frac{1}{2}$.", "\\frac{1}{2}"),
    ("The answer is 5 because 2 + 3 = 5.", "5"),
    ("The answer is thus 1,000 dollars. Done.", "1,000 dollars"),
    ("Answer: $5 or $6", "$5 or $6"),
    ("Adding up:\n42", "42"),
    ("Adding up:\n$x^2$.", "x^2"),
    ("Adding up:\nx = 42", "42"),
    ("Adding up:\n#### 3=5", "3=5"),
]


@pytest.mark.parametrize("style", ["auto", "equivalence"])
@pytest.mark.parametrize(("text", "answer"), STATED)
def test_a_stated_answer_is_found_in_the_documented_order(text: str, answer: str, style: Style) -> None:
    assert find_answer(text, style) == answer


def test_only_equivalence_takes_a_number_out_of_prose() -> None:
    text = "There are 7 cows and 12 hens, so $19.50 in all."
    assert find_answer(text, "auto") is None
    assert find_answer(text, "equivalence") == "19.50"


@pytest.mark.parametrize("style", ["auto", "dapo", "gsm8k", "boxed", "equivalence"])
@pytest.mark.parametrize("text", ["", " \n ", "I do not know.", "Answer:", "#### ", "<answer></answer>", "\\boxed{ }"])
def test_a_text_without_an_answer_has_none(text: str, style: Style) -> None:
    assert find_answer(text, style) is None


def test_only_the_end_of_a_long_text_is_read() -> None:
    assert find_answer("\\boxed{5}" + "." * MAX_TEXT, "boxed") is None
    assert find_answer("." * MAX_TEXT + "\\boxed{5}", "boxed") == "5"


@settings(deadline=None)
@given(st.text(alphabet="\\boxed{}answer: is#$1,.5 \n<>/*=", max_size=200), st.sampled_from(["auto", "equivalence"]))
def test_no_text_makes_the_search_fail(text: str, style: Style) -> None:
    find_answer(text, style)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("72", "72"),
        (" 033 ", "033"),
        ("She sells 72.\n#### 72", "72"),
        ("#### 1,234\n", "1,234"),
        ("Thus $x = \\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"),
        ("", ""),
    ],
)
def test_the_bare_answer_is_taken_out_of_a_whole_solution(answer: str, gold: str) -> None:
    assert gold_answer(answer) == gold
