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
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from burnish.config import RunConfig, resolved
from burnish.config.keys import keys, written
from burnish.foreign import words as foreign
from burnish.foreign.aliases import CONFIG_NAMES
from burnish.foreign.conversion import IN_FILE, IN_WORDS, Given
from burnish.foreign.shell import ScriptError, trainer_words
from burnish.masking import MASK, masked_keys
from burnish.terminal import show
from burnish.trees import Tree, flattened, interpolated, merge, nested
from burnish.yaml_text import parse_yaml

PRESETS = Path(__file__).parent / "presets"
DEFAULT_PRESET = "add23"
MAX_FILE_BYTES = 1 << 20
SUFFIXES = frozenset((".toml", ".yaml", ".yml", ".json"))
CONFIG_WORDS = frozenset(("config", "config_name", "config_path", "config_dir", "accelerate_config"))
SHORT = {"-cn": "--config-name", "-cp": "--config-path", "-cd": "--config-dir"}
HYDRA_FOLDERS = (".", "config", "recipe/dapo/config", "verl/trainer/config")
"""Where a file given by name alone is looked for."""


class ConfigError(ValueError):
    """What was typed cannot run. The message says what was found, what is needed and what to type."""


def load_config(words: Sequence[str], *, tell: Callable[[str], None] | None = None) -> RunConfig:
    """Resolve the words after `burnish train`, and tell (by default stderr) what became of foreign ones.

    Raises:
        ConfigError: unknown key or preset, unreadable file, wrong value, values that do not fit together, or a foreign
            word that cannot be honoured.
    """
    resolution = resolve(words)
    if resolution.translation is not None:
        lines = ["what the words of another system became:", *resolution.translation.lines()]
        (tell or _to_stderr)("\n  ".join(lines))
    if hidden := masked_keys(resolved(resolution.config)):
        raise ConfigError(
            f"{hidden[0]} holds {MASK}, which saved configurations have in place of secrets. Type {hidden[0]}=VALUE, "
            "or have the function read it from the environment"
        )
    return resolution.config


def revise(saved: Mapping[str, Any], words: Sequence[str]) -> RunConfig:
    """A run's own configuration with words over it; or, where the words name a preset or a file, what they come to.

    Raises:
        ConfigError: as `load_config`.
    """
    preset, files, pairs = _sources(list(words))
    if preset is not None or files:
        return load_config(words)
    overrides: Tree = {}
    for key, value, _ in pairs:
        merge(overrides, nested({key: value}))
    _refuse_unknown(overrides)
    return _layered(dict(saved), {}, {}, {}, overrides, None).config


def _to_stderr(text: str) -> None:
    show(text, sys.stderr)


@dataclass(frozen=True)
class Resolution:
    """What words came to."""

    config: RunConfig
    tree: Tree
    """What presets, files and words set, without the schema's defaults."""
    translation: foreign.Translation | None
    """None when every word was one of ours."""


def resolve(words: Sequence[str]) -> Resolution:
    """Words to a validated config, with the account of foreign ones. Raises as `load_config` does."""
    try:
        words = trainer_words(words) or list(words)
    except ScriptError as error:
        raise ConfigError(str(error)) from None
    preset, files, pairs = _sources(words)
    filed: Tree = {}
    overrides: Tree = {}
    theirs: list[Given] = []
    for name, tree in files:
        own_tree, others = _told_apart(tree, name)
        merge(filed, own_tree)
        theirs += others
    has_own_source = preset is not None or bool(files and not theirs)
    for key, value, shown in pairs:
        if foreign.find(key) is None:
            merge(overrides, nested({key: value}))
        else:
            theirs.append(foreign.given(key, value, shown, IN_WORDS))
    _refuse_unknown(overrides)
    named = [tree for tree in (filed, overrides) if "path" in tree.get("model", {})]
    if not has_own_source and not named and not any(map(foreign.names_model, theirs)):
        preset, has_own_source = read_source(DEFAULT_PRESET), True
    preset = preset or {}
    if not theirs:
        return _layered(preset, {}, filed, {}, overrides, None)
    translation = foreign.translate(
        theirs,
        own={k: (v, 1) for k, v in flattened(filed)} | {k: (v, 3) for k, v in flattened(overrides)},
        under=dict(flattened(RunConfig().model_dump())) | dict(flattened(preset)),
        fill=not has_own_source,
        rows=_count_rows,
    )
    if translation.refused:
        raise ConfigError("\n".join(translation.refused))
    low, high = ({s.key: s.value for s in translation.ranked(words=said)} for said in (False, True))
    return _layered(preset, nested(low), filed, nested(high), overrides, translation)


