"""The reward of a run: its parts, and how they become one total.

`Reward` has the answer and format parts as plain keys, since nearly every run has just those; any others are in
`parts`, by name. To add a kind of part: a class here with a `kind`, a row in `PartConfig`, and its construction in
`build/reward.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from burnish.config.section import Section, Share


class WeightConfig(Section):
    """A number, or a schedule: linearly from `start` at step 0 to `end` at step `steps`, and constant from there on."""

    is_value = True
    start: float
    end: float
    steps: PositiveInt = 1

    @model_validator(mode="before")
    @classmethod
    def _read_number(cls, value: Any) -> Any:
        if isinstance(value, Mapping | WeightConfig):
            return cast(Any, value)
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"found {value!r} as a weight; it needs a number, or start, end and steps") from None
        return {"start": number, "end": number}

    @model_serializer(mode="wrap")
    def _write_number(self, write: SerializerFunctionWrapHandler) -> Any:
        return self.start if self.start == self.end and self.steps == 1 else write(self)


def _weight(value: float) -> WeightConfig:
    return WeightConfig(start=value, end=value)


class FormatReward(Section):
    pattern: str
    """Regular expression that the whole completion must contain a match of."""
    weight: WeightConfig = _weight(1.0)


# -- further parts ----------------------------------------------------------------------------------------------------


class Weighted(Section):
    weight: WeightConfig = _weight(1.0)
    """Of the part in the total; a number, or `start`, `end` and `steps`."""


class LengthPart(Weighted):
    """From 0, up to 1.5 times the wanted length, down to -1 at twice that length."""

    kind: Literal["length"] = "length"
    target: PositiveInt
    """Wanted length in tokens."""


class TruncatedPart(Weighted):
    """-1 when the completion was cut at max_new_tokens."""

    kind: Literal["truncated"] = "truncated"


class RepetitionPart(Weighted):
    """-(share of n-grams that are repetitions)."""

    kind: Literal["repetition"] = "repetition"
    ngram_size: PositiveInt = 3
    unit: Literal["words", "tokens"] = "words"
    """What is counted: lower-cased words, as in Open-R1, or token ids, as in TRL."""


class GoodAccuracyPart(Weighted):
    """ADPO's reward: 1 for a right answer; for a wrong one a small penalty for repetition."""

    kind: Literal["good_accuracy"] = "good_accuracy"
    ngram_size: PositiveInt = 4
    max_penalty: Annotated[float, Field(le=0.0)] = -0.5
    penalty_scale_factor: NonNegativeFloat = 0.1


def _read_values(value: Any) -> Any:
    """Arguments that came as text (from a command line, or YAML's 1e-6) as the numbers or truth values they spell."""
    if not isinstance(value, Mapping):
        return value
    return {key: _spelt(v) if isinstance(v, str) else v for key, v in cast(Mapping[str, Any], value).items()}


def _spelt(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=str)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, int | float) else text


class ModelPart(Weighted):
    """A neural reward model: the one logit of a sequence classifier that reads prompt and completion."""

    kind: Literal["model"] = "model"
    path: str
    """A directory in save_pretrained layout with its tokenizer, or a hub name."""
    batch_size: PositiveInt = 16
    """Completions of a group that one forward pass reads."""


class FunctionPart(Weighted):
    """Your own function."""

    kind: Literal["function"] = "function"
    function: str
    """`path/to/file.py:function`. Trusted code: it is run as yours. docs/rewards.md lists the signatures."""
    args: Annotated[dict[str, Any], BeforeValidator(_read_values)] = Field(default={})
    """Keyword arguments for every call; they win over what the call would pass."""
    entries: dict[str, WeightConfig] = Field(default={})
    """Entries of the mapping it returns that are objectives of their own: name -> weight. Others are only recorded."""
    isolated: bool = True
    """Run it in a child process that is killed when a call takes too long. No sandbox."""


PartConfig = Annotated[
    LengthPart | TruncatedPart | RepetitionPart | GoodAccuracyPart | ModelPart | FunctionPart,
    Field(discriminator="kind"),
]
KINDS: tuple[str, ...] = tuple(part.model_fields["kind"].default for part in get_args(get_args(PartConfig)[0]))
PartName = Annotated[str, Field(pattern=r"^\w+$")]


