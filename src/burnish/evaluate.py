"""Evaluation on held-out prompts, independent of the training reward: what share is right, and how sure that is.

`evaluate` draws n completions per prompt, grades them, and reports

    avg@n     mean accuracy                  pass@k    chance that one of k completions is right, unbiased
    maj@n     accuracy of the majority vote  greedy    accuracy of the one greedy completion
    length    tokens per completion          truncated share cut at the length limit
    faults    completions that could not be graded

and where completions state their confidence

    brier, ece, auroc    what the statement is worth (`burnish.calibration`)
    confidence           mean stated         tagged    share of completions that state one

each with a 95 % bootstrap interval over prompts (`faults` is a count and has none). Right is a `Score.status` of `ok`:
weights, format bonuses and length penalties of the training reward play no part. A fault of the grader is no wrong
answer: the completion is left out of every accuracy and counted in `faults`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from burnish import calibration, seeds
from burnish.errors import TrainingError
from burnish.grading import Grading
from burnish.protocols import Reward, RolloutEngine, Statements
from burnish.records import Evaluation, EvaluationItem
from burnish.types import FAULTS, Completion, Group, Prompt, Request, Rollout, Sampling, Score

NUM_RESAMPLES = 1000
MISSING = float("nan")

Graded = tuple[Sequence[Completion], Sequence[Score]]
"""The completions of one prompt and their scores, in seed order."""


def evaluate(
    engine: RolloutEngine,
    reward: Reward,
    prompts: Sequence[Prompt],
    *,
    suite: str,
    step: int,
    policy_version: int,
    samples: int,
    sampling: Sampling,
    seed: int,
    greedy: bool,
    statements: Statements | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    end_grading: Callable[[], None] | None = None,
) -> Evaluation:
    """Evaluate the policy that the engine holds, which must be `policy_version`.

    The same problem gets the same seeds in every evaluation of a run, whatever else is in the suite or happened
    before, and nothing depends on the order in which the engine finishes. `progress` hears (prompts done, of how many);
    greedy decoding goes through the prompts a second time. `statements` reads the confidence that sampled completions
    state; without it none is measured. `end_grading` is as in `train.Run`.

    A prompt counts in avg@n and maj@n when at least one completion could be graded, and in pass@k when k could. A value
    for which no prompt counts is left out.

    Raises:
        ValueError: there are no prompts.
        TrainingError: not one completion could be graded.
    """
    assert samples >= 1
    if not prompts:
        raise ValueError(f"evaluation of {suite} has no prompts. Type another eval.data, or eval.every=0")
    total = len(prompts) * (1 + greedy)
    draws = _Draws(engine, reward, prompts, policy_version, seed, progress, end_grading, total)
    sampled = draws.take(samples, sampling)
    decoded = draws.take(1, replace(sampling, temperature=0.0)) if greedy else None
    confidences = _confidences(prompts, sampled, statements)
    items = [_item(*row) for row in zip(prompts, sampled, confidences, strict=True)]
    faults = [score for _, scores in [*sampled, *(decoded or ())] for score in scores if score.status in FAULTS]
    if not any(item.num_completions for item in items):
        raise TrainingError(
            f"evaluation of {suite}: none of {len(prompts) * samples} completions could be graded; the first fault: "
            f"{faults[0].status}: {faults[0].message}"
        )
    columns = _columns(items, sampled, decoded, samples)
    if statements:
        columns |= _stated_columns(items, confidences)
    resampling = seeds.derive(seed, "bootstrap", suite)
    values = bootstrap(columns, seed=resampling)
    stated = calibration.gather(confidences, [_rights(scores) for _, scores in sampled])
    values |= calibration.measures(stated, num_prompts=len(prompts), num_resamples=NUM_RESAMPLES, seed=resampling)
    num_faults = float(len(faults))
    values["faults"] = (num_faults, num_faults, num_faults)
    return Evaluation(step, suite, values, items, calibration.reliability(stated))


def table(evaluation: Evaluation) -> list[str]:
    """Lines for the terminal: one per value, with its interval."""
    num_prompts, num_graded = len(evaluation.items), sum(item.num_completions for item in evaluation.items)
    lines = [f"{evaluation.suite}, step {evaluation.step}: {num_prompts:,} prompts, {num_graded:,} completions graded"]
    width = max(9, *map(len, evaluation.values))
    for name, (value, low, high) in evaluation.values.items():
        if name == "faults":
            lines.append(f"  {name:{width}} {value:7.0f}")
        else:
            digits = 1 if name == "length" else 3
            lines.append(f"  {name:{width}} {value:7.{digits}f}  [{low:.{digits}f}, {high:.{digits}f}]")
    return lines


def pass_at_k(num_completions: int, num_right: int, k: int) -> float:
    """Chance that at least one of `k` completions is right, given `num_right` of `num_completions` that were.

    The unbiased estimator of arXiv:2107.03374 (Chen et al. 2021), equation 1: 1 - C(n - c, k) / C(n, k). It is the
    share of the k-subsets of the n completions with a right one among them. NaN where n < k: there is no such subset.
    """
    if num_completions < k:
        return MISSING
    return 1.0 - math.comb(num_completions - num_right, k) / math.comb(num_completions, k)


def majority_right(scores: Sequence[Score]) -> bool | None:
    """Whether the most frequent extracted answer is right (self-consistency, arXiv:2203.11171).

    Completions vote with `Score.answer`, compared as text; those without an answer and faults do not vote. Among
    equally frequent answers the one that was given first wins, which favours none, since completions are exchangeable.
    The first completion with the winning answer says whether it is right.

    False when no completion stated an answer. None when there is nothing to vote on: every completion is a fault, or
    the reward judges without extracting answers.
    """
    graded = [score for score in scores if score.status not in FAULTS]
    votes = Counter(score.answer for score in graded if score.answer is not None)
    if not votes:
        return False if graded and all(score.status == "unparsed" for score in graded) else None
    winner = max(votes, key=votes.__getitem__)
    return next(score.status == "ok" for score in graded if score.answer == winner)


def bootstrap(columns: dict[str, list[float]], *, seed: int) -> dict[str, tuple[float, float, float]]:
    """Name -> (mean, low, high) of columns with one value per prompt, NaN where a prompt has none.

    95 % percentile bootstrap (Efron 1979) over prompts, which are what was sampled: the completions of one prompt
    stand or fall together. All columns share the resamples, and the same seed gives the same resamples. A column
    without any value is left out. Where all values are equal the interval is that value: it says nothing about
    prompts unlike those seen.
    """
    names = [name for name, values in columns.items() if not all(map(math.isnan, values))]
    if not names:
        return {}
    values_PM = np.array([columns[name] for name in names], dtype=np.float64).T
    has_PM = ~np.isnan(values_PM)
    filled_PM = np.where(has_PM, values_PM, 0.0)
    rng = np.random.default_rng(seed)
    num_prompts = len(values_PM)
    means_SM = np.empty((NUM_RESAMPLES, len(names)))
    for resample in range(NUM_RESAMPLES):
        times_P = np.bincount(rng.integers(num_prompts, size=num_prompts), minlength=num_prompts)
        means_SM[resample] = _ratio(times_P.astype(np.float64) @ filled_PM, times_P @ has_PM)
    low_M, high_M = np.nanpercentile(means_SM, [2.5, 97.5], axis=0)
    mean_M = _ratio(filled_PM.sum(0), has_PM.sum(0))
    rows = zip(names, mean_M.tolist(), low_M.tolist(), high_M.tolist(), strict=True)
    return {name: (mean, low, high) for name, mean, low, high in rows}


def _ratio(sums_M: NDArray[np.float64], counts_M: NDArray[np.int64]) -> NDArray[np.float64]:
    """NaN where a resample has drawn no prompt that has a value."""
    return np.divide(sums_M, counts_M, out=np.full(len(sums_M), MISSING), where=counts_M > 0)


@dataclass
class _Draws:
    """Generates and grades the suite, once per kind of sampling."""

    engine: RolloutEngine
    reward: Reward
    prompts: Sequence[Prompt]
    policy_version: int
    seed: int
    progress: Callable[[int, int], None]
    end_grading: Callable[[], None] | None
    total: int
    done: int = 0

    def take(self, samples: int, sampling: Sampling) -> list[Graded]:
        """`samples` graded completions of every prompt, in the order of the prompts."""
        requests = self._requests(samples)
        with Grading(self.reward, end_call=self.end_grading) as grading:
            for request_id, completions in self.engine.generate(requests, sampling):
                assert all(c.policy_version == self.policy_version for c in completions), "it holds other weights"
                assert len(completions) == samples
                grading.add(request_id, requests[request_id].prompt, completions)
                self.done += 1
                self.progress(self.done, self.total)
            found = {request_id: (completions, scores) for request_id, completions, scores in grading.finished()}
        return [found[request.id] for request in requests]

    def _requests(self, samples: int) -> list[Request]:
        """A prompt that stands in the suite several times draws other seeds each time."""
        times: Counter[str] = Counter()
        requests: list[Request] = []
        for number, prompt in enumerate(self.prompts):
            key = (self.seed, prompt.id, times[prompt.id])
            times[prompt.id] += 1
            sample_seeds = tuple(seeds.evaluation_seed(*key, index) for index in range(samples))
            requests.append(Request(number, prompt, sample_seeds))
        return requests


def _confidences(
    prompts: Sequence[Prompt], sampled: Sequence[Graded], statements: Statements | None
) -> Sequence[Sequence[float | None]]:
    """For each prompt, what its completions state."""
    if statements is None:
        return [[None] * len(completions) for completions, _ in sampled]
    groups = [
        Group(index, prompt, tuple(Rollout(c, s) for c, s in zip(completions, scores, strict=True)))
        for index, (prompt, (completions, scores)) in enumerate(zip(prompts, sampled, strict=True))
    ]
    return statements(groups)


def _stated_columns(
    items: Sequence[EvaluationItem], confidences: Sequence[Sequence[float | None]]
) -> dict[str, list[float]]:
    return {
        "confidence": [MISSING if item.mean_confidence is None else item.mean_confidence for item in items],
        "tagged": [sum(c is not None for c in stated) / len(stated) for stated in confidences],
    }


def _rights(scores: Sequence[Score]) -> list[bool | None]:
    return [None if score.status in FAULTS else score.status == "ok" for score in scores]


def _item(prompt: Prompt, graded: Graded, confidences: Sequence[float | None]) -> EvaluationItem:
    """`num_completions` counts those that could be graded; means are over all that have the value."""
    completions, scores = graded
    assert len(completions) == len(scores)
    stated = [confidence for confidence in confidences if confidence is not None]
    return EvaluationItem(
        prompt=prompt,
        num_completions=sum(score.status not in FAULTS for score in scores),
        num_right=sum(score.status == "ok" for score in scores),
        majority_right=majority_right(scores),
        mean_length=sum(len(c.token_ids) for c in completions) / len(completions),
        mean_confidence=sum(stated) / len(stated) if stated else None,
    )


def _columns(
    items: Sequence[EvaluationItem], sampled: Sequence[Graded], decoded: Sequence[Graded] | None, samples: int
) -> dict[str, list[float]]:
    """Value name -> one number per prompt, NaN where the prompt has none."""
    columns = {f"avg@{samples}": [_accuracy(scores) for _, scores in sampled]}
    k = 1
    while k <= samples:
        columns[f"pass@{k}"] = [pass_at_k(item.num_completions, item.num_right, k) for item in items]
        k *= 2
    majority = [MISSING if item.majority_right is None else float(item.majority_right) for item in items]
    columns[f"maj@{samples}"] = majority
    if decoded is not None:
        columns["greedy"] = [_accuracy(scores) for _, scores in decoded]
    columns["length"] = [item.mean_length for item in items]
    columns["truncated"] = [
        sum(c.finish_reason == "length" for c in completions) / len(completions) for completions, _ in sampled
    ]
    return columns


def _accuracy(scores: Sequence[Score]) -> float:
    graded = [right for right in _rights(scores) if right is not None]
    return sum(graded) / len(graded) if graded else MISSING
