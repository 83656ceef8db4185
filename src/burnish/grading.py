"""Groups are graded in the order in which they finish: between two results of the engine, or beside it.

    with Grading(reward, end_call=end_call) as grading:
        for request_id, completions in engine.generate(requests, sampling):
            grading.add(request_id, prompt, completions)
        for request_id, completions, scores in grading.finished():

With `end_call` one thread grades while the engine goes on with the groups that are left. It takes them first in, first
out, so a reward sees the same groups in the same order either way. Without, `add` itself grades: what depends on the
thread that it runs in (signals, gradient modes, generators that a process shares) is where it always was.

What the reward raises rises in the thread that generates, at the next `add` or in `finished`. Leaving the context,
however that comes about, drops what is not graded yet and leaves nothing running.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Self

from burnish.protocols import Reward
from burnish.types import Completion, Prompt, Score

LOOK_SECONDS = 0.05
"""How often a call that has been told to end is told again: it may have been between two waits."""

Scores = Sequence[Score]


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
        self._thread = None if end_call is None else ThreadPoolExecutor(1, thread_name_prefix="burnish-grading")
        self._asked: list[tuple[int, Sequence[Completion], Future[Scores]]] = []
        self._unseen: deque[Future[Scores]] = deque()
        """Those of which is not known yet whether they were graded."""
        self.seconds = 0.0
        """That grading took so far."""

    def add(self, request_id: int, prompt: Prompt, completions: Sequence[Completion]) -> None:
        """Have a group graded. What the reward raised, for this group or an earlier one, rises."""
        if self._thread is None:
            future: Future[Scores] = Future()
            future.set_result(self._grade(prompt, completions))
        else:
            self._raise_what_rose()
            future = self._thread.submit(self._grade, prompt, completions)
            self._unseen.append(future)
        self._asked.append((request_id, completions, future))

    def finished(self) -> Iterator[tuple[int, Sequence[Completion], Scores]]:
        """Wait for what is not graded yet: (request id, completions, scores), in the order in which they were added."""
        for request_id, completions, future in self._asked:
            yield request_id, completions, future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is None or self._end_call is None:
            return
        self._thread.shutdown(wait=False, cancel_futures=True)
        while unfinished := [future for *_, future in self._asked if not future.done()]:
            self._end_call()
            wait(unfinished, timeout=LOOK_SECONDS)
        self._thread.shutdown()

    def _grade(self, prompt: Prompt, completions: Sequence[Completion]) -> Scores:
        started = time.perf_counter()
        try:
            return self._reward(prompt, completions)
        finally:
            self.seconds += time.perf_counter() - started

    def _raise_what_rose(self) -> None:
        while self._unseen and self._unseen[0].done():
            self._unseen.popleft().result()
