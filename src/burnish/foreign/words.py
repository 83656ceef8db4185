"""Words of other systems -> settings of ours: the edge at which foreign dialects end.

    translate        foreign words, own words and what lies under both -> one value per key of ours, with its origin
    Translation      what each word became; `lines` prints it, mapped, default, ignored and overruled
    nearest          the foreign key that a typing error was meant to be

An own key beats a foreign one of the same place, and words beat files. Where a foreign word names the model, the
other system's defaults fill what is left, so that a pasted command means what it meant there. The table is in
`aliases`, units are converted by `units`, launchers and scripts are read by `shell`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from pydantic import BaseModel

from burnish.config.objectives import ObjectiveConfig
from burnish.foreign.aliases import DEFAULTS, EXTENDED, IMPLIED, TABLE
from burnish.foreign.aliases.rows import Choice, Ignored, Listing, Pair, Quantity, Refused, Rest, Row, Same, Settings
from burnish.foreign.conversion import DEFAULT, IN_WORDS, Conversion, Given, Setting, UnitError, is_on
from burnish.foreign.units import TOGETHER, convert
from burnish.masking import MASK, SECRET_KEY

VALUE_SHOWN = 60
"""Characters of a value that are printed."""


def _by_spelling() -> Iterator[tuple[str, tuple[str, Row]]]:
    for system, rows in TABLE.items():
        for row in rows:
            for spelling in row.spellings:
                yield spelling, (system, row)


_SPELLINGS = dict(_by_spelling())
_PREFIXES = sorted((s[:-1] for s in _SPELLINGS if s.endswith("*")), key=len, reverse=True)


def find(key: str) -> tuple[str, Row] | None:
    """System and row of a foreign key; None when no system has it."""
    if key in _SPELLINGS:
        return _SPELLINGS[key]
    if key.endswith("._target_"):
        return _SPELLINGS["_target_"]
    prefix = next((p for p in _PREFIXES if key.startswith(p)), None)
    return None if prefix is None else _SPELLINGS[prefix + "*"]


def names_model(word: Given) -> bool:
    found = find(word.key)
    return word.value is not None and found is not None and isinstance(found[1], Same) and found[1].to == "model.path"


def takes_list(key: str) -> bool:
    """Whether the words after the flag are its items."""
    found = find(key)
    return found is not None and (isinstance(found[1], Listing) or (isinstance(found[1], Quantity) and found[1].many))


def nearest(key: str) -> str | None:
    """The foreign key that `key` looks like, with its system."""
    near = difflib.get_close_matches(key, [s for s in _SPELLINGS if "*" not in s], n=1, cutoff=0.8)
    return f"{near[0]!r} ({_SPELLINGS[near[0]][0]})" if near else None


@dataclass(slots=True)
class Translation:
    """What the foreign words became."""

    settings: dict[str, Setting] = field(default_factory=dict)
    """Key of ours -> its value."""
    overruled: list[tuple[Setting, str]] = field(default_factory=list)
    """Settings that lost, and to what."""
    ignored: list[tuple[Given, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    kept: Settings = field(default_factory=dict)
    """Keys that keep our default -> the default that the other system has."""
    system: str | None = None
    """Whose defaults fill what no word says."""

    def ranked(self, *, words: bool) -> list[Setting]:
        """The settings that come from words, or those from files and defaults."""
        return [s for s in self.settings.values() if (s.rank == IN_WORDS) == words]

    def lines(self) -> list[str]:
        """The table, one line per setting and one per reason for having no effect."""
        rows: list[tuple[str, str, str]] = []
        for setting in sorted(self.settings.values(), key=lambda s: s.rank == DEFAULT):
            outcome = "default" if setting.rank == DEFAULT else "mapped"
            rows.append((outcome, f"{setting.key} = {typed(setting.value)}", origin(setting, self.system)))
        rows += [
            ("default", f"{key} = ours", f"{self.system} has {theirs}")
            for key, theirs in self.kept.items()
            if key not in self.settings
        ]
        rows += [("overruled", shown_of(setting), f"by {winner}") for setting, winner in self.overruled]
        reasons: dict[str, list[str]] = {}
        for given, why in self.ignored:
            reasons.setdefault(why, []).append(given.shown if given.rank == IN_WORDS else given.key)
        rows += [("ignored", ", ".join(shown), why) for why, shown in reasons.items()]
        width = min(48, max((len(row[1]) for row in rows if row[0] != "ignored"), default=0))
        return [f"{outcome:9}  {what:{width}}  {why}" for outcome, what, why in rows]


def typed(value: Any) -> str:
    """A value as it would be typed, control characters as escapes."""
    text = "none" if value is None else str(list(value)) if isinstance(value, list | tuple) else str(value)
    return _printable(text)


def origin(setting: Setting, system: str | None) -> str:
    """Where a setting comes from, for tables and comments."""
    note = f" ({setting.note})" if setting.note else ""
    if not setting.of:
        return f"{system} has no such feature"
    return (f"{system}'s default " if setting.rank == DEFAULT else "") + shown_of(setting) + note


def shown_of(setting: Setting) -> str:
    return ", ".join(dict.fromkeys(given.shown for given in setting.of))


def given(key: str, value: Any, shown: str, rank: int) -> Given:
    """Normalise one foreign word: texts without quotes, `[a, b]` as a list, null as None."""
    value = as_text(value)
    if isinstance(value, str) and value[:1] == "[" and value[-1:] == "]":
        value = [as_text(item) for item in value[1:-1].split(",") if item.strip()]
    return Given(key, value, _masked(key, shown), rank)


def as_text(value: Any) -> Any:
    """YAML's or a shell's value as text; lists stay lists."""
    if isinstance(value, list | tuple):
        return [as_text(item) for item in value]
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, dict):
        return None if value is None else (str(value) if value else "{}")
    text = str(value).strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        text = text[1:-1]
    return None if text.lower() in ("none", "null") else text


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _masked(key: str, shown: str) -> str:
    shown = _printable(shown)
    if SECRET_KEY.search(key):
        return f"{key}={MASK}"
    limit = len(key) + VALUE_SHOWN
    return shown if len(shown) <= limit else shown[:limit] + "..."


# -- translation ------------------------------------------------------------------------------------------------------

Word = tuple[str, Row, Given]
"""System, row, and what was given."""


def translate(
    words: Sequence[Given],
    *,
    own: Mapping[str, tuple[Any, int]],
    under: Mapping[str, Any],
    fill: bool,
    rows: Callable[[str, str], int | None],
) -> Translation:
    """Resolve foreign words.

    Args:
        words: in order; of two that say the same thing the later wins, and a word beats a file.
        own: own keys that files and words set -> value, rank (1 in a file, 3 in words).
        under: the value that every own key has beneath all of them.
        fill: let the other system's defaults fill the rest when a foreign word names the model.
        rows: number of rows of a source and split; None when it is not known.
    """
    made = Translation()
    latest: dict[str, Word] = {}
    for word in sorted(words, key=lambda w: w.rank):
        found = find(word.key)
        assert found is not None, word
        latest.pop(_meaning(found[1], word), None)
        latest[_meaning(found[1], word)] = (*found, word)
    spoken = list(latest.values())
    made.system = _system(spoken) if fill else None
    defaults = [w for w in _defaults(made.system, spoken) if _meaning(w[1], w[2]) not in latest]
    missing = [Setting(k, v, ()) for k, v in DEFAULTS[made.system].ours.items()] if made.system else []
    made.kept = DEFAULTS[made.system].kept if made.system else {}
    quantities = {
        row.quantity: word
        for _, row, word in (*defaults, *spoken)
        if isinstance(row, Quantity) and word.value is not None and word.value not in row.unset
    }
    on = {quantity for quantity, word in quantities.items() if is_on(word.value)}
    settled = missing + [s for _, row, word in (*defaults, *spoken) for s in _settle(row, word, made, on)]
    said = {s.key: s.value for s in settled if s.rank > DEFAULT} | {key: value for key, (value, _) in own.items()}
    settled += _implied(spoken, said)
    settled += _converted(quantities, settled, made, own=own, under=under, rows=rows)
    _settle_conflicts(settled, made, own)
    _leave_out_of_place(made, own, under)
    return made


def _implied(spoken: Sequence[Word], said: Mapping[str, Any]) -> Iterator[Setting]:
    """What the use of a system's own keys, or one word, says by itself."""
    first = {system: (word, f"{system}'s keys say so") for system, _, word in reversed(spoken)}
    first |= {f"{word.key}={word.value}": (word, "it says so by itself") for _, _, word in spoken}
    for name, (word, note) in first.items():
        settings = IMPLIED.get(name, {})
        if said.get("objective.name", settings.get("objective.name")) != settings.get("objective.name"):
            continue
        yield from (Setting(key, value, (word,), note) for key, value in settings.items() if key not in said)


