"""A disk that fills up: what was good stays good, the message says how much is missing, and with room the run goes on.

Each scenario runs in a process with a small disk of its own, where the disk is filled at a chosen moment.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from burnish import checkpoint, cli
from burnish.launch import session
from burnish.learner.local import LocalLearner
from burnish.store.sqlite import SQLiteStore
from burnish.types import Metrics
from tests.e2e.conftest import TINY_STEPS
from tests.e2e.test_resume import assert_same_run
from tests.reliability.processes import Process
from tests.reliability.small_disk import fill, make_room, mount, needs_namespaces

pytestmark = [needs_namespaces, pytest.mark.slow]

ModelDir = Callable[[str], Path]

STEPS = 4
DISK = 24 << 20
PAGE = 4096


@pytest.fixture(scope="module")
def inputs(model_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    data = tmp_path_factory.mktemp("data") / "sums.jsonl"
    rows = [f'{{"prompt": "{a}+{b}", "answer": "{a + b}"}}\n' for a in range(9) for b in range(9 - a)]
    data.write_text("".join(rows))
    words = [f"train.steps={STEPS}", "checkpoint.every=2", f"model.path={model_dir('llama')}", f"data.train={data}"]
    return ["train", *TINY_STEPS, *words]


@pytest.fixture(scope="module")
def whole(inputs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that always has room."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    process = Process([*inputs, f"out={out}"], out.with_name("said"))
    assert process.end() == 0, process.said
    return out


def on_a_small_disk(scenario: Callable[[Path], None], folder: Path) -> None:
    """Run the scenario, given the disk, in a process of its own. Its assertions are this test's."""
    process = Process([], folder / "said", partial(_on_its_disk, scenario, folder / "disk"))
    code = process.end()
    assert code == 0, "\n".join(process.said)


def _on_its_disk(scenario: Callable[[Path], None], disk: Path) -> None:
    mount(disk, DISK)
    scenario(disk)
    sys.exit(0)


# -- scenarios, called on their disk -----------------------------------------------------------------------------------


