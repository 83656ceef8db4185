"""Attention over packed rows, through the interface that transformers offers for custom attention functions.

`packed_attention` is registered under `NAME`. While `switched(model)` is open, the model's layers call it; transformers
makes no mask for an implementation it has none for, and carries the extra argument `packed=layout` from
`model.forward` down to it. Only in here is anything padded: rows are gathered into a block per bucket, go through
`scaled_dot_product_attention`, and their outputs are gathered back.

Shape letters: L packed rows, H heads, D size of a head, S segments of a bucket, Q and K its queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from burnish.learner.packing import Bucket, Layout

NAME = "burnish_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of the packed rows, [1, H, L, D] -> [1, L, H, D].

    Args:
        module: the calling layer; unused, as is the mask, which transformers leaves at None.
        key: [1, H', L, D] with H a multiple of H', as `value`.
        packed: who may look at whom.
        scaling: factor on the scores; None is 1 / sqrt(D).
        sliding_window: positions that a query sees, its own included; None sees all.
        softcap: bound on the scores, c * tanh(score / c), as in Gemma 2.
    """
    rows_LHD = [x.squeeze(0).transpose(0, 1) for x in (query, key, value)]
    blocks = [
        _block(rows_LHD, packed, index, scaling=scaling, window=sliding_window, softcap=softcap)
        for index in range(len(packed.buckets))
    ]
    return torch.cat(blocks).index_select(0, packed.where_L).unsqueeze(0), None


def _block(
    rows_LHD: list[Tensor],
    packed: Layout,
    index: int,
    *,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """The outputs of one bucket, [S * Q, H, D]."""
    bucket = packed.buckets[index]
    query, key, value = (
        _gathered(rows, places)
        for rows, places in zip(rows_LHD, (bucket.queries_SQ, bucket.keys_SK, bucket.keys_SK), strict=True)
    )
    cached = (index, window)
    if cached not in packed.masks:
        packed.masks[cached] = bucket.mask(window, query.dtype)
    mask = packed.masks[cached]
    if softcap is not None:
        out = _softcapped(query, key, value, bucket, mask, scaling=scaling, softcap=softcap)
    else:
        # Kernels that read grouped keys as they are: the CPU's; a GPU's for half precision without a mask.
        grouped = query.device.type == "cpu" or (mask is None and query.dtype != torch.float32)
        if not grouped:
            key, value = _repeated(key, query), _repeated(value, query)
        out = scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=grouped
        )
    return out.transpose(1, 2).flatten(0, 1)


def _gathered(rows_LHD: Tensor, places_SQ: Tensor) -> Tensor:
    """[S, H, Q, D]."""
    return rows_LHD.index_select(0, places_SQ.flatten()).unflatten(0, places_SQ.shape).transpose(1, 2)


def _repeated(grouped: Tensor, query: Tensor) -> Tensor:
    """Keys or values with as many heads as there are queries'."""
    return grouped.repeat_interleave(query.shape[1] // grouped.shape[1], dim=1)


def _softcapped(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bucket: Bucket,
    mask: Tensor | None,
    *,
    scaling: float | None,
    softcap: float,
) -> Tensor:
    """No fused kernel bounds its scores, so they are written out."""
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ _repeated(key, query).transpose(-1, -2) * factor
    scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        (_, q), (_, k) = bucket.queries_SQ.shape, bucket.keys_SK.shape
        mask = torch.full((q, k), float("-inf"), dtype=scores.dtype, device=scores.device).triu_(1)
    probs = torch.softmax(scores + mask, dim=-1, dtype=torch.float32).to(query.dtype)
    return probs @ _repeated(value, query)


@contextmanager
def switched(model: PreTrainedModel) -> Iterator[None]:
    """The model's layers call `packed_attention` inside. Keep it open through the backward pass: checkpointed layers
    look the function up again. The model may be shared, so whatever was set before is set back."""
    # Setting a config sets those inside it too; outer models come first, so that inner ones are set back last.
    configs = list({id(m.config): m.config for m in model.modules() if isinstance(m, PreTrainedModel)}.values())
    before = [config._attn_implementation for config in configs]
    for config in configs:
        config._attn_implementation = NAME
    try:
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


AttentionInterface.register(NAME, packed_attention)
