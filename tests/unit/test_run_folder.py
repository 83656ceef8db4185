from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from burnish import lock
from burnish.errors import StorageError
from burnish.lock import InUseError
from burnish.run_folder import RunFolder

HOLD = """
import os, sys
from pathlib import Path
from burnish.run_folder import RunFolder
folder = RunFolder.open_new(Path(sys.argv[1]))
folder.write_config({"seed": 1})
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    """Another process that holds the folder; it says when it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_new_folder_is_made_with_its_parents_and_everything_has_its_place(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "runs" / "add23-1") as folder:
        assert folder.path == tmp_path / "runs" / "add23-1"
        assert folder.note is None
        names = {
            p.relative_to(folder.path).as_posix()
            for p in (
                folder.config_path,
                folder.metrics_path,
                folder.store_path,
                folder.tensorboard_path,
                folder.checkpoints_path,
                folder.curves_path,
                folder.summary_path,
            )
        }
    assert names == {
        "config.json", "metrics.jsonl", "run.sqlite", "tensorboard", "checkpoints", "curves.png", "summary.json"
    }  # fmt: skip
    assert list(folder.path.iterdir()) == [], "the lock goes with its holder"


def test_a_folder_with_a_run_in_it_is_refused_with_both_ways_out(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_config({"seed": 1})

    with pytest.raises(ValueError, match=r"is not empty \(it has config.json\).*--resume .*/run`.*out="):
        RunFolder.open_new(tmp_path / "run")
    assert [p.name for p in folder.path.iterdir()] == ["config.json"]


def test_a_folder_with_other_things_in_it_is_refused_and_not_touched(tmp_path: Path):
    for n in range(6):
        (tmp_path / "things").mkdir(exist_ok=True)
        (tmp_path / "things" / f"{n}.txt").write_text("mine")

    with pytest.raises(ValueError, match=r"it has 0.txt, 1.txt, 2.txt, 3.txt and 2 more\): type another out="):
        RunFolder.open_new(tmp_path / "things")
    assert len(list((tmp_path / "things").iterdir())) == 6


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match=r"cannot make the run folder .*run is no folder"):
        RunFolder.open_new(tmp_path / "run")


@pytest.mark.reliability(33)
@pytest.mark.parametrize(
    "name", ["-rf", ".hidden", "a b", "x\n", "run\x1b[2J", "a" * 101, "r\u00fcn", "~", "$(id)", "a;b"]
)
def test_hostile_names_are_refused_and_nothing_is_made(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="the run folder's name is"):
        RunFolder.open_new(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "run-1", "Run_2.b", "0", "a" * 100])
def test_plain_names_are_fine(tmp_path: Path, name: str):
    with RunFolder.open_new(tmp_path / name) as folder:
        assert folder.path.is_dir()


def test_dots_in_a_path_are_resolved_before_the_name_is_judged(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "x" / ".." / "run") as folder:
        assert folder.path == tmp_path / "run"


def test_an_existing_run_is_taken_up_with_its_config(tmp_path: Path):
    config = {"seed": 1, "data": {"system": "gr\u00fcezi \ud800"}, "rates": [1e-6]}
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_config(config)
    with RunFolder.open_existing(tmp_path / "run") as folder:
        assert folder.read_config() == config


@pytest.mark.parametrize("make", [False, True])
def test_a_folder_without_a_run_cannot_be_taken_up(tmp_path: Path, make: bool):
    if make:
        (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="is not a run folder: " + ("it has no config" if make else "there is no")):
        RunFolder.open_existing(tmp_path / "run")
    assert (tmp_path / "run").exists() == make


@pytest.mark.parametrize("content", [b"", b'{"seed": 1', b"\xff\xfe", b"[1]", b"[" * 100_000, b'"x"'])
def test_a_damaged_config_is_named(tmp_path: Path, content: bytes):
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.config_path.write_bytes(content)
        with pytest.raises(ValueError, match=r"config\.json (is not valid JSON|holds no JSON object)"):
            folder.read_config()


def test_secrets_do_not_reach_the_folder_and_other_tokens_do(tmp_path: Path):
    config = {
        "sampling": {"max_new_tokens": 64, "tokens_per_piece": 8192},
        "log": {
            "api_key": "abc",
            "wandb_api_key": "abc",
            "token": "abc",
            "password": "",
            "nested": [{"secret": "abc"}],
        },
        "model": {"path": "https://me:abc@host/model", "note": "use hf_abcdefghijklmnopqrstuvwxyz now"},
        "keyboard": "abcd",
    }
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_config(config)
        written = folder.read_config()
    assert written["sampling"] == config["sampling"]
    assert written["log"] == {
        "api_key": "***", "wandb_api_key": "***", "token": "***", "password": "", "nested": [{"secret": "***"}]
    }  # fmt: skip
    assert written["model"] == {"path": "https://***@host/model", "note": "use *** now"}
    assert written["keyboard"] == "abcd"


