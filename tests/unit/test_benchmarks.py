"""The parts of the benchmarks that decide what a figure means: built-in lengths, ratios, shares of the limit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks import gpu, measure, models, peers
from benchmarks.faults import REWARDS, sha256
from benchmarks.measure import Stopwatch
from benchmarks.rig import Rig, num_tokens


def test_every_token_ends_a_completion_with_the_chance_that_is_built_in():
    model = models.build("tiny")
    with torch.no_grad():
        chance = model(torch.randint(2, 100, (16, 64))).logits.softmax(-1)[..., models.EOS]
    assert float(chance.mean()) == pytest.approx(models.END_CHANCE, rel=0.1)
    assert float(chance.std()) < 0.2 * models.END_CHANCE


def test_the_chance_of_an_end_and_the_vocabulary_can_be_chosen():
    shape = models.Shape(2, 64, 128, 2, 1, 300, num_prompts=1, rows_per_piece=1)
    model = models.of_shape(shape, end_chance=0.25, positions=4096)
    with torch.no_grad():
        chance = model(torch.randint(2, 300, (16, 64))).logits.softmax(-1)[..., models.EOS]
    assert float(chance.mean()) == pytest.approx(0.25, rel=0.1)
    assert model.config.max_position_embeddings == 4096


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


BIG = 300_000_000
ASK = "from benchmarks.measure import peak_mb; print(peak_mb())"


@pytest.mark.skipif(not measure.STATUS.exists(), reason="needs /proc")
def test_the_peak_of_a_process_is_not_that_of_its_parent():
    parent = f"import subprocess, sys; b = b'x' * {BIG}; subprocess.run([sys.executable, '-c', {ASK!r}], check=True)"
    done = subprocess.run([sys.executable, "-c", parent], cwd=peers.ROOT, capture_output=True, text=True, check=True)
    assert 1 < float(done.stdout) < BIG / 1e6
    assert measure.peak_mb() >= measure.resident_mb() > 1


def test_the_rig_draws_in_order_and_updates_its_model():
    model = models.build("tiny")
    rig = Rig(model, max_new_tokens=8)
    prompts = models.prompts(100, 3)
    groups = rig.generate(prompts, group_size=2, seed=1)
    assert [group.rollouts[0].completion.prompt_ids.tolist() for group in groups] == prompts
    assert num_tokens(groups) == num_tokens(rig.generate(prompts, group_size=2, seed=1))
    before = sha256(dict(model.named_parameters()))
    rig.update(rig.prepare(groups))
    assert rig.learner.updates == 1
    assert sha256(dict(model.named_parameters())) != before


def test_shares_of_what_the_device_does_are_counted_from_weights_and_tokens():
    limits = gpu.Limits(gemm_tflops=1.0, read_gb_s=100.0, layers=10**9, head=10**8, prompt_tokens=50)
    turn = gpu.Turn(tokens=100, rollout=1.0, trained=100, update=2.0, passes=10)
    # 10 reads of 2.2 GB at 100 GB/s are 0.22 s of 1; 6 (1e9 x 150 + 1e8 x 100) products at 1e12 a second 0.96 s of 2.
    assert limits.of_bandwidth(turn) == pytest.approx(0.22)
    assert limits.of_matrix_rate(turn) == pytest.approx(0.48)
    assert gpu.step_rate(turn) == pytest.approx(1 / (0.01 + 0.02))
    lines = gpu.table({gpu.OURS: [turn], gpu.PLAIN: [gpu.Turn(100, 4.0, 100, 4.0)]}, limits)
    assert lines[2] == f"| {gpu.OURS} | 100 | 22 % | 50 | 48 % | 33 |"
    assert lines[4] == f"| times {gpu.PLAIN} | 4.0 (4.0 to 4.0) | | 2.0 (2.0 to 2.0) | | 2.7 (2.7 to 2.7) |"


@pytest.mark.slow
def test_the_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "bench" / "gpu.json"
    found = gpu.bench(torch.device("cpu"), "tiny", turns=1, num_prompts=2, max_new_tokens=32, out=out)
    assert {gpu.OURS, gpu.PLAIN} <= found.keys()
    assert f"| times {gpu.PLAIN} |" in capsys.readouterr().out
    assert json.loads(out.read_text())["turns"][gpu.OURS][0]["passes"] > 1


def test_weights_are_told_apart_by_a_single_bit():
    weights = {"a": torch.tensor([0.0, 1.0]), "b": torch.zeros(2)}
    assert sha256(weights) == sha256(dict(reversed(weights.items())))
    assert sha256(weights) != sha256(weights | {"a": torch.tensor([-0.0, 1.0])})
    assert REWARDS["constant"](3, 0) == REWARDS["constant"](4, 1)