# -- from parts to a total --------------------------------------------------------------------------------------------


class WeightedSum(Section):
    name: Literal["weighted_sum"] = "weighted_sum"


class FromIdeal(Section):
    """Minus the largest weighted distance from the ideal: the worst part decides."""

    ideal: dict[PartName, float] = Field(default={})
    """Best value of a part. Others: `right` for the answer, 0 for penalties, else 1."""
    rho: NonNegativeFloat = 0.0
    """Weight of the sum of all distances, which breaks ties."""


class Chebyshev(FromIdeal):
    name: Literal["chebyshev"] = "chebyshev"


class AugmentedChebyshev(FromIdeal):
    """As published in ParEGO (Knowles 2006)."""

    name: Literal["augmented_chebyshev"] = "augmented_chebyshev"
    rho: NonNegativeFloat = 0.05


class Gated(Section):
    """A weighted sum in which only a right answer opens the way to credit for anything else."""

    name: Literal["gated"] = "gated"
    gate: str | None = None
    """Part that decides; None is the task metric."""
    threshold: float | None = None
    """Value from which the gate is open; None is `right`."""


class Constrained(Section):
    """A weighted sum, less a penalty for every part below its floor."""

    name: Literal["constrained"] = "constrained"
    floors: dict[PartName, float]
    """Part -> least wanted value."""
    penalty: PositiveFloat = 1.0
    """What missing a floor by 1 costs: a fixed Lagrange multiplier."""


class NormalizedSum(Section):
    """Each part is standardised within its group before the sum. With objective.advantage=batch_scaled: GDPO."""

    name: Literal["normalized_sum"] = "normalized_sum"


CombineConfig = Annotated[
    WeightedSum | Chebyshev | AugmentedChebyshev | Gated | Constrained | NormalizedSum, Field(discriminator="name")
]


def _require_policy(text: str) -> str:
    if text not in ("fail", "drop"):
        _fault_score(text)
    return text


def _fault_score(text: str) -> float:
    word, _, number = text.partition(":")
    try:
        score = float(number)
    except ValueError:
        score = math.nan
    if word != "score" or not math.isfinite(score):
        raise ValueError(f"found {text!r}; it needs fail, drop, or score: and a number, as in score:-1")
    return score


