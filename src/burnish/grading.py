"""Groups are graded in the order in which they finish: between two results of the engine, or beside it.

    with Grading(reward, end_call=end_call) as grading:
        for request_id, completions in engine.generate(requests, sampling):
            grading.add(request_id, prompt, completions)
        for request_id, completions, scores in grading.finished():

With `end_call` one thread grades while the engine goes on with the groups that are left. It takes them first in, first
out, so a reward sees the same groups in the same order either way. Without, `add` itself grades: what depends on the
thread that it runs in (signals, gradient modes, generators that a process shares) is where it always was.

What the reward raises rises in the thread that generates, at the next `add` or in `finished`, and no group behind it is
graded. Leaving the context, however that comes about, leaves nothing running.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple, Self

from burnish.protocols import Reward
from burnish.types import Completion, Prompt, Score

TELL_SECONDS = 0.05
"""How often a call that has been told to end is told again: it may have been where nothing can be ended."""


class _Asked(NamedTuple):
    request_id: int
    prompt: Prompt
    completions: Sequence[Completion]
    scores: Future[Sequence[Score]]


class Grading:
    """The grading of one round. A context manager."""

    def __init__(self, reward: Reward, *, end_call: Callable[[], None] | None) -> None:
        """
        Args:
            end_call: ends a call of `reward` that another thread is in, which raises there. None: the reward must be
                called in the thread that everything else runs in.
        """
        self._reward = reward
        self._end_call = end_call
        self._asked: list[_Asked] = []
        self._num_graded = 0
        """Of those asked, how many at the front are known to be graded."""
        self._waiting: SimpleQueue[_Asked | None] = SimpleQueue()
        self._is_over = False
        self._thread = Thread(target=self._work, name="burnish-grading", daemon=True)
        self.seconds = 0.0
        """That grading took so far."""

    def add(self, request_id: int, prompt: Prompt, completions: Sequence[Completion]) -> None:
        """Have a group graded. What the reward raised, for this group or an earlier one, rises."""
        asked = _Asked(request_id, prompt, completions, Future())
        self._asked.append(asked)
        if self._end_call is None:
            self._grade(asked)
        else:
            self._waiting.put(asked)
        while self._num_graded < len(self._asked) and (scores := self._asked[self._num_graded].scores).done():
            scores.result()
            self._num_graded += 1

    def finished(self) -> Iterator[tuple[int, Sequence[Completion], Sequence[Score]]]:
        """Wait for what is not graded yet: (request id, completions, scores), in the order in which they were added."""
        for request_id, _, completions, scores in self._asked:
            yield request_id, completions, scores.result()

    def __enter__(self) -> Self:
        if self._end_call is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._end_call is None:
            return
        self._is_over = True
        self._waiting.put(None)
        while self._thread.is_alive():
            if not all(asked.scores.done() for asked in self._asked):
                self._end_call()
            self._thread.join(TELL_SECONDS)

    def _work(self) -> None:
        """The thread: to the end of the round, or the first fault, which rises from where the scores are asked for."""
        while (asked := self._waiting.get()) is not None and not self._is_over:
            try:
                self._grade(asked)
            except BaseException as error:
                asked.scores.set_exception(error)
                return

    def _grade(self, asked: _Asked) -> None:
        started = time.perf_counter()
        try:
            scores = self._reward(asked.prompt, asked.completions)
        finally:
            self.seconds += time.perf_counter() - started
        asked.scores.set_result(scores)
