"""From the text to tokens: which token decides the word, and which two tokens compete there.

A tokenizer may write `high` as one token, as several, or together with the `>` before it. `decision` writes both tags
with the tokenizer at hand and compares: the first token that differs is the one that decides, and the two tokens there
are the ones whose probabilities are compared. For `very_high` and `very_low` that is the token after `very_`. For
`high` and `highest` it may be the token after `high`, where the closing tag competes with the rest of the longer word.

Only this first choice counts. The probability of everything after it given the word that was *not* taken would need a
second forward pass over text that was never sampled; in a tag it is close to 1, for little else can follow.

`Places` finds the token at a character of a sampled completion. It decodes beginnings of it and compares their lengths,
so it holds for any tokenizer that decodes from left to right, and for ids that the tokenizer itself would not have
chosen for the text.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from burnish.confidence.tag import Tag

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Decode = Callable[[Sequence[int]], str]
"""Token ids -> text, special tokens included."""
Encode = Callable[[str], Sequence[int]]
"""Text -> token ids, no special tokens added."""

REMEDIES = (
    "Type other words (confidence.high=yes confidence.low=no), another tag (confidence.tag=sure), or add the words to "
    "the tokenizer's vocabulary"
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Where and between which tokens a statement is decided."""

    high_id: int
    low_id: int
    offset: int
    """Characters of the word that come before the deciding token; all of the shorter word where it begins the other."""
    high_tokens: tuple[int, ...]
    """All tokens that the word touches in its tag; a single one where the word is a token."""
    low_tokens: tuple[int, ...]


class Places:
    """Which token of `ids` a character of its text belongs to.

    Lengths of decoded beginnings are found by guessing between the known ones, so that few of them are decoded.
    """

    def __init__(self, ids: Sequence[int], decode: Decode, *, length: int) -> None:
        """`length` is that of the whole decoded text."""
        self._ids, self._decode = ids, decode
        self._known = [(0, 0), (length, len(ids))]
        """(characters, tokens) of beginnings, both rising."""

    def token_at(self, character: int) -> int:
        """Index of the first token that reaches beyond the start of `character`: the first one that is part of it."""
        at = bisect_right(self._known, character, key=lambda known: known[0])
        (low_characters, low), (high_characters, high) = self._known[at - 1], self._known[at]
        halve = False
        while high - low > 1:
            share = (character - low_characters) / (high_characters - low_characters)
            guess = (low + high) // 2 if halve else low + round(share * (high - low))
            middle = min(max(guess, low + 1), high - 1)
            halve = not halve  # a guess by share alone may close in from one side only
            characters = len(self._decode(self._ids[:middle]))
            insort(self._known, (characters, middle))
            if characters > character:
                high_characters, high = characters, middle
            else:
                low_characters, low = characters, middle
        return high - 1


def decision(tag: Tag, encode: Encode, decode: Decode) -> Decision:
    """Compare how the tokenizer writes the two tags.

    Raises:
        ValueError: it cannot write them; writes both alike; or tells them apart before the word or within a character.
    """
    high_ids, low_ids = (_written(tag, word, encode, decode) for word in (tag.high, tag.low))
    length = next((i for i, (a, b) in enumerate(zip(high_ids, low_ids, strict=False)) if a != b), None)
    if length is None:
        both = f"{tag.written(tag.high)!r} and {tag.written(tag.low)!r}"
        raise ValueError(f"the tokenizer writes {both} with the same tokens. {REMEDIES}")
    value_start = decode(high_ids).index(tag.written(tag.high)) + len(tag.name) + 2
    shared = decode(high_ids[:length])
    if not all(decode(ids).startswith(shared) for ids in (high_ids, low_ids)):
        raise ValueError(
            f"the tokenizer tells {tag.high!r} and {tag.low!r} apart within a character, at one of its bytes, which no "
            f"place in the text can name. {REMEDIES}"
        )
    if any(len(decode(ids[: length + 1])) <= value_start for ids in (high_ids, low_ids)):
        raise ValueError(
            f"the tokenizer writes '<{tag.name}>' in different ways before {tag.high!r} and {tag.low!r}, so no token "
            f"of the word decides between them. {REMEDIES}"
        )
    return Decision(
        high_id=high_ids[length],
        low_id=low_ids[length],
        offset=max(0, len(shared) - value_start),
        high_tokens=_touching(high_ids, value_start, len(tag.high), decode),
        low_tokens=_touching(low_ids, value_start, len(tag.low), decode),
    )


def encoder(tokenizer: PreTrainedTokenizerBase) -> Encode:
    def encode(text: str) -> Sequence[int]:
        ids: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    return encode


def decoder(tokenizer: PreTrainedTokenizerBase) -> Decode:
    """Special tokens stay in the text: a tag may be made of them."""

    def decode(ids: Sequence[int]) -> str:
        text: Any = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    return decode


def _written(tag: Tag, word: str, encode: Encode, decode: Decode) -> Sequence[int]:
    text = tag.written(word)
    ids = encode(text)
    if text not in decode(ids):
        raise ValueError(f"the tokenizer cannot write {text!r}: it comes back as {decode(ids)!r}. {REMEDIES}")
    return ids


def _touching(ids: Sequence[int], start: int, length: int, decode: Decode) -> tuple[int, ...]:
    """The ids of the tokens that share a character with the `length` characters from `start`."""
    ends = [len(decode(ids[: n + 1])) for n in range(len(ids))]
    starts = [0, *ends]
    return tuple(
        i for i, begins, ends_at in zip(ids, starts, ends, strict=False) if ends_at > start and begins < start + length
    )
