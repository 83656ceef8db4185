"""Rewards: what the trainer calls for each prompt and its completions.

`AnswerReward` is the reward of a run: answer, format, overlong penalty. `FunctionReward` lifts a plain function of one
completion. Every part stays beside the total:

    total = weight * answer + format_weight * format + overlong

    answer    the value of a right or wrong answer, unweighted; this is also `raw`, which filters and curves read
    format    1 when the completion contains a match of the pattern, else 0
    overlong  DAPO's soft overlong punishment, from 0 down to -factor
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from burnish.algorithms.shaping import overlong_penalty
from burnish.rewards.extract import Style
from burnish.rewards.verify import Verifier
from burnish.types import Completion, Prompt, Score

FORMAT_TEXT = 50_000
"""Characters of a completion that the format's pattern searches, from its start."""
LARGEST_SCORE = 1e4
"""Beyond this a score is taken for a mistake: one such number destroys the weights."""


class Overlong(NamedTuple):
    """When a completion is too long. A plain tuple will do."""

    max_length: int
    """Limit on generated tokens."""
    buffer: int
    """Tokens before the limit over which the penalty grows."""
    factor: float
    """The largest penalty."""


class AnswerReward:
    """Right answers, wanted form, bounded length.

    A fault of the grader gives a `Score` without a number (`total` and `raw` None, its status and message); what
    follows from that is the trainer's to decide.

    Example:
        AnswerReward("dapo", overlong=(20480, 4096, 1.0))
    """

    def __init__(
        self,
        style: Style,
        *,
        right: float = 1.0,
        wrong: float = -1.0,
        weight: float = 1.0,
        format_pattern: str | None = None,
        format_weight: float = 1.0,
        timeout: float = 5.0,
        overlong: tuple[int, int, float] | None = None,
    ) -> None:
        """
        Args:
            weight: of the answer part in the total.
            format_pattern: regular expression to search for in every completion; yours, so mind its own cost.
            timeout: seconds that one comparison of answers may take.
            overlong: (limit on generated tokens, buffer before it, largest penalty); see `Overlong`.
        """
        self._verify = Verifier(style, right=right, wrong=wrong, seconds=timeout)
        self._weight = weight
        self._format = _compiled(format_pattern)
        self._format_weight = format_weight
        self._overlong = None if overlong is None else Overlong(*overlong)

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        """Score one prompt's completions.

        Raises:
            ValueError: the prompt has no answer.
        """
        if prompt.answer is None:
            raise ValueError(
                f"prompt {prompt.id} has no answer to grade against; the data needs a column with the answer. "
                "Type data.columns.answer=NAME"
            )
        return [self._score(completion, prompt.answer) for completion in completions]

    def close(self) -> None:
        """End the grading process."""
        self._verify.close()

    def _score(self, completion: Completion, answer: str) -> Score:
        score = self._verify(completion.text, answer)
        if score.raw is None:
            return score
        parts = {"answer": score.raw}
        total = self._weight * score.raw
        if self._format is not None:
            parts["format"] = float(self._format.search(completion.text[:FORMAT_TEXT]) is not None)
            total += self._format_weight * parts["format"]
        if self._overlong is not None:
            parts["overlong"] = overlong_penalty(len(completion.token_ids), **self._overlong._asdict())
            total += parts["overlong"]
        return replace(score, total=total, parts=parts)


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"the format's pattern {pattern!r} is no regular expression ({error}); it needs one such as '<answer>.*'"
        ) from None


Scored = float | Mapping[str, float]
"""What a plain reward function returns: a number, or `{"score": number, part: number, ...}`."""


class FunctionReward:
    """Lifts a plain function of a prompt and one completion into a reward.

    The number, or the entry `score` of a mapping, is `raw` and `total`; every entry is kept as a part. A function that
    raises gives status `error`, one whose result is no finite number within 10,000 gives `invalid`; neither is ever
    turned into a number.

    Example:
        FunctionReward(lambda prompt, completion: float(completion.text.strip() == prompt.answer))
    """

    def __init__(self, function: Callable[[Prompt, Completion], Scored]) -> None:
        self._function = function

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        return [self._score(prompt, completion) for completion in completions]

    def _score(self, prompt: Prompt, completion: Completion) -> Score:
        started = time.perf_counter()
        try:
            result = self._function(prompt, completion)
        except Exception as error:
            # A fault boundary: the function works on a model's text, and the trainer decides what a fault costs.
            return Score(None, status="error", message=f"{type(error).__name__}: {error}")
        ms = 1000.0 * (time.perf_counter() - started)
        parts = {**result} if isinstance(result, Mapping) else {"score": result}
        if problem := _problem(parts):
            return Score(None, status="invalid", message=problem, ms=ms)
        numbers = {name: float(value) for name, value in parts.items()}
        return Score(numbers["score"], raw=numbers["score"], parts=numbers, ms=ms)


def _problem(parts: Mapping[str, object]) -> str:
    if "score" not in parts:
        return f"the reward returned a mapping with {sorted(parts)}; it needs an entry 'score'"
    for name, value in parts.items():
        try:
            number = float(value)  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, str) or not abs(number) <= LARGEST_SCORE:
            return f"the reward's {name} is {value!r}; it needs a finite number within {LARGEST_SCORE:g}"
    return ""
