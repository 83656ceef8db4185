"""`burnish doctor`: what stands in the way of a run, all of it at once, without a trace of having looked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from burnish.build import memory
from burnish.rollout import kernels
from tests.e2e.conftest import TINY_STEPS, Command, Ended, write_rows

pytestmark = pytest.mark.slow  # loads models

ModelDir = Callable[[str], Path]
Doctor = Callable[..., Ended]


@pytest.fixture
def doctor(burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path) -> Doctor:
    def run(*options: str, **settings: object) -> Ended:
        usual = {"model.path": model_dir("llama"), "data.train": sums, "out": tmp_path / "run"}
        words = {key.replace("__", "."): value for key, value in settings.items()}
        return burnish("doctor", *options, *TINY_STEPS, *(f"{k}={v}" for k, v in {**usual, **words}.items()))

    return run


def findings(ended: Ended, check: str) -> list[tuple[str, str]]:
    """(level, message) of a check, from what was printed as JSON."""
    return [(f["level"], f["message"]) for f in json.loads(ended.out)["findings"] if f["check"] == check]


def test_the_default_is_fit(burnish: Command, tmp_path: Path) -> None:
    ended = burnish("doctor", f"out={tmp_path / 'run'}")
    assert ended.code == 0, ended.out
    assert not (tmp_path / "run").exists()
    assert "of 64 gold answers 64 are right (mean 1), of as much junk 0 (mean -1)" in ended.out
    assert all(line.startswith(("ok", " ", "memory", "note")) for line in ended.out.splitlines())


def test_problems_that_have_nothing_to_do_with_each_other_are_found_in_one_go(doctor: Doctor, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    write_rows(tmp_path / "test.jsonl", [{"prompt": "1+1", "answer": "2"}, {"prompt": "1+2"}])
    ended = doctor(
        out=tmp_path / "x/run",
        model__path=tmp_path / "nothing",
        eval__data=tmp_path / "test.jsonl",
        reward__format__pattern="([",
        sampling__prompts_per_step=64,
    )
    assert ended.code == 2
    assert [line.split()[1] for line in ended.out.splitlines() if line.startswith("fault")] == [
        "folder",
        "tokenizer",
        "data",
        "eval",
        "reward",
    ]
    assert "test.jsonl:2: field 'answer' missing" in ended.out


def test_a_configuration_that_cannot_be_is_a_finding_too(burnish: Command) -> None:
    ended = burnish("doctor", "--json", "sampling.group_sise=4", "train.stepz=2")
    assert ended.code == 2
    ((level, message),) = findings(ended, "config")
    assert level == "fault"
    assert "'sampling.group_size'" in message
    assert "'train.steps'" in message


def test_findings_memory_and_verdict_are_told_as_json(doctor: Doctor) -> None:
    ended = doctor("--json")
    assert ended.code == 0, ended.out
    told: dict[str, Any] = json.loads(ended.out)
    assert told["ok"] is True
    assert {f["check"] for f in told["findings"]} >= {"folder", "data", "reward", "model", "memory", "disk", "batch"}
    assert told["memory"]["peak"] >= sum(n["num_bytes"] for n in told["memory"]["needs"] if n["when"] == "always")
    assert findings(ended, "batch")[0][1].startswith(
        "2 steps of 4 prompts x 8 completions = 32 rollouts -> 2 updates of 16"
    )


def test_answers_that_the_style_cannot_read_are_a_fault(doctor: Doctor, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "words.jsonl", [{"prompt": f"{i}+1", "answer": "a few"} for i in range(9)])
    ended = doctor("--json", data__train=data, reward__style="gsm8k")
    assert ended.code == 2
    ((level, message),) = findings(ended, "reward")
    assert level == "fault"
    assert "of 9 gold answers 0 are right" in message
    assert "is not a number, and style gsm8k needs one" in message


def test_a_reward_that_does_not_tell_gold_from_junk_is_remarked_on(doctor: Doctor, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def same(prompt, completion):\n    return 1.0\n")
    own = doctor("--json", reward__parts__same__function=f"{file}:same", reward__style="none")
    assert own.code == 0
    (_, note), (level, message) = findings(own, "reward")
    assert note.startswith(f"reward plugin {file}:same (sha256 ")
    assert level == "warning"
    assert "the reward does not tell them apart" in message


def test_right_answers_that_are_not_taken_for_right_are_a_fault(doctor: Doctor, tmp_path: Path) -> None:
    hopeless = write_rows(tmp_path / "dont.jsonl", [{"prompt": f"{i}+1", "answer": "five\nor six"} for i in range(9)])
    refused = doctor("--json", data__train=hopeless, reward__style="dapo")
    assert refused.code == 2
    ((level, message),) = findings(refused, "reward")
    assert level == "fault"
    assert "of 9 gold answers 0 are right" in message
    assert message.endswith("Type reward.style=auto, or correct data.columns.answer")


def test_confidence_without_targets_is_a_fault(doctor: Doctor) -> None:
    ended = doctor("--json", confidence__target="data")
    assert ended.code == 2
    ((level, message),) = findings(ended, "method")
    assert level == "fault"
    assert "needs the column 'target_confidence' in every row" in message
    assert doctor("--json", confidence__target="correctness").code == 0


def test_prompts_near_their_limit_are_counted(doctor: Doctor) -> None:
    ((level, message),) = findings(doctor("--json", data__max_prompt_tokens=6), "lengths")
    assert level == "warning"
    assert message == (
        "prompts of 6 tokens (median) to 6, at most 6 are read; 100.0% of them above 90% of that. "
        "Type data.max_prompt_tokens=12"
    )


def test_a_model_that_cannot_fit_is_not_loaded(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    monkeypatch.setattr("burnish.doctor.load_model", lambda config: pytest.fail("the model was loaded"))
    ended = doctor("--json")
    assert ended.code == 2
    ((level, message),) = findings(ended, "memory")
    assert level == "fault"
    assert message.startswith("weights, gradients and optimiser alone take ")


def test_a_disk_without_room_for_the_checkpoints_is_a_fault(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("burnish.doctor.shutil.disk_usage", lambda path: usage)
    ended = doctor("--json")
    assert ended.code == 2
    ((level, message),) = findings(ended, "disk")
    assert level == "fault"
    assert message.startswith("3 checkpoints take ")


def test_what_data_says_does_not_reach_the_terminal_as_it_is(doctor: Doctor, tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}+1", "answer": "2", "id": "\x1b]0;x\x07"} for i in range(4)]
    ended = doctor(data__train=write_rows(tmp_path / "escape.jsonl", rows))
    assert ended.code == 2
    assert not {"\x1b", "\x07"} & set(ended.out)
    assert "\\x1b]0;x\\x07" in ended.out


def test_a_machine_without_a_compiler_is_told_what_it_is_missing(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not findings(doctor("--json"), "engine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CC", "no-such-compiler")
    kernels._found.cache_clear()
    ((level, message),) = findings(doctor("--json"), "engine")
    kernels._found.cache_clear()
    assert level == "note"
    assert message.endswith("there is no C compiler (no-such-compiler). Type apt install gcc")
