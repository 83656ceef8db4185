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
from array import array
from collections.abc import Callable, Sequence

import torch

from benchmarks import models, reference
from burnish.batch import collate
from burnish.learner.local import LocalLearner
from burnish.learner.schedule import make_schedule
from burnish.objective import clipped_objective
from burnish.protocols import Publication
from burnish.rollout.local import LocalEngine
from burnish.types import Completion, Group, Prompt, Request, Rollout, Sampling, Score


class Numbers:
    """A tokenizer of numbers: enough for an engine that shows no text."""

    def decode(self, ids: Sequence[int], **options: bool) -> str:
        return " ".join(map(str, ids))


def timed(work: Callable[[], object]) -> tuple[float, object]:
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
    engine = LocalEngine(Numbers(), lambda prompt: array("i", prompt.meta["ids"]), eos_ids={models.EOS}, slots=512)
    engine.load(Publication(0, model))
    objective = clipped_objective(
        advantage="standardized", reduction="token_mean", clip_low=0.2, clip_high=0.28, dual_clip=None,
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    learner = LocalLearner(
        model, None, objective, temperature=1.0, tokens_per_piece=8192, learning_rate=1e-4, betas=(0.9, 0.99),
        eps=1e-8, weight_decay=0.0, max_grad_norm=1.0, schedule=make_schedule("constant", 0, 1),
    )  # fmt: skip
    seconds: dict[str, list[tuple[float, float]]] = {"generate": [], "update": []}
    for pair in range(pairs + 1):  # the first warms up
        plain_generate, plain_tokens = timed(lambda: reference.generate(model, prompts, group_size, max_new_tokens))
        ours_generate, groups = timed(lambda seed=pair: _rollouts(engine, prompts, group_size, max_new_tokens, seed))
        completions = [r.completion for group in groups for r in group.rollouts]
        tokens = sum(len(c.token_ids) for c in completions)
        batch = objective.prepare(collate(groups))
        scores = batch.advantages_N[batch.batch.position_N == 0].tolist()
        plain_update, _ = timed(
            lambda done=completions, scores=scores: reference.update(
                model,
                [c.prompt_ids for c in done],
                [c.token_ids for c in done],
                [torch.tensor(c.logprobs) for c in done],
                scores,
                rows_per_piece=32,
            )
        )
        model.zero_grad()
        ours_update, _ = timed(lambda batch=batch: learner.forward_backward(batch))
        model.zero_grad()
        if pair:
            seconds["generate"].append((plain_generate / plain_tokens, ours_generate / tokens))
            seconds["update"].append((plain_update / tokens, ours_update / tokens))
    return _table(seconds)


def _rollouts(
    engine: LocalEngine, prompts: Sequence[Sequence[int]], group_size: int, max_new_tokens: int, seed: int
) -> list[Group]:
    requests = [
        Request(
            p,
            Prompt(str(p), meta={"ids": ids}),
            tuple(range(1000 * seed + 100 * p, 1000 * seed + 100 * p + group_size)),
        )
        for p, ids in enumerate(prompts)
    ]
    found: dict[int, tuple[Completion, ...]] = dict(engine.generate(requests, Sampling(max_new_tokens=max_new_tokens)))
    return [
        Group(r.id, r.prompt, tuple(Rollout(c, Score(float(len(c.token_ids) % 2))) for c in found[r.id]))
        for r in requests
    ]


def _table(seconds: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
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
