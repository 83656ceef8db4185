from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish import checkpoint
from burnish.checkpoint import CheckpointError, manifest
from burnish.checkpoint.restore import steps_on_disk
from burnish.errors import ResumeError, StorageError

STATE = {"step": 1, "rate": 1e-6, "rng": [1, 2, 3], "name": "gr\u00fc\u00dfe \ud800", "none": None}


def write_small(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "tiny"}')
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 4)
    (folder / "resume").mkdir()
    (folder / "resume" / "optimizer.safetensors").write_bytes(b"moments" * 30)
    (folder / "resume" / "empty").write_bytes(b"")


def save(root: Path, step: int, **changed: Any) -> Path:
    arguments = {"write": write_small, "state": STATE | {"step": step}, "keep": 2} | changed
    return checkpoint.save(root, step, **arguments)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


FILES = ("config.json", "manifest.json", "model.safetensors", "resume/optimizer.safetensors", "resume/state.json")

# -- saving -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_comes_back_with_its_state(tmp_path: Path):
    path = save(tmp_path / "checkpoints", 123)

    assert path == tmp_path / "checkpoints" / "step-000123"
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    assert (found.path, found.step, found.state, found.rejected) == (path, 123, STATE | {"step": 123}, ())


def test_the_manifest_names_every_file_with_size_and_sha256(tmp_path: Path):
    path = save(tmp_path, 7)

    found = json.loads((path / "manifest.json").read_text())
    assert (found["format"], found["step"]) == (2, 7)
    assert set(found["files"]) == set(content(path)) - {"manifest.json"}
    for name, data in content(path).items():
        if name != "manifest.json":
            assert found["files"][name] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_without_any_checkpoint_there_is_none(tmp_path: Path):
    assert checkpoint.latest(tmp_path / "nowhere") is None
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.clean(tmp_path / "nowhere") == ()


def test_steps_are_ordered_as_numbers(tmp_path: Path):
    for step in (999_999, 1_000_000, 5):
        save(tmp_path, step, keep=3)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1_000_000


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path):
    save(tmp_path, 5, state={"which": "first"})
    save(tmp_path, 5, state={"which": "second"})

    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.state == {"which": "second"}
    assert names(tmp_path) == ["step-000005"]


def test_a_replacement_that_never_came_puts_the_old_one_back(tmp_path: Path):
    path = save(tmp_path, 5)
    path.rename(tmp_path / f"step-000005.old-{dead_pid()}")

    assert checkpoint.clean(tmp_path) == ("put back step-000005, which was being replaced when its process ended",)
    assert names(tmp_path) == ["step-000005"]
    assert checkpoint.latest(tmp_path) is not None


def test_a_learner_that_fails_leaves_nothing_of_its_checkpoint(tmp_path: Path):
    save(tmp_path, 1)

    def fails(folder: Path) -> None:
        write_small(folder)
        raise RuntimeError("no weights today")

    with pytest.raises(RuntimeError, match="no weights today"):
        save(tmp_path, 2, write=fails)
    assert names(tmp_path) == ["step-000001"]


# -- a full disk ------------------------------------------------------------------------------------------------------


def full(message_only: bool) -> Callable[[Path], None]:
    """A learner that meets a full disk; `message_only` as safetensors reports it."""

    def write(folder: Path) -> None:
        write_small(folder)
        if message_only:
            raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "model.safetensors"))

    return write


@pytest.mark.parametrize("message_only", [False, True])
def test_a_full_disk_is_named_with_bytes_and_the_last_good_checkpoint(tmp_path: Path, message_only: bool):
    save(tmp_path, 40)
    before = content(tmp_path / "step-000040")

    with pytest.raises(
        StorageError,
        match=r"^cannot save step 41: no space left on .* \(needs more than .*, free .*\); last good: step-000040$",
    ):
        save(tmp_path, 41, write=full(message_only))
    assert names(tmp_path) == ["step-000040"]
    assert content(tmp_path / "step-000040") == before


