"""Questions to a recorded run of a few thousand rollouts, each answered as plain SQL over the rows answers it."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from burnish.records import Event
from burnish.store import queries
from burnish.store.compare import Divergence, first_divergence
from tests.recorded import evaluation, judged, learning_step, rollout, step, store_at

STEPS = 24


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("queries") / "run.sqlite"
    with store_at(found) as store:
        store.record_evaluation(evaluation(0, value=0.2))
        store.record(learning_step(1, seed=9))
        store.open_attempt(0)
        for number in range(1, STEPS + 1):
            store.record(learning_step(number))
            if number % 8 == 0:
                store.record_evaluation(evaluation(number, value=0.2 + number / 50))
        store.record_event(Event("note", "nothing", severity=1))
        store.record_event(Event("alarm", "something", severity=2))
    return found


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    connection = queries.open_store(path)
    yield connection
    connection.close()


CALLS = {
    "run_info": lambda db: queries.run_info(db),
    "attempts": lambda db: queries.attempts(db),
    "last_step": lambda db: queries.last_step(db),
    "steps": lambda db: queries.steps(db),
    "events": lambda db: queries.events(db),
    "recorded_metrics": lambda db: queries.recorded_metrics(db),
    "metric_curve": lambda db: queries.metric_curve(db, "reward/mean"),
    "metrics_at": lambda db: queries.metrics_at(db, 3),
    "evaluations": lambda db: queries.evaluations(db),
    "evaluation_items": lambda db: queries.evaluation_items(db, "held-out", "avg@2", 8),
    "status_counts": lambda db: queries.status_counts(db),
    "finish_counts": lambda db: queries.finish_counts(db),
    "outcome_counts": lambda db: queries.outcome_counts(db),
    "histogram": lambda db: queries.histogram(db, "length"),
    "parts": lambda db: queries.parts(db),
    "group_strips": lambda db: queries.group_strips(db),
    "extremes": lambda db: queries.extremes(db, "entropy"),
    "best_rollouts": lambda db: queries.best_rollouts(db),
    "worst_rollouts": lambda db: queries.worst_rollouts(db),
    "faults": lambda db: queries.faults(db),
    "rollouts_of_step": lambda db: queries.rollouts_of_step(db, 5),
    "siblings": lambda db: queries.siblings(db, 1000),
    "token_arrays": lambda db: queries.token_arrays(db, db.execute("SELECT max(rollout_id) FROM tokens").fetchone()[0]),
    "prompt_history": lambda db: queries.prompt_history(db, "p3"),
    "group_scores": lambda db: list(queries.group_scores(db)),
    "hardest_prompts": lambda db: queries.hardest_prompts(db),
}


def test_every_question_is_asked_here():
    public = {
        name
        for name, found in inspect.getmembers(queries, inspect.isfunction)
        if found.__module__ == queries.__name__ and not name.startswith("_")
    }
    assert public - {"open_store"} == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_every_question_has_an_answer(db: sqlite3.Connection, name: str):
    assert CALLS[name](db)


def test_a_reader_cannot_write(db: sqlite3.Connection):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM steps")


def test_a_path_is_taken_as_it_is(tmp_path: Path):
    odd = tmp_path / "50% #1 ?mode=rwc.sqlite"
    store_at(odd).close()
    assert queries.run_info(queries.open_store(odd))["name"] == "run"


def test_what_is_no_store_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        queries.open_store(tmp_path / "none")
    sqlite3.connect(tmp_path / "other").execute("CREATE TABLE t(x)").connection.close()
    with pytest.raises(ValueError, match="not a store"):
        queries.open_store(tmp_path / "other")


def test_every_step_appears_once_although_one_was_superseded(db: sqlite3.Connection):
    numbers = list(range(1, STEPS + 1))
    assert [row["step"] for row in queries.steps(db)] == numbers
    assert [point.step for point in queries.metric_curve(db, "entropy")] == numbers
    assert [number for number, _ in queries.group_strips(db)] == numbers
    assert [len(strip) for _, strip in queries.group_strips(db)] == [16] * STEPS


def test_the_reward_curve_carries_its_standard_error(db: sqlite3.Connection):
    point = queries.metric_curve(db, "reward/mean")[4]
    metrics = queries.metrics_at(db, 5)
    assert (point.value, point.se) == (metrics["reward/mean"], metrics["reward/se"])


def test_counts_are_over_all_generated_rollouts(db: sqlite3.Connection):
    assert sum(count.n for count in queries.status_counts(db)) == STEPS * 128
    assert sum(count.n for count in queries.finish_counts(db)) == STEPS * 128
    assert sum(count.n for count in queries.outcome_counts(db)) == STEPS * 16
    (expected,) = db.execute("SELECT count(*) FROM rollouts_v WHERE status = 'timeout' AND step = 2").fetchone()
    found = [count.n for count in queries.status_counts(db) if (count.step, count.word) == (2, "timeout")]
    assert sum(found) == expected


def test_bins_hold_the_values_that_fall_into_them(db: sqlite3.Connection):
    for bin_ in queries.histogram(db, "length"):
        (n,) = db.execute(
            "SELECT count(*) FROM rollouts_v WHERE step = ? AND length >= ? - 1e-6 AND length < ? - 1e-6",
            (bin_.step, bin_.low, bin_.high),
        ).fetchone()
        assert n == bin_.n


def test_a_value_at_the_edge_of_a_bin_is_in_it(tmp_path: Path):
    with store_at(tmp_path / "run.sqlite") as store:
        store.record(step(1, judged(*[rollout(raw=value) for value in (0.3, 0.7, -0.3)])))
    found = queries.histogram(queries.open_store(tmp_path / "run.sqlite"), "raw")
    assert [bin_.low for bin_ in found] == pytest.approx([-0.3, 0.3, 0.7])


@pytest.mark.parametrize(("what", "order"), [("worst", "ASC"), ("best", "DESC")])
def test_the_most_extreme_of_the_run_are_found_without_looking_at_all(db: sqlite3.Connection, what: str, order: str):
    expected = db.execute(
        f"SELECT rollout_id FROM rollouts_v WHERE total IS NOT NULL ORDER BY total {order}, rollout_id LIMIT 7"
    ).fetchall()
    assert [(row.rollout_id,) for row in queries.extremes(db, what, limit=7)] == expected


def test_faults_are_paged_by_key(db: sqlite3.Connection):
    everything = queries.faults(db, limit=1000)
    assert everything
    assert {row.status for row in everything} == {"timeout"}
    assert all(row.message == "over 5 s" and row.text is not None for row in everything)
    first = queries.faults(db, limit=3)
    rest = queries.faults(db, limit=1000, before=first[-1].rollout_id)
    assert first + rest == everything


def test_the_rollouts_of_a_step_are_paged_by_key(db: sqlite3.Connection):
    everything = queries.rollouts_of_step(db, 5)
    assert len(everything) == 128
    pages, after = [], 0
    while page := queries.rollouts_of_step(db, 5, limit=50, after=after):
        pages.append(len(page))
        after = page[-1].rollout_id
    assert pages == [50, 50, 28]
    first = queries.rollouts_of_step(db, 5, limit=50)
    assert first + queries.rollouts_of_step(db, 5, after=first[-1].rollout_id) == everything
    assert queries.rollouts_of_step(db, 6, limit=1)[0].rollout_id == everything[-1].rollout_id + 1


def test_unparsed_is_no_fault(tmp_path: Path):
    with store_at(tmp_path / "run.sqlite") as store:
        store.record(step(1, judged(rollout(status="unparsed", raw=-1.0), rollout(status="oom", raw=None))))
    assert [row.status for row in queries.faults(queries.open_store(tmp_path / "run.sqlite"))] == ["oom"]


def test_siblings_are_the_whole_group(db: sqlite3.Connection):
    group = queries.siblings(db, 1003)
    assert [row.sibling for row in group] == list(range(8))
    assert 1003 in [row.rollout_id for row in group]
    assert len({(row.group_id, row.prompt, row.step) for row in group}) == 1
    assert queries.siblings(db, 10**9) == []


def test_held_out_results_come_with_their_intervals_and_items(db: sqlite3.Connection):
    found = queries.evaluations(db, suite="held-out", metric="avg@2")
    assert [(p.step, p.k) for p in found] == [(0, 2), (8, 2), (16, 2), (24, 2)]
    assert (found[1].value, found[1].low, found[1].high) == pytest.approx((0.36, 0.26, 0.46))
    assert queries.evaluations(db, suite="other") == []
    items = queries.evaluation_items(db, "held-out", "avg@2", 8)
    assert [(item["prompt"], item["n_right"]) for item in items[:4]] == [("e0", 0), ("e1", 1), ("e2", 2), ("e3", 0)]


def test_events_are_filtered_by_severity_newest_first(db: sqlite3.Connection):
    assert [event["kind"] for event in queries.events(db)] == ["alarm", "note"]
    assert [event["kind"] for event in queries.events(db, severity=2)] == ["alarm"]


def test_a_prompt_is_followed_through_the_run(db: sqlite3.Connection):
    history = queries.prompt_history(db, "p3")
    (n_groups,) = db.execute(
        "SELECT n_groups FROM prompt_stats JOIN prompts USING(prompt_id) WHERE uid = 'p3'"
    ).fetchone()
    assert len(history) == n_groups
    assert [row["step"] for row in history] == sorted(row["step"] for row in history)
    hardest = queries.hardest_prompts(db, limit=5)
    assert [row["accuracy"] for row in hardest] == sorted(row["accuracy"] for row in hardest)


# -- two runs ----------------------------------------------------------------------------------------------------------


def diverged(tmp_path: Path, *records: list) -> Divergence | None:
    stores = []
    for index, steps in enumerate(records):
        with store_at(tmp_path / str(index)) as store:
            for found in steps:
                store.record(found)
        stores.append(queries.open_store(tmp_path / str(index)))
    return first_divergence(*stores)


def test_two_runs_that_did_the_same_never_part(tmp_path: Path):
    steps = [learning_step(number) for number in (1, 2, 3)]
    assert diverged(tmp_path, steps, [replace(found, seconds=9.0) for found in steps]) is None


def test_the_first_rollout_that_differs_is_found(tmp_path: Path):
    one, two = rollout(), rollout(ids=[1, 2, 3])
    a = [step(1, judged(one, one)), step(2, judged(one, one))]
    b = [step(1, judged(one, one)), step(2, judged(one, two))]
    assert diverged(tmp_path, a, b) == Divergence(2, "tokens", 4, 4)


def test_another_verdict_on_the_same_tokens_is_found(tmp_path: Path):
    a, b = [step(1, judged(rollout()))], [step(1, judged(rollout(status="wrong")))]
    assert diverged(tmp_path, a, b) == Divergence(1, "verdict", 1, 1)


def test_metrics_that_differ_alone_are_found(tmp_path: Path):
    a, b = ([step(1, judged(rollout()), metrics={"loss": value})] for value in (0.0, 1.0))
    assert diverged(tmp_path, a, b) == Divergence(1, "metrics", None, None)


def test_a_run_that_ends_earlier_parts_at_its_end(tmp_path: Path):
    steps = [learning_step(number) for number in (1, 2)]
    assert diverged(tmp_path, steps, steps[:1]) == Divergence(2, "missing", None, None)
