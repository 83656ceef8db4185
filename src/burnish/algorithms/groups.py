"""Groups as tensor arithmetic: membership by id, so that order, sizes and numbering of groups do not matter.

Shape letters: B sequences, P groups.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor


def dense(group_B: Tensor) -> tuple[Tensor, int]:
    """Renumber any integer ids as 0..P-1: (int64 [B], P). Groups without a member are not counted."""
    ids_P, index_B = cast(tuple[Tensor, Tensor], torch.unique(group_B, return_inverse=True))  # pyright: ignore[reportUnknownMemberType]
    return index_B, len(ids_P)
