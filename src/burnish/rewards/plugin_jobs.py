"""Jobs of the child process that runs a user's reward function; see `plugins.py` and `worker.py`.

A process has one function, loaded once. It is the user's own code, as trusted as the command that named it: the process
bounds its time and memory and survives its crash, and is no sandbox.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from burnish.rewards.adapters import Adapted, adapt
from burnish.rewards.load import Source, load_function
from burnish.rewards.remembering import Remembering
from burnish.types import Completion, Prompt

_loaded: list[tuple[Adapted, Remembering]] = []
"""The function of this process, once it is loaded."""


def self_check() -> None:
    """Nothing can be known of a function before it is loaded."""


def load(source: Mapping[str, str], args: Mapping[str, Any], state: Any) -> None:
    """Load the function and give it the state that an earlier process left; None: there is none.

    Raises:
        ValueError: it cannot be loaded or called.
    """
    found = load_function(Source(**source))
    found.remembering.load_state_dict(state)
    _loaded.append((adapt(found.function, name=str(Source(**source)), args=args), found.remembering))


def describe() -> dict[str, Any]:
    """How the function wants to be called."""
    ((adapted, remembering),) = _loaded
    return {
        "convention": adapted.convention,
        "batched": adapted.batched,
        "is_async": adapted.is_async,
        "reads_tokens": adapted.reads_tokens,
        "state": remembering.state_dict(),
    }


def restore(state: Any) -> None:
    ((_, remembering),) = _loaded
    remembering.load_state_dict(state)


def undeclared() -> list[str]:
    """What the function has been found to remember without declaring it."""
    ((_, remembering),) = _loaded
    return remembering.undeclared()


def measure(prompt: Mapping[str, Any], completions: list[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """Verdicts on some completions of one prompt, as the fields of `Measured`, and the state they left."""
    ((adapted, remembering),) = _loaded
    asked = Prompt(**{**prompt, "messages": tuple(prompt["messages"])})
    found = adapted.measure(asked, [_completion(c) for c in completions], seconds=seconds)
    return {"measured": [asdict(measured) for measured in found], "state": remembering.state_dict()}


def _completion(fields: Mapping[str, Any]) -> Completion:
    arrays = {name: array(kind, fields[name]) for name, kind in ARRAYS.items()}
    return Completion(**{**fields, **arrays})


ARRAYS = {"prompt_ids": "i", "token_ids": "i", "logprobs": "f"}
"""Arrays of a `Completion` -> their type code."""

JOBS = {job.__name__: job for job in (load, describe, restore, undeclared, measure)}
