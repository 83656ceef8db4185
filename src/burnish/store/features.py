"""One step as columns: a number per rollout and quantity, computed for all rollouts of the step at once.

Shape letters: N completion tokens of the step end to end, B rollouts in recording order (group by group, so siblings
are consecutive), P groups. NaN in a column means "not there"; `flags` tells it from a value that was not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from burnish.records import StepRecord, TokenTrace
from burnish.store import codes
from burnish.types import Rollout

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NGRAM = 4
"""`repeat_share` counts repeated runs of this many tokens."""
TOKENS_AT_ONCE = 2_000_000
"""Tokens that one pass over n-grams holds: bounds its memory to about a hundred megabytes."""


@dataclass(frozen=True)
class Columns:
    rollouts: tuple[Rollout, ...]
    """B rollouts."""
    traces: tuple[TokenTrace | None, ...]
    """B traces; None for a rollout that was not trained on."""
    group_B: Ints
    """0..P-1."""
    first_P: Ints
    """Index of each group's first rollout."""
    size_P: Ints
    status_B: Ints
    finish_B: Ints
    length_B: Ints
    raw_B: Floats
    total_B: Floats
    advantage_B: Floats
    old_logprob_mean_B: Floats
    entropy_mean_B: Floats
    ratio_max_B: Floats
    clip_low_B: Floats
    clip_high_B: Floats
    clip_dual_B: Floats
    mismatch_B: Floats
    confidence_B: Floats
    target_B: Floats
    repeat_share_B: Floats
    reward_ms_B: Floats
    flags_B: Ints


def columns(step: StepRecord) -> Columns:
    """The step's rollouts as columns.

    Over trained tokens: `ratio_max` is the largest exp(new - old); `mismatch` the mean of |learner - old|. Over all
    tokens: means of `old` log-probabilities and of entropy. `repeat_share` is the share of 4-token runs that occurred
    before in the same completion.
    """
    groups = [judged.group for judged in step.judged]
    rollouts = tuple(rollout for group in groups for rollout in group.rollouts)
    traces = tuple(step.traces.get((group.id, sibling)) for group in groups for sibling in range(len(group.rollouts)))
    size_P = np.array([len(group.rollouts) for group in groups], dtype=np.int64)
    length_B = np.array([len(r.completion.token_ids) for r in rollouts], dtype=np.int64)
    old_N = _flat([r.completion.logprobs for r in rollouts], np.float64)
    traced = _traced(traces, length_B, old_N)
    raw_B = _numbers(r.score.raw for r in rollouts)
    total_B = _numbers(r.score.total for r in rollouts)
    old_mean_B = _mean(old_N, length_B)
    bad_trace_B = traced.pop("bad") > 0
    flags_B = (
        _not_finite(rollouts) * codes.SCORE_NOT_FINITE
        + (bad_trace_B | ((length_B > 0) & ~np.isfinite(old_mean_B))) * codes.TRACE_NOT_FINITE
    )
    return Columns(
        rollouts=rollouts,
        traces=traces,
        group_B=np.repeat(np.arange(len(groups)), size_P),
        first_P=np.cumsum(size_P) - size_P,
        size_P=size_P,
        status_B=np.array([codes.STATUS[r.score.status] for r in rollouts], dtype=np.int64),
        finish_B=np.array([codes.FINISH[r.completion.finish_reason] for r in rollouts], dtype=np.int64),
        length_B=length_B,
        raw_B=raw_B,
        total_B=total_B,
        old_logprob_mean_B=old_mean_B,
        repeat_share_B=_repeat_share([r.completion.token_ids for r in rollouts]),
        reward_ms_B=_numbers(r.score.ms for r in rollouts),
        flags_B=flags_B.astype(np.int64),
        **traced,
    )


