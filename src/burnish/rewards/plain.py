"""An answer without its dress, so that `$\\mathbf{1{,}000}$.`, `**1,000**` and `1000` meet.

`plain` removes what carries no mathematics (dollars, markdown, spacing commands, wrappers around the whole answer,
a final full stop) and spells a few signs in LaTeX. It is linear in the text; callers bound the text's length.
"""

from __future__ import annotations

import re

_SIGNS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": "\\times ",
        "\u00b7": "\\cdot ",
        "\u22c5": "\\cdot ",
        "\u00f7": "/",
        "\u03c0": "\\pi ",
        "\u221e": "\\infty ",
        "\u2264": "\\le ",
        "\u2265": "\\ge ",
        "\u222a": "\\cup ",
        "\u00a0": " ",
        "\u202f": " ",
        "\u2009": " ",
    }
)

_REPLACEMENTS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\left(?![a-zA-Z])\.?|\\right(?![a-zA-Z])\.?|\\displaystyle(?![a-zA-Z])", ""),
        (r"(?<!\\)\\[()\[\]]", ""),
        (r"\\?\$", ""),
        (r"(?<=[0-9])(?:\\,|\\!|\{,\}\\?!?)(?=[0-9]{3})|(?<=[0-9]),\\!(?=[0-9]{3})", ","),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: ]|~|\\q?quad(?![a-zA-Z])", " "),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\%|(?i:\\?\bper ?cent\b)|\\text\{\s*%\s*\}", "%"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\u00b0|\\degrees?(?![a-zA-Z])|(?i:\bdegrees?\b)", ""),
        (r"\*\*(?=[0-9({\\])", "^"),
        (r"[*_`]{1,3}$|^[*_`]{1,3}", ""),
        (r"\s+", " "),
    )
)

_WRAPPERS = (
    *(
        "{",
        "\\boxed{",
        "\\fbox{",
        "\\text{",
        "\\textbf{",
        "\\textit{",
        "\\mbox{",
        "\\mathbf{",
        "\\mathrm{",
        "\\mathit{",
    ),
)


def plain(text: str) -> str:
    """The mathematics of an answer, in LaTeX or plain notation, on one line.

    Example:
        plain("**$1{,}000.$**") == "1,000"
    """
    text = text.strip().strip("*`").strip()
    text = text.translate(_SIGNS)
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    return unwrap(_trim(text))


def closing(text: str) -> dict[int, int]:
    """Position of each opening brace or parenthesis -> position of its partner. Escaped ones do not count."""
    partner: dict[int, int] = {}
    stack: list[int] = []
    escaped = False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in "{(":
            stack.append(position)
        elif char == ")" and stack and text[stack[-1]] == "(":
            partner[stack.pop()] = position
        elif char == "}":
            # Parentheses need not pair up in mathematics ([0, 1)); braces must, in LaTeX.
            while stack and text[stack[-1]] == "(":
                stack.pop()
            if stack:
                partner[stack.pop()] = position
    return partner


def unwrap(text: str) -> str:
    """Take away wrappers around the whole text: `{x}`, `\\text{x}`, `\\boxed{x}`, and `(x)` when no comma is in it.

    A parenthesis with a comma is a pair or an interval and stays.
    """
    partner = closing(text)
    wrappers = _WRAPPERS if "," in text else (*_WRAPPERS, "(")
    start, end = 0, len(text)
    while True:
        brace = next((b for b in _braces(text, start, wrappers) if partner.get(b) == end - 1), None)
        if brace is None:
            return text[start:end]
        start, end = brace + 1, end - 1
        while start < end and text[start] == " ":
            start += 1
        while start < end and text[end - 1] in " .":
            end -= 1


def _braces(text: str, start: int, wrappers: tuple[str, ...]) -> list[int]:
    """Where the brace of a wrapper that begins at `start` stands."""
    return [start + len(wrapper) - 1 for wrapper in wrappers if text.startswith(wrapper, start)]


def _trim(text: str) -> str:
    text = text.strip().rstrip(".,;: ")
    return text.removesuffix("\\").strip()
