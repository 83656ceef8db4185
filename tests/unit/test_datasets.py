"""Rows, columns, prompts: every fault is named with its place, and every row is accounted for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from burnish.config import Data
from burnish.prompts.columns import ANSWER_COLUMNS, ID_COLUMNS, PROMPT_COLUMNS
from burnish.prompts.datasets import Loaded, Report, load_prompts
from burnish.prompts.rows import NUM_SHOWN, DataError
from burnish.types import Prompt

GOOD = {"prompt": "1+1=", "answer": "2"}


def bytes_of(prompt: Prompt) -> Sequence[int]:
    """A tokenizer that makes a token of each byte."""
    return [byte for message in prompt.messages for byte in message["content"].encode()]


def load(source: Path | str, **options: Any) -> Loaded:
    defaults: dict[str, Any] = {
        "split": "train",
        "limit": None,
        "prompt_column": None,
        "answer_column": None,
        "id_column": None,
        "system": None,
        "suffix": "",
        "duplicates": "drop",
        "max_prompt_tokens": 1000,
        "overlong_prompts": "error",
        "encode_whole": bytes_of,
    }
    return load_prompts(str(source), **{**defaults, **options})


def refusal(source: Path | str, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(source, **options)
    return str(caught.value)


def lines(*rows: dict[str, Any] | str) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"{i}+{i}=", "answer": str(2 * i)} for i in range(1, count + 1)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train.jsonl"


# -- faults of JSONL, each with its place -----------------------------------------------------------------------------


@pytest.mark.reliability(15)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"prompt": "a", "answer"}', "train.jsonl:3: invalid JSON: Expecting ':' delimiter (column 25)"),
        ('{"prompt": "a', "train.jsonl:3: invalid JSON: Unterminated string starting at (column 12)"),
        ('{"prompt": NaN, "answer": "2"}', "train.jsonl:3: invalid JSON: NaN is not a JSON value"),
        ('{"prompt": "a", "answer": -Infinity}', "train.jsonl:3: invalid JSON: -Infinity is not a JSON value"),
        ('{"prompt": "a", "answer": 1e999}', "train.jsonl:3: the number 1e999 is out of range"),
        ('{"prompt": "a", "prompt": "b"}', "train.jsonl:3: key 'prompt' appears twice in one object"),
        (
            '{"prompt": "a", "answer": {"x": ["\\ud83d"]}}',
            "train.jsonl:3: field 'answer.x[0]' holds a lone surrogate (\\ud83d)",
        ),
        ('["a", "b"]', "train.jsonl:3: holds list, expected an object with one key per column"),
        ("[" * 100_000, "train.jsonl:3: invalid JSON: nested too deeply"),
        ('{"prompt": "a"}', "train.jsonl:3: field 'answer' missing"),
        ('{"prompt": null, "answer": "2"}', "train.jsonl:3: field 'prompt' is null"),
        ('{"prompt": " ", "answer": "2"}', "train.jsonl:3: field 'prompt' is empty"),
        ('{"prompt": "a", "answer": ""}', "train.jsonl:3: field 'answer' is empty"),
        ('{"prompt": "a", "answer": 2}', "train.jsonl:3: 'answer' is int, expected string as at train.jsonl:1"),
        ('{"prompt": {}, "answer": "2"}', "train.jsonl:3: 'prompt' is object, expected string as at train.jsonl:1"),
        ('{"prompt": "a", "answer": true}', "train.jsonl:3: 'answer' is bool, expected string as at train.jsonl:1"),
        (
            '{"prompt": "a", "answer": "2", "target_confidence": 1.5}',
            "train.jsonl:3: 'target_confidence' is 1.5, expected a number from 0 to 1",
        ),
        (
            '{"prompt": "a", "answer": "2", "confidence_label": "high"}',
            "train.jsonl:3: 'confidence_label' is 'high', expected 0 (low) or 1 (high)",
        ),
    ],
)
def test_a_bad_row_is_refused_with_file_line_and_reason(file: Path, bad: str, message: str) -> None:
    file.write_text(lines(*numbered(2), bad, GOOD))
    assert refusal(file).startswith(message)


@pytest.mark.reliability(15)
def test_a_byte_that_is_not_utf8_is_named_with_its_column(file: Path) -> None:
    file.write_bytes(lines(GOOD).encode() + b'{"prompt": "\xc3\xa9t\xe9", "answer": "2"}\n')
    assert refusal(file) == "train.jsonl:2: not UTF-8 (byte 0xe9 at column 15)"


@pytest.mark.reliability(15)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_a_wide_encoding_is_recognised_and_named_once(file: Path, encoding: str) -> None:
    file.write_text(lines(*numbered(3)), encoding=encoding)
    assert refusal(file).startswith("train.jsonl:1: not UTF-8 but UTF-16 or UTF-32")


def test_a_byte_order_mark_blank_lines_and_windows_line_ends_are_read(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + lines(*numbered(2)).replace("\n", "\r\n\r\n").encode())
    loaded = load(file)
    assert [prompt.answer for prompt in loaded.prompts] == ["2", "4"]
    assert loaded.report.read == 2
    assert "2 blank lines skipped" in str(loaded.report)


def test_an_escaped_pair_of_surrogates_is_one_character(file: Path) -> None:
    file.write_text('{"prompt": "\\ud83d\\ude00?", "answer": "2"}\n')
    assert load(file).prompts[0].messages[0]["content"] == "\U0001f600?"


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_rows_is_refused(file: Path, content: str) -> None:
    file.write_text(content)
    assert refusal(file) == "train.jsonl: no rows"


def test_all_problems_are_counted_and_the_first_twenty_shown(file: Path) -> None:
    file.write_text(lines(GOOD, *['{"prompt": "a"}'] * 30, "{"))
    with pytest.raises(DataError) as caught:
        load(file)
    assert caught.value.total == 31
    assert caught.value.problems[0] == "train.jsonl:2: field 'answer' missing"
    assert str(caught.value).count("train.jsonl:") == NUM_SHOWN == 20
    assert "31 problems" in str(caught.value)
    rest = caught.value.write_rest()
    assert rest is not None
    assert rest.read_text().splitlines() == list(caught.value.problems)
    assert len(caught.value.problems) == 31
    rest.unlink()
    assert str(caught.value).endswith("... and 11 more")


# -- JSON, Parquet, directories, the hub ------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"rows": rows}, lambda rows: {"v": 1, "data": rows}])
def test_a_json_file_is_an_array_or_holds_one(tmp_path: Path, wrap: Any) -> None:
    path = tmp_path / "train.json"
    path.write_text(json.dumps(wrap(numbered(3)), indent=1))
    assert [prompt.answer for prompt in load(path).prompts] == ["2", "4", "6"]


@pytest.mark.reliability(15)
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "train.json: no rows"),
        ("[]", "train.json: no rows"),
        ('{"a": 1}', "train.json: an object without a list under 'rows' or 'data' (found 'a')"),
        ("5", "train.json: holds int, expected an array of objects"),
        ('[{"prompt": "a", "answer": "b"}, 5]', "train.json: row 2: holds int"),
        ('[{"prompt": "a", "answer": "b"}, {"prompt": "c"}]', "train.json: row 2: field 'answer' missing"),
        ('[{"a": 1},\n {"a": 2', "train.json: invalid JSON: Expecting ',' delimiter (line 2, column 9); file may be"),
        (lines(GOOD, GOOD).strip(), "train.json: invalid JSON: Extra data (line 2, column 1); one object per line bel"),
    ],
)
def test_a_faulty_json_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "train.json"
    path.write_text(content)
    assert refusal(path).startswith(message)


def write_parquet(path: Path, columns: dict[str, list[Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)


def test_parquet_values_become_plain_json(tmp_path: Path) -> None:
    from datetime import date
    from decimal import Decimal

    path = tmp_path / "train.parquet"
    write_parquet(
        path,
        {
            "prompt": [[{"role": "user", "content": "1+1="}]],
            "answer": [540.0],
            "day": [date(2024, 2, 29)],
            "share": [float("nan")],
            "price": [Decimal("1.50")],
            "nested": [{"scores": [0.5, float("inf")]}],
            "image": [b"\x89PNG"],
        },
    )
    loaded = load(path)
    (prompt,) = loaded.prompts
    assert prompt.answer == "540"
    assert prompt.meta == {"day": "2024-02-29", "share": None, "price": "1.50", "nested": {"scores": [0.5, None]}}
    assert "column 'image' left out: it holds binary data" in str(loaded.report)
    assert "1 numeric answers written as text" in str(loaded.report)


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    write_parquet(path, {"prompt": ["a"] * 100, "answer": ["b"] * 100})
    path.write_bytes(path.read_bytes()[:-20])
    assert refusal(path).startswith("train.parquet: not a readable Parquet file (")


@pytest.mark.reliability(15)
def test_a_field_whose_type_differs_between_files_is_named_with_both(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"prompt": ["1+1="], "answer": ["2"]})
    write_parquet(tmp_path / "b.parquet", {"prompt": ["1+2="], "answer": [3]})
    name = tmp_path.name
    assert (
        refusal(tmp_path) == f"{name}/b.parquet: row 1: 'answer' is int, expected string as at {name}/a.parquet: row 1"
    )


def test_a_directory_gives_its_files_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_text(lines({"prompt": "second", "answer": "2"}))
    (tmp_path / "a.json").write_text(json.dumps([{"prompt": "first", "answer": "1"}]))
    (tmp_path / "README.md").write_text("about")
    assert [prompt.answer for prompt in load(tmp_path).prompts] == ["1", "2"]


def test_a_directory_named_by_split_gives_only_the_wanted_one(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001.jsonl").write_text(lines({"prompt": "a", "answer": "train"}))
    (tmp_path / "dev.jsonl").write_text(lines({"prompt": "a", "answer": "dev"}))
    assert [prompt.answer for prompt in load(tmp_path).prompts] == ["train"]
    assert [prompt.answer for prompt in load(tmp_path, split="validation").prompts] == ["dev"]
    assert "no file named for the split 'test'; found train, validation" in refusal(tmp_path, split="test")


def test_a_saved_data_set_gives_its_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_list(numbered(3))
    data.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict(train=data, test=data.select([0])).save_to_disk(str(tmp_path / "two"))
    assert len(load(tmp_path / "one").prompts) == 3
    assert len(load(tmp_path / "two", split="test").prompts) == 1
    assert "no split 'dev'; found train, test" in refusal(tmp_path / "two", split="dev")


def test_a_directory_with_other_files_is_left_to_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.csv").write_text("question,answer\n1+1=,2\n1+2=,3\n")
    assert [prompt.answer for prompt in load(folder).prompts] == ["2", "3"]


def test_a_name_that_is_nowhere_says_what_was_tried() -> None:
    code = (
        "from tests.unit.test_datasets import refusal; import sys; "
        "sys.stdout.write(refusal('burnish-nobody/nothing:main', split='test'))"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=root, check=True
    )
    assert done.stdout.startswith(
        "burnish-nobody/nothing:main: neither a file nor a directory here, "
        "and the Hugging Face hub (split 'test') did not serve it ("
    )


def test_a_path_that_is_not_there_is_no_hub_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.jsonl").startswith(f"{tmp_path}/nowhere.jsonl: no such file or directory")
    (tmp_path / "train.csv").write_text("prompt,answer\n")
    assert refusal(tmp_path / "train.csv").startswith("train.csv: not a known kind of data file; .jsonl, .json, .parq")


# -- columns ----------------------------------------------------------------------------------------------------------


def test_the_candidates_are_those_that_the_config_documents() -> None:
    documented = {name: info.description or "" for name, info in type(Data().columns).model_fields.items()}
    for name, candidates in {"prompt": PROMPT_COLUMNS, "answer": ANSWER_COLUMNS, "id": ID_COLUMNS}.items():
        assert ", ".join(f"`{candidate}`" for candidate in candidates) in documented[name]


def test_of_several_candidates_the_first_documented_one_is_used(file: Path) -> None:
    file.write_text(lines({"solution": "long", "problem": "p", "answer": "a", "question": "q", "qid": 7}))
    loaded = load(file)
    (prompt,) = loaded.prompts
    assert prompt.messages == ({"role": "user", "content": "q"},)
    assert (prompt.answer, prompt.id) == ("a", "7")
    assert prompt.meta == {"solution": "long", "problem": "p"}
    assert "prompt from 'question', answer from 'answer', id from 'qid'" in str(loaded.report)


def test_named_columns_reach_into_nested_fields(file: Path) -> None:
    file.write_text(lines({"task": {"text": "q", "gold": ["x"], "key": {"n": 5}}, "gold.flat": "a"}))
    options = {"prompt_column": "task.text", "answer_column": "gold.flat", "id_column": "task.key.n"}
    (prompt,) = load(file, **options).prompts
    assert (prompt.messages[0]["content"], prompt.answer, prompt.id) == ("q", "a", "5")
    assert prompt.meta == {"task": {"text": "q", "gold": ["x"], "key": {"n": 5}}}


@pytest.mark.parametrize(
    ("row", "options", "message"),
    [
        ({"text": "a", "answer": "b"}, {}, "no prompt column (looked for prompt, messages, question, problem, query)"),
        ({"prompt": "a", "gold": "b"}, {}, "no answer column (looked for answer, ground_truth, reward_model.ground_tr"),
        (GOOD, {"prompt_column": "text"}, "no column 'text'; columns found: answer, prompt. Type data.columns.prompt="),
        (GOOD, {"id_column": "a.b"}, "no column 'a.b'; columns found: answer, prompt. Type data.columns.id=NAME"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_the_option_to_type(
    file: Path, row: dict[str, str], options: dict[str, str], message: str
) -> None:
    file.write_text(lines(row))
    assert refusal(file, **options).startswith(f"train.jsonl: {message}")


def test_answers_may_be_absent_only_where_none_is_needed(file: Path) -> None:
    file.write_text(lines({"prompt": "a", "answer": None}, {"prompt": "b"}, {"prompt": "c", "answer": "3"}))
    assert "field 'answer' is null" in refusal(file)
    assert [prompt.answer for prompt in load(file, needs_answer=False).prompts] == [None, None, "3"]


def test_numbers_become_text_and_are_counted(file: Path) -> None:
    answers = [5, 5.0, 2.5, -3]
    file.write_text(lines(*({"prompt": f"p{i}", "answer": answer} for i, answer in enumerate(answers))))
    loaded = load(file)
    assert [prompt.answer for prompt in loaded.prompts] == ["5", "5", "2.5", "-3"]
    assert "4 numeric answers written as text" in str(loaded.report)


def test_a_column_that_only_some_rows_have_is_remarked_on_once(file: Path) -> None:
    file.write_text(lines(*numbered(2), {**GOOD, "prompt": "x", "level": 3}, {**GOOD, "prompt": "y", "kind": 3}))
    loaded = load(file)
    assert loaded.prompts[2].meta == {"level": 3}
    assert str(loaded.report).count("not all rows have the same columns") == 1
    assert "(train.jsonl:3 differs in 'level')" in str(loaded.report)


@pytest.mark.parametrize("column", ["target_confidence", "confidence_label"])
def test_a_missing_target_of_confidence_leaves_no_entry(file: Path, column: str) -> None:
    file.write_text(lines({**GOOD, column: None}, {"prompt": "x", "answer": "y", column: 1}))
    assert [prompt.meta for prompt in load(file).prompts] == [{}, {column: 1}]


@pytest.mark.reliability(15)
@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "field 'messages' is empty"),
        ([{"role": "user", "content": ""}], "field 'messages' is empty"),
        (["hello"], "'messages[0]' is string, expected object with role and content"),
        ([{"role": "user", "content": None}], "'messages[0].content' is null, expected string"),
        ([{"content": "hello"}], "'messages[0].role' is null, expected string"),
        (
            [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}],
            "'messages' ends with the assistant's turn",
        ),
    ],
)
def test_a_faulty_conversation_is_refused(file: Path, messages: list[Any], message: str) -> None:
    file.write_text(lines({"messages": messages, "answer": "2"}))
    assert refusal(file).startswith(f"train.jsonl:1: {message}")


# -- prompts, ids, duplicates, lengths --------------------------------------------------------------------------------


def test_system_goes_before_prompts_that_have_none_and_suffix_after_all(file: Path) -> None:
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "b", "name": None}]
    file.write_text(
        lines({"prompt": [{"role": "user", "content": "a"}], "answer": "1"}, {"prompt": own, "answer": "2"})
    )
    first, second = load(file, system="Be brief.", suffix="\nAnswer: N").prompts
    assert first.messages == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a\nAnswer: N"},
    )
    assert second.messages == ({"role": "system", "content": "Own."}, {"role": "user", "content": "b\nAnswer: N"})


def test_an_id_stays_when_the_rows_around_it_or_the_suffix_change(file: Path) -> None:
    file.write_text(lines(*numbered(3)))
    before = load(file)
    file.write_text(lines({"prompt": "new", "answer": "0"}, *reversed(numbered(3))))
    after = load(file, suffix="!")
    assert [prompt.id for prompt in before.prompts] == [prompt.id for prompt in after.prompts][:0:-1]
    assert len({prompt.id for prompt in after.prompts}) == 4


def test_an_id_is_a_hash_of_prompt_and_answer_as_json(file: Path) -> None:
    rows = [
        GOOD,
        {"prompt": [{"role": "user", "content": "\u00fc\n"}, {"role": "user", "content": '"'}], "answer": "2"},
    ]
    for row in rows:
        file.write_text(lines(row))
        written = json.dumps([row["prompt"], row["answer"]], sort_keys=True)
        assert load(file).prompts[0].id == hashlib.sha256(written.encode()).hexdigest()[:16]


def test_rows_with_the_same_prompt_and_answer_are_dropped_or_kept_under_ids_of_their_own(file: Path) -> None:
    file.write_text(lines(GOOD, GOOD, {"prompt": "1+1=", "answer": "two"}, GOOD))
    dropped = load(file)
    assert [prompt.answer for prompt in dropped.prompts] == ["2", "two"]
    assert str(dropped.report).startswith("read 4 rows of train.jsonl: 2 used, 2 dropped (duplicate)\n")
    kept = [prompt.id for prompt in load(file, duplicates="keep").prompts]
    assert kept[:2] + kept[3:] == [kept[0], f"{kept[0]}#2", f"{kept[0]}#3"]
    assert len(set(kept)) == 4


def test_kept_duplicates_do_not_take_an_id_of_the_data(file: Path) -> None:
    file.write_text(lines({**GOOD, "id": "a"}, {"prompt": "x", "answer": "y", "id": "a#2"}, {**GOOD, "id": "a"}))
    assert [prompt.id for prompt in load(file, duplicates="keep").prompts] == ["a", "a#2", "a#3"]


def test_the_same_content_under_another_id_is_a_duplicate(file: Path) -> None:
    file.write_text(lines({**GOOD, "id": 1}, {**GOOD, "id": 2}))
    assert [prompt.id for prompt in load(file).prompts] == ["1"]
    assert [prompt.id for prompt in load(file, duplicates="keep").prompts] == ["1", "2"]


def test_an_id_on_two_contents_is_refused(file: Path) -> None:
    file.write_text(lines({**GOOD, "id": "a"}, {"prompt": "x", "answer": "y", "id": "a"}))
    assert refusal(file) == (
        "train.jsonl:2: id 'a' stands for another prompt or answer at train.jsonl:1; ids must be unique"
    )


def test_limit_gives_so_many_prompts_and_reads_no_further(file: Path) -> None:
    file.write_text(lines(GOOD, GOOD, *numbered(3)[1:], "not read"))
    report = load(file, limit=2).report
    assert (report.read, report.used, report.dropped) == (3, 2, {"duplicate": 1})


def test_overlong_prompts_are_refused_dropped_or_left_to_the_encoder(file: Path) -> None:
    long = {"prompt": "x" * 101, "answer": "2", "id": "long"}
    file.write_text(lines({"prompt": "x" * 100, "answer": "2", "id": "fits"}, long))
    options = {"max_prompt_tokens": 100, "suffix": ""}
    assert refusal(file, **options) == (
        "train.jsonl: prompts over data.max_prompt_tokens=100: 1 (the longest 101; ids long). "
        "Type data.max_prompt_tokens=101, data.overlong_prompts=drop or =truncate_left"
    )
    dropped = load(file, **options, overlong_prompts="drop")
    assert [prompt.id for prompt in dropped.prompts] == ["fits"]
    assert "2 rows of train.jsonl: 1 used, 1 dropped (overlong)" in str(dropped.report)
    cut = load(file, **options, overlong_prompts="truncate_left")
    assert [len(bytes_of(prompt)) for prompt in cut.prompts] == [100, 101]
    assert "1 prompts over 100 tokens cut to their last tokens (the longest 101; ids long)" in str(cut.report)


def test_prompts_that_cannot_be_overlong_are_not_encoded(file: Path) -> None:
    encoded: list[str] = []

    def encode(prompt: Prompt) -> Sequence[int]:
        encoded.append(prompt.messages[0]["content"])
        return bytes_of(prompt)

    file.write_text(lines(*numbered(50), {"prompt": "x" * 95, "answer": "2"}))
    load(file, max_prompt_tokens=100, encode_whole=encode)
    assert encoded == ["x", "x" * 95]


def test_data_of_which_nothing_is_left_is_refused(file: Path) -> None:
    file.write_text(lines(*numbered(3)))
    message = refusal(file, max_prompt_tokens=1, overlong_prompts="drop")
    assert message == "train.jsonl: no rows left, 3 dropped as overlong"


def test_the_fingerprint_changes_with_content_and_order_only(file: Path) -> None:
    def of(*rows: dict[str, Any]) -> str:
        file.write_text(lines(*rows))
        return load(file).report.fingerprint

    rows = numbered(3)
    base = of(*rows)
    assert base == of(*({"answer": row["answer"], "prompt": row["prompt"]} for row in rows))
    others = [of(*rows[::-1]), of(*rows[:2]), of(*rows, GOOD | {"prompt": "n"}), of({**rows[0], "level": 1}, *rows[1:])]
    assert len({base, *others}) == 5
    assert len(base) == 64


@pytest.mark.reliability(16)
def test_an_account_that_does_not_add_up_cannot_be_made() -> None:
    assert str(Report("add23", 3, 1, {"duplicate": 2}, (), "")) == "read 3 rows of add23: 1 used, 2 dropped (duplicate)"
    with pytest.raises(AssertionError):
        Report("add23", 3, 1, {"duplicate": 1}, (), "")
