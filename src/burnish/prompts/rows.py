"""Rows of data, wherever they lie, and everything wrong with them at once.

| source | read as |
|---|---|
| `x.jsonl` | one JSON object per line, by a strict reader: faults are named with line and column |
| `x.json` | an array of objects, or an object with such an array under `rows` or `data` |
| `x.parquet` | row by row, without holding the file in memory |
| a directory | `datasets.save_to_disk` output; else the files above in it; else what `datasets.load_dataset` finds |
| `owner/name` | a data set on the Hugging Face hub; `owner/name:config` picks a configuration |

A directory whose files are named for splits (`train-00000.parquet`, `test.jsonl`) gives those of the wanted split.

Nothing raises at the first bad row: readers give a `Problem` in its place, which names file, line or row, and field.
`Reading` collects problems, and oddities worth a remark; `Reading.raise_problems` raises them all as one `DataError`.
To add a format: write a generator of rows and problems and name it in `_READERS`.
"""

from __future__ import annotations

import codecs
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

NUM_SHOWN = 20
"""Problems that the message of one `DataError` spells out."""
NUM_KEPT = 100_000
"""Problems that are kept for the file that lists them all."""


class DataError(ValueError):
    """The data cannot be used. The message lists the first problems and counts the rest, which `problems` has."""

    def __init__(self, problems: Sequence[str], *, total: int) -> None:
        self.problems = tuple(problems)
        self.total = total
        lines = self.problems[:NUM_SHOWN] if total == 1 else (f"{total:,} problems in the data:", *problems[:NUM_SHOWN])
        if total > NUM_SHOWN:
            lines = (*lines, f"... and {total - NUM_SHOWN:,} more")
        super().__init__("\n  ".join(lines))

    def write_rest(self) -> Path | None:
        """Write every problem, a line each, to a new temporary file and return its path; None if all are shown."""
        if self.total <= NUM_SHOWN:
            return None
        descriptor, path = tempfile.mkstemp(prefix="burnish-problems-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(f"{problem}\n" for problem in self.problems)
            if self.total > len(self.problems):
                file.write(f"... and {self.total - len(self.problems):,} more\n")
        return Path(path)


def in_full(error: Exception) -> str:
    """What an error says. Problems of a `DataError` that its message leaves out are in a file, which is named."""
    text = str(error)
    if isinstance(error, DataError) and (rest := error.write_rest()):
        text += f"\nall {error.total:,} are in {rest}"
    return text


@dataclass(frozen=True, slots=True)
class Problem:
    place: str
    """`train.jsonl:21`, `train.parquet: row 21`, or a source as a whole."""
    message: str


@dataclass(slots=True)
class Reading:
    """What comes to light while data is read."""

    problems: list[str] = field(default_factory=list)
    """The first `NUM_KEPT`."""
    num_problems: int = 0
    num_rows: int = 0
    """Rows taken apart."""
    counts: Counter[str] = field(default_factory=Counter)
    """Oddities that are no faults, by kind."""
    remarks: dict[str, None] = field(default_factory=dict)
    """Oddities said once, in order of discovery."""

    def problem(self, place: str, message: str) -> None:
        self.num_problems += 1
        if len(self.problems) < NUM_KEPT:
            self.problems.append(f"{place}: {message}")

    def remark(self, text: str) -> None:
        self.remarks[text] = None

    def raise_problems(self) -> None:
        """Raise `DataError` if there was any problem."""
        if self.num_problems:
            raise DataError(self.problems, total=self.num_problems)


@dataclass(frozen=True, slots=True)
class Row:
    values: Mapping[str, Any]
    """Plain JSON values by column."""
    source: str
    """The file's name, or the data set's."""
    number: int
    """From 1: the line in a JSONL file, the row elsewhere."""
    is_line: bool

    @property
    def place(self) -> str:
        """`train.jsonl:21`, `train.parquet: row 21`."""
        return f"{self.source}:{self.number}" if self.is_line else f"{self.source}: row {self.number}"


Rows = Iterator[Row | Problem]


def read_rows(source: str, *, split: str, reading: Reading) -> Rows:
    """The rows of `source`, with a `Problem` for what cannot be read; oddities go to `reading`. `split` chooses within
    directories and hub data sets, and says nothing about a single file."""
    name, rows = _open(source, split, reading)
    is_empty = True
    for row in rows:
        is_empty = False
        yield row
    if is_empty:
        yield Problem(name, "no rows")


def source_name(source: str) -> str:
    """How messages call `source`: a path by its last part, a hub data set by its whole name."""
    path = Path(source).expanduser()
    return path.name if path.exists() else source


def _open(source: str, split: str, reading: Reading) -> tuple[str, Rows]:
    name, path = source_name(source), Path(source).expanduser()
    if path.is_dir():
        return name, _folder(path, split, reading)
    reader = _READERS.get(path.suffix.lower())
    if path.is_file():
        if reader is None:
            raise DataError([f"{name}: not a known kind of data file; {', '.join(_READERS)} are"], total=1)
        return name, reader(path, name, reading)
    if reader is not None or source.startswith((".", "/", "~")):
        raise DataError([f"{source}: no such file or directory (looked in {Path.cwd()})"], total=1)
    return name, _hub(source, split, reading)


# -- JSON, strictly ---------------------------------------------------------------------------------------------------


def _jsonl(path: Path, name: str, reading: Reading) -> Rows:
    with path.open("rb") as file:
        head = file.read(4)
        if _is_wide(head):
            yield Problem(f"{name}:1", "not UTF-8 but UTF-16 or UTF-32, judging by its first bytes; save it as UTF-8")
            return
        file.seek(len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0)
        is_first = True
        for number, line in enumerate(file, start=1):
            if line.isspace():
                reading.counts["blank lines skipped"] += 1
                continue
            if is_first and line.lstrip().startswith(b"["):
                yield Problem(
                    f"{name}:{number}",
                    "begins a JSON array, expected one object per line; an array belongs in a .json file",
                )
                return
            is_first = False
            try:
                value = _parse(line.rstrip(b"\r\n"))
            except ValueError as error:
                cut = "" if line.endswith(b"\n") else "; file may be truncated"
                yield Problem(f"{name}:{number}", f"{error}{cut}")
                continue
            yield _row(value, name, number, is_line=True)


def _json(path: Path, name: str, reading: Reading) -> Rows:
    content = path.read_bytes()
    if _is_wide(content[:4]):
        yield Problem(name, "not UTF-8 but UTF-16 or UTF-32, judging by its first bytes; save it as UTF-8")
        return
    if not content.strip():
        return
    try:
        value = _parse(content.removeprefix(codecs.BOM_UTF8).rstrip())
    except ValueError as error:
        is_whole = content.rstrip().endswith((b"]", b"}"))
        advice = "; one object per line belongs in a .jsonl file" if "Extra data" in str(error) else ""
        yield Problem(name, f"{error}{advice if is_whole else '; file may be truncated'}")
        return
    if isinstance(value, dict):
        listed = next((value[key] for key in ("rows", "data") if isinstance(value.get(key), list)), None)
        if listed is None:
            found = ", ".join(map(repr, value)) or "no keys"
            yield Problem(name, f"an object without a list under 'rows' or 'data' (found {found})")
            return
        value = listed
    if not isinstance(value, list):
        yield Problem(name, f"holds {kind_of(value)}, expected an array of objects")
        return
    for number, item in enumerate(value, start=1):
        yield _row(item, name, number, is_line=False)


def _is_wide(head: bytes) -> bool:
    return head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head


def _row(value: Any, name: str, number: int, *, is_line: bool) -> Row | Problem:
    if isinstance(value, dict):
        return Row(value, name, number, is_line)
    place = Row({}, name, number, is_line).place
    return Problem(place, f"holds {kind_of(value)}, expected an object with one key per column")


def kind_of(value: Any) -> str:
    """The type of a JSON value, as a person calls it."""
    return _KINDS[type(value)]


_KINDS = {str: "string", bool: "bool", int: "int", float: "float", list: "list", dict: "object", type(None): "null"}


def _parse(content: bytes) -> Any:
    """Parse strictly. Raises ValueError saying what is wrong and where."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8").rpartition("\n")[2]
        byte = content[error.start]
        raise ValueError(f"not UTF-8 (byte 0x{byte:02x} at column {len(before) + 1})") from error
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        raise ValueError(f"invalid JSON: {error.msg} ({line}column {error.colno})") from error
    except RecursionError as error:
        raise ValueError("invalid JSON: nested too deeply") from error
    if _SURROGATE.search(text):
        _refuse_lone_surrogates(value, "")
    return value


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def _refuse_lone_surrogates(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_lone_surrogates(key, f"{path}.{key}")
            _refuse_lone_surrogates(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            _refuse_lone_surrogates(inner, f"{path}[{i}]")
    elif isinstance(value, str):
        lone = next((c for c in value if "\ud800" <= c <= "\udfff"), None)
        if lone is not None:
            where = ascii(path.removeprefix("."))
            raise ValueError(f"field {where} holds a lone surrogate (\\u{ord(lone):04x}), which is half a character")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"key {key!a} appears twice in one object")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"invalid JSON: {name} is not a JSON value; write a number or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits} is out of range")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_float=_finite)


# -- tables -----------------------------------------------------------------------------------------------------------


def _parquet(path: Path, name: str, reading: Reading) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from _table_rows(file.iter_batches(batch_size=1024), name, reading)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        yield Problem(name, f"not a readable Parquet file ({error}); file may be truncated")


def _table_rows(tables: Iterable[pa.RecordBatch | pa.Table], name: str, reading: Reading) -> Rows:
    """Rows of Arrow tables as plain JSON values. Binary columns are left out, and a remark says so."""
    number = 0
    for table in tables:
        binary = [column.name for column in table.schema if _any_type(column.type, _is_binary)]
        for column in binary:
            reading.remark(f"column {column!r} left out: it holds binary data")
        table = table.drop_columns(binary) if binary else table
        unplain = [column.name for column in table.schema if _any_type(column.type, _is_unplain)]
        for values in table.to_pylist():
            number += 1
            for column in unplain:
                values[column] = _plain(values[column])
            yield Row(values, name, number, is_line=False)


def _any_type(kind: pa.DataType, test: Callable[[pa.DataType], bool]) -> bool:
    """Whether `test` holds for a leaf of an Arrow type."""
    if kind.num_fields:
        return any(_any_type(kind.field(i).type, test) for i in range(kind.num_fields))
    return test(kind)


def _is_binary(kind: pa.DataType) -> bool:
    from pyarrow import types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)


def _is_unplain(kind: pa.DataType) -> bool:
    from pyarrow import types

    is_text = types.is_string(kind) or types.is_large_string(kind)
    return not (is_text or types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind))


def _plain(value: Any) -> Any:
    """As JSON has it: dates in ISO form, decimals as text, and null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value if isinstance(value, str | int | None) else str(value)


# -- directories and the hub ------------------------------------------------------------------------------------------

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def _folder(path: Path, split: str, reading: Reading) -> Rows:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        yield from _saved(path, split, reading)
        return
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _READERS and file.is_file())
    files = [file for file in files if not file.name.startswith((".", "dataset_info"))]
    if not files:
        yield from _hub(str(path), split, reading)
        return
    named = _by_split(files, split)
    if "" not in named and split not in named:
        yield Problem(path.name, f"no file named for the split {split!r}; {_choice(sorted(named))}")
        return
    for file in named.get(split, named.get("", [])):
        yield from _READERS[file.suffix.lower()](file, f"{path.name}/{file.name}", reading)


