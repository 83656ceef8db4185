"""The page on reliability lists every promise, and names tests that exist and say that they cover it."""

from __future__ import annotations

import re

from tests.reliability.rows import ROWS, WAITING
from tests.reliability.table import BEGIN, END, HEAD, PAGE, marked, table

LINE = re.compile(r"\| (\d+) \| ([^|]+) \| (\d*) \| (\d*) \| (.+) \|")


def listed() -> dict[int, tuple[str, str, str, str]]:
    _, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    content, end, _ = rest.partition(END)
    assert end, f"{PAGE} has no {END}"
    head, rows = content.strip().splitlines()[:2], content.strip().splitlines()[2:]
    assert "\n".join(head) == HEAD
    found = [LINE.fullmatch(row) for row in rows]
    assert all(found), rows
    return {int(match[1]): match.groups()[1:] for match in found if match}


def test_the_page_lists_every_promise_in_its_words():
    assert {row: promise for row, (promise, *_) in listed().items()} == ROWS


def test_every_test_that_the_page_names_exists_and_says_that_it_covers_the_row():
    found = marked()
    for row, (_, _, _, where) in listed().items():
        named = set(re.findall(r"`([^`]+)`", where))
        assert named <= found.get(row, set()), f"row {row}"
        assert named or where in (WAITING.get(row), "none")


def test_what_was_measured_was_passed():
    for row, (_, made, passed, _) in listed().items():
        assert made == passed, f"row {row}"


def test_a_promise_that_waits_has_no_test_yet():
    assert WAITING.keys() & marked().keys() == set()


def test_a_table_says_what_came_of_the_tests():
    lines = table({17: 50}, {17: 49}, {17: {"b.py::test_b", "a.py::test_a"}}).splitlines()
    assert f"| 17 | {ROWS[17]} | 50 | 49 | `a.py::test_a`, `b.py::test_b` |" in lines
    assert f"| 20 | {ROWS[20]} |  |  | {WAITING[20]} |" in lines
    assert len(lines) == 2 + len(ROWS)
