"""The gold solutions of GSM8K earn full marks, and none of them does with a wrong number at its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish.rewards.extract import Style
from burnish.rewards.grade import Row, grade_rows

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def solutions() -> list[str]:
    files = [DATA / "gsm8k_train.jsonl", DATA / "gsm8k_test.jsonl"]
    if not all(file.exists() for file in files):
        pytest.skip(f"needs the GSM8K files in {DATA}")
    return [json.loads(line)["answer"] for file in files for line in file.open(encoding="utf-8")]


def split(solution: str) -> tuple[str, str]:
    steps, number = solution.rsplit("####", 1)
    return steps, number.strip()


def share_right(rows: list[Row], style: Style) -> float:
    verdicts = list(grade_rows(rows, style=style))
    assert len(verdicts) == len(rows)
    return sum(verdict["status"] == "ok" for verdict in verdicts) / len(rows)


def test_all_solutions_are_there(solutions: list[str]) -> None:
    assert len(solutions) == 8792


@pytest.mark.parametrize("style", ["auto", "gsm8k", "equivalence"])
def test_every_gold_solution_is_right(solutions: list[str], style: Style) -> None:
    assert share_right([Row(solution, solution) for solution in solutions], style) == 1.0
    assert share_right([Row(solution, split(solution)[1]) for solution in solutions], style) == 1.0


@pytest.mark.parametrize("style", ["auto", "gsm8k", "equivalence"])
def test_no_solution_with_another_number_at_its_end_is_right(solutions: list[str], style: Style) -> None:
    rows = []
    for solution in solutions:
        steps, number = split(solution)
        rows.append(Row(f"{steps}#### {int(number.replace(',', '')) + 1}", solution))
    assert share_right(rows, style) == 0.0


@pytest.mark.parametrize(
    "form", ["\\boxed{%s}", "Answer: %s", "The answer is %s.", "<answer>%s</answer>", "**Answer:** $%s$"]
)
def test_the_gold_number_is_right_in_every_form(solutions: list[str], form: str) -> None:
    rows = [Row(split(solution)[0] + form % split(solution)[1], solution) for solution in solutions]
    assert share_right(rows, "auto") == 1.0
