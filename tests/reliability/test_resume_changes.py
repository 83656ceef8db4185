"""What changed since a run was started is found at its resume: refused with what to type, or allowed and recorded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from burnish.config import resolved
from burnish.errors import ResumeError
from burnish.launch.changes import changes, require_allowed
from burnish.overrides import keys, validate
from burnish.store import queries
from burnish.trees import flattened, merge, nested
from tests.e2e.conftest import TINY_STEPS, Command, Ended

ModelDir = Callable[[str], Path]

FREE = {
    "out", "name", "model.path", "model.device", "data.train", "train.threads", "eval.data", "eval.every",
    "checkpoint.every", "checkpoint.keep", "checkpoint.on_save_error", "store.max_bytes", "store.token_groups",
    "log.sinks", "log.project",
}  # fmt: skip
"""Logging, how often to save, and paths, whose content is compared."""
ROUNDING = {"model.dtype", "model.gradient_checkpointing", "train.tokens_per_piece", "sampling.slots"}

PLUGIN = "def good(solution_str, ground_truth):\n    return float(solution_str.strip().endswith(ground_truth))\n"


def other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case None:
            return "x"
    return [*value, "x"]


def snapshot(config: Any) -> dict[str, Any]:
    return {"config": config, "plugins": {}, "given": []}


@pytest.mark.reliability(23)
@pytest.mark.parametrize("method", ["dapo", "adpo", "cispo"])
def test_every_key_that_changes_is_refused_unless_it_decides_nothing(method: str) -> None:
    saved = resolved(validate({"objective": {"name": method}, "confidence": {"train": True}}))
    leaves = dict(flattened(saved))
    assert len(leaves) > 60
    for key, value in leaves.items():
        changed = json.loads(json.dumps(saved))
        merge(changed, nested({key: other(value)}))
        (found,) = changes(snapshot(saved), snapshot(changed))
        longer = key == "train.steps"
        expected = "free" if key in FREE or longer else "rounding" if key in ROUNDING else "refused"
        assert (found.key, found.kind) == (key, expected)
        if expected == "refused":
            with pytest.raises(ResumeError) as refused:
                require_allowed(Path("runs/x"), [found], [])
            _, head, row, advice = str(refused.value).splitlines()
            assert head.split() == ["key", "saved", "now"]
            assert row.split()[0] == key
            assert advice.endswith(f"--allow-change {key}")
            require_allowed(Path("runs/x"), [found], [key])
            require_allowed(Path("runs/x"), [found], [key.split(".")[0]])


@pytest.mark.reliability(23)
def test_fewer_steps_are_refused_and_the_free_keys_are_keys() -> None:
    saved = resolved(validate({}))
    fewer = json.loads(json.dumps(saved))
    fewer["train"]["steps"] -= 1
    assert [change.kind for change in changes(snapshot(saved), snapshot(fewer))] == ["refused"]
    assert set(keys()) >= FREE | ROUNDING


@pytest.fixture
def run(burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Starts a run of two steps, or resumes it with words."""
    plugin = tmp_path / "good.py"
    plugin.write_text(PLUGIN)
    given = [f"model.path={model_dir('llama')}", f"data.train={sums}", f"reward.parts.good.function={plugin}:good"]
    rest = ["train.steps=2", "checkpoint.every=1", f"out={tmp_path / 'run'}", "log.sinks=[]"]

    def go(*words: str) -> Ended:
        if not (tmp_path / "run").exists():
            return burnish("train", *TINY_STEPS, *given, *rest, *words)
        return burnish("train", "--resume", tmp_path / "run", *words)

    return go


def recorded(tmp_path: Path, kind: str) -> list[str]:
    with closing(queries.open_store(tmp_path / "run/run.sqlite")) as db:
        return [event["message"] for event in reversed(queries.events(db)) if event["kind"] == kind]


def noted(tmp_path: Path) -> list[Any]:
    return json.loads((tmp_path / "run/run.json").read_text(encoding="utf-8"))["changes"]


@pytest.mark.slow
@pytest.mark.reliability(23)
def test_a_change_is_refused_then_allowed_and_recorded(run: Callable[..., Ended], tmp_path: Path) -> None:
    assert run().code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    refused = run("train.steps=3", "optimizer.learning_rate=0.002", "sampling.top_k=5")
    assert refused.code == 5
    assert refused.err.splitlines() == [
        f"burnish: the configuration of {tmp_path / 'run'} changed:",
        "  key                      saved  now",
        "  optimizer.learning_rate  0.001  0.002",
        "  sampling.top_k           0      5",
        "Put back what was saved; or accept the change and add to the command: "
        "--allow-change optimizer.learning_rate --allow-change sampling.top_k",
    ]
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before

    words = ["train.steps=3", "optimizer.learning_rate=0.002", "--allow-change", "optimizer.learning_rate"]
    allowed = run(*words)
    assert allowed.code == 0, allowed.err
    assert recorded(tmp_path, "change") == ["allowed: optimizer.learning_rate 0.001 -> 0.002"]
    assert noted(tmp_path) == [
        {"after_step": 2, "key": "optimizer.learning_rate", "saved": 0.001, "now": 0.002},
        {"after_step": 2, "key": "train.steps", "saved": 2, "now": 3},
    ]
    with closing(queries.open_store(tmp_path / "run/run.sqlite")) as db:
        assert [a["config_diff"] and json.loads(a["config_diff"])[0]["key"] for a in queries.attempts(db)] == [
            None,
            "optimizer.learning_rate",
        ]
        assert queries.metrics_at(db, 3)["learning_rate"] == 0.002
    assert run("train.steps=4").code == 0  # from now on it is what the run was started with
    assert run("train.steps=5", "optimizer.learning_rate=0.001").code == 5


