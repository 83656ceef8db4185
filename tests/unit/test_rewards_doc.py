"""What `docs/rewards.md` shows is what runs."""

from __future__ import annotations

import re
import shlex
from array import array
from pathlib import Path
from typing import get_args

import pytest
import yaml

from burnish.config.reward import KINDS, CombineConfig
from burnish.overrides import load_config, validate
from burnish.rewards.plugins import Plugin
from burnish.types import Completion, Prompt

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("command", [line for block in blocks("sh") for line in block.splitlines()])
def test_every_command_is_understood(command: str):
    program, action, *words = shlex.split(command)
    assert (program, action) == ("burnish", "train")
    load_config(words)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_file_is_understood(text: str):
    assert validate(yaml.safe_load(text)).reward.parts


def plugin_of(text: str, folder: Path, function: str) -> Plugin:
    (folder / "my_rewards.py").write_text(text)
    return Plugin(f"{folder}/my_rewards.py:{function}", seconds=5.0, isolated=False)


def test_the_functions_shown_are_plugins(tmp_path: Path):
    counting, remembering = blocks("python")
    completion = Completion(array("i"), array("i"), array("f"), "a\nb\nc\n", "stop", 0)
    (measured,) = plugin_of(counting, tmp_path, "clarity")(Prompt(id="p", text="?"), [completion])
    assert measured.value == 3 / 8
    novelty = plugin_of(remembering, tmp_path, "novelty")
    assert [m.value for m in novelty(Prompt(id="p", text="?"), [completion] * 2)] == [1.0, 0.5]
    assert novelty.state_dict() == 2


def test_every_kind_of_part_and_every_combination_is_listed():
    combinations = [variant.model_fields["name"].default for variant in get_args(get_args(CombineConfig)[0])]
    assert [kind for kind in KINDS if f"kind `{kind}`" not in PAGE] == []
    assert [name for name in combinations if f"| `{name}` |" not in PAGE] == []
