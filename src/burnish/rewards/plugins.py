"""Reward plugins: a user's function from a file, as a part of a reward.

    Plugin -> Worker (worker.py) -> child process: plugin_jobs.py -> Adapted (adapters.py) -> the function

A plugin is trusted code: loading it runs it, with the user's own rights. By default it runs in a child process, which
is no sandbox but a bulkhead: a call that hangs is killed at its deadline, one that grows too large or crashes ends
alone, and each of these is a status and never a number. What such a function prints is not shown.

With `isolated=False` it runs in this process: it may print, keep what JSON cannot carry, and hang the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from burnish.rewards.adapters import Adapted, Convention, adapt
from burnish.rewards.load import Source, load_function, locate
from burnish.rewards.measured import Measured, invalid
from burnish.rewards.plugin_jobs import ARRAYS
from burnish.rewards.worker import START_SECONDS, Worker
from burnish.types import FAULTS, Completion, Prompt

MEMORY = 4 << 30
"""Resident bytes over which a plugin's process is killed."""


class Plugin:
    """A function from a file, as a part of a reward; `close` ends its process.

    Example:
        Plugin("rewards.py:clarity", args={"target": 8}, seconds=5.0)
    """

    def __init__(
        self,
        target: str,
        *,
        args: Mapping[str, Any] | None = None,
        entries: Sequence[str] = (),
        seconds: float,
        isolated: bool = True,
    ) -> None:
        """Load the function.

        Args:
            target: `path/to/file.py:function`.
            args: keyword arguments for every call.
            entries: what the mappings that it returns must have beside `score`.
            seconds: that one completion may take; all of a prompt's, when the function is called once for all.
            isolated: run it in a child process.

        Raises:
            ValueError: the function cannot be found, loaded or called.
        """
        self.source = locate(target)
        self._entries = tuple(entries)
        host = _InChild if isolated else _Here
        self._host: _Host = host(self.source, dict(args or {}), seconds)
        self._where = "in a process of its own" if isolated else "in this process"
        self._convention: Convention = self._host.load()

    def __str__(self) -> str:
        """For the header of a run: exactly which code is trusted."""
        return (
            f"reward plugin {self.source} (sha256 {self.source.sha256}), trusted code, called as {self._convention}, "
            f"{self._where}"
        )

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        found = self._host.measure(prompt, completions)
        return [self._named(self._complete(measured), index) for index, measured in enumerate(found)]

    def close(self) -> None:
        self._host.close()

    def _complete(self, measured: Measured) -> Measured:
        absent = [name for name in self._entries if name not in measured.parts]
        if not absent or measured.value is None:
            return measured
        found = ", ".join(measured.parts) or "none"
        return invalid(f"returned no entry {absent[0]!r}, which the configuration names (entries: {found})")

    def _named(self, measured: Measured, index: int) -> Measured:
        if measured.status not in FAULTS:
            return measured
        return replace(measured, message=f"{self.source}, completion {index}: {measured.message}")


class _Host(Protocol):
    """Where a function runs."""

    def __init__(self, source: Source, args: dict[str, Any], seconds: float) -> None: ...
    def load(self) -> Convention: ...
    def measure(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Measured]: ...
    def close(self) -> None: ...


class _Here(_Host):
    def __init__(self, source: Source, args: dict[str, Any], seconds: float) -> None:
        self._adapted: Adapted = adapt(load_function(source), name=str(source), args=args)
        self._seconds = seconds

    def load(self) -> Convention:
        return self._adapted.convention

    def measure(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Measured]:
        return self._adapted.measure(prompt, completions, seconds=self._seconds)

    def close(self) -> None:
        self._adapted.close()


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the child says of the function it loaded."""

    convention: Convention
    batched: bool
    is_async: bool
    reads_tokens: bool


class _InChild(_Host):
    def __init__(self, source: Source, args: dict[str, Any], seconds: float) -> None:
        self._plugin = {**asdict(source), "args": args}
        self._source = source
        self._seconds = seconds
        self._worker = Worker("burnish.rewards.plugin_jobs", seconds=seconds, memory=MEMORY, trusted=True)
        self._loaded_in: int | None = None
        """Process that has the function loaded: a killed one is replaced by one that has not."""

    def load(self) -> Convention:
        reply = self._worker.call("load", deadline=START_SECONDS, plugin=self._plugin)
        if reply.status != "done":
            self.close()
            raise ValueError(reply.message.removeprefix("ValueError: "))
        self._facts = _Facts(**reply.value)
        self._loaded_in = self._worker.pid
        return self._facts.convention

    def measure(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Measured]:
        fields = _prompt_fields(prompt)
        if self._facts.batched or self._facts.is_async:
            return self._ask(prompt, fields, completions)
        return [measured for completion in completions for measured in self._ask(prompt, fields, [completion])]

    def close(self) -> None:
        self._worker.close()

    def _ask(self, prompt: Prompt, fields: dict[str, Any], completions: Sequence[Completion]) -> Sequence[Measured]:
        if self._worker.pid != self._loaded_in:
            try:
                self.load()
            except ValueError as error:
                return [Measured(None, status="error", message=str(error))] * len(completions)
        try:
            reply = self._worker.call(
                "measure",
                deadline=self._seconds * len(completions),
                plugin=self._plugin,
                prompt=fields,
                completions=[_completion_fields(c, tokens=self._facts.reads_tokens) for c in completions],
                seconds=self._seconds,
            )
        except TypeError as error:
            raise ValueError(
                f"a column of prompt {prompt.id} cannot be sent to the process of {self._source} ({error}). "
                "Type reward.parts.NAME.isolated=false"
            ) from error
        if reply.status == "done":
            return [Measured(**measured) for measured in reply.value]
        return [Measured(None, status=reply.status, message=reply.message)] * len(completions)


def _prompt_fields(prompt: Prompt) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "messages": [dict(message) for message in prompt.messages],
        "text": prompt.text,
        "answer": prompt.answer,
        "meta": dict(prompt.meta),
    }


def _completion_fields(completion: Completion, *, tokens: bool) -> dict[str, Any]:
    arrays = {name: getattr(completion, name).tolist() if tokens else [] for name in ARRAYS}
    return {
        **arrays,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "policy_version": completion.policy_version,
    }
