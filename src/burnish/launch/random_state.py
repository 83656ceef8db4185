"""The generators that Python, numpy and torch share within a process.

Nothing of ours draws from them: every draw has a seed of its own (`seeds.py`). A reward, term or sampler that is given
from Python may, so they are seeded when a run begins and kept in its checkpoints.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from burnish import seeds


def seed(run_seed: int) -> None:
    """Seed all of them, each with a seed of its own."""
    random.seed(seeds.derive(run_seed, "random", "python"))
    np.random.seed(seeds.derive(run_seed, "random", "numpy") % (1 << 32))
    torch.manual_seed(seeds.derive(run_seed, "random", "torch"))


def state_dict() -> dict[str, Any]:
    """Where they stand, as plain JSON values: no pickle and no tensor."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state().numpy().tobytes().hex(),
        "cuda": [state.numpy().tobytes().hex() for state in devices],
    }


def load_state_dict(state: Mapping[str, Any]) -> None:
    """Put them back; of CUDA devices, those that are here."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state["torch"]))
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index, device in enumerate(state["cuda"][:here]):
        torch.cuda.set_rng_state(_bytes(device), index)


def _bytes(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
