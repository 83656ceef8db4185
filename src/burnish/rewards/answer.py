"""The part of a reward that asks whether a completion's answer is right; see `verify.py` for the styles."""

from __future__ import annotations

from collections.abc import Sequence

from burnish.rewards.extract import Style
from burnish.rewards.measured import Measured
from burnish.rewards.upkeep import Upkeep
from burnish.rewards.verify import Verifier
from burnish.types import Completion, Prompt


class Answer(Upkeep):
    """Right answers. A fault of the grader has no value, its status and message; `close` ends its process.

    Example:
        Answer("dapo", right=1.0, wrong=-1.0, seconds=5.0)
    """

    def __init__(self, style: Style, *, right: float, wrong: float, seconds: float) -> None:
        """
        Args:
            right: value of a right answer.
            wrong: value of a wrong answer, and of none.
            seconds: that one comparison of answers may take.
        """
        self._verify = Verifier(style, right=right, wrong=wrong, seconds=seconds)

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        """
        Raises:
            ValueError: the prompt has no answer.
        """
        answer = needed_answer(prompt)
        scores = self._verify.all([completion.text for completion in completions], answer)
        return [Measured(s.raw, status=s.status, message=s.message, answer=s.answer, ms=s.ms) for s in scores]

    def check(self) -> None:
        self._verify.check()

    @property
    def restarts(self) -> int:
        return self._verify.restarts

    def close(self) -> None:
        self._verify.close()


def needed_answer(prompt: Prompt) -> str:
    """The prompt's answer.

    Raises:
        ValueError: it has none.
    """
    if prompt.answer is None:
        raise ValueError(
            f"prompt {prompt.id} has no answer to grade against; the data needs a column with the answer. "
            "Type data.columns.answer=NAME"
        )
    return prompt.answer
