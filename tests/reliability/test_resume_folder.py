"""One process in a run folder, and one run in one folder."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from burnish.run_folder import RunFolder
from burnish.store import queries
from tests.e2e.conftest import TINY_STEPS, Command

ModelDir = Callable[[str], Path]


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def run(burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path) -> Path:
    """A run that ended."""
    given = [f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={tmp_path / 'run'}", "log.sinks=[]"]
    assert burnish("train", *TINY_STEPS, *given, "checkpoint.every=1").code == 0
    return tmp_path / "run"


def stated(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text(encoding="utf-8"))


def recorded_id(run: Path) -> str:
    with closing(queries.open_store(run / "run.sqlite")) as db:
        return queries.run_info(db)["run_id"]


@pytest.mark.slow
@pytest.mark.reliability(39)
def test_a_copied_folder_is_a_run_of_its_own_and_a_moved_one_is_not(burnish: Command, run: Path) -> None:
    moved, copied = run.with_name("moved"), run.with_name("copied")
    first = stated(run)["run_id"]
    run.rename(moved)
    assert burnish("train", "--resume", moved, "train.steps=3").code == 0
    assert (stated(moved)["run_id"], recorded_id(moved)) == (first, first)

    shutil.copytree(moved, copied)
    resumed = burnish("train", "--resume", copied, "train.steps=4")
    assert resumed.code == 0, resumed.err
    own = stated(copied)["run_id"]
    assert own == recorded_id(copied)
    assert own != first
    assert f"this folder is a copy of run {first}; from now on it is {own}\n" in resumed.out
    assert burnish("train", "--resume", copied, "train.steps=5").code == 0
    assert burnish("train", "--resume", moved, "train.steps=4").code == 0
    assert (stated(copied)["run_id"], stated(moved)["run_id"]) == (own, first)


@pytest.mark.slow
@pytest.mark.reliability(39)
def test_a_stale_lock_is_taken_over_with_a_note(burnish: Command, run: Path) -> None:
    owner = {"pid": dead_pid(), "host": socket.gethostname(), "since": "2026-01-01 10:31:00"}
    (run / "lock").write_text(json.dumps(owner))
    resumed = burnish("train", "--resume", run, "train.steps=3")
    assert resumed.code == 0, resumed.err
    note = f"took over the lock that pid {owner['pid']} on host {owner['host']} since 2026-01-01 10:31:00 left behind"
    assert note in resumed.out


@pytest.mark.reliability(39)
def test_what_a_killed_process_was_writing_is_removed_and_a_new_run_may_begin(tmp_path: Path) -> None:
    """A kill within the first write leaves a folder that is no run yet."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f"config.json.tmp-{dead_pid()}").write_text('{"see')
    with RunFolder.open_new(tmp_path / "run") as folder:
        assert os.listdir(folder.path) == ["lock"]
        folder.write_config({})
        (folder.path / f"run.json.tmp-{dead_pid()}").write_text("{")
        (folder.path / "notes.tmp-1").write_text("somebody's own")
    with RunFolder.open_existing(tmp_path / "run") as folder:
        assert sorted(os.listdir(folder.path)) == ["config.json", "lock", "notes.tmp-1"]


@pytest.mark.slow
@pytest.mark.reliability(39)
def test_a_kill_before_the_run_states_what_it_is_leaves_a_run_that_resumes(burnish: Command, run: Path) -> None:
    """Between config.json and run.json."""
    for path in run.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    resumed = burnish("train", "--resume", run)
    assert resumed.code == 0, resumed.err
    assert "there is no checkpoint yet, so it starts over" in resumed.out
    assert stated(run)["run_id"] == recorded_id(run)


@pytest.mark.slow
@pytest.mark.reliability(39)
def test_what_was_masked_in_the_configuration_is_asked_for_again(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    plugin = tmp_path / "judge.py"
    plugin.write_text(
        "def judge(solution_str, ground_truth, api_key):\n    assert api_key == 'open sesame'\n    return 1.0\n"
    )
    part = [f"reward.parts.judge.function={plugin}:judge", "reward.parts.judge.args.api_key=open sesame"]
    given = [f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={tmp_path / 'run'}", "log.sinks=[]"]
    assert burnish("train", *TINY_STEPS, *given, *part).code == 0
    written = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not [data for data in written if b"sesame" in data]
    key = "reward.parts.judge.args.api_key"
    refused = burnish("train", "--resume", tmp_path / "run", "train.steps=3")
    assert refused.code == 2
    assert refused.err.endswith(f"burnish train --resume {tmp_path / 'run'} {key}=VALUE\n")
    assert burnish("train", "--resume", tmp_path / "run", "train.steps=3", f"{key}=open sesame").code == 0