def _meaning(row: Row, word: Given) -> str:
    """Two words with the same meaning are one word said twice."""
    if isinstance(row, Quantity):
        return row.quantity
    return word.key if isinstance(row, Ignored | Refused | Rest) else row.under + row.names


def _system(spoken: Sequence[Word]) -> str | None:
    """The system whose word names the model."""
    for system, row, _ in spoken:
        if isinstance(row, Same) and row.to == "model.path":
            extended = EXTENDED.get(system, ())
            return next((other for other, _, _ in spoken if other in extended), system)
    return None


def _defaults(system: str | None, spoken: Sequence[Word]) -> Iterator[Word]:
    """All defaults of `system`; without one, those that a spoken quantity means nothing without."""
    families = {
        (other, quantity)
        for other, row, _ in spoken
        for family in TOGETHER
        if isinstance(row, Quantity) and row.quantity in family
        for quantity in family
    }
    for name in (system,) if system else sorted({other for other, _ in families}):
        for text in DEFAULTS[name].words if name in DEFAULTS else ():
            key, value = re.split("[= ]", text.removeprefix("--"), maxsplit=1)
            found = find(key)
            assert found is not None, text
            if system or (isinstance(found[1], Quantity) and (name, found[1].quantity) in families):
                yield (*found, given(key, value, text, DEFAULT))


