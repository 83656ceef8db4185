"""Public data sets as they are downloaded, trained on from the command line with a model of one's own.

The model is random, so nothing is learnt: this asks whether every row of real data passes through template, engine,
grader, learner and record.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from burnish.store import queries
from tests.e2e.conftest import SHARED_DATA, TINY_STEPS, Command, read_rows
from tests.tiny_models import bpe_tokenizer, tiny_qwen3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED_DATA.is_dir(), reason="needs the public data sets in ../shared/data"),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A random Qwen3 with a byte-level BPE, a chat template and room for a long problem."""
    tokenizer = bpe_tokenizer()
    tiny_qwen3(len(tokenizer), max_position_embeddings=4096).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def settings(model: Path, data: str, out: Path, *words: str) -> list[str]:
    own = [f"model.path={model}", f"data.train={SHARED_DATA / data}", f"out={out}", "sampling.max_new_tokens=48"]
    return [*TINY_STEPS, *own, "objective.dynamic_sampling=false", *words]


def assert_whole(run: Path, header: str, out: str) -> None:
    assert header in out
    rows = read_rows(run / "metrics.jsonl")
    assert [row["step"] for row in rows if "loss" in row] == [1, 2]
    assert all(row["rollouts/faults"] == 0 for row in rows if "loss" in row)
    assert json.loads((run / "summary.json").read_text())["updates"] == 4
    with queries.open_store(run / "run.sqlite") as db:
        assert sum(step["n_rollouts"] for step in queries.steps(db)) == 2 * 4 * 8
    db.close()


def test_gsm8k_as_it_is(burnish: Command, model: Path, tmp_path: Path) -> None:
    test = SHARED_DATA / "gsm8k_test.jsonl"
    words = ["data.limit=64", "reward.style=gsm8k", f"eval.data={test}", "eval.prompts=8", "eval.samples=2"]
    ended = burnish("train", *settings(model, "gsm8k_train.jsonl", tmp_path / "run", *words))
    assert ended.code == 0, ended.err
    assert_whole(tmp_path / "run", "read 64 rows of gsm8k_train.jsonl: 64 used\n", ended.out)
    assert "prompt from 'question', answer from 'answer'" in ended.out
    assert "held out (gsm8k_test, 8 prompts): before -> after" in ended.out
    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        answers = [answer for (answer,) in db.execute("SELECT answer FROM prompts")]
    db.close()
    assert all("####" in answer for answer in answers)


def test_gsm8k_with_its_answers_where_the_reward_can_tell_completions_apart(
    burnish: Command, model: Path, tmp_path: Path
) -> None:
    """A format that a random model often meets gives every group a gradient."""
    words = ["data.limit=64", "reward.style=auto", "reward.format.pattern=[0-9]", "data.suffix= End with #### N."]
    ended = burnish("train", *settings(model, "gsm8k_train.jsonl", tmp_path / "run", *words))
    assert ended.code == 0, ended.err
    for row in read_rows(tmp_path / "run/metrics.jsonl"):
        assert 0.0 < row["reward/format"] < 1.0
        assert row["grad_norm"] > 0.0
    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        assert all(text.endswith(" End with #### N.") for (text,) in db.execute("SELECT text FROM prompts"))
    db.close()


@pytest.mark.parametrize("style", ["dapo", "auto", "boxed"])
def test_aime_as_verl_distributes_it(burnish: Command, model: Path, tmp_path: Path, style: str) -> None:
    ended = burnish("train", *settings(model, "aime-2024.parquet", tmp_path / "run", f"reward.style={style}"))
    assert ended.code == 0, ended.err
    assert_whole(tmp_path / "run", "aime-2024.parquet: 30 used, 930 dropped (duplicate)", ended.out)


def test_a_resumed_run_reads_the_same_real_data(burnish: Command, model: Path, tmp_path: Path) -> None:
    words = settings(model, "gsm8k_train.jsonl", tmp_path / "run", "data.limit=100", "reward.style=gsm8k")
    assert burnish("train", *words).code == 0
    (tmp_path / "run/summary.json").unlink()
    resumed = burnish("train", "--resume", tmp_path / "run")
    assert resumed.code == 0, resumed.err
    assert "resuming from step-000002" in resumed.out
