"""What a run is said to need, against what tensors really take."""

from __future__ import annotations

import pytest
import torch

from burnish.build.memory import needs, peak, persistent
from burnish.config import Model, RunConfig, SamplingConfig, Train
from burnish.rollout.kv_cache import RowCache
from burnish.rollout.native import NativeDecoder, runs
from tests.tiny_models import MODELS

SIZES = {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 192}


def config(*, checkpointing: bool = False) -> RunConfig:
    return RunConfig(
        model=Model(gradient_checkpointing=checkpointing),
        sampling=SamplingConfig(prompts_per_step=8, group_size=4, max_new_tokens=100),
        train=Train(tokens_per_piece=600, updates_per_step=1),
    )


def bytes_of(what: str, settings: RunConfig, model: object) -> int:
    found = needs(settings, model, longest_prompt=20, needs_reference=False)  # pyright: ignore[reportArgumentType]
    (need,) = [need for need in found if need.what.startswith(what)]
    return need.num_bytes


def test_what_persists_is_sixteen_bytes_a_parameter_and_four_more_for_a_reference():
    model = MODELS["llama"](100)
    found = needs(config(), model, longest_prompt=20, needs_reference=False)
    assert persistent(found) == 16 * sum(p.numel() for p in model.parameters())
    assert persistent(needs(config(), model, longest_prompt=20, needs_reference=True)) == 20 * model.num_parameters()
    assert peak(found) > persistent(found)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gpt2", "gpt_neox"])
def test_keys_and_values_are_those_of_the_cache(family: str):
    model = MODELS[family](100).eval()
    cache = RowCache(200, max_length=120, device=torch.device("cpu"))
    cache.prefill(slice(2), torch.arange(2))
    with torch.no_grad():
        model.base_model(
            input_ids=torch.ones((2, 3), dtype=torch.int64),
            position_ids=torch.arange(3).expand(2, -1),
            past_key_values=cache,
            use_cache=True,
        )
    taken = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert bytes_of("keys and values (400 rows of 120", config(), model) == 2 * taken


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_a_piece_keeps_for_its_way_back_is_told_within_a_third(family: str, checkpointing: bool):
    model = MODELS[family](100, **SIZES).train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.base_model(input_ids=torch.ones((5, 120), dtype=torch.int64), use_cache=False)
    assert hidden.last_hidden_state.requires_grad
    told = bytes_of("a piece on its way back (600 tokens)", config(checkpointing=checkpointing), model)
    if checkpointing:  # one layer is made again at a time, and the hooks see only what stays between them
        told -= bytes_of("a piece", config(), model) // 4
    assert told / 1.5 < sum(kept.values()) < told * 1.5


def test_the_copy_of_the_weights_that_draws_is_told_where_there_is_one():
    known, other = MODELS["llama"](128), MODELS["gpt2"](128)
    told = bytes_of("weights in the order", config(), known)
    assert not any("in the order" in n.what for n in needs(config(), other, longest_prompt=20, needs_reference=False))
    if runs(known):
        taken = sum(t.nbytes for t in NativeDecoder(known, num_rows=1, max_length=8)._held if t.dim() == 3)
        assert 0.95 * taken < told < 1.05 * taken
