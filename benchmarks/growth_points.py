"""One measured point of `growth.py`: a process of its own, so that its peak of memory is its own.

    python -m benchmarks.growth_points batch 256

The last line of output is JSON: `size`, and what was measured. `step` points make whole steps without data, reward and
record: rollout and update in CPU microseconds per generated token, medians over as many steps as fit into `SECONDS`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks import models, store_growth
from benchmarks.measure import Stopwatch, peak_mb, resident_mb
from benchmarks.models import SHAPES, Shape
from benchmarks.rig import Rig, num_tokens
from burnish import build
from burnish.overrides import validate

SECONDS = 12.0
"""After so many no further step is made."""
STEPS = 9
"""At most."""
SEQUENCES = 128
"""Of a step, where the axis is not about their number."""
POSITIONS = 32_768
"""Of the model that the data set is read for."""
PROMPT_WORDS = 48

Point = dict[str, float]


# -- steps -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Workload:
    """A step of `num_prompts` x `group_size` completions."""

    num_prompts: int = SEQUENCES // 8
    group_size: int = 8
    max_new_tokens: int = models.MAX_NEW_TOKENS
    end_chance: float = models.END_CHANCE
    shape: Shape = SHAPES["tiny"]


WORKLOADS: Mapping[str, Callable[[int], Workload]] = {
    "group": lambda size: Workload(num_prompts=SEQUENCES // size, group_size=size),
    # A quarter of the limit is the mean, so that the shape of the distribution of lengths is the same at every limit.
    "length": lambda size: Workload(num_prompts=8, max_new_tokens=size, end_chance=4 / size),
    "batch": lambda size: Workload(num_prompts=size // 8),
    "vocabulary": lambda size: Workload(num_prompts=8, shape=replace(SHAPES["tiny"], vocabulary=size)),
}


def step_point(work: Workload) -> Point:
    positions = models.PROMPT_TOKENS[1] + work.max_new_tokens
    model = models.of_shape(work.shape, end_chance=work.end_chance, positions=positions)
    prompts = models.prompts(work.shape.vocabulary, work.num_prompts)
    Rig(model, max_new_tokens=4).generate(prompts[:2], group_size=2, seed=0)  # warms up
    rig = Rig(model, max_new_tokens=work.max_new_tokens)
    rollout, update = list[float](), list[float]()
    stopwatch, started = Stopwatch(), time.perf_counter()
    while len(rollout) < STEPS and (not rollout or time.perf_counter() - started < SECONDS):
        with stopwatch("generate"):
            groups = rig.generate(prompts, group_size=work.group_size, seed=len(rollout) + 1)
        with stopwatch("update"):
            rig.update(rig.prepare(groups))
        step = stopwatch.lap(tokens=num_tokens(groups), sequences=work.num_prompts * work.group_size)
        rollout.append(1e6 * step.cpu["generate"] / step.tokens)
        update.append(1e6 * step.cpu["update"] / step.tokens)
    return {
        "rollout_us": statistics.median(rollout),
        "update_us": statistics.median(update),
        "peak_mb": peak_mb(),
        "steps": len(rollout),
    }


# -- data set and record -----------------------------------------------------------------------------------------------


def data_point(size: int) -> Point:
    """From the file to the first prompt that a step takes, as `burnish train` reads it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.jsonl"
        write_rows(path, size)
        config = validate({"data": {"train": str(path), "template": False}})
        encode = build.make_encoder(config, models.tokenizer(SHAPES["tiny"].vocabulary))
        before = resident_mb()
        wall, cpu = time.perf_counter(), time.process_time()
        loaded = build.training_prompts(config, encode.whole, POSITIONS)
        build.make_sampler(config, loaded.prompts, build.NOTHING).take(1)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {
            "seconds": wall,
            "cpu_seconds": cpu,
            "added_mb": peak_mb() - before,
            "kept_mb": resident_mb() - before,
            "file_mb": path.stat().st_size / 1e6,
        }


def write_rows(path: Path, count: int) -> None:
    """Problems of about the length of GSM8K's, all different, each with a number as its answer."""
    draw = random.Random(0)
    words = [f"w{i}" for i in range(10, 100)] + [f"w{i}" for i in range(1000, 1100)]
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            row = {"prompt": " ".join(draw.choices(words, k=PROMPT_WORDS)), "answer": str(draw.randrange(10_000))}
            file.write(json.dumps(row) + "\n")


def store_points(sizes: list[int]) -> list[Point]:
    """Recording a step when so many rollouts are stored, for all sizes in one record."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.sqlite"
        by_size = store_growth.costs(path, at=sizes)
    return [
        {
            "size": costs[0].stored,
            "step_ms": 1e3 * statistics.median(cost.seconds for cost in costs),
            "instructions": statistics.median(cost.instructions for cost in costs),
            "log_kb": statistics.median(cost.log_bytes for cost in costs) / 1e3,
        }
        for costs in by_size
    ]


# -- the command -------------------------------------------------------------------------------------------------------


def points(axis: str, sizes: list[int]) -> list[Point]:
    if axis == "store":
        return store_points(sizes)
    (size,) = sizes
    found = data_point(size) if axis == "data" else step_point(WORKLOADS[axis](size))
    return [{"size": size, **found}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("axis", choices=[*WORKLOADS, "data", "store"])
    parser.add_argument("sizes", type=int, nargs="+", help="one; of `store` any number")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("\n" + json.dumps(points(args.axis, args.sizes)), flush=True)


if __name__ == "__main__":
    main()
