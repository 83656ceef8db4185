"""What is never handed to the algebra system.

Some texts of a few characters cost an algebra system minutes (`9^{9^{9}}`, `100000000!`, twenty nested brackets), and
a policy that meets a deadline learns to emit them. Each bound below is far above any real answer and below the point
where the cost starts; a refusal costs less than 5 ms and counts as an unparsed answer. What slips through still meets
the deadline of the child process (`worker.py`).
"""

from __future__ import annotations

import math
import re

MAX_ANSWER = 4096
"""Characters."""
MAX_DIGITS = 1000
MAX_DEPTH = 12
"""Nested brackets of any kind."""
MAX_MEMBERS = 100
"""Members of a list, set or union."""
MAX_OPERATORS = 100
MAX_ROOTS = 32
MAX_EXPONENT = 9999
MAX_EXPONENTS_PRODUCT = 10**7
MAX_FACTORIAL = 1000
MAX_ENTRIES = 64
"""Entries of a matrix."""
MAX_BARS = 20
MAX_SUBSCRIPTS = 50

_EXPONENT_RE = re.compile(r"\^\s*([+-]?[0-9]+|\{|\()")
_INTEGER_RE = re.compile(r"[0-9]+")
_FACTORIAL_RE = re.compile(r"([0-9]+)\s*!")
_NESTED_FACTORIAL_RE = re.compile(r"[!)}\]|]\s*!")
_BINOMIAL_RE = re.compile(r"\\[dt]?binom|\\choose")
_UNEVALUATED_RE = re.compile(r"\\(?:i+nt|oint|sum|prod|lim(?:sup|inf)?|det|bigcup|bigcap)(?![a-zA-Z])|matrix\}\^")
_SCIENTIFIC_RE = re.compile(r"[0-9]\.?[eE][+-]?[0-9]")
_SPACED_DIGITS_RE = re.compile(r"[0-9] +[0-9]")


def refusal(answer: str, gold: str) -> str:
    """Why the algebra system does not get to see `answer` (a `plain` text), or an empty string."""
    for check in (_size, _powers, _combinatorics):
        if reason := check(answer):
            return reason
    unevaluated = {match[0] for match in _UNEVALUATED_RE.finditer(answer)} - set(_UNEVALUATED_RE.findall(gold))
    if unevaluated:
        return f"the answer is not worked out: it holds {min(unevaluated)}"
    if _SCIENTIFIC_RE.search(answer):
        return "scientific notation inside a formula"
    if _SPACED_DIGITS_RE.search(answer):
        return "two numbers with nothing between them"
    return ""


def _size(text: str) -> str:
    members = text.count(",") + text.count(";") + text.count("\\cup") + text.count("\\cap")
    entries = text.count("&") + text.count("\\\\")
    measured = (
        ("characters", len(text), MAX_ANSWER),
        ("digits", sum(char.isdigit() for char in text), MAX_DIGITS),
        ("nested brackets", _depth(text), MAX_DEPTH),
        ("members", members, MAX_MEMBERS),
        ("operators", sum(text.count(sign) for sign in "+-*/^=<>"), MAX_OPERATORS),
        ("roots", text.count("\\sqrt"), MAX_ROOTS),
        ("matrix entries", entries, MAX_ENTRIES),
        ("bars", text.count("|"), MAX_BARS),
        ("subscripts", text.count("_"), MAX_SUBSCRIPTS),
    )
    return next((f"{count} {what}, and {most} are read" for what, count, most in measured if count > most), "")


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "})]":
            depth -= 1
    return deepest


def _powers(text: str) -> str:
    product = 1
    for match in _EXPONENT_RE.finditer(text):
        exponent, rest = _exponent(text, match)
        if rest.lstrip().startswith("^") or ("^" in exponent and not re.search("[a-zA-Z]", exponent)):
            return "a power of a power"
        for digits in _INTEGER_RE.findall(exponent):
            if len(digits) > len(str(MAX_EXPONENT)):
                return f"an exponent of {len(digits)} digits"
            product *= max(1, int(digits))
    return f"exponents that multiply to {product}" if product > MAX_EXPONENTS_PRODUCT else ""


def _exponent(text: str, match: re.Match[str]) -> tuple[str, str]:
    """An exponent and what follows it."""
    if match[1] not in "{(":
        return match[1], text[match.end() :]
    depth = 1
    for position in range(match.end(), len(text)):
        depth += (text[position] in "{(") - (text[position] in "})")
        if depth == 0:
            return text[match.end() : position], text[position + 1 :]
    return text[match.end() :], ""


def _combinatorics(text: str) -> str:
    if _NESTED_FACTORIAL_RE.search(text):
        return "a factorial of an expression"
    numbers = _FACTORIAL_RE.findall(text)
    if any(len(digits) > 4 or int(digits) > MAX_FACTORIAL for digits in numbers):
        return "a factorial beyond 1000!"
    if math.prod(int(digits) for digits in numbers) > MAX_EXPONENTS_PRODUCT:
        return "too many factorials"
    if _BINOMIAL_RE.search(text) and any(len(digits) > 4 for digits in _INTEGER_RE.findall(text)):
        return "a binomial coefficient beyond 9999"
    return ""
