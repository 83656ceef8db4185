"""A model and a data file of one's own, trained from the command line: what comes out loads, generates and differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.conftest import TINY_STEPS, Command, read_rows, write_rows

pytestmark = pytest.mark.slow  # runs of the product, seconds each

ModelDir = Callable[[str], Path]


def train(burnish: Command, model: Path, data: Path, out: Path, *words: str) -> Path:
    """The newest checkpoint of a finished run."""
    ended = burnish("train", *TINY_STEPS, f"model.path={model}", f"data.train={data}", f"out={out}", *words)
    assert ended.code == 0, ended.err
    assert f"model   {out / 'checkpoints'}" in ended.out
    return max((out / "checkpoints").iterdir())


def change(before: Path, after: Path) -> float:
    """The largest difference of any weight."""
    old, new = (load_file(folder / "model.safetensors") for folder in (before, after))
    assert old.keys() == new.keys()
    return max((old[name] - new[name]).abs().max().item() for name in old)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("llama", ["objective.name=dapo"]),
        ("qwen3", ["objective.name=dapo"]),
        ("llama", ["objective.name=grpo"]),
        ("qwen3", ["objective.name=dr_grpo"]),
        ("llama", ["objective.name=lite_ppo"]),
        ("llama", ["objective.kl.coef=0.01"]),
        ("qwen3", ["model.dtype=bfloat16"]),
        ("llama", ["model.gradient_checkpointing=true"]),
        ("llama", ["train.epochs=2"]),
        ("gpt2", ["objective.name=dapo"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_the_checkpoint_loads_elsewhere_generates_and_has_learnt_something(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, family: str, words: list[str]
) -> None:
    start = model_dir(family)
    checkpoint = train(burnish, start, sums, tmp_path / "run", *words)
    assert checkpoint.name == "step-000002"
    assert 1e-4 < change(start, checkpoint) < 0.1

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert model.dtype == torch.float32
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "1+2"}], add_generation_prompt=True)
    ids = torch.tensor([asked["input_ids"]])
    assert tokenizer.decode(ids[0]) == "<|user|>1+2<|end|><|assistant|>"
    drawn = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, do_sample=False, pad_token_id=0)
    text = tokenizer.decode(drawn[0, ids.shape[1] :])
    assert text.startswith("Answer:")
    assert text[-1].isdigit()


def test_a_kl_term_reports_its_distance_to_the_model_it_started_from(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    train(burnish, model_dir("llama"), sums, tmp_path / "run", "objective.kl.coef=0.01", "train.updates_per_step=1")
    first, second = (row for row in read_rows(tmp_path / "run/metrics.jsonl") if "kl/ref" in row)
    assert first["kl/ref"] == pytest.approx(0.0, abs=1e-9)
    assert first["loss/kl"] == pytest.approx(0.0, abs=1e-9)
    assert second["kl/ref"] > 1e-7
    assert second["loss/kl"] == pytest.approx(0.01 * second["kl/ref"], rel=1e-4)


def test_two_epochs_make_twice_the_updates_on_the_same_rollouts(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    found = {}
    for epochs in (1, 2):
        train(burnish, model_dir("llama"), sums, tmp_path / f"run{epochs}", f"train.epochs={epochs}")
        found[epochs] = read_rows(tmp_path / f"run{epochs}/metrics.jsonl")
    (one, _), (two, last) = found[1], found[2]
    assert (one["updates"], two["updates"], last["updates"]) == (2.0, 4.0, 8.0)
    assert two["tokens/trained"] == 2 * one["tokens/trained"] > 0
    assert {name: one[name] for name in one if name.startswith(("reward/", "length/", "groups/"))} == {
        name: two[name] for name in two if name.startswith(("reward/", "length/", "groups/"))
    }
    assert two["ratio/max"] != one["ratio/max"]


def test_recomputing_activations_changes_the_weights_by_rounding_only(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    start = model_dir("llama")
    plain, recomputed = (
        train(burnish, start, sums, tmp_path / name, f"model.gradient_checkpointing={name}")
        for name in ("false", "true")
    )
    assert change(plain, recomputed) < 0.05 * change(start, plain)


def test_the_same_command_twice_gives_the_same_weights_and_another_seed_others(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    first, second, other = (
        train(burnish, model_dir("qwen3"), sums, tmp_path / name, f"seed={seed}")
        for name, seed in (("first", 1), ("second", 1), ("other", 2))
    )
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert change(first, other) > 1e-4


def test_filtering_drops_groups_without_contrast_and_fills_the_batch_with_others(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    train(burnish, model_dir("llama"), sums, tmp_path / "run", "sampling.group_size=4", "train.steps=4")
    rows = read_rows(tmp_path / "run/metrics.jsonl")
    assert [row["groups/admitted"] for row in rows] == [4.0] * 4
    assert sum(row["groups/all_wrong"] for row in rows) > 0
    assert all(row["groups/generated"] >= 4 for row in rows)
    assert max(row["rounds"] for row in rows) > 1


@pytest.mark.slow
def test_a_run_on_own_data_learns_it(burnish: Command, model_dir: ModelDir, tmp_path: Path) -> None:
    """Held-out here are the training prompts themselves: this asks whether the loop optimises, not whether it
    generalises."""
    rows = [{"prompt": letter * 2, "answer": digit} for letter, digit in zip("abcdefgh", "12345678", strict=True)]
    data = write_rows(tmp_path / "letters.jsonl", rows)
    words = ["train.steps=60", "optimizer.learning_rate=3e-3", f"eval.data={data}", "eval.every=0", "eval.samples=8"]
    sizes = ["sampling.prompts_per_step=8", "sampling.group_size=16", "objective.dynamic_sampling=false"]
    train(burnish, model_dir("llama"), data, tmp_path / "run", *words, *sizes)
    metrics = read_rows(tmp_path / "run/metrics.jsonl")
    before, after = (row["eval/letters/avg@8"] for row in metrics if "eval/letters/avg@8" in row)
    assert before < 0.25
    assert after > 0.4
