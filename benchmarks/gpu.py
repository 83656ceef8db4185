"""Whole steps of a 0.5B model in bfloat16 on a GPU: this project, the plain way (`reference.py`), and TRL.

    make bench-gpu                                                     one CUDA device, the medium model
    .venv/bin/python -m benchmarks.gpu --device cpu --model tiny       shows that the script works, in a minute

Needs torch, transformers and burnish alone; TRL joins in where it can be imported. All are measured in one process, in
turn, on the same random weights and prompts, and make completions of the same lengths (`models.py`). Weights are
float32 for whoever trains and bfloat16 for whoever draws; products are in bfloat16 throughout. The plain way draws with
transformers' `generate` and trains on padded micro-batches under autocast with torch's fused AdamW.

Seconds are those of the wall, with the device idle before and after. Shares are of what this device was measured to do
just before: `of the bandwidth` is one read of all weights for each pass of decoding over the time of the rollout, `of
the matrix rate` the products that tokens need (prompts once for their group, no padding, no attention) over the time of
the update. Raw numbers are in runs/bench/gpu-MODEL.json.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, Qwen2ForCausalLM

from benchmarks import models, reference
from benchmarks.measure import Job
from benchmarks.peers import ROOT
from benchmarks.rig import Rig, completions, num_tokens
from benchmarks.step import plain_gradient
from burnish.batch import Prepared
from burnish.types import Group

T = TypeVar("T")

GROUP_SIZE = 8
REPEATS = 5
GEMM_SIZE = {"cuda": 8192, "cpu": 1024}
READ_BYTES = {"cuda": 2**32, "cpu": 2**27}

OURS, PLAIN, TRL = "burnish", "transformers, padded loop", "TRL, defaults"


@dataclass(frozen=True)
class Turn:
    """One step of one system."""

    tokens: int
    """Drawn."""
    rollout: float
    """Seconds."""
    trained: int
    """Tokens of the update: both ways are given the same rollouts to train on."""
    update: float
    passes: int | None = None
    """Of one token per row, where the system counts them."""


@dataclass(frozen=True)
class Limits:
    """What the device does at best, and what a model asks of it."""

    gemm_tflops: float
    read_gb_s: float
    layers: int
    """Parameters."""
    head: int
    prompt_tokens: int
    """Of a step, each prompt once."""

    def of_bandwidth(self, turn: Turn) -> float:
        assert turn.passes is not None
        return turn.passes * 2 * (self.layers + self.head) / (1e9 * self.read_gb_s) / turn.rollout

    def of_matrix_rate(self, turn: Turn) -> float:
        products = 6 * (self.layers * (turn.trained + self.prompt_tokens) + self.head * turn.trained)
        return products / (1e12 * self.gemm_tflops) / turn.update


# -- measuring ---------------------------------------------------------------------------------------------------------


def timed(device: torch.device, work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that `work` keeps the device busy, and its result."""
    _wait(device)
    started = time.perf_counter()
    result = work()
    _wait(device)
    return time.perf_counter() - started, result


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def limits(model: Qwen2ForCausalLM, prompts: Sequence[Sequence[int]]) -> Limits:
    device, size = model.device, GEMM_SIZE[model.device.type]
    square = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    read = torch.ones(READ_BYTES[device.type] // 4, device=device)

    def shortest(work: Callable[[], Tensor]) -> float:
        return min(timed(device, work)[0] for _ in range(REPEATS))

    return Limits(
        gemm_tflops=2 * size**3 / shortest(lambda: square @ square) / 1e12,
        read_gb_s=READ_BYTES[device.type] / shortest(read.sum) / 1e9,
        layers=sum(p.numel() for p in model.model.layers.parameters()),
        head=model.lm_head.weight.numel(),
        prompt_tokens=sum(map(len, prompts)),
    )


def measured(
    model: Qwen2ForCausalLM, prompts: Sequence[Sequence[int]], *, turns: int, max_new_tokens: int, rows_per_piece: int
) -> dict[str, list[Turn]]:
    """Turns of both ways, after one that warms up."""
    device = model.device
    rig = Rig(model, max_new_tokens=max_new_tokens, dtype="bfloat16", sampling_dtype="bfloat16")
    plain = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-6, fused=True)
    found: dict[str, list[Turn]] = {OURS: [], PLAIN: []}
    for turn in range(turns + 1):
        passes = rig.engine.work.steps
        rollout, groups = timed(device, lambda seed=turn: rig.generate(prompts, group_size=GROUP_SIZE, seed=seed))
        passes = rig.engine.work.steps - passes
        draws = copy.deepcopy(plain).to(torch.bfloat16)
        plain_rollout, plain_tokens = timed(
            device, lambda draws=draws: reference.generate(draws, prompts, GROUP_SIZE, max_new_tokens)
        )
        del draws
        update, _ = timed(device, lambda groups=groups: rig.update(rig.prepare(groups)))
        prepared = rig.prepare(groups)  # counts for us alone: the plain way could do without the forward pass in it
        plain_update, _ = timed(
            device,
            lambda groups=groups, prepared=prepared: plain_step(plain, optimizer, groups, prepared, rows_per_piece),
        )
        if turn:
            trained = num_tokens(groups)
            found[OURS].append(Turn(trained, rollout, trained, update, passes))
            found[PLAIN].append(Turn(plain_tokens, plain_rollout, trained, plain_update))
    return found


