"""Grading beside the engine: the same record as between its results, and nothing that outlives the round."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from burnish.evaluate import evaluate
from burnish.grading import Grading
from burnish.protocols import Publication
from burnish.rewards.worker import ClosedError, Worker
from burnish.rollout.scripted import ScriptedEngine
from burnish.train import Run, train
from burnish.types import Completion, Prompt, Sampling, Score
from tests.fakes import make_run, questions, yes_is_right
from tests.unit.test_worker import eventually, is_running

SECONDS = 60.0
"""For what happens at once; a test that waits as long fails."""
PROMPTS = questions(8)


class Slow:
    """A reward that waits at one prompt until it is let go; then it fails there, if it is told to."""

    def __init__(self, prompt_id: str, error: Exception | None = None) -> None:
        self.prompt_id = prompt_id
        self.error = error
        self.began, self.released = threading.Event(), threading.Event()
        self.seen: list[str] = []
        self.threads: set[str] = set()

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Score]:
        self.seen.append(prompt.id)
        self.threads.add(threading.current_thread().name)
        if prompt.id == self.prompt_id:
            self.began.set()
            assert self.released.wait(SECONDS), "nobody went on meanwhile"
            if self.error is not None:
                raise self.error
        return yes_is_right(prompt, completions)


@pytest.fixture(autouse=True)
def _nothing_outlives_a_test() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if "grading" in thread.name] == []


def half_right(prompt: Prompt, sample: int, seed: int) -> str:
    return "yes" if sample % 2 else "no"


def last_first(requests):
    return reversed(list(requests))


def overlapping(slow: Slow, script=half_right, **plan) -> Run:
    return replace(make_run(script, **plan), reward=slow, end_grading=slow.released.set)


def test_the_engine_goes_on_while_a_group_is_graded() -> None:
    """The first group's grades come only when the engine is at the last: one after the other would never end."""
    slow = Slow("q0")

    def script(prompt: Prompt, sample: int, seed: int) -> str:
        if prompt.id == "q3":
            assert slow.began.wait(SECONDS), "grading waits for the engine"
            slow.released.set()
        return half_right(prompt, sample, seed)

    run = overlapping(slow, script)
    train(run)
    assert slow.seen == ["q0", "q1", "q2", "q3"]
    assert len(slow.threads) == 1
    assert threading.main_thread().name not in slow.threads


@pytest.mark.parametrize("order", [tuple, last_first])
def test_reward_and_record_see_what_they_see_without_overlap(order) -> None:
    rewards = Slow(""), Slow("")
    plain, beside = (
        replace(make_run(half_right, order=order, steps=2), reward=reward, end_grading=end_grading)
        for reward, end_grading in zip(rewards, (None, lambda: None), strict=True)
    )
    train(plain)
    train(beside)
    assert [step.judged for step in plain.store.steps] == [step.judged for step in beside.store.steps]
    assert rewards[0].seen == rewards[1].seen
    assert rewards[0].threads == {threading.main_thread().name}


def test_an_evaluation_comes_to_the_same_with_overlap() -> None:
    engine = ScriptedEngine(half_right, order=last_first)
    engine.load(Publication(0, None))
    plain, beside = (
        evaluate(
            engine,
            yes_is_right,
            PROMPTS,
            suite="held-out",
            step=0,
            policy_version=0,
            samples=2,
            sampling=Sampling(max_new_tokens=8),
            seed=1,
            greedy=True,
            end_grading=end_grading,
        )
        for end_grading in (None, lambda: None)
    )
    assert plain == beside


def test_grading_is_timed_as_waiting_and_as_work() -> None:
    slow = Slow("q0")
    slow.released.set()
    run = overlapping(slow)
    train(run)
    (step,) = run.store.steps
    assert {"time/generate", "time/reward", "time/grading"} <= step.metrics.keys()


def test_a_fault_rises_from_the_loop_and_no_step_is_made_of_it() -> None:
    slow = Slow("q1", LookupError("no such thing"))
    slow.released.set()
    run = overlapping(slow)
    with pytest.raises(LookupError, match="no such thing"):
        train(run)
    assert run.store.steps == []
    assert run.learner.steps == 0


def test_a_fault_stops_the_engine_at_the_next_group() -> None:
    slow = Slow("q0", LookupError("no such thing"))
    with Grading(slow, end_call=slow.released.set) as grading:
        grading.add(0, PROMPTS[0], ())
        grading.add(1, PROMPTS[1], ())
        slow.released.set()
        assert grading._asked[0].scores.exception(SECONDS) is slow.error
        with pytest.raises(LookupError, match="no such thing"):
            grading.add(2, PROMPTS[2], ())
    assert slow.seen == ["q0"]  # and none behind it was graded


def test_a_dropped_round_ends_the_call_under_way_and_begins_no_other() -> None:
    slow = Slow("q0", ClosedError())

    def script(prompt: Prompt, sample: int, seed: int) -> str:
        if prompt.id == "q2":
            assert slow.began.wait(SECONDS)
            raise KeyboardInterrupt
        return half_right(prompt, sample, seed)

    with pytest.raises(KeyboardInterrupt):
        train(overlapping(slow, script))
    assert slow.released.is_set()
    assert slow.seen == ["q0"]


def test_a_call_that_did_not_hear_is_told_again() -> None:
    """It may be between two things that can be ended when it is told for the first time."""
    slow, told = Slow("q0", ClosedError()), []

    def end_call() -> None:
        told.append(1)
        if len(told) == 3:
            slow.released.set()

    with Grading(slow, end_call=end_call) as grading:
        grading.add(0, PROMPTS[0], ())
        assert slow.began.wait(SECONDS)
    assert len(told) == 3


def test_a_worker_that_is_closed_ends_the_call_of_another_thread() -> None:
    """Long before the job's deadline; afterwards it starts again when asked."""

    def reward(prompt: Prompt, completions: Sequence[Completion]) -> Sequence[Score]:
        worker.call("nap", seconds=600.0)
        raise AssertionError("it slept to the end")

    with Worker("tests.unit.grading_jobs", seconds=600.0) as worker:
        worker.call("double", number=1)
        (pid,) = worker.pids
        with Grading(reward, end_call=worker.close) as grading:
            grading.add(0, PROMPTS[0], ())
            assert eventually(lambda: bool(worker._busy), SECONDS)
        assert isinstance(grading._asked[0].scores.exception(0.0), ClosedError)
        assert not is_running(pid)
        assert worker.call("double", number=2).value == 4
