"""What a reward function remembers from call to call, and whether a resumed run can give it back.

A function declares its state with `state_dict()` and `load_state_dict(state)`: methods of the object that is called, or
functions of its file. The state is plain JSON. One that remembers without saying so is found out by comparing the
plain values that its file and its object hold before and after some calls.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

_PLAIN = (bool, int, float, str, bytes, list, dict, set, frozenset, tuple, deque, type(None))


class Remembering:
    """The state of one function, declared or not."""

    def __init__(self, function: Callable[..., Any], module: ModuleType | None = None) -> None:
        """
        Args:
            module: the function's file, where it may keep its state.

        Raises:
            ValueError: only one of the two functions is there.
        """
        self._function = function
        self._module = module
        owner = function if hasattr(function, "state_dict") or hasattr(function, "load_state_dict") else module
        self._save = getattr(owner, "state_dict", None)
        self._load = getattr(owner, "load_state_dict", None)
        if (self._save is None) != (self._load is None):
            there, absent = ("state_dict", "load_state_dict")[:: 1 if self._save else -1]
            where = getattr(owner, "__file__", type(owner).__name__)
            raise ValueError(f"{where} has {there} and no {absent}; a function with state has both")
        self._at_first = self._held()

    @property
    def is_declared(self) -> bool:
        return self._save is not None

    def state_dict(self) -> Any:
        """The declared state; None where none is declared.

        Raises:
            TypeError: it is not plain JSON.
        """
        if self._save is None:
            return None
        state = self._save()
        try:
            json.dumps(state)
        except (TypeError, ValueError) as error:
            raise TypeError(f"state_dict returned what JSON cannot hold ({error}); return plain values") from error
        return state

    def load_state_dict(self, state: Any) -> None:
        if self._load is not None and state is not None:
            self._load(state)

    def undeclared(self) -> list[str]:
        """Names of values that changed since the function was loaded, where no state is declared."""
        if self.is_declared:
            return []
        held = self._held()
        return sorted(name for name in held if held[name] != self._at_first.get(name))

    def _held(self) -> dict[str, str]:
        """Plain values by name, as text. A library's objects are left out: their text says nothing about them."""
        held = _plain_values(vars(self._module), "") if self._module else {}
        attributes = getattr(self._function, "__dict__", {})
        return held | _plain_values(attributes, f"{type(self._function).__name__}.")


def _plain_values(values: Mapping[str, Any], prefix: str) -> dict[str, str]:
    return {
        prefix + name: repr(value)
        for name, value in values.items()
        if isinstance(value, _PLAIN) and not name.startswith("__")
    }
