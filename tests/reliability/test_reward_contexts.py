"""A verdict does not depend on who asks: the usual failure is a grader that says wrong to everything off the main
thread."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, get_args

import pytest

from burnish.launch import session
from burnish.rewards import verify
from burnish.rewards.equivalence import Judgement
from burnish.rewards.extract import Style
from burnish.rewards.known import known_answers
from burnish.rewards.verify import Verifier
from burnish.store import queries
from tests.e2e.conftest import TINY_STEPS, Command

pytestmark = [pytest.mark.slow, pytest.mark.reliability(7)]

ModelDir = Callable[[str], Path]
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


# -- a grader that is broken -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", get_args(Style))
def test_every_style_has_twenty_known_answers_and_gets_them_right(style: Style) -> None:
    assert len(set(known_answers(style))) == 20
    with Verifier(style, right=1.0, wrong=0.0, seconds=60.0) as verifier:
        verifier.check()


def say_wrong(answers: Sequence[str], gold: str, worker: object) -> list[Judgement]:
    return [Judgement("wrong")] * len(answers)


def test_a_grader_that_says_wrong_to_everything_stops_the_command_before_its_first_step(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "judge_all", say_wrong)
    words = [f"model.path={model_dir('llama')}", f"data.train={sums}", "reward.style=auto", f"out={tmp_path / 'run'}"]
    ended = burnish("train", *TINY_STEPS, *words)
    assert ended.code == 3
    assert (
        "the answer check (style auto) cannot be trusted: of '\\\\boxed{540}' where '540' is wanted it says wrong"
        in ended.err
    )
    assert not (tmp_path / "run/run.sqlite").exists()


def test_a_grader_that_breaks_during_a_run_stops_it_and_the_record_is_kept(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge_all, checks = verify.judge_all, iter(range(1000))
    monkeypatch.setattr(session, "CHECK_EVERY", 1)
    monkeypatch.setattr(
        verify,
        "judge_all",
        lambda *asked: (judge_all if next(checks) < 25 else say_wrong)(*asked),
    )
    words = [f"model.path={model_dir('llama')}", f"data.train={sums}", "reward.style=auto", f"out={tmp_path / 'run'}"]
    ended = burnish("train", *TINY_STEPS, *words)
    assert ended.code == 3
    assert "the answer check (style auto) cannot be trusted" in ended.err
    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        assert [row["step"] for row in queries.steps(db)] == [1]
    db.close()
