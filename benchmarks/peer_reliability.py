"""The same faults here and in TRL, side by side.

    make bench-reliability                                          everything, a quarter of an hour on a quiet core
    .venv/bin/python -m benchmarks.peer_reliability --only damages  one section
    .venv/bin/python -m benchmarks.peer_reliability --doc           also writes docs/reliability.md

    resume    a run is killed half way and resumed: does it end with the weights of the run that was not?
    damages   the newest checkpoint is damaged in ten ways, an older one is whole
    answers   texts that hang or fool an algebra system, graded one by one outside the main thread
    numbers   rewards without variance, or without a number

Each side works in a process and an environment of its own (`faults_ours.py`, `faults_trl.py`), on one CPU thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.unit.hostile_answers import COSTLY, FOOLING

from benchmarks import models
from benchmarks.faults import KILLED, Case
from benchmarks.peers import ROOT

DOC = ROOT / "docs" / "reliability.md"
DEADLINE = 10.0
"""Seconds after which whoever waits for one grade gives up."""
FIRST_ANSWER = 300.0
"""Seconds that a grading process may take to load."""
SHOWN = 150
"""Characters of an error message that the table shows."""

Row = tuple[str, str, str]
"""What was done; what came of it here; what came of it in TRL."""


@dataclass(frozen=True)
class Side:
    python: Path
    module: str
    checkpoint: Callable[[int], str]
    """Updates -> folder of the checkpoint within the run's."""
    files: Mapping[str, str]
    """Role -> file of a checkpoint. What has no file of its own here is replaced by what seals the folder."""


OURS = Side(
    ROOT / ".venv" / "bin" / "python",
    "benchmarks.faults_ours",
    lambda updates: f"checkpoints/step-{updates:06d}",
    {
        "weights": "model.safetensors",
        "optimizer": "resume/optimizer.safetensors",
        "schedule": "resume/learner.json",
        "random": "manifest.json",
        "state": "resume/state.json",
    },
)
TRL = Side(
    ROOT / ".venv-bench" / "bin" / "python",
    "benchmarks.faults_trl",
    lambda updates: f"checkpoint-{updates}",
    {
        "weights": "model.safetensors",
        "optimizer": "optimizer.pt",
        "schedule": "scheduler.pt",
        "random": "rng_state.pth",
        "state": "trainer_state.json",
    },
)
SIDES = (OURS, TRL)


# -- processes ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    code: int
    output: str
    """Of both streams."""
    error: str
    """The last line of the error stream."""
    found: dict[str, Any]

    @property
    def stopped(self) -> str:
        """The error, with the last names of paths and of modules alone."""
        return "stops: " + re.sub(r"/[^\s']*/|^(\w+\.)+(?=\w+: )", "", self.error)[:SHOWN]


def environment() -> dict[str, str]:
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    return os.environ | offline | {"COLUMNS": "400"}


def train(side: Side, case: Case) -> Ended:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.json"
        case.write(path)
        done = subprocess.run(
            [str(side.python), "-m", side.module, "train", str(path)],
            cwd=ROOT, env=environment(), capture_output=True, text=True,
        )  # fmt: skip
    errors = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    found = {} if done.returncode else json.loads(done.stdout.splitlines()[-1])
    return Ended(done.returncode, done.stdout + done.stderr, errors[-1] if errors else "", found)


