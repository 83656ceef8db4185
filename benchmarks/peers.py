"""Whole steps against TRL, and rollouts against vLLM: the same model, prompts, lengths and loss, in turn.

    make bench                                                       installs the peers, tiny model, one thread
    .venv/bin/python -m benchmarks.peers --model small --pairs 5 --threads 2
    .venv/bin/python -m benchmarks.peers --model tiny --doc          also writes the table into docs/performance.md

Every turn measures the machine's limits (`limits.py`) and then each system once, each in a process and an environment
of its own (`ours.py`, `peer_trl.py`, `peer_vllm.py`). A value is the median over turns; a ratio is the median over
turns of the quotient within one turn, with its range. Seconds are those of the wall; CPU seconds stand beside them, and
tell whether something else was running. In brackets: the share of what the matrix products alone would allow. All raw
numbers are in runs/bench/MODEL-THREADS.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import models
from benchmarks.measure import WARM_UP, Job

ROOT = Path(__file__).parents[1]
DOC = ROOT / "docs" / "performance.md"
GROUP_SIZE = 8


@dataclass(frozen=True)
class System:
    title: str
    environment: str
    command: tuple[str, ...]
    updates: bool = True
    """It trains; otherwise it only generates."""

    @property
    def python(self) -> Path:
        return ROOT / self.environment / "bin" / "python"


SYSTEMS = {
    "burnish": System("burnish", ".venv", ("benchmarks.ours",)),
    "burnish-bf16": System("burnish, bfloat16", ".venv", ("benchmarks.ours", "--dtype", "bfloat16")),
    "trl": System("TRL, defaults", ".venv-bench", ("benchmarks.peer_trl", "--variant", "defaults")),
    "trl-fp32": System("TRL, float32", ".venv-bench", ("benchmarks.peer_trl", "--variant", "fp32")),
    "trl-tuned": System("TRL, tuned for CPU", ".venv-bench", ("benchmarks.peer_trl", "--variant", "tuned")),
    "vllm": System("vLLM", ".venv-bench-vllm", ("benchmarks.peer_vllm",), updates=False),
}
DEFAULT = ("burnish", "trl", "trl-tuned", "vllm")
OURS = "burnish"
LIMITS = ("benchmarks.limits",)

Run = dict[str, Any]
"""What one process reported: `steps`, `peak_mb`, `loaded_mb`, `versions`."""


# -- measuring ---------------------------------------------------------------------------------------------------------


def measured(job: Job, names: Sequence[str], pairs: int) -> list[dict[str, Run]]:
    """One mapping per turn: system or `limits` -> what it reported."""
    turns: list[dict[str, Run]] = []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(pairs):
            path = Path(folder) / f"{turn}.json"
            Job(**{**vars(job), "seed": turn}).write(path)
            found = {"limits": reported(SYSTEMS[OURS].python, LIMITS, path, job.threads)}
            for name in names:
                system = SYSTEMS[name]
                print(f"turn {turn + 1} of {pairs}: {system.title}", file=sys.stderr, flush=True)
                found[name] = reported(system.python, system.command, path, job.threads)
            turns.append(found)
    return turns


def reported(python: Path, command: Sequence[str], job: Path, threads: int) -> Run:
    """Run a measured process; its last line.

    Raises:
        RuntimeError: it failed.
    """
    module, *options = command
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    done = subprocess.run(
        [str(python), "-m", module, str(job), *options],
        cwd=ROOT,
        env=os.environ | limits | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# -- the table ---------------------------------------------------------------------------------------------------------


def total(run: Run, phase: str, kind: str = "wall") -> float:
    return sum(step[kind][phase] for step in run["steps"])


def tokens(run: Run) -> int:
    return sum(step["tokens"] for step in run["steps"])


@dataclass(frozen=True)
class Quantity:
    title: str
    of: Callable[[Run], float]
    text: str
    """Format of a value."""
    faster_is: int
    """1: a larger value is faster, -1: a smaller one."""
    floor: Callable[[Run, Run, float], float] | None = None
    """(run, limits, prompt tokens of a step) -> seconds that its matrix products need."""
    seconds: Callable[[Run], float] | None = None
    """What the floor is a share of."""
    updates: bool = True
    """Only systems that train have it."""


def decode_floor(run: Run, limits: Run, prompt_tokens: float) -> float:
    return tokens(run) * (limits["decode_layers"] + limits["decode_head"])


def update_floor(run: Run, limits: Run, prompt_tokens: float) -> float:
    through_layers = tokens(run) + prompt_tokens * len(run["steps"])
    return through_layers * limits["train_layers"] + tokens(run) * limits["train_head"]


def step_floor(run: Run, limits: Run, prompt_tokens: float) -> float:
    return decode_floor(run, limits, prompt_tokens) + update_floor(run, limits, prompt_tokens)


QUANTITIES = (
    Quantity(
        "rollout, tokens/s", lambda run: tokens(run) / total(run, "generate"), "{:,.0f}", 1,
        decode_floor, lambda run: total(run, "generate"), updates=False,
    ),
    Quantity(
        "update, tokens/s", lambda run: tokens(run) / total(run, "update"), "{:,.0f}", 1,
        update_floor, lambda run: total(run, "update"),
    ),
    Quantity(
        "step, ms per token", lambda run: 1e3 * total(run, "step") / tokens(run), "{:.3f}", -1,
        step_floor, lambda run: total(run, "step"),
    ),
    Quantity("step, CPU ms per token", lambda run: 1e3 * total(run, "step", "cpu") / tokens(run), "{:.3f}", -1),
    Quantity("rollout, CPU ms per token", lambda run: 1e3 * total(run, "generate", "cpu") / tokens(run), "{:.3f}", -1,
             updates=False),
    Quantity("peak memory, MB", lambda run: run["peak_mb"], "{:,.0f}", -1, updates=False),
)  # fmt: skip


def table(turns: Sequence[Mapping[str, Run]], names: Sequence[str], prompt_tokens: float) -> list[str]:
    """Markdown: a row per system, then a row of ratios for each peer."""
    lines = ["| | " + " | ".join(q.title for q in QUANTITIES) + " |", "|---|" + "---|" * len(QUANTITIES)]
    for name in names:
        cells = [value_cell(turns, name, quantity, prompt_tokens) for quantity in QUANTITIES]
        lines.append(f"| {SYSTEMS[name].title} | " + " | ".join(cells) + " |")
    for name in names:
        if name != OURS:
            cells = [ratio_cell(turns, name, quantity) for quantity in QUANTITIES]
            lines.append(f"| times {SYSTEMS[name].title} | " + " | ".join(cells) + " |")
    return lines


def has(name: str, quantity: Quantity) -> bool:
    return SYSTEMS[name].updates or not quantity.updates


def value_cell(turns: Sequence[Mapping[str, Run]], name: str, quantity: Quantity, prompt_tokens: float) -> str:
    if not has(name, quantity):
        return "-"
    value = quantity.text.format(statistics.median(quantity.of(turn[name]) for turn in turns))
    if quantity.floor is None or quantity.seconds is None:
        return value
    shares = [quantity.floor(t[name], t["limits"], prompt_tokens) / quantity.seconds(t[name]) for t in turns]
    return f"{value} ({100 * statistics.median(shares):.0f} %)"


def ratio_cell(turns: Sequence[Mapping[str, Run]], name: str, quantity: Quantity) -> str:
    if not has(name, quantity):
        return "-"
    ratios = [(quantity.of(turn[OURS]) / quantity.of(turn[name])) ** quantity.faster_is for turn in turns]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


def heading(model: str, job: Job, turns: Sequence[Mapping[str, Run]], names: Sequence[str]) -> str:
    shape = models.SHAPES[model]
    versions: dict[str, str] = {}
    for name in names:
        versions = turns[0][name]["versions"] | versions
    gflops, read = (statistics.median(t["limits"][key] for t in turns) for key in ("gemm_gflops", "read_gb_s"))
    return (
        f"{model}: {shape.layers} layers of {shape.hidden}, vocabulary {shape.vocabulary:,}; "
        f"{job.prompts_per_step} prompts x {job.group_size}, at most {job.max_new_tokens} tokens; {job.threads} "
        f"thread{'s' * (job.threads > 1)}; {len(turns)} turns of {job.steps - WARM_UP} steps; {processor()}: "
        f"{gflops:.0f} GFLOP/s (float32, 2048 cubed), {read:.1f} GB/s read; "
        + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    )


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found[1] if found else platform.processor()


def put_into_doc(key: str, lines: Sequence[str]) -> None:
    """Replace what stands between the marks of this model and thread count."""
    text = DOC.read_text(encoding="utf-8")
    start, end = f"<!-- bench {key} -->\n", f"<!-- /bench {key} -->"
    assert start in text, f"{DOC} has no place for {key}"
    before, rest = text.split(start)
    DOC.write_text(before + start + "\n".join(lines) + "\n" + end + rest.split(end)[1], encoding="utf-8")


# -- the command -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", choices=list(models.SHAPES))
    parser.add_argument("--pairs", type=int, default=5, help="turns")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="counted steps of each process, after one that warms up")
    parser.add_argument("--systems", default=",".join(DEFAULT), help=f"of {', '.join(SYSTEMS)}")
    parser.add_argument("--doc", action="store_true", help="write the table into docs/performance.md")
    args = parser.parse_args()
    names = [name for name in args.systems.split(",") if installed(name)]
    shape = models.SHAPES[args.model]
    prompts = models.prompts(shape.vocabulary, shape.num_prompts * (WARM_UP + args.steps))
    with tempfile.TemporaryDirectory() as folder:
        models.save(args.model, Path(folder))
        job = Job(
            folder, prompts, shape.num_prompts, GROUP_SIZE, models.MAX_NEW_TOKENS, shape.rows_per_piece, args.threads, 0
        )
        load = os.getloadavg()
        turns = measured(job, names, args.pairs)
    counted = prompts[WARM_UP * shape.num_prompts :]
    lines = [heading(args.model, job, turns, names), "", *table(turns, names, sum(map(len, counted)) / args.steps)]
    print("\n".join(lines))
    key = f"{args.model}-{args.threads}"
    out = ROOT / "runs" / "bench" / f"{key}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    loads = {"before": load, "after": os.getloadavg()}
    out.write_text(json.dumps({"heading": lines[0], "load": loads, "turns": turns}, indent=1), encoding="utf-8")
    if args.doc:
        put_into_doc(key, lines)


def installed(name: str) -> bool:
    """A system whose environment is not there is named and left out."""
    there = SYSTEMS[name].python.exists()
    if not there:
        print(f"{SYSTEMS[name].title}: not installed ({SYSTEMS[name].environment})", file=sys.stderr)
    return there


if __name__ == "__main__":
    main()
