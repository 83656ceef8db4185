"""Offline grading: verdicts in order, and files that are refused with their place."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from burnish.rewards.grade import Row, grade_file, grade_rows, read_rows


def write(tmp_path: Path, *lines: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_one_verdict_per_row_in_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"completion": "so 4\n#### 4", "answer": "4"},
        {"completion": "\\boxed{5}", "answer": "4", "id": 7},
        {"completion": "no idea", "answer": "4"},
        {"completion": "The answer is $\\frac{1}{2}$.", "answer": 0.5},
        {"completion": "Answer: 4", "answer": ""},
    )
    verdicts = list(grade_rows(read_rows(path)))
    assert verdicts == [
        {"status": "ok", "score": 1.0, "extracted": "4"},
        {"status": "wrong", "score": 0.0, "extracted": "5"},
        {"status": "unparsed", "score": 0.0, "extracted": None},
        {"status": "ok", "score": 1.0, "extracted": "\\frac{1}{2}"},
        {"status": "error", "score": None, "extracted": None, "message": "the row's answer is empty"},
    ]


def test_a_file_becomes_lines_of_verdicts_and_counts(tmp_path: Path) -> None:
    right, lost = {"completion": "#### 4", "answer": 4}, {"completion": "\ud800 \u2028?", "answer": 4}
    out = io.StringIO()
    assert grade_file(write(tmp_path, lost, right, right), style="auto", timeout=5.0, out=out) == {
        "ok": 2,
        "unparsed": 1,
    }
    assert [json.loads(line)["status"] for line in out.getvalue().split("\n")[:-1]] == ["unparsed", "ok", "ok"]


def test_nothing_is_written_for_a_malformed_file(tmp_path: Path) -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="not JSON"):
        grade_file(write(tmp_path, {"completion": "#### 4", "answer": 4}, "{"), style="auto", timeout=5.0, out=out)
    assert out.getvalue() == ""


def test_the_style_decides_where_the_answer_is_looked_for() -> None:
    row = Row("Answer: 4", "4")
    statuses = {style: next(grade_rows([row], style=style))["status"] for style in ("auto", "dapo", "gsm8k", "boxed")}
    assert statuses == {"auto": "ok", "dapo": "ok", "gsm8k": "unparsed", "boxed": "unparsed"}


def test_a_comparison_that_hangs_is_a_timeout_and_the_rest_is_graded() -> None:
    rows = [Row("\\boxed{(x+y+z+w+1)^{600}}", "1"), Row("\\boxed{1}", "1")]
    hung, right = grade_rows(rows, timeout=0.5)
    assert (hung["status"], hung["score"]) == ("timeout", None)
    assert right["status"] == "ok"


def test_a_row_is_graded_before_the_next_is_asked_for() -> None:
    verdicts = grade_rows(Row("\\boxed{1}", "1") for _ in range(10**9))
    assert next(verdicts)["status"] == "ok"


def test_an_answer_given_as_a_number_is_taken_as_it_is_written(tmp_path: Path) -> None:
    path = write(
        tmp_path, '{"completion": "x", "answer": 0.10}', '{"completion": "x", "answer": 12345678901234567890123}'
    )
    assert [row.answer for row in read_rows(path)] == ["0.10", "12345678901234567890123"]


def test_blank_lines_a_byte_order_mark_and_odd_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"completion": "a\xe2\x80\xa8b", "answer": "1"}\r\n\n{"completion": "c", "answer": "2"}'
    )
    assert read_rows(path) == [Row("a\u2028b", "1"), Row("c", "2")]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"answer": "4"}, "rows.jsonl:2: no 'completion' (found answer)"),
        ({"completion": "4"}, "rows.jsonl:2: no 'answer' (found completion)"),
        ({}, "rows.jsonl:2: no 'completion' (found no keys)"),
        ('{"completion": ', "rows.jsonl:2: not JSON (Expecting value at column 15)"),
        ("[1, 2]", "rows.jsonl:2: found a list"),
        ("5", "rows.jsonl:2: found a number"),
        ("NaN", "rows.jsonl:2: found a number"),
        ({"completion": ["4"], "answer": "4"}, "rows.jsonl:2: 'completion' is a list; it must be text"),
        ({"completion": 4, "answer": "4"}, "rows.jsonl:2: 'completion' is a number; it must be text"),
        ({"completion": "4", "answer": None}, "rows.jsonl:2: 'answer' is null; it must be text"),
        ({"completion": "4", "answer": True}, "rows.jsonl:2: 'answer' is true or false; it must be text"),
        ("[" * 100_000, "rows.jsonl:2: not JSON"),
    ],
)
def test_a_malformed_line_is_refused_with_its_place(tmp_path: Path, line: Any, words: str) -> None:
    path = write(tmp_path, {"completion": "4", "answer": "4"}, line)
    with pytest.raises(ValueError, match=r"rows\.jsonl:2") as refused:
        read_rows(path)
    assert words in str(refused.value)
    assert len(str(refused.value)) < 300 + len(str(tmp_path))


def test_a_file_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"completion": "caf\xe9", "answer": "1"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: byte 19 is not UTF-8"):
        read_rows(path)


def test_a_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n\n")
    with pytest.raises(ValueError, match="has no rows"):
        read_rows(path)