class Grader:
    """A grading process; one that does not answer in time is killed, and the next answer starts another."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, text: str, answer: str) -> tuple[float, dict[str, Any] | None]:
        """Seconds, and the reply; None after the deadline."""
        process = self._process or self._start()
        assert process.stdin is not None
        started = time.perf_counter()
        process.stdin.write(json.dumps({"text": text, "answer": answer}) + "\n")
        process.stdin.flush()
        line = self._line(process, DEADLINE)
        return time.perf_counter() - started, None if line is None else json.loads(line)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [str(self._side.python), "-m", self._side.module, "grade"],
            cwd=ROOT, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        assert self._line(self._process, FIRST_ANSWER) == "ready\n", f"{self._side.module} does not start"
        return self._process

    def _line(self, process: subprocess.Popen[str], seconds: float) -> str | None:
        """The next line, or None and the end of the process."""
        assert process.stdout is not None
        lines: list[str] = []
        reader = threading.Thread(target=lambda stream: lines.append(stream.readline()), args=(process.stdout,))
        reader.start()
        reader.join(seconds)
        if not lines:
            self.close()
            reader.join()
        return lines[0] if lines and lines[0] else None


# -- resume ------------------------------------------------------------------------------------------------------------

UPDATES, KILL_AFTER = 12, 6
SETTINGS = {
    "one update for each generation": (1, 1),
    "four updates for each generation": (4, 1),
    "every generation used four times": (1, 4),
}
"""-> updates per generation, uses of each. TRL saves at the kill; here the last whole step is what was saved."""


def resume(base: Case, work: Path) -> list[Row]:
    rows: list[Row] = []
    for name, (updates, uses) in SETTINGS.items():
        case = replace(base, generations=UPDATES // (updates * uses), updates_per_generation=updates, uses=uses)
        cells = [resumed(side, case, work / f"resume-{updates}-{uses}-{at}") for at, side in enumerate(SIDES)]
        rows.append((f"killed after update {KILL_AFTER} of {UPDATES}, {name}", *cells))
    return rows


def resumed(side: Side, case: Case, work: Path) -> str:
    whole = train(side, replace(case, out=str(work / "whole")))
    case = replace(case, out=str(work / "killed"), save_every=KILL_AFTER)
    killed = train(side, replace(case, kill_after=KILL_AFTER))
    assert (whole.code, killed.code) == (0, KILLED), killed.output[-3000:]
    return against(whole, train(side, replace(case, resume=True)))


def against(whole: Ended, again: Ended) -> str:
    if again.code:
        return again.stopped
    same = again.found["weights"] == whole.found["weights"]
    if "rejected" in again.output:
        return f"falls back to the older checkpoint, says why; {'the same' if same else 'OTHER'} weights"
    return "the same weights" if same else "goes on to OTHER weights, without a word"


# -- damages -----------------------------------------------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One bit, in the data and not in the header."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def remove(path: Path) -> None:
    path.unlink()


DAMAGES: Mapping[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "weights cut in half": (cut, ("weights",)),
    "one bit of the weights flipped": (flip, ("weights",)),
    "optimiser state cut in half": (cut, ("optimizer",)),
    "optimiser state missing": (remove, ("optimizer",)),
    "schedule missing": (remove, ("schedule",)),
    "random state missing (here: the manifest)": (remove, ("random",)),
    "trainer state missing": (remove, ("state",)),
    "trainer state cut in half": (cut, ("state",)),
    "everything but the weights missing": (remove, ("optimizer", "schedule", "random", "state")),
    "all files missing": (remove, ("weights", "optimizer", "schedule", "random", "state")),
}
"""Name -> what is done to the files with these roles."""


def damages(base: Case, work: Path) -> list[Row]:
    case = replace(base, generations=UPDATES)
    outcomes = [damaged(side, case, work / f"damages-{at}") for at, side in enumerate(SIDES)]
    return [(f"newest checkpoint: {name}", *(found[name] for found in outcomes)) for name in DAMAGES]


def damaged(side: Side, case: Case, work: Path) -> dict[str, str]:
    whole = train(side, replace(case, out=str(work / "whole")))
    case = replace(case, out=str(work / "killed"), save_every=4)
    killed = train(side, replace(case, kill_after=8))
    assert (whole.code, killed.code) == (0, KILLED), killed.output[-3000:]
    outcomes: dict[str, str] = {}
    for name, (damage, roles) in DAMAGES.items():
        out = work / "damaged"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work / "killed", out)
        for role in roles:
            damage(out / side.checkpoint(8) / side.files[role])
        outcomes[name] = against(whole, train(side, replace(case, out=str(out), resume=True)))
        print(f"{side.module}, {name}: {outcomes[name]}", file=sys.stderr, flush=True)
    return outcomes


# -- answers -----------------------------------------------------------------------------------------------------------


def answers(base: Case, work: Path) -> list[Row]:
    costly = [graded(side, COSTLY) for side in SIDES]
    fooling = [graded(side, FOOLING) for side in SIDES]
    rows: list[Row] = [
        (f"{len(COSTLY)} costly answers: no grade within {DEADLINE:.0f} s", *(str(late(found)) for found in costly)),
        ("seconds for all of them, given up ones included", *(f"{sum(s for s, _ in f):.0f}" for f in costly)),
        ("wrong ones among them that are accepted", *(str(accepted(found)) for found in costly)),
        (f"{len(FOOLING)} pairs that are not equal: accepted", *(str(accepted(found)) for found in fooling)),
    ]
    return rows


Graded = Sequence[tuple[float, dict[str, Any] | None]]


def graded(side: Side, pairs: Sequence[tuple[str, str]]) -> Graded:
    grade = Grader(side)
    try:
        return [grade(f"The answer is \\boxed{{{text}}}.", answer) for answer, text in pairs]
    finally:
        grade.close()


def late(found: Graded) -> int:
    return sum(reply is None for _, reply in found)


def accepted(found: Graded) -> int:
    return sum(reply is not None and reply.get("reward") == 1.0 for _, reply in found)


# -- numbers -----------------------------------------------------------------------------------------------------------

NUMBERS: Mapping[str, dict[str, Any]] = {
    "every reward is 0.1, groups of 6": {"reward": "constant"},
    "one reward of each group is infinite": {"reward": "inf"},
    "the same, advantages not divided": {"reward": "inf", "standardized": False},
    "one reward of each group is NaN": {"reward": "nan"},
}


def numbers(base: Case, work: Path) -> list[Row]:
    rows: list[Row] = []
    for at, (name, changes) in enumerate(NUMBERS.items()):
        case = replace(base, generations=3, **changes)
        cells = [moved(train(side, replace(case, out=str(work / f"numbers-{at}-{side.module}")))) for side in SIDES]
        rows.append((name, *cells))
    return rows


def moved(ended: Ended) -> str:
    if ended.code:
        return ended.stopped
    if not ended.found["finite"]:
        return "goes on; weights are DESTROYED"
    return "goes on; weights move" if ended.found["moved"] else "goes on; weights stay, bit for bit"


# -- the command -------------------------------------------------------------------------------------------------------

SECTIONS: Mapping[str, Callable[[Case, Path], list[Row]]] = {
    "resume": resume,
    "damages": damages,
    "answers": answers,
    "numbers": numbers,
}


def prepared(work: Path) -> Case:
    """A tiny model and prompts for it."""
    models.save("tiny", work / "model")
    data = work / "prompts.jsonl"
    rows = [
        {"prompt": models.as_text(ids), "answer": "0"} for ids in models.prompts(models.SHAPES["tiny"].vocabulary, 96)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return Case(str(work / "model"), "", str(data), generations=UPDATES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SECTIONS))
    parser.add_argument("--doc", action="store_true", help="write the table into docs/reliability.md")
    args = parser.parse_args()
    lines = ["| fault | burnish | TRL 1.16 |", "|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        base = prepared(Path(folder))
        for name, section in SECTIONS.items():
            if args.only in (None, name):
                lines += [
                    f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in section(base, Path(folder))
                ]
    print("\n".join(lines))
    if args.doc:
        assert args.only is None, "the table of the document holds all sections"
        put_into_doc(lines)


def put_into_doc(lines: Sequence[str]) -> None:
    text = DOC.read_text(encoding="utf-8")
    start, end = "<!-- side by side -->\n", "<!-- /side by side -->"
    before, rest = text.split(start)
    DOC.write_text(before + start + "\n".join(lines) + "\n" + end + rest.split(end)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
