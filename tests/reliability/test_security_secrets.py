"""Secrets reach no file, no record, no tracker and no terminal; and the environment is never written down."""

from __future__ import annotations

import gzip
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from burnish.config import RunConfig, resolved
from burnish.config.keys import keys
from burnish.masking import MASK, SECRET_KEY, masked, masked_keys, secret_keys
from tests.e2e.conftest import TINY_STEPS, Command

ModelDir = Callable[[str], Path]
SECRET = "correct-horse-battery-staple"
ENVIRONMENT = "env-correct-horse-battery"


@pytest.mark.parametrize(
    "key",
    ["token", "hf_token", "api_key", "key", "API_KEY", "openai.key", "apikey", "client-secret", "password", "a_passwd"],
)
def test_what_is_named_a_secret_is_masked(key: str) -> None:
    assert masked({key: "x", "deep": [{key: 12345}]}) == {key: MASK, "deep": [{key: MASK}]}
    assert masked({key: "", "other": None, f"{key}_": "x"}) == {key: "", "other": None, f"{key}_": "x"}


def test_no_key_of_the_schema_is_taken_for_a_secret() -> None:
    assert [key for key in keys() if SECRET_KEY.search(key)] == []
    assert secret_keys(resolved(RunConfig())) == []
    assert masked(resolved(RunConfig())) == resolved(RunConfig())


@pytest.mark.parametrize("text", ["hf_" + "a" * 24, "sk-" + "a" * 30, "ghp_" + "a" * 24])
def test_what_looks_like_a_token_of_a_known_service_is_masked_anywhere(text: str) -> None:
    assert masked({"note": f"use {text} now"}) == {"note": f"use {MASK} now"}
    assert masked({"path": "https://me:pass@host/x"}) == {"path": f"https://{MASK}@host/x"}


def test_masked_keys_are_told() -> None:
    tree = {"args": {"api_key": SECRET, "limit": 3}, "path": "https://me:pass@host/x", "list": (1, 2)}
    assert secret_keys(tree) == ["args.api_key", "path"]
    assert masked_keys(masked(tree)) == ["args.api_key", "path"]
    assert masked_keys(tree) == []


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file, and every blob of the record unpacked."""
    for path in filter(Path.is_file, folder.rglob("*")):
        content = path.read_bytes()
        yield str(path), gzip.decompress(content) if path.suffix == ".gz" else content
    db = sqlite3.connect(folder / "run.sqlite")
    for (table,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        for row in db.execute(f"SELECT * FROM {table}"):
            for value in row:
                if isinstance(value, bytes) and value[:1] == b"\x78":
                    yield table, zlib.decompress(value)
                else:
                    yield table, str(value).encode()
    db.close()


@pytest.mark.slow
def test_a_run_with_a_secret_leaves_it_nowhere_and_asks_for_it_again(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", ENVIRONMENT)
    reward = tmp_path / "judge.py"
    reward.write_text(
        f"def judge(prompt, completion, api_key=''):\n    return float(api_key == {SECRET[::-1]!r}[::-1])\n"
    )
    run = tmp_path / "run"
    words = [*TINY_STEPS, f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={run}", "train.steps=1"]
    words += [f"reward.parts.judge.function={reward}:judge", "checkpoint.every=1"]
    secret = f"reward.parts.judge.args.api_key={SECRET}"

    examined = burnish("doctor", *words, secret)
    ended = burnish("train", *words, secret)
    assert ended.code == 0, ended.err
    told = "reward.parts.judge.args.api_key looks like a secret"
    assert told in examined.out
    assert told in ended.out
    shown = burnish("config", *words, secret)
    for place, text in [("doctor", examined.out), ("train", ended.out + ended.err), ("config", shown.out)]:
        assert SECRET not in text, place
        assert ENVIRONMENT not in text, place
    assert f"api_key: '{MASK}'" in shown.out
    for place, content in _texts(run):
        assert SECRET.encode() not in content, place
        assert ENVIRONMENT.encode() not in content, place

    (tmp_path / "saved.yaml").write_text(shown.out)
    again = burnish("train", tmp_path / "saved.yaml", f"out={tmp_path / 'again'}")
    assert again.code == 2
    assert "reward.parts.judge.args.api_key holds ***, which saved configurations have in place of secrets" in again.err
    resumed = burnish("train", "--resume", run)
    assert resumed.code == 2
    assert "reward.parts.judge.args.api_key=VALUE" in resumed.err


@pytest.mark.slow
def test_the_reward_file_is_named_with_its_fingerprint_at_the_start(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    from hashlib import sha256

    reward = tmp_path / "own.py"
    reward.write_text("def own(prompt, completion):\n    return float(len(completion.text) % 3)\n")
    words = [*TINY_STEPS, f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={tmp_path / 'run'}"]
    ended = burnish("train", *words, "train.steps=1", f"reward.parts.own.function={reward}:own")
    assert ended.code == 0, ended.err
    fingerprint = sha256(reward.read_bytes()).hexdigest()
    assert f"reward plugin {reward}:own (sha256 {fingerprint}), trusted code" in ended.out.partition("step 1/")[0]
