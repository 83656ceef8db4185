"""A module of jobs whose own check fails."""

from __future__ import annotations

from typing import Any

JOBS: dict[str, Any] = {}


def self_check() -> None:
    raise RuntimeError("two and two make five here")
