"""This project's side of `peers.py`: whole steps through `train`, with the parts that a configuration makes.

    python -m benchmarks.ours JOB [--dtype bfloat16]

Engine, learner, objective and record are the real ones with their default sizes. Swapped are the prompts, which come in
the order of the job, and the reward, which is as good as free.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

import burnish
from benchmarks.measure import Job, Step, Stopwatch, peak_mb, report
from benchmarks.models import as_text
from benchmarks.rig import compared
from burnish import build
from burnish.overrides import validate
from burnish.protocols import PromptSampler
from burnish.store.sqlite import RUN_KEYS, SQLiteStore
from burnish.timing import Clock
from burnish.train import Run, train
from burnish.types import Completion, Metrics, Prompt, Score

PHASES = {"generate": "generate", "learn": "update"}
"""Phase of the loop -> phase of the benchmark. What is in neither counts in the whole step alone."""


class InOrder(PromptSampler):
    """Prompts one after the other."""

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        self._left = list(prompts)

    def take(self, n: int, /) -> list[Prompt]:
        taken, self._left = self._left[:n], self._left[n:]
        return taken

    def observe(self, group: Any, /) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"left": len(self._left)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        self._left = self._left[-state["left"] :]


class BothSeconds(Clock):
    """The loop's clock, which tells a stopwatch too."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        super().__init__()
        self._stopwatch = stopwatch

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        with self._stopwatch(PHASES.get(phase, phase)), super().__call__(phase):
            yield


def parity(prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
    """1 for an odd number of tokens: about half of any group, whatever the model."""
    odd = [len(completion.token_ids) % 2 for completion in completions]
    return [Score(float(n), float(n), status="ok" if n else "wrong") for n in odd]


def configured(job: Job, dtype: str) -> Any:
    """Defaults, but for sizes and what all comparisons fix."""
    fixed = compared(job.max_new_tokens, dtype=dtype)
    sizes = {"prompts_per_step": job.prompts_per_step, "group_size": job.group_size}
    return validate(
        fixed
        | {
            "seed": job.seed,
            "model": fixed["model"] | {"path": job.model},
            "sampling": fixed["sampling"] | sizes,
            "train": fixed["train"] | {"steps": job.steps, "threads": job.threads},
        }
    )


def measure(job: Job, dtype: str) -> None:
    config = configured(job, dtype)
    prompts = [Prompt(str(index), text=as_text(ids)) for index, ids in enumerate(job.prompts)]
    swaps = build.Swaps(reward=parity, sampler=lambda prompts, seed: InOrder(prompts))
    parts = build.assemble(config, swaps)
    loaded_mb = peak_mb()
    steps: list[Step] = []
    stopwatch = Stopwatch()

    def after_step(run: Run, metrics: Metrics) -> None:
        steps.append(stopwatch.lap(tokens=int(metrics["tokens/generated"]), sequences=job_rows))

    job_rows = job.prompts_per_step * job.group_size
    with tempfile.TemporaryDirectory() as folder:
        store = SQLiteStore(
            Path(folder) / "run.sqlite",
            run=dict.fromkeys(RUN_KEYS, "benchmark"),
            parts={},
            raw_range=(0.0, 1.0),
            seed=0,
        )
        with store:
            store.open_attempt(0)
            run = build.make_run(config, parts, prompts, store, after_step=after_step)
            stopwatch.lap(tokens=0, sequences=0)
            train(replace(run, clock=BothSeconds(stopwatch)))
    versions = {"burnish": burnish.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    report(steps, loaded_mb=loaded_mb, versions=versions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", type=Path)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    args = parser.parse_args()
    job = Job.read(args.job)
    torch.set_num_threads(job.threads)
    measure(job, args.dtype)


if __name__ == "__main__":
    main()
