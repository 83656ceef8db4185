"""`burnish import`: a pasted command, launch script or foreign config file -> a config file of ours.

Every key of the file says in a comment which words it comes from; what was ignored, and why, stands at its end. Scripts
are read, never run (`burnish.foreign.shell`).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from burnish.config import resolved
from burnish.foreign import words as foreign
from burnish.foreign.shell import Command, ScriptError, commands, trainer_words
from burnish.overrides import MAX_FILE_BYTES, SUFFIXES, ConfigError, Resolution, resolve
from burnish.trees import Tree, flattened, nested

COMMENT_COLUMN = 44


def import_words(pasted: Sequence[str]) -> list[str]:
    """The words for `resolve` in what was pasted: the words of a command, its text, a script or a config file, or
    nothing, for a command on standard input.

    Raises:
        ConfigError: no trainer is started in it, or its words need a shell to be known.
    """
    if len(pasted) > 1:
        return trainer_words(pasted) or list(pasted)
    if pasted and Path(pasted[0]).suffix in SUFFIXES:
        return ["--config", pasted[0]]
    text = pasted[0] if pasted else sys.stdin.read(MAX_FILE_BYTES + 1)
    if pasted and "\n" not in text and Path(text).is_file():
        path = Path(text)
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
        text = path.read_text(encoding="utf-8")
    try:
        found = commands(text, os.environ)
    except ScriptError as error:
        raise ConfigError(str(error)) from None
    return _trainer(found)


def _trainer(found: Sequence[Command]) -> list[str]:
    """The words of the command that starts a training: of several, the one that says most of what we know."""
    started = [(command, words) for command in found if (words := trainer_words(command.words)) is not None]
    if not started and len(found) == 1 and found[0].problem is None:
        started = [(found[0], list(found[0].words))]
    if not started:
        shown = ", ".join(dict.fromkeys(command.words[0] for command in found)) or "nothing"
        raise ConfigError(f"no command that starts a training was found, only {shown}. Paste the `python ...` line")
    command, words = max(started, key=lambda one: sum(map(_is_known, one[1])))
    if command.problem is not None:
        raise ConfigError(command.problem)
    return words


def _is_known(word: str) -> bool:
    key = word.removeprefix("--").removeprefix("+").partition("=")[0].replace("-", "_")
    return foreign.find(key) is not None


def import_text(words: Sequence[str], *, suffix: str) -> str:
    """A config file, TOML or YAML by `suffix`, that resolves as `words` do.

    Raises:
        ConfigError: as `resolve` does.
    """
    resolution = resolve(words)
    values = _typed(resolution)
    comments = _comments(resolution)
    lines = list(_yaml(values, comments) if suffix in (".yaml", ".yml") else _toml(values, comments))
    if resolution.translation is not None:
        lines += ["", *(f"# ignored  {given.shown}: {why}" for given, why in resolution.translation.ignored)]
    return "\n".join(lines).strip("\n") + "\n"


def _typed(resolution: Resolution) -> Tree:
    """What files and words set, with values as the schema read them."""
    whole = resolved(resolution.config)

    def at(key: str) -> Any:
        value: Any = whole
        for part in key.split("."):
            value = value[part]
        return value

    tree = nested({key: at(key) for key, _ in flattened(resolution.tree)})
    return {key: tree[key] for key in whole if key in tree}


def _comments(resolution: Resolution) -> dict[str, str]:
    translation = resolution.translation
    settings = {} if translation is None else translation.settings
    return {
        key: foreign.origin(setting, translation.system if translation else None) for key, setting in settings.items()
    }


def _toml(tree: Tree, comments: dict[str, str], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        if not isinstance(value, dict) or not value:
            lines.append(_commented(f"{_toml_key(key)} = {_toml_value(value)}", comments.get(prefix + key)))
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            below = _toml(value, comments, f"{prefix}{key}.")
            table = ".".join(_toml_key(part) for part in f"{prefix}{key}".split("."))
            lines += below if below[0].startswith("\n[") else [f"\n[{table}]", *below]
    return lines


def _toml_key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() else json.dumps(key)


def _toml_value(value: Any) -> str:
    """TOML has no null; `none` is read as one."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps("none" if value is None else value)


def _yaml(tree: Tree, comments: dict[str, str], prefix: str = "", indent: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_yaml(value, comments, f"{prefix}{key}.", indent + "  ")]
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
            lines.append(_commented(f"{indent}{key}: {text}", comments.get(prefix + key)))
    return lines


def _commented(line: str, comment: str | None) -> str:
    return line if comment is None else f"{line:{COMMENT_COLUMN}}  # {comment}"
