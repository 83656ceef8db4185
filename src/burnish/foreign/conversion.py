"""A conversion of foreign quantities under way: what was given, what is settled, what came of it.

`units` and `rewards` are made of functions of a `Conversion`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

DEFAULT, IN_FILE, IN_WORDS = -1, 0, 2
"""Ranks of a foreign value; own keys stand one above: 1 in a file, 3 in words."""


class UnitError(ValueError):
    """Quantities that do not make a whole number of something here."""


@dataclass(frozen=True, slots=True)
class Given:
    """A foreign word, read."""

    key: str
    value: Any
    """Text, a list of texts, or None."""
    shown: str
    """As it was typed."""
    rank: int


@dataclass(frozen=True, slots=True)
class Setting:
    """A key of ours with its value, and what it comes from."""

    key: str
    value: Any
    of: tuple[Given, ...]
    note: str = ""

    @property
    def rank(self) -> int:
        return max((given.rank for given in self.of), default=DEFAULT)


def is_on(value: Any) -> bool:
    return str(value).lower() in ("true", "1", "yes")


@dataclass(slots=True)
class Conversion:
    """What the quantities became so far."""

    given: Mapping[str, Given]
    """Quantity -> the word that gives it."""
    own: Callable[[str], Any]
    """Key of ours -> its value as far as it is settled."""
    decided: Mapping[str, int]
    """Key of ours that a word or file sets itself -> its rank."""
    rows: Callable[[], int | None]
    """How many rows the training data has; None when the data is not here."""
    settings: list[Setting] = field(default_factory=list)
    silent: list[tuple[Given, str]] = field(default_factory=list)
    """Words that have no effect, and why."""

    def set(self, key: str, value: Any, *quantities: str, note: str = "") -> None:
        of = tuple(self.given[q] for q in quantities if q in self.given)
        self.settings.append(Setting(key, value, of, note))

    def ours(self, key: str) -> float:
        for setting in reversed(self.settings):
            if setting.key == key:
                return float(setting.value)
        return float(self.own(key))

    def whole(self, quantity: str) -> int:
        number = self.number(quantity)
        if number != int(number) or number < 1:
            raise UnitError(f"{self.given[quantity].shown}: found {number:g}; it needs a whole number above 0")
        return int(number)

    def number(self, quantity: str) -> float:
        given = self.given[quantity]
        try:
            number = float(given.value)
        except (TypeError, ValueError):
            raise UnitError(f"{given.shown}: found {given.value!r}; it needs a number") from None
        if not math.isfinite(number):
            raise UnitError(f"{given.shown}: found {number}; it needs a finite number")
        return number

    def items(self, quantity: str) -> list[str]:
        """The texts of a list, whether it came as one or as one text; none where the quantity is not given."""
        if quantity not in self.given:
            return []
        value = self.given[quantity].value
        return [str(item) for item in (value if isinstance(value, list) else re.split(r"[,\s]+", str(value)))]

    def is_on(self, quantity: str) -> bool:
        return quantity in self.given and is_on(self.given[quantity].value)

    def shown(self, *quantities: str) -> str:
        return ", ".join(self.given[q].shown for q in quantities if q in self.given)

    @property
    def updates_per_step(self) -> int:
        """Over all epochs."""
        return int(self.ours("train.updates_per_step") * self.ours("train.epochs"))
