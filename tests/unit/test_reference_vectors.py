"""The reference numbers are all used: every section and every entry of it is read by some test."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.reference_vectors import PATH

HERE = Path(__file__)
PROSE = {"_about", "source", "note"}


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    if not PATH.exists():
        pytest.skip(f"the reference numbers are not at {PATH}")
    found = json.loads(PATH.read_text())
    return {name: section for name, section in found.items() if name not in PROSE}


@pytest.fixture(scope="module")
def tests() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in HERE.parent.glob("test_*.py") if path != HERE)


def entries(section: Any) -> Iterator[str]:
    """Names of a section's numbers; of a table, those of its columns."""
    for row in section if isinstance(section, list) else [section]:
        for name, value in row.items():
            yield name
            if isinstance(value, dict):
                yield from value


def test_every_section_is_read_by_a_test(vectors: dict[str, Any], tests: str):
    read = set(re.findall(r'reference\("([^"]+)"\)', tests))
    assert len(vectors) > 8
    assert read == set(vectors)


def test_every_number_is_named_in_a_test(vectors: dict[str, Any], tests: str):
    named = {(section, name) for section, rows in vectors.items() for name in entries(rows)}
    assert len(named) > 80
    assert sorted(pair for pair in named if f'"{pair[1]}"' not in tests and pair[1] not in PROSE) == []