@pytest.mark.slow
@pytest.mark.reliability(23)
def test_an_edited_config_file_counts_as_a_change(run: Callable[..., Ended], tmp_path: Path) -> None:
    assert run().code == 0
    path = tmp_path / "run/config.json"
    path.write_text(path.read_text().replace('"temperature": 1.0', '"temperature": 0.9'))
    refused = run("train.steps=3")
    assert refused.code == 5
    assert "sampling.temperature  1.0    0.9" in refused.err


@pytest.mark.slow
@pytest.mark.reliability(23)
def test_other_threads_and_pieces_are_warned_of_in_one_line_and_recorded(
    run: Callable[..., Ended], tmp_path: Path
) -> None:
    import torch

    assert run().code == 0
    resumed = run("train.steps=3", "train.threads=2", "train.tokens_per_piece=100")
    torch.set_num_threads(1)
    assert resumed.code == 0, resumed.err
    warning = "bit for bit no longer holds: train.tokens_per_piece null -> 100, threads 1 -> 2"
    assert resumed.out.splitlines().count(warning) == 1
    assert recorded(tmp_path, "environment") == [warning]


def append(path: Path) -> None:
    path.write_text(path.read_text() + '{"prompt": "9+0", "answer": "9"}\n')


def edit(path: Path) -> None:
    path.write_text(path.read_text().replace('"answer": "8"', '"answer": "7"', 1))


def reorder(path: Path) -> None:
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([second, first, *rest]))


def touch(path: Path) -> None:
    os.utime(path, (time.time() + 5, time.time() + 5))


@pytest.mark.slow
@pytest.mark.reliability(24)
@pytest.mark.parametrize("before_checkpoint", [False, True], ids=["", "before-any-checkpoint"])
@pytest.mark.parametrize("change", [append, edit, reorder, touch], ids=lambda change: change.__name__)
def test_other_data_is_refused_with_rows_and_hashes_and_a_touch_is_not(
    run: Callable[..., Ended], sums: Path, tmp_path: Path, change: Callable[[Path], None], before_checkpoint: bool
) -> None:
    assert run().code == 0
    if before_checkpoint:
        for folder in (tmp_path / "run/checkpoints").iterdir():
            for path in sorted(folder.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            folder.rmdir()
    change(sums)
    resumed = run("train.steps=3")
    if change is touch:
        assert resumed.code == 0, resumed.err
        return
    assert resumed.code == 5
    rows = "45 -> 46 rows" if change is append else "45 rows"
    said, advice = resumed.err.splitlines()
    assert said.startswith(f"burnish: sums.jsonl changed: {rows}, sha256 ")
    assert advice.endswith("add to the command: --allow-change data")
    allowed = run("train.steps=3", "--allow-change", "data")
    assert allowed.code == 0, allowed.err
    assert recorded(tmp_path, "change") == [f"allowed: {said.removeprefix('burnish: ')}"]
    assert noted(tmp_path)[-1]["key"] == "data"


@pytest.mark.slow
@pytest.mark.reliability(24)
@pytest.mark.parametrize("change", ["edit", "touch", "move"])
def test_another_plugin_is_refused_with_its_file_and_hashes_before_it_runs(
    run: Callable[..., Ended], tmp_path: Path, change: str
) -> None:
    plugin = tmp_path / "good.py"
    assert run().code == 0
    if change == "edit":
        plugin.write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n{PLUGIN}")
    elif change == "touch":
        touch(plugin)
    else:
        plugin.rename(tmp_path / "moved.py")
    words = [f"reward.parts.good.function={tmp_path / 'moved.py'}:good"] if change == "move" else []
    resumed = run("train.steps=3", *words)
    if change != "edit":
        assert resumed.code == 0, resumed.err
        return
    assert resumed.code == 5
    assert resumed.err.startswith(f"burnish: reward plugin {plugin} changed: sha256 ")
    assert not (tmp_path / "ran").exists()
    allowed = run("train.steps=3", "--allow-change", "reward")
    assert allowed.code == 0, allowed.err
    assert (tmp_path / "ran").exists()
    assert noted(tmp_path)[-1]["key"] == "reward.parts.good"
    assert recorded(tmp_path, "change")[0].startswith(f"allowed: reward plugin {plugin} changed")


@pytest.mark.slow
@pytest.mark.reliability(24)
def test_other_weights_to_begin_with_are_refused(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    """They would be another reference to stay close to, and another tokenizer."""
    words = [f"data.train={sums}", f"out={tmp_path / 'run'}", "objective.kl.coef=0.1", "log.sinks=[]"]
    assert burnish("train", *TINY_STEPS, f"model.path={model_dir('llama')}", *words).code == 0
    refused = burnish("train", "--resume", tmp_path / "run", f"model.path={model_dir('qwen2')}", "train.steps=3")
    assert refused.code == 5
    assert refused.err.startswith("burnish: the model that the run began with changed: sha256 ")
