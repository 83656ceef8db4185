"""Steps as a run records them, made of plain numbers: no model, no engine, the same bits from the same seed."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from burnish.records import Evaluation, EvaluationItem, StepRecord, TokenTrace
from burnish.step_metrics import rollup
from burnish.store.sqlite import SQLiteStore
from burnish.types import Completion, FinishReason, Group, Judged, Outcome, Prompt, Rollout, Score, Status

RUN = {
    "run_id": "run-1-abc",
    "name": "run",
    "objective": "dapo",
    "config": {"seed": 1},
    "data": "sha256:0",
    "packages": {"numpy": "2"},
    "code": "0123abc",
    "host": "laptop",
}
PARTS = {"answer": (1.0, True), "format": (0.5, False)}


def store_at(path: Path, **changes: Any) -> SQLiteStore:
    """A store open for writing, its first attempt begun."""
    store = SQLiteStore(path, **({"run": RUN, "parts": PARTS, "raw_range": (-1.0, 1.0), "seed": 1} | changes))
    store.open_attempt(0)
    return store


def rollout(
    *,
    status: Status = "ok",
    raw: float | None = 1.0,
    total: float | None = None,
    parts: Mapping[str, float] | None = None,
    text: str = "4",
    answer: str | None = "4",
    message: str = "",
    ids: Sequence[int] = (1, 2, 3, 4),
    logprobs: Sequence[float] | None = None,
    finish: FinishReason = "stop",
    ms: float | None = None,
) -> Rollout:
    logprobs = [-0.5] * len(ids) if logprobs is None else logprobs
    completion = Completion(array("i", [7]), array("i", ids), array("f", logprobs), text, finish, 0)
    score = Score(raw if total is None else total, raw, parts or {}, status, message, answer, ms)
    return Rollout(completion, score)


def judged(*rollouts: Rollout, id: int = 0, uid: str = "p0", outcome: Outcome = "admitted", round: int = 0) -> Judged:
    return Judged(Group(id, Prompt(uid, text=f"2+{uid}=", answer="4"), rollouts), outcome, round)


def step(number: int, *groups: Judged, traces: Any = None, metrics: Mapping[str, float] | None = None) -> StepRecord:
    rounds = max((g.round for g in groups), default=0) + 1
    found = rollup(groups) if metrics is None else dict(metrics)
    return StepRecord(number, number - 1, 1e9 + number, 1.5, 4, rounds, groups, traces or {}, found)


def trace(n: int, *, advantage: float = 1.0, new: float = -0.4, learner: float | None = -0.5) -> TokenTrace:
    """A trace of `n` tokens; the first is clipped high."""
    return TokenTrace(
        advantage=advantage,
        new_logprobs=array("f", [new] * n),
        learner_logprobs=None if learner is None else array("f", [learner] * n),
        entropy=array("f", [0.75] * n),
        push=array("f", [1e-9 * (i + 1) for i in range(n)]),
        clip=array("b", [int(i == 0) for i in range(n)]),
        mask=array("b", [1] * n),
    )


def learning_step(number: int, *, groups: int = 16, group_size: int = 8, tokens: int = 24, seed: int = 0) -> StepRecord:
    """A step of a run that gets better: right answers, faults, cut completions, groups of every outcome."""
    rng = random.Random(f"{seed}/{number}")
    skill = 1.0 - math.exp(-number / 10)
    found = [_group(rng, number * 1000 + g, skill, group_size, tokens) for g in range(groups)]
    traces = {
        (j.group.id, i): trace(len(r.completion.token_ids), advantage=rng.gauss(0, 1))
        for j in found
        if j.outcome == "admitted"
        for i, r in enumerate(j.group.rollouts)
    }
    metrics = rollup(found) | {
        "loss": rng.gauss(0, 0.01),
        "loss/policy": rng.gauss(0, 0.01),
        "entropy": 1.0 - 0.5 * skill,
        "clip/high": 0.004,
        "kl/old": 0.001,
        "grad_norm": 0.3,
        "learning_rate": 1e-6,
        "updates": 4.0 * number,
        "time/step": 3.0,
        "time/generate": 1.6,
        "time/reward": 0.2,
        "time/learn": 1.0,
    }
    return step(number, *found, traces=traces, metrics=metrics)


def _group(rng: random.Random, id_: int, skill: float, group_size: int, tokens: int) -> Judged:
    easy = min(1.0, max(0.0, skill + rng.gauss(0, 0.4)))
    rollouts = [_rollout(rng, easy, tokens) for _ in range(group_size)]
    raw = {r.score.raw for r in rollouts if r.score.raw is not None}
    outcome: Outcome = "admitted" if len(raw) > 1 else "all_right" if raw == {1.0} else "all_wrong"
    return judged(*rollouts, id=id_, uid=f"p{id_ % 37}", outcome=outcome if raw else "fault", round=id_ % 2)


def _rollout(rng: random.Random, easy: float, tokens: int) -> Rollout:
    ids = [rng.randrange(20) for _ in range(rng.randint(1, tokens))]
    logprobs = [-rng.random() for _ in ids]
    if rng.random() < 0.01:
        return rollout(status="timeout", raw=None, answer=None, message="over 5 s", ids=ids, logprobs=logprobs)
    right = rng.random() < easy
    parts = {"answer": 1.0 if right else -1.0, "format": float(rng.random() < 0.5)}
    return rollout(
        status="ok" if right else "wrong",
        raw=parts["answer"],
        total=parts["answer"] + 0.5 * parts["format"],
        parts=parts,
        text=" ".join(map(str, ids)),
        answer=str(rng.randrange(5)),
        ids=ids,
        logprobs=logprobs,
        finish="length" if len(ids) == tokens else "stop",
        ms=rng.random(),
    )


def evaluation(number: int, *, suite: str = "held-out", metric: str = "avg@2", value: float = 0.5) -> Evaluation:
    items = [EvaluationItem(Prompt(f"e{i}", text=f"{i}?", answer="1"), 2, i % 3, None, 12.0) for i in range(10)]
    return Evaluation(number, suite, {metric: (value, value - 0.1, value + 0.1)}, items)
