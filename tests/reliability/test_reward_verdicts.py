"""Wrong answers that look right are not accepted, and right ones in any dress are."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from burnish.rewards.verify import Verifier
from tests.reliability.answer_pairs import ADVERSARIAL, NORMAL

pytestmark = pytest.mark.slow  # a few hundred questions to the algebra system

WRITTEN: dict[str, Callable[[str], str]] = {
    "boxed": lambda answer: f"It follows that $\\boxed{{{answer}}}$.",
    "auto": lambda answer: f"It follows.\nAnswer: ${answer}$",
}


@pytest.fixture(scope="module", params=WRITTEN)
def grade(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], str]]:
    style = request.param
    with Verifier(style, right=1.0, wrong=0.0, seconds=60.0) as verify:
        yield lambda answer, gold: verify(WRITTEN[style](answer), gold).status


@pytest.mark.reliability(45)
def test_no_wrong_answer_is_accepted(grade: Callable[[str, str], str]) -> None:
    assert len(set(ADVERSARIAL)) == 100
    verdicts = {(gold, answer[:60]): grade(answer, gold) for gold, answer in ADVERSARIAL}
    assert {pair: status for pair, status in verdicts.items() if status not in ("wrong", "unparsed")} == {}


@pytest.mark.reliability(45)
def test_right_answers_in_any_dress_are_accepted(grade: Callable[[str, str], str]) -> None:
    assert len(set(NORMAL)) == 200
    rejected = {(gold, answer): status for gold, answer in NORMAL if (status := grade(answer, gold)) != "ok"}
    assert len(rejected) <= 2, rejected
