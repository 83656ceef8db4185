"""One step, evaluation or event as rows. Called within a transaction; holds no connection and no thread.

`Writer` knows the ids it has given out (prompts, parts, metric names, rollouts), so that a step is written without
reading anything back.
"""

from __future__ import annotations

import math
import re
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from burnish import metric_names
from burnish.records import Evaluation, Event, StepRecord, TokenTrace
from burnish.store import codes, keep, rollups, text
from burnish.store.features import Columns, Floats, columns
from burnish.types import FAULTS, Judged, Metrics, Prompt

MESSAGE_CHARACTERS = 2000
"""Of a grader's message; a longer one is cut and flagged."""

TokenBytes = Callable[[Sequence[int]], Sequence[int]]
"""Token ids -> bytes of text that each stands for."""

INSERT_ROLLOUT = "INSERT INTO rollouts VALUES (" + ",".join("?" * 27) + ")"
ADD_PROMPT_STATS = """
INSERT INTO prompt_stats
SELECT g.prompt_id, 1, g.n, g.n_right, g.n_fault, s.step, s.step, a.acc, a.acc
FROM groups g JOIN steps s USING(step_id)
JOIN (SELECT group_id, CAST(n_right AS REAL) / nullif(n - n_fault, 0) AS acc FROM groups) a USING(group_id)
WHERE s.live {which} ORDER BY g.group_id
ON CONFLICT(prompt_id) DO UPDATE SET n_groups = n_groups + 1, n = n + excluded.n, n_right = n_right + excluded.n_right,
  n_fault = n_fault + excluded.n_fault, last_step = excluded.last_step,
  first_acc = coalesce(first_acc, excluded.first_acc), last_acc = coalesce(excluded.last_acc, last_acc)
"""
OF_ONE_STEP = ADD_PROMPT_STATS.format(which="AND g.step_id = ?")
OF_ALL_STEPS = ADD_PROMPT_STATS.format(which="")


@dataclass(frozen=True)
class Policy:
    """What decides how a step is written, beside the step."""

    seed: int
    raw_low: float
    raw_high: float
    token_bytes: TokenBytes | None
    token_groups: int
    """Groups of a step whose token arrays are kept, of all siblings."""


