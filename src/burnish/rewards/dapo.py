"""The published answer rule of DAPO: normalised strings that are equal.

The normalisation is the one of Lewkowycz et al. 2022 (arXiv:2206.14858, appendix D.1), which DAPO's scorer uses. It is
blunt on purpose of comparability: it strips the letters `a ` inside words, and knows neither `540.` nor `033` nor 1/2
as other spellings of 540, 33 and \\frac{1}{2}. A completion whose last 300 characters hold no `Answer:` is unparsed;
there is no fallback to a box. Use style `equivalence` for mathematical equality.
"""

from __future__ import annotations

import re

_RESPELLED = (
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    ("\\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (",\\text{and}", ","),
    ("\\text{and}", ","),
    ("\\text{m}", "\\text{}"),
)

_DROPPED = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "\\ldots", "sue"),
    *("points", "feet", "minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges"),
    *("students", "childrentickets", "multiples", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2"),
    *("\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ", "^{\\circ}", "\\;", ",\\!", "{,}", '"'),
    "\\dots",
)
"""Removed in this order, wherever they stand."""

_FORMULA_RE = re.compile(r"[^$\n]*\$([^$\n]*)\$.*")
_UNWRAPPED = tuple(re.compile(rf"\\{command}\{{(.*?)\}}") for command in ("text", "textbf", "overline"))
_BOX_RE = re.compile(r"\\boxed\{(.*)\}")
_FRAC_RE = re.compile(r"frac([^{])(.)")
_SQRT_RE = re.compile(r"sqrt([^{])")


def normalize(answer: str) -> str:
    """The string that the rule compares.

    Example:
        normalize("x = 1,000 dollars") == "1000"
    """
    answer = answer.rsplit("=", 1)[-1]
    for spelling, replacement in _RESPELLED:
        answer = answer.replace(spelling, replacement)
    for word in _DROPPED:
        answer = answer.replace(word, "")
    answer = _FORMULA_RE.sub(r"\1", answer)
    for wrapper in _UNWRAPPED:
        answer = wrapper.sub(r"\1", answer)
    answer = _BOX_RE.sub(r"\1", answer)
    answer = _FRAC_RE.sub(r"frac{\1}{\2}", answer)
    answer = _SQRT_RE.sub(r"sqrt{\1}", answer)
    answer = answer.replace("$", "")
    digits = answer.replace(",", "")
    return digits if digits.isdigit() else answer.strip()


def same_answer(answer: str, gold: str) -> bool:
    return normalize(answer) == normalize(gold)