def _settle(row: Row, word: Given, made: Translation, on: Collection[str]) -> list[Setting]:
    """What one word sets by itself; its refusal or the reason for its silence goes to `made`."""
    if word.value is None and _knows_none(row):
        word = replace(word, value="none")
    if isinstance(row, Ignored) and row.unless in on and word.value not in (None, ""):
        made.refused.append(f"{word.shown} is refused: it has no counterpart here. Leave it out")
    elif isinstance(row, Ignored):
        made.ignored.append((word, row.why))
    elif isinstance(row, Refused):
        if word.value in row.off or (word.value in (None, []) and "null" in row.off):
            made.ignored.append((word, "off, as it is here"))
        else:
            made.refused.append(f"{word.shown} is refused: {row.why}. {row.instead[0].upper()}{row.instead[1:]}")
    elif word.value is None or (isinstance(row, Quantity) and word.value in row.unset):
        made.ignored.append((word, "not set there"))
    elif isinstance(row, Same | Choice) and row.needs and row.needs not in on:
        made.ignored.append((word, "it belongs to a feature that is not turned on"))
    elif "${" in str(word.value) or "$(" in str(word.value) or "`" in str(word.value):
        made.refused.append(f"{word.shown} is refused: it holds an expression. Type its value")
    else:
        try:
            return _settings(row, word, made)
        except UnitError as error:
            made.refused.append(str(error))
    return []


def _knows_none(row: Row) -> bool:
    """Whether `none` is one of its values, and not the absence of one."""
    values = row.values if isinstance(row, Choice) else row.items if isinstance(row, Listing) else ()
    return any("none" in spellings.split() for spellings in values)


def _settings(row: Row, word: Given, made: Translation) -> list[Setting]:
    match row:
        case Same():
            value = "0" if _single(word) == row.off else row.special.get(_single(word), _single(word))
            if value is None:
                made.ignored.append((word, "not set there"))
                return []
            return [Setting(k, v, (word,)) for k, v in {row.to: value, **row.also}.items()]
        case Rest():
            return [Setting(row.to + word.key.removeprefix(row.spellings[0][:-1]), _single(word), (word,))]
        case Pair():
            if not isinstance(word.value, list) or len(word.value) != 2:
                raise UnitError(f"{word.shown}: found {word.value!r}; it needs two numbers, [0.9,0.999]")
            return [Setting(key, value, (word,)) for key, value in zip(row.to, word.value, strict=True)]
        case Choice():
            settings = _chosen(row, row.values, _single(word), word)
            if not settings:
                made.ignored.append((word, "it is so here"))
            return settings
        case Listing():
            return _listed(row, word)
        case _:
            return []


