"""`docs/requirements.md`: the words do what the tables say, and the proofs that they name are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from burnish.config import resolved
from burnish.overrides import load_config

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs" / "requirements.md").read_text(encoding="utf-8")

WORDS, FEATURES = DOC.split("## Features")
TYPED = re.findall(r"^\| `([^`]+)` \| `([\w.]+)=([^`]*)` \|$", WORDS, flags=re.MULTILINE)
PROOFS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", DOC)))


def flattened(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flattened(cast(dict[str, Any], value), f"{before}{key}.")
        else:
            yield before + key, value


def spelt(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def test_every_row_of_the_tables_of_words_is_read():
    rows = [line for line in WORDS.splitlines() if line.startswith("| `")]
    assert len(TYPED) == len(rows) > 60


@pytest.mark.parametrize(("typed", "key", "value"), TYPED, ids=[row[0] for row in TYPED])
def test_what_is_typed_becomes_what_is_said(typed: str, key: str, value: str):
    config = load_config(shlex.split(typed), tell=lambda text: None)
    assert spelt(dict(flattened(resolved(config)))[key]) == value


@pytest.mark.parametrize(("file", "test"), PROOFS)
def test_every_proof_is_there(file: str, test: str):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not test or f"def {test}(" in text


def test_every_feature_has_a_proof_or_says_that_it_is_not_there():
    for line in FEATURES.split("## Contradictions")[0].splitlines():
        if line.startswith("| ") and not line.startswith("| named there"):
            cells = line.strip("| ").split(" | ")
            assert re.search(r"`tests/[\w/]+\.py::test_\w+`", cells[-1]) or "not yet" in line, line


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", DOC))))
def test_every_link_leads_somewhere(target: str):
    assert (ROOT / "docs" / target).exists()
