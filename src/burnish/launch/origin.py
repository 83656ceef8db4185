"""`run.json`: which run a folder holds, what it depends on, and what was changed on the way.

run_id      stays with the run when its folder is moved; a copied folder gets one of its own
place       path and inode of the folder when an attempt last began: how a copy is told from a move
snapshot    what the run depends on (`snapshot.py`), as the last attempt agreed to it
changes     what later attempts changed, and after which step
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from burnish.config import RunConfig
from burnish.launch.changes import Change, changes, require_allowed, require_given
from burnish.launch.identity import new_id
from burnish.launch.snapshot import Snapshot
from burnish.run_folder import RunFolder


class Origin:
    """What a folder says of its run, and what this attempt finds."""

    def __init__(
        self, folder: RunFolder, config: RunConfig, *, saved: Mapping[str, Any] | None, allowed: Sequence[str] = ()
    ) -> None:
        """
        Args:
            saved: what `run.json`, or a checkpoint, says; None where there is nothing to continue.
            allowed: keys and sections that may differ from it.
        """
        self.snapshot: Snapshot = {}
        self.changes: list[Change] = []
        """Since the last attempt."""
        self.copied_from: str | None = None
        self._folder = folder
        self._saved = saved
        self._allowed = allowed
        self.run_id = new_id(config) if saved is None else saved["run_id"]
        if saved is not None and _is_copy(saved["place"], _place(folder)):
            self.copied_from, self.run_id = self.run_id, f"{folder.path.name}-{secrets.token_hex(6)}"

    def agree(self, part: Snapshot) -> None:
        """Compare a part of what is found with what was saved.

        Raises:
            ResumeError: it differs in what may not change, and nobody allowed it.
        """
        if self._saved is not None:
            if "given" in part:
                require_given(self._folder.path, self._saved["snapshot"]["given"], part["given"])
            found = changes(self._saved["snapshot"], part)
            require_allowed(self._folder.path, found, self._allowed)
            self.changes += found
        self.snapshot |= part

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"run_id": self.run_id, "place": _place(self._folder), "snapshot": self.snapshot}

    def diff(self) -> str | None:
        """What changed since the last attempt, as JSON; None when nothing did."""
        return json.dumps([_told(change) for change in self.changes]) if self.changes else None

    def write(self, step: int) -> None:
        """Make what was found what the next attempt is compared with. `step`: where this attempt begins."""
        before = [] if self._saved is None else self._saved.get("changes", [])
        after = [{"after_step": step} | _told(change) for change in self.changes]
        self._folder.write_run(self.state_dict() | {"changes": [*before, *after]})


def _told(change: Change) -> dict[str, Any]:
    return {"key": change.key, "saved": change.saved, "now": change.now}


def _place(folder: RunFolder) -> dict[str, Any]:
    return {"path": str(folder.path), "inode": folder.path.stat().st_ino}


def _is_copy(saved: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """A folder that was moved has another path; one that lies on another disk now may have another inode. A copy has
    both, and so has what was moved to another disk: it gets a new id too, which costs nothing."""
    return saved["path"] != now["path"] and saved["inode"] != now["inode"]