class Reward(Section):
    style: Annotated[
        Literal["auto", "dapo", "gsm8k", "boxed", "equivalence", "none"],
        BeforeValidator(lambda value: "none" if value is None else value),
    ] = "dapo"
    """How the answer is found and compared. `dapo`: last `Answer: N`, normalised string equality, as published;
    `equivalence`: the last stated answer, equal as mathematics; `gsm8k`: the number behind `####`; `boxed`: the last
    \\boxed{}; `auto`: whichever form the completion uses; `none`: no answer part, `parts` say what is good."""
    right: float = 1.0
    """Value of a right answer; where the task metric is another part, its value from which a completion is right."""
    wrong: float = -1.0
    weight: WeightConfig = _weight(1.0)
    """Weight of the answer part in the total."""
    format: FormatReward | None = None
    """Adds `weight` when the completion has the wanted form."""
    parts: dict[PartName, PartConfig] = Field(default={})
    """Further parts by name. `kind` is the part's name if left out, and `function` where a function is given."""
    task: str | None = None
    """Part, or entry of one, that is the task metric: what filters, curves and accuracy read. None: the answer part,
    else the first."""
    combine: CombineConfig = WeightedSum()
    """How the parts become the total."""
    target_length: PositiveInt | None = None
    """Wanted length in tokens: beyond 1.5 times of it a completion loses a growing share of its total, half of it from
    twice the length on. None takes nothing. (`parts` of kind `length` take fixed amounts.)"""
    truncation: Share = 0.0
    """Share of its total that a completion loses when it was cut at max_new_tokens; 0.2 as published."""
    timeout: PositiveFloat = 5.0
    """Seconds that grading one completion may take before its process is killed."""
    on_fault: Annotated[str, AfterValidator(_require_policy)] = "fail"
    """A grader fault (timeout, error, out of memory, no usable number): `fail` stops the run, `drop` leaves the
    completion out of its group, `score:X` scores it X."""
    max_fault_rate: Share = 0.05
    """Share of a step's completions that may be faults; with more, the run stops after that step."""

    @model_validator(mode="before")
    @classmethod
    def _infer_kinds(cls, tree: Any) -> Any:
        parts = cast(dict[str, Any], tree).get("parts") if isinstance(tree, dict) else None
        if not isinstance(parts, dict):
            return cast(Any, tree)
        named = {name: _with_kind(name, part) for name, part in cast(dict[str, Any], parts).items()}
        return {**cast(dict[str, Any], tree), "parts": named}

    @property
    def needs_answers(self) -> bool:
        """Whether every prompt must come with an answer: something compares completions with it."""
        return self.style != "none" or any(part.kind == "good_accuracy" for part in self.parts.values())

    @property
    def fault_score(self) -> float | None:
        """What a completion scores that could not be graded; None where it has no score."""
        return None if self.on_fault in ("fail", "drop") else _fault_score(self.on_fault)

    @property
    def weights(self) -> dict[str, WeightConfig]:
        """Every part and declared entry -> its weight. The overlong penalty is the objective's."""
        found = {} if self.style == "none" else {"answer": self.weight}
        if self.format is not None:
            found["format"] = self.format.weight
        for name, part in self.parts.items():
            found[name] = part.weight
            if isinstance(part, FunctionPart):
                found |= part.entries
        return found

    @property
    def task_name(self) -> str:
        return self.task or next(iter(self.weights))

    @property
    def pair(self) -> tuple[str, str] | None:
        """The two parts that a Pareto plot shows: the task metric and the next; None without `parts`."""
        others = [name for name in [*self.parts, *self.weights] if name != self.task_name]
        return (self.task_name, others[0]) if self.parts and others else None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        weights = self.weights
        if not weights:
            raise ValueError(
                "reward.style is none and there are no parts. Type reward.parts.NAME.function=FILE.py:NAME"
            )
        own = {"answer", "format", "overlong", "target_length", "truncation"} & self.parts.keys()
        if own:
            raise ValueError(f"reward.parts has a part {min(own)!r}, which has keys of its own; give it another name")
        declared = [*([] if self.style == "none" else ["answer"]), *(["format"] if self.format else []), *self.parts]
        declared += [name for part in self.parts.values() if isinstance(part, FunctionPart) for name in part.entries]
        twice = next((name for name in declared if declared.count(name) > 1), None)
        if twice:
            raise ValueError(f"two parts of the reward are named {twice!r}; rename one, or leave one out of entries")
        for key, name in self._references():
            if name not in weights and name != "overlong":
                raise ValueError(
                    f"{key} names {name!r}, and the parts of the reward are {', '.join(weights)}. An entry that a "
                    f"function returns is declared with its weight: reward.parts.PART.entries.{name}=0"
                )
        if isinstance(self.combine, FromIdeal) and any(min(w.start, w.end) < 0.0 for w in weights.values()):
            raise ValueError("reward.combine is a Chebyshev distance, which needs weights of at least 0")
        return self

    def _references(self) -> list[tuple[str, str]]:
        """(key, the part it names)."""
        found = [("reward.task", self.task)]
        match self.combine:
            case Gated():
                found.append(("reward.combine.gate", self.combine.gate))
            case Constrained():
                found += [("reward.combine.floors", name) for name in self.combine.floors]
            case FromIdeal():
                found += [("reward.combine.ideal", name) for name in self.combine.ideal]
            case _:
                pass
        return [(key, name) for key, name in found if name is not None]


def _with_kind(name: str, part: Any) -> Any:
    if not isinstance(part, dict) or "kind" in part:
        return cast(Any, part)
    kind = "function" if "function" in part else name
    if kind not in KINDS:
        raise ValueError(
            f"reward.parts.{name} does not say what it is. Type reward.parts.{name}.function=FILE.py:NAME, or "
            f"reward.parts.{name}.kind= one of {', '.join(kind for kind in KINDS if kind != 'function')}"
        )
    return {"kind": kind, **cast(dict[str, Any], part)}
