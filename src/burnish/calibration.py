"""How much stated confidence is worth: Brier score, expected calibration error, AUROC, reliability.

    brier      mean of (confidence - right)^2; a constant statement of the accuracy a gets a * (1 - a)
    ece        mean over ten equal bins of |mean confidence - accuracy|, weighted by what is in them
    auroc      chance that a right completion states more confidence than a wrong one; ties count half

Brier is a proper score: best where the statement is the true probability. ECE sees the level, AUROC the order.
With few completions ECE is above 0 also for a perfect statement.

Shape letters: C completions that state a confidence and have a verdict, S resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from burnish.records import ReliabilityBin

NUM_BINS = 10

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Stated:
    """What C completions stated, and whether they were right."""

    confidence_C: Floats
    right_C: Floats
    """1 or 0."""
    prompt_C: Ints
    """The prompt each belongs to, from 0."""


def brier(stated: Stated, times_C: Floats | None = None) -> float:
    """Brier 1950. `times_C` counts each completion that often; NaN without any."""
    times_C = _ones(stated) if times_C is None else times_C
    return _ratio(float(times_C @ (stated.confidence_C - stated.right_C) ** 2), float(times_C.sum()))


def expected_calibration_error(stated: Stated, times_C: Floats | None = None) -> float:
    """Over ten bins of equal width (Naeini et al. 2015; arXiv:1706.04599, equation 3). NaN without completions."""
    times_C = _ones(stated) if times_C is None else times_C
    gap_C = times_C * (stated.confidence_C - stated.right_C)
    gaps = np.bincount(bins(stated.confidence_C), weights=gap_C, minlength=NUM_BINS)
    return _ratio(float(np.abs(gaps).sum()), float(times_C.sum()))


def auroc(stated: Stated, times_C: Floats | None = None) -> float:
    """Area under the ROC curve, by ranks (Mann and Whitney 1947). NaN where all are right or all are wrong."""
    times_C = _ones(stated) if times_C is None else times_C
    _, level_C = np.unique(stated.confidence_C, return_inverse=True)
    right = np.bincount(level_C, weights=times_C * stated.right_C)
    wrong = np.bincount(level_C, weights=times_C * (1.0 - stated.right_C))
    below = np.cumsum(wrong) - wrong
    return _ratio(float(right @ (below + wrong / 2.0)), float(right.sum() * wrong.sum()))


MEASURES: dict[str, Callable[[Stated, Floats | None], float]] = {
    "brier": brier,
    "ece": expected_calibration_error,
    "auroc": auroc,
}


def measures(
    stated: Stated, *, num_prompts: int, num_resamples: int, seed: int
) -> dict[str, tuple[float, float, float]]:
    """Name -> (value, low, high): 95 % percentile bootstrap over prompts. A measure without a value is left out."""
    values = {name: measure(stated, None) for name, measure in MEASURES.items()}
    there = {name: value for name, value in values.items() if value == value}
    rng = np.random.default_rng(seed)
    resampled: dict[str, list[float]] = {name: [] for name in there}
    for _ in range(num_resamples if there else 0):
        times_P = np.bincount(rng.integers(num_prompts, size=num_prompts), minlength=num_prompts)
        times_C = times_P[stated.prompt_C].astype(np.float64)
        for name in there:
            resampled[name].append(MEASURES[name](stated, times_C))
    low_high = {name: np.nanpercentile(found, [2.5, 97.5]).tolist() for name, found in resampled.items()}
    return {name: (value, *low_high[name]) for name, value in there.items()}


def reliability(stated: Stated) -> tuple[ReliabilityBin, ...]:
    """The ten bins, those without a completion left out."""
    bin_C = bins(stated.confidence_C)
    count = np.bincount(bin_C, minlength=NUM_BINS)
    confidence = np.bincount(bin_C, weights=stated.confidence_C, minlength=NUM_BINS)
    right = np.bincount(bin_C, weights=stated.right_C, minlength=NUM_BINS)
    return tuple(
        ReliabilityBin(int(count[b]), float(confidence[b] / count[b]), float(right[b] / count[b]))
        for b in range(NUM_BINS)
        if count[b]
    )


def bins(confidence_C: Floats) -> Ints:
    """0 to 9; a confidence of 1 belongs to the last."""
    return np.minimum((confidence_C * NUM_BINS + 1e-9).astype(np.int64), NUM_BINS - 1)


def gather(confidences: Sequence[Sequence[float | None]], rights: Sequence[Sequence[bool | None]]) -> Stated:
    """From values per prompt and completion; what lacks a confidence or a verdict takes no part."""
    rows = [
        (confidence, float(right), prompt)
        for prompt, pair in enumerate(zip(confidences, rights, strict=True))
        for confidence, right in zip(*pair, strict=True)
        if confidence is not None and right is not None
    ]
    confidence_C, right_C, prompt_C = np.array(rows, dtype=np.float64).reshape(len(rows), 3).T
    return Stated(confidence_C, right_C, prompt_C.astype(np.int64))


def _ones(stated: Stated) -> Floats:
    return np.ones(len(stated.confidence_C))


def _ratio(total: float, count: float) -> float:
    return total / count if count > 0 else float("nan")
