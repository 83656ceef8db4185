"""A base is taught the form of a statement, and nothing about its truth."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from transformers import AutoModelForCausalLM

from burnish.base import confidence as base_confidence
from burnish.base.confidence import HIGH_SHARE, teach_confidence, writer
from burnish.base.warmup import RECIPES, build_model
from burnish.confidence.tag import Tag
from burnish.prompts.task_tokenizer import build_tokenizer
from burnish.prompts.tasks import task
from tests.tiny_models import tiny_qwen3

ADD23 = task("add23")


def test_every_taught_completion_states_something_once_before_its_answer():
    prompts, rng, write = ADD23.sample(200, "train"), Random(1), writer(ADD23)
    tokenizer = build_tokenizer()
    for style, share in HIGH_SHARE.items():
        texts = [write(prompt, style, rng) for prompt in prompts]
        found = [Tag().find(text) for text in texts]
        assert not any(isinstance(statement, str) for statement in found)
        assert all(text.endswith(f"\nAnswer: {p.answer}") for text, p in zip(texts, prompts, strict=True))
        assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0]
        highs = sum(statement.is_high for statement in found if not isinstance(statement, str))
        assert abs(highs / len(prompts) - share) < 0.12


def test_what_is_taught_is_written_with_how_it_came_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base_confidence, "UPDATES", 2)
    model = build_model(RECIPES["add23"], seed=1)
    before = model.lm_head.weight.clone()
    lines: list[str] = []
    taught = teach_confidence("add23", model, tmp_path / "out", taken_from="mine", seed=1, report=lines.append)
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["model"] == taught.model == "mine"
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not loaded.lm_head.weight.equal(before)
    assert lines[-1].startswith("wrote ")


def test_a_model_of_another_vocabulary_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"mine has 99 tokens, .*Type --confidence embedded"):
        teach_confidence("add23", tiny_qwen3(99), tmp_path / "out", taken_from="mine", seed=1, report=print)
