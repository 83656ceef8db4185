"""Finding the checkpoint to continue from, and clearing away what a killed process left."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from burnish.checkpoint.durable import reason, refuse_link
from burnish.checkpoint.manifest import MANIFEST, DamagedError, folder_name, step_of, verify
from burnish.errors import ResumeError
from burnish.lock import is_alive


class CheckpointError(ResumeError):
    """There are checkpoints and none of them is whole."""


@dataclass(frozen=True, slots=True)
class Found:
    """A checkpoint whose every byte was checked."""

    path: Path
    step: int
    state: Mapping[str, Any]
    """What `save` was given."""
    rejected: tuple[str, ...]
    """One sentence for each newer checkpoint that was passed over."""


def latest(root: Path) -> Found | None:
    """The newest whole checkpoint under `root`; None when there is no checkpoint at all.

    Raises:
        CheckpointError: there are checkpoints, and every one is damaged. The message says how.
    """
    rejected: list[str] = []
    for step, folder in steps_on_disk(root):
        try:
            return Found(folder, step, verify(folder, step), tuple(rejected))
        except DamagedError as damage:
            rejected.append(f"checkpoint {folder.name} rejected: {damage}")
    if rejected:
        raise CheckpointError(
            f"no checkpoint in {root} is whole: {'; '.join(rejected)}. Put back a good copy of one of them, or start "
            "a new run with another out="
        )
    return None


def whole(root: Path) -> Iterator[Found]:
    """Every whole checkpoint under `root`, newest first; each is checked when it is asked for."""
    for step, folder in steps_on_disk(root):
        try:
            yield Found(folder, step, verify(folder, step), ())
        except DamagedError:
            continue


def steps_on_disk(root: Path) -> list[tuple[int, Path]]:
    """Every entry of `root` with a checkpoint's name, whole or not, as (step, path), newest first."""
    if not root.exists():
        return []
    found = [(step, path) for path in root.iterdir() if (step := step_of(path.name)) is not None]
    return sorted(found, reverse=True)


def clean(root: Path) -> tuple[str, ...]:
    """Remove what processes that have ended left half written or half deleted. Call it before the first `save`.

    A checkpoint that was moved aside for its replacement, which then never came, is put back.
    Returns one sentence for each folder.
    """
    refuse_link(root)
    if not root.exists():
        return ()
    notes: list[str] = []
    for path in sorted(root.iterdir()):
        match = re.fullmatch(r"step-([0-9]{6,18})\.(tmp|old)-([0-9]{1,18})", path.name, re.ASCII)
        if match is None or (is_alive(int(match[3])) and int(match[3]) != os.getpid()):
            continue
        target = root / folder_name(int(match[1]))
        if match[2] == "old" and not target.exists():
            path.rename(target)
            notes.append(f"put back {target.name}, which was being replaced when its process ended")
        else:
            notes.append(_remove(path))
    return tuple(notes)


def _remove(path: Path) -> str:
    why = "its process ended while deleting it" if (path / MANIFEST).is_file() else f"no {MANIFEST}"
    try:
        shutil.rmtree(path)
    except OSError as error:
        return f"ignored incomplete {path.name} ({why}); it cannot be removed: {reason(error)}"
    return f"ignored incomplete {path.name} ({why})"
