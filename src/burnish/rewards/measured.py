"""What one part of a reward says about one completion, and how the return value of a user's function is read as that.

A function may return, per completion:

    a number                     int, float, bool, a numpy or 0-d tensor scalar: the value
    None                         the reward does not apply to this completion: no value, and no fault
    a mapping with `score`       the value, beside numbers that become parts of their own; a `breakdown` or `parts`
                                 mapping inside it is read the same way; texts and other objects are left out, but
                                 `pred` (or `answer`) is kept as the extracted answer

Everything else, and a number that is not finite or beyond `LARGEST_SCORE`, is `invalid`: it is never turned into a
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from burnish.types import Completion, Prompt, Status

LARGEST_SCORE = 1e4
"""Beyond this a score is taken for a mistake: one such number destroys the weights."""
ANSWER_SHOWN = 80
"""Characters of an extracted answer that are kept."""

_NESTED = ("breakdown", "parts")
_ANSWERS = ("pred", "answer")
_NEEDED = f"it needs a finite number within {LARGEST_SCORE:,.0f}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One part's verdict. `value` None with status `ok`: the part does not apply to this completion."""

    value: float | None
    raw: float | None = None
    """The task metric, where it is not the value itself."""
    status: Status = "ok"
    message: str = ""
    parts: Mapping[str, float] = field(default_factory=dict[str, float])
    """Numbers beside the value, each to be recorded under its own name."""
    answer: str | None = None
    ms: float | None = None


Measure = Callable[[Prompt, Sequence[Completion]], Sequence[Measured]]
"""A part of a reward: one prompt's completions -> one verdict each, in order."""


def read(returned: object) -> Measured:
    """The verdict that a function's return value for one completion stands for.

    Example:
        read({"score": 0.9, "breakdown": {"clarity": 1}}) == Measured(0.9, parts={"clarity": 1.0})
    """
    if not isinstance(returned, Mapping):
        return _value(returned, "", ", None, or a mapping")
    if "score" not in returned:
        return invalid(f"returned a mapping with {sorted(map(str, returned))}; it needs an entry 'score'")
    measured = _value(returned["score"], "score ", " or None")
    if measured.status == "invalid":
        return measured
    numbers = {name: number for name, entry in _entries(returned) if (number := _number(entry)) is not None}
    for name, number in numbers.items():
        if not _usable(number):
            return invalid(f"returned {name} {number}; {_NEEDED}")
    return replace(measured, parts=numbers, answer=_answer(returned))


def invalid(message: str) -> Measured:
    return Measured(None, status="invalid", message=message)


def _value(returned: object, name: str, else_allowed: str) -> Measured:
    number = _number(returned)
    if returned is None or (number is not None and _usable(number)):
        return Measured(number)
    return invalid(f"returned {name}{_shown(returned)}; {_NEEDED}{else_allowed}")


def _entries(returned: Mapping[Any, object]) -> list[tuple[str, object]]:
    flat: list[tuple[str, object]] = []
    for name, entry in returned.items():
        if name in _NESTED and isinstance(entry, Mapping):
            flat += [(str(inner), value) for inner, value in entry.items()]
        elif name != "score":
            flat.append((str(name), entry))
    return flat


def _number(value: Any) -> float | None:
    """The number that a value is, finite or not; None when it is none. A text is never parsed."""
    if isinstance(value, str | bytes | bytearray) or getattr(value, "shape", ()) != ():
        return None  # an array of one number may be one row of a batch that has two dimensions by mistake
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def _usable(number: float) -> bool:
    return abs(number) <= LARGEST_SCORE  # false for NaN


def _answer(returned: Mapping[Any, object]) -> str | None:
    found = next((returned[name] for name in _ANSWERS if isinstance(returned.get(name), str)), None)
    return None if found is None else str(found)[:ANSWER_SHOWN]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."
