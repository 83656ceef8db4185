"""The same command gives the same run, wherever and however it is started; and `--verify` can tell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from burnish.learner.local import LocalLearner
from burnish.store import queries
from burnish.types import Metrics
from tests.e2e.conftest import TINY_STEPS, Command
from tests.reliability.same_run import assert_same

pytestmark = pytest.mark.slow

ModelDir = Callable[[str], Path]

SURROUNDINGS = {
    "hash seed": {"PYTHONHASHSEED": "77"},
    "time zone": {"TZ": "Asia/Kathmandu"},
    "locale": {"LC_ALL": "C", "LANG": "tr_TR.UTF-8", "PYTHONUTF8": "0"},
    "folder": {},
}


@pytest.fixture
def words(model_dir: ModelDir, sums: Path) -> list[str]:
    given = [f"model.path={model_dir('qwen3')}", f"data.train={sums}", f"eval.data={sums}", "eval.prompts=8"]
    return ["train", *TINY_STEPS, *given, "sampling.surplus=keep", "data.sampler=history"]


@pytest.mark.reliability(25)
def test_the_surroundings_of_a_run_change_no_bit_of_it(
    burnish: Command, words: list[str], tmp_path: Path, attempts: Callable[..., int]
) -> None:
    """A few attempts: all surroundings at once. As many as promised: each alone too."""
    assert burnish(*words, f"out={tmp_path / 'run'}").code == 0
    assert burnish(*words, f"out={tmp_path / 'again'}").code == 0
    assert_same(tmp_path / "run", tmp_path / "again")
    everything = {key: value for changed in SURROUNDINGS.values() for key, value in changed.items()}
    for number, changed in enumerate([everything, *SURROUNDINGS.values()][: attempts(quick=1, long=5)]):
        out, folder = tmp_path / f"other-{number}", tmp_path / f"folder-{number}"
        folder.mkdir()
        ended = subprocess.run(
            [sys.executable, "-m", "burnish", *words, f"out={out}"],
            env={**os.environ, "OMP_NUM_THREADS": "1", **changed},
            cwd=folder,
            capture_output=True,
        )
        assert ended.returncode == 0, ended.stderr
        assert_same(tmp_path / "run", out)


@pytest.mark.reliability(25)
def test_two_threads_give_the_same_run_or_are_told_apart(burnish: Command, words: list[str], tmp_path: Path) -> None:
    """What a resume with other threads says is held elsewhere; here, that a run states how many it had."""
    assert burnish(*words, f"out={tmp_path / 'one'}").code == 0
    assert burnish(*words, f"out={tmp_path / 'two'}", "train.threads=2").code == 0
    torch.set_num_threads(1)
    stated = [(tmp_path / name / "run.json").read_text(encoding="utf-8") for name in ("one", "two")]
    assert '"threads": "1"' in stated[0]
    assert '"threads": "2"' in stated[1]


# -- verify ------------------------------------------------------------------------------------------------------------


def files(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.reliability(25)
@pytest.mark.parametrize("every", [1, 2, 10])
def test_verify_replays_a_step_bit_for_bit_and_writes_nothing(
    burnish: Command, words: list[str], tmp_path: Path, every: int
) -> None:
    run = tmp_path / "run"
    assert burnish(*words, f"out={run}", "train.steps=4", f"checkpoint.every={every}").code == 0
    before = files(run)
    verified = burnish("train", "--resume", run, "--verify")
    assert verified.code == 0, verified.err
    step, start = {1: (4, "step-000003"), 2: (3, "step-000002"), 10: (1, "the beginning")}[every]
    first, rollouts, metrics, weights, last = verified.out.splitlines()
    assert first == f"replayed step {step} from {start} and compared it with the record of {run}"
    assert rollouts.endswith(": tokens, log-probabilities, verdicts, advantages")
    assert metrics.endswith(", all but times")
    assert weights.startswith("  weights   checksum after the step")
    assert weights.endswith("files of step-000004") == (every == 1)
    assert last == "equal, bit for bit"
    assert files(run) == before
    assert burnish("train", "--resume", run, "train.steps=5").code == 0


def spoil_record(run: Path, sql: str) -> None:
    import sqlite3

    with closing(sqlite3.connect(run / "run.sqlite")) as db, db:
        assert db.execute(sql).rowcount
        db.execute("UPDATE steps SET content_sha = x'00' WHERE step = 4")


@pytest.mark.reliability(25)
@pytest.mark.parametrize("what", ["tokens", "verdict", "metrics", "weights", "update"])
def test_verify_names_the_first_difference(
    burnish: Command, words: list[str], tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    assert burnish(*words, f"out={run}", "train.steps=4", "checkpoint.every=1").code == 0
    if what == "tokens":
        spoil_record(run, "UPDATE rollouts SET text_sha = text_sha + 1 WHERE rollout_id = (SELECT max(rollout_id) "
                     "FROM rollouts)")  # fmt: skip
        expected = "the tokens of rollout 7 of prompt "
    elif what == "verdict":
        spoil_record(run, "UPDATE rollouts SET raw = raw + 1 WHERE rollout_id = (SELECT max(rollout_id) FROM rollouts)")
        expected = "the verdict of rollout 7 of prompt "
    elif what == "metrics":
        spoil_record(run, "UPDATE metrics SET value = value + 1 WHERE step_id = (SELECT max(step_id) FROM steps) AND "
                     "name_id = (SELECT name_id FROM metric_names WHERE name = 'grad_norm')")  # fmt: skip
        expected = "1 metrics, the first grad_norm: "
    elif what == "weights":
        other = tmp_path / "other"
        assert burnish(*words, f"out={other}", "train.steps=4", "checkpoint.every=1", "seed=5").code == 0
        shutil.rmtree(run / "checkpoints/step-000004")
        shutil.copytree(other / "checkpoints/step-000004", run / "checkpoints/step-000004")
        expected = "step-000004/model.safetensors differs from what is saved now"
    else:
        made = LocalLearner.step

        def step(self: LocalLearner) -> Metrics:
            weight = next(self.model.parameters()).detach()
            weight.view(torch.int32).view(-1)[0] += 1
            return made(self)

        monkeypatch.setattr(LocalLearner, "step", step)
        expected = "metrics, the first "
    refused = burnish("train", "--resume", run, "--verify")
    assert refused.code == 5, refused.out
    assert expected in refused.err
    assert refused.err.splitlines()[-1].endswith(f"burnish train --resume {run}")


@pytest.mark.reliability(25)
def test_verify_refuses_a_run_without_a_recorded_step(burnish: Command, words: list[str], tmp_path: Path) -> None:
    assert burnish(*words, f"out={tmp_path / 'run'}").code == 0
    with closing(queries.open_store(tmp_path / "run/run.sqlite")) as db:
        assert queries.last_step(db) == 2
    import sqlite3

    with closing(sqlite3.connect(tmp_path / "run/run.sqlite")) as db, db:
        db.execute("UPDATE steps SET live = 0")
    refused = burnish("train", "--resume", tmp_path / "run", "--verify")
    assert refused.code == 5
    assert "has no recorded step to compare with" in refused.err
