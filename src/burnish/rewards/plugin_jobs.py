"""Jobs of the child process that runs a user's reward function; see `plugins.py` and `worker.py`.

The function is loaded once per process. It is the user's own code, as trusted as the command that named it: the process
bounds its time and memory and survives its crash, and is no sandbox.
"""

from __future__ import annotations

import functools
import json
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from burnish.rewards.adapters import Adapted, adapt
from burnish.rewards.load import Source, load_function
from burnish.types import Completion, Prompt


def self_check() -> None:
    """Nothing can be known of a function before it is loaded."""


def load(plugin: Mapping[str, Any]) -> dict[str, Any]:
    """Load the function and say how it wants to be called.

    Raises:
        ValueError: it cannot be loaded or called.
    """
    adapted = _adapted(plugin)
    return {
        "convention": adapted.convention,
        "batched": adapted.batched,
        "is_async": adapted.is_async,
        "reads_tokens": adapted.reads_tokens,
    }


def measure(
    plugin: Mapping[str, Any], prompt: Mapping[str, Any], completions: list[Mapping[str, Any]], seconds: float
) -> list[dict[str, Any]]:
    """Verdicts on some completions of one prompt, as the fields of `Measured`."""
    asked = Prompt(**{**prompt, "messages": tuple(prompt["messages"])})
    found = _adapted(plugin).measure(asked, [_completion(c) for c in completions], seconds=seconds)
    return [asdict(measured) for measured in found]


def _completion(fields: Mapping[str, Any]) -> Completion:
    arrays = {name: array(kind, fields[name]) for name, kind in ARRAYS.items()}
    return Completion(**{**fields, **arrays})


def _adapted(plugin: Mapping[str, Any]) -> Adapted:
    return _load_once(plugin["path"], plugin["function"], plugin["sha256"], json.dumps(plugin["args"]))


@functools.cache
def _load_once(path: str, function: str, sha256: str, args: str) -> Adapted:
    source = Source(path, function, sha256)
    return adapt(load_function(source), name=str(source), args=json.loads(args))


ARRAYS = {"prompt_ids": "i", "token_ids": "i", "logprobs": "f"}
"""Arrays of a `Completion` -> their type code."""

JOBS = {"load": load, "measure": measure}
