"""What goes wrong before a run starts: exit code 2, one sentence that says what to type, and nothing left behind.

Every case is a command that is wrong in one way. The same command with the mistake corrected, into the same folder,
must then run. `burnish doctor` says both beforehand: it must find whatever training would stop at.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.e2e.conftest import TINY_STEPS, Command, write_rows
from tests.tiny_models import word_tokenizer

pytestmark = pytest.mark.slow  # runs of the product, seconds each

ModelDir = Callable[[str], Path]


@pytest.fixture
def places(model_dir: ModelDir, sums: Path, tmp_path: Path) -> dict[str, Path]:
    """Names in braces that the cases below use."""
    no_template, empty = tmp_path / "no-template", tmp_path / "empty"
    tokenizer = word_tokenizer()
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(model_dir("llama")).save_pretrained(no_template)
    tokenizer.save_pretrained(no_template)
    empty.mkdir()
    for name, damage in DAMAGE.items():
        shutil.copytree(model_dir("llama"), tmp_path / name)
        damage(tmp_path / name)
    rows = [json.loads(line) for line in sums.read_text().splitlines()]
    write_rows(tmp_path / "long.jsonl", [{**row, "prompt": row["prompt"] + "0" * 510} for row in rows])
    write_rows(tmp_path / "no-answer.jsonl", [{"prompt": row["prompt"]} for row in rows])
    return {"model": model_dir("llama"), "sums": sums, "no_template": no_template, "empty": empty, "tmp": tmp_path}


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def _lose_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


DAMAGE: Mapping[str, Callable[[Path], object]] = {
    "cut": _cut_weights,
    "incomplete": _lose_weights,
    "no-weights": lambda folder: (folder / "model.safetensors").unlink(),
    "no-tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "bad-config": lambda folder: (folder / "config.json").write_text('{"model_type": '),
}
"""Directories of that name are models damaged so."""

Case = tuple[dict[str, str], dict[str, str], str]

CASES: Mapping[str, Case] = {
    "typo in a key": ({"sampling.group_sise": "4"}, {}, "did you mean 'sampling.group_size'?"),
    "unknown reward style": ({"reward.style": "gms8k"}, {}, "reward.style: found 'gms8k'; input should be 'auto', "),
    "no number": ({"optimizer.learning_rate": "fast"}, {}, "optimizer.learning_rate: found 'fast'; input should be"),
    "bad pattern": ({"reward.format.pattern": "(["}, {}, "the format's pattern '([' is no regular expression"),
    "mini-batches of unequal size": ({"train.updates_per_step": "3"}, {}, "Type train.updates_per_step=2"),
    "no such model": ({"model.path": "{tmp}/nothing"}, {}, "model.path={tmp}/nothing cannot be loaded; it needs "),
    "no model in it": ({"model.path": "{empty}"}, {}, "Found: a directory without config.json"),
    "weights cut short": ({"model.path": "{tmp}/cut"}, {}, "cannot be loaded; it needs "),
    "weights missing": ({"model.path": "{tmp}/incomplete"}, {}, "1 are missing, such as model.norm.weight"),
    "no weights": ({"model.path": "{tmp}/no-weights"}, {}, "Error no file named model.safetensors"),
    "no tokenizer": ({"model.path": "{tmp}/no-tokenizer"}, {}, "cannot be loaded; it needs "),
    "bad model config": ({"model.path": "{tmp}/bad-config"}, {}, "is not a valid JSON file"),
    "no chat template": ({"model.path": "{no_template}"}, {"data.template": "false"}, "Type data.template=false"),
    "no chat template for a built-in task": (
        {"model.path": "{no_template}", "data.train": "add23"},
        {"data.template": "false"},
        "Type data.template=false",
    ),
    "no such device": ({"model.device": "gpu"}, {}, "model.device is 'gpu'; it needs auto, cpu, cuda or cuda:N."),
    "more devices than there are": ({"model.device": "cuda:99"}, {}, "CUDA devices. Type model.device=auto"),
    "no such file": ({"data.train": "{tmp}/nothing.jsonl"}, {}, "{tmp}/nothing.jsonl: no such file or directory"),
    "no answers": ({"data.train": "{tmp}/no-answer.jsonl"}, {}, "no-answer.jsonl: no answer column (looked for "),
    "fewer rows than a step needs": (
        {"sampling.prompts_per_step": "64"},
        {"sampling.prompts_per_step": "45", "train.updates_per_step": "1"},
        "Type sampling.prompts_per_step=45 train.updates_per_step=1, or give more data",
    ),
    "overlong prompts": (
        {"data.train": "{tmp}/long.jsonl", "data.max_prompt_tokens": "100", "sampling.prompts_per_step": "2"},
        {
            "data.max_prompt_tokens": "100",
            "data.overlong_prompts": "truncate_left",
            "data.train": "{tmp}/long.jsonl",
            "objective.dynamic_sampling": "false",
        },
        "long.jsonl: prompts over data.max_prompt_tokens=100: 45 (the longest 516; ids ",
    ),
    "prompts without room for a completion": (
        {"data.train": "{tmp}/long.jsonl"},
        {
            "data.max_prompt_tokens": "504",
            "data.overlong_prompts": "truncate_left",
            "data.train": "{tmp}/long.jsonl",
            "objective.dynamic_sampling": "false",
        },
        "the model has 512 positions and the longest prompt 516 tokens",
    ),
    "completions without room for a prompt": (
        {"sampling.max_new_tokens": "600"},
        {"sampling.max_new_tokens": "256"},
        "Type sampling.max_new_tokens=256",
    ),
    "no such held-out file": ({"eval.data": "{tmp}/nothing.jsonl"}, {}, "{tmp}/nothing.jsonl: no such file"),
    "a sink that is not installed": ({"log.sinks": '["jsonl","nosuch"]'}, {}, "log.sinks.1: found 'nosuch'; "),
}
"""What -> (wrong settings, settings instead of them, words of the message)."""


def words(settings: Mapping[str, str], places: Mapping[str, Path]) -> Sequence[str]:
    usual = {"model.path": "{model}", "data.train": "{sums}", "train.steps": "1", "out": "{tmp}/run"}
    sizes = {key: value for key, _, value in (word.partition("=") for word in TINY_STEPS)}
    merged = {**sizes, **usual, **settings}
    return [f"{key}={value.format(**places) if '{' in value else value}" for key, value in merged.items()]


@pytest.mark.reliability(15)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_mistake_is_one_sentence_and_its_correction_runs(
    burnish: Command, places: Mapping[str, Path], case: Case
) -> None:
    wrong, corrected, message = case
    examined = burnish("doctor", *words(wrong, places))
    assert examined.code == 2
    assert message.format(**places) in examined.out
    refused = burnish("train", *words(wrong, places))
    assert refused.code == 2
    assert refused.err.startswith("burnish: ")
    assert message.format(**places) in refused.err
    assert refused.err.count("\n") == 1
    run = places["tmp"] / "run"
    assert not run.exists() or not list(run.iterdir())

    examined = burnish("doctor", *words(corrected, places))
    assert examined.code == 0, examined.out
    ended = burnish("train", *words(corrected, places))
    assert ended.code == 0, ended.err
    assert (run / "checkpoints/step-000001").is_dir()


def test_wandb_that_is_not_installed_leaves_nothing_behind(
    burnish: Command, places: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    refused = burnish("train", *words({"log.sinks": '["jsonl","tensorboard","wandb"]'}, places))
    assert refused.code == 2
    assert "pip install 'burnish[wandb]'" in refused.err
    assert list((places["tmp"] / "run").iterdir()) == []
    assert burnish("train", *words({}, places)).code == 0


def test_several_mistakes_are_told_at_once(burnish: Command, places: Mapping[str, Path]) -> None:
    refused = burnish("train", *words({"sampling.group_sise": "4", "train.stepz": "2"}, places))
    assert refused.code == 2
    assert "'sampling.group_size'" in refused.err
    assert "'train.steps'" in refused.err


def test_a_word_that_is_no_override_is_explained(burnish: Command, places: Mapping[str, Path]) -> None:
    refused = burnish("train", "dappo", *words({}, places))
    assert refused.code == 2
    assert "there is no preset 'dappo'; did you mean 'dapo'?" in refused.err


def test_a_folder_with_other_content_is_left_alone(burnish: Command, places: Mapping[str, Path]) -> None:
    run = places["tmp"] / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("years of work")
    refused = burnish("train", *words({"reward.format.pattern": "(["}, places))
    assert refused.code == 2
    assert "is not empty (it has thesis.tex): type another out=" in refused.err
    assert [path.name for path in run.iterdir()] == ["thesis.tex"]


def test_weights_that_diverge_end_the_run_with_3_and_keep_what_was_recorded(
    burnish: Command, places: Mapping[str, Path]
) -> None:
    settings = {"optimizer.learning_rate": "1e30", "train.steps": "4", "objective.dynamic_sampling": "false"}
    ended = burnish("train", *words(settings, places))
    assert ended.code == 3
    found, next_step = ended.err.splitlines()
    assert "the weights have diverged. Type a smaller optimizer.learning_rate" in found
    assert "continue with: burnish train --resume " in next_step
    assert (places["tmp"] / "run/metrics.jsonl").read_text().count("\n") >= 1
    assert (places["tmp"] / "run/config.json").exists()


def test_nothing_to_learn_from_ends_the_run_with_3(burnish: Command, places: Mapping[str, Path]) -> None:
    hopeless = write_rows(places["tmp"] / "hopeless.jsonl", [{"prompt": f"{i}+0", "answer": "none"} for i in range(9)])
    ended = burnish("train", *words({"data.train": str(hopeless), "train.steps": "9"}, places))
    assert ended.code == 3
    assert "10 generation rounds gave 0 of 4 groups that can train (40 all_wrong)" in ended.err
    assert ended.err.splitlines()[-1].startswith("Type sampling.max_rounds=N")


@pytest.mark.slow
def test_the_process_itself_exits_with_the_code_and_without_a_traceback(places: Mapping[str, Path]) -> None:
    wrong = words({"model.path": "{tmp}/nothing"}, places)
    ended = subprocess.run(
        [sys.executable, "-m", "burnish", "train", *wrong], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert ended.stderr.startswith("burnish: model.path=")


def test_a_tilde_is_the_home_folder(
    burnish: Command, places: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(places["tmp"]))
    shutil.copytree(places["model"], places["tmp"] / "mine")
    ended = burnish("train", *words({"model.path": "~/mine", "data.train": "~/sums.jsonl", "out": "~/run"}, places))
    assert ended.code == 0, ended.err
    assert (places["tmp"] / "run/summary.json").exists()
