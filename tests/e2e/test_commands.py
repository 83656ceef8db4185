"""The commands beside `train`: what they print, in which order, and how they exit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import Command, write_rows

ModelDir = Callable[[str], Path]

COMMANDS = ("train", "doctor", "eval", "base", "generate", "grade", "config")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(burnish: Command, name: str) -> None:
    shown = burnish(name, "--help")
    assert shown.code == 0
    assert shown.out.startswith(f"usage: burnish {name} ")


def test_help_names_every_command(burnish: Command) -> None:
    shown = burnish("--help")
    assert shown.code == 0
    assert all(re.search(rf"^ +{name} ", shown.out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize(
    "words",
    [["evaluate"], ["eval"], ["eval", "embedded"], ["train", "--resume"], ["grade"], ["grade", "x.jsonl", "--stile=a"]],
    ids=" ".join,
)
def test_wrong_usage_exits_2_with_the_usage(burnish: Command, words: list[str]) -> None:
    ended = burnish(*words)
    assert ended.code == 2
    assert ended.out == ""
    assert "usage: burnish" in ended.err
    assert "Traceback" not in ended.err


# -- eval --------------------------------------------------------------------------------------------------------------


def test_eval_prints_a_table_with_intervals(burnish: Command, tmp_path: Path) -> None:
    words = ["eval", "embedded", "add23", "eval.prompts=20", "train.threads=1"]
    ended = burnish(*words, "--json", tmp_path / "found.json")
    assert ended.code == 0, ended.err
    header, *_ = ended.out.splitlines()
    assert header == "read 20 rows of task add23 (heldout): 20 used"
    assert "add23, step 0: 20 prompts, 40 completions graded" in ended.out
    rows = re.findall(r"^  (\S+) +([0-9.]+)  \[([0-9.]+), ([0-9.]+)\]$", ended.out, re.MULTILINE)
    assert [name for name, *_ in rows] == ["avg@2", "pass@1", "pass@2", "maj@2", "greedy", "length", "truncated"]
    assert all(float(low) <= float(value) <= float(high) for _, value, low, high in rows)
    shown = {name: float(value) for name, value, *_ in rows}
    assert 0.05 < shown["avg@2"] < 0.8, "the base leaves room to learn, and has something to learn from"

    found = json.loads((tmp_path / "found.json").read_text())
    assert found["suite"] == "add23"
    assert len(found["items"]) == len({item["prompt"] for item in found["items"]}) == 20
    assert sum(item["num_right"] for item in found["items"]) / 40 == pytest.approx(shown["avg@2"], abs=1e-3)
    assert burnish(*words).out == ended.out, "the same command measures the same"


def test_eval_takes_a_model_and_a_file_of_ones_own(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    words = ["eval.samples=4", "eval.greedy=false", "eval.prompts=10", "sampling.max_new_tokens=8"]
    ended = burnish("eval", model_dir("llama"), sums, *words)
    assert ended.code == 0, ended.err
    assert "read 10 rows of sums.jsonl: 10 used" in ended.out
    assert "sums, step 0: 10 prompts, 40 completions graded" in ended.out
    assert "pass@4" in ended.out
    assert "greedy" not in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing/here", "add23", "eval.sample=2"], "did you mean 'eval.samples'?"),
        (["./nothing", "add23"], "model.path=./nothing cannot be loaded"),
        (["embedded", "./nothing.jsonl"], "./nothing.jsonl: no such file or directory"),
    ],
)
def test_eval_of_what_is_not_there_exits_2(burnish: Command, words: list[str], message: str) -> None:
    ended = burnish("eval", *words)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


# -- generate ----------------------------------------------------------------------------------------------------------


def test_generate_shows_as_many_completions_as_asked_for(burnish: Command) -> None:
    words = ["generate", "embedded", "62+37", "-n", 3, "train.threads=1"]
    ended = burnish(*words)
    assert ended.code == 0, ended.err
    heads = re.findall(r"^--- (\d) of 3 \((\d+) tokens, (stop|length)\)$", ended.out, re.MULTILINE)
    assert [number for number, *_ in heads] == ["1", "2", "3"]
    assert ended.out.count("Answer: ") >= 2
    assert burnish(*words).out == ended.out
    assert burnish(*words, "seed=2").out != ended.out


def test_generate_at_temperature_0_is_refused_with_what_greedy_is_for(burnish: Command) -> None:
    ended = burnish("generate", "embedded", "62+37", "sampling.temperature=0")
    assert ended.code == 2
    assert "Type sampling.temperature=1" in ended.err


def test_generate_of_no_completion_is_refused(burnish: Command) -> None:
    ended = burnish("generate", "embedded", "62+37", "-n", 0)
    assert (ended.code, ended.err) == (2, "burnish: -n is 0; it needs at least one completion. Type -n 4\n")


def test_generate_shows_no_raw_control_characters(burnish: Command, model_dir: ModelDir) -> None:
    ended = burnish("generate", model_dir("llama"), "1+2", "-n", 8, "sampling.max_new_tokens=8", "data.suffix=\x1b[31m")
    assert ended.code == 0, ended.err
    assert "\x1b" not in ended.out


# -- grade -------------------------------------------------------------------------------------------------------------


def test_grade_prints_one_verdict_per_row_in_order(burnish: Command, tmp_path: Path) -> None:
    rows = [
        {"completion": "6*7 = 42\nAnswer: 42", "answer": "42"},
        {"completion": "Answer: 41", "answer": "42"},
        {"completion": "I give up", "answer": "42"},
        {"completion": "It is \\boxed{\\frac{1}{2}}", "answer": "0.5"},
        {"completion": "so #### 1,000", "answer": 1000, "note": "ignored"},
    ]
    ended = burnish("grade", write_rows(tmp_path / "answers.jsonl", rows))
    assert ended.code == 0, ended.err
    assert [json.loads(line) for line in ended.out.splitlines()] == [
        {"status": "ok", "score": 1.0, "extracted": "42"},
        {"status": "wrong", "score": 0.0, "extracted": "41"},
        {"status": "unparsed", "score": 0.0, "extracted": None},
        {"status": "ok", "score": 1.0, "extracted": "\\frac{1}{2}"},
        {"status": "ok", "score": 1.0, "extracted": "1,000"},
    ]
    assert ended.err == "graded 5 rows of answers.jsonl: 3 ok (60.0%), 1 wrong (20.0%), 1 unparsed (20.0%)\n"


def test_grade_by_another_style_finds_other_answers(burnish: Command, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "a.jsonl", [{"completion": "#### 7\nAnswer: 8", "answer": "7"}])
    statuses = {
        style: json.loads(burnish("grade", rows, "--style", style).out)["status"] for style in ("dapo", "gsm8k")
    }
    assert statuses == {"dapo": "wrong", "gsm8k": "ok"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"completion": "a", "answer": "b"}\n{"completion": 3}\n', ":2: 'completion' is a number; it must be text"),
        ('{"completion": "a"}\n', ":1: no 'answer' (found completion)"),
        ("not json\n", ":1: not JSON"),
        ("", " has no rows"),
    ],
)
def test_grade_refuses_a_malformed_file_before_it_prints_anything(
    burnish: Command, tmp_path: Path, content: str, message: str
) -> None:
    (tmp_path / "bad.jsonl").write_text(content)
    ended = burnish("grade", tmp_path / "bad.jsonl")
    assert (ended.code, ended.out) == (2, "")
    assert f"bad.jsonl{message}" in ended.err
    assert ended.err.count("\n") == 1


def test_grade_of_a_file_that_is_not_there_exits_2(burnish: Command, tmp_path: Path) -> None:
    ended = burnish("grade", tmp_path / "none.jsonl")
    assert ended.code == 2
    assert str(tmp_path / "none.jsonl") in ended.err
    assert "Traceback" not in ended.err


# -- config, base ------------------------------------------------------------------------------------------------------


def test_config_shows_what_train_would_run(burnish: Command) -> None:
    shown = burnish("config", "dapo", "model.path=./mine", "--sampling.group-size", "16")
    assert shown.code == 0
    assert re.search(r"^  path: ./mine$", shown.out, re.MULTILINE)
    assert re.search(r"^  group_size: 16$", shown.out, re.MULTILINE)
    assert re.search(r"^  clip_high: 0.28$", shown.out, re.MULTILINE)


def test_config_lists_presets_that_all_resolve(burnish: Command) -> None:
    listed = burnish("config", "--presets")
    names = [line.split()[0] for line in listed.out.splitlines()]
    assert {"add23", "dapo", "grpo", "dr_grpo", "lite_ppo"} <= set(names)
    assert all(burnish("config", name).code == 0 for name in names)


def test_base_refuses_an_unknown_task_and_a_folder_with_content(burnish: Command, tmp_path: Path) -> None:
    unknown = burnish("base", "add99", "--out", tmp_path / "base")
    assert unknown.code == 2
    assert "there is no built-in task 'add99'; type one of add23, add3, modchain" in unknown.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    full = burnish("base", "add23", "--out", tmp_path / "full")
    assert full.code == 2
    assert "is not empty; type another --out" in full.err
