"""What a run says of itself: its first lines, its gain, its summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from burnish import build
from burnish.config import RunConfig, resolved
from burnish.launch.identity import sha256, versions
from burnish.masking import secret_keys
from burnish.progress import Progress
from burnish.prompts.datasets import Report
from burnish.records import Evaluation
from burnish.store.room import size, step_bytes


def header(config: RunConfig, parts: build.Parts, data: Report, folder: Path, *, held_out: bool) -> list[str]:
    """The first lines of a run: what is about to happen, and what is unusual about it."""
    sampling, train_ = config.sampling, config.train
    parameters = parts.model.num_parameters()
    rollouts = sampling.prompts_per_step * sampling.group_size
    lines = [
        f"{config.objective.name} on {config.model.path} ({parameters:,} parameters, {config.model.dtype}, "
        f"{parts.model.device}), seed {config.seed}",
        *str(data).splitlines(),
        f"each of {train_.steps} steps: {sampling.prompts_per_step} prompts x {sampling.group_size} = "
        f"{rollouts:,} rollouts -> {train_.updates_per_step * train_.epochs} updates, learning rate "
        f"{config.optimizer.learning_rate:g}",
        f"folder {folder}",
        _room(config),
        *parts.notes,
    ]
    for key in secret_keys(resolved(config)):
        lines.append(f"{key} looks like a secret: it is not saved, and has to be typed again at a resume")
    if config.model.trust_remote_code:
        lines.append("model.trust_remote_code=true: Python code that ships with the model runs as you")
    if not held_out:
        lines.append("nothing is held out, so accuracy is not measured. Type eval.data=FILE to measure it")
    if sampling.top_p < 1.0 or sampling.top_k or sampling.min_p:
        lines.append("sampling is truncated (top_p, top_k or min_p): importance ratios are biased")
    return lines


def _room(config: RunConfig) -> str:
    """What the record will take, at most if each step takes one round."""
    sampling, store = config.sampling, config.store
    step = step_bytes(
        groups=sampling.prompts_per_step,
        group_size=sampling.group_size,
        tokens=sampling.max_new_tokens,
        token_groups=store.token_groups,
    )
    dropped = f"; over {size(store.max_bytes)} (store.max_bytes) the oldest texts are dropped"
    whole = config.train.steps * step
    return f"record  up to {size(step)} a step for a round of completions of full length, {size(whole)} in all" + (
        dropped if whole > store.max_bytes else ""
    )


def gain(evaluations: Sequence[Evaluation]) -> list[str]:
    """Held-out values before and after, one line each."""
    if not evaluations:
        return []
    before, after = evaluations[0].values, evaluations[-1].values
    held_out = [f"held out ({evaluations[-1].suite}, {len(evaluations[-1].items)} prompts): before -> after"]
    for name in [name for name in after if name in before and name != "faults"]:
        (was, *was_range), (now, *now_range) = before[name], after[name]
        digits = 1 if name == "length" else 3
        first, second = (
            f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            for value, (low, high) in ((was, was_range), (now, now_range))
        )
        held_out.append(f"  {name:10} {first:>24} -> {second}")
    return held_out


def summary(
    config: RunConfig, progress: Progress, evaluations: Sequence[Evaluation], totals: Mapping[str, float], data: str
) -> dict[str, Any]:
    """What came of a run, as `summary.json` has it.

    Args:
        totals: sums over the whole run by metric, of which `time/` and `tokens/` are told.
        data: fingerprint of the training data.
    """
    return {
        "name": config.name,
        "seed": config.seed,
        "objective": config.objective.name,
        "steps": progress.step,
        "updates": progress.updates,
        "held_out": {"before": _values(evaluations[0]), "after": _values(evaluations[-1])} if evaluations else None,
        "seconds": {name.removeprefix("time/"): s for name, s in totals.items() if name.startswith("time/")},
        "tokens": {name.removeprefix("tokens/"): n for name, n in totals.items() if name.startswith("tokens/")},
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "data": data,
        "config_sha256": sha256(resolved(config)),
    }


def _values(evaluation: Evaluation) -> dict[str, Any]:
    return {name: {"value": v, "low": lo, "high": hi} for name, (v, lo, hi) in evaluation.values.items()}
