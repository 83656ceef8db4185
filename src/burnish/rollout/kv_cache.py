"""Keys and values of the rows that are being decoded, written in place; and the attention that reads them.

`RowCache` is a transformers cache of fixed rows: row b belongs to one completion, column t to its token t (prompt
first, no padding on the left), so a row can be taken, left and moved without touching the others. Models call
`update` in their forward pass; what it does is set beforehand by one of two contexts of use:

    cache.prefill(places, owner_B)                   keys of P prompts are copied to the rows of their completions
    cache.decode(positions_B, length)                one token per row is written at the row's own position

Shape letters: B rows, P prompts, S prompt tokens (padded), H key heads, T columns, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "burnish_rows"
"""Name under which `row_attention` is registered with transformers."""

GROWTH = 128
"""Columns that are added when a row outgrows the cache."""


@dataclass(slots=True)
class _Use:
    """What `update` does next, for all layers."""

    num_rows: int
    capacity: int
    places: slice | Tensor = field(default_factory=lambda: slice(0))
    length: int = 0
    owner_B: Tensor | None = None
    rows_B: Tensor | None = None
    positions_B: Tensor | None = None


class _RowLayer(CacheLayerMixin):
    """One layer's `keys` and `values`, [rows, H, T, D]."""

    def __init__(self, use: _Use) -> None:
        super().__init__()
        self.use = use

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        # Zeros, because a masked column still enters the product with weight 0, and 0 x NaN is NaN.
        shape = (self.use.num_rows, key_states.shape[1], self.use.capacity)
        self.keys = key_states.new_zeros((*shape, key_states.shape[3]))
        self.values = value_states.new_zeros((*shape, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values, use = cast(Tensor, self.keys), cast(Tensor, self.values), self.use
        if use.owner_B is not None:
            length = key_states.shape[2]
            keys[use.places, :, :length] = key_states[use.owner_B]
            values[use.places, :, :length] = value_states[use.owner_B]
            return key_states, value_states
        keys[use.rows_B, :, use.positions_B] = key_states[:, :, 0]
        values[use.rows_B, :, use.positions_B] = value_states[:, :, 0]
        num_rows = len(key_states)
        return keys[:num_rows, :, : use.length], values[:num_rows, :, : use.length]

    def grow(self, kept: slice | Tensor) -> None:
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros((self.use.num_rows, old.shape[1], self.use.capacity, old.shape[3]))
            new[:, :, : old.shape[2]] = old[kept]
            setattr(self, name, new)

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        for rows in (cast(Tensor, self.keys), cast(Tensor, self.values)):
            rows[target, :, :length] = rows[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        """0: rows stand at different positions, which are passed to the model explicitly."""
        return 0

    def get_max_length(self) -> int:
        return -1


class RowCache(Cache):
    """Cache of `num_rows` rows of up to `max_length` tokens. Layers come into being when the model first writes."""

    def __init__(self, num_rows: int, *, max_length: int, device: torch.device) -> None:
        self._max_length = max_length
        self._use = _Use(num_rows=num_rows, capacity=min(GROWTH, max_length))
        self._rows = torch.arange(num_rows, device=device)
        super().__init__(layer_class_to_replicate=cast(Any, partial(_RowLayer, self._use)))

    @property
    def capacity(self) -> int:
        """Columns that there is room for."""
        return self._use.capacity

    def grow(self, length: int, num_rows: int, kept: slice | Tensor) -> None:
        """Make room for `length` columns and more, in `num_rows` rows: those of `kept`, which become the first."""
        assert length <= self._max_length
        self._use.num_rows, self._use.capacity = num_rows, min(length + GROWTH, self._max_length)
        for layer in self._layers:
            layer.grow(kept)

    def layer(self, index: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, [rows, H, T, D]; made for heads such as `like`, [B, H, S, D], if need be."""
        while len(self._layers) <= index:
            self._layers.append(_RowLayer(self._use))
        layer = self._layers[index]
        if not layer.is_initialized:
            layer.lazy_initialization(like, like)
        return cast(Tensor, layer.keys), cast(Tensor, layer.values)

    def prefill(self, places: slice | Tensor, owner_B: Tensor) -> None:
        """The next forward pass is of whole prompts; the rows `places` get the keys of the prompts `owner_B`."""
        self._use.places, self._use.owner_B = places, owner_B

    def decode(self, positions_B: Tensor, length: int) -> None:
        """The next forward pass is of one token per row, at `positions_B`; all positions lie below `length`."""
        self._use.owner_B = None
        self._use.rows_B, self._use.positions_B = self._rows[: len(positions_B)], positions_B
        self._use.length = length

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first `length` columns of the rows `source` over the rows `target`."""
        for layer in self._layers:
            layer.move(source, target, length)

    @property
    def _layers(self) -> list[_RowLayer]:
        return cast(list[_RowLayer], self.layers)


def row_mask(positions_B: Tensor, length: int, *, window: int | None = None, dtype: torch.dtype) -> Tensor:
    """Additive mask [B, 1, 1, T]: row b sees the columns up to its position, or the last `window` of them."""
    columns_T = torch.arange(length, device=positions_B.device)
    hidden_BT = columns_T > positions_B[:, None]
    if window is not None:
        hidden_BT |= columns_T <= positions_B[:, None] - window
    mask_BT = torch.zeros(hidden_BT.shape, dtype=dtype, device=positions_B.device)
    return mask_BT.masked_fill_(hidden_BT, float("-inf"))[:, None, None]


def row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of one query token per row, in the signature of transformers; prompts go to its own `sdpa`.

    The query heads that share a key head are folded into the query length, so keys are read once and never repeated.
    In float32 on a CPU two batched products beat the fused kernel, whose cost is per head, 1.3 to 1.6 times.
    """
    if query.shape[2] > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    num_rows, num_heads, _, _ = query.shape
    folded = query.view(num_rows, key.shape[1], -1, query.shape[3])
    if query.dtype == torch.float32 and query.device.type == "cpu":
        scale = query.shape[3] ** -0.5 if scaling is None else scaling
        scores = torch.matmul(folded * scale, key.transpose(2, 3))
        if attention_mask is not None:
            scores += attention_mask
        seen = torch.matmul(scores.softmax(-1), value)
    else:
        seen = F.scaled_dot_product_attention(folded, key, value, attn_mask=attention_mask, scale=scaling)
    return seen.reshape(num_rows, 1, num_heads, value.shape[3]), None


AttentionInterface.register(ATTENTION, row_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