def _refuse_unknown(overrides: Tree) -> None:
    """A key outside all our sections is shown whole, with the key it was meant to be."""
    unknown = [key for key, _ in flattened(overrides) if key.split(".")[0] not in RunConfig.model_fields]
    if unknown:
        raise ConfigError("\n".join(f"unknown key {key!r}{_did_you_mean(key)}" for key in unknown))


def _layered(
    preset: Tree, low: Tree, filed: Tree, high: Tree, overrides: Tree, translation: foreign.Translation | None
) -> Resolution:
    """Later layers win. A layer that names the objective starts from that one's own published setting."""
    names = ["name" in layer.get("objective", {}) for layer in (low, filed, high, overrides)]
    if any(names):
        preset = {key: value for key, value in preset.items() if key != "objective"}
    if any(names[2:]):
        filed = {key: value for key, value in filed.items() if key != "objective"}
    tree: Tree = {}
    for layer in (preset, low, filed, high, overrides):
        merge(tree, layer)
    return Resolution(validate(tree), tree, translation)


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


def _sources(words: list[str]) -> tuple[Tree | None, list[tuple[str, Tree]], list[tuple[str, Any, str]]]:
    """The preset, the files by name, and the overrides, in the order of the words."""
    preset: Tree | None = None
    files: list[tuple[str, Tree]] = []
    if words and not words[0].startswith("-") and "=" not in words[0]:
        first = words.pop(0)
        if Path(first).suffix in SUFFIXES:
            files.append((Path(first).name, read_source(first)))
        else:
            preset = read_source(first)
    pairs = list(_pairs(words))
    said = {key: value for key, value, _ in pairs if key in CONFIG_WORDS}
    for key in ("config", "accelerate_config"):
        if said.get(key):
            files.append((Path(said[key]).name, _read_file(Path(said[key]))))
    if said.get("config_name"):
        files += _hydra_files(said["config_name"], said.get("config_path") or said.get("config_dir"))
    return preset, files, [pair for pair in pairs if pair[0] not in CONFIG_WORDS]


def _hydra_files(name: str, folder: str | None, depth: int = 0) -> list[tuple[str, Tree]]:
    """The file that `--config-name` means, after those that its `defaults` list; or the words that stand for it."""
    stem = name.removesuffix(".yaml")
    places = [Path(place) / f"{stem}.yaml" for place in ([folder] if folder else HYDRA_FOLDERS)]
    path = next((place for place in places if place.is_file()), None)
    if path is None or depth > len(HYDRA_FOLDERS):
        if stem in CONFIG_NAMES:
            pairs = (word.split("=", 1) for word in CONFIG_NAMES[stem])
            return [(stem, nested(dict(pairs)))]
        looked = ", ".join(map(str, places))
        raise ConfigError(f"--config-name {name}: there is no {looked}. Type --config-path FOLDER, or --config FILE")
    tree = _read_file(path)
    listed = tree.pop("defaults", None) or []
    before: list[tuple[str, Tree]] = []
    for entry in listed if isinstance(listed, list) else [listed]:
        if not isinstance(entry, str):
            before.append((path.name, {"hydra": {"defaults": str(entry)}}))
        elif entry != "_self_":
            before += _hydra_files(entry, str(path.parent), depth + 1)
    return [*before, (path.name, tree)]


def _told_apart(tree: Tree, name: str) -> tuple[Tree, list[Given]]:
    """A file's own keys, nested, and its foreign ones."""
    leaves = dict(flattened(tree))
    if not any(map(foreign.find, leaves)):
        return tree, []
    leaves = interpolated(leaves)
    theirs = {key: value for key, value in leaves.items() if foreign.find(key)}
    own = {key: value for key, value in leaves.items() if key not in theirs}
    shown = {key: f"{name}: {key}={foreign.typed(value)}" for key, value in theirs.items()}
    return nested(own), [foreign.given(key, value, shown[key], IN_FILE) for key, value in theirs.items()]


