"""What changed between a run's snapshot and what a resume finds, and whether the run may go on with it.

A change is one of three:

    free       it decides nothing that is still to come: logging, paths (what lies there is compared by content), how
               often to save, more steps in all
    rounding   the run means the same and differs in last bits: versions, threads, dtype, sizes of pieces. It goes on,
               with a warning
    any other  refused, unless it is allowed by name
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from burnish.errors import ResumeError
from burnish.launch.snapshot import Snapshot
from burnish.terminal import printable
from burnish.trees import flattened

FREE = (
    "out", "name", "log", "checkpoint", "store", "eval.every", "data.train", "eval.data", "model.path", "model.device",
    "train.threads",
)  # fmt: skip
"""Keys, and sections, that may change. What paths lead to is compared by content; device and threads as environment."""
ROUNDING = ("model.dtype", "model.gradient_checkpointing", "train.tokens_per_piece", "sampling.slots")
PLUGIN_PATH = re.compile(r"reward\.parts\.\w+\.function")
ABSENT = "-"

Kind = Literal["free", "rounding", "refused"]


@dataclass(frozen=True, slots=True)
class Change:
    key: str
    """A key of the configuration; `data`, `eval.data`, `model`, `reward.parts.<name>` for what is told by content."""
    saved: Any
    now: Any
    kind: Kind
    sentence: str = ""
    """Says it where two values would not."""

    def __str__(self) -> str:
        return self.sentence or f"{self.key} {_shown(self.saved)} -> {_shown(self.now)}"


def changes(saved: Snapshot, now: Snapshot) -> list[Change]:
    """Everything that differs, among what both snapshots have."""
    found: list[Change] = []
    if "config" in now:
        found += _of_config(saved["config"], now["config"])
        found += _of_plugins(saved["plugins"], now["plugins"])
    if "model" in now:
        found += _of_model(saved, now)
        found += _of_rows("data", saved["data"], now["data"])
        found += _of_rows("eval.data", saved["held_out"], now["held_out"])
        found += [
            Change(f"environment.{name}", was, value, "rounding", f"{name} {was} -> {value}")
            for name, was, value in _differing(saved["environment"], now["environment"])
        ]
    return found


def require_given(run: Path, saved: Sequence[str], now: Sequence[str]) -> None:
    """What is given from Python must be given again: it cannot be told by content.

    Raises:
        ResumeError: something else is given.
    """
    if list(saved) != list(now):
        raise ResumeError(
            f"the run in {run} was started with {_given(saved)} and now has {_given(now)}. "
            "Resume it as it was started: burnish.api.train(..., resume=True)"
        )


def require_allowed(run: Path, found: Sequence[Change], allowed: Sequence[str]) -> None:
    """Let free changes, rounding and what is allowed pass. `allowed`: keys, or sections of them.

    Raises:
        ResumeError: with a sentence or a row of a table for each change that is none of these.
    """
    refused = [change for change in found if change.kind == "refused" and not _is_under(change.key, allowed)]
    if not refused:
        return
    lines = [change.sentence for change in refused if change.sentence]
    keys = [change for change in refused if not change.sentence]
    if keys:
        rows = [("key", "saved", "now"), *((c.key, _shown(c.saved), _shown(c.now)) for c in keys)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines += [f"the configuration of {run} changed:"]
        lines += ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    allow = " ".join(f"--allow-change {change.key}" for change in refused)
    lines.append(f"Put back what was saved; or accept the change and add to the command: {allow}")
    raise ResumeError("\n".join(lines))


def rounding_note(found: Sequence[Change]) -> str | None:
    """The warning about changes that leave no bit for bit; None without any."""
    rounding = [str(change) for change in found if change.kind == "rounding"]
    return f"bit for bit no longer holds: {', '.join(rounding)}" if rounding else None


def _of_config(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for key, was, value in _differing(dict(flattened(saved)), dict(flattened(now))):
        yield Change(key, was, value, _kind(key, was, value))


def _kind(key: str, was: Any, value: Any) -> Kind:
    if _is_under(key, FREE):
        return "free"
    if key == "train.steps" and value > was:
        return "free"
    if PLUGIN_PATH.fullmatch(key) and _function(was) == _function(value):
        return "free"
    return "rounding" if key in ROUNDING else "refused"


def _of_plugins(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Change]:
    for name in saved.keys() & now.keys():  # a part that came or went is a change of the configuration
        was, is_ = saved[name]["sha256"], now[name]["sha256"]
        if was != is_:
            sentence = f"reward plugin {now[name]['path']} changed: sha256 {_short(was)} -> {_short(is_)}"
            yield Change(f"reward.parts.{name}", was, is_, "refused", sentence)


def _of_model(saved: Snapshot, now: Snapshot) -> Iterator[Change]:
    was, is_ = saved["model"], now["model"]
    if was != is_:
        sentence = f"the model that the run began with changed: sha256 {_short(was)} -> {_short(is_)}"
        yield Change("model", was, is_, "refused", sentence)


def _of_rows(key: str, saved: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> Iterator[Change]:
    if saved is None or now is None:
        if saved is not now:
            what = "is held out now and was not" if saved is None else "was held out and is not now"
            source = (now or saved or {})["source"]
            yield Change(key, saved, now, "refused", f"{printable(source)} {what}")
    elif saved["sha256"] != now["sha256"]:
        was, is_ = saved["rows"], now["rows"]
        rows = f"{was} rows" if was == is_ else f"{was} -> {is_} rows"
        sentence = (
            f"{printable(now['source'])} changed: {rows}, sha256 {_short(saved['sha256'])} -> {_short(now['sha256'])}"
        )
        yield Change(key, saved, now, "refused", sentence)


def _differing(saved: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in sorted(saved.keys() | now.keys()):
        was, value = saved.get(key, ABSENT), now.get(key, ABSENT)
        if was != value:
            yield key, was, value


def _is_under(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _function(target: str) -> str:
    return target.rpartition(":")[2]


def _given(names: Sequence[str]) -> str:
    return f"{', '.join(names)} given from Python" if names else "nothing given from Python"


def _shown(value: Any) -> str:
    text = printable(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def _short(sha256: str) -> str:
    return f"{sha256[:8]}.."
