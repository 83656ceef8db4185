"""The kinds of rows, and the reasons and values that several rows share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Settings = Mapping[str, str | None]
"""Key of ours -> value as it would be typed; None is null."""


@dataclass(frozen=True, slots=True)
class Row:
    names: str
    """Spellings, separated by spaces."""
    under: str = field(default="", kw_only=True)
    """What stands in front of each of them."""

    @property
    def spellings(self) -> tuple[str, ...]:
        return tuple(self.under + name for name in self.names.split())


@dataclass(frozen=True, slots=True)
class Same(Row):
    to: str
    example: str
    off: str = field(default="", kw_only=True)
    """Foreign value that is 0 here."""
    special: Settings = field(default_factory=dict, kw_only=True)
    """Foreign value -> ours. None: with this value the key counts as not given."""
    also: Settings = field(default_factory=dict, kw_only=True)
    """Settings that come with the key, whatever its value."""
    needs: str = field(default="", kw_only=True)
    """Quantity that has to be on for the key to count."""


@dataclass(frozen=True, slots=True)
class Choice(Row):
    values: Mapping[str, Settings]
    """Values, spellings of one separated by spaces -> settings."""
    otherwise: str
    """Why other values are refused, and what to type instead."""
    needs: str = field(default="", kw_only=True)
    notes: Settings = field(default_factory=dict, kw_only=True)
    """Value -> what else is to be said of it."""


@dataclass(frozen=True, slots=True)
class Listing(Row):
    items: Mapping[str, Settings]
    otherwise: str
    notes: Settings = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True, slots=True)
class Pair(Row):
    to: tuple[str, str]
    example: str


@dataclass(frozen=True, slots=True)
class Rest(Row):
    """A prefix: what follows it in the foreign key follows `to` in ours."""

    to: str
    example: str


@dataclass(frozen=True, slots=True)
class Quantity(Row):
    quantity: str
    """Name under which `units.py` or `rewards.py` reads the value."""
    unset: tuple[str, ...] = field(default=(), kw_only=True)
    """Values with which the key counts as not given."""
    many: bool = field(default=False, kw_only=True)
    """Whether all the words after the flag are its items."""


@dataclass(frozen=True, slots=True)
class Ignored(Row):
    why: str
    unless: str = field(default="", kw_only=True)
    """Quantity that, when it is on, gives the key a meaning: it is refused then."""


@dataclass(frozen=True, slots=True)
class Refused(Row):
    why: str
    instead: str
    off: tuple[str, ...] = ()
    """Values that say that the feature is off, as it is here."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a system does when it is not told: filled in when a foreign word names the model, and no file of ours is
    given. Only what shapes the objective and the sizes; precision and memory are this machine's matter."""

    words: tuple[str, ...]
    """As its users would type them."""
    ours: Settings = field(default_factory=dict)
    """Features that the system lacks, switched off."""
    kept: Settings = field(default_factory=dict)
    """Keys that keep our default although the system has another -> that other."""


ON_OFF = ("false", "null", "no", "0")
NONE = ("null", "", "[]", "{}")
ACTOR, ROLLOUT, MODEL = "actor_rollout_ref.actor.", "actor_rollout_ref.rollout.", "actor_rollout_ref.model."

WHY_ENGINE = "the engine's own matter; it changes speed, not what is learned"
WHY_PIECES = "pieces are cut by tokens, train.tokens_per_piece, and any cut gives the same gradient"
WHY_SHARDING = "how weights are spread over devices does not change what is learned"
WHY_SEED = "one `seed` fixes everything"
WHY_LOG = "every step is recorded, with every rollout, in the run folder"
WHY_OFF = "belongs to a feature that is off"
INSTEAD_DROP = "leave it out"
INSTEAD_FULL = "leave it out: all weights are trained"

SCHEDULES: Mapping[str, Settings] = {
    "constant": {"optimizer.schedule": "constant"},
    "constant_with_warmup": {"optimizer.schedule": "constant"},
    "linear": {"optimizer.schedule": "linear"},
    "cosine": {"optimizer.schedule": "cosine"},
    "null": {},
}
NO_SCHEDULE = "the schedules are constant, linear and cosine: type optimizer.schedule=cosine"
BFLOAT16: Settings = {"model.dtype": "bfloat16"}
FLOAT32: Settings = {"model.dtype": "float32"}
NO_FLOAT16 = "computing is in float32 or bfloat16: type model.dtype=bfloat16"
SINKS: Mapping[str, Settings] = {
    "wandb": {"log.sinks": "wandb"},
    "tensorboard": {"log.sinks": "tensorboard"},
    "trackio": {"log.sinks": "trackio"},
    "console file none rl_logging_board": {},
}
NO_SINK = "the sinks are tensorboard, wandb and trackio, and JSONL is always written: type log.sinks='[\"jsonl\"]'"
