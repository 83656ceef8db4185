"""What a person should hear of a step: updates that were left out, and metrics past a threshold.

Events only; what follows from them is decided in `train.py`. To add a rule about a metric, add a row to `RULES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from burnish.batch import Prepared
from burnish.protocols import Pass
from burnish.records import Event
from burnish.types import FAULTS, Group, Judged, Metrics

NAMED = 3
"""Tensors and rollouts that a message names; the event's data has all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A metric above its threshold."""

    kind: str
    metric: str
    threshold: float
    message: str
    """With the metric's `value` to be filled in."""
    advice: str


RULES = (
    Rule(
        "truncated",
        "length/truncated",
        0.9,
        "{value:.0%} of the completions were cut at the length limit",
        "Type a larger sampling.max_new_tokens",
    ),
    Rule(
        "mismatch",
        "mismatch/mean",
        0.02,
        "log-probabilities of engine and learner differ by {value:.3f} nats on average, for the same weights",
        "Type objective.mismatch.correct=token, or model.dtype=float32",
    ),
)


def past_threshold(step: int, metrics: Metrics) -> list[Event]:
    """An event for each rule that the step's metrics break."""
    return [
        Event(
            rule.kind,
            f"step {step}: {rule.message.format(value=metrics[rule.metric])}",
            severity=2,
            step=step,
            rule=rule.metric,
            value=metrics[rule.metric],
            threshold=rule.threshold,
            advice=rule.advice,
        )
        for rule in RULES
        if metrics.get(rule.metric, 0.0) > rule.threshold
    ]


def nothing_trains(step: int, prepared: Prepared) -> Event:
    """Every token of an update is masked out, or there is none."""
    batch = prepared.batch
    return Event(
        "nothing_trains",
        f"step {step}: an update was left out: no token of its {batch.num_sequences} completions trains "
        f"({int(batch.truncated_B.sum())} are cut at the length limit, {int((batch.lengths_B == 0).sum())} are empty)",
        severity=2,
        step=step,
        advice="Type a larger sampling.max_new_tokens, or objective.overlong.mask_truncated=false",
    )


def not_finite(step: int, names: Sequence[str], groups: Sequence[Group], prepared: Prepared, seen: Pass) -> Event:
    """An update was left out because `names` held NaN or infinity: which rollouts did it."""
    rollouts = _culprits(groups, prepared, seen)
    shown = [f"completion {r['sibling']} of prompt {r['prompt']}" for r in rollouts]
    told = f"; so do the numbers of {_some(shown)}" if rollouts else "; no completion stands out"
    return Event(
        "not_finite",
        f"step {step}: an update was left out, for {_some(names)} hold numbers that are not finite{told}",
        severity=3,
        step=step,
        advice="Type a smaller optimizer.learning_rate; with model.dtype=bfloat16, try float32",
        data={"tensors": list(names), "rollouts": rollouts},
    )


def pass_rates(judged: Sequence[Judged]) -> list[str]:
    """How many groups have which share of right completions: a table, one line each."""
    rates: Counter[float] = Counter()
    for statuses in ([r.score.status for r in j.group.rollouts if r.score.status not in FAULTS] for j in judged):
        rates[statuses.count("ok") / len(statuses) if statuses else -1.0] += 1
    shown = [("no verdict" if rate < 0.0 else f"{rate:.0%}", n) for rate, n in sorted(rates.items())]
    return ["  right       groups", *(f"  {rate:10}  {n:6,}" for rate, n in shown)]


def _culprits(groups: Sequence[Group], prepared: Prepared, seen: Pass) -> list[dict[str, int | str]]:
    """Rollouts with any number at a trained token that is not finite: what went into the loss, or what came of it."""
    batch = prepared.batch
    fine_N = seen.logprobs_N.isfinite() & seen.entropy_N.isfinite() & seen.push_N.isfinite()
    fine_N &= batch.old_logprobs_N.isfinite() & prepared.advantages_N.isfinite()
    fine_N &= prepared.weights_KN.isfinite().all(dim=0)
    bad = set(batch.sequence_N[batch.mask_N & ~fine_N].tolist())
    rollouts = [(group, sibling) for group in groups for sibling in range(len(group.rollouts))]
    return [
        {"prompt": group.prompt.id, "group": group.id, "sibling": sibling}
        for sequence, (group, sibling) in enumerate(rollouts)
        if sequence in bad
    ]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