def test_a_summary_is_strict_json_with_null_for_what_is_no_number(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_summary({"after": {"avg@2": [0.9, 0.86, float("nan")]}, "seconds": float("inf"), "seed": 1})
        found = json.loads(folder.summary_path.read_text(), parse_constant=pytest.fail)
    assert found == {"after": {"avg@2": [0.9, 0.86, None]}, "seconds": None, "seed": 1}


def test_a_write_that_fails_leaves_the_old_content_and_nothing_else(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_summary({"seed": 1})
        code = (
            "import resource, sys; from pathlib import Path; from burnish.checkpoint.durable import write_atomically\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
            "write_atomically(Path(sys.argv[1]), b'x' * 1000)\n"
        )
        run = subprocess.run([sys.executable, "-c", code, str(folder.summary_path)], capture_output=True, text=True)
        assert "StorageError" in run.stderr
        assert "summary.json: file too large" in run.stderr
        assert json.loads(folder.summary_path.read_text()) == {"seed": 1}
        assert sorted(p.name for p in folder.path.iterdir()) == ["lock", "summary.json"]


@pytest.mark.reliability(33)
def test_a_planted_link_is_replaced_and_not_followed(tmp_path: Path):
    outside = tmp_path / "outside.json"
    outside.write_text("precious")
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.summary_path.symlink_to(outside)
        folder.write_summary({"seed": 1})
        assert not folder.summary_path.is_symlink()
    assert outside.read_text() == "precious"


def test_a_storage_error_says_what_cannot_be_written(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.config_path.mkdir()
        with pytest.raises(StorageError, match=r"cannot write .*config\.json: "):
            folder.write_config({})
        folder.config_path.rmdir()


# -- the lock ---------------------------------------------------------------------------------------------------------


def test_a_second_process_is_refused_with_pid_host_and_time(tmp_path: Path):
    process = holder(tmp_path / "run")
    try:
        for opened in (RunFolder.open_new, RunFolder.open_existing):
            with pytest.raises(
                InUseError, match=rf"in use by pid {process.pid} on host {socket.gethostname()} since 2"
            ):
                opened(tmp_path / "run")
    finally:
        stop(process)


def test_the_lock_of_a_killed_process_is_taken_over_with_a_note(tmp_path: Path):
    process = holder(tmp_path / "run")
    stop(process)
    with RunFolder.open_existing(tmp_path / "run") as folder:
        assert folder.note is not None
        assert f"took over the lock that pid {process.pid}" in folder.note
    with RunFolder.open_existing(tmp_path / "run") as folder:
        assert folder.note is None


def test_one_process_cannot_open_a_folder_twice(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_config({})
        with pytest.raises(InUseError, match="by this process already"):
            RunFolder.open_existing(tmp_path / "run")
    RunFolder.open_existing(tmp_path / "run").close()


def test_a_lock_that_this_process_id_left_in_an_earlier_life_is_taken_over(tmp_path: Path):
    """In a container every run may have the same process id."""
    with RunFolder.open_new(tmp_path / "run") as folder:
        folder.write_config({})
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": "2026-01-01 00:00:00"}
    (tmp_path / "run" / "lock").write_text(json.dumps(owner))
    with RunFolder.open_existing(tmp_path / "run") as folder:
        assert "since 2026-01-01 00:00:00" in str(folder.note)


def test_the_lock_of_another_machine_is_never_taken_over(tmp_path: Path):
    (tmp_path / "run").mkdir()
    lock = tmp_path / "run" / "lock"
    lock.write_text(json.dumps({"pid": 1, "host": "far\x1b[2Jaway", "since": "10:31"}))
    with pytest.raises(InUseError, match=r"pid 1 on host far\[2Jaway since 10:31.*remove .*/lock"):
        RunFolder.open_new(tmp_path / "run")
    lock.unlink()
    RunFolder.open_new(tmp_path / "run").close()


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": "x"}', b"[" * 4096, b"null", b'{"pid": 1}'])
def test_a_lock_file_cut_short_by_a_kill_is_no_lock(tmp_path: Path, content: bytes):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_bytes(content)
    RunFolder.open_new(tmp_path / "run").close()


def test_a_refused_second_start_does_not_free_the_folder_for_a_third(tmp_path: Path):
    process = holder(tmp_path / "run")
    try:
        for _ in range(2):
            with pytest.raises(InUseError):
                RunFolder.open_existing(tmp_path / "run")
    finally:
        stop(process)


CONTEND = """
import os, sys
from pathlib import Path
from burnish.lock import InUseError
from burnish.run_folder import RunFolder
path, got = Path(sys.argv[1]), 0
while got < 100:
    try:
        with RunFolder.open_new(path / "run"):
            os.close(os.open(path / "inside", os.O_CREAT | os.O_EXCL))
            os.unlink(path / "inside")
            got += 1
    except InUseError:
        pass
"""


def test_of_many_that_come_and_go_one_at_a_time_is_inside(tmp_path: Path):
    processes = [
        subprocess.Popen([sys.executable, "-c", CONTEND, str(tmp_path)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert errors == ["", "", ""]


def test_a_forked_child_does_not_give_the_lock_back(tmp_path: Path):
    with RunFolder.open_new(tmp_path / "run") as folder:
        child = os.fork()
        if child == 0:
            folder.close()
            os._exit(0)
        os.waitpid(child, 0)
        assert (folder.path / "lock").is_file()


def test_without_kernel_locks_the_process_id_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lock, "_kernel_lock", lambda descriptor: None)
    process = holder(tmp_path / "run")
    try:
        with pytest.raises(InUseError, match=f"pid {process.pid}"):
            RunFolder.open_existing(tmp_path / "run")
    finally:
        stop(process)
    with RunFolder.open_existing(tmp_path / "run") as folder:
        assert f"pid {process.pid}" in str(folder.note)


def test_a_lock_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run" / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="cannot lock"):
        RunFolder.open_new(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "precious"


def test_the_module_loads_without_torch():
    modules = "burnish.run_folder, burnish.checkpoint, burnish.seeds, burnish.evaluate"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
