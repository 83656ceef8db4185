"""A run that was stopped and resumed is the run that was never stopped: same weights, same record, to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.launch import session
from burnish.sinks.console import Console
from burnish.store import queries
from burnish.store.compare import first_divergence
from burnish.types import Metrics
from tests.e2e.conftest import TINY_STEPS, Command, read_rows

pytestmark = pytest.mark.slow  # runs of the product, seconds each

ModelDir = Callable[[str], Path]

FOUR_STEPS = ("train.steps=4", "checkpoint.every=2")


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Stops the next run as Ctrl-C would, once step n is recorded and before it is saved."""

    def arrange(step_to_stop: int) -> None:
        class Stopping(Console):
            def step(self, step: int, metrics: Metrics) -> None:
                super().step(step, metrics)
                if step == step_to_stop:
                    monkeypatch.setattr(session, "Console", Console)
                    raise KeyboardInterrupt

        monkeypatch.setattr(session, "Console", Stopping)

    return arrange


def command(model: Path, data: Path, out: Path, *words: str) -> list[str]:
    return ["train", *TINY_STEPS, *FOUR_STEPS, f"model.path={model}", f"data.train={data}", f"out={out}", *words]


def by_step(folder: Path) -> dict[tuple[float, bool], dict[str, float]]:
    """Metrics without those that measure time; of a step that was repeated, the last."""
    rows = read_rows(folder / "metrics.jsonl")
    timeless = [{k: v for k, v in row.items() if not k.startswith(("time/", "throughput/"))} for row in rows]
    return {(row["step"], "loss" in row): row for row in timeless}


def assert_same_run(a: Path, b: Path, *, steps: int = 4) -> None:
    last = f"checkpoints/step-{steps:06d}"
    heads = [p.relative_to(a / last) for p in (a / last / "resume").glob("value_head.safetensors")]
    for name in ("model.safetensors", "resume/optimizer.safetensors", "resume/learner.json", *heads):
        assert (a / last / name).read_bytes() == (b / last / name).read_bytes(), name
    assert by_step(a) == by_step(b)
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (a, b)]
    for key in ("steps", "updates", "held_out", "tokens", "data"):
        assert summaries[0][key] == summaries[1][key]
    with queries.open_store(a / "run.sqlite") as db_a, queries.open_store(b / "run.sqlite") as db_b:
        for db in (db_a, db_b):
            assert [row["step"] for row in queries.steps(db)] == [*range(1, steps + 1)]
        assert first_divergence(db_a, db_b) is None
        assert queries.evaluations(db_a) == queries.evaluations(db_b)
        assert queries.group_strips(db_a) == queries.group_strips(db_b)
    db_a.close()
    db_b.close()


