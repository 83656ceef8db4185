"""The value head: one linear unit on the hidden states that predict tokens, beside the model and not in it.

A rollout engine never sees it, and an exported model loads without it; it is kept with what resuming needs. It starts
at zero: values of 0 are as good a guess as any before the first score, take no part in the first advantages, and need
no seed. The trunk gets gradient from it as soon as it has weights.

Shape letters: N completion tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import linear

FILE = "value_head.safetensors"


class ValueHead(nn.Module):
    """float32, on the device of the model.

    Args:
        hidden_size: D.
    """

    def __init__(self, hidden_size: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, hidden_size, device=device))
        self.bias = nn.Parameter(torch.zeros(1, device=device))

    def forward(self, hidden_ND: Tensor) -> Tensor:
        """Values, float32 [N], whatever the type of the hidden states."""
        return linear(hidden_ND.float(), self.weight, self.bias).squeeze(-1)

    @property
    def named(self) -> Mapping[str, nn.Parameter]:
        """Its parameters, under names that no model has."""
        return {f"value_head.{name}": parameter for name, parameter in self.named_parameters()}

    def save(self, folder: Path) -> None:
        save_file({name: p.detach().contiguous() for name, p in self.named.items()}, folder / FILE)

    @torch.no_grad()
    def restore(self, folder: Path) -> None:
        saved = load_file(folder / FILE)
        for name, parameter in self.named.items():
            parameter.copy_(saved[name])
