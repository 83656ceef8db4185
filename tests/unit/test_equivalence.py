"""Equal as mathematics: what is right, what only looks right, and what must cost nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence

import pytest

from burnish.rewards.equivalence import judge
from burnish.rewards.limits import refusal
from burnish.rewards.plain import plain
from burnish.rewards.verify import Verifier
from burnish.rewards.worker import Reply, Worker
from tests.unit.hostile_answers import FOOLING

SECONDS = 1.0
SLACK = 20.0
"""What a loaded machine may add: a killed process is replaced, and imports the algebra system again."""


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    with Worker("burnish.rewards.symbolic", seconds=60.0) as worker:
        yield worker


class NoWorker(Worker):
    """Fails the test that reaches for the algebra system."""

    def __init__(self) -> None: ...

    def call_all(self, job: str, /, args: Sequence[Mapping[str, object]], **_: object) -> list[Reply]:
        raise AssertionError(f"{job} called with {args}")


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("540", "540."),
        ("33", "033"),
        ("0.5", "50%"),
        ("0.5", "\\frac12"),
        ("90", "90^\\circ"),
        ("5", "x=5"),
        ("3/2", "x = \\frac{3}{2} = 1.5"),
        ("540", "540 dollars"),
        ("5", "5\\text{ cm}"),
        ("5", "5 cm^2"),
        ("12 \\text{ cm}", "12"),
        ("Paris", "paris"),
        ("\\text{Paris}", "Paris"),
        ("C", "\\text{(C)}"),
        ("10:00", "10:00"),
        ("1/0", "1/0"),
        ("9^{9^9}", "9^{9^9}"),
        ("{1,2}", "{1, 2}"),
    ],
)
def test_text_and_numbers_are_right_without_the_algebra_system(gold: str, answer: str) -> None:
    assert judge(answer, gold, NoWorker()).status == "ok"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("5", "6"),
        ("5", "3=5"),
        ("5", "x=6"),
        ("50", "50%"),
        ("1", "1e5"),
        ("Paris", "Pairs"),
        ("even", "odd"),
        ("9^{9^9}", "x"),
    ],
)
def test_text_and_numbers_are_wrong_without_the_algebra_system(gold: str, answer: str) -> None:
    assert judge(answer, gold, NoWorker()).status == "wrong"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x^2-1", "(x-1)(x+1)"),
        ("\\frac{\\pi}{2}", "0.5\\pi"),
        ("\\sqrt{8}", "2\\sqrt2"),
        ("\\sqrt{2}", "2^{0.5}"),
        ("5", "2+3"),
        ("5", "2+3=5"),
        ("x=5", "5"),
        ("y=2x+1", "y = 1 + 2x"),
        ("3+4i", "4i+3"),
        ("120", "5!"),
        ("{1,2}", "\\{2,1\\}"),
        ("1,2,3", "3, 2, 1"),
        ("(3,4,5)", "3,4,5"),
        ("x>3", "3<x"),
        ("[1,2]\\cup[3,4]", "[3,4]\\cup[1,2]"),
        ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1.0\\\\\\frac{4}{2}\\end{pmatrix}"),
    ],
)
def test_mathematics_is_right_in_another_form(worker: Worker, gold: str, answer: str) -> None:
    assert judge(answer, gold, worker).status == "ok"


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("x^2-1", "(x-1)(x-1)"),
        ("5", "5 or 6"),
        ("5", "4,5"),
        ("5", "\\pm5"),
        ("5", "5x"),
        ("5", "5 x"),
        ("5", "5 million"),
        ("5", "(4,6)"),
        ("5", "x<5"),
        ("x=5", "3=5"),
        ("(1,2)", "(2,1)"),
        ("[0,1)", "[0,1]"),
        ("x<5", "x \\le 5"),
        ("10:00", "10:30"),
        ("0", "10^{-20}\\pi"),
        ("7", "\\frac{"),
        ("7", "five"),
    ],
)
def test_what_is_not_equal_is_wrong(worker: Worker, gold: str, answer: str) -> None:
    assert judge(answer, gold, worker).status == "wrong"


@pytest.mark.parametrize(("gold", "answer"), FOOLING)
def test_what_fooled_the_algebra_system_is_not_right(worker: Worker, gold: str, answer: str) -> None:
    assert judge(answer, gold, worker).status in ("wrong", "unparsed")


def test_the_verdict_is_right_in_a_thread(worker: Worker) -> None:
    verdicts: list[str] = []

    def grade() -> None:
        verdicts.append(judge("(x-1)(x+1)", "x^2-1", worker).status)
        verdicts.append(judge("(x-1)(x+2)", "x^2-1", worker).status)

    thread = threading.Thread(target=grade)
    thread.start()
    thread.join()
    assert verdicts == ["ok", "wrong"]


def test_siblings_with_the_same_answer_ask_the_algebra_system_once() -> None:
    with Verifier("boxed", right=1.0, wrong=0.0, seconds=60.0) as verify:
        first = verify("\\boxed{(x-1)(x+1)}", "x^2-1")
        verify.close()
        second = verify("so \\boxed{(x-1)(x+1)}", "x^2-1")
        assert (first.status, second.status) == ("ok", "ok")
        assert verify._worker.pids == []


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("9^{9^{9}}", "a power of a power"),
        ("9**9**9", "a power of a power"),
        ("x^{100000}", "an exponent of 6 digits"),
        ("((2^{999})^{999})^{999}", "exponents that multiply"),
        ("(9!)!", "a factorial of an expression"),
        ("5000!", "a factorial beyond 1000!"),
        ("\\binom{100000}{50000}", "a binomial coefficient"),
        ("\\int_0^1 x dx", "not worked out: it holds \\int"),
        ("3 4", "two numbers with nothing between them"),
        ("1.0e999999999", "scientific notation inside a formula"),
        ("1+(" * 13 + "x" + ")" * 13, "13 nested brackets, and 12 are read"),
        ("x+" + "+".join(["1"] * 102), "102 operators, and 100 are read"),
        (",".join(["x"] * 102), "101 members, and 100 are read"),
        ("x+" + "7" * 1001, "1001 digits, and 1000 are read"),
    ],
)
def test_what_would_cost_too_much_is_refused_with_a_reason(answer: str, reason: str) -> None:
    assert reason in refusal(plain(answer), "5")


@pytest.mark.parametrize(
    "answer", ["x^{2024}-1", "e^{x^2}", "2^{2^{n}}", "10!", "\\binom{10}{5}", "1,2,3,4", "\\frac{1}{1+\\frac{1}{x}}"]
)
def test_real_answers_are_within_the_limits(answer: str) -> None:
    assert refusal(plain(answer), "5") == ""


def test_a_sum_may_stand_where_the_gold_answer_has_one() -> None:
    assert refusal("\\sum_{k=1}^{n} k", "\\sum_{j=1}^{n} j") == ""


def test_a_hanging_comparison_times_out_and_the_next_verdict_is_right() -> None:
    with Verifier("boxed", right=1.0, wrong=0.0, seconds=2.0) as verify:
        hung = verify("\\boxed{(x+y+z+w+1)^{600}}", "1")
        assert (hung.status, hung.total, hung.raw, hung.parts) == ("timeout", None, None, {})
        assert hung.ms is not None
        assert hung.ms >= 2000.0
        assert verify("\\boxed{2\\sqrt{2}}", "\\sqrt{8}").status == "ok"
