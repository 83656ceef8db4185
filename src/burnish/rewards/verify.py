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
from collections.abc import Sequence
from dataclasses import replace

from burnish.errors import TrainingError
from burnish.rewards import dapo
from burnish.rewards.equivalence import OK, WRONG, Judgement, judge_all
from burnish.rewards.extract import Style, find_answer, gold_answer
from burnish.rewards.known import known_answers
from burnish.rewards.numbers import parse_number, same_number
from burnish.rewards.upkeep import Upkeep
from burnish.rewards.worker import MAX_SIZE, Worker, usable_cores
from burnish.types import Score

ANSWER_SHOWN = 80
"""Characters of the extracted answer that are kept."""
_REMEMBERED = 4096
"""Verdicts of the algebra system that are kept: siblings often state the same answer."""
NONE_STATED = Judgement("unparsed", "the text states no answer")


class Verifier(Upkeep):
    """Grades texts in one style. Holds child processes from the first answer that needs one; close it, or use `with`.

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
        self._worker = Worker("burnish.rewards.symbolic", seconds=seconds, size=min(MAX_SIZE, usable_cores()))
        self._known: OrderedDict[tuple[str, str], Judgement] = OrderedDict()

    def __call__(self, text: str, answer: str) -> Score:
        """Grade `text` against the row's `answer`, which may be a whole GSM8K or MATH solution."""
        return self.all([text], answer)[0]

    def all(self, texts: Sequence[str], answer: str) -> list[Score]:
        """Grade several texts against one answer."""
        gold = gold_answer(answer)
        if not gold:
            return [self._score(None, Judgement("error", "the row's answer is empty"), 0.0)] * len(texts)
        found: list[tuple[str | None, float]] = []
        for text in texts:
            started = time.perf_counter()
            found.append((find_answer(text, self._style), time.perf_counter() - started))
        started = time.perf_counter()
        judgements = self._judge([stated for stated, _ in found], gold)
        shared = (time.perf_counter() - started - sum(j.seconds for j in judgements)) / max(1, len(texts))
        return [
            self._score(stated, judgement, seconds + judgement.seconds + max(0.0, shared))
            for (stated, seconds), judgement in zip(found, judgements, strict=True)
        ]

    @property
    def restarts(self) -> int:
        return self._worker.restarts

    def check(self) -> None:
        """Grade the known answers of this style.

        Raises:
            TrainingError: a verdict is not what is known; or no process starts.
        """
        self._known.clear()  # what is remembered proves nothing
        for gold, stated, expected in known_answers(self._style):
            score = self(stated, gold)
            if score.status != expected:
                said = f"{score.status} ({score.message})" if score.message else score.status
                raise TrainingError(
                    f"the answer check (style {self._style}) cannot be trusted: of {stated!r} where {gold!r} is wanted "
                    f"it says {said}, and that is {expected}. Look for a damaged installation (pip install "
                    "--force-reinstall math-verify), or give a busy machine more time: reward.timeout=60"
                )

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _score(self, stated: str | None, judgement: Judgement, seconds: float) -> Score:
        status = judgement.status
        value = {"ok": self._right, "wrong": self._wrong, "unparsed": self._wrong}.get(status)
        shown = dapo.normalize(stated) if stated is not None and self._style == "dapo" else stated
        return Score(
            total=value,
            raw=value,
            parts={} if value is None else {"answer": value},
            status=status,
            message=judgement.message,
            answer=None if shown is None else shown[:ANSWER_SHOWN],
            ms=1000.0 * seconds,
        )

    def _judge(self, answers: Sequence[str | None], gold: str) -> list[Judgement]:
        match self._style:
            case "gsm8k":
                return [_numeric(stated, gold) for stated in answers]
            case "dapo":
                return [_published(stated, gold) for stated in answers]
            case _:
                return self._mathematics(answers, gold)

    def _mathematics(self, answers: Sequence[str | None], gold: str) -> list[Judgement]:
        """Each different answer is judged once."""
        new = [a for a in dict.fromkeys(answers) if a is not None and (a, gold) not in self._known]
        found = dict(zip(new, judge_all(new, gold, self._worker), strict=True))
        judgements = [
            self._known.get((stated, gold)) or found[stated] if stated is not None else NONE_STATED
            for stated in answers
        ]
        for stated, judgement in found.items():
            if judgement.status in ("ok", "wrong"):
                self._known[stated, gold] = replace(judgement, seconds=0.0)
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return judgements


def _published(stated: str | None, gold: str) -> Judgement:
    if stated is None:
        return NONE_STATED
    return OK if dapo.same_answer(stated, gold) else WRONG


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
