"""The record: what is written, that it is whole or absent, and that its sums are those of its rows."""

from __future__ import annotations

import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from burnish.errors import StorageError
from burnish.records import Event
from burnish.store import codes, keep, queries
from burnish.store.features import columns
from burnish.store.filesystem import journal_mode
from burnish.store.rollups import part_rows, strip
from burnish.store.sqlite import SQLiteStore
from tests.recorded import PARTS, RUN, evaluation, judged, learning_step, rollout, step, store_at, trace

ROOT = Path(__file__).parents[2]


def rows(path: Path, statement: str, *values: object) -> list[tuple]:
    db = sqlite3.connect(path)
    try:
        return db.execute(statement, values).fetchall()
    finally:
        db.close()


# -- what is written ---------------------------------------------------------------------------------------------------


def test_every_number_of_a_rollout_is_found_again(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    right = rollout(
        raw=1.0, total=1.5, parts={"answer": 1.0, "format": 1.0}, ids=[1, 2, 3, 4, 1, 2, 3, 4], answer="257", ms=2.5
    )
    cut = rollout(status="wrong", raw=-1.0, total=-1.0, parts={"answer": -1.0}, ids=[5, 6], finish="length")
    with store_at(path) as store:
        store.record(step(1, judged(right, cut, id=40), traces={(40, 0): trace(8, advantage=0.7)}))
    first, second = rows(
        path,
        "SELECT status, finish, answer, raw, total, round(advantage, 6), length, old_logprob_mean, entropy_mean, "
        "round(ratio_max, 6), n_clip_low, n_clip_high, n_clip_dual, round(mismatch, 6), confidence, repeat_share, "
        "reward_ms, flags FROM rollouts ORDER BY rollout_id",
    )
    # ratio: exp(-0.4 + 0.5) = 1.105171; 5 runs of 4 tokens, of which 4 are distinct: a share of 1/5 repeats
    assert first == (0, 0, "257", 1.0, 1.5, 0.7, 8, -0.5, 0.75, 1.105171, 0, 1, 0, 0.0, None, 0.2, 2.5, 0)
    nothing = (None,) * 5
    assert second == (1, 1, "4", -1.0, -1.0, None, 2, -0.5, None, None, *nothing[:3], None, None, None, None, 0)
    assert rows(
        path, "SELECT dispatch, n, n_right, n_truncated, n_fault, n_answers, raw_mean, len_mean FROM groups"
    ) == [(40, 2, 1, 1, 0, 2, 0.0, 5.0)]
    assert rows(
        path, "SELECT name, value FROM score_parts JOIN part_names USING(part_id) ORDER BY rollout_id, name"
    ) == [
        ("answer", 1.0),
        ("format", 1.0),
        ("answer", -1.0),
    ]


def test_siblings_are_consecutive_and_groups_say_where(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        for number in (1, 2, 3):
            store.record(learning_step(number))
    found = rows(
        path,
        "SELECT g.group_id, g.first_rollout, g.n, min(r.rollout_id), max(r.rollout_id), count(*), max(r.sibling) "
        "FROM groups g JOIN rollouts r USING(group_id) GROUP BY g.group_id",
    )
    assert len(found) == 48
    for _, first, n, low, high, count, sibling in found:
        assert (low, high, count, sibling) == (first, first + n - 1, n, n - 1)


def test_a_metric_that_is_nan_is_told_from_one_that_was_not_measured(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    metrics = {"loss": math.nan, "grad_norm": math.inf, "reward/mean": 0.5, "reward/se": 0.25}
    with store_at(path) as store:
        store.record(step(1, judged(rollout()), metrics=metrics))
    found = {name: rest for name, *rest in rows(path, "SELECT name, value, se, nan FROM metrics_v")}
    assert found["loss"] == [None, None, 1]
    assert found["grad_norm"] == [math.inf, None, 0]
    assert found["reward/mean"] == [0.5, 0.25, 0]
    assert "entropy" not in found


def test_scores_that_are_not_finite_are_flagged_and_missing_ones_are_not(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    fault = rollout(status="timeout", raw=None, answer=None, message="over 5 s")
    with store_at(path) as store:
        store.record(step(1, judged(rollout(raw=math.nan), rollout(raw=math.inf), fault, rollout()), metrics={}))
    flag = codes.SCORE_NOT_FINITE
    assert rows(path, "SELECT raw, flags FROM rollouts ORDER BY rollout_id") == [
        (None, flag),
        (math.inf, flag),
        (None, 0),
        (1.0, 0),
    ]
    assert rows(path, "SELECT raw_mean, n_fault FROM groups") == [(1.0, 1)]


def test_events_whose_value_is_nan_say_so_and_their_data_stays_json(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        store.record_event(
            Event("nan", "loss is nan", value=math.nan, data={"loss": math.nan, "norms": [math.inf, 1.0]})
        )
        store.record_event(Event("inf", "loss is inf", value=math.inf, threshold=1.0))
        store.record_event(Event("none", "no value"))
    assert rows(path, "SELECT kind, value, nan FROM events") == [
        ("nan", None, 1),
        ("inf", math.inf, 0),
        ("none", None, 0),
    ]
    assert rows(path, "SELECT json_extract(data, '$.loss'), json_extract(data, '$.norms[0]') FROM events LIMIT 1") == [
        ("nan", "inf")
    ]


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**80])
def test_integers_that_sqlite_cannot_hold_are_kept_as_floats(tmp_path: Path, number: int):
    path = tmp_path / "run.sqlite"
    scored = rollout(raw=number, parts={"answer": number}, ms=number)
    with store_at(path) as store:
        store.record(step(1, judged(scored), metrics={"loss": number}))
        store.record_event(Event("large", "large", value=number, data={"n": number}))
    expected = float(number)
    assert rows(path, "SELECT r.raw, r.total, p.value FROM rollouts r JOIN score_parts p USING(rollout_id)") == [
        (expected,) * 3
    ]
    assert rows(path, "SELECT value FROM metrics_v UNION ALL SELECT value FROM events") == [(expected,)] * 2


def test_stated_confidence_that_is_not_finite_is_flagged(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    traces = {(0, 0): replace(trace(4), confidence=math.nan), (0, 1): replace(trace(4), target=math.inf)}
    with store_at(path) as store:
        store.record(step(1, judged(rollout(), rollout()), traces=traces, metrics={}))
    assert rows(path, "SELECT flags FROM rollouts") == [(codes.TRACE_NOT_FINITE,)] * 2


def test_traces_that_are_not_finite_are_flagged(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    traces = {
        (0, 0): trace(4, new=math.nan),
        (0, 1): trace(4, advantage=math.inf),
        (0, 2): trace(4, learner=None),
    }
    with store_at(path) as store:
        store.record(
            step(
                1, judged(rollout(), rollout(), rollout(), rollout(logprobs=[math.nan] * 4)), traces=traces, metrics={}
            )
        )
    flag = codes.TRACE_NOT_FINITE
    assert rows(path, "SELECT flags FROM rollouts ORDER BY rollout_id") == [(flag,), (flag,), (0,), (flag,)]


def test_lone_surrogates_are_replaced_and_flagged(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    odd = rollout(text="a\ud800b", answer="\udfff", message="\ud801")
    plain = rollout(text="\U0001f600 nul \x00 end")
    with store_at(path) as store:
        group = judged(odd, plain, uid="p\ud800")
        store.record(step(1, group))
        store.record(step(2, replace(group, group=replace(group.group, id=1))))
    with store_at(path) as store:
        store.record(step(1, group))
    db = queries.open_store(path)
    first, second = queries.rollouts_of_step(db, 1)
    assert (first.text, first.answer, first.message) == ("a\ufffdb", "\ufffd", "\ufffd")
    assert second.text == "\U0001f600 nul \x00 end"
    assert [flags for (flags,) in db.execute("SELECT flags FROM rollouts_v")] == [codes.TEXT_CLEANED, 0]
    assert db.execute("SELECT uid, flags FROM prompts").fetchall() == [("p\ufffd", codes.TEXT_CLEANED)]


def test_token_arrays_survive_with_the_precision_they_promise(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    group = judged(rollout(ids=[3, 1, 4, 1, 5]), rollout(raw=-1.0, status="wrong"))
    with store_at(path, token_bytes=lambda ids: [10 * token for token in ids]) as store:
        store.record(step(1, group, traces={(0, 0): trace(5, new=-0.123456789)}))
    db = queries.open_store(path)
    arrays = queries.token_arrays(db, 1)
    assert arrays["ids"].tolist() == [3, 1, 4, 1, 5]
    assert arrays["n_bytes"].tolist() == [30, 10, 40, 10, 50]
    assert arrays["new"].tolist() == [np.float32(-0.123456789)] * 5
    assert arrays["clip"].tolist() == [1, 0, 0, 0, 0]
    assert arrays["mask"].tolist() == [1] * 5
    np.testing.assert_allclose(arrays["push"], [1e-9, 2e-9, 3e-9, 4e-9, 5e-9], rtol=1e-3)
    assert sorted(queries.token_arrays(db, 2)) == ["ids", "n_bytes", "old"]
    assert queries.token_arrays(db, 99) == {}


def test_an_evaluation_before_training_and_one_with_a_prompt_twice_are_kept(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    found = evaluation(0)
    twice = replace(found, values={"avg@2": (0.5, math.nan, 0.6)}, items=[*found.items, found.items[0]])
    with store_at(path) as store:
        store.record_evaluation(twice)
    assert rows(path, "SELECT step, suite, metric, k, value, lo, hi, nan FROM evals_v") == [
        (0, "held-out", "avg@2", 2, 0.5, None, 0.6, 1)
    ]
    assert rows(path, "SELECT count(*), count(DISTINCT prompt_id) FROM eval_items") == [(11, 10)]


def test_events_keep_what_a_person_should_know(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        store.record_event(Event("exhausted", "rounds used up", severity=2, step=3, value=2.0, data={"a": 1}))
    assert rows(path, "SELECT kind, message, severity, step, value, data, attempt FROM events") == [
        ("exhausted", "rounds used up", 2, 3, 2.0, '{"a": 1}', 1)
    ]


def test_metric_names_are_stored_with_what_they_mean(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        store.record(step(1, judged(rollout())))
    assert rows(path, "SELECT unit, better FROM metric_names WHERE name = 'accuracy'") == [("share", "up")]


# -- whole or absent ---------------------------------------------------------------------------------------------------

CHILD = """
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.recorded import learning_step, store_at
made = [learning_step(i, groups=24, tokens=8) for i in range(20)]
store = store_at(Path({path!r}))
print("ready", flush=True)
for number in count(1):
    store.record(replace(made[number % 20], step=number))
    if number % 3 == 0:
        store.flush()
        print(number, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_writer_leaves_whole_steps_and_all_that_it_acknowledged(tmp_path: Path, seed: int):
    path = tmp_path / "run.sqlite"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD.format(root=str(ROOT), path=str(path))],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    first = child.stdout.readline()
    time.sleep(random.Random(seed).random() / 5)
    child.send_signal(signal.SIGKILL)
    acknowledged = [first, *child.stdout]
    assert child.wait() == -signal.SIGKILL
    last = int([line for line in acknowledged if line.endswith("\n")][-1])
    assert rows(path, "PRAGMA integrity_check") == [("ok",)]
    recorded = [number for (number,) in rows(path, "SELECT step FROM steps ORDER BY step")]
    assert recorded == list(range(1, len(recorded) + 1))
    assert len(recorded) >= last
    assert rows(
        path,
        "SELECT (SELECT count(*) FROM rollouts) - sum(n_rollouts), (SELECT count(*) FROM groups) - 24 * count(*), "
        "(SELECT sum(n) FROM step_status) - sum(n_rollouts), (SELECT count(*) FROM bodies) - sum(n_bodies), "
        "(SELECT count(DISTINCT step_id) FROM metrics) - count(*), (SELECT sum(n_groups) FROM prompt_stats) - "
        "24 * count(*) FROM steps",
    ) == [(0, 0, 0, 0, 0, 0)]


def test_a_step_that_fails_leaves_nothing_and_the_next_call_names_file_and_step(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    store = store_at(path)
    store.record(learning_step(1))
    store.record(learning_step(1))
    with pytest.raises(StorageError, match=r"cannot write step 1 to the store .*run\.sqlite: UNIQUE"):
        store.flush()
    with pytest.raises(StorageError):
        store.record(learning_step(2))
    store.end_attempt(4)
    store.close()
    assert rows(path, "SELECT count(*) FROM steps") == [(1,)]
    assert rows(path, "SELECT count(*) FROM groups") == [(16,)]


def test_a_full_disk_is_raised_at_close_when_nothing_raised_it_before(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    store = store_at(path)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    store.record(learning_step(1))
    with pytest.raises(StorageError, match=r"run\.sqlite.*full"):
        store.close()
    store.close()
    assert rows(path, "SELECT count(*) FROM rollouts") == [(0,)]


def test_recording_does_not_wait_for_the_disk(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    store = store_at(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.record(learning_step(1))
    assert rows(path, "SELECT count(*) FROM steps") == [(0,)]
    other.execute("COMMIT")
    other.close()
    store.flush()
    assert rows(path, "SELECT count(*) FROM steps") == [(1,)]
    store.close()


def test_nothing_is_recorded_before_an_attempt_is_opened(tmp_path: Path):
    store = SQLiteStore(tmp_path / "x", run=RUN, parts=PARTS, raw_range=(0.0, 1.0), seed=1)
    with store, pytest.raises(AssertionError):
        store.record(learning_step(1))


# -- sums --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "run.sqlite"
    with store_at(path) as store:
        for number in range(1, 13):
            store.record(learning_step(number))
    return path


@pytest.mark.parametrize(
    ("rollup", "raw"),
    [
        (
            "SELECT step_id, status, finish, n, sum_raw FROM step_status ORDER BY 1, 2, 3",
            "SELECT step_id, status, finish, count(*), total(raw) FROM rollouts GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        ),
        (
            "SELECT step_id, outcome, n FROM step_outcome ORDER BY 1, 2",
            "SELECT step_id, outcome, count(*) FROM groups GROUP BY 1, 2 ORDER BY 1, 2",
        ),
        (
            "SELECT step_id, sum(n) FROM step_hist WHERE what = 0 GROUP BY 1",
            "SELECT step_id, count(*) FROM rollouts GROUP BY 1",
        ),
        (
            "SELECT step_id, sum(n) FROM step_hist WHERE what = 3 GROUP BY 1",
            "SELECT step_id, count(advantage) FROM rollouts GROUP BY 1",
        ),
        (
            "SELECT step_id, part_id, n, round(mean, 9), lo, hi FROM step_parts ORDER BY 1, 2",
            "SELECT step_id, part_id, count(value), round(avg(value), 9), min(value), max(value) FROM score_parts "
            "JOIN rollouts USING(rollout_id) GROUP BY 1, 2 ORDER BY 1, 2",
        ),
        (
            "SELECT prompt_id, n_groups, n, n_right, n_fault, first_step, last_step FROM prompt_stats ORDER BY 1",
            "SELECT prompt_id, count(*), sum(n), sum(n_right), sum(n_fault), min(step), max(step) FROM groups "
            "JOIN steps USING(step_id) WHERE live GROUP BY 1 ORDER BY 1",
        ),
        (
            "SELECT group_id, n_right, n_truncated, n_fault, raw_min, round(total_mean, 9) FROM groups ORDER BY 1",
            "SELECT group_id, sum(status = 0), sum(finish = 1), sum(status > 2), min(raw), round(avg(total), 9) "
            "FROM rollouts GROUP BY 1 ORDER BY 1",
        ),
    ],
)
def test_rollups_are_the_sums_of_their_rows(recorded: Path, rollup: str, raw: str):
    found = rows(recorded, rollup)
    assert found
    assert found == rows(recorded, raw)


@pytest.mark.parametrize(
    ("what", "column", "order"),
    [
        ("longest", "length", "DESC"),
        ("shortest", "length", "ASC"),
        ("worst", "total", "ASC"),
        ("repeat", "repeat_share", "DESC"),
    ],
)
def test_extremes_of_a_step_are_its_first_twenty(recorded: Path, what: str, column: str, order: str):
    found = rows(
        recorded,
        "SELECT rollout_id, value FROM step_extremes WHERE what = ? AND step_id = 5 ORDER BY rank",
        codes.EXTREMES[what],
    )
    raw = rows(
        recorded,
        f"SELECT rollout_id, {column} FROM rollouts WHERE step_id = 5 AND {column} IS NOT NULL "
        f"ORDER BY {column} {order}, rollout_id LIMIT 20",
    )
    assert found == raw


def test_first_and_last_accuracy_of_a_prompt_are_of_its_first_and_last_group(recorded: Path):
    for prompt, first_acc, last_acc in rows(recorded, "SELECT prompt_id, first_acc, last_acc FROM prompt_stats"):
        found = rows(
            recorded,
            "SELECT CAST(n_right AS REAL) / (n - n_fault) FROM groups WHERE prompt_id = ? AND n > n_fault "
            "ORDER BY group_id",
            prompt,
        )
        assert (first_acc, last_acc) == (found[0][0], found[-1][0])


def test_shares_of_the_parts_say_who_decides_the_advantage():
    # totals 1 and -0.5: the answer differs by 2 (weight 1), the format by -1 (weight 0.5): shares 2/1.5 and -0.5/1.5
    group = judged(
        rollout(raw=1.0, total=1.0, parts={"answer": 1.0, "format": 0.0}),
        rollout(raw=-1.0, total=-0.5, parts={"answer": -1.0, "format": 1.0}),
    )
    found = {row[0]: row for row in part_rows(columns(step(1, group)), {"answer": 1.0, "format": 0.5, "x": 1.0})}
    assert found["answer"][6] == pytest.approx(4 / 3)
    assert found["format"][6] == pytest.approx(-1 / 3)
    assert found["answer"][1:6] == (2, 0.0, 1.0, -1.0, 1.0)


def test_shares_are_unknown_without_spread_or_weight():
    group = judged(rollout(parts={"answer": 1.0}), rollout(parts={"answer": 1.0}))
    assert [row[6] for row in part_rows(columns(step(1, group)), {"answer": 1.0})] == [None]
    spread = judged(rollout(raw=1.0, parts={"other": 1.0}), rollout(raw=0.0, parts={"other": 0.0}))
    assert [row[6] for row in part_rows(columns(step(1, spread)), {})] == [None]


def test_shares_of_a_whole_run_add_up_to_one(recorded: Path):
    sums = rows(recorded, "SELECT sum(share) FROM step_parts GROUP BY step_id")
    assert [total for (total,) in sums] == pytest.approx([1.0] * 12)


def test_the_strip_shows_every_group_as_a_byte():
    groups = [judged(), judged(), judged(outcome="surplus"), judged(outcome="fault")]
    raw_mean = np.array([1.0, -1.0, 0.5, np.nan])
    assert list(strip(groups, raw_mean, -1.0, 1.0)) == [0, 250, 251, 252]
    assert list(strip(groups[:2], np.array([0.0, 9.0]), -1.0, 1.0)) == [125, 250]


# -- the same content, the same fingerprint ----------------------------------------------------------------------------


def shas(path: Path) -> list[bytes]:
    return [sha for (sha,) in rows(path, "SELECT content_sha FROM steps ORDER BY step_id")]


def test_the_same_steps_have_the_same_fingerprint_whatever_the_clock_says(tmp_path: Path):
    one = learning_step(1)
    later = replace(one, started=9.0, seconds=9.0, metrics=one.metrics | {"time/step": 9.0, "throughput/learn": 1.0})
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, recorded_step in zip(paths, (one, later), strict=True):
        with store_at(path) as store:
            store.record(recorded_step)
    assert shas(paths[0]) == shas(paths[1])


@pytest.mark.parametrize(
    "changed",
    [
        step(1, judged(rollout(ids=[1, 2, 3, 5]))),
        step(1, judged(rollout(logprobs=[-0.5, -0.5, -0.5, -0.25]))),
        step(1, judged(rollout(status="wrong"))),
        step(1, judged(rollout(message="x"))),
        step(1, judged(rollout(parts={"format": 1.0}))),
        step(1, judged(rollout(finish="length"))),
        step(1, judged(rollout(), outcome="surplus")),
        step(1, judged(rollout(), uid="p1")),
        step(1, judged(rollout()), traces={(0, 0): trace(4)}),
        step(1, judged(rollout()), metrics={"loss": 0.0}),
    ],
)
def test_any_other_content_has_another_fingerprint(tmp_path: Path, changed):
    plain = step(1, judged(rollout()), metrics=changed.metrics if changed.metrics != {"loss": 0.0} else None)
    for name, recorded_step in (("a", plain), ("b", changed)):
        with store_at(tmp_path / name) as store:
            store.record(recorded_step)
    assert shas(tmp_path / "a") != shas(tmp_path / "b")


# -- attempts ----------------------------------------------------------------------------------------------------------


def test_resuming_supersedes_later_steps_and_deletes_nothing(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        store.record_evaluation(evaluation(0, value=0.25))
        for number in (1, 2, 3):
            store.record(learning_step(number))
        store.record_evaluation(evaluation(2, value=0.25))
        store.record_evaluation(evaluation(3, value=0.25))
    with SQLiteStore(path, run=RUN, parts=PARTS, raw_range=(-1.0, 1.0), seed=1) as store:
        assert store.open_attempt(2, reason="killed") == 2
        db = queries.open_store(path)
        assert [row["step"] for row in queries.steps(db)] == [1, 2]
        assert [point.step for point in queries.evaluations(db)] == [0, 2]
        store.record(learning_step(3, seed=9))
        store.record(learning_step(4))
        store.record_evaluation(evaluation(3, value=0.75))
        store.end_attempt(0)
    assert rows(path, "SELECT step, attempt, live FROM steps ORDER BY step_id") == [
        (1, 1, 1),
        (2, 1, 1),
        (3, 1, 0),
        (3, 2, 1),
        (4, 2, 1),
    ]
    assert [(point.step, point.value) for point in queries.evaluations(db)] == [(0, 0.25), (2, 0.25), (3, 0.75)]
    assert rows(path, "SELECT count(*) FROM rollouts") == [(5 * 128,)]
    assert rows(path, "SELECT count(*) FROM rollouts_v") == [(4 * 128,)]
    assert rows(path, "SELECT sum(n_groups) FROM prompt_stats") == [(4 * 16,)]
    attempts = queries.attempts(db)
    assert [(a["from_step"], a["ended"] is None, a["exit_code"], a["reason"]) for a in attempts] == [
        (0, True, None, None),
        (2, False, 0, "killed"),
    ]


def test_prompt_stats_after_superseding_are_those_of_a_run_that_was_never_interrupted(tmp_path: Path):
    with store_at(tmp_path / "whole") as store:
        for number in (1, 2, 3):
            store.record(learning_step(number))
    with store_at(tmp_path / "resumed") as store:
        for number in (1, 2):
            store.record(learning_step(number))
        store.record(learning_step(3, seed=9))
        store.open_attempt(2)
        store.record(learning_step(3))
    statement = (
        "SELECT p.uid, n_groups, n, n_right, n_fault, first_step, last_step, first_acc, last_acc FROM prompt_stats "
        "JOIN prompts p USING(prompt_id) ORDER BY 1"
    )
    assert rows(tmp_path / "whole", statement) == rows(tmp_path / "resumed", statement)


def test_resuming_after_a_step_that_the_record_lacks_says_so(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        store.record(learning_step(1))
        store.open_attempt(3)
    assert rows(path, "SELECT message FROM events") == [("steps 2 to 3 are missing from the record",)]


def test_every_transaction_says_that_the_run_is_alive(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        (before,) = rows(path, "SELECT beat FROM attempts")
        store.beat()
        store.flush()
        (after,) = rows(path, "SELECT beat FROM attempts")
    assert after > before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("PRAGMA application_id = 1", "not a store of a run"),
        ("PRAGMA user_version = 9", "version 9"),
        ("UPDATE runs SET run_id = 'other'", "records the run 'other'"),
    ],
)
def test_a_file_that_is_not_this_runs_store_is_refused(tmp_path: Path, damage: str, message: str):
    path = tmp_path / "run.sqlite"
    store_at(path).close()
    db = sqlite3.connect(path)
    with db:
        db.execute(damage)
    db.close()
    with pytest.raises(ValueError, match=message):
        store_at(path)


def test_a_store_that_cannot_be_opened_is_a_storage_fault(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot open the store"):
        store_at(tmp_path / "nowhere" / "run.sqlite")
    (tmp_path / "text").write_text("not a database, but long enough to have a header that says so" * 20)
    with pytest.raises(StorageError, match="not a database"):
        store_at(tmp_path / "text")


def test_a_run_without_its_identity_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="run_id"):
        store_at(tmp_path / "x", run={"name": "run"})
    with pytest.raises(ValueError, match="raw_range"):
        store_at(tmp_path / "y", raw_range=(1.0, 1.0))


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_best_worst_two_others_and_every_fault_keep_their_text():
    fault = rollout(status="timeout", raw=None)
    group = judged(*[rollout(raw=value) for value in (0.0, 3.0, 1.0, -1.0, 0.5, 0.25)], fault, fault).group
    kept = keep.bodies_of(group, seed=1, step=1)
    assert {1, 3, 6, 7} <= kept
    assert len(kept) == 6
    assert kept == keep.bodies_of(group, seed=1, step=1)
    assert len({frozenset(keep.bodies_of(group, seed=1, step=number)) for number in range(20)}) > 1


def test_four_whole_groups_keep_their_tokens():
    mixed = (rollout(raw=1.0), rollout(raw=-1.0))
    groups = [judged(rollout(), rollout(), id=i, outcome="all_right") for i in range(5)]
    groups += [judged(rollout(raw=1.0), rollout(raw=0.5), id=9), judged(*mixed, id=10)]
    groups += [judged(rollout(raw=-1.0), id=11, outcome="all_wrong")]
    kept = keep.whole_groups(groups, seed=1, step=1, count=4)
    assert {6, 7} <= kept
    assert kept & set(range(5))
    assert len(kept) == 4
    assert keep.whole_groups(groups[:2], seed=1, step=1, count=4) == {0, 1}
    assert keep.whole_groups([], seed=1, step=1, count=4) == set()


def test_over_its_limit_the_store_drops_old_text_and_says_so(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path, max_bytes=600_000) as store:
        for number in range(1, 16):
            store.record(learning_step(number))
    ((oldest, bodies),) = rows(path, "SELECT min(rollout_id), count(*) FROM bodies")
    assert oldest > 1
    assert bodies > 0
    assert rows(path, "SELECT count(*) FROM rollouts") == [(15 * 128,)]
    (dropped,) = rows(path, "SELECT sum(value) FROM events WHERE kind = 'store/dropped'")
    assert dropped == (rows(path, "SELECT sum(n_bodies) FROM steps")[0][0] - bodies,)


def test_token_arrays_are_kept_of_as_many_groups_as_asked_for(tmp_path: Path):
    for count in (0, 1, 16):
        path = tmp_path / str(count)
        with store_at(path, token_groups=count) as store:
            store.record(learning_step(1))
        assert rows(path, "SELECT sum(kept), sum(n_token_arrays) FROM groups, steps") == [(count, 16 * count * 8)]


def test_flushing_asks_the_disk_to_keep_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, synced = tmp_path / "run.sqlite", list[int]()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with store_at(path) as store:
        store.record(learning_step(1))
        synced.clear()
        store.flush()
        assert synced == [path.with_name("run.sqlite-wal").stat().st_ino]


def test_a_row_that_refers_to_nothing_is_refused(tmp_path: Path):
    path = tmp_path / "run.sqlite"
    with store_at(path) as store:
        store.record(learning_step(1))
        store.flush()
        for statement in (
            "INSERT INTO bodies VALUES (99999, x'00', NULL)",
            "INSERT INTO metrics VALUES (1, 99, 0.5, NULL, 0)",
            "INSERT INTO steps(step, attempt) VALUES (9, 9)",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
                store._db.execute(statement)


def test_on_a_network_file_system_readers_and_the_writer_take_turns_and_a_person_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("burnish.store.opening.journal_mode", lambda path: "DELETE")
    path, heard = tmp_path / "run.sqlite", list[str]()
    with store_at(path, warn=heard.append) as store:
        for number in range(1, 4):
            store.record(learning_step(number))
            store.flush()
            assert rows(path, "SELECT max(step) FROM steps") == [(number,)]
        assert sorted(found.name for found in tmp_path.iterdir()) == ["run.sqlite", "run.sqlite.lock"]
    assert len(heard) == 1
    assert "is on a network file system: readers and the writer take turns (journal_mode=delete)" in heard[0]


def test_a_write_ahead_log_is_not_kept_on_a_network_file_system(tmp_path: Path):
    mounts = tmp_path / "mounts"
    mounts.write_text("disk / ext4 rw 0 0\nserver:/x /home nfs4 rw 0 0\ndisk2 /home/local ext4 rw 0 0\n")
    assert journal_mode(Path("/home/me/run.sqlite"), mounts) == "DELETE"
    assert journal_mode(Path("/home/local/run.sqlite"), mounts) == "WAL"
    assert journal_mode(Path("/homely/run.sqlite"), mounts) == "WAL"
    assert journal_mode(Path("/home/me/run.sqlite"), tmp_path / "none") == "WAL"


def test_the_record_needs_no_torch():
    modules = (
        "burnish.store.sqlite, burnish.store.queries, burnish.metric_names, burnish.step_metrics, burnish.plots.curves"
    )
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "src")}).returncode == 0
    )
