"""Decoding of the Llama family on a CPU in float32, a step in one call of `kernels.c`.

As `LlamaDecoder`, with a copy of all weights in the order in which the kernels read them. The rows of a step need not
lie side by side in the cache (`_slots_B` tells where each is), so that a row is moved without copying what it has read,
and rows that have ended are taken out almost at once.

Shape letters: B rows, E hidden size, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from burnish.rollout import kernels
from burnish.rollout.decoder import Work
from burnish.rollout.kernels import Layer, Linear, Model, Scratch
from burnish.rollout.llama_family import Affine, LayerWeights, LlamaDecoder, matches

PACKED_BYTES = 1 << 30
"""Weights are copied up to this much memory; beyond, `LlamaDecoder` reads them where they are."""


def runs(model: PreTrainedModel) -> bool:
    """Whether `NativeDecoder` decodes this module on this machine."""
    if not matches(model) or model.device.type != "cpu" or packed_bytes(model) > PACKED_BYTES:
        return False
    base: Any = model.base_model
    found = kernels.load()
    size = base.layers[0].self_attn.head_dim
    return found is not None and size % 2 == 0 and size <= found.max_head


def packed_bytes(model: PreTrainedModel) -> int:
    """What the copy of the weights takes."""
    base: Any = model.base_model
    head: Any = model.get_output_embeddings()
    return sum(parameter.nbytes for parameter in base.layers.parameters()) + head.weight.nbytes


class NativeDecoder(LlamaDecoder):
    """Decodes a model that `runs` here. The weights are read when the decoder is made."""

    patience = 1 / 32
    fused_bytes = 0

    @torch.no_grad()
    def __init__(self, model: PreTrainedModel, *, num_rows: int, max_length: int, work: Work | None = None) -> None:
        super().__init__(model, num_rows=num_rows, max_length=max_length, work=work)
        found = kernels.load()
        assert found is not None, "the caller asks `runs` first"
        self._kernels = found
        self._slots_B = torch.arange(num_rows)
        """Where in the cache each row is."""
        self._like = torch.empty((1, self._num_keys, 1, self._head_size))
        self._held: list[Tensor] = []
        """Tensors whose addresses the kernels have."""
        self._native_layers = (Layer * len(self._layers))(*(self._native_layer(layer) for layer in self._layers))
        head = self._linear(self._head)
        inner = self._native_layers[0].down.inputs
        all_heads, queries = self._native_layers[0].query_key_value.outputs, self._num_queries * self._head_size
        self._logits = torch.empty((num_rows, head.outputs))
        self._scratch = Scratch(
            *(self._address(torch.empty((num_rows, width))) for width in (head.inputs, head.inputs)),
            *(self._address(torch.empty((num_rows, width))) for width in (all_heads, queries, 2 * inner, inner)),
        )
        self._native = Model(
            self._address(self._embedding), self._native_layers, self._address(self._norm), head,
            self._address(self._cos_TD), self._address(self._sin_TD),
            len(self._layers), self._num_queries, self._num_keys, self._head_size, self._epsilon, self._scaling,
        )  # fmt: skip

    def step(self, tokens_B: Tensor, positions_B: Tensor, length: int) -> Tensor:
        """As `ModuleDecoder.step`; the result lives until the next call."""
        self._reserve(length)
        for index, layer in enumerate(self._native_layers):
            keys, values = self._cache.layer(index, self._like)
            layer.keys, layer.values = keys.data_ptr(), values.data_ptr()
        logits_BV = self._logits[: len(tokens_B)]
        self._kernels.step(
            *(self._native, tokens_B, positions_B, self._slots_B, self._scratch, logits_BV, self._cache.capacity)
        )
        return logits_BV

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Exchange the rows `source` with the rows `target`."""
        slots = self._slots_B
        slots[target], slots[source] = slots[source], slots[target]

    def _places(self, first_row: int, count: int) -> Tensor:
        return self._slots_B[first_row : first_row + count]

    def _kept(self) -> Tensor:
        kept, self._slots_B = self._slots_B[: self._num_rows], torch.arange(self._num_rows)
        return kept

    def _native_layer(self, layer: LayerWeights) -> Layer:
        return Layer(
            self._address(layer.norm_attention),
            self._linear(layer.query_key_value),
            None if layer.norm_heads is None else self._address(layer.norm_heads),
            self._linear(layer.output),
            self._address(layer.norm_mlp),
            self._linear(layer.gate_up),
            self._linear(layer.down),
        )

    def _linear(self, affine: Affine) -> Linear:
        weights, biases = zip(*affine, strict=True)
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        panels = self._address(self._kernels.packed(weight))
        bias = None if biases[0] is None else self._address(torch.cat(biases))
        return Linear(panels, bias, weight.shape[1], len(weight))

    def _address(self, tensor: Tensor) -> int:
        tensor = tensor.detach().contiguous()
        self._held.append(tensor)
        return tensor.data_ptr()
