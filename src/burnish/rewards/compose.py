"""Rewards: what the trainer calls for each prompt and its completions.

`PartsReward` is the reward of a run: any number of named, weighted parts, and how they become one total. Every part
stays beside the total, unweighted. `FunctionReward` lifts one plain function.

    total     what the objective maximises: the parts, combined (by default: their weighted sum)
    raw       the task metric, one part before weights and shaping: what filters and reward curves read
    status    the task part's verdict; where it has none, `ok` from the raw score `right` on, else `wrong`

A part that does not apply to a completion is absent there, and takes no part in its total. Where the task part is
absent, raw is the total. A fault in one part is a fault of the whole score: total and raw None, and what follows from
that is the trainer's to decide.

To add a kind of part: a class or function of the shape `Measure` beside `form.py`, a section in `config/reward.py`, a
line in `build/reward.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from burnish.algorithms import scalarize
from burnish.algorithms.scalarize import Weight
from burnish.metric_names import RESERVED_PARTS
from burnish.rewards.adapters import Adapted, adapt
from burnish.rewards.measured import Measure, Measured, invalid
from burnish.rewards.remembering import Remembering
from burnish.rewards.upkeep import NO_UPKEEP, Upkeep
from burnish.types import FAULTS, Completion, Prompt, Score

Combine = Callable[[Sequence[scalarize.Parts], Sequence[Mapping[str, float]]], Sequence[float | None]]
"""(the parts of each sibling, the weights for each) -> each total; None where no weighted part is there."""


def each(scalarization: Callable[..., float | None], **settings: Any) -> Combine:
    """A `Combine` from a scalarisation of one completion's parts.

    Example:
        each(scalarize.gated, gate="answer", threshold=1.0)
    """
    return lambda parts, weights: [scalarization(p, w, **settings) for p, w in zip(parts, weights, strict=True)]


SUM = each(scalarize.weighted_sum)
ONE = Weight.constant(1.0)


@dataclass(frozen=True, slots=True)
class Part:
    """One objective.

    Example:
        Part("format", Format("<answer>.*"), Weight.constant(0.5))
    """

    name: str
    measure: Measure
    weight: Weight = ONE
    entries: Mapping[str, Weight] = field(default_factory=dict[str, Weight])
    """Numbers that the part returns beside its value, and that take part in the total: name -> weight."""
    upkeep: Upkeep = NO_UPKEEP
    overlaps: bool = False
    """As `Upkeep.overlaps`, for the part's calls."""
    note: str = ""
    """What a person should know before the part is used; for the header of a run."""


