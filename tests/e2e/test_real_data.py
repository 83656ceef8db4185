"""Public data sets as they are downloaded, read with no option at all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from burnish.config import Data
from burnish.prompts.datasets import Loaded, load_prompts
from burnish.prompts.encoding import ChatEncoder
from tests.tiny_models import bpe_tokenizer

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="needs the public data sets in ../shared/data")


def load(name: str, **changes: Any) -> Loaded:
    data = Data().model_dump(
        include={"split", "limit", "system", "suffix", "duplicates", "max_prompt_tokens", "overlong_prompts"}
    )
    encoder = ChatEncoder(bpe_tokenizer(), template=True, max_prompt_tokens=2048, truncate_left=False)
    columns = {"prompt_column": None, "answer_column": None, "id_column": None}
    return load_prompts(str(DATA / name), **{**data, **columns, "encode_whole": encoder.whole, **changes})


def test_gsm8k_keeps_whole_solutions_as_answers() -> None:
    loaded = load("gsm8k_test.jsonl")
    assert str(loaded.report) == (
        "read 1,319 rows of gsm8k_test.jsonl: 1,319 used\n  prompt from 'question', answer from 'answer'"
    )
    first = loaded.prompts[0]
    assert first.messages[0]["content"].startswith("Janet\u2019s ducks lay 16 eggs per day.")
    assert first.answer is not None
    assert first.answer.endswith("\n#### 18")
    assert all("\n#### " in (prompt.answer or "") for prompt in loaded.prompts)
    assert len({prompt.id for prompt in loaded.prompts}) == 1319


def test_gsm8k_reads_the_same_in_every_run() -> None:
    first, second = load("gsm8k_test.jsonl", limit=100), load("gsm8k_test.jsonl", limit=100)
    assert list(first.prompts) == list(second.prompts)
    assert first.report == second.report
    assert list(first.prompts) == list(load("gsm8k_test.jsonl").prompts[:100])


def test_aime_2024_is_thirty_problems_written_32_times() -> None:
    loaded = load("aime-2024.parquet")
    assert str(loaded.report).startswith("read 960 rows of aime-2024.parquet: 30 used, 930 dropped (duplicate)\n")
    prompt = next(prompt for prompt in loaded.prompts if prompt.answer == "540")
    (message,) = prompt.messages
    assert message["role"] == "user"
    assert "Find the largest possible real part" in message["content"]
    assert prompt.meta["data_source"] == "math_dapo"
    assert prompt.meta["extra_info"]["index"] == 2
    assert prompt.meta["reward_model"]["style"] == "rule-lighteval/MATH_v2"


def test_aime_2024_can_be_kept_as_it_is_for_an_average_over_the_file() -> None:
    loaded = load("aime-2024.parquet", duplicates="keep")
    assert loaded.report.used == len({prompt.id for prompt in loaded.prompts}) == 960
    assert set(Counter(prompt.id.partition("#")[0] for prompt in loaded.prompts).values()) == {32}


def test_aime_2024_has_no_unique_index_to_serve_as_id() -> None:
    by_index = load("aime-2024.parquet", id_column="extra_info.index")
    assert sorted(int(prompt.id) for prompt in by_index.prompts) == list(range(30))


def test_a_limit_below_the_longest_prompt_names_it() -> None:
    with pytest.raises(
        ValueError, match=r"over data.max_prompt_tokens=64: 1,317 \(the longest .* Type data.max_prompt"
    ):
        load("gsm8k_test.jsonl", max_prompt_tokens=64)