def test_a_disk_with_less_room_than_the_last_checkpoint_took_is_refused_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path, 40)
    usage = type(shutil.disk_usage(tmp_path))(10_000, 9_900, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    written: list[Path] = []

    with pytest.raises(StorageError, match=r"needs 1\.\d kB, free 100 bytes\); last good: step-000040"):
        save(tmp_path, 41, write=written.append)
    assert written == []
    assert names(tmp_path) == ["step-000040"]


def test_the_first_save_on_a_full_disk_has_no_last_good_one(tmp_path: Path):
    with pytest.raises(StorageError, match="last good: none"):
        save(tmp_path / "checkpoints", 1, write=full(False))


SMALL_DISK = """
import sys, os
from pathlib import Path
from burnish import checkpoint
from burnish.errors import StorageError
root = Path(sys.argv[1])
def write(size):
    return lambda folder: (folder / "model.safetensors").write_bytes(os.urandom(size))
checkpoint.save(root, 1, write=write(500_000), state={}, keep=2)
try:
    checkpoint.save(root, 2, write=write(5_000_000), state={}, keep=2)
except StorageError as error:
    print(error)
print(sorted(p.name for p in root.iterdir()), checkpoint.latest(root).step)
"""


def test_a_disk_that_is_really_full_keeps_the_old_checkpoint(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=2m none {disk} && exec {sys.executable} -c "$1" {disk}/checkpoints'
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("user namespaces are not available")
    run = subprocess.run(["unshare", "-rm", "sh", "-c", mount, "sh", SMALL_DISK], capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first.startswith("cannot save step 2: no space left on ")
    assert first.endswith("; last good: step-000001")
    assert second == "['step-000001'] 1"


# -- kills ------------------------------------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
from burnish import checkpoint
root = Path(sys.argv[1])
def write(folder):
    for n in range(40):
        (folder / f"{n}.bin").write_bytes(b"x" * 20_000)
        if n == 1:
            print("writing", flush=True)
        time.sleep(0.005)
for step in range(2, 50):
    checkpoint.save(root, step, write=write, state={"step": step}, keep=2)
"""


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.08, 0.15, 0.205, 0.22, 0.3, 0.5])
def test_a_kill_during_a_slow_save_leaves_the_older_checkpoint_whole(tmp_path: Path, delay: float):
    save(tmp_path, 1)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    left = names(tmp_path)

    notes = checkpoint.clean(tmp_path)
    found = checkpoint.latest(tmp_path)

    assert found is not None
    assert found.rejected == ()
    assert found.state["step"] == found.step
    assert len(notes) == sum(".tmp-" in name for name in left)
    assert not [name for name in names(tmp_path) if "." in name]
    assert names(tmp_path) == [name for name in left if "." not in name]


def test_what_a_kill_left_is_ignored_named_and_removed(tmp_path: Path):
    save(tmp_path, 1)
    before = content(tmp_path / "step-000001")
    slow = SLOW.replace("time.sleep(0.005)", "time.sleep(600)")
    process = subprocess.Popen([sys.executable, "-c", slow, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while not (tmp_path / f"step-000002.tmp-{process.pid}" / "0.bin").exists():
        time.sleep(0.01)
    process.kill()
    process.communicate()

    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert (found.step, found.rejected) == (1, ())
    assert content(found.path) == before
    assert checkpoint.clean(tmp_path) == (f"ignored incomplete step-000002.tmp-{process.pid} (no manifest.json)",)
    assert names(tmp_path) == ["step-000001"]


def test_what_this_process_id_left_in_an_earlier_life_is_removed(tmp_path: Path):
    (tmp_path / f"step-000002.tmp-{os.getpid()}").mkdir()
    (tmp_path / "step-000003.tmp-999999999999999999").mkdir()
    assert len(checkpoint.clean(tmp_path)) == 2
    assert names(tmp_path) == []


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_folder_of_a_living_process_is_left_alone_and_never_taken_for_a_checkpoint(tmp_path: Path):
    aside = tmp_path / f"step-000009.tmp-{os.getppid()}"
    shutil.copytree(save(tmp_path, 1), aside)

    assert checkpoint.clean(tmp_path) == ()
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 1


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_kill_between_the_two_renames_of_a_replacement_loses_nothing(tmp_path: Path, point: str):
    path, pid = save(tmp_path, 5), dead_pid()
    if point == "before":
        path.rename(tmp_path / f"step-000005.old-{pid}")
    else:
        shutil.copytree(path, tmp_path / f"step-000005.old-{pid}")

    checkpoint.clean(tmp_path)
    assert names(tmp_path) == ["step-000005"]
    assert checkpoint.latest(tmp_path) is not None


# -- damage -----------------------------------------------------------------------------------------------------------


def damaged(root: Path) -> str:
    """The sentence about step 2, after checking that step 1 is taken in its place."""
    found = checkpoint.latest(root)
    assert found is not None
    assert found.step == 1
    assert len(found.rejected) == 1
    assert found.rejected[0].startswith("checkpoint step-000002 rejected: ")
    return found.rejected[0].removeprefix("checkpoint step-000002 rejected: ")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    save(tmp_path, 1)
    save(tmp_path, 2)
    return tmp_path


@pytest.mark.parametrize("name", [*FILES, "resume/empty"])
def test_every_deleted_file_is_found_and_named(two: Path, name: str):
    (two / "step-000002" / name).unlink()
    assert damaged(two) == f"{name} is missing"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_every_truncated_file_is_found_and_named(two: Path, name: str, share: float):
    path = two / "step-000002" / name
    size = path.stat().st_size
    os.truncate(path, int(size * share))

    expected = "is not valid JSON" if name == "manifest.json" else f"has {int(size * share)} bytes, the manifest says"
    assert damaged(two).startswith(f"{name} {expected}")


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_every_flipped_bit_is_found_and_named(two: Path, name: str):
    path = two / "step-000002" / name
    data = path.read_bytes()
    for n in range(20):
        position, bit = n * (len(data) - 1) // 19, n % 8
        changed = bytearray(data)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        found, expected = hashlib.sha256(changed).hexdigest(), hashlib.sha256(data).hexdigest()
        assert damaged(two) == (f"{name} sha256 differs from manifest (expected {expected[:8]}.., found {found[:8]}..)")


def test_every_flipped_bit_of_the_manifest_is_found(two: Path):
    path = two / "step-000002" / "manifest.json"
    data = path.read_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 << (position % 8)
        path.write_bytes(changed)
        assert damaged(two)


def test_an_empty_folder_and_a_file_in_its_place_are_rejected(two: Path):
    shutil.rmtree(two / "step-000002")
    (two / "step-000002").mkdir()
    assert damaged(two) == "manifest.json is missing"
    (two / "step-000002").rmdir()
    (two / "step-000002").write_text("")
    assert "step-000002 cannot be read" in damaged(two)


def test_a_file_that_nobody_saved_is_damage_and_a_hidden_one_is_not(two: Path):
    (two / "step-000002" / ".DS_Store").write_text("")
    found = checkpoint.latest(two)
    assert found is not None
    assert found.step == 2
    (two / "step-000002" / "modeling_evil.py").write_text("")
    assert damaged(two) == "modeling_evil.py is not in the manifest"


def test_when_none_is_whole_the_error_says_why_for_each(two: Path):
    (two / "step-000001" / "config.json").unlink()
    os.truncate(two / "step-000002" / "model.safetensors", 0)

    with pytest.raises(
        CheckpointError, match=r"step-000002 rejected: model\.saf.*step-000001 rejected: config\.json is"
    ):
        checkpoint.latest(two)
    assert issubclass(CheckpointError, ResumeError)


def reseal(folder: Path, **changed: Any) -> None:
    """Write a manifest that fits what is there, as somebody who means harm would."""
    step = int(folder.name.removeprefix("step-"))
    (folder / "manifest.json").unlink()
    manifest.seal(folder, step)
    whole = json.loads((folder / "manifest.json").read_text()) | changed
    (folder / "manifest.json").write_text(json.dumps(whole))


@pytest.mark.parametrize(
    "state", [b"[1, 2]", b"", b"\xff", b"[" * 200_000, b'{"a": ' * 100_000, b"1" * 10_000, b'"text"', b"nul", b"{} {}"]
)
def test_a_hostile_state_is_a_rejection_even_with_a_fitting_manifest(two: Path, state: bytes):
    (two / "step-000002" / "resume" / "state.json").write_bytes(state)
    reseal(two / "step-000002")
    assert damaged(two).startswith("resume/state.json ")


@pytest.mark.reliability(21)
def test_a_pickle_for_a_state_is_not_opened(two: Path):
    marker = two / "marker"
    payload = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
    (two / "step-000002" / "resume" / "state.json").write_bytes(payload)
    reseal(two / "step-000002")
    assert "is not valid JSON" in damaged(two)
    assert not marker.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"format": 1},
        {"format": None},
        {"step": 3},
        {"step": "2"},
        {"files": []},
        {"files": {}},
        {"files": {"resume/state.json": 1}},
        {"files": {"resume/state.json": {}}},
        {"files": {"../../outside": {"size": 8, "sha256": "0"}, "resume/state.json": {}}},
        {"files": {"/etc/passwd": {"size": 8, "sha256": "0"}, "resume/state.json": {}}},
        {"files": {"\x1b[2J": {}, "resume/state.json": {}}},
    ],
)
def test_a_hostile_manifest_is_a_rejection_in_plain_characters(two: Path, changed: dict[str, Any]):
    (two / "outside").write_text("precious")
    reseal(two / "step-000002", **changed)
    assert damaged(two).isprintable()


@pytest.mark.reliability(33)
def test_links_within_a_checkpoint_are_not_followed(two: Path):
    model = two / "step-000002" / "model.safetensors"
    shutil.move(model, two / "elsewhere")
    model.symlink_to(two / "elsewhere")
    assert damaged(two) == "model.safetensors is a symbolic link"


def test_a_pipe_within_a_checkpoint_does_not_block(two: Path):
    os.mkfifo(two / "step-000002" / "pipe")
    assert damaged(two) == "pipe is not a regular file"


def test_a_file_that_cannot_be_read_is_a_rejection(two: Path, monkeypatch: pytest.MonkeyPatch):
    bad, read = two / "step-000002" / "model.safetensors", manifest._sha256

    def fails(path: Path) -> str:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return read(path)

    monkeypatch.setattr(manifest, "_sha256", fails)
    assert damaged(two) == "model.safetensors cannot be read (input/output error)"


@pytest.mark.reliability(33)
@pytest.mark.parametrize(
    "name",
    [
        "step-3",
        "step-0000003",
        "step-000003.bak",
        "step--00003",
        "xstep-000003",
        "step-\u0663\u0663\u0663\u0663\u0663\u0663",
        "step-00003a",
    ],
)
def test_names_that_are_not_a_checkpoints_are_neither_read_nor_deleted(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    for step in range(4):
        save(tmp_path, step)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.step == 3
    assert found.rejected == ()
    checkpoint.clean(tmp_path)
    assert names(tmp_path) == sorted([name, "step-000002", "step-000003"])


# -- retention --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [2, 3])
def test_the_newest_stay_whatever_an_earlier_process_left(tmp_path: Path, keep: int):
    for step in range(1, 6):
        save(tmp_path, step, keep=10)
    save(tmp_path, 6, keep=keep)
    assert names(tmp_path) == [f"step-{step:06d}" for step in range(7 - keep, 7)]


def test_a_damaged_checkpoint_does_not_count_as_kept(tmp_path: Path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    os.truncate(tmp_path / "step-000003" / "model.safetensors", 5)
    save(tmp_path, 4)
    assert names(tmp_path) == ["step-000002", "step-000003", "step-000004"]
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-000004", "step-000005"]


def test_nothing_is_deleted_when_the_new_one_does_not_verify(tmp_path: Path):
    save(tmp_path, 1)
    save(tmp_path, 2)

    def rotten(path: Path, step: int) -> None:
        shutil.copytree(tmp_path / "step-000002", path)
        os.truncate(path / "config.json", 1)

    rotten(tmp_path / "step-000003", 3)
    rotten(tmp_path / "step-000004", 4)
    save(tmp_path, 5)
    assert names(tmp_path) == [f"step-{step:06d}" for step in (2, 3, 4, 5)]


def test_a_delete_that_fails_only_warns_and_is_tried_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    heard: list[str] = []
    save(tmp_path, 1)
    save(tmp_path, 2)

    def fails(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fails)
        save(tmp_path, 3, warn=heard.append)
        assert heard == [
            "old checkpoint step-000001 cannot be deleted: permission denied; what is left of it is "
            f"{tmp_path}/step-000001.tmp-{os.getpid()}"
        ]
        (note,) = checkpoint.clean(tmp_path)
        assert "it cannot be removed: permission denied" in note
    assert checkpoint.clean(tmp_path) == (
        f"ignored incomplete step-000001.tmp-{os.getpid()} (its process ended while deleting it)",
    )
    assert names(tmp_path) == ["step-000002", "step-000003"]


def test_a_replaced_checkpoint_that_cannot_be_deleted_only_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    heard: list[str] = []
    save(tmp_path, 1, state={"which": "first"})

    def fails(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", fails)
        save(tmp_path, 1, state={"which": "second"}, warn=heard.append)
    assert len(heard) == 1
    checkpoint.clean(tmp_path)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.state == {"which": "second"}
    assert names(tmp_path) == ["step-000001"]


def test_two_whole_ones_stay_through_thirty_saves_with_faults(tmp_path: Path):
    for step in range(1, 31):
        if step % 7 == 3:
            with pytest.raises(StorageError):
                save(tmp_path, step, write=full(False))
        elif step % 5 == 0:
            with pytest.raises(KeyboardInterrupt):
                save(tmp_path, step, write=interrupted)
        else:
            save(tmp_path, step)
        whole = [path for at, path in steps_on_disk(tmp_path) if manifest.verify(path, at)]
        assert len(whole) == min(2, len([s for s in range(1, step + 1) if s % 7 != 3 and s % 5]))
        assert len(names(tmp_path)) == len(whole)


def interrupted(folder: Path) -> None:
    write_small(folder)
    raise KeyboardInterrupt


@pytest.mark.reliability(33)
def test_nothing_is_deleted_or_written_through_a_link(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "step-000001.tmp-99999999").mkdir()
    root = tmp_path / "checkpoints"
    root.symlink_to(outside)

    with pytest.raises(StorageError, match="is a symbolic link"):
        save(root, 2)
    with pytest.raises(StorageError, match="is a symbolic link"):
        checkpoint.clean(root)
    assert names(outside) == ["step-000001.tmp-99999999"]


@pytest.mark.reliability(33)
def test_a_link_with_a_checkpoints_name_is_rejected_and_what_it_shows_survives(tmp_path: Path):
    root, outside = tmp_path / "checkpoints", tmp_path / "outside"
    for step in (3, 4):
        save(root, step)
    shutil.copytree(root / "step-000004", outside)
    for name in ("step-000001", "step-000009", f"step-000002.tmp-{dead_pid()}"):
        (root / name).symlink_to(outside)
    before = content(outside)

    found = checkpoint.latest(root)
    assert found is not None
    assert (found.step, found.rejected) == (4, ("checkpoint step-000009 rejected: it is a symbolic link",))
    save(root, 5, warn=pytest.fail)
    checkpoint.clean(root)
    assert content(outside) == before
    assert {"step-000001", "step-000004", "step-000005", "step-000009"} <= set(names(root))


def test_fewer_than_two_cannot_be_kept(tmp_path: Path):
    with pytest.raises(AssertionError):
        save(tmp_path, 1, keep=1)
