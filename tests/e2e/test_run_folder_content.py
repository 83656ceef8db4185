"""What a finished run leaves in its folder, and that all of it tells the same story."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import AutoTokenizer

from burnish import checkpoint, cli
from burnish.metric_names import PROMISED, find
from burnish.store import queries
from tests.e2e.conftest import TINY_STEPS, read_rows, write_rows

pytestmark = pytest.mark.slow  # runs of the product, seconds each

STEPS, GROUP_SIZE = 3, 8


@dataclass(frozen=True)
class Finished:
    """One run of three steps with evaluation, dropped groups and format bonus, and its record."""

    folder: Path
    names: list[str]
    """In the folder when the run ended."""
    start: Path
    rows: list[dict[str, float]]
    """Of metrics.jsonl, one per step, without evaluations."""
    held_out: list[dict[str, float]]
    """Of metrics.jsonl, the evaluations."""
    db: sqlite3.Connection


@pytest.fixture(scope="module")
def run(model_dir: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("content")
    sums = [{"prompt": f"{a}+{b}", "answer": str(a + b)} for a in range(9) for b in range(9 - a)]
    train, test = write_rows(root / "train.jsonl", sums[::2]), write_rows(root / "test.jsonl", sums[1::2])
    words = [
        *(f"train.steps={STEPS}", f"sampling.group_size={GROUP_SIZE}", f"model.path={model_dir('qwen3')}"),
        *(f"data.train={train}", f"eval.data={test}", "eval.every=2", "eval.samples=4", "checkpoint.every=1"),
        *("reward.format.pattern=^Answer:[0-4]", "reward.format.weight=0.25"),
        *(f"out={root / 'run'}", "name=story", "seed=7"),
    ]
    assert cli.main(["train", *TINY_STEPS, *words]) == 0
    names = sorted(path.name for path in (root / "run").iterdir())
    metrics = read_rows(root / "run/metrics.jsonl")
    db = queries.open_store(root / "run/run.sqlite")
    yield Finished(
        folder=root / "run",
        names=names,
        start=model_dir("qwen3"),
        rows=[row for row in metrics if "loss" in row],
        held_out=[row for row in metrics if "loss" not in row],
        db=db,
    )
    db.close()


def test_the_folder_holds_what_it_says_and_no_lock(run: Finished) -> None:
    assert run.names == [
        *("checkpoints", "config.json", "curves.png", "metrics.jsonl", "run.json", "run.sqlite", "summary.json"),
        "tensorboard",
    ]


def test_every_metric_is_listed_and_every_step_has_all_of_them(run: Finished) -> None:
    assert [row["step"] for row in run.rows] == [1, 2, 3]
    names = {name for row in run.rows + run.held_out for name in row} - {"step"}
    assert sorted(name for name in names if find(name) is None and name not in PROMISED) == []
    assert {theirs for theirs, ours in PROMISED.items() if ours in names} <= names
    late = {"time/record", "time/evaluate", "time/checkpoint"}  # counted in the step after
    assert all(row.keys() - late == run.rows[0].keys() - late for row in run.rows)


def test_the_store_has_the_metrics_of_the_lines_to_the_last_bit(run: Finished) -> None:
    for row in run.rows:
        recorded = queries.metrics_at(run.db, int(row["step"]))
        assert recorded == {name: value for name, value in row.items() if name in recorded}
        assert row.keys() - recorded.keys() == {
            "step",
            *(theirs for theirs, ours in PROMISED.items() if theirs != ours and ours in recorded),
        }


def test_tensorboard_has_the_metrics_of_the_lines(run: Finished) -> None:
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    shown = {(tag, e.step): e.value for tag in events.Tags()["scalars"] for e in events.Scalars(tag)}
    written = {(tag, row["step"]): row[tag] for row in run.rows + run.held_out for tag in row if tag != "step"}
    assert shown.keys() == written.keys()
    assert all(shown[key] == pytest.approx(written[key], rel=1e-6) for key in written)


def test_every_generated_rollout_is_in_the_store_once(run: Finished) -> None:
    for row in run.rows:
        rollouts = queries.rollouts_of_step(run.db, int(row["step"]))
        assert len(rollouts) == row["rollouts/generated"] == GROUP_SIZE * row["groups/generated"]
        assert sum(rollout.length for rollout in rollouts) == row["tokens/generated"]
        assert sum(rollout.status == "ok" for rollout in rollouts) / len(rollouts) == pytest.approx(row["accuracy"])
    (total,) = run.db.execute("SELECT count(*) FROM rollouts").fetchone()
    assert total == sum(row["rollouts/generated"] for row in run.rows)


def test_groups_are_counted_alike_and_add_up(run: Finished) -> None:
    by_step = {(count.step, count.word): count.n for count in queries.outcome_counts(run.db)}
    outcomes = ("admitted", "all_right", "all_wrong", "constant", "fault", "surplus")
    for row in run.rows:
        assert {name: by_step.get((int(row["step"]), name), 0) for name in outcomes} == {
            name: row[f"groups/{name}"] for name in outcomes
        }
        assert sum(row[f"groups/{name}"] for name in outcomes) == row["groups/generated"]
        assert row["groups/admitted"] == 4
    assert sum(row["groups/all_wrong"] for row in run.rows) > 0, "this run was to drop some"


def test_totals_are_the_weighted_sum_of_the_parts(run: Finished) -> None:
    parts = "SELECT name, value FROM score_parts JOIN part_names USING(part_id) WHERE rollout_id = ?"
    seen = set()
    for rollout_id, raw, total in run.db.execute("SELECT rollout_id, raw, total FROM rollouts").fetchall():
        found = dict(run.db.execute(parts, (rollout_id,)))
        assert found["answer"] == raw
        assert total == pytest.approx(found["answer"] + 0.25 * found["format"] + found["overlong"])
        seen.add(found["format"])
    assert seen == {0.0, 1.0}


def test_kept_tokens_spell_the_kept_text_and_begin_as_the_learner_saw_them(run: Finished) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run.start)
    rollouts = [rollout for step in (1, 2, 3) for rollout in queries.rollouts_of_step(run.db, step)]
    kept = [(rollout, arrays) for rollout in rollouts if (arrays := queries.token_arrays(run.db, rollout.rollout_id))]
    assert kept
    for rollout, arrays in kept:
        ids = arrays["ids"].tolist()
        assert len(ids) == rollout.length
        assert rollout.text is not None
        assert tokenizer.decode(ids).startswith(rollout.text)
        if "learner" in arrays:
            assert abs(arrays["learner"] - arrays["old"]).max() < 1e-4
        if rollout.advantage is not None:
            assert arrays["mask"].tolist() == [1] * len(ids)


def test_the_held_out_values_are_the_same_everywhere(run: Finished) -> None:
    summary = json.loads((run.folder / "summary.json").read_text())["held_out"]
    assert [row["step"] for row in run.held_out] == [0, 2, 3]
    for when, row in (("before", run.held_out[0]), ("after", run.held_out[-1])):
        assert {f"eval/test/{name}": found["value"] for name, found in summary[when].items()} == {
            name: value for name, value in row.items() if name != "step"
        }
    in_store = {(point.step, f"eval/test/{point.metric}"): point.value for point in queries.evaluations(run.db)}
    written = {(row["step"], name): row[name] for row in run.held_out for name in row if name != "step"}
    assert in_store == written


def test_the_summary_adds_the_steps_up(run: Finished) -> None:
    summary = json.loads((run.folder / "summary.json").read_text())
    assert (summary["name"], summary["seed"], summary["objective"]) == ("story", 7, "dapo")
    assert (summary["steps"], summary["updates"]) == (STEPS, STEPS * 2)
    for kind in ("generated", "trained"):
        assert summary["tokens"][kind] == sum(row[f"tokens/{kind}"] for row in run.rows)
    assert summary["seconds"]["generate"] == pytest.approx(sum(row["time/generate"] for row in run.rows))
    assert summary["threads"] == 1


def test_the_config_is_whole_and_runs_as_it_is(
    run: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written = json.loads((run.folder / "config.json").read_text())
    assert written["reward"]["format"] == {"pattern": "^Answer:[0-4]", "weight": 0.25}
    assert written["sampling"]["temperature"] == 1.0, "defaults are spelled out"
    assert cli.main(["train", str(run.folder / "config.json"), f"out={tmp_path / 'again'}"]) == 0
    assert (tmp_path / "again/checkpoints/step-000003/model.safetensors").read_bytes() == (
        run.folder / "checkpoints/step-000003/model.safetensors"
    ).read_bytes()


def test_the_record_knows_how_the_run_was_started_and_ended(run: Finished) -> None:
    (attempt,) = queries.attempts(run.db)
    assert (attempt["from_step"], attempt["exit_code"], attempt["reason"]) == (0, 0, None)
    assert attempt["ended"] > attempt["started"]
    info = queries.run_info(run.db)
    assert json.loads(info["config"]) == json.loads((run.folder / "config.json").read_text())
    assert info["data"] == json.loads((run.folder / "summary.json").read_text())["data"]
    assert (info["raw_low"], info["raw_high"]) == (-1.0, 1.0)


def test_the_newest_two_checkpoints_are_there_and_whole(run: Finished) -> None:
    root = run.folder / "checkpoints"
    assert sorted(path.name for path in root.iterdir()) == ["step-000002", "step-000003"]
    found = checkpoint.latest(root)
    assert found is not None
    assert (found.step, found.rejected) == (3, ())
    manifest = json.loads((root / "step-000003/manifest.json").read_text())["files"]
    digest = hashlib.sha256((root / "step-000003/model.safetensors").read_bytes()).hexdigest()
    assert manifest["model.safetensors"]["sha256"] == digest


def test_the_picture_is_a_picture(run: Finished) -> None:
    data = (run.folder / "curves.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert width > 600
    assert height > 400
