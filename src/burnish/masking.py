"""Secrets in a configuration: found by their keys and their form, and replaced wherever it is saved, sent or printed.

A configuration needs none of its own: keys of trackers are read from the environment by the trackers. But arguments of
a reward function may hold one, and so may the address of a model. What is masked cannot be read back: the value
has to be typed again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from burnish.trees import flattened

MASK = "***"
SECRET_KEY = re.compile(r"(^|[_.-])(token|secret|key|apikey|password|passwd|credentials?)$", re.IGNORECASE)
"""The last word of a key: `api_key` and `hf_token`, not `max_new_tokens` and `keyboard`."""
_SECRET_TEXT = re.compile(
    r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,})|(?<=://)[^/@\s]+(?=@)"
)


def masked(value: Any, key: str = "") -> Any:
    """Plain values with `***` in place of what looks like a secret."""
    if isinstance(value, Mapping):
        return {name: masked(inner, name) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [masked(inner, key) for inner in value]
    if SECRET_KEY.search(key) and isinstance(value, str | int | float) and value != "" and not isinstance(value, bool):
        return MASK
    return _SECRET_TEXT.sub(MASK, value) if isinstance(value, str) else value


def secret_keys(tree: Mapping[str, Any]) -> list[str]:
    """Keys, with dots, whose values `masked` replaces."""
    before, after = dict(flattened(dict(tree))), dict(flattened(masked(tree)))
    return [key for key, value in before.items() if _plain(value) != _plain(after[key])]


def masked_keys(tree: Mapping[str, Any]) -> list[str]:
    """Keys, with dots, whose values have been replaced."""
    return [key for key, value in flattened(dict(tree)) if value == MASK or f"://{MASK}@" in str(value)]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
