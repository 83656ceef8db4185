"""Whether two answers are equal as mathematics.

In this order, the first that decides:

    1. the same text, once undressed (`plain`); words in any case
    2. two numbers: exact comparison (`numbers.py`), which settles nearly every row at no cost
    3. a gold answer that is words or over a limit: only its own text is right (an algebra system reads `Paris` as a
       product of letters)
    4. over a limit (`limits.py`): unparsed
    5. the algebra system, in the killable child process

A number may carry a unit in words (`540 dollars`, `5\\text{ cm}`), which is ignored. In a chain of equations the last
link is the answer, and every earlier literal link must equal it: `x = 5` and `2 + 3 = 5` state 5, `3 = 5` states
nothing right. Decimals are exact: 0.3333 is not 1/3, and 1.4142 is not \\sqrt{2}.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from burnish.rewards.limits import MAX_ANSWER, refusal
from burnish.rewards.numbers import Number, read_plain, same_number
from burnish.rewards.plain import plain
from burnish.rewards.worker import Reply, Worker
from burnish.types import Status

_EQUALS_RE = re.compile(r"(?<![<>!:=\\])=(?!=)")
_SPACE_RE = re.compile(r"(?<![0-9]) | (?![0-9])")
"""Spaces that say nothing; one between two digits does."""
_SET_RE = re.compile(r"\\?\{.*\\?\}")
_PAIR_RE = re.compile(r"[(\[].*,.*[)\]]")
_LIST_RE = re.compile(r"[,;]|\\text|\b(?:and|or)\b|\\(?:le|ge|neq?|leq|geq)(?![a-zA-Z])|[<>]")
_COMMAND_RE = re.compile(
    r"\\(?:frac|sqrt|pi|cdot|times|div|pm|log|ln|exp|sin|cos|tan|binom|left|right|infty|lfloor|rfloor|lceil|rceil)"
    r"(?![a-zA-Z])"
)
_ENVIRONMENT_RE = re.compile(r"\\(?:begin|end|operatorname) ?\{[a-zA-Z* ]*\}")
_WORD_RE = re.compile(r"(?<![a-zA-Z\\])[a-zA-Z]{4,}")
_FUNCTIONS = frozenset(("sqrt", "frac", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan", "binom", "infty"))
_UNIT_RE = re.compile(
    r"(?P<number>.*[0-9}%]) *(?P<unit>(?:\\(?:text|mathrm|mbox|textrm) ?\{ *[a-zA-Z][a-zA-Z. ]*\}|"
    r"(?<= )(?:[a-zA-Z]{3,}|cm|mm|km|kg|mg|ml|ft|in|oz|lb|hr)(?: [a-zA-Z]{2,})*)) *(?:\^ ?\{?[23]\}?)?"
)
_NOT_UNITS = re.compile(
    r"(?i)\b(?:hundred|thousand|million|billion|trillion|dozens?|half|quarters?|thirds?|or|and|plus|minus|times|over|"
    r"not|mod|pi|sqrt|sin|cos|tan|log|exp|choose|factorial|squared|cubed|k|m|i|e)\b"
)


@dataclass(frozen=True, slots=True)
class Judgement:
    status: Status
    message: str = ""
    seconds: float = 0.0
    """That the algebra system took."""


OK, WRONG = Judgement("ok"), Judgement("wrong")


def judge(answer: str, gold: str, worker: Worker) -> Judgement:
    """Compare an answer with the gold answer.

    Example:
        judge("\\\\frac{2}{4}", "0.5", worker) == Judgement("ok")
    """
    return judge_all([answer], gold, worker)[0]


def judge_all(answers: Sequence[str], gold: str, worker: Worker) -> list[Judgement]:
    """Compare several answers with one gold answer; those that need the algebra system, at the same time."""
    found = [_settle(answer, gold) for answer in answers]
    questions = [asdict(question) for question in found if not isinstance(question, Judgement)]
    replies = iter(worker.call_all("equal", questions) if questions else ())
    return [settled if isinstance(settled, Judgement) else _judgement(next(replies)) for settled in found]


@dataclass(frozen=True, slots=True)
class _Question:
    """Arguments of the algebra system's job."""

    gold: str
    answer: str
    links: list[str]


def _settle(answer: str, gold: str) -> Judgement | _Question:
    if len(answer) > MAX_ANSWER:
        return Judgement("unparsed", f"{len(answer)} characters, and {MAX_ANSWER} are read")
    stated, expected = plain(answer), plain(gold)
    if not stated:
        return Judgement("unparsed", "the answer is empty")
    verdict = _same_text(stated, expected) or _same_value(stated, expected)
    if verdict is not None:
        return verdict
    if _is_words(expected) or refusal(expected, expected) or _are_of_two_kinds(stated, expected):
        return WRONG
    if reason := refusal(stated, expected):
        return Judgement("unparsed", reason)
    return _question(stated, expected)


def _are_of_two_kinds(stated: str, expected: str) -> bool:
    """One is a set, which has no order, the other a pair, a tuple or an interval; the algebra system overlooks that."""
    kinds = [(_SET_RE.fullmatch(text), _PAIR_RE.fullmatch(text)) for text in (stated, expected)]
    return any(a[0] and b[1] for a, b in (kinds, kinds[::-1]))


def _judgement(reply: Reply) -> Judgement:
    if reply.status != "done":
        return Judgement(reply.status, reply.message, reply.seconds)
    return Judgement("ok" if reply.value else "wrong", seconds=reply.seconds)


def _same_text(stated: str, expected: str) -> Judgement | None:
    if _SPACE_RE.sub("", stated) == _SPACE_RE.sub("", expected):
        return OK
    if _is_words(expected) and stated.casefold() == expected.casefold():
        return OK
    return None


def _same_value(stated: str, expected: str) -> Judgement | None:
    """A verdict when both are numbers, a name and a unit left aside."""
    gold = _number(expected)
    if gold is None:
        return None
    links = _links(stated)
    number = _number(links[-1])
    if number is None:
        return None
    if not same_number(number, gold):
        return WRONG
    earlier = [(link, read_plain(link)) for link in links[:-1] if _is_literal(link)]
    if any(value is not None and value.value != number.value for _, value in earlier):
        return WRONG
    return None if any(value is None for _, value in earlier) else OK


def _number(text: str) -> Number | None:
    number = read_plain(text)
    if number is not None:
        return number
    with_unit = _UNIT_RE.fullmatch(text)
    if with_unit is None or _NOT_UNITS.search(with_unit["unit"]):
        return None
    return read_plain(with_unit["number"].strip())


def _links(stated: str) -> list[str]:
    """The links of a chain of equations; a list of equations is not a chain."""
    if _LIST_RE.search(stated):
        return [stated]
    return [link.strip() for link in _EQUALS_RE.split(stated)]


def _is_literal(link: str) -> bool:
    """A link that names nothing: digits, and no letter but those of known commands."""
    bare = _COMMAND_RE.sub("", link)
    return any(char.isdigit() for char in bare) and not any(char.isalpha() for char in bare)


def _is_words(text: str) -> bool:
    return any(word not in _FUNCTIONS for word in _WORD_RE.findall(_ENVIRONMENT_RE.sub("", text)))


def _question(stated: str, expected: str) -> _Question:
    links = _links(stated)
    if len(links) == 2 and _EQUALS_RE.search(expected) is not None:
        return _Question(expected, stated, [])
    return _Question(expected, links[-1], [link for link in links[:-1] if _is_literal(link)])
