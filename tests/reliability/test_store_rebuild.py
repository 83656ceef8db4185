"""A record that is lost or damaged is made again from metrics.jsonl, and says what could not be."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish import cli
from burnish.sinks.jsonl import JsonlSink
from burnish.store import queries
from burnish.store.compare import first_divergence
from burnish.store.rebuild import rebuild
from burnish.store.sqlite import SQLiteStore
from tests.recorded import PARTS, RUN, evaluation, learning_step, store_at

TINY = (
    "train.threads=1", "train.steps=3", "train.updates_per_step=1", "sampling.prompts_per_step=4",
    "sampling.group_size=4", "sampling.max_new_tokens=24", "eval.prompts=4", "eval.every=2", "checkpoint.every=2",
    "seed=3",
)  # fmt: skip


def written(folder: Path, steps: list[int], *, evaluated: tuple[int, ...] = ()) -> Path:
    """`metrics.jsonl` of these training steps, as a run writes it."""
    path = folder / "metrics.jsonl"
    sink = JsonlSink(path)
    for index, number in enumerate(steps):
        sink.write(number, learning_step(number, groups=2, group_size=2, seed=index).metrics)
        if number in evaluated:
            sink.write(number, {f"eval/held-out/{name}": v for name, (v, _, _) in evaluation(number).values.items()})
    sink.close()
    return path


def rebuilt(folder: Path, **changes):
    arguments = {"run": RUN, "created": 1e9, "raw_range": (-1.0, 1.0), "intervals": {}}
    return rebuild(folder / "run.sqlite", metrics=folder / "metrics.jsonl", **(arguments | changes))


def test_every_metric_of_every_step_is_recovered_under_its_own_name(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    sink, expected = JsonlSink(path), {}
    for number in range(1, 6):
        expected[number] = learning_step(number).metrics | {"clip/fraction": 0.25}
        sink.write(number, expected[number])
    sink.close()
    found = rebuilt(tmp_path)
    assert (found.steps, found.attempts, found.superseded) == (5, 1, 0)
    with queries.open_store(tmp_path / "run.sqlite") as db:
        assert {number: queries.metrics_at(db, number) for number in expected} == expected
        assert queries.run_info(db)["run_id"] == RUN["run_id"]
        assert [(row["seconds"], row["n_rollouts"], row["started"]) for row in queries.steps(db)] == [
            (3.0, None, None)
        ] * 5


def test_numbers_that_are_not_finite_stay_what_they_were(tmp_path: Path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.write(1, {"loss": math.nan, "grad_norm": math.inf, "kl/old": -math.inf})
    sink.close()
    rebuilt(tmp_path)
    with queries.open_store(tmp_path / "run.sqlite") as db:
        assert db.execute("SELECT name, value, nan FROM metrics_v ORDER BY name").fetchall() == [
            ("grad_norm", math.inf, 0),
            ("kl/old", -math.inf, 0),
            ("loss", None, 1),
        ]


def test_what_a_resume_made_again_is_superseded(tmp_path: Path):
    written(tmp_path, [1, 2, 3, 4, 3, 4, 5])
    found = rebuilt(tmp_path)
    assert (found.attempts, found.steps, found.superseded) == (2, 5, 2)
    with queries.open_store(tmp_path / "run.sqlite") as db:
        assert [(row["step"], row["attempt"]) for row in queries.steps(db)] == [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]
        assert [row["from_step"] for row in queries.attempts(db)] == [0, 2]
        assert queries.metrics_at(db, 4)["loss"] == learning_step(4, groups=2, group_size=2, seed=5).metrics["loss"]


def test_evaluations_are_recovered_with_the_intervals_that_are_known(tmp_path: Path):
    written(tmp_path, [1, 2, 3, 4], evaluated=(2, 4))
    found = rebuilt(
        tmp_path, intervals={(2, "held-out", "avg@2"): (0.5, 0.4, 0.6), (4, "held-out", "avg@2"): (0.9, 0, 1)}
    )
    assert found.evaluations == 2
    with queries.open_store(tmp_path / "run.sqlite") as db:
        assert queries.evaluations(db) == [
            (2, "held-out", "avg@2", 2, 0.5, 0.4, 0.6),
            (4, "held-out", "avg@2", 2, 0.5, None, None),  # the interval is of another value, so not this one's
        ]
    assert "the 95 % intervals of 1 evaluations, which no checkpoint and no summary has" in found.lost


def test_cut_lines_and_missing_steps_are_said(tmp_path: Path):
    path = written(tmp_path, [1, 2, 4])
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:40] + "\n" + lines[2] + '{"step": 5, "lo')
    found = rebuilt(tmp_path)
    assert found.steps == 2
    assert found.lost[:2] == [
        "what stood in line 2, 4 of metrics.jsonl, which cannot be read",
        "step 2, 3, which metrics.jsonl has not",
    ]
    with queries.open_store(tmp_path / "run.sqlite") as db:
        (event,) = queries.events(db)
        assert (event["kind"], json.loads(event["data"])["lost"]) == ("store/rebuilt", found.lost)


def test_a_run_goes_on_in_its_rebuilt_record(tmp_path: Path):
    written(tmp_path, [1, 2, 3])
    rebuilt(tmp_path)
    with SQLiteStore(tmp_path / "run.sqlite", run=RUN, parts=PARTS, raw_range=(-1.0, 1.0), seed=1) as store:
        store.open_attempt(2)
        store.record(learning_step(3))
        store.record_evaluation(evaluation(3))
    with queries.open_store(tmp_path / "run.sqlite") as db:
        assert [(row["step"], row["attempt"]) for row in queries.steps(db)] == [(1, 1), (2, 1), (3, 2)]
        assert len(queries.rollouts_of_step(db, 3)) == 128
        assert queries.rollouts_of_step(db, 2) == []
        assert [step for step, _ in queries.group_strips(db)] == [3]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []


def test_steps_without_a_fingerprint_are_not_taken_for_different(tmp_path: Path):
    written(tmp_path, [1, 2])
    rebuilt(tmp_path)
    with store_at(tmp_path / "other.sqlite") as store:
        store.record(learning_step(1))
        store.record(learning_step(2))
    with queries.open_store(tmp_path / "run.sqlite") as a, queries.open_store(tmp_path / "other.sqlite") as b:
        assert first_divergence(a, b) is None


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rebuild") / "run"
    assert cli.main(["train", "add23", f"out={out}", *TINY]) == 0
    return out


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "run")


def curves(run: Path) -> list:
    with queries.open_store(run / "run.sqlite") as db:
        names = queries.recorded_metrics(db)
        info = {key: queries.run_info(db)[key] for key in ("run_id", "config", "data", "raw_low", "raw_high")}
        return [
            queries.evaluations(db),
            info,
            {name: [p[:2] for p in queries.metric_curve(db, name)] for name in names},
        ]


def lose(run: Path) -> None:
    (run / "run.sqlite").unlink()


def cut_to_half(run: Path) -> None:
    content = (run / "run.sqlite").read_bytes()
    (run / "run.sqlite").write_bytes(content[: len(content) // 2])


def overwrite_the_middle(run: Path) -> None:
    content = bytearray((run / "run.sqlite").read_bytes())
    content[len(content) // 3 : len(content) // 3 + 8192] = b"\xff" * 8192
    (run / "run.sqlite").write_bytes(content)


def overwrite_the_header(run: Path) -> None:
    content = bytearray((run / "run.sqlite").read_bytes())
    content[:100] = b"\x00" * 100
    (run / "run.sqlite").write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [lose, cut_to_half, overwrite_the_middle, overwrite_the_header])
def test_the_command_makes_curves_and_intervals_again_and_keeps_what_is_damaged(
    run: Path, copied: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
):
    damage(copied)
    before = (copied / "run.sqlite").read_bytes() if (copied / "run.sqlite").exists() else None
    capsys.readouterr()
    assert cli.main(["store", "rebuild", str(copied)]) == 0
    said = capsys.readouterr().out
    assert "recovered the metrics of 3 steps, and 3 evaluations" in said
    assert "not recovered: groups, rollouts, scores, texts" in said
    assert curves(copied) == curves(run)
    aside = copied / "run.sqlite.damaged-1"
    assert (aside.read_bytes() if aside.exists() else None) == before


@pytest.mark.slow
def test_a_whole_record_is_not_rebuilt(copied: Path, capsys: pytest.CaptureFixture[str]):
    before = (copied / "run.sqlite").read_bytes()
    assert cli.main(["store", "rebuild", str(copied)]) == 2
    assert "is whole; there is nothing to rebuild" in capsys.readouterr().err
    assert (copied / "run.sqlite").read_bytes() == before
    assert cli.main(["store", "migrate", str(copied)]) == 0


@pytest.mark.slow
def test_a_run_whose_record_is_gone_or_damaged_is_not_resumed_but_told_what_to_type(
    copied: Path, capsys: pytest.CaptureFixture[str]
):
    (copied / "summary.json").unlink()
    overwrite_the_header(copied)
    assert cli.main(["train", "--resume", str(copied)]) == 4
    assert f"burnish store rebuild {copied}" in capsys.readouterr().err
    lose(copied)
    assert cli.main(["train", "--resume", str(copied)]) == 5
    assert f"burnish store rebuild {copied}" in capsys.readouterr().err
    assert cli.main(["store", "rebuild", str(copied)]) == 0
    assert cli.main(["train", "--resume", str(copied)]) == 0


@pytest.mark.slow
def test_without_metrics_there_is_nothing_to_make_a_record_from(copied: Path, capsys: pytest.CaptureFixture[str]):
    lose(copied)
    (copied / "metrics.jsonl").unlink()
    assert cli.main(["store", "rebuild", str(copied)]) == 2
    assert "log.sinks has jsonl" in capsys.readouterr().err
    assert not (copied / "run.sqlite").exists()


@pytest.mark.slow
def test_a_log_that_a_lost_record_left_behind_is_not_taken_for_the_new_ones(copied: Path):
    db = sqlite3.connect(copied / "run.sqlite")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE stray(x)")
    left = (copied / "run.sqlite-wal").read_bytes()
    db.close()
    lose(copied)
    (copied / "run.sqlite-wal").write_bytes(left)
    assert cli.main(["store", "rebuild", str(copied)]) == 0
    with queries.open_store(copied / "run.sqlite") as found:
        assert found.execute("SELECT count(*) FROM sqlite_master WHERE name = 'stray'").fetchone() == (0,)
        assert len(queries.steps(found)) == 3
