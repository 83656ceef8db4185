"""One step, timed part by part against the plain way (`reference.py`), in turn, in one process. Needs no peer.

    make bench-step                              the tiny model, one thread, five pairs
    .venv/bin/python -m benchmarks.step --pairs 3 --threads 2

The model is `models.py`'s, so both sides see completions of the same lengths. Figures are medians of CPU seconds over
pairs, and the ratio of each pair's plain time to ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from benchmarks import models, reference
from benchmarks.rig import Rig, completions, num_tokens
from burnish.batch import Prepared
from burnish.types import Completion

T = TypeVar("T")
Seconds = dict[str, list[tuple[float, float]]]
"""Part -> CPU seconds per token of each pair: the plain way's, ours."""


def timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--max-new-tokens", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    bench(args.pairs, args.prompts, args.group_size, args.max_new_tokens)


def bench(pairs: int, num_prompts: int, group_size: int, max_new_tokens: int) -> dict[str, float]:
    """Print the table; returns the median ratio of each part."""
    model = models.build("tiny")
    prompts = models.prompts(models.SHAPES["tiny"].vocabulary, num_prompts)
    rig = Rig(model, max_new_tokens=max_new_tokens)
    seconds: Seconds = {"generate": [], "update": []}
    for pair in range(pairs + 1):
        asked = prompts if pair else prompts[:2]  # the first warms up
        plain, plain_tokens = timed(lambda ids=asked: reference.generate(model, ids, group_size, max_new_tokens))
        ours, groups = timed(lambda ids=asked, seed=pair: rig.generate(ids, group_size=group_size, seed=seed))
        tokens = num_tokens(groups)
        prepared, done = rig.prepare(groups), completions(groups)
        plain_update, _ = timed(lambda done=done, prepared=prepared: plain_gradient(model, done, prepared))
        model.zero_grad()
        ours_update, _ = timed(lambda prepared=prepared: rig.learner.forward_backward(prepared))
        model.zero_grad()
        if pair:
            seconds["generate"].append((plain / plain_tokens, ours / tokens))
            seconds["update"].append((plain_update / tokens, ours_update / tokens))
    return _table(seconds)


def plain_gradient(model: PreTrainedModel, done: Sequence[Completion], prepared: Prepared, rows: int = 32) -> None:
    """`reference.update` on what was prepared for ours: the same tokens, the same advantages."""
    batch = prepared.batch
    reference.update(
        model,
        [c.prompt_ids for c in done],
        [c.token_ids for c in done],
        list(batch.old_logprobs_N.split(batch.lengths_B.tolist())),
        prepared.advantages_N[batch.position_N == 0].tolist(),
        rows_per_piece=rows,
    )


def _table(seconds: Seconds) -> dict[str, float]:
    seconds["step"] = [(g[0] + u[0], g[1] + u[1]) for g, u in zip(seconds["generate"], seconds["update"], strict=True)]
    ratios = {}
    print(f"{'part':10} {'plain us/token':>15} {'ours us/token':>15} {'ratio (median, range)':>26}")
    for part, rows in seconds.items():
        plain, ours = (statistics.median(row[side] for row in rows) * 1e6 for side in (0, 1))
        by_pair = [row[0] / row[1] for row in rows]
        ratios[part] = statistics.median(by_pair)
        shown = f"{ratios[part]:.1f} ({min(by_pair):.1f} to {max(by_pair):.1f})"
        print(f"{part:10} {plain:15.1f} {ours:15.1f} {shown:>26}")
    return ratios


if __name__ == "__main__":
    main()
