"""What a terminal may be shown: text in which nothing is left that it would act on.

Prompts, completions, names and messages that quote them may hold anything: sequences that move the cursor, set the
clipboard or the window's title, and marks that reverse the order of what stands before them.
"""

from __future__ import annotations

import re
import sys
from typing import TextIO

UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
"""Controls (C0, DEL, C1), marks that reorder text or break lines, and lone surrogates."""


def printable(text: str) -> str:
    """The text with everything that a terminal might act on shown as an escape, such as \\x1b or \\u202e."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_lines(text: str) -> str:
    """The same, but line ends stay: for text whose lines were put together here."""
    return "\n".join(map(printable, text.split("\n")))


def show(text: str, stream: TextIO | None = None) -> None:
    """Print lines that may quote anything. `stream`: standard output unless given."""
    stream = stream or sys.stdout
    assert stream is not None, "a program without standard output has nothing to say"
    print(sayable_in(stream, printable_lines(text)), file=stream)


def sayable_in(stream: TextIO, text: str) -> str:
    """The text with characters that the stream's encoding lacks shown as escapes."""
    encoding = stream.encoding or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
