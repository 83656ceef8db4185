"""A verdict does not depend on who asks: the usual failure is a grader that says wrong to everything off the main
thread."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from burnish.rewards.known import known_answers
from burnish.rewards.verify import Verifier

pytestmark = [pytest.mark.slow, pytest.mark.reliability(7)]

STYLE = "equivalence"


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    """One that has graded before, in this process and in this thread."""
    with Verifier(STYLE, right=1.0, wrong=0.0, seconds=60.0) as verifier:
        assert num_right(verifier) == 20
        yield verifier


def num_right(verifier: Verifier) -> int:
    verifier._known.clear()
    return sum(verifier(text, gold).status == verdict for gold, text, verdict in known_answers(STYLE))


def ask_afresh(replies: Any) -> None:
    with Verifier(STYLE, right=1.0, wrong=0.0, seconds=60.0) as fresh:
        replies.put(num_right(fresh))


def in_thread(verifier: Verifier) -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(num_right(verifier)))
    thread.start()
    thread.join()
    return found[0]


def in_event_loop(verifier: Verifier) -> int:
    async def ask() -> int:
        here = num_right(verifier)
        there = await asyncio.to_thread(num_right, verifier)
        assert here == there
        return here

    return asyncio.run(ask())


def in_fork(verifier: Verifier) -> int:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, bytes([num_right(verifier)]))
        verifier.close()
        os._exit(0)
    os.close(writing)
    (found,) = os.read(reading, 1) or [0]
    os.waitpid(pid, 0)
    os.close(reading)
    assert num_right(verifier) == 20, "the fork took the parent's processes from it"
    return found


def in_spawned_process(verifier: Verifier) -> int:
    context = multiprocessing.get_context("spawn")
    replies = context.Queue()
    process = context.Process(target=ask_afresh, args=(replies,))
    process.start()
    found = replies.get(timeout=300)
    process.join()
    return found


class Actor:
    """Lives in a thread of its own, gets its calls from a queue and answers with futures, as Ray's actors do."""

    def __init__(self, make: Callable[[], Verifier]) -> None:
        self._calls: queue.Queue[tuple[Future[int], Callable[[Verifier], int]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._live, args=(make,))
        self._thread.start()

    def _live(self, make: Callable[[], Verifier]) -> None:
        with make() as verifier:
            while (call := self._calls.get()) is not None:
                call[0].set_result(call[1](verifier))

    def ask(self, function: Callable[[Verifier], int]) -> Future[int]:
        future: Future[int] = Future()
        self._calls.put((future, function))
        return future

    def end(self) -> None:
        self._calls.put(None)
        self._thread.join()


def in_actor(verifier: Verifier) -> int:
    actor = Actor(lambda: Verifier(STYLE, right=1.0, wrong=0.0, seconds=60.0))
    futures = [actor.ask(num_right) for _ in range(2)]
    found = {future.result(timeout=300) for future in futures}
    actor.end()
    return found.pop()


@pytest.mark.parametrize(
    "context", [num_right, in_thread, in_event_loop, in_fork, in_spawned_process, in_actor], ids=lambda c: c.__name__
)
def test_all_known_answers_are_right_wherever_they_are_asked(
    context: Callable[[Verifier], int], verifier: Verifier
) -> None:
    assert context(verifier) == 20
