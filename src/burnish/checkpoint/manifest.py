"""What makes a checkpoint whole: its names, its manifest, and the check of one against the other.

    step-000120/
      model.safetensors, config.json, tokenizer.json, ...   the weights, in `save_pretrained` layout
      resume/...                                            what the learner needs to continue
      resume/state.json                                     where the run stands, plain JSON
      manifest.json                                         size and sha256 of every other file; written last

Nothing read here is trusted: a file is opened only if the folder's own listing shows it as a regular file, and every
surprise is a `DamagedError` with the name of the file and the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from burnish.checkpoint.durable import reason, sync

MANIFEST = "manifest.json"
STATE = "resume/state.json"
FORMAT = 2


class DamagedError(Exception):
    """A checkpoint is not whole. The message names the file and says what is wrong with it."""

    def __init__(self, message: str) -> None:
        # Names and values come from the disk and end up on a terminal.
        super().__init__("".join(c if c.isprintable() else "?" for c in message[:300]))


def folder_name(step: int) -> str:
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """The step that a folder's name stands for; None for any other name, `step-000120.tmp-812` for instance."""
    if re.fullmatch(r"step-[0-9]{6,18}", name, re.ASCII) and folder_name(int(name[5:])) == name:
        return int(name[5:])
    return None


def seal(folder: Path, step: int) -> None:
    """Sync every file to the disk, write the manifest over them, and sync the folders."""
    files: dict[str, dict[str, Any]] = {}
    for name, path in _listing(folder).items():
        sync(path)
        files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    manifest = {"format": FORMAT, "step": step, "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, separators=(",", ":")), encoding="utf-8")
    sync(folder / MANIFEST)
    for parent, _, _ in os.walk(folder, topdown=False):
        sync(Path(parent))


def verify(folder: Path, step: int) -> Mapping[str, Any]:
    """Check every byte of a checkpoint against its manifest; return its state.

    Hidden files that the manifest does not know (`.DS_Store`, `.nfs...`) are no damage: nothing reads them.

    Raises:
        DamagedError: with the first thing that is wrong.
    """
    try:
        listing = _listing(folder)
        expected = _expected(_json(folder, listing, MANIFEST), step)
        for name in expected:
            if name not in listing:
                raise DamagedError(f"{name} is missing")
        for name, path in listing.items():
            if name in expected:
                _compare(name, path, expected[name])
            elif name != MANIFEST and not any(part.startswith(".") for part in name.split("/")):
                raise DamagedError(f"{name} is not in the manifest")
        return _json(folder, listing, STATE)
    except OSError as error:
        name = Path(error.filename).name if error.filename else folder.name
        raise DamagedError(f"{name} cannot be read ({reason(error)})") from error


def total_size(folder: Path) -> int:
    """Bytes of all regular files."""
    return sum(path.stat().st_size for path in _listing(folder).values())


def _listing(folder: Path) -> dict[str, Path]:
    """Name relative to `folder`, with forward slashes -> path, of every file in it, sorted. Follows no link."""
    if folder.is_symlink():
        raise DamagedError("it is a symbolic link")
    found: dict[str, Path] = {}
    for parent, folders, files in os.walk(folder, onerror=_rise):
        for name in (*folders, *files):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found[relative] = path
            elif not stat.S_ISDIR(mode):
                raise DamagedError(f"{relative} is {'a symbolic link' if stat.S_ISLNK(mode) else 'not a regular file'}")
    return dict(sorted(found.items()))


def _rise(error: OSError) -> None:
    raise error


def _json(folder: Path, listing: Mapping[str, Path], name: str) -> Mapping[str, Any]:
    if name not in listing:
        raise DamagedError(f"{name} is missing")
    try:
        found = json.loads((folder / name).read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} is not valid JSON ({str(error)[:80]})") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{name} holds no JSON object")
    return found


def _expected(manifest: Mapping[str, Any], step: int) -> Mapping[str, Mapping[str, Any]]:
    """The manifest's files, once it is known to be a manifest of this step that this version can read."""
    if manifest.get("format") != FORMAT:
        raise DamagedError(f"{MANIFEST} has format {manifest.get('format')!r:.20}, this version reads {FORMAT}")
    if manifest.get("step") != step:
        raise DamagedError(f"{MANIFEST} is of step {manifest.get('step')!r:.20}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not all(isinstance(entry, dict) for entry in files.values()):
        raise DamagedError(f"{MANIFEST} lists no files")
    if STATE not in files:
        raise DamagedError(f"{STATE} is not in the manifest")
    return files


def _compare(name: str, path: Path, expected: Mapping[str, Any]) -> None:
    size = path.stat().st_size
    if size != expected.get("size"):
        raise DamagedError(f"{name} has {size} bytes, the manifest says {expected.get('size')!r:.20}")
    found, wanted = _sha256(path), str(expected.get("sha256"))
    if found != wanted:
        raise DamagedError(f"{name} sha256 differs from manifest (expected {wanted[:8]}.., found {found[:8]}..)")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
