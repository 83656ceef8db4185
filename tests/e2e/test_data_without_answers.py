"""A reward that compares with no answer trains on rows that have none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Command

ROWS = "".join(json.dumps({"prompt": f"{n}+{n}"}) + "\n" for n in range(100, 116))
SMALL = ("train.steps=1", "sampling.prompts_per_step=4", "eval.data=add23", "eval.prompts=4", "eval.every=0")


@pytest.mark.slow
def test_rows_need_answers_only_where_something_compares_with_them(burnish: Command, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_text(ROWS)
    words = ("train", "add23", f"data.train={tmp_path / 'rows.jsonl'}", f"out={tmp_path / 'run'}", *SMALL)
    free = ("reward.style=none", "reward.parts.length.target=20", "objective.dynamic_sampling=false")
    refused = burnish(*words)
    assert refused.code == 2
    assert "answer" in refused.err
    ended = burnish(*words, *free)
    assert ended.code == 0, ended.err
