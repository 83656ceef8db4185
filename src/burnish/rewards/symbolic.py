"""Jobs of the child process that holds the algebra system (math-verify). Imported there only; see `worker.py`.

Answers reach math-verify as LaTeX in a box, so that its grammar reads them: its plain-text reader, which ends in an
evaluator of Python expressions, is never used. Its own time limits (signals, useless outside a main thread) are off;
the parent process owns the deadline. Decimals become exact fractions first, so that no rounded comparison decides.
"""

from __future__ import annotations

import re
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify

_READER = (LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0),)
_DECIMAL_RE = re.compile(r"(?<![0-9.])([0-9]*)\.([0-9]+)(?![0-9.])")
_DIGITS_COMPARED = 50


def equal(gold: str, answer: str, links: list[str]) -> bool:
    """Whether `answer` is `gold`, and every earlier literal link of its chain of equations is its value too.

    A text that the grammar does not know, or whose value is undefined, is equal to nothing.
    """
    expected, stated = _read(gold), _read(answer)
    return _same(expected, stated) and all(_same(stated, _read(link)) for link in links)


def _read(text: str) -> list[Any]:
    boxed = f"\\boxed{{{_DECIMAL_RE.sub(_fraction, text)}}}"
    no_limit: Any = None
    return parse(boxed, _READER, fallback_mode="no_fallback", parsing_timeout=no_limit)


def _fraction(decimal: re.Match[str]) -> str:
    whole, digits = decimal[1], decimal[2]
    return f"{{\\frac{{{int(whole + digits)}}}{{1{'0' * len(digits)}}}}}"


def _same(gold: list[Any], answer: list[Any]) -> bool:
    if not gold or not answer:
        return False
    return verify(gold, answer, numeric_precision=_DIGITS_COMPARED, timeout_seconds=None)


def self_check() -> None:
    """Raise when the algebra system does not tell right from wrong, for instance because its parser is missing."""
    for gold, answer, expected in (
        ("\\frac{\\pi}{2}", "0.5\\pi", True),
        ("x^2-1", "(x-1)(x+1)", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("\\sqrt{8}", "2\\sqrt{3}", False),
        ("\\{1,2\\}", "\\{2,1\\}", True),
        ("x+1", "x-1", False),
    ):
        if equal(gold, answer, []) is not expected:
            raise RuntimeError(
                f"math-verify says that {answer} {'differs from' if expected else 'equals'} {gold}. Its LaTeX parser "
                "may be missing. Type pip install 'latex2sympy2-extended[antlr4-13-2]'"
            )


JOBS = {"equal": equal}
