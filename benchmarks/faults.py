"""What both sides of `peer_reliability.py` are told, and what they answer. Needs torch and safetensors alone.

A side (`faults_ours.py`, `faults_trl.py`) has two commands:

    train CASE    trains as the case says and prints JSON as its last line; or dies, if that is what is asked or happens
    grade         reads {"answer", "text"} line by line and answers each with {"reward"}, graded in another thread than
                  the main one, as rewards are where a server or an asynchronous trainer calls them
"""

from __future__ import annotations

import argparse
import hashlib
import json
import queue
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

GROUP_SIZE = 6
"""Not a power of two: the mean of equal numbers is then rounded."""
PROMPTS_PER_UPDATE = 2
MAX_NEW_TOKENS = 24
LEARNING_RATE = 1e-3
KILLED = 9
"""Exit code of a process that was asked to die."""


@dataclass(frozen=True)
class Case:
    model: str
    out: str
    data: str
    """A file of lines {"prompt"}."""
    generations: int
    updates_per_generation: int = 1
    uses: int = 1
    """Passes over what was generated."""
    save_every: int | None = None
    """Updates; None saves nothing on the way."""
    kill_after: int | None = None
    """Updates; the process then dies at once, without any clean-up."""
    resume: bool = False
    reward: str = "parity"
    standardized: bool = True
    """Advantages are divided by the standard deviation."""

    @property
    def updates(self) -> int:
        return self.generations * self.updates_per_generation * self.uses

    @property
    def prompts_per_generation(self) -> int:
        return PROMPTS_PER_UPDATE * self.updates_per_generation

    @classmethod
    def read(cls, path: Path) -> Case:
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


REWARDS: Mapping[str, Callable[[int, int], float]] = {
    "parity": lambda length, sibling: float(length % 2),
    "constant": lambda length, sibling: 0.1,
    "inf": lambda length, sibling: float("inf") if sibling == 0 else float(length % 2),
    "nan": lambda length, sibling: float("nan") if sibling == 0 else float(length % 2),
}
"""(tokens of the completion, its index among its siblings) -> what the reward function returns."""


def verdict(trained: Path, start: Path) -> dict[str, str | bool]:
    """What became of the weights."""
    after, before = (load_file(folder / "model.safetensors") for folder in (trained, start))
    return {
        "weights": sha256(after),
        "moved": sha256(after) != sha256(before),
        "finite": all(bool(tensor.isfinite().all()) for tensor in after.values()),
    }


def sha256(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode())
        digest.update(weights[name].contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def serve(grade: Callable[[str, str], float | None]) -> None:
    """Grade (text, answer) line by line, in a thread."""
    asked: queue.Queue[str] = queue.Queue()

    def work() -> None:
        while True:
            row = json.loads(asked.get())
            try:
                reply = {"reward": grade(row["text"], row["answer"])}
            except Exception as error:
                reply = {"error": f"{type(error).__name__}: {error}"[:200]}
            print(json.dumps(reply), flush=True)

    threading.Thread(target=work, daemon=True).start()
    print("ready", flush=True)
    for line in sys.stdin:
        asked.put(line)


def main(train: Callable[[Case], Path], grader: Callable[[], Callable[[str, str], float | None]]) -> None:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("case", type=Path)
    commands.add_parser("grade")
    args = parser.parse_args()
    if args.command == "grade":
        serve(grader())
    else:
        torch.set_num_threads(1)
        case = Case.read(args.case)
        print("\n" + json.dumps(verdict(train(case), Path(case.model))), flush=True)