def _chosen(row: Choice | Listing, values: Mapping[str, Settings], value: str, word: Given) -> list[Setting]:
    for spellings, settings in values.items():
        if str(value).lower() in spellings.split():
            note = row.notes.get(str(value).lower()) or ""
            return [Setting(k, v, (word,), note) for k, v in settings.items()]
    raise UnitError(f"{word.shown} is refused: {row.otherwise}")


def _listed(row: Listing, word: Given) -> list[Setting]:
    items = word.value if isinstance(word.value, list) else re.split(r"[,\s]+", word.value)
    settings = [s for item in items for s in _chosen(row, row.items, item, word)]
    return [Setting("log.sinks", ("jsonl", *(s.value for s in settings)), (word,))]


def _single(word: Given) -> str:
    if not isinstance(word.value, list):
        return word.value
    if len(word.value) != 1:
        raise UnitError(f"{word.shown} is refused: it takes one value here, and has {len(word.value)}")
    return word.value[0]


def _converted(
    quantities: Mapping[str, Given],
    settled: Sequence[Setting],
    made: Translation,
    *,
    own: Mapping[str, tuple[Any, int]],
    under: Mapping[str, Any],
    rows: Callable[[str, str], int | None],
) -> list[Setting]:
    best = {setting.key: setting for setting in sorted(settled, key=lambda s: s.rank)}
    ranks = {key: setting.rank for key, setting in best.items()}
    ranks |= {key: rank for key, (_, rank) in own.items() if rank > ranks.get(key, DEFAULT)}

    def value(key: str) -> Any:
        if key in own and own[key][1] == ranks[key]:
            return own[key][0]
        return best[key].value if key in best else under[key]

    conversion = Conversion(quantities, value, ranks, lambda: rows(str(value("data.train")), str(value("data.split"))))
    made.refused += convert(conversion)
    made.ignored += conversion.silent
    return conversion.settings


def _settle_conflicts(settled: Sequence[Setting], made: Translation, own: Mapping[str, tuple[Any, int]]) -> None:
    """One value per key: the higher rank, then the later; an own key of the same place beats both."""
    named = own["objective.name"][1] if "objective.name" in own else DEFAULT
    for setting in sorted(settled, key=lambda s: s.rank):
        if setting.rank + 1 < named and setting.key.startswith("objective."):
            continue  # another method starts from its own published setting
        if setting.key in own and own[setting.key][1] > setting.rank:
            if setting.rank > DEFAULT:
                made.overruled.append((setting, f"{setting.key} = {typed(own[setting.key][0])}"))
            continue
        loser = made.settings.pop(setting.key, None)
        if loser is not None and loser.rank > DEFAULT and loser.value != setting.value:
            made.overruled.append((loser, shown_of(setting)))
        made.settings[setting.key] = setting


def _leave_out_of_place(made: Translation, own: Mapping[str, tuple[Any, int]], under: Mapping[str, Any]) -> None:
    """A file that spells out every key also gives those that its objective does not read."""
    name = own["objective.name"][0] if "objective.name" in own else under["objective.name"]
    chosen = made.settings.get("objective.name")
    name = chosen.value if chosen is not None else name
    variants = {v.model_fields["name"].default: v for v in get_args(get_args(ObjectiveConfig)[0])}
    fields = set(_fields(variants[name], "objective.")) if name in variants else set()
    for key in [key for key in made.settings if key.startswith("objective.") and fields and key not in fields]:
        setting = made.settings.pop(key)
        made.ignored += [
            (word, f"{name} has no {key.removeprefix('objective.')}") for word in setting.of if setting.rank > DEFAULT
        ]


def _fields(section: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in section.model_fields.items():
        if isinstance(info.default, BaseModel):
            yield from _fields(type(info.default), f"{prefix}{name}.")
        else:
            yield prefix + name
