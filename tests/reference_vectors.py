"""Numbers that the reference implementations (verl, TRL) produced, kept beside the repository in `../shared`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).resolve().parents[1].parent / "shared" / "algorithms_vectors.json"

TOLERANCE = 1e-5


def reference(section: str) -> Any:
    """One section of the reference numbers; skips the test where they are not at hand."""
    if not PATH.exists():
        pytest.skip(f"the reference numbers are not at {PATH}")
    return json.loads(PATH.read_text())[section]
