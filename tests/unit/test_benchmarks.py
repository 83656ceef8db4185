"""The parts of the benchmarks that decide what a figure means: built-in lengths, ratios, shares of the limit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks import models, peers
from benchmarks.faults import REWARDS, sha256
from benchmarks.measure import Stopwatch


def test_every_token_ends_a_completion_with_the_chance_that_is_built_in():
    model = models.build("tiny")
    with torch.no_grad():
        chance = model(torch.randint(2, 100, (16, 64))).logits.softmax(-1)[..., models.EOS]
    assert float(chance.mean()) == pytest.approx(models.END_CHANCE, rel=0.1)
    assert float(chance.std()) < 0.2 * models.END_CHANCE


def test_prompts_come_back_from_the_tokenizer_as_they_were():
    tokenizer = models.tokenizer(100)
    for ids in models.prompts(100, 8):
        assert 16 <= len(ids) <= 48
        assert tokenizer(models.as_text(ids))["input_ids"] == ids


def reported(tokens: int, seconds: float, peak: float) -> dict[str, Any]:
    """A process of two steps, each with half of the seconds in generation and half in the update."""
    parts = {"generate": seconds / 2, "update": seconds / 2, "step": seconds}
    return {"steps": [{"tokens": tokens, "wall": parts, "cpu": parts}] * 2, "peak_mb": peak}


LIMITS = {"decode_layers": 4e-4, "decode_head": 1e-4, "train_layers": 1e-3, "train_head": 5e-4}


def test_the_table_compares_within_a_turn_and_says_how_near_the_limit_is():
    turns = [
        {"limits": LIMITS, "burnish": reported(1000, 4.0, 200.0), "trl": reported(1000, 24.0, 500.0)},
        {"limits": LIMITS, "burnish": reported(1000, 8.0, 200.0), "trl": reported(1000, 80.0, 500.0)},
    ]
    lines = peers.table(turns, ["burnish", "trl"], prompt_tokens=500.0)
    ours, theirs, times = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:])
    # 1000 tokens in 2 and in 4 s of generation; their products alone take 0.5 s: 25 % and 12.5 %.
    assert ours[0] == "375 (19 %)"
    # 1500 tokens through the layers and 1000 through the head take 2 s, of 2 and of 4 s.
    assert ours[1] == "375 (75 %)"
    assert theirs[5] == "500"
    assert times[0] == "8.0 (6.0 to 10.0)"  # tokens per second, larger is faster
    assert times[2] == "8.0 (6.0 to 10.0)"  # seconds per token, smaller is faster
    assert times[5] == "2.5 (2.5 to 2.5)"


def test_what_only_generates_has_no_update():
    turns = [{"limits": LIMITS, "burnish": reported(1000, 4.0, 200.0), "vllm": reported(1000, 4.0, 900.0)}]
    vllm = peers.table(turns, ["burnish", "vllm"], prompt_tokens=0.0)[3].split("|")[2:-1]
    assert [cell.strip() for cell in vllm[1:4]] == ["-", "-", "-"]


def test_a_stopwatch_hands_over_each_lap_once():
    stopwatch = Stopwatch()
    with stopwatch("generate"):
        sum(range(100_000))
    first = stopwatch.lap(tokens=5, sequences=1)
    second = stopwatch.lap(tokens=5, sequences=1)
    assert 0 < first.wall["generate"] <= first.wall["step"]
    assert "generate" not in second.wall


def test_weights_are_told_apart_by_a_single_bit():
    weights = {"a": torch.tensor([0.0, 1.0]), "b": torch.zeros(2)}
    assert sha256(weights) == sha256(dict(reversed(weights.items())))
    assert sha256(weights) != sha256(weights | {"a": torch.tensor([-0.0, 1.0])})
    assert REWARDS["constant"](3, 0) == REWARDS["constant"](4, 1)