class PartsReward(Upkeep):
    """Any number of parts per completion, each with a name and a weight.

    Weights are those of the step in which the completion was sampled (its policy version), so a resumed run weighs as
    the run it continues.

    Example:
        PartsReward([Part("answer", Answer("dapo", right=1.0, wrong=-1.0, seconds=5.0)), Part("end", Truncated())])
    """

    def __init__(
        self,
        parts: Sequence[Part],
        *,
        combine: Combine = SUM,
        task: str | None = None,
        right: float = 1.0,
    ) -> None:
        """
        Args:
            task: the part, or entry of a part, that is the task metric; None takes the first part.
            right: from which value of the task metric a completion counts as right.

        Raises:
            ValueError: there is no part, or two have one name, or one the name of another reward metric.
        """
        if not parts:
            raise ValueError("a reward needs at least one part")
        self._parts = tuple(parts)
        self._combine = combine
        self._task = task or parts[0].name
        self._right = right
        self._weights = {part.name: part.weight for part in parts}
        for part in parts:
            self._weights |= part.entries
        if len(self._weights) < sum(1 + len(part.entries) for part in parts):
            raise ValueError(f"two reward parts have the same name; found {', '.join(part.name for part in parts)}")
        if taken := RESERVED_PARTS & self._weights.keys():
            name = min(taken)
            raise ValueError(f"a reward part is named {name!r}, and reward/{name} is another metric; rename the part")

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        columns = [part.measure(prompt, completions) for part in self._parts]
        rows = [self._row(measured) for _, *measured in zip(completions, *columns, strict=True)]
        scored = [index for index, row in enumerate(rows) if row.fault is None]
        totals = self._combine(
            [rows[index].parts for index in scored],
            [self._weights_at(completions[index].policy_version) for index in scored],
        )
        by_index = dict(zip(scored, totals, strict=True))
        return [self._score(row, by_index.get(index)) for index, row in enumerate(rows)]

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(part.note for part in self._parts if part.note)

    @property
    def restarts(self) -> int:
        return sum(part.upkeep.restarts for part in self._parts)

    def check(self) -> None:
        for part in self._parts:
            part.upkeep.check()

    def state_dict(self) -> dict[str, Any] | None:
        """By part; None when none has any."""
        states = {part.name: part.upkeep.state_dict() for part in self._parts}
        return {name: state for name, state in states.items() if state is not None} or None

    def load_state_dict(self, state: Mapping[str, Any] | None, /) -> None:
        for part in self._parts:
            if state is not None and part.name in state:
                part.upkeep.load_state_dict(state[part.name])

    def remarks(self) -> list[str]:
        return [remark for part in self._parts for remark in part.upkeep.remarks()]

    @property
    def overlaps(self) -> bool:
        return all(part.overlaps for part in self._parts)

    def close(self) -> None:
        for part in self._parts:
            part.upkeep.close()

    def _weights_at(self, step: int) -> dict[str, float]:
        return {name: weight.at(step) for name, weight in self._weights.items()}

    def _row(self, measured: Sequence[Measured]) -> _Row:
        """One completion's parts, by name."""
        values: dict[str, float] = {}
        fault = next((m for m in measured if m.status in FAULTS), None)
        for part, found in zip(self._parts, measured, strict=True):
            taken = [n for n in found.parts if n in values or (n not in part.entries and self._is_taken(n))]
            if taken and fault is None:
                fault = invalid(f"part {part.name!r} has an entry {taken[0]!r}, and that name is taken; rename it")
            values.update(found.parts)
            if found.value is not None:
                values[part.name] = found.value
        task = next((m for p, m in zip(self._parts, measured, strict=True) if p.name == self._task), None)
        times = [m.ms for m in measured if m.ms is not None]
        answers = [m.answer for m in (task, *measured) if m is not None and m.answer is not None]
        return _Row(values, fault, task, answers[0] if answers else None, sum(times) if times else None)

    def _is_taken(self, name: str) -> bool:
        return name in self._weights or name in RESERVED_PARTS

    def _score(self, row: _Row, total: float | None) -> Score:
        if row.fault is not None:
            return row.without_number(row.fault)
        if total is None:
            names = ", ".join(self._weights)
            return row.without_number(
                invalid(f"no part of the reward applies to this completion; it needs one of {names}")
            )
        task = row.task or _ABSENT
        raw = row.parts.get(self._task, total) if task.raw is None else task.raw
        status = task.status if task.status != "ok" or raw >= self._right else "wrong"
        return Score(total, raw, row.parts, status, task.message, row.answer, row.ms)


@dataclass(frozen=True, slots=True)
class _Row:
    """What all parts say about one completion."""

    parts: Mapping[str, float]
    fault: Measured | None
    task: Measured | None
    """Of the part that is the task metric; None where an entry of a part is."""
    answer: str | None
    ms: float | None

    def without_number(self, fault: Measured) -> Score:
        return Score(None, status=fault.status, message=fault.message, answer=self.answer, ms=self.ms)


_ABSENT = Measured(None)


class _Lifted(Upkeep):
    """The upkeep of a function in this process."""

    def __init__(self, adapted: Adapted) -> None:
        self._adapted = adapted
        self._remembering = Remembering(adapted.function)

    def state_dict(self) -> Any:
        return self._remembering.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        self._remembering.load_state_dict(state)

    def close(self) -> None:
        self._adapted.close()


class FunctionReward(PartsReward):
    """Lifts a plain function into a reward, in this process, without a time limit.

    The function has any signature that `adapters.py` knows; one that fits none is called with (prompt, completion).
    What it may return is in `measured.py`; the value becomes the part `score`. A function that raises gives status
    `error`, one whose result is no finite number within 10,000 gives `invalid`; neither is ever turned into a number.

    Example:
        FunctionReward(lambda prompt, completion: float(completion.text.strip() == prompt.answer))
    """

    def __init__(
        self, function: Callable[..., Any], *, args: Mapping[str, Any] | None = None, right: float = 1.0
    ) -> None:
        """
        Args:
            args: keyword arguments for every call.
            right: from which value on a completion counts as right.

        Raises:
            ValueError: the function does not take `args`, or wants more than it can be given.
        """
        adapted = adapt(function, name="the reward function", args=args, native=True)
        super().__init__(
            [Part("score", partial(adapted.measure, seconds=None), upkeep=_Lifted(adapted))],
            task="score",
            right=right,
        )
