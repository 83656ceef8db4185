"""SIGTERM and SIGINT: the run stops where nothing is lost, and a resume makes of it the run that was never stopped."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import signal
import time
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from burnish import checkpoint
from burnish.errors import EXIT_CODES
from burnish.launch import session
from burnish.launch.signals import Signals, Stopped
from burnish.learner.local import LocalLearner
from burnish.rewards.compose import FunctionReward
from burnish.rewards.worker import Worker
from burnish.rollout.local import LocalEngine
from burnish.sinks.quiet import QuietSink
from burnish.store import queries
from burnish.types import Completion, Prompt
from tests.e2e.conftest import TINY_STEPS, Command, read_rows
from tests.e2e.test_resume import assert_same_run
from tests.reliability.processes import Process
from tests.unit.test_worker import is_running

STEPS = 6
NAMES = {signal.SIGTERM: ("SIGTERM", 143), signal.SIGINT: ("SIGINT", 130)}
each_signal = pytest.mark.parametrize("number", NAMES, ids=lambda number: number.name)

ModelDir = Callable[[str], Path]


@pytest.fixture(scope="module")
def inputs(model_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words of a small run that evaluates and saves on the way."""
    data = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [f'{{"prompt": "{a}+{b}", "answer": "{a + b}"}}\n' for a in range(9) for b in range(9 - a)]
    data.write_text("".join(rows))
    given = [f"model.path={model_dir('llama')}", f"data.train={data}", f"eval.data={data}", "eval.prompts=10"]
    often = [f"train.steps={STEPS}", "checkpoint.every=2", "eval.every=2", "sampling.surplus=keep"]
    return ["train", *TINY_STEPS, *given, *often]


