"""Every checkpoint of a run leads to the same end; a damaged one is never loaded; and two whole ones always stay."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from burnish import checkpoint
from tests.e2e.conftest import TINY_STEPS, Command
from tests.reliability.same_run import assert_same

ModelDir = Callable[[str], Path]

QUICK = ["log.sinks=[]", "eval.every=0", "eval.greedy=false"]


def tiny(model: Path, data: Path, out: Path, *words: str) -> list[str]:
    return ["train", *TINY_STEPS, *QUICK, f"model.path={model}", f"data.train={data}", f"out={out}", *words]


# -- a checkpoint at every step ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.reliability(2)
def test_every_step_of_a_run_can_be_resumed_from(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, attempts: Callable[..., int]
) -> None:
    """Mini-batches and epochs of 1, 2 and 4, and each of 12 steps: 108 resumes."""
    steps = 12
    cases = [(updates, epochs, step) for updates in (1, 2, 4) for epochs in (1, 2, 4) for step in range(1, steps + 1)]
    chosen = random.Random(1).sample(cases, attempts(quick=3, long=len(cases)))
    for updates, epochs in dict.fromkeys((updates, epochs) for updates, epochs, _ in chosen):
        whole = tmp_path / f"{updates}-{epochs}"
        sizes = [f"train.updates_per_step={updates}", f"train.epochs={epochs}", f"train.steps={steps}"]
        often = ["checkpoint.every=1", f"checkpoint.keep={steps}", "sampling.surplus=keep"]
        assert burnish(*tiny(model_dir("llama"), sums, whole, *sizes, *often)).code == 0
        for step in [s for u, e, s in chosen if (u, e) == (updates, epochs)]:
            run = tmp_path / "run"
            shutil.copytree(whole, run)
            (run / "summary.json").unlink()
            for later in range(step + 1, steps + 1):
                shutil.rmtree(run / f"checkpoints/step-{later:06d}")
            resumed = burnish("train", "--resume", run)
            assert resumed.code == 0, resumed.err
            assert f"resuming from step-{step:06d}; {repeated(steps - step)} will be repeated" in resumed.out
            assert_same(whole, run)
            shutil.rmtree(run)
        shutil.rmtree(whole)


def repeated(steps: int) -> str:
    return {0: "no step", 1: "1 step"}.get(steps, f"{steps} steps")


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(model_dir: ModelDir, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with checkpoints of the last two."""
    from burnish import cli

    folder = tmp_path_factory.mktemp("damaged")
    data = folder / "sums.jsonl"
    rows = [f'{{"prompt": "{a}+{b}", "answer": "{a + b}"}}\n' for a in range(9) for b in range(9 - a)]
    data.write_text("".join(rows))
    words = ["train.steps=4", "checkpoint.every=1", "sampling.surplus=keep"]
    assert cli.main(tiny(model_dir("qwen3"), data, folder / "whole", *words)) == 0
    return folder / "whole"


