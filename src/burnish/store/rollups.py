"""Sums over the rollouts of one step, so that a page about a whole run reads hundreds of rows and not millions.

Shape letters: B rollouts, P groups, R reward parts. Values that are not finite take no part in any sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from burnish.store import codes
from burnish.store.features import Columns, Floats, Ints
from burnish.types import Judged


def status_rows(columns: Columns) -> Iterator[tuple[int, int, int, float]]:
    """(status, finish, rollouts, sum of raw scores) of every combination there is."""
    pairs_B = np.stack([columns.status_B, columns.finish_B], axis=1)
    for status, finish in np.unique(pairs_B, axis=0).tolist():
        chosen = (columns.status_B == status) & (columns.finish_B == finish)
        raw = columns.raw_B[chosen]
        yield status, finish, int(chosen.sum()), float(raw[np.isfinite(raw)].sum())


def outcome_rows(judged: Sequence[Judged]) -> Iterator[tuple[int, int]]:
    """(outcome, groups) of every outcome there is."""
    yield from sorted(Counter(codes.OUTCOME[j.outcome] for j in judged).items())


def histogram_rows(columns: Columns) -> Iterator[tuple[int, int, int]]:
    """(what, bin, rollouts) of every bin that is not empty."""
    values = {
        "length": columns.length_B.astype(np.float64),
        "raw": columns.raw_B,
        "total": columns.total_B,
        "advantage": columns.advantage_B,
        "old_logprob_mean": columns.old_logprob_mean_B,
        "entropy_mean": columns.entropy_mean_B,
    }
    for histogram in codes.HISTOGRAMS:
        bins, counts = np.unique(bin_of(histogram, values[histogram.name]), return_counts=True)
        for bin_, n in zip(bins.tolist(), counts.tolist(), strict=True):
            yield histogram.what, bin_, n


def bin_of(histogram: codes.Histogram, values: Floats) -> Ints:
    """Bins of the finite values. A value within 1e-9 bins of an edge is on it: 0.3 is in the bin of 0.3."""
    finite = values[np.isfinite(values)]
    scaled = finite if histogram.scale == "linear" else np.log2(finite + 1.0)
    bins = np.floor(scaled / histogram.width + 1e-9)
    return np.clip(bins, -codes.LAST_BIN, codes.LAST_BIN).astype(np.int64)


def extreme_rows(columns: Columns) -> Iterator[tuple[int, int, int, float]]:
    """(what, rank from 0, index of the rollout in the step, value); ties in recording order."""
    length_B = columns.length_B.astype(np.float64)
    values = {
        "longest": length_B,
        "shortest": length_B,
        "best": columns.total_B,
        "worst": columns.total_B,
        "ratio_max": columns.ratio_max_B,
        "mismatch": columns.mismatch_B,
        "repeat": columns.repeat_share_B,
        "reward_ms": columns.reward_ms_B,
        "entropy": columns.entropy_mean_B,
    }
    for word, what in codes.EXTREMES.items():
        value_B = values[word]
        there = np.flatnonzero(np.isfinite(value_B))
        order = value_B[there] if word in codes.SMALLEST_FIRST else -value_B[there]
        top = there[np.argsort(order, kind="stable")][: codes.EXTREMES_PER_STEP]
        for rank, index in enumerate(top.tolist()):
            yield what, rank, index, float(value_B[index])


def part_rows(
    columns: Columns, weights: Mapping[str, float | None]
) -> Iterator[tuple[str, int, float, float, float, float, float | None]]:
    """(part, rollouts that have it, mean, population sd, min, max, share) for every part there is.

    share = Cov_within(weight * part, total) / Var_within(total), both over rollouts that have a total, about their
    group's mean: the part's share of what decides advantages. Shares add up to 1 when the total is the weighted sum of
    the parts. None when no group has spread or the part's weight is unknown.
    """
    names = sorted({name for rollout in columns.rollouts for name in rollout.score.parts})
    scored = np.isfinite(columns.total_B)
    total_dev = _within(columns.total_B, columns.group_B, scored)
    spread = float((total_dev**2).sum())
    for name in names:
        part_B = np.array([r.score.parts.get(name, np.nan) for r in columns.rollouts], dtype=np.float64)
        there = part_B[np.isfinite(part_B)]
        if not len(there):
            continue
        weight = weights.get(name)
        share = None
        if weight is not None and spread > 0:
            part_dev = _within(np.where(np.isfinite(part_B), part_B, 0.0), columns.group_B, scored)
            share = weight * float((part_dev * total_dev).sum()) / spread
        mean, sd, low, high = float(there.mean()), float(there.std()), float(there.min()), float(there.max())
        yield name, len(there), mean, sd, low, high, share


def calibration_rows(columns: Columns) -> Iterator[tuple[int, int, float, float, float]]:
    """(tenth of the scale, rollouts, sum of confidence, right ones, sum of (confidence - right)^2) of every tenth.

    Over rollouts with a stated confidence and a verdict. Sums over steps add up: the Brier score is the last over n.
    """
    right_B = columns.status_B == codes.STATUS["ok"]
    there = np.isfinite(columns.confidence_B) & ~np.isin(columns.status_B, list(codes.FAULT_CODES))
    confidence, right = columns.confidence_B[there], right_B[there].astype(np.float64)
    bins = np.clip((confidence * codes.CONFIDENCE_BINS + 1e-9).astype(np.int64), 0, codes.CONFIDENCE_BINS - 1)
    for bin_ in np.unique(bins).tolist():
        c, r = confidence[bins == bin_], right[bins == bin_]
        yield bin_, len(c), float(c.sum()), float(r.sum()), float(((c - r) ** 2).sum())


def strip(judged: Sequence[Judged], raw_mean_P: Floats, raw_low: float, raw_high: float) -> bytes:
    """A byte per group, sorted: the mean raw score as 0..250 of the scale, then surplus groups, then those without a
    score."""
    scale = (raw_mean_P - raw_low) / (raw_high - raw_low)
    quantised = np.rint(np.clip(np.nan_to_num(scale), 0.0, 1.0) * codes.STRIP_TOP).astype(int)
    quantised[np.array([j.outcome == "surplus" for j in judged], dtype=bool)] = codes.STRIP_SURPLUS
    quantised[~np.isfinite(raw_mean_P)] = codes.STRIP_NO_SCORE
    return bytes(sorted(quantised.tolist()))


def by_group(values_B: Floats, columns: Columns) -> list[Floats]:
    """The finite values of each group."""
    pieces = [values_B[first : first + n] for first, n in zip(columns.first_P, columns.size_P, strict=True)]
    return [piece[np.isfinite(piece)] for piece in pieces]


def _within(values_B: Floats, group_B: Ints, where_B: np.ndarray) -> Floats:
    """Deviations of the marked values from the mean of the marked values of their group."""
    values, group = values_B[where_B], group_B[where_B]
    count = np.bincount(group)
    mean = np.bincount(group, weights=values) / np.maximum(count, 1)
    return values - mean[group]