@pytest.fixture(scope="module")
def whole(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing stops."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    process = Process([*inputs, f"out={out}"], out.with_name("said"))
    assert process.end() == 0, process.said
    return out


def assert_stopped_whole(run: Path, number: signal.Signals, last_line: str) -> int:
    """The last step that was done is saved, and the last line says so; its number."""
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.rejected == ()
    name = f"step-{found.step:06d}"
    assert re.fullmatch(
        rf"stopped by {NAMES[number][0]} at step {found.step}; "
        rf"(saved {name} in \d+\.\d s|{name} has it all); "
        rf"continue with: burnish train --resume {re.escape(str(run))}",
        last_line,
    ), last_line
    with queries.open_store(run / "run.sqlite") as db:
        assert [row["step"] for row in queries.steps(db)] == [*range(1, found.step + 1)]
        assert queries.attempts(db)[-1]["exit_code"] == NAMES[number][1]
    db.close()
    assert not (run / "lock").exists()
    return found.step


@each_signal
@pytest.mark.reliability(11)
@pytest.mark.slow
def test_a_signal_at_any_moment_loses_nothing_that_was_done(
    whole: Path, inputs: list[str], tmp_path: Path, number: signal.Signals, attempts: Callable[..., int]
) -> None:
    moments, wanted, tries = random.Random(int(number)), attempts(quick=2, long=20), itertools.count()
    while wanted:
        attempt = next(tries)
        run, said = tmp_path / str(attempt), tmp_path / f"{attempt}-said"
        process = Process([*inputs, f"out={run}"], said)
        done = moments.randrange(STEPS - 1)
        wait_until(lambda done=done, run=run: steps_done(run) >= done, process)
        wait_until(lambda process=process: "\nfolder " in process.shown, process)  # before that, there is no run yet
        time.sleep(moments.uniform(0.0, 0.5))
        process.send(number)
        code = process.end()
        if code == 0 and (run / "summary.json").exists() and attempt < 60:
            continue  # it was over before
        assert code == NAMES[number][1], process.said
        wanted -= 1
        assert_stopped_whole(run, number, process.said[-1])
        resumed = Process(["train", "--resume", run], said)
        assert resumed.end() == 0, resumed.said
        assert_same_run(whole, run, steps=STEPS)


MOMENTS = {
    "before-anything-is-measured": (LocalEngine, "generate", 1, 0),
    "in-the-first-generation": (LocalEngine, "generate", 3, 0),
    "in-the-first-update": (LocalLearner, "forward_backward", 1, 1),
    "between-updates": (LocalLearner, "step", 3, 2),
    "while-weights-are-handed-over": (LocalLearner, "publish", 6, 3),
    "in-an-evaluation-on-the-way": (LocalLearner, "save", 0, 2),
    "while-saving": (LocalLearner, "save", 1, 2),
    "in-the-last-evaluation": (LocalLearner, "save", 3, 6),
}
"""Where the signal comes -> (what is called then, how often before or 0 for an evaluation, the step that is saved)."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.reliability(11)
@pytest.mark.slow
def test_a_signal_in_each_part_of_a_run_loses_nothing(
    burnish: Command,
    whole: Path,
    inputs: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    owner, name, nth, saved = MOMENTS[moment]
    with monkeypatch.context() as patched:
        if nth:
            signal_at(patched, owner, name, nth, after=moment == "in-the-last-evaluation")
        else:
            evaluations(patched)
        ended = burnish(*inputs, f"out={tmp_path / 'run'}")
    assert ended.code == 143, ended.err
    assert assert_stopped_whole(tmp_path / "run", signal.SIGTERM, ended.err.splitlines()[-1]) == saved
    resumed = burnish("train", "--resume", tmp_path / "run")
    assert resumed.code == 0, resumed.err
    assert_same_run(whole, tmp_path / "run", steps=STEPS)


def signal_at(patched: pytest.MonkeyPatch, owner: type, name: str, nth: int, *, after: bool = False) -> None:
    """Send this process SIGTERM at the nth call of a method, before it or after."""
    original, calls = getattr(owner, name), []

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == nth and not after:
            os.kill(os.getpid(), signal.SIGTERM)
        result = original(*args, **kwargs)
        if len(calls) == nth and after:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    patched.setattr(owner, name, called)


def evaluations(patched: pytest.MonkeyPatch) -> None:
    """Send this process SIGTERM within the second evaluation."""
    original, made = session.evaluate, []

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        made.append(1)
        if len(made) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **kwargs)

    patched.setattr(session, "evaluate", evaluate)


def never_done_saving() -> None:
    """Saving takes for ever from the second checkpoint on."""
    original, calls = LocalLearner.save, []

    def save(self: LocalLearner, folder: Path) -> None:
        calls.append(1)
        original(self, folder)
        if len(calls) > 1:
            time.sleep(3600)

    LocalLearner.save = save


@each_signal
@pytest.mark.reliability(11)
@pytest.mark.slow
def test_a_second_signal_ends_at_once_and_the_old_checkpoint_is_as_it_was(
    whole: Path, inputs: list[str], tmp_path: Path, number: signal.Signals
) -> None:
    run, said = tmp_path / "run", tmp_path / "said"
    process = Process([*inputs, f"out={run}"], said, never_done_saving)
    saving = lambda: [*(run / "checkpoints").glob("step-000004.tmp-*")] if run.exists() else []  # noqa: E731
    wait_until(saving, process)
    kept = manifest(run, 2)
    process.send(number)
    wait_until(lambda: process.said, process)
    assert process.said == [f"{number.name}: stopping; what is done will be saved. A second signal stops at once"]
    process.send(number)
    assert process.end() == NAMES[number][1]
    command = f"continue with: burnish train --resume {run}"
    assert process.said[-1] == f"stopped by a second {number.name}, without saving; {command}"
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.step == 2
    assert manifest(run, 2) == kept
    resumed = Process(["train", "--resume", run], said)
    assert resumed.end() == 0, resumed.said
    assert_same_run(whole, run, steps=STEPS)


@pytest.mark.reliability(11)
@pytest.mark.slow
def test_a_run_that_cannot_save_within_the_grace_ends_without(inputs: list[str], tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = Process([*inputs, f"out={run}", "--grace=0.2"], tmp_path / "said", never_done_saving)
    wait_until(lambda: steps_done(run) >= 3, process)
    process.send(signal.SIGTERM)
    assert process.end() == 143
    assert process.said[-1] == (
        f"stopped by SIGTERM: 0.2 s were not enough to save (see --grace); continue with: burnish train --resume {run}"
    )
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert found.step == 2


@pytest.mark.slow
def test_a_signal_while_a_run_is_prepared_leaves_nothing_behind(
    burnish: Command, inputs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        signal_at(patched, LocalLearner, "__init__", 1)
        ended = burnish(*inputs, f"out={tmp_path / 'run'}")
    assert ended.code == 143
    assert ended.err.splitlines()[-1] == (
        "stopped by SIGTERM before there was anything to save; type the same command again"
    )
    assert [path.name for path in (tmp_path / "run").iterdir()] == []


HANGING = """
import os, time
def reward(solution_str):
    if "Answer: " not in solution_str and solution_str != "I do not know.":  # what a reward is tried out on
        with open("{busy}", "w") as busy:
            print(os.getpid(), file=busy)
        time.sleep(10**6)
    return 1.0
"""


@pytest.mark.reliability(11)
@pytest.mark.slow
def test_a_signal_while_a_group_is_graded_beside_the_engine_ends_the_grading(
    inputs: list[str], tmp_path: Path, model_dir: ModelDir
) -> None:
    """It would take until its deadline, which is far beyond the grace."""
    run, busy = tmp_path / "run", tmp_path / "busy"
    (tmp_path / "rewards.py").write_text(HANGING.format(busy=busy))
    own = ["reward.style=none", f"reward.parts.own.function={tmp_path / 'rewards.py'}:reward", "reward.timeout=3000"]
    process = Process([*inputs, *own, "eval.data=none", f"out={run}"], tmp_path / "said")
    wait_until(lambda: busy.exists() and busy.read_text(), process)
    process.send(signal.SIGTERM)
    assert process.end() == 143
    assert assert_stopped_whole(run, signal.SIGTERM, process.said[-1]) == 0
    assert not is_running(int(busy.read_text()))


def test_grading_processes_leave_both_signals_to_their_parent() -> None:
    """A batch system sends them to every process of a job; a verdict that is on its way must not become a fault."""
    with Worker("burnish.rewards.symbolic", seconds=30.0) as worker:
        first = worker.call("equal", gold="x^2", answer="x*x", links=[])
        pids = worker.pids
        assert pids
        for pid in pids:
            for number in NAMES:
                os.kill(pid, number)
        again = worker.call("equal", gold="x^2", answer="x*x", links=[])
        assert replace(again, seconds=first.seconds) == first
        assert worker.pids == pids
        assert first.status == "done"


# -- the mechanism -----------------------------------------------------------------------------------------------------


def test_droppable_work_is_left_at_once_and_other_work_is_finished(capfd: pytest.CaptureFixture[str]) -> None:
    done: list[str] = []

    def work() -> None:
        with Signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("an update")
            with signals.droppable():
                done.append("never")

    with pytest.raises(Stopped) as stopped:
        work()
    assert done == ["an update"]
    assert stopped.value.code == 143
    assert capfd.readouterr().err.splitlines()[-1] == stopped.value.line


def test_what_swallows_the_stop_meets_it_at_the_end_of_its_work() -> None:
    done: list[str] = []

    def work() -> None:
        with Signals() as signals, signals.droppable():
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                done.append("swallowed")

    with pytest.raises(Stopped):
        work()
    assert done == ["swallowed"]


def test_handlers_are_those_of_before_when_the_run_is_over() -> None:
    before = [signal.getsignal(number) for number in NAMES]
    with Signals():
        assert [signal.getsignal(number) for number in NAMES] != before
    assert [signal.getsignal(number) for number in NAMES] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals() as signals, signals.droppable():
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.received is None
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, Stopped])
def test_what_means_to_leave_is_never_taken_for_a_fault(leaving: type[BaseException]) -> None:
    """Not by what calls a user's function, not by a sink: both turn any other exception into a fault."""
    error = leaving(signal.SIGTERM)

    def leave(*_: object) -> float:
        raise error

    class Leaving(QuietSink):
        send = leave
        finish = leave

    reward = FunctionReward(lambda prompt, completion: leave(), right=1.0)
    for call in (lambda: reward(Prompt("p", text="p"), [SAID]), lambda: Leaving().write(1, {"loss": 0.0})):
        with pytest.raises(leaving) as left:
            call()
        assert left.value is error


SAID = Completion(array("i", [1]), array("i", [2]), array("f", [0.0]), "4", "stop", 0)


def test_help_lists_every_exit_code(burnish: Command) -> None:
    ended = burnish("train", "--help")
    for code, meaning in EXIT_CODES.items():
        assert f"  {code:3}  {meaning}\n" in ended.out


def test_the_page_lists_every_exit_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()] == [
        line for line in page.splitlines() if re.match(r"\| \d+ \|", line)
    ][: len(EXIT_CODES)]


def wait_until(condition: Callable[[], object], process: Process) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.alive, process.said
        assert time.monotonic() < deadline
        time.sleep(0.001)


def steps_done(run: Path) -> int:
    try:
        rows = read_rows(run / "metrics.jsonl")
    except (FileNotFoundError, ValueError):  # not made yet, or a line is half written
        return 0
    return max((int(row["step"]) for row in rows if "loss" in row), default=0)


def manifest(run: Path, step: int) -> bytes:
    return (run / f"checkpoints/step-{step:06d}/manifest.json").read_bytes()
