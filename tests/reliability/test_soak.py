"""A long run needs no more of anything at its end than near its beginning: memory, open files, threads, processes."""

from __future__ import annotations

import json
import os
import resource
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from burnish.launch.session import Session
from tests.reliability.processes import Process

ModelDir = Callable[[str], Path]

STEPS, EVERY, WARM_UP = 2000, 50, 500
MB_PER_100_STEPS = 1.0

REWARD = """
def score(data_source, solution_str, ground_truth, extra_info):
    return float(solution_str.strip().endswith(ground_truth))
"""


@pytest.mark.reliability(44)
@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_thousand_steps_grow_nothing(model_dir: ModelDir, sums: Path, tmp_path: Path) -> None:
    """All that a run usually does, as small as it goes: 32,000 verdicts of a plugin in its own process among it."""
    (tmp_path / "reward.py").write_text(REWARD)
    sizes = ["sampling.prompts_per_step=4", "sampling.group_size=4", "sampling.max_new_tokens=4"]
    often = ["eval.every=200", "eval.prompts=5", "checkpoint.every=100", f"train.steps={STEPS}"]
    words = [*sizes, *often, "train.updates_per_step=1", "train.threads=1", "optimizer.learning_rate=1e-6"]
    words += ["objective.dynamic_sampling=false", "reward.style=none"]
    words += [f"reward.parts.right.function={tmp_path / 'reward.py'}:score"]
    words += [f"model.path={model_dir('llama')}", f"data.train={sums}", f"eval.data={sums}", f"out={tmp_path / 'run'}"]
    samples = tmp_path / "samples"
    process = Process(["train", *words], tmp_path / "said", partial(sample_into, samples))
    assert process.end(1100) == 0, process.said

    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    warm = [row for row in rows if row["step"] > WARM_UP]
    assert [row["step"] for row in warm] == [*range(WARM_UP + EVERY, STEPS + 1, EVERY)]
    slope, _ = statistics.linear_regression([row["step"] for row in warm], [row["resident"] for row in warm])
    assert slope * 100 < MB_PER_100_STEPS * 2**20, rows
    for what in ("files", "threads", "children"):
        assert {row[what] for row in warm} == {warm[0][what]}, (what, rows)


def sample_into(path: Path) -> None:
    """Write down what the process uses, every so many steps."""
    original = Session._after_step

    def after_step(session: Session, run: Any, metrics: Any) -> None:
        original(session, run, metrics)
        step = run.progress.step
        if step % EVERY == 0:
            with path.open("a") as out:
                out.write(json.dumps({"step": step} | used()) + "\n")

    Session._after_step = after_step


def used() -> dict[str, int]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {
        "resident": pages * resource.getpagesize(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
        "children": len(children),
    }
