"""From a source of rows to prompts, with an account of every row.

    loaded = load_prompts("train.jsonl", split="train", ...)
    loaded.prompts      sequence of Prompt
    loaded.report       prints as `read 1,319 rows of gsm8k_test.jsonl: 1,319 used (prompt from 'question', ...)`

Every row is read, checked and accounted for before any work starts: rows read = rows used + rows dropped, by reason.
All faults are reported in one `DataError`.

A row's id is its id column's value, else a hash of its prompt and answer (as they stand in the data: `system` and
`suffix` do not change it). A row is a duplicate when its prompt and answer are those of an earlier row, whatever its
id: popular parquet files repeat every prompt a hundred times under running numbers.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Literal

from burnish.prompts.columns import Extracted, Extractor, Messages, find_columns
from burnish.prompts.packed import PackedPrompts, as_list, quoted
from burnish.prompts.rows import Problem, Reading, Row, read_rows, source_name
from burnish.types import Prompt

NUM_ROWS_LOOKED_AT = 1000
"""Rows whose columns are looked at to find prompt, answer and id."""
NUM_IDS_SHOWN = 5
MARGIN_TOKENS = 16
"""Tokens by which a template may cost more around one content than around another."""


@dataclass(frozen=True, slots=True)
class Report:
    """The account of one source: `read == used + sum(dropped.values())`."""

    source: str
    read: int
    used: int
    dropped: Mapping[str, int]
    """Reason (`duplicate`, `overlong`) -> rows; only reasons that occurred."""
    remarks: tuple[str, ...]
    """Which columns were used, what was converted, skipped or truncated."""
    fingerprint: str
    """sha256 of the prompts in use, in order: ids, messages, answers and all other columns."""

    def __post_init__(self) -> None:
        assert self.read == self.used + sum(self.dropped.values())

    def __str__(self) -> str:
        dropped = "".join(f", {count:,} dropped ({reason})" for reason, count in self.dropped.items())
        first = f"read {self.read:,} rows of {self.source}: {self.used:,} used{dropped}"
        return "\n  ".join([first, "; ".join(self.remarks)] if self.remarks else [first])


@dataclass(frozen=True, slots=True)
class Loaded:
    prompts: Sequence[Prompt]
    report: Report


def load_prompts(
    source: str,
    *,
    split: str,
    limit: int | None,
    prompt_column: str | None,
    answer_column: str | None,
    id_column: str | None,
    system: str | None,
    suffix: str,
    duplicates: Literal["drop", "keep"],
    max_prompt_tokens: int,
    overlong_prompts: Literal["error", "drop", "truncate_left"],
    encode_whole: Callable[[Prompt], Sequence[int]],
    needs_answer: bool = True,
) -> Loaded:
    """Read `source` (see `burnish.prompts.rows`) into prompts. The keywords are those of `config.Data`.

    Reading stops once `limit` rows are in use, whatever was dropped before. `encode_whole` gives a prompt's token ids
    without any limit (`ChatEncoder.whole`); prompts that cannot be overlong by their bytes are not encoded. Under
    `truncate_left` the prompts stay whole here, are counted, and the encoder cuts them.

    Raises `DataError` naming every fault with file, line or row, and field.
    """
    reading, name = Reading(), source_name(source)
    rest = read_rows(source, split=split, reading=reading)
    first = list(islice(rest, NUM_ROWS_LOOKED_AT if limit is None else min(limit, NUM_ROWS_LOOKED_AT)))
    rows = _readable(chain(first, rest), reading)
    looked_at = [row for row in first if isinstance(row, Row)]
    if not looked_at:
        list(rows)
        reading.raise_problems()
    found = find_columns(
        looked_at, name=name, prompt=prompt_column, answer=answer_column, id=id_column, needs_answer=needs_answer
    )
    reading.remark(str(found))
    extractor = Extractor(found, reading, needs_answer=needs_answer)
    lengths = Lengths(encode_whole, max_prompt_tokens)
    prompts = PackedPrompts()
    dropped: Counter[str] = Counter()
    for id, extracted in _identified(rows, extractor, keep=duplicates == "keep", dropped=dropped):
        messages = _conversation(extracted.prompt, system=system, suffix=suffix)
        prompt = Prompt(id=id, messages=messages, answer=extracted.answer, meta=extracted.meta)
        if lengths.is_overlong(prompt) and overlong_prompts == "drop":
            dropped["overlong"] += 1
        else:
            prompts.append(prompt)
        if len(prompts) == limit:
            break
    lengths.report(reading, name, policy=overlong_prompts)
    if not prompts and not reading.num_problems:
        reading.problem(name, f"no rows left, {reading.num_rows:,} dropped as {' or '.join(dropped)}")
    reading.raise_problems()
    remarks = (*reading.remarks, *(f"{count:,} {what}" for what, count in reading.counts.items()))
    report = Report(name, reading.num_rows, len(prompts), dict(dropped), remarks, prompts.fingerprint)
    return Loaded(prompts, report)


def _readable(rows: Iterable[Row | Problem], reading: Reading) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, Row):
            yield row
        else:
            reading.problem(row.place, row.message)


class _Identities:
    """What the rows read so far are called and hold, by hashes and numbers: a million rows come by."""

    def __init__(self) -> None:
        self._contents: set[int] = set()
        self._by_id: dict[str, int] = {}
        """Id of an id column -> hash of the content that the row which brought it holds. An id that is itself a hash
        of the content needs no entry, which would take as much memory as the prompt."""
        self._numbers = array("Q")
        """Of those rows, in the order of `_by_id`."""
        self._files: list[tuple[int, Row]] = []
        """How many ids were known when a file began, and its first row."""
        self._suffixed: set[str] = set()
        self._repeats: Counter[str] = Counter()

    def is_new_id(self, id: str, content: int, row: Row) -> bool:
        if not self._files or self._files[-1][1].source != row.source:
            self._files.append((len(self._by_id), row))
        known = len(self._by_id)
        self._by_id.setdefault(id, content)
        if len(self._by_id) == known:
            return False
        self._numbers.append(row.number)
        return True

    def clashes(self, id: str, content: int) -> bool:
        return self._by_id.get(id, content) != content

    def place(self, id: str) -> str:
        """Where the row is that brought this id."""
        index = list(self._by_id).index(id)
        row = next(row for start, row in reversed(self._files) if start <= index)
        return replace(row, number=self._numbers[index]).place

    def is_new_content(self, content: int) -> bool:
        known = len(self._contents)
        self._contents.add(content)
        return len(self._contents) > known

    def another(self, id: str) -> str:
        """An id that no row has, for one that repeats an earlier row's."""
        while True:
            self._repeats[id] += 1
            another = f"{id}#{self._repeats[id] + 1}"
            if another not in self._by_id and another not in self._suffixed:
                self._suffixed.add(another)
                return another


