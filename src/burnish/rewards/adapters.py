"""Calls a user's reward function the way its signature says it wants to be called.

    native      f(prompt, completion)                                        a `Prompt` and a `Completion`
    verl        f(data_source, solution_str, ground_truth, extra_info)       by keyword
    split_info  f(split, solution_str, ground_truth, info)                   by position
    trl         f(prompts, completions, completion_ids, <columns>, ...)      by keyword; one call for all siblings

`adapt` picks the first that fits, by the names of the parameters:

    prompt and completion -> native;   split or info -> split_info;   solution_str -> verl;   completions -> trl

so a function that knows two conventions (`good_accuracy`) is called once per completion. A function gets only what it
names, or everything if it has **kwargs. Arguments from the configuration are added, and win over what a convention
passes. All may be `async`: the calls for siblings then run at the same time.

What the conventions pass, where it is not plain: `data_source`, `extra_info` and TRL's columns are columns of the row
(`Prompt.meta`); without a column `extra_info` it is all of them. TRL's functions find the row's answer under `answer`,
`solution` and `ground_truth`. A `messages` prompt makes its completions `[{"role": "assistant", "content": text}]`.
`trainer_state.global_step` is the policy's version; what is given to `log_extra` and `log_metric` becomes parts.
"""

from __future__ import annotations

import asyncio
import difflib
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import islice
from types import SimpleNamespace
from typing import Any, Literal

from burnish.rewards.measured import Measured, invalid, read
from burnish.types import Completion, Prompt

Convention = Literal["native", "verl", "split_info", "trl"]
Function = Callable[..., Any]

ANSWER_COLUMNS = ("answer", "solution", "ground_truth")
_VERL: tuple[str, ...] = ("data_source", "solution_str", "ground_truth", "extra_info")
_SPLIT_INFO: tuple[str, ...] = ("split", "solution_str", "ground_truth", "info")
_TRL = ("prompts", "completions", "completion_ids", "prompt_ids", "trainer_state", "log_extra", "log_metric")
_TOKENS = ("completion_ids", "prompt_ids")
_KNOWN = (
    "(prompt, completion), (data_source, solution_str, ground_truth, extra_info), "
    "(split, solution_str, ground_truth, info) or (completions, ...)"
)


@dataclass(frozen=True, slots=True)
class Signature:
    """What a function can be given by keyword."""

    names: tuple[str, ...]
    required: tuple[str, ...]
    takes_any: bool
    """It has **kwargs."""

    def accepted(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if self.takes_any or name in self.names}


@dataclass(frozen=True)
class Adapted:
    """A function that can be asked about one prompt's completions, whatever its signature."""

    function: Function
    convention: Convention
    signature: Signature
    args: Mapping[str, Any]
    """From the configuration."""
    _runner: list[asyncio.Runner] = field(default_factory=list[asyncio.Runner])
    """One event loop for all calls, so that a function may keep a connection open; made when first needed."""

    @property
    def batched(self) -> bool:
        """One call gets all completions."""
        return self.convention == "trl"

    @property
    def is_async(self) -> bool:
        function = self.function
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

    @property
    def reads_tokens(self) -> bool:
        """It may look at token ids, and not only at the text."""
        named = self.signature.takes_any or any(name in self.signature.names for name in _TOKENS)
        return self.convention == "native" or (self.batched and named)

    def measure(self, prompt: Prompt, completions: Sequence[Completion], /, *, seconds: float | None) -> list[Measured]:
        """Ask about one prompt's completions. What the function raises is status `error`, never a number.

        Args:
            seconds: after which an asynchronous call is given up; others cannot be stopped from within.
        """
        if self.batched:
            return self._measure_batch(prompt, completions, seconds)
        asked = [functools.partial(self._ask, prompt, completion) for completion in completions]
        if self.is_async:
            return self._run(_all(asked, seconds))
        return [_judged(ask) for ask in asked]

    def close(self) -> None:
        for runner in self._runner:
            runner.close()

    def _ask(self, prompt: Prompt, completion: Completion) -> Any:
        names = self.signature.names
        match self.convention:
            case "native":
                if not _is_native(names):
                    return self.function(prompt, completion, **self.args)
                given: dict[str, Any] = {"prompt": prompt, "completion": completion}
            case "split_info":
                given = _split_info(prompt, completion, names)
            case _:
                given = self.signature.accepted(_verl(prompt, completion))
        return self.function(**{**given, **self.args})

    def _measure_batch(
        self, prompt: Prompt, completions: Sequence[Completion], seconds: float | None
    ) -> list[Measured]:
        extra: list[dict[str, Any]] = [{} for _ in completions]
        given = self.signature.accepted(_trl(prompt, completions, extra)) | dict(self.args)
        missing = [name for name in self.signature.required if name not in given]
        if missing:
            return [invalid(f"wants {missing[0]!r}, and the row has no such column ({_listed(given)})")] * len(extra)
        started = time.perf_counter()
        try:
            returned = self.function(**given)
            if inspect.isawaitable(returned):
                returned = self._run(_within(returned, seconds))
            found = _batch_results(returned, extra)  # a generator computes only now
        except Exception as error:
            # A fault boundary: the function works on a model's text, and the trainer decides what a fault costs.
            return [_fault(error)] * len(extra)
        ms = 1000.0 * (time.perf_counter() - started) / max(1, len(extra))
        return [replace(measured, ms=ms) for measured in found]

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if not self._runner:
            self._runner.append(asyncio.Runner())
        return self._runner[0].run(coroutine)


