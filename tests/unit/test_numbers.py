"""Exact numbers: what is read, what is refused, what is equal."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.rewards.numbers import MAX_DIGITS, parse_number, same_number
from burnish.rewards.plain import plain


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("540", "540"),
        ("540.", "540"),
        ("033", "33"),
        ("-7", "-7"),
        ("\u22127", "-7"),
        ("+7", "7"),
        (".5", "1/2"),
        ("5.00", "5"),
        ("$540$.", "540"),
        ("\\$540", "540"),
        ("**540**", "540"),
        ("{{540}}", "540"),
        ("\\left(540\\right)", "540"),
        ("\\boxed{540}", "540"),
        ("\\text{540}", "540"),
        ("\\(540\\)", "540"),
        ("90^\\circ", "90"),
        ("90^{\\circ}", "90"),
        ("90 degrees", "90"),
        ("1,234,567.5", "2469135/2"),
        ("1{,}234", "1234"),
        ("1\\,234", "1234"),
        ("1 234", "1234"),
        ("1/2", "1/2"),
        ("-1/2", "-1/2"),
        ("1/-2", "-1/2"),
        ("\\frac{1}{2}", "1/2"),
        ("\\dfrac{-1}{2}", "-1/2"),
        ("-\\frac12", "-1/2"),
        ("\\frac{0.5}{1,000}", "1/2000"),
        ("2\\frac{1}{2}", "5/2"),
        ("2 1/2", "5/2"),
        ("1e5", "100000"),
        ("1.5E-3", "3/2000"),
        ("1.5 \\times 10^{3}", "1500"),
        ("2\\cdot10^3", "2000"),
        ("0.\\overline{3}", "1/3"),
        ("0.1\\overline{6}", "1/6"),
        ("50%", "1/2"),
        ("50\\%", "1/2"),
        ("50 percent", "1/2"),
        ("1010_2", "10"),
        ("77_{8}", "63"),
    ],
)
def test_a_number_is_read_exactly(text: str, value: str) -> None:
    number = parse_number(text)
    assert number is not None
    assert number.value == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "--5", "abc", "x", "5x", "5!", "3=5", "5,6", "12,34", "1,2345", "3 4", "1 2345", "1.2.3", "(1,2)"),
        *(
            "1/0",
            "\\frac{1}{0}",
            "1/2/3",
            "2^{10}",
            "\\sqrt{4}",
            "nan",
            "inf",
            "infinity",
            "0x10",
            "1_000",
            "1_1",
            "12_2",
        ),
        *("1e5e5", "1e", "e5", "1e9999", "1.0e999999999", "1e-99999999999999", "10^{10^{10}}", "0.\\overline{}"),
        *("\uff15\uff14\uff10", "\u0665\u0664\u0660", "\u00b2", "5\u200b", "5\x00", "5\ud800", "__import__('os')"),
    ],
)
def test_everything_else_is_no_number(text: str) -> None:
    assert parse_number(text) is None


@pytest.mark.parametrize("text", ["7" * (MAX_DIGITS + 1), "0." + "7" * MAX_DIGITS, "1" + ",000" * 400, "1 " * 50_000])
def test_too_many_digits_are_refused(text: str) -> None:
    assert parse_number(text) is None


def test_the_most_digits_are_read() -> None:
    number = parse_number("7" * MAX_DIGITS)
    assert number is not None
    assert number.value == int("7" * MAX_DIGITS)


@pytest.mark.parametrize(
    ("answer", "gold", "same"),
    [
        ("0.5", "1/2", True),
        ("0.3333333333", "1/3", False),
        ("1e5", "1", False),
        ("1e5", "100000", True),
        ("50%", "0.5", True),
        ("50%", "50", False),
        ("50", "50%", True),
        ("0.5", "50%", True),
        ("50%", "50%", True),
        ("5%", "50%", False),
        ("1010_2", "10", True),
        ("1010_2", "1010", False),
        ("1010", "1010_2", True),
        ("0.1", "0.10", True),
        ("-0", "0", True),
    ],
)
def test_numbers_are_compared_exactly_and_marks_belong_to_the_value(answer: str, gold: str, same: bool) -> None:
    left, right = parse_number(answer), parse_number(gold)
    assert left is not None
    assert right is not None
    assert same_number(left, right) is same


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6))
def test_every_spelling_of_a_fraction_is_that_fraction(value: Fraction) -> None:
    top, bottom = value.numerator, value.denominator
    for text in (f"{top}/{bottom}", f"\\frac{{{top}}}{{{bottom}}}", f"$\\dfrac{{{top}}}{{{bottom}}}$."):
        number = parse_number(text)
        assert number is not None
        assert number.value == value


@settings(deadline=None)
@given(st.integers(-(10**12), 10**12))
def test_grouped_thousands_are_the_integer(value: int) -> None:
    number = parse_number(f"{value:,}")
    assert number is not None
    assert number.value == value


@settings(deadline=None)
@given(st.text(max_size=200))
def test_no_text_makes_the_reader_fail(text: str) -> None:
    plain(text)
    parse_number(text)
