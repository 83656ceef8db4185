"""Names of runs and checkpoints cannot lead anywhere else, and nothing is written or deleted through a link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from burnish import checkpoint
from burnish.checkpoint.manifest import step_of
from burnish.run_folder import RunFolder
from tests.e2e.conftest import Command

NAMES = (
    "",
    ".",
    "..",
    "...",
    "../run",
    "../../run",
    "a/../../run",
    "/run",
    "//run",
    "./run",
    ".hidden",
    "-rf",
    "--help",
    "_run",
    " run",
    "run ",
    "ru n",
    "run\n",
    "run\x00",
    "run\x1b[2J",
    "run\t",
    "run\\..\\x",
    "~",
    "~root",
    "$HOME",
    "${HOME}",
    "`id`",
    "$(id)",
    "a;b",
    "a|b",
    "a&b",
    "a*",
    "a?b",
    "a:b",
    "a<b>",
    "r\u00fcn",
    "\u202erun",
    "\uff0e\uff0e",
    "%2e%2e",
    "a" * 101,
)
"""Forty that are no names of runs."""


def everything(folder: Path) -> dict[str, bytes]:
    """Path -> content of all files below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, with things beside it that must stay as they are; the working directory is in it."""
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_text("{}")
    root = tmp_path / "runs"
    root.mkdir()
    monkeypatch.chdir(root)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return root


@pytest.mark.reliability(33)
def test_there_are_forty_hostile_names() -> None:
    assert len(set(NAMES)) == 40


@pytest.mark.reliability(33)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_hostile_name_ends_with_2_and_makes_nothing(burnish: Command, root: Path, name: str) -> None:
    before = everything(root.parent)
    ended = burnish("train", f"name={name}", "out={name}", "train.steps=1")
    assert ended.code == 2, ended.err
    assert not {"\x00", "\x1b", "\u202e"} & set(ended.err)
    assert everything(root.parent) == before
    assert not list(root.iterdir())
    examined = burnish("doctor", f"name={name}", "out={name}", "train.steps=1")
    assert examined.code == 2
    assert not list(root.iterdir())


@pytest.mark.reliability(33)
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_hostile_name_is_no_checkpoint(name: str) -> None:
    assert step_of(name) is None
    assert step_of(f"step-{name}") is None


@pytest.mark.reliability(33)
@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc"])
def test_a_name_cannot_lead_out_of_the_middle_of_a_path(burnish: Command, root: Path, name: str) -> None:
    ended = burnish("train", f"name={name}", "out=runs/{name}/run", "train.steps=1")
    assert ended.code == 2
    assert f"name is {name!r}, and a run's name is part of its folder's" in ended.err
    assert not list(root.iterdir())


@pytest.mark.reliability(33)
def test_a_run_folder_that_is_a_link_is_refused_and_left_alone(burnish: Command, root: Path) -> None:
    target = root.parent / "elsewhere"
    target.mkdir()
    (root / "run").symlink_to(target)
    ended = burnish("train", "out=run", "train.steps=1")
    assert ended.code == 2
    assert f"the run folder is a symbolic link to {target}. Type out={target}" in ended.err
    assert (root / "run").is_symlink()
    assert not list(target.iterdir())


@pytest.mark.reliability(33)
def test_clearing_a_run_follows_no_link(root: Path) -> None:
    other = root.parent / "other"
    (other / "deep").mkdir()
    (other / "deep/file").write_text("x")
    before = everything(root.parent)
    with RunFolder.open_new(root / "run") as folder:
        for path in (folder.checkpoints_path, folder.tensorboard_path):
            path.symlink_to(other)
        for path in (folder.config_path, folder.metrics_path, folder.store_path, folder.summary_path):
            path.symlink_to(other / "config.json")
        folder.clear()
    assert {name: content for name, content in everything(root.parent).items() if name in before} == before


@pytest.mark.reliability(33)
def test_checkpoints_behind_a_link_are_neither_saved_nor_deleted(root: Path) -> None:
    target = root.parent / "elsewhere"
    doomed = target / "step-000001.tmp-1"
    doomed.mkdir(parents=True)
    (doomed / "file").write_text("x")
    os.symlink(target, root / "checkpoints")
    with pytest.raises(OSError, match="is a symbolic link, and nothing is deleted through one"):
        checkpoint.clean(root / "checkpoints")
    with pytest.raises(OSError, match="is a symbolic link, and nothing is deleted through one"):
        checkpoint.save(root / "checkpoints", 2, write=lambda folder: None, state={}, keep=2)
    assert (doomed / "file").read_text() == "x"
    assert [path.name for path in target.iterdir()] == [doomed.name]