def command(*words: object) -> tuple[int, list[str]]:
    """Exit code and standard error of one command; what is filled up within it stays full."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        code = cli.main([str(word) for word in words])
    return code, said.getvalue().splitlines()


@contextlib.contextmanager
def calling_first(owner: Any, name: str, nth: int, do: Callable[[], None]) -> Iterator[None]:
    """Within, the nth call of `owner.name` does something else first."""
    original, calls = getattr(owner, name), []

    def called(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            do()
        return original(*args, **kwargs)

    setattr(owner, name, called)
    try:
        yield
    finally:
        setattr(owner, name, original)


def goes_on_as_if_nothing_was(disk: Path, whole: Path) -> None:
    """With room again, the resumed run is the run that always had room; the record is sound."""
    run = disk / "run"
    with contextlib.closing(sqlite3.connect(run / "run.sqlite")) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert not [path.name for path in (run / "checkpoints").iterdir() if ".tmp-" in path.name]
    make_room(disk)
    assert command("train", "--resume", run)[0] == 0
    assert_same_run(whole, run, steps=STEPS)


def full_while_a_checkpoint_is_written(
    inputs: list[str], whole: Path, share: float, foreseen: bool, disk: Path
) -> None:
    """The second checkpoint, of step 4, has room for a share of what it takes; found out before writing or within."""
    run = disk / "run"
    step_2 = run / "checkpoints/step-000002"
    size = sum(path.stat().st_size for path in (whole / "checkpoints/step-000004").rglob("*") if path.is_file())
    kept: list[str] = []

    def fill_up() -> None:
        kept.append(fingerprint(step_2))
        fill(disk, int(size * share))

    owner, name = (session.checkpoint, "save") if foreseen else (LocalLearner, "save")
    with calling_first(owner, name, 2, fill_up):
        code, said = command(*inputs, f"out={run}")
    assert code == 4, said
    amount = r"[\d.]+ (bytes|kB|MB)"
    assert re.fullmatch(
        rf"burnish: cannot save step 4: no space left on {run}/checkpoints "
        rf"\(needs (more than )?{amount}, free {amount}\); last good: step-000002",
        said[0],
    ), said
    assert said[-1] == f"when it can be written again, continue with: burnish train --resume {run}"
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000002"]
    assert fingerprint(step_2) == kept[0]
    goes_on_as_if_nothing_was(disk, whole)


def full_while_the_record_is_written(inputs: list[str], whole: Path, leave: int, disk: Path) -> None:
    run = disk / "run"
    with calling_first(SQLiteStore, "record", 3, partial(fill, disk, leave)):
        code, said = command(*inputs, f"out={run}")
    assert code == 4, said
    assert re.match(rf"burnish: cannot write (.* )?to the store {run}/run.sqlite: ", said[0]), said
    assert said[1:] == [f"when it can be written again, continue with: burnish train --resume {run}"]
    with contextlib.closing(sqlite3.connect(run / "run.sqlite")) as db:
        (last,) = db.execute("SELECT max(step) FROM steps").fetchone()
        assert last == 2, "a step is written whole or not at all"
    goes_on_as_if_nothing_was(disk, whole)


def full_while_metrics_are_logged(inputs: list[str], whole: Path, nth: int, disk: Path) -> None:
    """A log is no reason to stop: the run goes on without it, and what is in it is whole lines."""
    run = disk / "run"
    written = session.Session._write

    def write(this: session.Session, step: int, metrics: Metrics) -> None:
        this.store.flush()  # the record shares the disk, and has its own test
        if step == nth:
            fill(disk, 0)
        written(this, step, metrics | {f"padding/{n}": 0.1 for n in range(PAGE // 16)})
        make_room(disk)

    session.Session._write = write
    code, said = command(*inputs, f"out={run}")
    session.Session._write = written
    assert code == 0, said
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == nth - 1
    assert all(line.endswith("\n") and json.loads(line) for line in lines)
    last = f"checkpoints/step-{STEPS:06d}"
    for name in ("model.safetensors", "resume/optimizer.safetensors"):
        assert (run / last / name).read_bytes() == (whole / last / name).read_bytes()


def full_from_the_start(inputs: list[str], whole: Path, leave: int, disk: Path) -> None:
    """Where the lock, the configuration or the empty record finds no room, nothing is left, and the command can be
    typed again."""
    run = disk / "run"
    run.mkdir()
    fill(disk, leave)
    code, said = command(*inputs, f"out={run}")
    assert code == 4, said
    assert len(said) == 1
    assert re.match(
        rf"burnish: cannot (lock {run} \({run}/lock\)|write {run}/(config|run).json|open the store {run}/run.sqlite): ",
        said[0],
    ), said
    assert [path.name for path in run.iterdir()] == []
    make_room(disk)
    assert command(*inputs, f"out={run}")[0] == 0
    assert_same_run(whole, run, steps=STEPS)


def full_at_the_end(inputs: list[str], whole: Path, what: str, disk: Path) -> None:
    """Pictures and summary, after the last checkpoint: nothing is lost, and a resume writes them."""
    run = disk / "run"
    with calling_first(session, what, 1, partial(fill, disk, 0)):
        code, said = command(*inputs, f"out={run}")
    assert code == 4, said
    assert said[0].startswith(f"burnish: cannot write {run}/curves.png: no space left on device. "), said
    assert said[-1] == f"when it can be written again, continue with: burnish train --resume {run}"
    assert not (run / "summary.json").exists()
    goes_on_as_if_nothing_was(disk, whole)
    assert (run / "curves.png").stat().st_size > 0


def full_for_one_checkpoint(inputs: list[str], whole: Path, disk: Path) -> None:
    """With checkpoint.on_save_error=continue the run says so, goes on, and saves at the next turn."""
    run = disk / "run"
    with (
        calling_first(LocalLearner, "save", 1, partial(fill, disk, 64 * PAGE)),
        calling_first(session.Session, "_after_step", 3, partial(make_room, disk)),
    ):
        code, said = command(*inputs, f"out={run}", "checkpoint.on_save_error=continue")
    assert code == 0, said
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    assert (found.step, len([*(run / "checkpoints").iterdir()])) == (STEPS, 1)
    with contextlib.closing(sqlite3.connect(run / "run.sqlite")) as db:
        ((step, severity, message),) = db.execute("SELECT step, severity, message FROM events WHERE kind = 'save'")
    assert (step, severity) == (2, 3)
    assert message.startswith(f"cannot save step 2: no space left on {run}/checkpoints (needs ")
    assert message.endswith("; last good: none; the run goes on")
    name = f"checkpoints/step-{STEPS:06d}/model.safetensors"
    assert (run / name).read_bytes() == (whole / name).read_bytes()


def fingerprint(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


# -- tests -------------------------------------------------------------------------------------------------------------

LEVELS = 5
"""How full the disk is, from all to a little."""


def levels(attempts: Callable[..., int]) -> range:
    return range(attempts(quick=1, long=LEVELS))


@pytest.mark.reliability(10)
@pytest.mark.parametrize("foreseen", [True, False], ids=["foreseen", "on the way"])
def test_while_a_checkpoint_is_written(
    inputs: list[str], whole: Path, tmp_path: Path, attempts: Callable[..., int], foreseen: bool
) -> None:
    for level in levels(attempts):
        share = (0.5, 0.0, 0.05, 0.25, 0.9)[level]
        scenario = partial(full_while_a_checkpoint_is_written, inputs, whole, share, foreseen)
        on_a_small_disk(scenario, tmp_path / str(level))


@pytest.mark.reliability(10)
def test_while_the_record_is_written(
    inputs: list[str], whole: Path, tmp_path: Path, attempts: Callable[..., int]
) -> None:
    for level in levels(attempts):
        leave = (2, 0, 1, 4, 8)[level] * PAGE
        on_a_small_disk(partial(full_while_the_record_is_written, inputs, whole, leave), tmp_path / str(level))


@pytest.mark.reliability(10)
def test_while_metrics_are_logged(inputs: list[str], whole: Path, tmp_path: Path, attempts: Callable[..., int]) -> None:
    for nth in range(STEPS, STEPS - attempts(quick=1, long=STEPS), -1):
        on_a_small_disk(partial(full_while_metrics_are_logged, inputs, whole, nth), tmp_path / str(nth))


@pytest.mark.reliability(10)
def test_before_the_first_step(inputs: list[str], whole: Path, tmp_path: Path, attempts: Callable[..., int]) -> None:
    for level in levels(attempts):
        leave = (2, 0, 1, 4, 16)[level] * PAGE
        on_a_small_disk(partial(full_from_the_start, inputs, whole, leave), tmp_path / str(level))


@pytest.mark.reliability(10)
def test_after_the_last_checkpoint(inputs: list[str], whole: Path, tmp_path: Path) -> None:
    on_a_small_disk(partial(full_at_the_end, inputs, whole, "curves_png"), tmp_path)


@pytest.mark.reliability(10)
def test_a_run_that_may_go_on_without_a_checkpoint_does(inputs: list[str], whole: Path, tmp_path: Path) -> None:
    on_a_small_disk(partial(full_for_one_checkpoint, inputs, whole), tmp_path)
