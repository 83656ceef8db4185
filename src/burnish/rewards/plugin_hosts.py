"""Where a reward function runs: in a child process (`InChild`), or in this one (`Here`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from burnish.errors import TrainingError
from burnish.rewards.adapters import Adapted, Convention, adapt
from burnish.rewards.load import Source, load_function
from burnish.rewards.measured import Measured
from burnish.rewards.plugin_jobs import ARRAYS
from burnish.rewards.worker import START_SECONDS, StartError, Worker
from burnish.types import Completion, Prompt

MEMORY = 4 << 30
"""Resident bytes over which a function's process is killed."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the child says of the function it loaded."""

    convention: Convention
    batched: bool
    is_async: bool
    reads_tokens: bool


class Host(Protocol):
    """Where a function runs."""

    restarts: int

    def __init__(self, source: Source, args: dict[str, Any], seconds: float) -> None: ...
    def load(self) -> Convention: ...
    def measure(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Measured]: ...
    def state_dict(self) -> Any: ...
    def load_state_dict(self, state: Any) -> None: ...
    def undeclared(self) -> list[str]: ...
    def close(self) -> None: ...


class Here(Host):
    restarts = 0

    def __init__(self, source: Source, args: dict[str, Any], seconds: float) -> None:
        loaded = load_function(source)
        self._adapted: Adapted = adapt(loaded.function, name=str(source), args=args)
        self._remembering = loaded.remembering
        self._seconds = seconds

    def load(self) -> Convention:
        return self._adapted.convention

    def measure(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Measured]:
        return self._adapted.measure(prompt, completions, seconds=self._seconds)

    def state_dict(self) -> Any:
        return self._remembering.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self._remembering.load_state_dict(state)

    def undeclared(self) -> list[str]:
        return self._remembering.undeclared()

    def close(self) -> None:
        self._adapted.close()


class InChild(Host):
    """A function in a process of its own. The state that it declares comes back with every verdict, so that the next
    process can go on from there when this one has to be replaced."""

    def __init__(self, source: Source, args: dict[str, Any], seconds: float) -> None:
        self._source = source
        self._args = args
        self._seconds = seconds
        self._state: Any = None
        self._worker = Worker(
            "burnish.rewards.plugin_jobs", seconds=seconds, memory=MEMORY, trusted=True, setup=self._load
        )

    @property
    def restarts(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._worker.restarts

    def load(self) -> Convention:
        try:
            reply = self._worker.call("describe", deadline=START_SECONDS)
        except StartError as error:
            raise ValueError(str(error).removeprefix("ValueError: ")) from error
        if reply.status != "done":
            self.close()
            raise ValueError(f"{self._source}: {reply.message}")
        self._state = reply.value.pop("state")
        self._facts = _Facts(**reply.value)
        return self._facts.convention

    def measure(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Measured]:
        fields = _prompt_fields(prompt)
        if self._facts.batched or self._facts.is_async:
            return self._ask(prompt, fields, completions)
        return [measured for completion in completions for measured in self._ask(prompt, fields, [completion])]

    def state_dict(self) -> Any:
        return self._state

    def load_state_dict(self, state: Any) -> None:
        self._state = state
        self._demand("restore", state=state)

    def undeclared(self) -> list[str]:
        return self._demand("undeclared")

    def close(self) -> None:
        self._worker.close()

    def _load(self) -> tuple[str, dict[str, Any]]:
        """The setup of every new process."""
        return "load", {"source": asdict(self._source), "args": self._args, "state": self._state}

    def _demand(self, job: str, **args: Any) -> Any:
        reply = self._worker.call(job, **args)
        if reply.status != "done":
            raise TrainingError(f"{self._source}: {reply.message}")
        return reply.value

    def _ask(self, prompt: Prompt, fields: dict[str, Any], completions: Sequence[Completion]) -> Sequence[Measured]:
        try:
            reply = self._worker.call(
                "measure",
                deadline=self._seconds * len(completions),
                prompt=fields,
                completions=[_completion_fields(c, tokens=self._facts.reads_tokens) for c in completions],
                seconds=self._seconds,
            )
        except TypeError as error:
            raise ValueError(
                f"a column of prompt {prompt.id} cannot be sent to the process of {self._source} ({error}). "
                "Type reward.parts.NAME.isolated=false"
            ) from error
        except StartError as error:
            return [Measured(None, status="error", message=str(error))] * len(completions)
        if reply.status == "done":
            self._state = reply.value["state"]
            return [Measured(**measured) for measured in reply.value["measured"]]
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
