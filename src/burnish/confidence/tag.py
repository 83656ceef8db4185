"""The tag in the text. Strings only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal


@dataclass(frozen=True, slots=True)
class Statement:
    """A tag that was found. Places are characters of the text; ends are the places after."""

    start: int
    end: int
    value_start: int
    """Where the word begins."""
    is_high: bool


@dataclass(frozen=True)
class Tag:
    """`<name>word</name>`, with one of two words and possibly white space around it.

    Example:
        Tag().find("I think so. <confidence> low </confidence>").is_high      # False
        Tag("sure", high="yes", low="no").find("<sure>maybe</sure>")          # "missing"
    """

    name: str = "confidence"
    high: str = "high"
    low: str = "low"

    def find(self, text: str) -> Statement | Literal["missing", "multiple"]:
        """The statement of a text with exactly one tag.

        A tag that is not closed, or holds neither of the words, is none. Tags are compared as they are written, case
        included.
        """
        found = self._pattern.finditer(text)
        first = next(found, None)
        if first is None:
            return "missing"
        if next(found, None) is not None:
            return "multiple"
        return Statement(first.start(), first.end(), first.start(1), first[1] == self.high)

    def written(self, word: str) -> str:
        """The tag around a word, without white space."""
        return f"<{self.name}>{word}</{self.name}>"

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        name, high, low = map(re.escape, (self.name, self.high, self.low))
        return re.compile(rf"<{name}>\s*({high}|{low})\s*</{name}>")