def _count_rows(source: str, split: str) -> int | None:
    """Rows of a training set; None for one that is not here, or would have to be downloaded."""
    from burnish.prompts.rows import Reading, read_rows
    from burnish.prompts.tasks import TASKS, TRAIN_POOL

    if source in TASKS:
        return TRAIN_POOL
    path = Path(source).expanduser()
    if path.suffix == ".parquet" and path.is_file():
        from pyarrow import parquet

        return parquet.ParquetFile(path).metadata.num_rows
    if not path.exists():
        return None
    return sum(1 for _ in read_rows(source, split=split, reading=Reading()))


def read_source(source: str) -> Tree:
    """A preset by name, or a TOML, YAML or JSON file by path."""
    path = Path(source)
    if path.suffix in SUFFIXES:
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
    try:
        text = path.read_text(encoding="utf-8")
        match path.suffix:
            case ".toml":
                tree = nested({key: _value(leaf) for key, leaf in flattened(tomllib.loads(text))})
            case ".json":
                tree = json.loads(text)
            case _:
                tree = parse_yaml(text)
    except (ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"config file {path} is not valid {path.suffix[1:].upper()}: {error}") from None
    except RecursionError:
        raise ConfigError(
            f"config file {path} is not valid {path.suffix[1:].upper()}: it is nested too deeply"
        ) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {path} holds a {type(tree).__name__}; it needs sections with keys")
    return tree


def _pairs(words: list[str]) -> Iterator[tuple[str, Any, str]]:
    """Key, value, and the words as they were typed."""
    words = list(words)
    while words:
        word = words.pop(0)
        word = SHORT.get(word, word)
        flag = word.startswith("--")
        key, equals, text = word.removeprefix("--").partition("=")
        if not equals and not flag:
            raise ConfigError(f"found {word!r} among the overrides; write key=value or --key value")
        key = key.replace("-", "_") if flag else key.removeprefix("++").removeprefix("+").replace("-", "_")
        if equals:
            yield key, _value(text), word
            continue
        items = []
        while (
            words and not words[0].startswith("--") and "=" not in words[0] and (not items or foreign.takes_list(key))
        ):
            items.append(words.pop(0))
        if not items and key.startswith("no_") and foreign.find(key) is None and foreign.find(key.removeprefix("no_")):
            yield key.removeprefix("no_"), "false", word
        else:
            yield key, items if len(items) > 1 else _value(items[0] if items else "true"), " ".join((word, *items))


def _value(text: Any) -> Any:
    """Null and lists are read as such; everything else stays text for the schema to parse."""
    if not isinstance(text, str):
        return text
    if text.lower() in ("none", "null"):
        return None
    if text.startswith(("[", "{")):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return text
    return text


def _sentences(error: ValidationError) -> Iterator[str]:
    for e in error.errors():
        where = written(e["loc"])
        if e["type"] == "extra_forbidden":
            yield f"unknown key {where!r}{_did_you_mean(where)}"
        elif e["type"] == "missing":
            yield f"{where} is not given. Type {where}=VALUE"
        elif e["type"] == "value_error":
            yield e["msg"].removeprefix("Value error, ")
        else:
            message = e["msg"][0].lower() + e["msg"][1:]
            yield f"{where}: found {e['input']!r}; {message}"


def _did_you_mean(where: str) -> str:
    known = list(keys())
    other = foreign.nearest(where)
    if other is not None and not difflib.get_close_matches(where, known, n=1, cutoff=0.9):
        return f"; did you mean {other}?"
    near = difflib.get_close_matches(where, known, n=1, cutoff=0.75)
    leaf = where.rsplit(".", 1)[-1]
    near = [k for k in known if k.rsplit(".", 1)[-1] == leaf][:1] or near
    near = near or [k for k in known if difflib.get_close_matches(leaf, [k.rsplit(".", 1)[-1]], cutoff=0.75)][:1]
    return f"; did you mean {near[0]!r}?" if near else "; `burnish config --keys` lists all keys"
