"""A run that is killed at any moment and resumed is the run that nothing killed, to the last bit."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from burnish import checkpoint
from burnish.checkpoint import manifest
from burnish.timing import Clock
from tests.e2e.conftest import TINY_STEPS
from tests.reliability.processes import Process, nothing
from tests.reliability.same_run import assert_same

pytestmark = pytest.mark.slow

ModelDir = Callable[[str], Path]

PHASES = ("generate", "reward", "learn", "publish", "record", "evaluate", "checkpoint")
STEPS = 6
METHODS = {
    "dapo": ["objective.name=dapo", "sampling.surplus=keep", "data.sampler=history", "data.history.min_variance=0.5"],
    "grpo": ["objective.name=grpo", "objective.kl.coef=0.1", "train.epochs=2", "optimizer.schedule=cosine"],
    "adpo": ["objective.name=adpo", "data.shuffle=false", "optimizer.weight_decay=0.1"],
}
each_method = pytest.mark.parametrize("method", METHODS)


def kill_in(phase: str, entry: int, at_its_end: bool) -> None:
    """Make this process kill itself when it enters (or leaves) a phase for the n-th time."""
    left, original = [entry], Clock.__call__

    class Deadly:
        def __init__(self, clock: Clock, name: str) -> None:
            self._inner, self._counts = original(clock, name), name == phase

        def _count(self) -> None:
            if self._counts:
                left[0] -= 1
                if left[0] <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        def __enter__(self) -> None:
            self._inner.__enter__()
            if not at_its_end:
                self._count()

        def __exit__(self, *error: object) -> bool | None:
            if at_its_end:
                self._count()
            return self._inner.__exit__(*error)  # pyright: ignore[reportArgumentType]

    Clock.__call__ = lambda self, name: Deadly(self, name)  # pyright: ignore[reportAttributeAccessIssue]


def slow_save() -> None:
    """Let every file that a checkpoint syncs take a while."""
    sync = manifest.sync

    def slow(path: Path) -> None:
        time.sleep(0.02)
        sync(path)

    manifest.sync = slow


@pytest.fixture(scope="module")
def inputs(model_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words of a small run that evaluates and saves on the way."""
    data = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [f'{{"prompt": "{a}+{b}", "answer": "{a + b}"}}\n' for a in range(9) for b in range(9 - a)]
    data.write_text("".join(rows))
    given = [f"model.path={model_dir('llama')}", f"data.train={data}", f"eval.data={data}", "eval.prompts=8"]
    often = [f"train.steps={STEPS}", "checkpoint.every=2", "eval.every=3", "log.sinks=[]", "eval.greedy=false"]
    return ["train", *TINY_STEPS, *given, *often]


@pytest.fixture(scope="module")
def whole(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, float]]:
    """A method -> its run that nothing kills, and the seconds that it took."""
    made: dict[str, tuple[Path, float]] = {}

    def run(method: str) -> tuple[Path, float]:
        if method not in made:
            out = tmp_path_factory.mktemp(method) / "whole"
            started = time.monotonic()
            process = Process([*inputs, *METHODS[method], f"out={out}"], out.with_name("said"))
            assert process.end() == 0, process.said
            made[method] = out, time.monotonic() - started
        return made[method]

    return run


def resumed(start: list[str], out: Path, prepare: Callable[[], None] = nothing) -> Process:
    """The command that a person types after a kill: resume, or, where not even the folder was made, start again."""
    begun = (out / "config.json").exists()
    words = ["train", "--resume", out] if begun else [*start, f"out={out}"]
    return Process(words, out.with_name(f"said-{time.monotonic_ns()}"), prepare)


def kill(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended
        process.send(signal.SIGKILL)


def kill_once(start: list[str], out: Path, rng: random.Random, seconds: float) -> bool:
    """Start or resume, and kill: at a random time, or at a random entry of a random phase. False: it ended before."""
    if rng.random() < 0.5:
        process = resumed(start, out, partial(kill_in, rng.choice(PHASES), rng.randint(1, 12), rng.random() < 0.5))
    else:
        process = resumed(start, out)
        time.sleep(rng.random() * seconds)
        kill(process)
    code = process.end()
    assert code in (0, -signal.SIGKILL), process.said
    return code != 0


@each_method
@pytest.mark.reliability(1)
def test_a_run_killed_at_any_moment_and_resumed_is_the_run_that_nothing_killed(
    method: str,
    inputs: list[str],
    whole: Callable[[str], tuple[Path, float]],
    tmp_path: Path,
    attempts: Callable[..., int],
) -> None:
    expected, seconds = whole(method)
    start = [*inputs, *METHODS[method]]
    for attempt in range(attempts(quick=2, long=20)):
        rng = random.Random(f"{method}/{attempt}")
        out = tmp_path / str(attempt) / "run"
        kills = 0
        while kills < 1 + attempt % 3:
            kills += kill_once(start, out, rng, seconds)
            if (out / "summary.json").exists() and kills:
                break
            if (out / "summary.json").exists():
                shutil.rmtree(out)  # it ended before any kill
        last = resumed(start, out)
        assert last.end() == 0, last.said
        assert_same(expected, out)
        assert not [*out.rglob("*.tmp-*")]


@pytest.mark.reliability(9)
def test_a_run_killed_while_it_saves_has_its_older_checkpoints_and_resumes(
    inputs: list[str],
    whole: Callable[[str], tuple[Path, float]],
    tmp_path: Path,
    attempts: Callable[..., int],
) -> None:
    expected, _ = whole("dapo")
    start = [*inputs, *METHODS["dapo"]]
    for attempt in range(attempts(quick=2, long=20)):
        rng, out = random.Random(attempt), tmp_path / str(attempt) / "run"
        process = Process([*start, f"out={out}"], out.with_name("said"), slow_save)
        step = rng.choice((2, 4, 6))
        aside = out / "checkpoints" / f"step-{step:06d}.tmp-{process.pid}"
        while process.alive and not aside.exists():
            time.sleep(0.001)
        time.sleep(rng.random() * 0.3)  # 10 files and folders, 0.02 s each, and the rename
        kill(process)
        assert process.end() == -signal.SIGKILL
        was_saving = aside.exists()

        found = checkpoint.latest(out / "checkpoints")
        assert (found is None) == (step == 2 and was_saving)
        assert found is None or (found.rejected == () and found.step >= step - 2)
        last = resumed(start, out)
        assert last.end() == 0, last.said
        assert (f"ignored incomplete {aside.name} (" in last.shown) == was_saving
        assert not [*out.rglob("*.tmp-*")]
        assert_same(expected, out)