def _identified(
    rows: Iterable[Row], extractor: Extractor, *, keep: bool, dropped: Counter[str]
) -> Iterator[tuple[str, Extracted]]:
    """Rows without fault, each with an id of its own. Duplicates are counted in `dropped` unless `keep`."""
    known = _Identities()
    for row in rows:
        extracted = extractor.extract(row)
        if extracted is None:
            continue
        digest = _digest(extracted)
        content = int.from_bytes(digest)
        is_new_content = known.is_new_content(content)
        if extracted.id is None:
            id, is_new_id = digest.hex()[:16], is_new_content
        else:
            id, is_new_id = extracted.id, known.is_new_id(extracted.id, content, row)
        if not is_new_id and known.clashes(id, content):
            message = f"id {id!r} stands for another prompt or answer at {known.place(id)}; ids must be unique"
            extractor.reading.problem(row.place, message)
        elif not is_new_content and not keep:
            dropped["duplicate"] += 1
        else:
            yield id if is_new_id else known.another(id), extracted


def _digest(extracted: Extracted) -> bytes:
    """16 bytes that stand for a row's prompt and answer."""
    prompt = extracted.prompt
    asked = quoted(prompt) if isinstance(prompt, str) else as_list(prompt)
    return hashlib.sha256(f"[{asked}, {quoted(extracted.answer)}]".encode()).digest()[:16]


def _conversation(prompt: str | Messages, *, system: str | None, suffix: str) -> Messages:
    messages: Messages = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    if suffix:
        *before, last = messages
        messages = (*before, {**last, "content": last["content"] + suffix})
    if system is not None and messages[0]["role"] != "system":
        messages = ({"role": "system", "content": system}, *messages)
    return messages


class Lengths:
    """Finds prompts over the limit, and encodes only those that could be.

    Byte-level BPE, SentencePiece, WordPiece and character tokenizers make at most one token per byte of the text. So a
    prompt whose bytes and template fit is not encoded, and a million short prompts pass in seconds. (Should a
    tokenizer break the rule, the encoder still refuses or cuts the prompt when it is used.)
    """

    def __init__(self, encode_whole: Callable[[Prompt], Sequence[int]], limit: int) -> None:
        self.encode_whole = encode_whole
        self.limit = limit
        self.num_overlong = 0
        self.longest = 0
        self.ids: list[str] = []
        """The first few."""
        self.overheads: dict[tuple[str, ...], int] = {}
        """Roles of a conversation -> tokens that its template costs."""

    def is_overlong(self, prompt: Prompt) -> bool:
        num_bytes = sum(len(message["content"].encode()) for message in prompt.messages)
        if num_bytes + self._overhead(prompt) <= self.limit:
            return False
        num_tokens = len(self.encode_whole(prompt))
        if num_tokens <= self.limit:
            return False
        self.num_overlong += 1
        self.longest = max(self.longest, num_tokens)
        if len(self.ids) < NUM_IDS_SHOWN:
            self.ids.append(prompt.id)
        return True

    def _overhead(self, prompt: Prompt) -> int:
        roles = tuple(message["role"] for message in prompt.messages)
        if roles not in self.overheads:
            probe = replace(prompt, messages=tuple({"role": role, "content": "x"} for role in roles))
            self.overheads[roles] = len(self.encode_whole(probe)) + MARGIN_TOKENS * len(roles)
        return self.overheads[roles]

    def report(self, reading: Reading, name: str, *, policy: Literal["error", "drop", "truncate_left"]) -> None:
        if not self.num_overlong:
            return
        more = ", ..." if self.num_overlong > len(self.ids) else ""
        which = f"the longest {self.longest:,}; ids {', '.join(self.ids)}{more}"
        if policy == "error":
            found = f"prompts over data.max_prompt_tokens={self.limit}: {self.num_overlong:,} ({which})"
            advice = f"data.max_prompt_tokens={self.longest}, data.overlong_prompts=drop or =truncate_left"
            reading.problem(name, f"{found}. Type {advice}")
        else:
            what = "dropped" if policy == "drop" else "cut to their last tokens"
            reading.remark(f"{self.num_overlong:,} prompts over {self.limit:,} tokens {what} ({which})")
