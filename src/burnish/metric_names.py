"""Every metric that a run emits: unit, formula, what to expect. The one table; `docs/metrics.md` is made from it.

`python -m burnish.metric_names > docs/metrics.md` writes the page. To add a metric, add a row; a name that is emitted
and not listed fails the tests. Names in angle brackets stand for what varies: a reward part, a suite, a number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from burnish.types import Metrics

Better = Literal["up", "down", ""]
Scale = Literal["linear", "log", "share"]


@dataclass(frozen=True, slots=True)
class MetricName:
    name: str
    unit: str
    formula: str
    """How the number comes about; over what."""
    healthy: str
    """What a run that goes well shows, or what to think of when it does not."""
    scale: Scale = "linear"
    """How to draw it; a share lies within 0 and 1."""
    better: Better = ""
    """Which way is good, where one is."""


def _rows() -> tuple[MetricName, ...]:
    share: Scale = "share"
    row = MetricName
    return (
        # -- reward, over all generated groups: the admitted ones are biased to the middle by construction
        row("reward/mean", "score", "mean raw score of all generated rollouts", "rises", better="up"),
        row("reward/std", "score", "population standard deviation of the same raw scores", "falls near the end"),
        row(
            "reward/se",
            "score",
            "standard error of reward/mean, clustered by prompt: sqrt(C/(C-1) sum_c e_c^2) / n over C prompts, "
            "e_c the sum of a prompt's deviations from the mean",
            "differences within 2 of these are noise",
        ),
        row("reward/total", "score", "mean total score (parts weighted and shaped) of all generated rollouts", "rises"),
        row("reward/<part>", "score", "mean of one reward part over the rollouts that have it", "rises", better="up"),
        row(
            "accuracy",
            "share",
            "rollouts with status ok / generated rollouts with a verdict (faults have none)",
            "rises",
            share,
            "up",
        ),
        # -- loss
        row("loss", "nats", "sum over terms and tokens of weight x loss, mean over the step's updates", "small"),
        row("loss/policy", "nats", "the surrogate's share of the loss", "near 0; its level means nothing"),
        row("loss/kl", "nats", "coefficient x KL to the reference, with the policy term's weights", "small, positive"),
        row("loss/anchor_kl", "nats", "beta_anchor_kl x adpo/kl_penalty", "small, positive"),
        row("loss/entropy", "nats", "-coefficient x entropy, with the policy term's weights", "negative"),
        row(
            "loss/confidence",
            "1",
            "coefficient x mean loss of the valid statements of stated confidence: the term's share of the loss",
            "falls",
        ),
        row("loss/value", "score^2", "coefficient x value/loss, with the policy term's weights", "falls"),
        row(
            "kl/old", "nats", "k3 estimate of KL(sampling policy || current), mean over trained tokens", "< 0.05", "log"
        ),
        row(
            "kl/ref", "nats", "k3 estimate of KL(current || reference), mean over trained tokens", "grows slowly", "log"
        ),
        row("ratio/mean", "1", "mean of pi / pi_old over trained tokens", "0.99 to 1.01"),
        row("ratio/max", "1", "largest pi / pi_old of the step's trained tokens (log-ratio cut at 20)", "< 10", "log"),
        row("clip/low", "share", "trained tokens whose ratio is held at 1 - clip_low", "< 0.02", share),
        row("clip/high", "share", "trained tokens whose ratio is held at 1 + clip_high", "< 0.02", share),
        row("clip/dual", "share", "trained tokens whose loss is held at the dual clip", "< 0.001", share),
        row("clip/fraction", "share", "trained tokens held at any edge", "0.001 to 0.03", share),
        row("entropy", "nats", "mean entropy of the policy at trained tokens, at the sampling temperature", "not to 0"),
        row("grad_norm", "1", "norm of the gradient before it is cut, mean over updates", "steady", "log"),
        row("learning_rate", "1", "of the last update of the step", "as scheduled"),
        row("updates", "updates", "optimiser updates since the run began", "grows evenly"),
        row(
            "update/skipped",
            "updates",
            "updates of the step that were left out: loss or gradient not finite",
            "0",
            better="down",
        ),
        row(
            "weights/checksum",
            "1",
            "sum of the bit patterns of the weights after the step, modulo 2^53",
            "its value means nothing: two runs whose weights differ in one bit differ in it",
        ),
        row(
            "mismatch/mean",
            "nats",
            "mean |learner - engine| log-probability, same weights, trained tokens",
            "< 0.01",
            "log",
        ),
        row("mismatch/max", "nats", "largest |learner - engine| log-probability of the same tokens", "< 1", "log"),
        row(
            "mismatch/kl",
            "nats",
            "k3 estimate of KL(engine || learner), same weights, trained tokens",
            "< 0.001; much above, type objective.mismatch.correct=token",
            "log",
        ),
        row(
            "mismatch/weight",
            "1",
            "mean of min(learner / engine, cap) over trained tokens; with objective.mismatch",
            "0.99 to 1.01",
        ),
        row("mismatch/capped", "share", "trained tokens whose learner / engine is above the cap", "< 0.01", share),
        # -- ADPO; measured on whole updates, before each
        row(
            "adpo/loss",
            "nats",
            "listwise cross-entropy -sum q log p, mean over prompts",
            "log(group_size) at a first update, whatever was learned: no sign of progress",
        ),
        row(
            "adpo/anchor_kl",
            "nats",
            "mean |s - s_anchor| over completions, s their log-probability; the published name for what is no KL",
            "0 at a first update",
            "log",
        ),
        row(
            "adpo/anchor_kl_k3",
            "nats",
            "k3 estimate of KL(anchor || current), mean over trained tokens",
            "< 0.05",
            "log",
        ),
        row("adpo/mean_tau", "1", "mean temperature over prompts", "tau, if it is not adaptive"),
        row(
            "adpo/kl_penalty",
            "nats",
            "mean over trained tokens of exp(-d) + d - 1, d = log(current / anchor); with beta_anchor_kl",
            "0 at a first update",
            "log",
        ),
        row(
            "adpo/dropped_prompts",
            "prompts",
            "left out because no sibling has a raw score above 0, mean over updates; with drop_all_failed_prompts",
            "falls",
        ),
        row("adpo/q_entropy", "nats", "mean entropy of the target over siblings", "at most log(group_size)"),
        # -- the value head of PPO; over trained tokens
        row("value/loss", "score^2", "mean of max((V - return)^2, (held V - return)^2) / 2", "falls", better="down"),
        row("value/mean", "score", "mean value V, before each update", "towards value/return"),
        row(
            "value/return",
            "score",
            "mean return: the raw advantage plus the value before the step",
            "towards reward/total",
        ),
        row(
            "value/explained_variance",
            "share",
            "1 - Var(return - V) / Var(return), V before the step, pooled over the step's updates; may be below 0",
            "rises from 0; below 0, V is worse than a constant",
            better="up",
        ),
        row("value/clipped", "share", "tokens whose value is held at objective.value.clip", "< 0.2", share),
        row("value/advantage", "score", "mean advantage before it is whitened", "near 0; its sign is the bias of V"),
        row("value/advantage_size", "score", "mean |advantage| before it is whitened", "falls as V learns"),
        # -- stated confidence, over the completions of the step's updates
        row(
            "confidence/loss",
            "1",
            "mean loss of valid statements, without the coefficient: squared error or cross-entropy (nats)",
            "falls",
            better="down",
        ),
        row("confidence/score_mean", "share", "mean stated confidence of valid statements", "towards accuracy", share),
        row(
            "confidence/valid_ratio",
            "share",
            "completions whose statement trains: exactly one tag, a target, not masked as overlong",
            "> 0.9",
            share,
            "up",
        ),
        row("confidence/missing", "share", "completions without a whole tag", "< 0.1", share, "down"),
        row("confidence/multiple", "share", "completions with more than one tag", "0", share, "down"),
        # -- rollouts
        row("length/mean", "tokens", "mean completion length of all generated rollouts", "no sudden jump"),
        row("length/max", "tokens", "longest completion", "below max_new_tokens"),
        row("length/truncated", "share", "completions cut at max_new_tokens", "< 0.1", share, "down"),
        row("rollouts/generated", "rollouts", "completions generated and graded", "see rounds"),
        row(
            "rollouts/faults",
            "rollouts",
            "rollouts that the grader failed on: timeout, error, oom, invalid",
            "0",
            better="down",
        ),
        row(
            "rollouts/restarts",
            "processes",
            "grading processes that were replaced since the step before: killed at a deadline, grown too large, died",
            "0",
            better="down",
        ),
        row("tokens/generated", "tokens", "completion tokens of all generated rollouts", ""),
        row("tokens/trained", "tokens", "tokens that trained, counted once per update", ""),
        # -- groups
        row("groups/generated", "groups", "groups generated; the next six add up to it", "see rounds"),
        row("groups/admitted", "groups", "groups that train", "prompts_per_step"),
        row("groups/all_right", "groups", "dropped: every sibling right", "grows as the task is learned"),
        row("groups/all_wrong", "groups", "dropped: every sibling wrong", "falls"),
        row("groups/constant", "groups", "dropped: siblings scored alike, neither all right nor all wrong", "few"),
        row("groups/fault", "groups", "dropped: fewer than two siblings with a score (ppo: none)", "0", better="down"),
        row("groups/surplus", "groups", "admitted beyond what the step needs", "few"),
        row("groups/effective", "share", "generated groups whose raw scores differ", "> 0.2", share, "up"),
        row("prompts/skipped", "prompts", "passed over by the history sampler: last group alike", "below half of all"),
        row(
            "prompts/reincluded",
            "prompts",
            "skipped prompts that the history sampler asked for again, by lot",
            "few; many when most of the data teaches nothing",
        ),
        row("rounds", "rounds", "generation rounds that the step took", "1 to 3", better="down"),
        # -- time
        row("time/step", "s", "wall time since the step before was recorded", "steady", better="down"),
        row("time/generate", "s", "waiting for the engine", "the largest part"),
        row("time/reward", "s", "waiting for grades, while the engine stood still", "small"),
        row(
            "time/grading",
            "s",
            "grading, the part beside the engine included: what is above time/reward cost no time",
            "below time/generate + time/reward",
        ),
        row("time/learn", "s", "preparing, forward, backward, optimiser", ""),
        row("time/publish", "s", "handing the weights to the engine", "small"),
        row("time/record", "s", "handing the step to the store; counted in the step after", "< 0.03 of time/step"),
        row("time/evaluate", "s", "evaluating; counted in the step after", ""),
        row("time/checkpoint", "s", "saving; counted in the step after", ""),
        row("throughput/generate", "tokens/s", "tokens/generated / time/generate", "steady", better="up"),
        row("throughput/learn", "tokens/s", "tokens/trained / time/learn", "steady", better="up"),
        # -- held out
        row("eval/<suite>/avg@<n>", "share", "mean over prompts of right / n completions", "rises", share, "up"),
        row(
            "eval/<suite>/pass@<n>", "share", "prompts with a right one among n, unbiased", "does not fall", share, "up"
        ),
        row("eval/<suite>/maj@<n>", "share", "prompts whose most frequent answer of n is right", "rises", share, "up"),
        row("eval/<suite>/greedy", "share", "prompts right when decoded greedily", "rises", share, "up"),
        row("eval/<suite>/length", "tokens", "mean completion length", "no sudden jump"),
        row("eval/<suite>/truncated", "share", "completions cut at max_new_tokens", "< 0.1", share, "down"),
        row(
            "eval/<suite>/brier",
            "1",
            "mean (stated confidence - right)^2; stating the accuracy a always gives a(1 - a)",
            "falls",
            share,
            "down",
        ),
        row(
            "eval/<suite>/ece",
            "share",
            "sum over ten equal bins of |mean confidence - accuracy| x their share of the completions",
            "falls",
            share,
            "down",
        ),
        row(
            "eval/<suite>/auroc",
            "share",
            "chance that a right completion states more confidence than a wrong one; ties half",
            "> 0.5",
            share,
            "up",
        ),
        row("eval/<suite>/confidence", "share", "mean stated confidence", "close to avg@n", share),
        row("eval/<suite>/tagged", "share", "completions with exactly one confidence tag", "> 0.9", share, "up"),
        row("eval/<suite>/faults", "completions", "completions that could not be graded", "0", better="down"),
    )


METRICS: Mapping[str, MetricName] = {row.name: row for row in _rows()}
"""Name or pattern -> what it is."""

_PATTERNS = {
    re.compile(re.sub(r"<n>", r"[0-9]+", re.sub(r"<(part|suite)>", r"[^/]+", name))): row
    for name, row in METRICS.items()
    if "<" in name
}

PROMISED: Mapping[str, str] = {
    "reward/mean": "reward/mean",
    "reward/std": "reward/std",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "clip_fraction": "clip/fraction",
    "entropy": "entropy",
    "actor/pg_loss": "loss/policy",
    "critic/vf_loss": "value/loss",
    "critic/vf_clipfrac": "value/clipped",
    "critic/vpred_mean": "value/mean",
    "critic/vf_explained_var": "value/explained_variance",
    "actor/conf_loss": "confidence/loss",
    "actor/conf_score_mean": "confidence/score_mean",
    "actor/conf_valid_ratio": "confidence/valid_ratio",
}
"""Names that users of other tools look for -> ours. Sinks get both."""

RESERVED_PARTS = frozenset(name.removeprefix("reward/") for name in METRICS if re.fullmatch(r"reward/\w+", name))
"""Names that a reward part cannot have, for `reward/<part>` would be another metric."""


def find(name: str) -> MetricName | None:
    """What a metric is; None when the name is not listed."""
    if name in METRICS:
        return METRICS[name]
    return next((row for pattern, row in _PATTERNS.items() if pattern.fullmatch(name)), None)


def with_promised_names(metrics: Metrics) -> Metrics:
    """The metrics, and those of `PROMISED` under their other names too."""
    return metrics | {theirs: metrics[ours] for theirs, ours in PROMISED.items() if ours in metrics}


def markdown() -> str:
    """The page `docs/metrics.md`."""
    lines = [
        "# Metrics",
        "",
        "<!-- Made by `python -m burnish.metric_names > docs/metrics.md`. -->",
        "",
        "Rewards, lengths and groups are over all generated rollouts, trained on or not. A metric that was not",
        "measured in a step is absent, never 0.",
        "",
        "| name | unit | formula | healthy | better |",
        "|---|---|---|---|---|",
        *(
            f"| `{m.name}` | {m.unit} | {m.formula.replace('|', chr(92) + '|')} | {m.healthy} | {m.better} |"
            for m in METRICS.values()
        ),
        "",
        "## Other names",
        "",
        "Sinks also get these names, for those who look for them.",
        "",
        "| name | ours |",
        "|---|---|",
        *(f"| `{theirs}` | `{ours}` |" for theirs, ours in PROMISED.items() if theirs != ours),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown())
