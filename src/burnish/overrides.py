"""Preset names, files and `key=value` words -> a validated `RunConfig`.

    burnish train                                       the embedded default: preset `add23`
    burnish train dapo model.path=./my-model            a preset, then overrides
    burnish train run.yaml --optimizer.learning-rate 2e-6 sampling.group_size=16

Later words win. Values stay text until the schema parses them, so `1e-6` is a number wherever a number is wanted,
whichever file or shell it came from.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from burnish.config import ObjectiveConfig, RunConfig

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "add23"
MAX_FILE_BYTES = 1 << 20

Tree = dict[str, Any]


class ConfigError(ValueError):
    """What was typed cannot run. The message says what was found, what is needed and what to type."""


def load_config(words: Sequence[str]) -> RunConfig:
    """Resolve the words after `burnish train`.

    Raises:
        ConfigError: unknown key or preset, unreadable file, wrong value, or values that do not fit together.
    """
    words = list(words)
    source = words.pop(0) if words and not words[0].startswith("-") and "=" not in words[0] else None
    overrides: Tree = {}
    for key, value in _pairs(words):
        _merge(overrides, _nested(key, value))
    if source is None and "path" not in overrides.get("model", {}):
        source = DEFAULT_PRESET
    tree = read_source(source) if source else {}
    if "name" in overrides.get("objective", {}):
        tree.pop("objective", None)  # another method starts from its own published setting
    _merge(tree, overrides)
    return validate(tree)


def validate(tree: Mapping[str, Any]) -> RunConfig:
    """Validate a nested mapping, as read from a file or a run folder."""
    tree = dict(tree)
    objective = tree.get("objective")
    if isinstance(objective, dict):
        default: Any = RunConfig.model_fields["objective"].default
        tree["objective"] = {"name": default.name, **objective}
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(dict.fromkeys(_sentences(error)))) from None


def presets() -> dict[str, str]:
    """Preset name -> its first comment line."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted(PRESETS.glob("*.toml"))}
    return {name: text.split("\n", 1)[0].removeprefix("#").strip() for name, text in found.items()}


def read_source(source: str) -> Tree:
    """A preset by name, or a TOML, YAML or JSON file by path."""
    path = Path(source)
    if path.suffix in {".toml", ".yaml", ".yml", ".json"}:
        return _read_file(path)
    preset = PRESETS / f"{source}.toml"
    if source in presets():
        return _read_file(preset)
    near = difflib.get_close_matches(source, presets(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(
        f"there is no preset {source!r}; {hint}Presets: {', '.join(presets())}. A file ends in .toml, .yaml or .json; "
        "an override is written key=value or --key value"
    )


def _read_file(path: Path) -> Tree:
    if not path.is_file():
        raise ConfigError(f"config file {path} does not exist")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ConfigError(f"config file {path} has {path.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
    text = path.read_text(encoding="utf-8")
    try:
        match path.suffix:
            case ".toml":
                tree = tomllib.loads(text)
            case ".json":
                tree = json.loads(text)
            case _:
                tree = yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file {path} is not valid {path.suffix[1:].upper()}: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {path} holds a {type(tree).__name__}; it needs sections with keys")
    return tree


def _pairs(words: list[str]) -> Iterator[tuple[str, Any]]:
    words = list(words)
    while words:
        word = words.pop(0)
        flag = word.startswith("--")
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals and not flag:
            raise ConfigError(f"found {word!r} among the overrides; write key=value or --key value")
        if not equals:
            bare = not words or words[0].startswith("--") or "=" in words[0]
            text = "true" if bare else words.pop(0)
        yield key.replace("-", "_"), _value(text)


def _value(text: str) -> Any:
    """Null and lists are read as such; everything else stays text for the schema to parse."""
    if text.lower() in ("none", "null"):
        return None
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _nested(dotted: str, value: Any) -> Tree:
    for part in reversed(dotted.split(".")):
        value = {part: value}
    return value


def _merge(into: Tree, new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _sentences(error: ValidationError) -> Iterator[str]:
    for e in error.errors():
        names = {c.model_fields["name"].default for c in objective_classes()}
        where = ".".join(str(part) for part in e["loc"] if part not in names)
        if e["type"] == "extra_forbidden":
            yield f"unknown key {where!r}{_did_you_mean(where)}"
        elif e["type"] == "value_error":
            yield e["msg"].removeprefix("Value error, ")
        else:
            message = e["msg"][0].lower() + e["msg"][1:]
            yield f"{where}: found {e['input']!r}; {message}"


def _did_you_mean(where: str) -> str:
    known = list(keys())
    near = difflib.get_close_matches(where, known, n=1, cutoff=0.75)
    leaf = where.rsplit(".", 1)[-1]
    near = [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1] or near
    near = near or [k for k in known if difflib.get_close_matches(leaf, [k.rsplit(".", 1)[-1]], cutoff=0.75)][:1]
    return f"; did you mean {near[0]!r}?" if near else "; `burnish config --keys` lists all keys"


def objective_classes() -> tuple[type[BaseModel], ...]:
    return get_args(get_args(ObjectiveConfig)[0])


def keys() -> dict[str, tuple[str, str]]:
    """Every key of the schema -> (its default as text, its meaning)."""
    found: dict[str, tuple[str, str]] = {}

    def visit(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            default = field.default
            if name == "objective":
                for variant in objective_classes():
                    visit(variant, f"{prefix}objective.")
            elif isinstance(default, BaseModel):
                visit(type(default), f"{prefix}{name}.")
            else:
                found.setdefault(prefix + name, (str(default), " ".join((field.description or "").split())))
            for optional in get_args(field.annotation):
                if isinstance(optional, type) and issubclass(optional, BaseModel):
                    visit(optional, f"{prefix}{name}.")

    visit(RunConfig, "")
    return found