@pytest.mark.parametrize("stopped_at", [1, 2, 3], ids=lambda step: f"stopped-at-{step}")
def test_stopped_and_resumed_is_never_stopped(
    burnish: Command,
    model_dir: ModelDir,
    sums: Path,
    tmp_path: Path,
    stop_at: Callable[[int], None],
    stopped_at: int,
) -> None:
    """Checkpoints are made after steps 2 and 4, so each stop loses the steps since the last one. Stopped at step 1,
    there is none to continue from."""
    words = [f"eval.data={sums}", "eval.every=1", "eval.prompts=10"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert burnish(*command(model_dir("llama"), sums, whole, *words)).code == 0
    stop_at(stopped_at)
    ended = burnish(*command(model_dir("llama"), sums, stopped, *words))
    assert ended.code == 130
    assert ended.err == "interrupted; `burnish train --resume RUN` continues from the last checkpoint\n"

    resumed = burnish("train", "--resume", stopped)
    assert resumed.code == 0, resumed.err
    ended = f"previous attempt ended (KeyboardInterrupt) after step {stopped_at}; "
    assert resumed.out.startswith(
        ended
        + {
            1: "there is no checkpoint yet, so it starts over; 1 step will be repeated\n",
            2: "there is no checkpoint yet, so it starts over; 2 steps will be repeated\n",
            3: "resuming from step-000002; 1 step will be repeated\n",
        }[stopped_at]
    )
    assert_same_run(whole, stopped)
    with queries.open_store(stopped / "run.sqlite") as db:
        first, second = queries.attempts(db)
        assert first["reason"] == "KeyboardInterrupt: "
        assert (second["from_step"], second["exit_code"]) == (2 if stopped_at == 3 else 0, 0)
    db.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["sampling.surplus=keep", "sampling.group_size=4"],
        ["objective.kl.coef=0.1"],
        ["optimizer.schedule=cosine", "optimizer.warmup_updates=3", "optimizer.weight_decay=0.1"],
        ["train.epochs=2"],
        ["data.shuffle=false"],
        ["data.sampler=history", "data.history.min_variance=0.5", "data.limit=12"],
        ["model.dtype=bfloat16"],
        ["objective.name=ppo", "sampling.group_size=1", "sampling.prompts_per_step=8", "train.epochs=2"],
    ],
    ids=lambda words: words[0],
)
def test_what_a_run_carries_from_step_to_step_survives(
    burnish: Command,
    model_dir: ModelDir,
    sums: Path,
    tmp_path: Path,
    stop_at: Callable[[int], None],
    words: list[str],
) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert burnish(*command(model_dir("qwen3"), sums, whole, *words)).code == 0
    stop_at(3)
    assert burnish(*command(model_dir("qwen3"), sums, stopped, *words)).code == 130
    assert burnish("train", "--resume", stopped).code == 0
    assert_same_run(whole, stopped)


