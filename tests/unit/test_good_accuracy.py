"""ADPO's reward: the published numbers, both ways of calling it, and where it departs from the published code."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import pytest

from burnish.rewards.good_accuracy import GoodAccuracy, good_accuracy
from burnish.types import Completion, Prompt

DEFAULTS = {"ngram_size": 4, "max_penalty": -0.5, "penalty_scale_factor": 0.1, "seconds": 5.0}

VECTORS = [
    ("a b c d a b c d a b c d", "42", -0.0277778),
    ("x x x x x x x x x x", "42", -0.0428571),
    ("a b c", "42", 0.0),
    ("", "42", 0.0),
    ("\\boxed{42}", "42", 1.0),
    ("<answer> 7 </answer>", "7", 1.0),
    ("let me see\n8", "8", 1.0),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}", 1.0),  # braces are matched
    ("\\boxed{\\frac{1}{2}}", "0.5", 1.0),
    ("\\boxed{1} then \\boxed{2}", "2", 1.0),  # the last box counts
    ("\\boxed{1} then \\boxed{2}", "1", 0.0),
]


@pytest.fixture
def measure() -> Iterator[GoodAccuracy]:
    measure = GoodAccuracy(**DEFAULTS)
    yield measure
    measure.close()


def completion(text: str) -> Completion:
    return Completion(array("i"), array("i"), array("f"), text, "stop", 0)


@pytest.mark.parametrize(("text", "answer", "value"), VECTORS)
def test_both_ways_of_calling_give_the_published_values(text: str, answer: str, value: float) -> None:
    one = good_accuracy(solution_str=text, ground_truth=answer, data_source="math", extra_info={})
    assert one == {"score": pytest.approx(value, abs=1e-6), "acc": value == 1.0}
    chat = [{"role": "assistant", "content": text}]
    assert good_accuracy([text, chat], [answer, answer]) == pytest.approx([value, value], abs=1e-6)


def test_the_arguments_of_the_document_are_taken_by_name() -> None:
    found = good_accuracy(
        completions=["x " * 10], solution=["1"], ngram_size=4, max_penalty=-0.5, penalty_scale_factor=0.5, level=[3]
    )
    assert found == pytest.approx([-0.2142857])


def test_as_a_part_the_task_metric_is_right_or_wrong_alone(measure: GoodAccuracy) -> None:
    texts = ["\\boxed{4}", "no idea", "x " * 10]
    found = measure(Prompt(id="p", answer="4"), [completion(text) for text in texts])
    assert [m.value for m in found] == pytest.approx([1.0, 0.0, -0.0428571], abs=1e-6)
    assert [m.raw for m in found] == [1.0, 0.0, 0.0]
    assert [m.status for m in found] == ["ok", "unparsed", "unparsed"]
    assert found[0].answer == "4"


def test_a_fault_of_the_grader_is_no_wrong_answer() -> None:
    measure = GoodAccuracy(**{**DEFAULTS, "seconds": 0.5})
    (found,) = measure(Prompt(id="p", answer="1"), [completion("\\boxed{(x+y+z+w+1)^{600}}")])
    measure.close()
    assert (found.status, found.value, found.raw) == ("timeout", None, None)


def test_a_penalty_above_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"max_penalty is 0.5; a penalty is at most 0"):
        good_accuracy(["x"], ["1"], max_penalty=0.5)
    with pytest.raises(ValueError, match=r"max_penalty is 0.5"):
        GoodAccuracy(**{**DEFAULTS, "max_penalty": 0.5})


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 completions and 1 solutions"):
        good_accuracy(["x", "y"], ["1"])


def test_one_way_of_calling_must_be_chosen() -> None:
    with pytest.raises(ValueError, match="completions and solution, or solution_str and ground_truth"):
        good_accuracy(["x"], ["1"], solution_str="x", ground_truth="1")
    with pytest.raises(ValueError, match="good_accuracy needs"):
        good_accuracy(["x"])
