"""The recipe, run in full on a seed that nothing was tuned on."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from burnish.base.warmup import RECIPES, build_base, measure
from burnish.prompts.tasks import task


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_base_built_from_scratch_has_the_skill_in_every_bucket_and_room_to_learn(tmp_path: Path):
    lines: list[str] = []
    base = build_base("add23", tmp_path / "base", seed=31, report=lines.append)
    assert base.attempts[-1].reached, "\n".join(lines)
    assert base.attempts[-1].lowest_bucket >= RECIPES["add23"].target

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    found = measure(model, task("add23"), task("add23").sample(400, "heldout"), seed=1)
    assert 0.2 <= found.sampled <= 0.55
    assert min(found.sampled_by_bucket.values()) >= 0.15
    assert found.sampled_with_steps >= 0.45
    assert 0.2 <= found.direct_share <= 0.7