def _traced(traces: Sequence[TokenTrace | None], length_B: Ints, old_N: Floats) -> dict[str, Floats]:
    """Columns that come from the learner; NaN where a rollout was not trained on."""
    there_B = np.array([trace is not None for trace in traces], dtype=bool)
    there = [trace for trace in traces if trace is not None]
    lengths = length_B[there_B]
    old = old_N[np.repeat(there_B, length_B)]
    new = _flat([t.new_logprobs for t in there], np.float64)
    entropy = _flat([t.entropy for t in there], np.float64)
    push = _flat([t.push for t in there], np.float64)
    clip = _flat([t.clip for t in there], np.int8)
    trained = _flat([t.mask for t in there], np.int8) != 0
    advantage = np.array([t.advantage for t in there], dtype=np.float64)
    learner = np.concatenate(
        [
            np.full(n, np.nan) if t.learner_logprobs is None else np.asarray(t.learner_logprobs, dtype=np.float64)
            for t, n in zip(there, lengths, strict=True)
        ]
        or [np.zeros(0)]
    )
    measured = np.array([t.learner_logprobs is not None for t in there], dtype=bool)
    finite = (
        np.isfinite(new) & np.isfinite(entropy) & np.isfinite(push) & (np.isfinite(learner) | ~measured.repeat(lengths))
    )
    stated = [[v for v in (t.confidence, t.target) if v is not None] for t in there]
    stated_badly = np.array([not all(map(math.isfinite, values)) for values in stated], dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        columns = {
            "advantage_B": advantage,
            "entropy_mean_B": _mean(entropy, lengths),
            "ratio_max_B": np.exp(_max(new - old, lengths, trained)),
            "clip_low_B": _sum(clip == -1, lengths),
            "clip_high_B": _sum(clip == 1, lengths),
            "clip_dual_B": _sum(clip == 2, lengths),
            "mismatch_B": _mean(np.abs(learner - old), lengths, trained),
            "confidence_B": _numbers(t.confidence for t in there),
            "target_B": _numbers(t.target for t in there),
            "bad": _sum(~finite, lengths) + ~np.isfinite(advantage) + stated_badly,
        }
    return {name: _spread(values, there_B) for name, values in columns.items()}


def _repeat_share(rows: Sequence[Any]) -> Floats:
    """Share of the 4-token runs of each completion that occurred before in it; NaN under 4 tokens."""
    shares = [np.zeros(0)]
    for part in _pieces(rows):
        length_B = np.array([len(row) for row in part], dtype=np.int64)
        shares.append(_repeat_share_of(_flat(part, np.int64), length_B))
    return np.concatenate(shares)


def _repeat_share_of(tokens_N: Ints, length_B: Ints) -> Floats:
    sequence_N = np.repeat(np.arange(len(length_B)), length_B)
    count_B = np.maximum(length_B - (NGRAM - 1), 0)
    starts = np.repeat(np.cumsum(length_B) - length_B, count_B) + _aranges(count_B)
    key = sequence_N[starts].astype(np.uint64)
    for offset in range(NGRAM):
        key = (key + tokens_N[starts + offset].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(29)
    _, first = np.unique(key, return_index=True)
    distinct_B = np.bincount(sequence_N[starts[first]], minlength=len(length_B))
    return np.divide(count_B - distinct_B, count_B, out=np.full(len(length_B), np.nan), where=count_B > 0)


def _pieces(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    start = held = 0
    for index, row in enumerate(rows):
        if held and held + len(row) > TOKENS_AT_ONCE:
            yield rows[start:index]
            start, held = index, 0
        held += len(row)
    if start < len(rows):
        yield rows[start:]


def _not_finite(rollouts: Sequence[Rollout]) -> NDArray[np.bool_]:
    """Whether a score that exists has a value that is not finite."""

    def bad(rollout: Rollout) -> bool:
        score = rollout.score
        values = [v for v in (score.raw, score.total, *score.parts.values()) if v is not None]
        return not all(map(math.isfinite, values))

    return np.array([bad(rollout) for rollout in rollouts], dtype=bool)


def _aranges(count_B: Ints) -> Ints:
    """0..count-1 for each count, end to end."""
    return np.arange(count_B.sum()) - np.repeat(np.cumsum(count_B) - count_B, count_B)


def _flat(rows: Sequence[Any], dtype: Any) -> NDArray[Any]:
    return np.concatenate([np.asarray(row, dtype=dtype) for row in rows] or [np.zeros(0, dtype=dtype)])


def _numbers(values: Iterable[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _sum(values_N: NDArray[Any], lengths: Ints) -> Floats:
    sequence_N = np.repeat(np.arange(len(lengths)), lengths)
    sums = np.bincount(sequence_N, weights=values_N.astype(np.float64), minlength=len(lengths))
    return sums.astype(np.float64)


def _mean(values_N: Floats, lengths: Ints, where_N: NDArray[np.bool_] | None = None) -> Floats:
    count = lengths.astype(np.float64) if where_N is None else _sum(where_N, lengths)
    total = _sum(values_N if where_N is None else np.where(where_N, values_N, 0.0), lengths)
    return np.divide(total, count, out=np.full(len(lengths), np.nan), where=count > 0)


def _max(values_N: Floats, lengths: Ints, where_N: NDArray[np.bool_]) -> Floats:
    """Maximum over the marked tokens of each sequence; NaN where none is marked."""
    found = np.full(len(lengths), -np.inf)
    np.maximum.at(found, np.repeat(np.arange(len(lengths)), lengths)[where_N], values_N[where_N])
    return np.where(_sum(where_N, lengths) > 0, found, np.nan)


def _spread(values: Floats, there_B: NDArray[np.bool_]) -> Floats:
    full = np.full(len(there_B), np.nan)
    full[there_B] = values
    return full
