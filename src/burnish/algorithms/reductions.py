"""Reductions as weights: the loss is always sum(weights_N * loss_N).

Shape letters: N completion tokens, B sequences, P groups.

Weights are computed once, from the whole update, before it is cut into pieces or spread over ranks. Pieces then add up
to the same loss and the same gradient however the update is cut.

What the denominators count, so that no choice of tokens can change the scale of the others by surprise:

- tokens: those that train (mask True), of the whole update;
- sequences and groups: the nominal number in the update. A completion that is empty, or whose tokens are all masked out
  (overlong filtering), adds nothing to the loss and still counts, as in TRL and in verl with a global batch size.

When nothing trains, every weight is 0 and none is NaN. All results are float32 [N], 0 where the mask is False.
"""

from __future__ import annotations

import torch
from torch import Tensor

from burnish.algorithms.groups import dense


def token_mean(mask_N: Tensor) -> Tensor:
    """Every token of the update weighs the same: 1 / tokens. DAPO as verl and TRL train it."""
    return mask_N.float() / mask_N.sum().clamp(min=1)


def prompt_mean(mask_N: Tensor, sequence_N: Tensor, group_B: Tensor) -> Tensor:
    """Every group weighs the same, and its tokens share that: 1 / (tokens in the group) / groups.

    The DAPO paper's equation (arXiv:2503.14476, equation 8): an expectation over prompts of a token mean within the
    prompt's samples. Not `token_mean`, which lets groups with long completions weigh more.
    """
    index_B, num_groups = dense(group_B)
    return _shared_weight(mask_N, index_B[sequence_N], num_groups)


def sequence_mean(mask_N: Tensor, sequence_N: Tensor, *, num_sequences: int) -> Tensor:
    """Every sequence weighs the same, and its tokens share that: 1 / length / sequences. GRPO (arXiv:2402.03300)."""
    return _shared_weight(mask_N, sequence_N, num_sequences)


def fixed_length(mask_N: Tensor, *, num_sequences: int, length: int) -> Tensor:
    """Divide by a constant in place of the realised length: 1 / `length` / sequences. Dr.GRPO (arXiv:2503.20783).

    `length` is the limit on new tokens: a constant of the run, not the longest completion at hand.
    """
    return mask_N.float() / (length * max(num_sequences, 1))


def _shared_weight(mask_N: Tensor, owner_N: Tensor, num_owners: int) -> Tensor:
    """1 / num_owners for each owner (a sequence, a group), divided equally among its tokens that train."""
    tokens = torch.zeros(num_owners, dtype=torch.int64, device=mask_N.device).index_add(0, owner_N, mask_N.long())
    return mask_N.float() / tokens.clamp(min=1)[owner_N] / max(num_owners, 1)