def damages(size: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Name -> what it does to a file of `size` bytes."""
    yield "deleted", Path.unlink
    for share in (0.0, 0.5, 0.99):
        yield f"cut to {share:.0%}", lambda path, share=share: os.truncate(path, int(size * share))
    for n in range(20):
        yield f"bit {n}", lambda path, n=n: flip(path, n * (size - 1) // 19, n % 8)


def flip(path: Path, position: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        (byte,) = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))


@pytest.mark.slow
@pytest.mark.reliability(8)
def test_every_damage_to_the_newest_checkpoint_is_found_and_named(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(finished / "checkpoints", root)
    newest = root / "step-000004"
    files = [path for path in sorted(newest.rglob("*")) if path.is_file()]
    assert {"model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"} <= {f.name for f in files}
    for path in files:
        data = path.read_bytes()
        for what, damage in damages(len(data)):
            damage(path)
            found = checkpoint.latest(root)
            name = path.relative_to(newest).as_posix()
            assert found is not None
            assert (found.step, len(found.rejected)) == (3, 1), f"{name} {what}"
            assert found.rejected[0].startswith("checkpoint step-000004 rejected: ")
            if name != "manifest.json":  # what a changed manifest says of another file may be the first thing wrong
                assert found.rejected[0].removeprefix("checkpoint step-000004 rejected: ").startswith(f"{name} ")
            path.write_bytes(data)
    assert checkpoint.latest(root) == checkpoint.Found(newest, 4, found_state(newest), ())


def found_state(newest: Path) -> object:
    found = next(checkpoint.whole(newest.parent))
    assert found.path == newest
    return found.state


@pytest.mark.slow
@pytest.mark.reliability(8)
def test_a_run_with_a_damaged_checkpoint_ends_as_the_one_without(
    burnish: Command, finished: Path, tmp_path: Path, attempts: Callable[..., int]
) -> None:
    files = [path for path in sorted((finished / "checkpoints/step-000004").rglob("*")) if path.is_file()]
    for attempt in range(attempts(quick=1, long=2 * len(files))):
        rng = random.Random(attempt)
        run = tmp_path / str(attempt)
        shutil.copytree(finished, run)
        (run / "summary.json").unlink()
        path = run / "checkpoints" / files[attempt % len(files)].relative_to(finished / "checkpoints")
        _, damage = rng.choice(list(damages(path.stat().st_size)))
        damage(path)
        resumed = burnish("train", "--resume", run)
        assert resumed.code == 0, resumed.err
        assert "checkpoint step-000004 rejected: " in resumed.out
        assert "resuming from step-000003; 1 step will be repeated" in resumed.out
        assert_same(finished, run)
        shutil.rmtree(run)


@pytest.mark.reliability(8)
@pytest.mark.slow
def test_without_any_whole_checkpoint_a_run_does_not_start_over(
    burnish: Command, finished: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for step in (3, 4):
        flip(run / f"checkpoints/step-00000{step}/model.safetensors", 1000, 0)
    before = (run / "run.sqlite").read_bytes()
    refused = burnish("train", "--resume", run)
    assert refused.code == 5
    assert refused.err.count("rejected: model.safetensors sha256 differs from manifest (expected ") == 2
    assert refused.err.splitlines()[-1].endswith("or start a new run with another out=")
    assert (run / "run.sqlite").read_bytes() == before


# -- retention ---------------------------------------------------------------------------------------------------------

SAVING = """
import random, shutil, sys
from pathlib import Path
from burnish import checkpoint
root, first, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[2])
remove = shutil.rmtree
def sometimes(path, *args, **kwargs):
    if rng.random() < 0.3 and not kwargs.get("ignore_errors"):
        raise PermissionError(13, "Permission denied", str(path))
    remove(path, *args, **kwargs)
def write(folder):
    for n in range(3):
        (folder / f"{n}.bin").write_bytes(rng.randbytes(20_000))
checkpoint.clean(root)
print("saving", flush=True)
for step in range(first, 31):
    shutil.rmtree = sometimes
    checkpoint.save(root, step, write=write, state={"step": step}, keep=2, warn=lambda text: print(text, flush=True))
    shutil.rmtree = remove
"""


@pytest.mark.slow
@pytest.mark.reliability(40)
def test_two_whole_checkpoints_stay_through_kills_and_failed_deletes(
    tmp_path: Path, attempts: Callable[..., int]
) -> None:
    warned = 0
    for attempt in range(attempts(quick=2, long=20)):
        rng, root, kills = random.Random(attempt), tmp_path / str(attempt), 0
        first = 1
        while first <= 30:
            process = subprocess.Popen(
                [sys.executable, "-c", SAVING, str(root), str(first)], stdout=subprocess.PIPE, text=True
            )
            assert process.stdout is not None
            process.stdout.readline()
            if rng.random() < 0.8:
                time.sleep(rng.random() * 0.1)
                process.send_signal(signal.SIGKILL)
            warned += process.communicate()[0].count("cannot be deleted: permission denied")
            assert process.returncode in (0, -signal.SIGKILL)
            kills += process.returncode != 0
            whole = [found.step for found in checkpoint.whole(root)] if root.exists() else []
            newest = max(whole, default=0)
            assert whole[:2] == [newest, newest - 1][: min(2, newest)]
            assert len(whole) <= 2 + kills  # a kill between a save and its deletions leaves one more, for a while
            first = newest + 1
        checkpoint.clean(root)
        assert sorted(path.name for path in root.iterdir()) == ["step-000029", "step-000030"]
    assert warned