def plain_step(
    model: PreTrainedModel, optimizer: torch.optim.AdamW, groups: Sequence[Group], prepared: Prepared, rows: int
) -> None:
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        plain_gradient(model, completions(groups), prepared, rows)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def trl_turns(
    name: str, prompts: Sequence[list[int]], device: torch.device, *, turns: int, max_new_tokens: int, rows: int
) -> list[Turn]:
    """Turns of TRL's trainer with its own settings; empty where TRL is not installed."""
    if importlib.util.find_spec("trl") is None:
        print("TRL: not installed", file=sys.stderr)
        return []
    from benchmarks import peer_trl

    with tempfile.TemporaryDirectory() as folder:
        models.save(name, Path(folder))
        job = Job(
            folder, list(prompts) * (turns + 1), len(prompts), GROUP_SIZE, max_new_tokens, rows,
            torch.get_num_threads(), 0,
        )  # fmt: skip
        _, steps = peer_trl.trained(job, "defaults", use_cpu=device.type == "cpu")
    return [Turn(step.tokens, step.wall["generate"], step.tokens, step.wall["update"]) for step in steps[1:]]


# -- the table ---------------------------------------------------------------------------------------------------------


def table(found: Mapping[str, Sequence[Turn]], limits: Limits) -> list[str]:
    """Markdown: a row per system, then the ratios of this project to the others within a turn."""
    lines = [
        "| | rollout, tokens/s | of the bandwidth | update, tokens/s | of the matrix rate | step, tokens/s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, turns in found.items():
        rollout, update, step = (statistics.median(map(rate, turns)) for rate in (rollout_rate, update_rate, step_rate))
        bandwidth = "-"
        if all(turn.passes is not None for turn in turns):
            bandwidth = f"{100 * statistics.median(map(limits.of_bandwidth, turns)):.0f} %"
        matrix = f"{100 * statistics.median(map(limits.of_matrix_rate, turns)):.0f} %"
        lines.append(f"| {name} | {rollout:,.0f} | {bandwidth} | {update:,.0f} | {matrix} | {step:,.0f} |")
    for name in [name for name in found if name != OURS]:
        cells = [times(found[OURS], found[name], rate) for rate in (rollout_rate, update_rate, step_rate)]
        lines.append(f"| times {name} | {cells[0]} | | {cells[1]} | | {cells[2]} |")
    return lines


def rollout_rate(turn: Turn) -> float:
    return turn.tokens / turn.rollout


def update_rate(turn: Turn) -> float:
    return turn.trained / turn.update


def step_rate(turn: Turn) -> float:
    """Tokens that are drawn and trained on per second."""
    return 1 / (1 / rollout_rate(turn) + 1 / update_rate(turn))


def times(ours: Sequence[Turn], theirs: Sequence[Turn], rate: Callable[[Turn], float]) -> str:
    ratios = [rate(a) / rate(b) for a, b in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"


# -- the command -------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--model", default="medium", choices=list(models.SHAPES))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=32, help=f"of a step, {GROUP_SIZE} completions each")
    parser.add_argument("--max-new-tokens", type=int, default=models.MAX_NEW_TOKENS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device. Type --device cpu --model tiny to try the script")
    bench(
        torch.device(args.device), args.model, turns=args.turns, num_prompts=args.prompts,
        max_new_tokens=args.max_new_tokens, out=ROOT / "runs" / "bench" / f"gpu-{args.model}.json",
    )  # fmt: skip


def bench(
    device: torch.device, name: str, *, turns: int, num_prompts: int, max_new_tokens: int, out: Path
) -> dict[str, list[Turn]]:
    """Print the table and write what it was made of."""
    shape = models.SHAPES[name]
    model = models.build(name).to(device)
    prompts = models.prompts(shape.vocabulary, num_prompts)
    asked = limits(model, prompts)
    sizes = {"turns": turns, "max_new_tokens": max_new_tokens}
    found = measured(model, prompts, **sizes, rows_per_piece=shape.rows_per_piece)
    if theirs := trl_turns(name, prompts, device, **sizes, rows=shape.rows_per_piece):
        found[TRL] = theirs
    heading = (
        f"{name} on {device_name(device)}, bfloat16: {num_prompts} prompts x {GROUP_SIZE}, at most {max_new_tokens} "
        f"tokens; {turns} turns; {asked.gemm_tflops:.1f} TFLOP/s (bfloat16, {GEMM_SIZE[device.type]} cubed), "
        f"{asked.read_gb_s:,.0f} GB/s read; torch {torch.__version__}"
    )
    print("\n".join([heading, "", *table(found, asked)]))
    raw = {side: [asdict(turn) for turn in rows] for side, rows in found.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"heading": heading, "limits": asdict(asked), "turns": raw}, indent=1), encoding="utf-8")
    return found


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


if __name__ == "__main__":
    main()
