"""One text against one answer: the `Score` of the answer alone, in any style.

    dapo                      the published string rule; no child process
    gsm8k                     the number behind `####`, compared exactly; the row's answer must be a number
    boxed, equivalence, auto  found as `extract.py` says, then equal as mathematics (`equivalence.py`)

Status `ok` is right; `wrong`; `unparsed` when the text states no answer or one over the limits; both of the latter are
worth `wrong`. A fault (`timeout`, `oom`, `error`) has no number.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from burnish.rewards import dapo
from burnish.rewards.equivalence import OK, WRONG, Judgement, judge
from burnish.rewards.extract import Style, find_answer, gold_answer
from burnish.rewards.numbers import parse_number, same_number
from burnish.rewards.worker import Worker
from burnish.types import Score

ANSWER_SHOWN = 80
"""Characters of the extracted answer that are kept."""
_REMEMBERED = 4096
"""Verdicts of the algebra system that are kept: siblings often state the same answer."""


@dataclass(frozen=True, slots=True)
class _Found:
    answer: str | None
    judgement: Judgement


class Verifier:
    """Grades texts in one style. Holds a child process from the first answer that needs one; close it, or use `with`.

    Example:
        with Verifier("gsm8k", right=1.0, wrong=0.0, seconds=5.0) as verify:
            verify("... so 72 in all.\\n#### 72", "72").raw == 1.0
    """

    def __init__(self, style: Style, *, right: float, wrong: float, seconds: float) -> None:
        """
        Args:
            right: value of a right answer.
            wrong: value of a wrong answer, and of none.
            seconds: deadline of one comparison in the algebra system.
        """
        self._style: Style = style
        self._right = right
        self._wrong = wrong
        self._worker = Worker("burnish.rewards.symbolic", seconds=seconds)
        self._known: OrderedDict[tuple[str, str], Judgement] = OrderedDict()

    def __call__(self, text: str, answer: str) -> Score:
        """Grade `text` against the row's `answer`, which may be a whole GSM8K or MATH solution."""
        started = time.perf_counter()
        found = self._grade(text, answer)
        status = found.judgement.status
        value = {"ok": self._right, "wrong": self._wrong, "unparsed": self._wrong}.get(status)
        return Score(
            total=value,
            raw=value,
            parts={} if value is None else {"answer": value},
            status=status,
            message=found.judgement.message,
            answer=None if found.answer is None else found.answer[:ANSWER_SHOWN],
            ms=1000.0 * (time.perf_counter() - started),
        )

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _grade(self, text: str, answer: str) -> _Found:
        gold = gold_answer(answer)
        if not gold:
            return _Found(None, Judgement("error", "the row's answer is empty"))
        stated = find_answer(text, self._style)
        if self._style == "gsm8k":
            return _Found(stated, _numeric(stated, gold))
        if stated is None:
            return _Found(None, Judgement("unparsed", "the text states no answer"))
        if self._style == "dapo":
            return _Found(dapo.normalize(stated), OK if dapo.same_answer(stated, gold) else WRONG)
        return _Found(stated, self._judge(stated, gold))

    def _judge(self, stated: str, gold: str) -> Judgement:
        known = self._known.get((stated, gold))
        if known is not None:
            return known
        judgement = judge(stated, gold, self._worker)
        if judgement.status in ("ok", "wrong"):
            self._known[stated, gold] = judgement
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return judgement


def _numeric(stated: str | None, gold: str) -> Judgement:
    expected = parse_number(gold)
    if expected is None:
        return Judgement(
            "error", f"the row's answer {gold[:ANSWER_SHOWN]!r} is not a number, and style gsm8k needs one"
        )
    if stated is None:
        return Judgement("unparsed", "the text states no number behind ####")
    number = parse_number(stated)
    if number is None:
        return Judgement("unparsed", "the number behind #### has too many digits")
    return OK if same_number(number, expected) else WRONG
