"""Every row that is read is used, or dropped for a reason that is counted, or refused; and never read in part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.prompts.rows import DataError
from tests.unit.test_datasets import load, refusal

MADE: dict[str, Callable[[int], str]] = {
    "good": lambda i: json.dumps({"prompt": f"good {i}", "answer": "1"}),
    "overlong": lambda i: json.dumps({"prompt": f"{i}" + "x" * 200, "answer": "1"}),
    "duplicate": lambda i: json.dumps({"prompt": "good 0", "answer": "1"}),
    "blank": lambda i: "",
    "of another type": lambda i: '{"prompt": 5, "answer": "1"}',
    "malformed": lambda i: '{"prompt": "x", ',
    "without answer": lambda i: '{"prompt": "x"}',
}
"""Kind of line -> line i of that kind. A duplicate is one of line 0."""
FAULTS = ("of another type", "malformed", "without answer")


@pytest.mark.reliability(16)
def test_every_row_read_is_used_or_dropped_for_a_reason(tmp_path: Path, attempts: Callable[..., int]) -> None:
    file = tmp_path / "mixture.jsonl"

    @settings(max_examples=attempts(quick=100, long=1000), deadline=None, database=None)
    @given(
        kinds=st.lists(st.sampled_from(sorted(MADE)), max_size=30),
        duplicates=st.sampled_from(["drop", "keep"]),
        policy=st.sampled_from(["error", "drop", "truncate_left"]),
        limit=st.one_of(st.none(), st.integers(1, 20)),
    )
    def check(kinds: list[str], duplicates: str, policy: str, limit: int | None) -> None:
        file.write_text("".join(MADE[kind](i) + "\n" for i, kind in enumerate(["good", *kinds])), encoding="utf-8")
        _check_account(file, kinds, duplicates, policy, limit)

    check()


def _check_account(file: Path, kinds: list[str], duplicates: str, policy: str, limit: int | None) -> None:
    """What a reader without any cleverness would count must be what is reported."""
    read, used, refused, dropped = 0, 0, 0, {"duplicate": 0, "overlong": 0}
    overlong_refused = False
    for kind in ["good", *kinds]:
        if used == limit:
            break
        if kind == "blank":
            continue
        if kind == "malformed":
            refused += 1
            continue
        read += 1
        if kind in FAULTS:
            refused += 1
        elif kind == "duplicate" and duplicates == "drop":
            dropped["duplicate"] += 1
        elif kind == "overlong" and policy == "drop":
            dropped["overlong"] += 1
        else:
            used += 1
            overlong_refused |= kind == "overlong" and policy == "error"
    options: dict[str, Any] = {"max_prompt_tokens": 150, "overlong_prompts": policy, "duplicates": duplicates}
    if refused + overlong_refused:
        with pytest.raises(DataError) as caught:
            load(file, limit=limit, **options)
        assert caught.value.total == refused + overlong_refused
        return
    loaded = load(file, limit=limit, **options)
    report = loaded.report
    assert (report.read, report.used) == (read, used)
    assert {reason: report.dropped.get(reason, 0) for reason in dropped} == dropped
    assert report.read == report.used + sum(report.dropped.values())
    assert report.used == len(loaded.prompts) == len({prompt.id for prompt in loaded.prompts})


@pytest.mark.reliability(32)
def test_a_file_cut_at_any_byte_gives_whole_rows_or_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    rows = [{"prompt": f"{i}+{i}=", "answer": str(2 * i), "note": "caf\u00e9 [\U0001f600]"} for i in range(30)]
    content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    answers = [row["answer"] for row in rows]
    for cut in range(1, len(content) + 1):
        file.write_bytes(content[:cut])
        num_whole = content[:cut].count(b"\n")
        rest = content[:cut].rpartition(b"\n")[2]
        if not rest or rest.endswith(b"}"):
            loaded = load(file)
            assert [prompt.answer for prompt in loaded.prompts] == answers[: num_whole + bool(rest)]
            assert loaded.report.read == num_whole + bool(rest)
        else:
            message = refusal(file)
            assert message.startswith(f"train.jsonl:{num_whole + 1}: ")
            assert message.endswith("file may be truncated")
