"""Faulty data ends `burnish train` before its first step: exit code 2, a message with file, line or row, and field."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.e2e.conftest import TINY_STEPS, Command, Ended, write_rows
from tests.tiny_models import word_tokenizer

pytestmark = pytest.mark.slow

ModelDir = Callable[[str], Path]
Train = Callable[..., Ended]

NUM_GOOD = 20
GOOD: list[dict[str, Any]] = [{"prompt": f"{i}+1", "ground_truth": str(i + 1)} for i in range(NUM_GOOD)]


@pytest.fixture
def train(burnish: Command, model_dir: ModelDir, tmp_path: Path) -> Train:
    """Trains on `tmp_path/train.jsonl` into `tmp_path/run`, unless the words say otherwise."""

    def run(**settings: str) -> Ended:
        places = {"model.path": str(model_dir("llama")), "data.train": str(tmp_path / "train.jsonl")}
        words = {**places, "out": str(tmp_path / "run"), **settings}
        return burnish("train", *TINY_STEPS, *(f"{key}={value}" for key, value in words.items()))

    return run


def refused(ended: Ended, tmp_path: Path) -> str:
    """What a refused run said, once it is sure that it was refused and did nothing."""
    assert ended.code == 2, ended.err
    assert ended.err.startswith("burnish: ")
    assert "Traceback" not in ended.err
    assert "step 1/" not in ended.out
    run = tmp_path / "run"
    assert not run.exists() or not list(run.iterdir())
    return ended.err.removeprefix("burnish: ")


def text(*rows: Mapping[str, Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def after(row: bytes, *, rows: int) -> bytes:
    """The bytes of a file with `row` behind so many good ones, and more good ones behind it."""
    return text(*GOOD[:rows]) + row + b"\n" + text(*GOOD[rows:])


FILES: Mapping[str, tuple[bytes, str]] = {
    "malformed line": (
        after(b'{"prompt": "1+1", "ground_truth"}', rows=7),
        "train.jsonl:8: invalid JSON: Expecting ':' delimiter (column 33)\n",
    ),
    "last line cut": (
        text(*GOOD)[:-4],
        "train.jsonl:20: invalid JSON: Unterminated string starting at (column 36); file may be truncated\n",
    ),
    "a byte that is not UTF-8": (
        after(b'{"prompt": "caf\xe9", "ground_truth": "2"}', rows=2),
        "train.jsonl:3: not UTF-8 (byte 0xe9 at column 16)\n",
    ),
    "half a character": (
        after(b'{"prompt": "\\ud83d", "ground_truth": "2"}', rows=2),
        "train.jsonl:3: field 'prompt' holds a lone surrogate (\\ud83d), which is half a character\n",
    ),
    "UTF-16": (
        text(*GOOD).decode().encode("utf-16"),
        "train.jsonl:1: not UTF-8 but UTF-16 or UTF-32, judging by its first bytes; save it as UTF-8\n",
    ),
    "a key twice": (
        after(b'{"prompt": "1+1", "prompt": "1+2", "ground_truth": "2"}', rows=2),
        "train.jsonl:3: key 'prompt' appears twice in one object\n",
    ),
    "a field missing in one row": (
        after(b'{"prompt": "1+1"}', rows=20),
        "train.jsonl:21: field 'ground_truth' missing\n",
    ),
    "an int among strings": (
        after(b'{"prompt": "1+1", "ground_truth": 5}', rows=20),
        "train.jsonl:21: 'ground_truth' is int, expected string as at train.jsonl:1\n",
    ),
    "an object for a string": (
        after(b'{"prompt": {"text": "1+1"}, "ground_truth": "2"}', rows=20),
        "train.jsonl:21: 'prompt' is object, expected string as at train.jsonl:1\n",
    ),
    "NaN": (
        after(b'{"prompt": "1+1", "ground_truth": NaN}', rows=2),
        "train.jsonl:3: invalid JSON: NaN is not a JSON value; write a number or null\n",
    ),
    "an empty file": (b"", "train.jsonl: no rows\n"),
    "an array": (
        json.dumps(GOOD).encode(),
        "train.jsonl:1: begins a JSON array, expected one object per line; an array belongs in a .json file\n",
    ),
    "no prompt column": (
        text(*({"text": row["prompt"], "ground_truth": "2"} for row in GOOD)),
        "train.jsonl: no prompt column (looked for prompt, messages, question, problem, query); columns found: "
        "ground_truth, text. Type data.columns.prompt=NAME\n",
    ),
    "a prompt that is null": (
        after(b'{"prompt": null, "ground_truth": "2"}', rows=2),
        "train.jsonl:3: field 'prompt' is null\n",
    ),
    "an empty prompt": (
        after(b'{"prompt": "", "ground_truth": "2"}', rows=2),
        "train.jsonl:3: field 'prompt' is empty\n",
    ),
    "fewer rows than a step needs": (
        text(*GOOD[:1]),
        "each step needs 4 prompts, and {source} has 1. Type sampling.prompts_per_step=1 train.updates_per_step=1, "
        "or give more data\n",
    ),
    "an id on two rows": (
        text({**GOOD[0], "uid": "a"}, {**GOOD[1], "uid": "b"}, {**GOOD[2], "uid": "a"}),
        "train.jsonl:3: id 'a' stands for another prompt or answer at train.jsonl:1; ids must be unique\n",
    ),
    "a target of confidence out of range": (
        after(b'{"prompt": "1+1", "ground_truth": "2", "target_confidence": 1.5}', rows=2),
        "train.jsonl:3: 'target_confidence' is 1.5, expected a number from 0 to 1\n",
    ),
    "a label of confidence that is none": (
        after(b'{"prompt": "1+1", "ground_truth": "2", "confidence_label": 2}', rows=2),
        "train.jsonl:3: 'confidence_label' is 2, expected 0 (low) or 1 (high)\n",
    ),
}
"""What is wrong -> the bytes of train.jsonl, the whole message."""


@pytest.mark.reliability(15)
@pytest.mark.parametrize("case", FILES.values(), ids=FILES.keys())
def test_a_faulty_file_is_refused_with_file_line_and_field(
    train: Train, tmp_path: Path, case: tuple[bytes, str]
) -> None:
    content, message = case
    (tmp_path / "train.jsonl").write_bytes(content)
    assert refused(train(), tmp_path) == message.format(source=tmp_path / "train.jsonl")


@pytest.mark.reliability(15)
def test_a_prompt_longer_than_the_model_is_refused_dropped_or_cut_as_configured(train: Train, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [*GOOD, {"prompt": "1+" + "0" * 600, "ground_truth": "1"}])
    overlong = "train.jsonl: prompts over data.max_prompt_tokens=100: 1 (the longest 605; ids "
    message = refused(train(**{"data.max_prompt_tokens": "100"}), tmp_path)
    assert message.startswith(overlong)
    assert message.endswith("Type data.max_prompt_tokens=605, data.overlong_prompts=drop or =truncate_left\n")
    no_room = "1 prompts of train.jsonl leave no room for sampling.max_new_tokens=8: the model has 512 positions and"
    assert refused(train(), tmp_path).startswith(no_room)
    for policy, what in (("drop", "20 used, 1 dropped (overlong)"), ("truncate_left", "cut to their last tokens")):
        words = {"data.max_prompt_tokens": "100", "data.overlong_prompts": policy, "out": str(tmp_path / policy)}
        ended = train(**words)
        assert ended.code == 0, ended.err
        assert what in ended.out


@pytest.mark.reliability(15)
def test_a_batch_that_does_not_divide_is_refused_and_never_cut(train: Train, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", GOOD)
    message = refused(train(**{"train.updates_per_step": "3"}), tmp_path)
    assert message == (
        "sampling.prompts_per_step is 4 and does not divide into train.updates_per_step=3 equal mini-batches. "
        "Type train.updates_per_step=2\n"
    )


def model_without(token: str, model: Path, folder: Path) -> Path:
    tokenizer = word_tokenizer()
    setattr(tokenizer, token, None)
    if token == "eos_token":  # the end of a turn would be taken for the end of a sequence
        tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}="
    AutoModelForCausalLM.from_pretrained(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.reliability(15)
def test_a_tokenizer_without_end_or_template_is_refused_and_one_without_padding_trains(
    train: Train, model_dir: ModelDir, tmp_path: Path
) -> None:
    write_rows(tmp_path / "train.jsonl", GOOD)
    messages = {
        "eos_token": "the model and its tokenizer name no end-of-sequence token, so no completion could ever stop; "
        "set eos_token in tokenizer_config.json or eos_token_id in generation_config.json\n",
        "chat_template": "is a conversation, and the tokenizer has no chat template. "
        "Type data.template=false to encode its text as it is\n",
    }
    for token, message in messages.items():
        model = model_without(token, model_dir("llama"), tmp_path / token)
        assert refused(train(**{"model.path": str(model)}), tmp_path).endswith(message)
    ended = train(**{"model.path": str(model_without("pad_token", model_dir("llama"), tmp_path / "pad"))})
    assert ended.code == 0, ended.err


@pytest.mark.reliability(15)
def test_files_of_one_directory_that_differ_in_a_type_are_both_named(train: Train, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "data"
    folder.mkdir()
    pq.write_table(pa.table({"prompt": ["1+1", "1+2"], "answer": ["2", "3"]}), folder / "a.parquet")
    pq.write_table(pa.table({"prompt": ["1+3", "1+4"], "answer": [4, 5]}), folder / "b.parquet")
    message = refused(train(**{"data.train": str(folder)}), tmp_path)
    assert message.splitlines() == [
        "2 problems in the data:",
        "  data/b.parquet: row 1: 'answer' is int, expected string as at data/a.parquet: row 1",
        "  data/b.parquet: row 2: 'answer' is int, expected string as at data/a.parquet: row 1",
    ]


@pytest.mark.reliability(15)
def test_what_is_odd_and_no_fault_is_said_once_and_trains(train: Train, tmp_path: Path) -> None:
    rows = [*GOOD, {**GOOD[0]}, {**GOOD[0]}, {"prompt": "9+9", "ground_truth": "18", "level": 3}]
    write_rows(tmp_path / "train.jsonl", rows)
    ended = train()
    assert ended.code == 0, ended.err
    assert "read 23 rows of train.jsonl: 21 used, 2 dropped (duplicate)" in ended.out
    assert ended.out.count("not all rows have the same columns (train.jsonl:23 differs in 'level')") == 1


@pytest.mark.reliability(15)
def test_more_problems_than_fit_are_all_in_a_file(train: Train, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [GOOD[0], *({"prompt": f"{i}+2"} for i in range(30)), GOOD[1]])
    message = refused(train(), tmp_path).splitlines()
    assert message[0] == "30 problems in the data:"
    assert message[1:21] == [f"  train.jsonl:{line}: field 'ground_truth' missing" for line in range(2, 22)]
    assert message[21] == "  ... and 10 more"
    prefix = "all 30 are in "
    assert message[22].startswith(prefix)
    listed = Path(message[22].removeprefix(prefix))
    assert listed.read_text().splitlines() == [
        f"train.jsonl:{line}: field 'ground_truth' missing" for line in range(2, 32)
    ]
    listed.unlink()


@pytest.mark.reliability(15)
def test_faults_of_held_out_data_are_found_before_the_first_step_too(train: Train, tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", GOOD)
    shutil.copy(tmp_path / "train.jsonl", tmp_path / "test.jsonl")
    with (tmp_path / "test.jsonl").open("a") as file:
        file.write('{"prompt": "1+1"}\n')
    message = refused(train(**{"eval.data": str(tmp_path / "test.jsonl")}), tmp_path)
    assert message == "test.jsonl:21: field 'ground_truth' missing\n"
