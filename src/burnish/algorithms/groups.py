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


def total(values_B: Tensor, index_B: Tensor, num_groups: int) -> Tensor:
    """Sum of each group's values, [P]."""
    return values_B.new_zeros(num_groups).index_add(0, index_B, values_B)


def mean(values_B: Tensor, index_B: Tensor, num_groups: int, *, among_B: Tensor) -> Tensor:
    """Mean over the sequences of each group that are `among_B` (bool), [P]; 0 for a group without any."""
    count_P = total(among_B.to(values_B.dtype), index_B, num_groups)
    return total(values_B.masked_fill(~among_B, 0.0), index_B, num_groups) / count_P.clamp(min=1)


def log_softmax(values_B: Tensor, index_B: Tensor, num_groups: int, *, among_B: Tensor) -> Tensor:
    """Log-softmax within each group over the sequences that are `among_B` (bool), [B]; -inf for the others."""
    held_B = values_B.masked_fill(~among_B, -torch.inf)
    top_P = held_B.new_full((num_groups,), -torch.inf).scatter_reduce(0, index_B, held_B.detach(), "amax")
    shifted_B = values_B - top_P.nan_to_num(neginf=0.0)[index_B]
    weight_P = total(shifted_B.masked_fill(~among_B, -torch.inf).exp(), index_B, num_groups)
    # A group without any such sequence has weight 0; its members are all masked, so any finite logarithm will do.
    return (shifted_B - weight_P.masked_fill(weight_P == 0, 1.0).log()[index_B]).masked_fill(~among_B, -torch.inf)
