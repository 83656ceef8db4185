"""`burnish store`: a run's record brought to this version, or made again from the run's other files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from burnish import checkpoint
from burnish.launch.identity import identity, new_id
from burnish.overrides import validate
from burnish.run_folder import RunFolder
from burnish.store.codes import SCHEMA_VERSION
from burnish.store.migrate import migrate
from burnish.store.opening import connect, set_up, version_of
from burnish.store.rebuild import Interval, is_whole, rebuild


def migrate_record(run: Path) -> str:
    """Bring the record in a run folder to this version; returns a sentence that says what was done.

    Raises:
        FileNotFoundError: there is no record.
        ValueError: it is no record, or of a newer version.
        StorageError: it cannot be changed; it is as it was.
    """
    with RunFolder.open_existing(run) as folder:
        path = folder.store_path
        if not path.is_file():
            raise FileNotFoundError(f"there is no record at {path}. Type `burnish store rebuild {run}`")
        db = connect(path)
        try:
            version = version_of(db, path)
            if version == SCHEMA_VERSION:
                return f"{path} is of version {SCHEMA_VERSION} already"
            if version is None:
                raise ValueError(f"{path} is empty. Remove it and type `burnish store rebuild {run}`")
            set_up(db, path, print)
            return migrate(db, path, version)
        finally:
            db.close()


def rebuild_record(run: Path) -> list[str]:
    """Make a lost or damaged record again; returns sentences for the person.

    A damaged file is moved aside and never deleted.

    Raises:
        ValueError: the record is whole, or there is nothing to make it from.
    """
    with RunFolder.open_existing(run) as folder:
        path, said = folder.store_path, list[str]()
        if path.exists() and path.stat().st_size and is_whole(path):
            raise ValueError(f"{path} is whole; there is nothing to rebuild. To make it again anyway, move it away")
        config = validate(folder.read_config())
        state = _state(folder)
        origin = folder.read_run() or state.get("origin", {})
        if not folder.metrics_path.exists():
            raise ValueError(
                f"{folder.metrics_path} is missing, and the record can be made from nothing else. It is written when "
                "log.sinks has jsonl"
            )
        said += [f"moved the damaged record to {moved}" for moved in _move_aside(path)]
        aside = path.with_name(f"{path.name}.rebuilding")
        for left in path.parent.glob(f"{aside.name}*"):
            left.unlink()
        found = rebuild(
            aside,
            metrics=folder.metrics_path,
            run=identity(config, _data(origin), run_id=origin.get("run_id", new_id(config))),
            created=folder.config_path.stat().st_mtime,
            raw_range=(config.reward.wrong, config.reward.right),
            intervals=_intervals(folder, state),
        )
        aside.replace(path)
        return [*said, f"{path}: {found}", *(f"not recovered: {sentence}" for sentence in found.lost)]


def _state(folder: RunFolder) -> dict[str, Any]:
    """What the newest whole checkpoint knows of the run; empty without one."""
    try:
        found = checkpoint.latest(folder.checkpoints_path)
    except checkpoint.CheckpointError:
        return {}
    return {} if found is None else dict(found.state)


def _data(origin: dict[str, Any]) -> str:
    """Fingerprint of the training data, empty where nothing knows it."""
    return origin["snapshot"]["data"]["sha256"] if origin else ""


def _intervals(folder: RunFolder, state: dict[str, Any]) -> dict[tuple[int, str, str], Interval]:
    """Held-out values with their intervals: of the checkpoint, and of the summary, which has the last evaluation."""
    found: dict[tuple[int, str, str], Interval] = {}
    for evaluation in state.get("evaluations", []):
        for metric, (value, low, high) in evaluation["values"].items():
            found[evaluation["step"], evaluation["suite"], metric] = (value, low, high)
    if folder.summary_path.exists() and found:
        suite = state["evaluations"][0]["suite"]
        summary = json.loads(folder.summary_path.read_text(encoding="utf-8"))
        for metric, value in ((summary["held_out"] or {}).get("after") or {}).items():
            found[summary["steps"], suite, metric] = (value["value"], value["low"], value["high"])
    return found


def _move_aside(path: Path) -> list[Path]:
    """Rename the file to the first free `.damaged-N`, and its write-ahead log: SQLite would take that for the new
    file's, even where the log is all that is left."""
    number = 1
    while path.with_name(f"{path.name}.damaged-{number}").exists():
        number += 1
    moved: list[Path] = []
    for end in ("", "-wal", "-shm"):
        file = path.with_name(path.name + end)
        if file.exists():
            moved.append(file.rename(path.with_name(f"{path.name}.damaged-{number}{end}")))
    return moved[:1]