def test_groups_kept_for_the_next_step_are_in_the_checkpoint(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    """Else the test of `sampling.surplus=keep` above would prove nothing."""
    words = ["sampling.surplus=keep", "sampling.group_size=4"]
    assert burnish(*command(model_dir("qwen3"), sums, tmp_path / "run", *words)).code == 0
    state = json.loads((tmp_path / "run/checkpoints/step-000002/resume/state.json").read_text())
    assert state["progress"]["surplus"]


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    for out in (whole, damaged):
        assert burnish(*command(model_dir("llama"), sums, out)).code == 0
    weights = damaged / "checkpoints/step-000004/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    (damaged / "summary.json").unlink()
    resumed = burnish("train", "--resume", damaged)
    assert resumed.code == 0, resumed.err
    assert "checkpoint step-000004 rejected: model.safetensors" in resumed.out
    assert "previous attempt ended as planned after step 4; resuming from step-000002; 2 steps will be" in resumed.out
    assert_same_run(whole, damaged)


def test_other_training_data_is_refused_and_the_old_data_is_taken(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    stop_at(3)
    assert burnish(*command(model_dir("llama"), sums, tmp_path / "run")).code == 130
    content = sums.read_text()
    sums.write_text(content.replace('"answer": "8"', '"answer": "9"', 1))
    before = sorted((tmp_path / "run/checkpoints").iterdir())
    refused = burnish("train", "--resume", tmp_path / "run")
    assert refused.code == 5
    assert refused.err.startswith("burnish: sums.jsonl changed: 45 rows, sha256 ")
    assert refused.err.splitlines()[-1].endswith("add to the command: --allow-change data")
    assert sorted((tmp_path / "run/checkpoints").iterdir()) == before
    sums.write_text(content)
    assert burnish("train", "--resume", tmp_path / "run").code == 0


def test_the_same_folder_twice_is_refused_with_what_to_type(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    words = command(model_dir("llama"), sums, tmp_path / "run", "train.steps=1")
    assert burnish(*words).code == 0
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    refused = burnish(*words)
    assert refused.code == 2
    assert refused.err == (
        f"burnish: {tmp_path / 'run'} is not empty (it has checkpoints, config.json, curves.png, metrics.jsonl and 4 "
        f"more): continue the run in it with `burnish train --resume {tmp_path / 'run'}`, or type another out=\n"
    )
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_resuming_a_finished_run_says_so_and_changes_nothing(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    assert burnish(*command(model_dir("llama"), sums, tmp_path / "run")).code == 0
    kept = ("metrics.jsonl", "summary.json", "curves.png", "checkpoints/step-000004/manifest.json")
    before = [(tmp_path / "run" / name).read_bytes() for name in kept]
    ended = burnish("train", "--resume", tmp_path / "run")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "the run is complete: 4 of 4 steps"
    assert [(tmp_path / "run" / name).read_bytes() for name in kept] == before
    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        assert len(queries.attempts(db)) == 1
    db.close()


def test_a_run_stopped_after_its_last_step_still_gets_its_summary(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    words = [f"eval.data={sums}", "eval.prompts=10"]
    assert burnish(*command(model_dir("llama"), sums, tmp_path / "run", *words)).code == 0
    before = json.loads((tmp_path / "run/summary.json").read_text())
    (tmp_path / "run/summary.json").unlink()
    assert burnish("train", "--resume", tmp_path / "run").code == 0
    after = json.loads((tmp_path / "run/summary.json").read_text())
    assert after["held_out"] == before["held_out"]
    assert after["tokens"] == before["tokens"]


def test_a_run_goes_on_where_its_folder_was_moved_to(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    whole, moved = tmp_path / "whole", tmp_path / "elsewhere" / "renamed"
    assert burnish(*command(model_dir("llama"), sums, whole)).code == 0
    stop_at(3)
    assert burnish(*command(model_dir("llama"), sums, tmp_path / "stopped")).code == 130
    moved.parent.mkdir()
    (tmp_path / "stopped").rename(moved)
    resumed = burnish("train", "--resume", moved)
    assert resumed.code == 0, resumed.err
    assert_same_run(whole, moved)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_no_run_cannot_be_resumed(burnish: Command, tmp_path: Path, there: bool) -> None:
    if there:
        (tmp_path / "run").mkdir()
    ended = burnish("train", "--resume", tmp_path / "run")
    assert ended.code == 2
    assert ended.err.startswith(f"burnish: {tmp_path / 'run'} is not a run folder: ")
    assert ended.err.count("\n") == 1


def process_of(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "burnish", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_process_that_a_signal_ends_leaves_a_run_that_resumes_to_the_same_weights(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, how: signal.Signals
) -> None:
    whole, ended = tmp_path / "whole", tmp_path / "ended"
    ten = "train.steps=10"  # the signal must come before the end, however busy the machine is
    assert burnish(*command(model_dir("llama"), sums, whole, ten)).code == 0

    with process_of(command(model_dir("llama"), sums, ended, ten)) as process:
        wait_for(ended / "checkpoints/step-000002", process)
        process.send_signal(how)
        _, said = process.communicate()
    assert not (ended / "summary.json").exists()
    if how is signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
        assert (ended / "lock").exists()
    else:
        assert process.returncode == 130
        assert said.endswith(f"; continue with: burnish train --resume {ended}\n")

    resumed = burnish("train", "--resume", ended)
    assert resumed.code == 0, resumed.err
    assert ("previous attempt ended without a record after step" in resumed.out) == (how is signal.SIGKILL)
    assert (f"took over the lock that pid {process.pid} on host" in resumed.out) == (how is signal.SIGKILL)
    assert_same_run(whole, ended, steps=10)
    assert not (ended / "lock").exists()


@pytest.mark.slow
@pytest.mark.reliability(39)
def test_two_processes_never_write_into_one_folder(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with process_of(command(model_dir("llama"), sums, run, "train.steps=5000")) as process:
        try:
            wait_for(run / "checkpoints/step-000002", process)
            for refused in (
                burnish("train", "--resume", run),
                burnish(*command(model_dir("llama"), sums, run)),
            ):
                assert refused.code == 2
                assert f"is in use by pid {process.pid} on host" in refused.err
                assert refused.err.count("\n") == 1
            assert process.poll() is None
        finally:
            process.kill()