def adapt(function: Function, *, name: str, args: Mapping[str, Any] | None = None, native: bool = False) -> Adapted:
    """Find out how a function wants to be called.

    Args:
        name: of the function, for messages.
        args: keyword arguments from the configuration.
        native: take a signature that fits no convention for (prompt, completion).

    Raises:
        ValueError: the signature fits no convention, wants something that nothing gives, or does not take an argument.
    """
    args = args or {}
    signature = _signature(function)
    convention = _convention(signature)
    if convention is None and native:
        convention = "native"
    if convention is None:
        raise ValueError(f"{name} takes ({', '.join(signature.names)}); a reward function takes {_KNOWN}")
    unknown = [key for key in args if not signature.takes_any and key not in signature.names]
    if unknown:
        near = difflib.get_close_matches(unknown[0], signature.names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it takes ({', '.join(signature.names)})"
        raise ValueError(f"{name} does not take {unknown[0]!r}, which its configuration gives{hint}")
    given = _given(convention, signature.names)
    missing = [key for key in signature.required if key not in given and key not in args]
    if missing:
        raise ValueError(f"{name} wants {missing[0]!r}, which nothing gives; give it a default, or a value in args")
    return Adapted(function, convention, signature, dict(args))


def _signature(function: Function) -> Signature:
    parameters = inspect.signature(function).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return Signature(
        names=tuple(p.name for p in named),
        required=tuple(p.name for p in named if p.default is p.empty),
        takes_any=any(p.kind is p.VAR_KEYWORD for p in parameters),
    )


def _is_native(names: Sequence[str]) -> bool:
    return {"prompt", "completion"} <= set(names)


def _convention(signature: Signature) -> Convention | None:
    names = set(signature.names)
    if _is_native(signature.names):
        return "native"
    if names & {"split", "info"} and len(signature.names) >= len(_SPLIT_INFO):
        return "split_info"
    if "solution_str" in names:
        return "verl"
    return "trl" if "completions" in names else None


def _given(convention: Convention, names: Sequence[str]) -> Sequence[str]:
    """The parameters that a convention fills."""
    match convention:
        case "native":
            return ("prompt", "completion") if _is_native(names) else names[:2]
        case "split_info":
            return names[:4]
        case "verl":
            return _VERL
        case "trl":
            return names  # known only when a row is there


def _verl(prompt: Prompt, completion: Completion) -> dict[str, Any]:
    return {
        "data_source": prompt.meta.get("data_source", ""),
        "solution_str": completion.text,
        "ground_truth": prompt.answer,
        "extra_info": prompt.meta.get("extra_info", dict(prompt.meta)),
    }


def _split_info(prompt: Prompt, completion: Completion, names: Sequence[str]) -> dict[str, Any]:
    info = {**prompt.meta, "qid": prompt.id, "prompt": prompt.shown}
    values = (prompt.meta.get("split", "train"), completion.text, prompt.answer or "", info)
    by_name = dict(zip(_SPLIT_INFO, values, strict=True))
    return {name: by_name.get(name, value) for name, value in zip(names[:4], values, strict=True)}


def _trl(prompt: Prompt, completions: Sequence[Completion], extra: list[dict[str, Any]]) -> dict[str, Any]:
    n = len(completions)
    columns = {**dict.fromkeys(ANSWER_COLUMNS, prompt.answer), **prompt.meta}
    chat = bool(prompt.messages)
    texts: list[Any] = [[{"role": "assistant", "content": c.text}] if chat else c.text for c in completions]

    def log_extra(column: str, values: Sequence[Any]) -> None:
        for row, value in zip(extra, values, strict=True):
            row[column] = value

    def log_metric(name: str, value: float) -> None:
        log_extra(name, [value] * n)

    return {
        **{name: [value] * n for name, value in columns.items()},
        "prompts": [[dict(message) for message in prompt.messages] if chat else prompt.shown for _ in range(n)],
        "completions": texts,
        "prompt_ids": [list(c.prompt_ids) for c in completions],
        "completion_ids": [list(c.token_ids) for c in completions],
        "trainer_state": SimpleNamespace(global_step=completions[0].policy_version if completions else 0),
        "log_extra": log_extra,
        "log_metric": log_metric,
    }


def _batch_results(returned: Any, extra: Sequence[Mapping[str, Any]]) -> list[Measured]:
    if not isinstance(returned, Iterable) or isinstance(returned, str | bytes | Mapping) or _is_scalar(returned):
        return [invalid(f"returned {returned!r:.200}; it needs a list with one entry per completion")] * len(extra)
    values = list(islice(returned, len(extra) + 1))  # a generator may have no end
    if len(values) != len(extra):
        many = len(returned) if isinstance(returned, Sized) else f"more than {len(extra)}"
        found = many if len(values) > len(extra) else len(values)
        return [invalid(f"returned {found} rewards for {len(extra)} completions")] * len(extra)
    return [
        read(value if not logged else {**logged, **(value if isinstance(value, Mapping) else {"score": value})})
        for value, logged in zip(values, extra, strict=True)
    ]


def _is_scalar(returned: Any) -> bool:
    """A 0-d array or tensor, which has the methods of something that can be gone through and cannot be."""
    return getattr(returned, "shape", None) == ()


async def _all(asked: Sequence[Callable[[], Awaitable[Any]]], seconds: float | None) -> list[Measured]:
    return await asyncio.gather(*(_judged_later(ask, seconds) for ask in asked))


async def _within(awaitable: Awaitable[Any], seconds: float | None) -> Any:
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await awaitable
    except TimeoutError:
        if scope.expired():
            raise _LateError(f"gave no verdict within {seconds:g} s") from None
        raise


class _LateError(Exception): ...


async def _judged_later(ask: Callable[[], Awaitable[Any]], seconds: float | None) -> Measured:
    started = time.perf_counter()
    try:
        measured = read(await _within(ask(), seconds))
    except Exception as error:  # the fault boundary of one call, as in `_judged`
        return _fault(error)
    return replace(measured, ms=1000.0 * (time.perf_counter() - started))


def _judged(ask: Callable[[], Any]) -> Measured:
    started = time.perf_counter()
    try:
        measured = read(ask())
    except Exception as error:
        # A fault boundary: the function works on a model's text, and the trainer decides what a fault costs.
        return _fault(error)
    return replace(measured, ms=1000.0 * (time.perf_counter() - started))


def _fault(error: Exception) -> Measured:
    if isinstance(error, _LateError):
        return Measured(None, status="timeout", message=str(error))
    return Measured(None, status="error", message=f"raised {type(error).__name__}: {error}"[:1000])


def _listed(given: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name in given if name not in _TRL)) or "none"
