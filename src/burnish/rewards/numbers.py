"""Numbers, read and compared exactly. No float is involved, no text is evaluated.

Read: integers, decimals, grouped thousands (`1,234`, `1 234`), repeating decimals (`0.\\overline{3}`), fractions
(`a/b`, `\\frac{a}{b}`, `\\frac12`), mixed numbers (`2 1/2`, `2\\frac{1}{2}`), scientific notation (`1e5`,
`1.5 \\times 10^{3}`), percent, and integers in another base (`1010_2`). Everything else, and anything over `MAX_DIGITS`
digits or an exponent beyond `MAX_EXPONENT`, is not a number here.

A mark (`%`, a base) belongs to the value: 50% is 1/2 and nothing else. Only when the gold answer carries the mark may
the answer leave it out: gold `50%` is met by `50%`, `0.5` and `50`; gold `50` is not met by `50%`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from burnish.rewards.plain import plain

MAX_DIGITS = 1000
MAX_EXPONENT = 1000

_INT = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]{1,3}(?: [0-9]{3})+|[0-9]+)"
_DECIMAL = rf"(?:{_INT}(?:\.[0-9]*)?|\.[0-9]+)"
_SIGNED = rf"[+-]? ?{_DECIMAL}"
_ARG = rf"(?:\{{ ?(?P<{{0}}>{_SIGNED}) ?\}}|(?P<{{0}}_digit>[0-9]))"
_FRAC = r"\\frac ?" + _ARG.replace("{0}", "top") + " ?" + _ARG.replace("{0}", "bottom")

_DECIMAL_RE = re.compile(rf"(?P<mantissa>{_DECIMAL})(?:[eE](?P<e>[+-]?[0-9]+))?")
_SCIENTIFIC_RE = re.compile(
    rf"(?P<mantissa>{_DECIMAL}) ?(?:\\times|\\cdot|\*) ?10 ?\^ ?(?:\{{ ?(?P<braced>[+-]?[0-9]+) ?\}}|(?P<bare>[0-9]))"
)
_REPEATING_RE = re.compile(r"(?P<whole>[0-9]+)\.(?P<fixed>[0-9]*)\\(?:overline|bar) ?\{?(?P<cycle>[0-9]+)\}?")
_SLASH_RE = re.compile(rf"(?P<top>{_DECIMAL}) ?/ ?(?P<bottom>{_SIGNED})")
_FRAC_RE = re.compile(_FRAC)
_MIXED_RE = re.compile(rf"(?P<whole>[0-9]+) ?{_FRAC}|(?P<plain_whole>[0-9]+) (?P<a>[0-9]+) ?/ ?(?P<b>[0-9]+)")
_BASED_RE = re.compile(r"(?P<digits>[0-9]+) ?_ ?\{? ?(?P<base>[0-9]{1,2}) ?\}?")


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    unmarked: Fraction | None = None
    """The number with its mark left out (50 for 50%, 1010 for 1010_2); None when it carries none."""


def parse_number(text: str) -> Number | None:
    """The number that the whole text is, or None. Costs time linear in the text, which is refused over 4 KiB.

    Example:
        parse_number("\\\\frac{1}{2}") == Number(Fraction(1, 2))
    """
    if len(text) > 4096:
        return None
    return read_plain(plain(text))


def read_plain(text: str) -> Number | None:
    """`parse_number` of a text that went through `plain`."""
    if len(text) > 2 * MAX_DIGITS or sum(c.isdigit() for c in text) > MAX_DIGITS:
        return None
    if text.endswith("%"):
        value = _signed(text[:-1].rstrip())
        return None if value is None else Number(value / 100, unmarked=value)
    if match := _BASED_RE.fullmatch(text):
        return _in_base(match["digits"], int(match["base"]))
    value = _signed(text)
    return None if value is None else Number(value)


def same_number(answer: Number, gold: Number) -> bool:
    """Exact equality. Asymmetric in marks: see the module's docstring."""
    if answer.value == gold.value:
        return True
    return answer.unmarked is None and gold.unmarked is not None and answer.value == gold.unmarked


def _signed(text: str) -> Fraction | None:
    sign = -1 if text.startswith("-") else 1
    if text[:1] in ("-", "+"):
        text = text[1:].lstrip()
    value = _unsigned(text)
    return None if value is None else sign * value


def _unsigned(text: str) -> Fraction | None:
    readers = (
        (_DECIMAL_RE, _from_decimal),
        (_FRAC_RE, _from_frac),
        (_SLASH_RE, _from_slash),
        (_MIXED_RE, _from_mixed),
        (_SCIENTIFIC_RE, _from_decimal),
        (_REPEATING_RE, _from_repeating),
    )
    for pattern, reader in readers:
        if match := pattern.fullmatch(text):
            return reader(match.groupdict())
    return None


Parts = dict[str, str | None]


def _decimal(text: str) -> Fraction:
    text = text.replace(",", "").replace(" ", "")
    sign = -1 if text.startswith("-") else 1
    whole, _, fraction = text.lstrip("+-").partition(".")
    return sign * Fraction(int((whole + fraction) or "0"), 10 ** len(fraction))


def _ratio(top: Fraction, bottom: Fraction) -> Fraction | None:
    return None if bottom == 0 else top / bottom


def _from_decimal(parts: Parts) -> Fraction | None:
    exponent = parts.get("e") or parts.get("braced") or parts.get("bare") or "0"
    if len(exponent) > 6 or abs(int(exponent)) > MAX_EXPONENT:
        return None
    return _decimal(parts["mantissa"] or "") * Fraction(10) ** int(exponent)


def _from_slash(parts: Parts) -> Fraction | None:
    return _ratio(_decimal(parts["top"] or ""), _decimal(parts["bottom"] or ""))


def _from_frac(parts: Parts) -> Fraction | None:
    top = parts["top"] or parts["top_digit"] or ""
    bottom = parts["bottom"] or parts["bottom_digit"] or ""
    return _ratio(_decimal(top), _decimal(bottom))


def _from_mixed(parts: Parts) -> Fraction | None:
    if parts["whole"] is not None:
        part = _from_frac(parts)
    else:
        part = _ratio(_decimal(parts["a"] or ""), _decimal(parts["b"] or ""))
    whole = parts["whole"] or parts["plain_whole"] or ""
    return None if part is None or part < 0 else _decimal(whole) + part


def _from_repeating(parts: Parts) -> Fraction:
    fixed, cycle = parts["fixed"] or "", parts["cycle"] or ""
    head = _decimal(f"{parts['whole']}.{fixed}")
    return head + Fraction(int(cycle), (10 ** len(cycle) - 1) * 10 ** len(fixed))


def _in_base(digits: str, base: int) -> Number | None:
    if not 2 <= base <= 36 or any(int(digit) >= base for digit in digits):
        return None
    return Number(Fraction(int(digits, base)), unmarked=Fraction(int(digits)))
