"""What the small integers in the store mean. The store holds the same tables (`codes`, `hist_kinds`) for its readers.

To add a code, append it: recorded files keep their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from burnish.types import FAULTS, FinishReason, Outcome, Status

APPLICATION_ID = 0x6275726E
"""`burn` in ASCII, in the file's header: tells a store from any other SQLite file."""
SCHEMA_VERSION = 2
"""`user_version` of the file. With a new one, a file of the last goes to tests/unit/stores."""

STATUS: dict[str, int] = {word: code for code, word in enumerate(get_args(Status))}
FINISH: dict[str, int] = {word: code for code, word in enumerate(get_args(FinishReason))}
OUTCOME: dict[str, int] = {word: code for code, word in enumerate(get_args(Outcome))}
FAULT_CODES = frozenset(STATUS[word] for word in FAULTS)

TEXT_CLEANED = 1
"""Flag: text, answer or message held a lone surrogate, stored as U+FFFD."""
SCORE_NOT_FINITE = 2
"""Flag: a raw score, a total or a part is NaN or infinite. NaN is stored as NULL."""
TRACE_NOT_FINITE = 4
"""Flag: a log-probability, entropy, push, advantage, confidence or target is NaN or infinite."""
MESSAGE_CUT = 8
"""Flag: the score's message was longer than what is kept of it."""

KEPT_BODY = 1
KEPT_TOKENS = 2

EXTREMES: dict[str, int] = {
    word: code
    for code, word in enumerate(
        ("longest", "shortest", "best", "worst", "ratio_max", "mismatch", "repeat", "reward_ms", "entropy")
    )
}
EXTREMES_PER_STEP = 20
"""The top 20 of a run lie within the top 20 of its steps, so that asking for them needs no index on rollouts."""
SMALLEST_FIRST = frozenset(("shortest", "worst"))

STRIP_TOP = 250
STRIP_SURPLUS = 251
STRIP_NO_SCORE = 252


@dataclass(frozen=True, slots=True)
class Histogram:
    """Bins that are the same at every step of every run, so that counts can be added and compared."""

    what: int
    name: str
    scale: Literal["linear", "log2"]
    width: float

    def edge(self, bin_: int) -> float:
        """Lower edge of a bin, in the unit of the value."""
        return bin_ * self.width if self.scale == "linear" else 2.0 ** (bin_ * self.width) - 1.0


HISTOGRAMS = (
    Histogram(0, "length", "log2", 0.25),
    Histogram(1, "raw", "linear", 0.1),
    Histogram(2, "total", "linear", 0.1),
    Histogram(3, "advantage", "linear", 0.25),
    Histogram(4, "old_logprob_mean", "linear", 0.1),
    Histogram(5, "entropy_mean", "linear", 0.1),
)
CONFIDENCE_BINS = 10
"""Equal parts of the scale from 0 to 1 that stated confidence is counted in."""
LAST_BIN = 1000
"""Values beyond bins -1000..1000 are counted in the outermost."""


def code_rows() -> list[tuple[str, int, str]]:
    """Rows of the table `codes`."""
    kinds = {"status": STATUS, "finish": FINISH, "outcome": OUTCOME, "extreme": EXTREMES}
    flags = {
        "text_cleaned": TEXT_CLEANED,
        "score_not_finite": SCORE_NOT_FINITE,
        "trace_not_finite": TRACE_NOT_FINITE,
        "message_cut": MESSAGE_CUT,
    }
    return [(kind, code, word) for kind, table in (kinds | {"flag": flags}).items() for word, code in table.items()]