def _by_split(files: list[Path], split: str) -> dict[str, list[Path]]:
    """Split -> the files named for it; "" -> those named for none."""
    known = {**{word: key for key, words in _SPLITS.items() for word in words}, split: split}
    by_split: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^a-z0-9]+", file.stem.lower())
        found = next((known[word] for word in words if word in known), "")
        by_split.setdefault(found, []).append(file)
    return by_split


def _choice(splits: Sequence[str]) -> str:
    return f"found {', '.join(splits)}. Type data.split={splits[0]}"


def _saved(path: Path, split: str, reading: Reading) -> Rows:
    import datasets

    saved = datasets.load_from_disk(str(path))
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            yield Problem(path.name, f"no split {split!r}; {_choice([str(name) for name in saved])}")
            return
        saved = saved[split]
    yield from _table_rows(saved.with_format("arrow").iter(batch_size=1024), path.name, reading)


def _hub(source: str, split: str, reading: Reading) -> Rows:
    import datasets
    from datasets.exceptions import DatasetsError

    is_folder = Path(source).is_dir()
    name, _, config = (source, "", "") if is_folder else source.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        tried = (
            f"no {', '.join(_READERS)} file in it, and datasets.load_dataset cannot read it"
            if is_folder
            else f"neither a file nor a directory here, and the Hugging Face hub (split {split!r}) did not serve it"
        )
        yield Problem(source, f"{tried} ({type(error).__name__}: {error})")
        return
    yield from _table_rows(loaded.with_format("arrow").iter(batch_size=1024), source_name(name), reading)


_READERS: dict[str, Callable[[Path, str, Reading], Rows]] = {
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
