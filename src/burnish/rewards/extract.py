"""Where a completion states its answer.

Only the last `MAX_TEXT` characters of a completion are looked at: an answer stands at the end, and every pattern here
is linear in the text. The forms, each found at its last occurrence:

    dapo         `Answer: ...` up to the end of the line, within the last 300 characters (the published rule)
    gsm8k        the number behind `####`; a unit after it is ignored, as in the published rule
    boxed        the content of `\\boxed{...}` or `\\fbox{...}`, braces matched; a box that never closes is no answer
    auto         the first of these that the completion has:
                   1. a box
                   2. `<answer>...</answer>`
                   3. `#### number` or `Answer: ...` or `answer is ...`, whichever stands later
                   4. a last line that is nothing but a number, a formula in dollars, `name = number` or `#### ...`
                 never a number out of prose: a text that states no answer is unparsed
    equivalence  as auto, then the last number of the text
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Literal

from burnish.rewards.numbers import parse_number

Style = Literal["auto", "dapo", "gsm8k", "boxed", "equivalence"]

MAX_TEXT = 50_000
DAPO_TAIL = 300
_LINE = 4096

_DAPO_RE = re.compile(r"(?i)Answer\s*:\s*([^\n]+)")
_BOX_RE = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])[ \t]*")
_TAG_RE = re.compile(r"(?i)<answer>")
_TAG_END_RE = re.compile(r"(?i)</answer>")
_STATED_RE = re.compile(
    r"(?i)\banswer(?:[ *_\t]*:|[ \t]+is\b(?:[ \t]+(?:thus|therefore|then|hence|simply)\b)?[ \t]*:?)[*_\s]*([^\n]*)"
)
_HASH_RE = re.compile(r"####(?!#)")
_HASH_NUMBER_RE = re.compile(
    # A sign, dollars and markdown before the number; the number; then nothing that makes it part of a formula.
    r"[ \t*]*(-?[ ]?\$?[ ]?-?(?>(?:[0-9][0-9,]*(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?:[ ]?/[ ]?[0-9][0-9,]*)?))"
    r"(?!:?[0-9_]|[ ]*(?:[+^=]|-[ ]*[0-9]|(?:/|\*\*?)[ ]*[0-9(\\]|\\[a-z]))"
)
_NUMBER_RE = re.compile(r"(?<![\w.])-?\$?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?%?(?:/[0-9]+)?(?!\w)")
_NAME_IS_RE = re.compile(r"\$?\s*[a-zA-Z]\w{0,20}\s*=\s*([^=]+)")
_DOLLARS_RE = re.compile(r"\$\$?((?! )[^$\n]+?)(?<! )\$\$?(?=[\s.,;:!?)*]|$)|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SENTENCE_END_RE = re.compile(r"[.!?;](?:\s|$)|,\s+(?:because|since|so|which|as|and so)\b|\s(?:because|since)\s")


def find_answer(text: str, style: Style) -> str | None:
    """The answer that a completion states, as it is written there, or None.

    Example:
        find_answer("2 + 2 = 4\\n#### 4", "gsm8k") == "4"
    """
    tail = text[-MAX_TEXT:]
    for finder in _FINDERS[style]:
        found = finder(tail)
        if found is not None and found.strip():
            return found.strip()
    return None


def gold_answer(answer: str) -> str:
    """The bare answer of a data set's row: a whole solution ends in `#### 72` (GSM8K) or holds a box (MATH)."""
    if "####" in answer:
        return answer.rsplit("####", 1)[1].strip().split("\n", 1)[0].strip()
    boxed = _boxed(answer[-MAX_TEXT:])
    return answer.strip() if boxed is None else boxed.strip()


def _dapo(text: str) -> str | None:
    matches = _DAPO_RE.findall(text[-DAPO_TAIL:])
    return matches[-1] if matches else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    return next(iter(deque(pattern.finditer(text), maxlen=1)), None)


def _boxed(text: str) -> str | None:
    opening = _last(_BOX_RE, text)
    if opening is None:
        return None
    rest = text[opening.end() :]
    if not rest.startswith("{"):
        token = re.match(r"[^\s$]+", rest)
        return token[0] if token else None
    end = _closing_brace(rest)
    return None if end is None else rest[1:end]


def _closing_brace(text: str) -> int | None:
    """Where the brace that opens `text` closes. A parenthesis is just a character here."""
    depth, escaped = 0, False
    for position, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "{":
            depth += 1
        elif char == "}":
            depth -= 1
            if depth == 0:
                return position
    return None


def _hash_number(text: str) -> str | None:
    place = _last(_HASH_RE, text)
    match = _HASH_NUMBER_RE.match(text, place.end()) if place else None
    return re.sub("[$ ]", "", match[1]).rstrip(",") if match else None


def _tag(text: str) -> str | None:
    opening = _last(_TAG_RE, text)
    end = None if opening is None else _TAG_END_RE.search(text, opening.end())
    if opening is None or end is None:
        return None
    content = text[opening.end() : end.start()]
    return _boxed(content) or _stated(content) or _mathematics(content)


def _stated(text: str) -> str | None:
    match = _last(_STATED_RE, text)
    return _mathematics(match[1]) if match else None


def _hash_number_or_stated(text: str) -> str | None:
    place, stated = _last(_HASH_RE, text), _last(_STATED_RE, text)
    hash_first = place is not None and (stated is None or place.start() > stated.start())
    finders = (_hash_number, _stated) if hash_first else (_stated, _hash_number)
    return finders[0](text) or finders[1](text)


def _mathematics(statement: str) -> str:
    """The formula that a statement opens with, or the statement up to the end of its sentence."""
    statement = statement.strip().strip("*_`").strip()
    if formula := _DOLLARS_RE.match(statement):
        return next(group for group in formula.groups() if group is not None)
    end = _SENTENCE_END_RE.search(statement)
    return statement[: end.start()] if end else statement


def _last_line(text: str) -> str | None:
    line = text.rstrip().rsplit("\n", 1)[-1].strip()
    if len(line) > _LINE:
        return None
    if line.startswith("####"):
        return line.lstrip("# ")
    formula = _DOLLARS_RE.fullmatch(line.rstrip("."))
    if formula:
        return next(group for group in formula.groups() if group is not None)
    named = _NAME_IS_RE.fullmatch(line)
    stated = named[1] if named else line
    return stated if parse_number(stated) is not None else None


def _last_number(text: str) -> str | None:
    number = _last(_NUMBER_RE, text)
    return number[0].replace("$", "") if number else None


_STATED_FORMS = (_boxed, _tag, _hash_number_or_stated, _last_line)
_FINDERS: dict[Style, tuple[Callable[[str], str | None], ...]] = {
    "dapo": (_dapo,),
    "gsm8k": (_hash_number,),
    "boxed": (_boxed,),
    "equivalence": (*_STATED_FORMS, _last_number),
    "auto": _STATED_FORMS,
}
