"""What a run is, as its record states it: the same for every attempt, and for a record that has to be made again."""

from __future__ import annotations

import hashlib
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from burnish import __version__
from burnish.config import RunConfig, resolved
from burnish.masking import masked

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "math-verify")


def identity(config: RunConfig, data: str, *, run_id: str) -> dict[str, Any]:
    """Keys and values of `store.sqlite.RUN_KEYS`; `data`: fingerprint of the training data."""
    return {
        "run_id": run_id,
        "name": config.name,
        "objective": config.objective.name,
        "config": masked(resolved(config)),
        "data": data,
        "packages": versions(),
        "code": __version__,
        "host": f"{platform.system()} {platform.machine()}",
    }


def new_id(config: RunConfig) -> str:
    """The id of a run that begins, made of what it cannot change on its way: it stays when its folder is moved."""
    fixed = [config.out, config.name, config.seed, config.objective.name]
    return f"{folder_of(config).name}-{sha256(fixed)[:12]}"


def folder_of(config: RunConfig) -> Path:
    """Where a run of this config begins; its folder may be moved later. A tilde in a name is no home folder."""
    out = str(Path(config.out).expanduser())
    return Path(out.replace("{name}", config.name).replace("{seed}", str(config.seed)))


def versions() -> dict[str, str]:
    """Of this program, Python, and the packages that bits depend on."""
    found = {name: version(name) for name in PACKAGES}
    return {"burnish": __version__, "python": platform.python_version()} | found


def sha256(tree: Any) -> str:
    """Of plain values, whatever the order of keys."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()
