"""A lean decoder for Llama, Qwen2 and Qwen3: the same arithmetic in a third of the calls.

With few rows or small layers a step costs what its calls cost, not what it computes. `LlamaDecoder` reads prompts as
`ModuleDecoder` does, and replaces the step of one token by plain functions on the module's weights: projections that
read the same input are one product, rotation of queries and keys is one, cosines come from a table. `matches` is true
for modules that are these architectures and nothing else; a hook or an adapter anywhere sends a model the general way.

Shape letters: B rows, H key heads, Q query heads, T columns, D head size, V vocabulary. E hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.activations import SiLUActivation
from transformers.models.llama import modeling_llama as llama
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3

from burnish.rollout.decoder import ModuleDecoder, Work, windows
from burnish.rollout.kv_cache import row_mask

FUSED_BYTES = 1 << 28
"""Projections are copied side by side up to this much memory; larger models are bound by arithmetic, not by calls."""

_MODELS = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
_PARTS = {
    *(nn.Linear, nn.Embedding, nn.ModuleList, nn.SiLU, SiLUActivation, *_MODELS),
    *(llama.LlamaModel, llama.LlamaDecoderLayer, llama.LlamaAttention, llama.LlamaMLP, llama.LlamaRMSNorm),
    *(qwen2.Qwen2Model, qwen2.Qwen2DecoderLayer, qwen2.Qwen2Attention, qwen2.Qwen2MLP, qwen2.Qwen2RMSNorm),
    *(qwen3.Qwen3Model, qwen3.Qwen3DecoderLayer, qwen3.Qwen3Attention, qwen3.Qwen3MLP, qwen3.Qwen3RMSNorm),
    *(llama.LlamaRotaryEmbedding, qwen2.Qwen2RotaryEmbedding, qwen3.Qwen3RotaryEmbedding),
}


def matches(model: PreTrainedModel) -> bool:
    """Whether `LlamaDecoder` computes what this module computes: known parts only, float32, full attention, `sdpa`."""
    return (
        type(model) in _MODELS
        and model.config._attn_implementation == "sdpa"
        and set(windows(model.config).values()) == {None}
        and all(parameter.dtype == torch.float32 for parameter in model.parameters())
        and all(_plain(module) for module in model.modules())
    )


def _plain(module: nn.Module) -> bool:
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return type(module) in _PARTS and not hooked


Affine = list[tuple[Tensor, Tensor | None]]
"""Weights and biases of projections that read the same input; one entry when they lie side by side."""


def _affine(linears: Sequence[Any], *, fuse: bool, dtype: torch.dtype) -> Affine:
    pairs: Affine = [
        (linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype)) for linear in linears
    ]
    if not fuse:
        return pairs
    weights, biases = zip(*pairs, strict=True)
    return [(torch.cat(weights), None if biases[0] is None else torch.cat(biases))]


def _apply(x: Tensor, affine: Affine) -> Tensor:
    """In the type of the weights; the result is float32 again."""
    x = x.to(affine[0][0].dtype)
    if len(affine) == 1:
        return F.linear(x, *affine[0]).float()
    return torch.cat([F.linear(x, weight, bias) for weight, bias in affine], dim=-1).float()


@dataclass(frozen=True, slots=True)
class LayerWeights:
    norm_attention: Tensor
    query_key_value: Affine
    norm_heads: Tensor | None
    """[Q + H, D], Qwen3: one scale per query head and key head."""
    output: Affine
    norm_mlp: Tensor
    gate_up: Affine
    down: Affine


class LlamaDecoder(ModuleDecoder):
    """Decodes a model that `matches`. The weights are read when the decoder is made.

    With `bf16` the products of one-token steps take bfloat16 copies of the weights and rounded inputs; prompts are read
    in float32, and so are norms, rotation, attention and the cache.
    """

    fused_bytes = FUSED_BYTES

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        num_rows: int,
        max_length: int,
        work: Work | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__(model, num_rows=num_rows, max_length=max_length, work=work)
        base: Any = model.base_model
        config = model.config
        attention = base.layers[0].self_attn
        self._epsilon: float = config.rms_norm_eps
        self._num_queries: int = config.num_attention_heads
        self._num_keys: int = config.num_key_value_heads
        self._head_size: int = attention.head_dim
        self._scaling: float = attention.scaling
        self._embedding: Tensor = base.embed_tokens.weight
        self._norm: Tensor = base.norm.weight
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        fuse = bf16 or sum(parameter.nbytes for parameter in base.layers.parameters()) <= self.fused_bytes
        with torch.no_grad():
            self._head = _affine((model.get_output_embeddings(),), fuse=False, dtype=self._dtype)
            self._layers = [self._layer(layer, fuse=fuse) for layer in base.layers]
            positions = torch.arange(max_length, device=model.device)[None]
            cos_TD, sin_TD = (table[0] for table in base.rotary_emb(self._embedding, positions))
            half = self._head_size // 2
            # rotate_half(x) * sin, written as (x rolled by half a head) * (sin with its first half negated).
            self._cos_TD, self._sin_TD = cos_TD, torch.cat((-sin_TD[:, :half], sin_TD[:, half:]), dim=-1)

    def _layer(self, layer: Any, *, fuse: bool) -> LayerWeights:
        attention, mlp = layer.self_attn, layer.mlp
        norm_heads = None
        if isinstance(attention, qwen3.Qwen3Attention):
            norm_heads = torch.cat(
                (
                    attention.q_norm.weight.expand(self._num_queries, -1),
                    attention.k_norm.weight.expand(self._num_keys, -1),
                )
            )
        return LayerWeights(
            norm_attention=layer.input_layernorm.weight,
            query_key_value=_affine(
                (attention.q_proj, attention.k_proj, attention.v_proj), fuse=fuse, dtype=self._dtype
            ),
            norm_heads=norm_heads,
            output=_affine((attention.o_proj,), fuse=False, dtype=self._dtype),
            norm_mlp=layer.post_attention_layernorm.weight,
            gate_up=_affine((mlp.gate_proj, mlp.up_proj), fuse=fuse, dtype=self._dtype),
            down=_affine((mlp.down_proj,), fuse=False, dtype=self._dtype),
        )

    def step(self, tokens_B: Tensor, positions_B: Tensor, length: int) -> Tensor:
        self._reserve(length)
        self._cache.decode(positions_B, length)
        cos_B1D, sin_B1D = self._cos_TD[positions_B, None], self._sin_TD[positions_B, None]
        mask = row_mask(positions_B, length, dtype=torch.float32)[:, 0].repeat_interleave(self._num_keys, dim=0)
        x_BE = F.embedding(tokens_B, self._embedding)
        for index, layer in enumerate(self._layers):
            normed = F.rms_norm(x_BE, x_BE.shape[-1:], layer.norm_attention, self._epsilon)
            heads = _apply(normed, layer.query_key_value).unflatten(-1, (-1, self._head_size))
            x_BE = x_BE + _apply(self._attend(index, heads, cos_B1D, sin_B1D, mask), layer.output)
            normed = F.rms_norm(x_BE, x_BE.shape[-1:], layer.norm_mlp, self._epsilon)
            gate, up = _apply(normed, layer.gate_up).chunk(2, dim=-1)
            x_BE = x_BE + _apply(F.silu(gate) * up, layer.down)
        return _apply(F.rms_norm(x_BE, x_BE.shape[-1:], self._norm, self._epsilon), self._head)

    def _attend(self, index: int, heads: Tensor, cos_B1D: Tensor, sin_B1D: Tensor, mask: Tensor) -> Tensor:
        """[B, Q * D] from the projected `heads` [B, Q + H + H, D] of queries, keys and values."""
        queries, keys = self._num_queries, self._num_keys
        turned = heads[:, : queries + keys]
        norm_heads = self._layers[index].norm_heads
        if norm_heads is not None:
            turned = F.rms_norm(turned, turned.shape[-1:], None, self._epsilon) * norm_heads
        turned = torch.addcmul(turned * cos_B1D, turned.roll(self._head_size // 2, -1), sin_B1D)
        key, value = self._cache.update(turned[:, queries:, None], heads[:, queries + keys :, None], index)
        # The query heads that share a key head are rows of one product; see `row_attention`.
        folded = turned[:, :queries].reshape(-1, queries // keys, self._head_size)
        scores = torch.baddbmm(mask, folded, key.flatten(0, 1).transpose(1, 2), alpha=self._scaling)
        return torch.bmm(scores.softmax(-1), value.flatten(0, 1)).view(len(heads), -1)