class Writer:
    def __init__(
        self, db: sqlite3.Connection, policy: Policy, parts: Mapping[str, tuple[float | None, bool | None]]
    ) -> None:
        self._policy = policy
        self._parts = dict(parts)
        self._prompts: dict[str, int] = dict(db.execute("SELECT uid, prompt_id FROM prompts"))
        self._part_ids: dict[str, int] = dict(db.execute("SELECT name, part_id FROM part_names"))
        self._metric_ids: dict[str, int] = dict(db.execute("SELECT name, name_id FROM metric_names"))
        self._next_step = _next(db, "SELECT max(step_id) FROM steps")
        self._next_group = _next(db, "SELECT max(group_id) FROM groups")
        self._next_rollout = _next(db, "SELECT max(rollout_id) FROM rollouts")

    def step(self, db: sqlite3.Connection, step: StepRecord, attempt: int) -> None:
        """Write a step with its rollups. Parents first: a reference to a row that comes later would be checked twice,
        the second time by a walk through all rows that might have waited for it."""
        table = columns(step)
        whole = keep.whole_groups(step.judged, seed=self._policy.seed, step=step.step, count=self._policy.token_groups)
        step_id, first = self._next_step, self._next_rollout
        raw = rollups.by_group(table.raw_B, table)
        raw_mean_P = np.array([values.mean() if len(values) else np.nan for values in raw])
        prompt_ids = [self._prompt(db, judged.group.prompt) for judged in step.judged]
        kept_B = self._kept(step, table, whole)
        bodies, flags = self._bodies(table, kept_B)
        row = (
            step_id, step.step, attempt, step.started, step.seconds, step.policy_version, step.num_updates,
            step.num_rounds, first, len(table.rollouts), int(table.length_B.sum()),
            sum(bool(k & codes.KEPT_BODY) for k in kept_B), sum(bool(k & codes.KEPT_TOKENS) for k in kept_B),
            text.content_sha(step),
            rollups.strip(step.judged, raw_mean_P, self._policy.raw_low, self._policy.raw_high),
        )  # fmt: skip
        db.execute("INSERT INTO steps VALUES (?,?,?,1,?,?,?,?,?,?,?,?,?,?,?,?)", row)
        self._groups(db, step, table, raw, whole, prompt_ids)
        self._rollouts(db, step, table, prompt_ids, kept_B, flags)
        db.executemany("INSERT INTO bodies VALUES (?,?,?)", bodies)
        self._score_parts(db, table)
        self._tokens(db, table, kept_B)
        self._metrics(db, step_id, step.metrics)
        self._rollups(db, step_id, first, table, step.judged)
        db.execute(OF_ONE_STEP, (step_id,))
        self._next_step += 1
        self._next_group += len(step.judged)
        self._next_rollout += len(table.rollouts)

    def bare_step(self, db: sqlite3.Connection, step: int, metrics: Metrics, attempt: int) -> None:
        """Write a step of which the metrics are all that is known."""
        seconds = metrics.get("time/step")
        row = (self._next_step, step, attempt, seconds, metrics.get("rounds"))
        db.execute("INSERT INTO steps(step_id, step, attempt, seconds, n_rounds) VALUES (?,?,?,?,?)", row)
        self._metrics(db, self._next_step, metrics)
        self._next_step += 1

    def evaluation(self, db: sqlite3.Connection, evaluation: Evaluation, attempt: int) -> None:
        prompts = [item.prompt for item in evaluation.items]
        sha = text.suite_sha(prompts)
        name = text.clean(evaluation.suite)[0]
        db.execute("INSERT OR IGNORE INTO suites(name, sha, n_prompts) VALUES (?,?,?)", (name, sha, len(prompts)))
        (suite_id,) = db.execute("SELECT suite_id FROM suites WHERE name = ? AND sha = ?", (name, sha)).fetchone()
        eval_id = db.execute(
            "INSERT INTO evaluations(suite_id, step, attempt, t) VALUES (?,?,?,?)",
            (suite_id, evaluation.step, attempt, time.time()),
        ).lastrowid
        db.executemany(
            "INSERT INTO evals VALUES (?,?,?,?,?,?,?)",
            [
                (eval_id, metric, completions_of(metric), *values, any(map(math.isnan, values)))
                for metric, values in evaluation.values.items()
            ],
        )
        db.executemany(
            "INSERT INTO eval_items VALUES (?,?,?,?,?,?,?,?)",
            [
                (
                    eval_id, index, self._prompt(db, item.prompt), item.num_completions, item.num_right,
                    item.majority_right, item.mean_length, item.mean_confidence,
                )
                for index, item in enumerate(evaluation.items)
            ],
        )  # fmt: skip

    def event(self, db: sqlite3.Connection, event: Event, attempt: int, t: float) -> None:
        data = None if event.data is None else text.json_text(event.data)
        value, threshold = _number(event.value), _number(event.threshold)
        db.execute(
            "INSERT INTO events(t, attempt, step, kind, severity, rule, value, threshold, message, advice, data, nan) "
            "VALUES (?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                t, attempt, event.step, text.clean(event.kind)[0], event.severity, event.rule, value, threshold,
                text.clean(event.message)[0], event.advice and text.clean(event.advice)[0], data,
                any(v is not None and math.isnan(v) for v in (value, threshold)),
            ),
        )  # fmt: skip

    def restart(self, db: sqlite3.Connection) -> None:
        """Make `prompt_stats` speak of the live steps alone, after steps were superseded."""
        db.execute("DELETE FROM prompt_stats")
        db.execute(OF_ALL_STEPS)

    # -- rows of a step ------------------------------------------------------------------------------------------------

    def _groups(
        self,
        db: sqlite3.Connection,
        step: StepRecord,
        table: Columns,
        raw: Sequence[Floats],
        whole: set[int],
        prompt_ids: Sequence[int],
    ) -> None:
        totals = rollups.by_group(table.total_B, table)
        db.executemany(
            "INSERT INTO groups VALUES (" + ",".join("?" * 19) + ")",
            [
                (
                    self._next_group + p, judged.group.id, self._next_step, prompt_ids[p], judged.round,
                    codes.OUTCOME[judged.outcome], self._next_rollout + int(table.first_P[p]),
                    *_counts(judged), *_spread(raw[p]), *_mean_std(totals[p]),
                    _or_none(_slice(table.length_B, table, p).mean() if table.size_P[p] else np.nan), p in whole,
                )
                for p, judged in enumerate(step.judged)
            ],
        )  # fmt: skip

    def _kept(self, step: StepRecord, table: Columns, whole: set[int]) -> list[int]:
        kept = [0] * len(table.rollouts)
        for p, judged in enumerate(step.judged):
            first, n = int(table.first_P[p]), int(table.size_P[p])
            if p in whole:
                kept[first : first + n] = [codes.KEPT_BODY | codes.KEPT_TOKENS] * n
                continue
            for sibling in keep.bodies_of(judged.group, seed=self._policy.seed, step=step.step):
                kept[first + sibling] = codes.KEPT_BODY
        return kept

    def _bodies(self, table: Columns, kept_B: Sequence[int]) -> tuple[list[tuple[int, bytes, str | None]], list[int]]:
        """Rows of the bodies that are kept, and the flags of all rollouts, now with those of their text."""
        flags = table.flags_B.tolist()
        rows: list[tuple[int, bytes, str | None]] = []
        for b, (rollout, kept) in enumerate(zip(table.rollouts, kept_B, strict=True)):
            body, cleaned = text.clean(rollout.completion.text)
            message, message_cleaned = text.clean(rollout.score.message)
            cleaned |= message_cleaned or (rollout.score.answer is not None and text.clean(rollout.score.answer)[1])
            cut = len(message) > MESSAGE_CHARACTERS
            flags[b] |= cleaned * codes.TEXT_CLEANED | (cut and kept > 0) * codes.MESSAGE_CUT
            if kept & codes.KEPT_BODY:
                rows.append((self._next_rollout + b, text.packed(body), message[:MESSAGE_CHARACTERS] or None))
        return rows, flags

    def _rollouts(
        self,
        db: sqlite3.Connection,
        step: StepRecord,
        table: Columns,
        prompt_ids: Sequence[int],
        kept_B: Sequence[int],
        flags_B: Sequence[int],
    ) -> None:
        group = table.group_B.tolist()
        siblings = (np.arange(len(table.rollouts)) - table.first_P[table.group_B]).tolist()
        answers = [r.score.answer and text.clean(r.score.answer)[0] for r in table.rollouts]
        db.executemany(
            INSERT_ROLLOUT,
            zip(
                range(self._next_rollout, self._next_rollout + len(table.rollouts)),
                [self._next_group + p for p in group],
                [self._next_step] * len(table.rollouts),
                [prompt_ids[p] for p in group],
                siblings,
                [r.completion.policy_version for r in table.rollouts],
                table.status_B.tolist(),
                table.finish_B.tolist(),
                answers,
                _column(table.raw_B),
                _column(table.total_B),
                _column(table.advantage_B),
                table.length_B.tolist(),
                _column(table.old_logprob_mean_B),
                _column(table.entropy_mean_B),
                _column(table.ratio_max_B),
                _column(table.clip_low_B),
                _column(table.clip_high_B),
                _column(table.clip_dual_B),
                _column(table.mismatch_B),
                _column(table.confidence_B),
                _column(table.target_B),
                _column(table.repeat_share_B),
                _column(table.reward_ms_B),
                [text.text_sha(r.completion.token_ids) for r in table.rollouts],
                flags_B,
                kept_B,
                strict=True,
            ),
        )

    def _score_parts(self, db: sqlite3.Connection, table: Columns) -> None:
        db.executemany(
            "INSERT INTO score_parts VALUES (?,?,?)",
            [
                (self._next_rollout + b, self._part(db, name), float(value))
                for b, rollout in enumerate(table.rollouts)
                for name, value in rollout.score.parts.items()
            ],
        )

    def _tokens(self, db: sqlite3.Connection, table: Columns, kept_B: Sequence[int]) -> None:
        rows: list[tuple[Any, ...]] = []
        for b, (rollout, trace) in enumerate(zip(table.rollouts, table.traces, strict=True)):
            if kept_B[b] & codes.KEPT_TOKENS:
                ids = rollout.completion.token_ids
                count = None if self._policy.token_bytes is None else self._policy.token_bytes(ids)
                n_bytes = None if count is None else _blob(np.minimum(count, 65535), "<u2")
                old = _blob(rollout.completion.logprobs, "<f4")
                rows.append((self._next_rollout + b, len(ids), _blob(ids, "<i4"), n_bytes, old, *_trace_blobs(trace)))
        db.executemany("INSERT INTO tokens VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", rows)

    def _metrics(self, db: sqlite3.Connection, step_id: int, metrics: Metrics) -> None:
        rows: list[tuple[Any, ...]] = []
        for name, value in metrics.items():
            se = metrics.get(name.removesuffix("/mean") + "/se") if name.endswith("/mean") else None
            rows.append((self._metric(db, name), step_id, float(value), _number(se), math.isnan(value)))
        db.executemany("INSERT INTO metrics VALUES (?,?,?,?,?)", rows)

    def _rollups(
        self, db: sqlite3.Connection, step_id: int, first: int, table: Columns, judged: Sequence[Judged]
    ) -> None:
        def insert(statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
            db.executemany(statement, rows)

        insert("INSERT INTO step_status VALUES (?,?,?,?,?)", ((step_id, *r) for r in rollups.status_rows(table)))
        insert("INSERT INTO step_outcome VALUES (?,?,?)", ((step_id, *r) for r in rollups.outcome_rows(judged)))
        insert(
            "INSERT INTO step_hist(step_id, what, bin, n) VALUES (?,?,?,?)",
            ((step_id, *r) for r in rollups.histogram_rows(table)),
        )
        insert(
            "INSERT INTO step_extremes VALUES (?,?,?,?,?)",
            ((what, step_id, rank, first + b, value) for what, rank, b, value in rollups.extreme_rows(table)),
        )
        weights = {name: weight for name, (weight, _) in self._parts.items()}
        parts = list(rollups.part_rows(table, weights))
        insert(
            "INSERT INTO step_parts VALUES (?,?,?,?,?,?,?,?)", ((step_id, self._part(db, r[0]), *r[1:]) for r in parts)
        )
        insert("INSERT INTO step_calib VALUES (?,?,?,?,?,?)", ((step_id, *r) for r in rollups.calibration_rows(table)))

    # -- ids -----------------------------------------------------------------------------------------------------------

    def _prompt(self, db: sqlite3.Connection, prompt: Prompt) -> int:
        uid, uid_cleaned = text.clean(prompt.id)
        found = self._prompts.get(uid)
        if found is not None:
            return found
        shown, shown_cleaned = text.clean(prompt.shown)
        answer, answer_cleaned = (None, False) if prompt.answer is None else text.clean(prompt.answer)
        flags = (uid_cleaned or shown_cleaned or answer_cleaned) * codes.TEXT_CLEANED
        statement = "INSERT INTO prompts(uid, text, answer, meta, flags) VALUES (?,?,?,?,?)"
        row = (uid, shown, answer, text.json_text(dict(prompt.meta)), flags)
        return self._prompts.setdefault(uid, db.execute(statement, row).lastrowid or 0)

    def _part(self, db: sqlite3.Connection, name: str) -> int:
        weight, is_task = self._parts.get(name, (None, None))
        name = text.clean(name)[0]
        found = self._part_ids.get(name)
        if found is None:
            statement = "INSERT INTO part_names(name, weight, is_task) VALUES (?,?,?)"
            found = self._part_ids[name] = db.execute(statement, (name, weight, is_task)).lastrowid or 0
        return found

    def _metric(self, db: sqlite3.Connection, name: str) -> int:
        name = text.clean(name)[0]
        found = self._metric_ids.get(name)
        if found is None:
            known = metric_names.find(name)
            about = (known.unit, known.formula, known.scale, known.healthy, known.better) if known else (None,) * 5
            statement = "INSERT INTO metric_names(name, unit, formula, scale, healthy, better) VALUES (?,?,?,?,?,?)"
            found = self._metric_ids[name] = db.execute(statement, (name, *about)).lastrowid or 0
        return found


def _counts(judged: Judged) -> tuple[int, int, int, int, int]:
    """n, n_right, n_truncated, n_fault, n_answers."""
    rollouts = judged.group.rollouts
    return (
        len(rollouts),
        sum(r.score.status == "ok" for r in rollouts),
        sum(r.completion.finish_reason == "length" for r in rollouts),
        sum(r.score.status in FAULTS for r in rollouts),
        len({r.score.answer for r in rollouts if r.score.answer is not None}),
    )


def _spread(values: Floats) -> tuple[float | None, float | None, float | None]:
    """Mean, minimum, maximum."""
    if not len(values):
        return None, None, None
    return float(values.mean()), float(values.min()), float(values.max())


def _mean_std(values: Floats) -> tuple[float | None, float | None]:
    """Mean and sample standard deviation (ddof 1, as group advantages use it)."""
    if not len(values):
        return None, None
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else None


def _slice(values_B: np.ndarray, table: Columns, p: int) -> np.ndarray:
    return values_B[table.first_P[p] : table.first_P[p] + table.size_P[p]]


def _column(values: Floats) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _number(value: float | None) -> float | None:
    """As SQLite can hold it: an integer of 64 bits and more is too large for it, a float is not."""
    return None if value is None else float(value)


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _blob(values: Any, dtype: str) -> bytes:
    return zlib.compress(np.asarray(values).astype(dtype).tobytes(), 1)


def _trace_blobs(trace: TokenTrace | None) -> tuple[Any, ...]:
    """learner, new, entropy, push, push_scale, clip, mask."""
    if trace is None:
        return (None,) * 7
    learner = None if trace.learner_logprobs is None else _blob(trace.learner_logprobs, "<f4")
    push = np.asarray(trace.push, dtype=np.float64)
    size = np.abs(push[np.isfinite(push)])
    scale = float(size.max()) if len(size) and size.max() > 0 else 1.0
    return (
        learner,
        _blob(trace.new_logprobs, "<f4"),
        _blob(trace.entropy, "<f2"),
        _blob(push / scale, "<f2"),
        scale,
        _blob(trace.clip, "i1"),
        _blob(trace.mask, "i1"),
    )


def completions_of(metric: str) -> int:
    """Completions per prompt that a metric is about: 4 for `pass@4`, 1 for `greedy`."""
    found = re.search(r"@(\d+)$", metric)
    return int(found[1]) if found else 1


def _next(db: sqlite3.Connection, statement: str) -> int:
    return (db.execute(statement).fetchone()[0] or 0) + 1
