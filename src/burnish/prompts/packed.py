"""`PackedPrompts`: a million prompts in the memory of their text."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping, Sequence
from json.encoder import encode_basestring_ascii
from typing import overload

from burnish.types import Prompt

_encode = json.JSONEncoder(sort_keys=True).encode


def quoted(text: str | None) -> str:
    """As `json.dumps` writes it. An encoder, made anew for every object, takes longer than the text that it encodes."""
    return "null" if text is None else encode_basestring_ascii(text)


def as_list(messages: Sequence[Mapping[str, str]]) -> str:
    """As `json.dumps(messages, sort_keys=True)` writes them."""
    return f"[{', '.join([_as_object(message) for message in messages])}]"


def _as_object(message: Mapping[str, str]) -> str:
    pairs = [f"{quoted(key)}: {quoted(text)}" for key, text in sorted(message.items())]
    return f"{{{', '.join(pairs)}}}"


class PackedPrompts(Sequence[Prompt]):
    """A sequence of prompts that grows by `append`. Each is held as JSON and made anew whenever it is asked for.

    A `Prompt` of a hundred characters is a dozen objects of a kilobyte in all, and a run holds every prompt of its data
    but looks at a few per step.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self._ends = array("Q")

    def append(self, prompt: Prompt) -> None:
        """Raises TypeError if `meta` holds what JSON has no word for."""
        asked = f"{quoted(prompt.id)}, {as_list(prompt.messages)}, {quoted(prompt.text)}"
        meta = _encode(prompt.meta) if prompt.meta else "{}"
        self._text += f"[{asked}, {quoted(prompt.answer)}, {meta}]\n".encode()
        self._ends.append(len(self._text))

    @property
    def fingerprint(self) -> str:
        """sha256 of all that a run sees of its prompts, in order. Editing, adding or reordering prompts changes it."""
        return hashlib.sha256(self._text).hexdigest()

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Prompt, ...]: ...
    def __getitem__(self, index: int | slice) -> Prompt | tuple[Prompt, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        at = range(len(self))[index]
        start = self._ends[at - 1] if at else 0
        id, messages, text, answer, meta = json.loads(self._text[start : self._ends[at]])
        return Prompt(id, tuple(messages), text, answer, meta)


def fingerprint(prompts: Sequence[Prompt]) -> str:
    """`PackedPrompts.fingerprint` of prompts that are held in another way."""
    packed = PackedPrompts()
    for prompt in prompts:
        packed.append(prompt)
    return packed.fingerprint
