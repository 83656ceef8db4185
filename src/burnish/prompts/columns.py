"""Which column of a row is the prompt, the answer, the id; and their values, checked.

`find_columns` decides once, from the columns of the first rows: a column the user names, or the first of the documented
candidates that is there. `Extractor` then takes every row apart and reports each fault with its place: a missing, null
or empty field, a type that changes from one row to the next, a message without role or text, a conversation that
already ends with the assistant's turn (training on it would show the model the answer).

Numbers are accepted as answers and ids and become text: `5` and `5.0` both give "5". Rows may not mix numbers and
strings. What is not prompt, answer or id goes to `Prompt.meta`; the parent of a nested field stays there whole, so
verl's `extra_info` and `reward_model` reach reward functions as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from burnish.prompts.rows import DataError, Reading, Row, kind_of

PROMPT_COLUMNS = ("prompt", "messages", "question", "problem", "query")
ANSWER_COLUMNS = ("answer", "ground_truth", "reward_model.ground_truth", "solution")
ID_COLUMNS = ("id", "qid", "uid")

Messages = tuple[Mapping[str, str], ...]

_MISSING = object()
_PROMPT_KINDS = {"string": "string", "list": "list of messages"}
_TEXT_KINDS = {"string": "string", "int": "number", "float": "number"}


@dataclass(frozen=True, slots=True)
class Found:
    """The columns in use, as paths into a row: dots reach into nested fields."""

    prompt: str
    answer: str | None
    id: str | None

    def __str__(self) -> str:
        roles = {"prompt": self.prompt, "answer": self.answer, "id": self.id}
        return ", ".join(f"{role} from {path!r}" for role, path in roles.items() if path is not None)


@dataclass(frozen=True, slots=True)
class Extracted:
    """One row taken apart."""

    prompt: str | Messages
    answer: str | None
    id: str | None
    meta: Mapping[str, Any]


def find_columns(
    rows: Iterable[Row], *, name: str, prompt: str | None, answer: str | None, id: str | None, needs_answer: bool
) -> Found:
    """Choose the columns of prompt, answer and id; None looks for the usual names, in their documented order.

    Raises `DataError`, listing the columns there are, for a named column that no row has, for data without a prompt,
    and without an answer if `needs_answer`.
    """
    rows = list(rows)
    columns = sorted({column for row in rows for column in row.values})

    def choose(role: str, named: str | None, usual: tuple[str, ...], *, needed: bool) -> str | None:
        for path in (named,) if named is not None else usual:
            if any(_look_up(row.values, path) is not _MISSING for row in rows):
                return path
        if named is None and not needed:
            return None
        wanted = f"no column {named!r}" if named is not None else f"no {role} column (looked for {', '.join(usual)})"
        message = f"{name}: {wanted}; columns found: {', '.join(columns)}. Type data.columns.{role}=NAME"
        raise DataError([message], total=1)

    found = choose("prompt", prompt, PROMPT_COLUMNS, needed=True)
    assert found is not None
    return Found(
        prompt=found,
        answer=choose("answer", answer, ANSWER_COLUMNS, needed=needs_answer),
        id=choose("id", id, ID_COLUMNS, needed=False),
    )


def _look_up(values: Mapping[str, Any], path: str) -> Any:
    """The value at `path`: a column of just that name, or nested fields; `_MISSING` if there is none."""
    if path in values:
        return values[path]
    head, dot, rest = path.partition(".")
    inner = values.get(head)
    return _look_up(inner, rest) if dot and isinstance(inner, dict) else _MISSING


@dataclass(slots=True)
class Extractor:
    """Takes rows apart. Remembers the types it has seen, since they may not change from row to row."""

    found: Found
    reading: Reading
    needs_answer: bool
    """Whether a row without an answer is a fault."""
    columns: set[str] = field(default_factory=set)
    """Of the first row."""
    seen: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Path -> (kind, place) of the first value."""
    is_ragged: bool = False
    """Whether a row with other columns than the first has been remarked on."""

    def extract(self, row: Row) -> Extracted | None:
        """None when the row has a fault, which is then reported."""
        self.reading.num_rows += 1
        self._remark_ragged(row)
        found, before = self.found, self.reading.num_problems
        prompt = self._prompt(row)
        answer = self._text(row, found.answer, counted="numeric answers written as text", needed=self.needs_answer)
        id = self._text(row, found.id, counted="numeric ids written as text", needed=True)
        meta = {key: value for key, value in row.values.items() if key not in (found.prompt, found.answer, found.id)}
        self._check_target(row, meta)
        if self.reading.num_problems > before or prompt is None:
            return None
        return Extracted(prompt, answer, id, meta)

    def _remark_ragged(self, row: Row) -> None:
        self.columns = self.columns or set(row.values)
        if not self.is_ragged and row.values.keys() != self.columns:
            self.is_ragged = True
            odd = ", ".join(map(repr, sorted(row.values.keys() ^ self.columns)))
            self.reading.remark(f"not all rows have the same columns ({row.place} differs in {odd})")

    def _prompt(self, row: Row) -> str | Messages | None:
        path = self.found.prompt
        value = self._value(row, path, _PROMPT_KINDS)
        if isinstance(value, list):
            return self._messages(row, path, value)
        if value is not None and not value.strip():
            self.reading.problem(row.place, f"field {path!r} is empty")
            return None
        return value

    def _text(self, row: Row, path: str | None, *, counted: str, needed: bool) -> str | None:
        if path is None or (not needed and _look_up(row.values, path) in (None, _MISSING)):
            return None
        value = self._value(row, path, _TEXT_KINDS)
        if isinstance(value, int | float):
            self.reading.counts[counted] += 1
            return str(int(value)) if value == int(value) else repr(value)
        if value is not None and not value.strip():
            self.reading.problem(row.place, f"field {path!r} is empty")
        return value

    def _value(self, row: Row, path: str, kinds: Mapping[str, str]) -> Any:
        """The value at `path` if it is there, of an allowed kind, and of the same kind as in the rows before."""
        value = _look_up(row.values, path)
        if value is _MISSING:
            self.reading.problem(row.place, f"field {path!r} missing")
            return None
        if value is None:
            self.reading.problem(row.place, f"field {path!r} is null")
            return None
        kind = kinds.get(kind_of(value))
        expected, place = self.seen.get(path, (None, ""))
        if kind is None or (place and kind != expected):
            wanted = f"{expected} as at {place}" if place else " or ".join(dict.fromkeys(kinds.values()))
            self.reading.problem(row.place, f"{path!r} is {kind_of(value)}, expected {wanted}")
            return None
        if not place:
            self.seen[path] = (kind, row.place)
        return value

    def _messages(self, row: Row, path: str, listed: list[Any]) -> Messages | None:
        messages = [self._message(row, f"{path}[{i}]", message) for i, message in enumerate(listed)]
        kept = tuple(message for message in messages if message is not None)
        if len(kept) != len(listed):
            return None
        if not any(message["content"].strip() for message in kept):
            self.reading.problem(row.place, f"field {path!r} is empty")
            return None
        if kept[-1]["role"] == "assistant":
            self.reading.problem(
                row.place, f"{path!r} ends with the assistant's turn; a prompt must end with what is to be answered"
            )
            return None
        return kept

    def _message(self, row: Row, path: str, message: Any) -> Mapping[str, str] | None:
        if not isinstance(message, dict):
            self.reading.problem(row.place, f"'{path}' is {kind_of(message)}, expected object with role and content")
            return None
        for key in ("role", "content"):
            value = message.get(key)
            if not isinstance(value, str):
                self.reading.problem(row.place, f"'{path}.{key}' is {kind_of(value)}, expected string")
                return None
        for key, value in message.items():
            if value is not None and key not in ("role", "content"):
                self.reading.remark(f"message field {key!r} left out")
        return {"role": message["role"], "content": message["content"]}

    def _check_target(self, row: Row, meta: dict[str, Any]) -> None:
        """What a completion should state is a number where there is one, and no entry otherwise."""
        if meta.get("target_confidence", 0.0) is None:
            del meta["target_confidence"]
        if meta.get("confidence_label", 0) is None:
            del meta["confidence_label"]
        target, label = meta.get("target_confidence", 0.0), meta.get("confidence_label", 0)
        if kind_of(target) not in ("int", "float") or not 0.0 <= target <= 1.0:
            self.reading.problem(row.place, f"'target_confidence' is {target!r}, expected a number from 0 to 1")
        if kind_of(label) not in ("int", "float", "bool") or label not in (0, 1):
            self.reading.problem(row.place, f"'confidence_label' is {label!r}, expected 0 (low) or 1 (high)")
