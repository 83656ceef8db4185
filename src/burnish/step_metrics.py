"""What a step generated, as metrics. Over all generated groups: those that train are biased to the middle."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import get_args

from burnish.metric_names import RESERVED_PARTS
from burnish.types import FAULTS, Judged, Metrics, Outcome, Rollout


def rollup(judged: Sequence[Judged]) -> Metrics:
    """Reward, length, group and rollout metrics of a step (formulas in `metric_names`).

    A metric without a value (no rollout has a score; one prompt alone has no standard error) is absent.

    Raises:
        ValueError: a reward part has the name of another reward metric.
    """
    rollouts = [rollout for j in judged for rollout in j.group.rollouts]
    return _groups(judged) | _lengths(rollouts) | _parts(rollouts) | _rewards(judged, rollouts)


def throughput(metrics: Metrics) -> Metrics:
    """Tokens per second of generating and of learning, where the step's metrics tell."""
    pairs = {
        "throughput/generate": ("tokens/generated", "time/generate"),
        "throughput/learn": ("tokens/trained", "time/learn"),
    }
    return {
        name: metrics[tokens] / metrics[seconds]
        for name, (tokens, seconds) in pairs.items()
        if tokens in metrics and metrics.get(seconds, 0.0) > 0.0
    }


def clustered_se(clusters: Iterable[Sequence[float]]) -> float | None:
    """Standard error of the mean of all values, when values of one cluster are not independent.

    sqrt(C/(C-1) sum_c e_c^2) / n, with e_c the sum of cluster c's deviations from the overall mean: the sandwich
    estimator for a mean (Liang and Zeger 1986) with the usual correction for few clusters. None for fewer than two
    clusters.
    """
    filled = [values for values in clusters if values]
    if len(filled) < 2:
        return None
    n = sum(map(len, filled))
    mean = math.fsum(value for values in filled for value in values) / n
    squares = math.fsum(math.fsum(value - mean for value in values) ** 2 for values in filled)
    return math.sqrt(len(filled) / (len(filled) - 1) * squares) / n


def _rewards(judged: Sequence[Judged], rollouts: Sequence[Rollout]) -> Metrics:
    raw = [r.score.raw for r in rollouts if r.score.raw is not None]
    totals = [r.score.total for r in rollouts if r.score.total is not None]
    verdicts = [r.score.status for r in rollouts if r.score.status not in FAULTS]
    metrics: Metrics = {}
    if raw:
        mean = _mean(raw)
        metrics["reward/mean"] = mean
        metrics["reward/std"] = math.sqrt(_mean([(value - mean) ** 2 for value in raw]))
    if totals:
        metrics["reward/total"] = _mean(totals)
    if verdicts:
        metrics["accuracy"] = verdicts.count("ok") / len(verdicts)
    by_prompt: defaultdict[str, list[float]] = defaultdict(list)
    for j in judged:
        by_prompt[j.group.prompt.id] += j.group.raw
    se = clustered_se(by_prompt.values())
    return metrics if se is None else metrics | {"reward/se": se}


def _parts(rollouts: Sequence[Rollout]) -> Metrics:
    values: defaultdict[str, list[float]] = defaultdict(list)
    for rollout in rollouts:
        for name, value in rollout.score.parts.items():
            values[name].append(value)
    taken = sorted(RESERVED_PARTS & values.keys())
    if taken:
        raise ValueError(
            f"a reward part is named {taken[0]!r}, and reward/{taken[0]} is another metric; give the part another name"
        )
    return {f"reward/{name}": _mean(found) for name, found in values.items()}


def _lengths(rollouts: Sequence[Rollout]) -> Metrics:
    lengths = [len(r.completion.token_ids) for r in rollouts]
    metrics: Metrics = {
        "rollouts/generated": float(len(rollouts)),
        "rollouts/faults": float(sum(r.score.status in FAULTS for r in rollouts)),
        "tokens/generated": float(sum(lengths)),
    }
    if lengths:
        metrics["length/mean"] = sum(lengths) / len(lengths)
        metrics["length/max"] = float(max(lengths))
        metrics["length/truncated"] = _mean([float(r.completion.finish_reason == "length") for r in rollouts])
    return metrics


def _groups(judged: Sequence[Judged]) -> Metrics:
    outcomes = Counter(j.outcome for j in judged)
    metrics: Metrics = {f"groups/{outcome}": float(outcomes[outcome]) for outcome in get_args(Outcome)}
    metrics["groups/generated"] = float(len(judged))
    if judged:
        spread = [j.group.raw and max(j.group.raw) - min(j.group.raw) > 0 for j in judged]
        metrics["groups/effective"] = sum(map(bool, spread)) / len(judged)
        metrics["rounds"] = max(j.round for j in judged) + 1.0
    return metrics


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
