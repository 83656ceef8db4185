"""ADPO's `good_accuracy`: right answers, and wrong ones that at least do not repeat themselves.

    right -> 1;   wrong -> min(0, penalty_scale_factor * (share of repeated word n-grams) * max_penalty)

With the defaults a wrong answer is worth -0.05 to 0. `GoodAccuracy` is the part of a reward; its task metric is 1 or 0,
so that a filter sees right and wrong alone. `good_accuracy` is the plain function, called either way:

    good_accuracy(completions=[...], solution=[...])              -> [number, ...]
    good_accuracy(solution_str="...", ground_truth="...")         -> {"score": number, "acc": True}

The answer is the last box (braces matched), `<answer>`, stated answer or bare last line, compared as mathematics in a
killable child process; the published code takes the first box, up to its first closing brace. Later versions of the
published function differ (factor 0.5, a bonus for length, a fixed -0.5 for much repetition).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from burnish.rewards.answer import needed_answer
from burnish.rewards.measured import Measured
from burnish.rewards.repetition import repeated_share, words
from burnish.rewards.upkeep import Upkeep
from burnish.rewards.verify import Verifier
from burnish.types import FAULTS, Completion, Prompt, Score

NGRAM_SIZE, MAX_PENALTY, PENALTY_SCALE_FACTOR = 4, -0.5, 0.1
SECONDS = 5.0

Message = Mapping[str, str]


class GoodAccuracy(Upkeep):
    """Part of a reward. `close` ends its grading process.

    Raises:
        ValueError: `max_penalty` is above 0.
    """

    def __init__(self, *, ngram_size: int, max_penalty: float, penalty_scale_factor: float, seconds: float) -> None:
        """
        Args:
            seconds: that one comparison of answers may take.
        """
        _require_penalty(max_penalty)
        self._n = ngram_size
        self._scale = penalty_scale_factor * max_penalty
        self._verify = Verifier("auto", right=1.0, wrong=0.0, seconds=seconds)

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        answer = needed_answer(prompt)
        texts = [completion.text for completion in completions]
        scores = self._verify.all(texts, answer)
        return [self._measure(score, text) for score, text in zip(scores, texts, strict=True)]

    def check(self) -> None:
        self._verify.check()

    @property
    def restarts(self) -> int:
        return self._verify.restarts

    def close(self) -> None:
        self._verify.close()

    def _measure(self, score: Score, text: str) -> Measured:
        value = _value(score, text, self._n, self._scale)
        return Measured(value, score.raw, score.status, score.message, answer=score.answer, ms=score.ms)


def good_accuracy(
    completions: Sequence[str | Sequence[Message]] | None = None,
    solution: Sequence[str] | None = None,
    *,
    solution_str: str | None = None,
    ground_truth: str | None = None,
    ngram_size: int = NGRAM_SIZE,
    max_penalty: float = MAX_PENALTY,
    penalty_scale_factor: float = PENALTY_SCALE_FACTOR,
    **columns: Any,
) -> list[float | None] | dict[str, Any]:
    """Both calls of the module's docstring. Other columns of the row are accepted and not used.

    A completion that could not be graded (a time limit) has score None.

    Raises:
        ValueError: neither or both ways of calling, lists of different lengths, or `max_penalty` above 0.
    """
    _require_penalty(max_penalty)

    def score(text: str, answer: str) -> tuple[float | None, bool | None]:
        verdict = _verifier()(text, answer)
        right = None if verdict.status in FAULTS else verdict.status == "ok"
        return _value(verdict, text, ngram_size, penalty_scale_factor * max_penalty), right

    if completions is not None and solution is not None and solution_str is None:
        if len(completions) != len(solution):
            raise ValueError(f"good_accuracy got {len(completions)} completions and {len(solution)} solutions")
        return [score(_text(c), answer)[0] for c, answer in zip(completions, solution, strict=True)]
    if solution_str is not None and ground_truth is not None and completions is None:
        value, right = score(solution_str, ground_truth)
        return {"score": value, "acc": right}
    raise ValueError("good_accuracy needs completions and solution, or solution_str and ground_truth")


@functools.cache
def _verifier() -> Verifier:
    """One for all calls; its process ends with the interpreter."""
    return Verifier("auto", right=1.0, wrong=0.0, seconds=SECONDS)


def _value(verdict: Score, text: str, n: int, scale: float) -> float | None:
    if verdict.status in FAULTS:
        return None
    return 1.0 if verdict.status == "ok" else min(0.0, scale * repeated_share(words(text), n))


def _text(completion: str | Sequence[Message]) -> str:
    return completion if isinstance(completion, str) else completion[-1]["content"]


def _require_penalty(max_penalty: float) -> None:
    if max_penalty > 0.0:
        raise ValueError(f"max_penalty is {max_penalty}; a penalty is at most 0, for instance {MAX_PENALTY}")
