"""Answers whose verdicts are known: 20 for each style. A grader that gets one wrong is not asked about anything else.

This is what tells a broken grader from a bad model: the usual failure of one is that it says wrong to everything.
"""

from __future__ import annotations

from burnish.rewards.extract import Style
from burnish.types import Status

Known = tuple[str, str, Status]
"""(gold answer, stated answer, verdict)."""

_INTEGERS: tuple[Known, ...] = (
    ("540", "540", "ok"),
    ("540", "541", "wrong"),
    ("-7", "-7", "ok"),
    ("-7", "7", "wrong"),
    ("0", "0", "ok"),
    ("0", "1", "wrong"),
    ("1000", "1,000", "ok"),
    ("1000", "1,001", "wrong"),
    ("12", "21", "wrong"),
    ("72", "72", "ok"),
)

_STRINGS: tuple[Known, ...] = (
    ("\\frac{1}{2}", "\\frac12", "ok"),
    ("\\sqrt{2}", "\\sqrt2", "ok"),
    ("540", "$540$", "ok"),
    ("540", "x=540", "ok"),
    ("540", "\\boxed{540}", "ok"),
    ("90", "90^\\circ", "ok"),
    ("540", "5.40", "wrong"),
    ("\\frac{1}{2}", "\\frac{2}{1}", "wrong"),
    ("\\sqrt{2}", "\\sqrt{3}", "wrong"),
    ("x+1", "x-1", "wrong"),
)

_NUMBERS: tuple[Known, ...] = (
    ("18.5", "$18.50", "ok"),
    ("0.5", "1/2", "ok"),
    ("3", "3.0", "ok"),
    ("5", "5kg", "ok"),
    ("72", "**72**", "ok"),
    ("18.5", "18.6", "wrong"),
    ("0.5", "1/3", "wrong"),
    ("50", "0.5", "wrong"),
    ("3", "30", "wrong"),
    ("72", "many", "unparsed"),
)

_MATHEMATICS: tuple[Known, ...] = (
    ("\\frac{\\pi}{2}", "0.5\\pi", "ok"),
    ("x^2-1", "(x-1)(x+1)", "ok"),
    ("\\sqrt{8}", "2\\sqrt{2}", "ok"),
    ("\\{1,2\\}", "\\{2,1\\}", "ok"),
    ("\\frac{1}{2}", "50\\%", "ok"),
    ("\\sqrt{8}", "2\\sqrt{3}", "wrong"),
    ("x^2-1", "(x-1)(x-1)", "wrong"),
    ("[0,1)", "[0,1]", "wrong"),
    ("5", "3=5", "wrong"),
    ("1", "9^{9^{9}}", "unparsed"),
)


def known_answers(style: Style) -> list[Known]:
    """(gold answer, text that states an answer, verdict) for a style."""
    match style:
        case "dapo":
            return [(gold, f"Answer: {stated}", verdict) for gold, stated, verdict in (*_INTEGERS, *_STRINGS)]
        case "gsm8k":
            return [(gold, f"#### {stated}", verdict) for gold, stated, verdict in (*_INTEGERS, *_NUMBERS)]
        case _:
            return [(gold, f"\\boxed{{{stated}}}", verdict) for gold, stated, verdict in (*_INTEGERS, *_MATHEMATICS)]
