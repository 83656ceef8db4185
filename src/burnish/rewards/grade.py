"""Offline grading of a file of completions: `burnish grade FILE.jsonl`.

Each line of the file is a JSON object with `completion` (text) and `answer` (text or a number); other keys are ignored.
The whole file is read and checked first, so a malformed line stops the work before it starts, with its place in the
file. Then one verdict per row comes out, in order:

    {"status": "ok", "score": 1.0, "extracted": "72"}

`status` is `ok` (right), `wrong`, `unparsed`, `timeout` or `error`; `score` is 1, 0, or null after a fault, whose
`message` is then given too.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from burnish.rewards.extract import Style
from burnish.rewards.verify import Verifier
from burnish.types import FAULTS

STATUSES = ("ok", "wrong", "unparsed", "timeout", "error")


@dataclass(frozen=True, slots=True)
class Row:
    completion: str
    answer: str


class _NumberText(str):
    """A JSON number as it is written in the file."""


def read_rows(path: Path) -> list[Row]:
    """Read and check a whole file.

    Raises:
        ValueError: a line is not what it must be; says file, line, what was found and what is needed.
    """
    rows = [_row(line.strip(), f"{path}:{number}") for number, line in _lines(path) if line.strip()]
    if not rows:
        raise ValueError(f"{path} has no rows; each line must be an object with 'completion' and 'answer'")
    return rows


def grade_rows(rows: Iterable[Row], *, style: Style = "auto", timeout: float = 5.0) -> Iterator[dict[str, Any]]:
    """Verdicts of rows, in order, one at a time.

    Args:
        timeout: seconds that comparing one pair of answers may take.
    """
    with Verifier(style, right=1.0, wrong=0.0, seconds=timeout) as verify:
        for row in rows:
            score = verify(row.completion, row.answer)
            status = "error" if score.status == "oom" else score.status
            verdict = {"status": status, "score": score.raw, "extracted": score.answer}
            yield {**verdict, "message": score.message} if score.status in FAULTS else verdict


def grade_file(path: Path, *, style: Style, timeout: float, out: TextIO) -> dict[str, int]:
    """Write one JSON object per row of a file to `out`, in order; return how many rows got which status.

    Raises:
        ValueError: the file is malformed; nothing was written.
    """
    counts: Counter[str] = Counter()
    for verdict in grade_rows(read_rows(path), style=style, timeout=timeout):
        counts[verdict["status"]] += 1
        out.write(json.dumps(verdict) + "\n")
    return {status: counts[status] for status in STATUSES if counts[status]}


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Bytes, split at newlines only: a text may hold characters that count as line ends in Unicode, and a line that is
    # not UTF-8 can be named.
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: byte {error.start} is not UTF-8; the file must be") from None


def _row(line: str, place: str) -> Row:
    try:
        row = json.loads(line, parse_int=_NumberText, parse_float=_NumberText, parse_constant=_NumberText)
    except RecursionError:
        raise ValueError(
            f"{place}: not JSON that can be read (nested too deeply); each line must be one object"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{place}: not JSON ({error.msg} at column {error.colno}); each line must be one object"
        ) from None
    if not isinstance(row, dict):
        raise ValueError(f"{place}: found {_kind(row)}; each line must be an object with 'completion' and 'answer'")
    completion = _text(row, "completion", place)
    if isinstance(completion, _NumberText):
        raise ValueError(f"{place}: 'completion' is a number; it must be text")
    return Row(completion, str(_text(row, "answer", place)))


def _text(row: dict[str, Any], key: str, place: str) -> str:
    if key not in row:
        found = ", ".join(sorted(row)) or "no keys"
        raise ValueError(f"{place}: no '{key}' (found {found}); each line must have 'completion' and 'answer'")
    value = row[key]
    if not isinstance(value, str):
        raise ValueError(f"{place}: '{key}' is {_kind(value)}; it must be text")
    return value


def _kind(value: object) -> str:
    if isinstance(value, _NumberText):
        return "a number"
    kinds = {str: "text", dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return kinds[type(value)]
