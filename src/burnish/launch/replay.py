"""`burnish train --resume RUN --verify`: does one step of a run, done again from its checkpoint, give what it gave?

It takes the newest whole checkpoint that has a recorded step after it (or the run's beginning, where none has), makes
that one step again, and compares rollouts, metrics and weights with the record, bit for bit. What it writes goes into a
folder of its own that is removed at the end.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from burnish import build, checkpoint
from burnish.config import RunConfig
from burnish.errors import ResumeError
from burnish.launch import random_state
from burnish.launch.changes import rounding_note
from burnish.launch.origin import Origin
from burnish.launch.session import open_store
from burnish.launch.snapshot import of_config, of_content
from burnish.run_folder import RunFolder
from burnish.store import queries
from burnish.store.compare import Divergence, step_divergence
from burnish.store.sqlite import RUN_KEYS
from burnish.store.text import timeless
from burnish.terminal import printable
from burnish.train import Run, take_step

RESUME_STATE = "resume/state.json"
"""The one file of a checkpoint that has seconds in it."""


class Replay:
    """One step of the run in `folder`, made again. A context manager: leaving it removes what it wrote."""

    def __init__(self, config: RunConfig, folder: RunFolder, swaps: build.Swaps, allowed: Sequence[str]) -> None:
        """
        Raises:
            ResumeError: nothing is recorded that could be replayed; or something changed that may not.
        """
        self.folder = folder
        with ExitStack() as opened:
            self.record = opened.enter_context(closing(queries.open_store(folder.store_path, unwritten=True)))
            self.found, self.step = _choose(folder, self.record)
            saved = folder.read_run() or (self.found and self.found.state["origin"])
            origin = Origin(folder, config, saved=saved, allowed=allowed)
            origin.agree(of_config(config, swaps))
            parts = build.assemble(config, swaps)
            opened.callback(parts.upkeep.close)
            data = build.training_prompts(config, parts.encode.whole, parts.positions)
            held_out = build.heldout_prompts(config, parts.encode.whole, parts.positions)
            origin.agree(of_content(parts, data, held_out))
            self.warning = rounding_note(origin.changes)
            self.scratch = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="burnish-verify-")))
            info = queries.run_info(self.record)
            store = open_store(
                self.scratch / "run.sqlite", config, parts, {key: info[key] for key in RUN_KEYS}, warn=print
            )
            opened.callback(store.close)
            store.open_attempt(self.step - 1)
            self.store = store
            self.run_state: Run = build.make_run(config, parts, data.prompts, store)
            random_state.seed(config.seed)
            if self.found is not None:
                run, state = self.run_state, self.found.state
                run.learner.restore(self.found.path)
                run.prompts.load_state_dict(state["prompts"])
                run.progress.load_state_dict(state["progress"])
                parts.upkeep.load_state_dict(state["reward"])
                random_state.load_state_dict(state["random"])
            self._opened = opened.pop_all()

    def run(self) -> None:
        """Replay, compare, and print what was compared.

        Raises:
            ResumeError: with the first difference.
        """
        start = self.found.path.name if self.found else "the beginning"
        if self.warning:
            print(self.warning)
        run = self.run_state
        run.engine.load(run.learner.publish(run.progress.step))
        take_step(run)
        self.store.flush()
        with closing(queries.open_store(self.store.path)) as replayed:
            divergence = step_divergence(self.record, replayed, self.step)
            if divergence is not None:
                raise ResumeError(
                    f"step {self.step} of {self.folder.path}, replayed from {start}, differs from its record: "
                    f"{self._where(divergence, replayed)}\nNothing was written. To go on all the same: "
                    f"burnish train --resume {self.folder.path}"
                )
            rollouts = len(queries.rollouts_of_step(replayed, self.step))
            metrics = timeless(queries.metrics_at(replayed, self.step))
        weights = ["checksum after the step"] if "weights/checksum" in metrics else ["no update was made"]
        weights += self._compare_files()
        print(f"replayed step {self.step} from {start} and compared it with the record of {self.folder.path}")
        print(f"  rollouts  {rollouts:,}: tokens, log-probabilities, verdicts, advantages")
        print(f"  metrics   {len(metrics):,}, all but times")
        print(f"  weights   {', '.join(weights)}")
        print("equal, bit for bit")

    def _where(self, divergence: Divergence, replayed: sqlite3.Connection) -> str:
        if divergence.what == "metrics":
            was, now = (timeless(queries.metrics_at(db, self.step)) for db in (self.record, replayed))
            names = sorted(name for name in was | now if was.get(name) != now.get(name))
            if names:
                values = f"{was.get(names[0])!r} is recorded, and now it is {now.get(names[0])!r}"
                return f"{len(names)} metrics, the first {names[0]}: {values}"
            return "log-probabilities or advantages; tokens, verdicts and metrics are equal"
        first = divergence.rollout_a
        rows = (
            []
            if first is None
            else [r for r in queries.rollouts_of_step(self.record, self.step) if r.rollout_id == first]
        )
        if not rows:
            return "another number of rollouts"
        row = rows[0]
        return f"the {divergence.what} of rollout {row.sibling} of prompt {printable(row.prompt)}"

    def _compare_files(self) -> list[str]:
        """The files of the checkpoint after the step, where there is one, against what is saved now."""
        after = self.folder.checkpoints_path / f"step-{self.step:06d}"
        kept = next((found for found in checkpoint.whole(self.folder.checkpoints_path) if found.path == after), None)
        if kept is None:
            return []
        saved = self.scratch / after.name
        saved.mkdir()
        self.run_state.learner.save(saved)
        listed: dict[str, Any] = json.loads((after / "manifest.json").read_text(encoding="utf-8"))["files"]
        names = [name for name in listed if name != RESUME_STATE]
        for name in names:
            if not (saved / name).is_file() or _sha256(saved / name) != listed[name]["sha256"]:
                raise ResumeError(
                    f"step {self.step} of {self.folder.path} has the rollouts and metrics of its record, and "
                    f"{after.name}/{name} differs from what is saved now\nNothing was written. To go on all the same: "
                    f"burnish train --resume {self.folder.path}"
                )
        return [f"the {len(names)} files of {after.name}"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()


def _choose(folder: RunFolder, record: sqlite3.Connection) -> tuple[checkpoint.Found | None, int]:
    """The newest whole checkpoint whose next step is recorded, and that step."""
    recorded = {row["step"] for row in queries.steps(record)}
    for found in checkpoint.whole(folder.checkpoints_path):
        if found.step + 1 in recorded:
            return found, found.step + 1
    if 1 in recorded:
        return None, 1
    raise ResumeError(
        f"{folder.path} has no recorded step to compare with. Type burnish train --resume {folder.path} first"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
