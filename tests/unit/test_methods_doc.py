"""`docs/methods.md` names every objective and preset, and its defaults are the schema's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from burnish.config import Confidence
from burnish.config.objectives import Common, ObjectiveConfig
from burnish.overrides import PRESETS

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")

OBJECTIVES = {kind.model_fields["name"].default: kind for kind in get_args(get_args(ObjectiveConfig)[0])}


def flattened(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(cast(dict[str, Any], value), f"{before}{key}.")
        else:
            yield before + key, value


def spelt(value: Any) -> str:
    """As it is typed in an override."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def stated(first_cell: str) -> dict[str, str]:
    """The `key=value` codes of the table row that begins with this cell."""
    rows = [line for line in DOC.splitlines() if line.startswith(f"| {first_cell} |")]
    defaults = [pair for row in rows for pair in re.findall(r"`([\w.]+)=([^`]*)`", row)]
    assert len(dict(defaults)) == len(defaults), f"{first_cell} states a default twice"
    return dict(defaults)


COMMON = {key: spelt(value) for key, value in flattened(Common().model_dump())}


def test_the_defaults_of_every_objective_are_those_stated():
    assert stated("every objective") == COMMON


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objectives_defaults_are_those_stated_and_none_is_left_out(name: str):
    defaults = {key: spelt(value) for key, value in flattened(OBJECTIVES[name]().model_dump()) if key != "name"}
    assert stated(f"`{name}`") == {key: value for key, value in defaults.items() if COMMON.get(key) != value}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_a_section(name: str):
    assert re.search(rf"^### .*\(`{name}`\)$", DOC, flags=re.MULTILINE)


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_preset_is_named(preset: str):
    assert f"`burnish train {preset}`" in DOC


def test_the_defaults_of_stated_confidence_are_those_stated():
    defaults = {key: spelt(value) for key, value in Confidence().model_dump().items()}
    assert stated("confidence") == defaults


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", DOC))))
def test_every_link_leads_somewhere(target: str):
    assert (ROOT / "docs" / target).exists()
