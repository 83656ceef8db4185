"""What happens to a grading process leaves no trace in the run: same weights, same record, and a count of it."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.rewards import plugin_hosts
from burnish.store import queries
from burnish.store.compare import first_divergence
from tests.e2e.conftest import TINY_STEPS, Command, read_rows, write_rows

pytestmark = [
    pytest.mark.slow,
    pytest.mark.reliability(31),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc"),
]

PLUGIN = """
import os, time
kept = []
def reward(solution_str, ground_truth):
    with open("{busy}", "w") as busy:
        print(os.getpid(), file=busy)
    time.sleep(0.05)
    os.remove("{busy}")
    if os.environ.get("BURNISH_TEST_LEAK"):
        kept.append(bytearray(b"x") * (8 << 20))
    return float(ground_truth in solution_str) + len(solution_str) / 100
"""


def graders() -> list[int]:
    """The grading processes of this one: forks of those that it started."""
    servers = [pid for pid, parent in fork_servers().items() if parent == os.getpid()]
    return [pid for pid, parent in fork_servers().items() if parent in servers]


def fork_servers() -> dict[int, int]:
    """Process id -> that of its parent, of all servers and their forks."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            if b"burnish.rewards.forkserver" in words:
                found[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


class Killer(threading.Thread):
    """Kills grading processes at random moments of the run, every second one within a call of the function."""

    def __init__(self, kills: int, busy: Path, record: Path) -> None:
        super().__init__(daemon=True)
        self.left = kills
        self._busy = busy
        self._record = record
        self._random = random.Random(1)
        self._over = threading.Event()

    def run(self) -> None:
        killed: set[int] = set()
        while self.left and not self._over.is_set():
            time.sleep(0.01 if self.left % 2 else self._random.uniform(0.1, 0.5))
            there = [pid for pid in graders() if pid not in killed] if self._record.exists() else []
            if self.left % 2:
                there = [pid for pid in there if pid == self._pid_in_call()]
            if there:
                killed.add(pid := self._random.choice(there))
                os.kill(pid, signal.SIGKILL)
                self.left -= 1

    def _pid_in_call(self) -> int | None:
        try:
            return int(self._busy.read_text())
        except (FileNotFoundError, ValueError):
            return None

    def end(self) -> None:
        self._over.set()
        self.join()


@pytest.fixture
def command(tmp_path: Path, model_dir: Callable[[str], Path]) -> Callable[[str], list[str]]:
    """A run whose answers go to the algebra system and to a function; both in processes of their own."""
    (tmp_path / "rewards.py").write_text(PLUGIN.replace("{busy}", str(tmp_path / "busy")))
    rows = [{"prompt": f"{a}+{b}", "answer": f"\\sqrt{{{(a + b) ** 2}}}"} for a in range(5) for b in range(5 - a)]
    data = write_rows(tmp_path / "rows.jsonl", rows)

    def words(out: str) -> list[str]:
        return [
            *("train", *TINY_STEPS, f"model.path={model_dir('qwen3')}", f"data.train={data}", f"out={tmp_path / out}"),
            *("reward.style=auto", "train.steps=3", "reward.timeout=60"),
            f"reward.parts.own.function={tmp_path / 'rewards.py'}:reward",
        ]

    return words


@pytest.fixture
def undisturbed(burnish: Command, command: Callable[[str], list[str]], tmp_path: Path) -> Path:
    ended = burnish(*command("undisturbed"))
    assert ended.code == 0, ended.err
    return tmp_path / "undisturbed"


@pytest.fixture
def leaking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_hosts, "MEMORY", 120 << 20)
    monkeypatch.setenv("BURNISH_TEST_LEAK", "1")


def restarts(folder: Path) -> float:
    return sum(row.get("rollouts/restarts", 0.0) for row in read_rows(folder / "metrics.jsonl"))


def assert_no_trace(undisturbed: Path, disturbed: Path) -> None:
    weights = [
        (folder / "checkpoints/step-000003/model.safetensors").read_bytes() for folder in (undisturbed, disturbed)
    ]
    assert weights[0] == weights[1]
    with queries.open_store(undisturbed / "run.sqlite") as one, queries.open_store(disturbed / "run.sqlite") as other:
        assert first_divergence(one, other) is None
    one.close()
    other.close()


def test_killed_processes_change_nothing_and_are_counted(
    burnish: Command,
    command: Callable[[str], list[str]],
    undisturbed: Path,
    tmp_path: Path,
    attempts: Callable[..., int],
) -> None:
    kills = attempts(quick=5, long=20)
    killer = Killer(kills, tmp_path / "busy", tmp_path / "killed/run.sqlite")
    killer.start()
    ended = burnish(*command("killed"))
    killer.end()
    assert ended.code == 0, ended.err
    assert killer.left == 0, "the run was over too early"
    # A process that was killed while nothing was asked of it is counted when the next question comes.
    assert kills - 2 <= restarts(tmp_path / "killed") <= kills
    assert restarts(undisturbed) == 0
    assert_no_trace(undisturbed, tmp_path / "killed")
    assert os.getpid() not in fork_servers().values()


def test_processes_that_outgrow_their_memory_change_nothing_and_are_counted(
    burnish: Command, command: Callable[[str], list[str]], undisturbed: Path, tmp_path: Path, leaking: None
) -> None:
    ended = burnish(*command("leaking"))
    assert ended.code == 0, ended.err
    assert restarts(tmp_path / "leaking") >= 5
    assert_no_trace(undisturbed, tmp_path / "leaking")
