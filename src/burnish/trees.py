"""Nested mappings and their leaves by dotted key, as configuration files have them."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

Tree = dict[str, Any]

INTERPOLATION = re.compile(r"\$\{([^${}]*)\}")
MAX_INTERPOLATIONS = 1000


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a nested mapping by dotted key. An empty mapping is a leaf."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nested(leaves: Mapping[str, Any]) -> Tree:
    """The inverse of `flattened`."""
    tree: Tree = {}
    for dotted, value in leaves.items():
        for part in reversed(dotted.split(".")):
            value = {part: value}
        merge(tree, value)
    return tree


def merge(into: Tree, new: Mapping[str, Any]) -> None:
    """Put `new` over `into`, section by section."""
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def interpolated(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve `${a.b}`, `${oc.select:a.b,default}` and `${oc.env:NAME,default}`; what has no value stays as it is."""
    found = dict(leaves)
    budget = MAX_INTERPOLATIONS
    for key in found:
        while budget and isinstance(found[key], str) and (match := INTERPOLATION.search(found[key])):
            budget -= 1
            value = _looked_up(match[1], found, key)
            if value is _MISSING:
                break
            found[key] = value if match[0] == found[key] else found[key].replace(match[0], str(value))
    return found


_MISSING = object()


def _looked_up(inside: str, leaves: Mapping[str, Any], key: str) -> Any:
    kind, colon, rest = inside.partition(":")
    path, comma, default = (rest if colon else inside).partition(",")
    path, otherwise = path.strip(), default.strip() if comma else _MISSING
    if colon and kind == "oc.env":
        return os.environ.get(path, otherwise)
    if colon and kind != "oc.select":
        return _MISSING
    if path.startswith("."):
        parents = key.split(".")[: -(len(path) - len(path.lstrip(".")))]
        path = ".".join([*parents, path.lstrip(".")])
    return leaves.get(path, otherwise)
