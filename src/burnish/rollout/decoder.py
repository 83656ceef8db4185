"""Runs a transformers causal language model over rows: prompts in, then one token per row and step.

`ModuleDecoder` is the general way: the model's own forward pass with a `RowCache` (`llama_family.py` has a leaner one
for the models it knows). `borrowed` puts a module that
belongs to someone else (the learner trains it in the same process) into the state that generation needs, and back.
`require_supported` says in a sentence why a model cannot be decoded here; besides reading its config, it compares a
few steps with a plain forward pass, so that an architecture that handles its cache in another way is refused and
never decoded wrongly.

Shape letters: B rows, P prompts, S prompt tokens (padded), V vocabulary.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from burnish.rollout.kv_cache import ATTENTION, RowCache, row_mask

PREFILL_TOKENS = 16384
"""Prompt tokens, padding included, of one prefill pass."""


@dataclass(slots=True)
class Work:
    """What decoding has cost so far, in counts that no clock and no neighbour disturbs."""

    prefill_tokens: int = 0
    """Prompt tokens read. A prompt is read once, whatever the number of its completions."""
    prefill_padding: int = 0
    """Tokens that fill up prompts which are read together."""
    steps: int = 0
    """Passes of one token per row."""
    rows: int = 0
    """Tokens fed in those, one per row."""
    idle_rows: int = 0
    """Of those, by rows whose completion had ended."""
    moved_rows: int = 0
    """Rows copied into gaps, keys and values of all their tokens."""


_WINDOWED = "sliding_attention"
_LAYER_TYPES = {"full_attention", _WINDOWED}


@contextmanager
def borrowed(model: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode, no gradients, and attention over rows; the module and its config are put back on exit."""
    training = [module for module in model.modules() if module.training]
    configs = [model.config]
    if model.config.get_text_config() is not model.config:
        configs.append(model.config.get_text_config())
    replaced = [config for config in configs if config._attn_implementation == "sdpa"]
    try:
        for module in training:
            module.training = False
        if model._supports_attention_backend:
            for config in replaced:
                config._attn_implementation = ATTENTION
        with torch.no_grad():
            yield
    finally:
        for config in replaced:
            config._attn_implementation = "sdpa"
        for module in training:
            module.training = True


def windows(config: Any) -> dict[str, int | None]:
    """Layer type -> number of tokens that its attention sees; None sees all. One entry when all layers are alike."""
    window = config.sliding_window if hasattr(config, "sliding_window") else None
    if hasattr(config, "layer_types") and config.layer_types is not None:
        return {kind: window if kind == _WINDOWED else None for kind in sorted(set(config.layer_types))}
    return {"full_attention": None} if window is None else {_WINDOWED: window}


def position_limit(config: Any) -> int | None:
    """Tokens that a sequence may have, or None. Where the rotary frequencies change with the longest sequence of a
    batch (`dynamic`, `longrope`), rows of one batch would disturb each other beyond the original length."""
    limits = [config.max_position_embeddings] if hasattr(config, "max_position_embeddings") else []
    rope = config.rope_parameters if hasattr(config, "rope_parameters") and config.rope_parameters else {}
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if parameters.get("rope_type") in ("dynamic", "longrope"):
            limits.append(parameters.get("original_max_position_embeddings", config.max_position_embeddings))
    return min(limits, default=None)


class ModuleDecoder:
    """Decodes with the model's own forward pass. Use inside `borrowed(model)`."""

    patience = 1 / 4
    """Share of the rows that may have ended before they are worth taking out."""

    def __init__(self, model: PreTrainedModel, *, num_rows: int, max_length: int, work: Work | None = None) -> None:
        """
        Args:
            work: counts the prompts that are read, and the rows that are moved.
        """
        self._model = model
        self._num_rows = num_rows
        self._work = work if work is not None else Work()
        self._cache = RowCache(num_rows, max_length=max_length, device=model.device)
        self._windows = windows(model.config.get_text_config())

    def prefill(self, prompts: Sequence[array[int]], copies: Sequence[int], *, first_row: int) -> None:
        """Read the prompts, each once, into the rows from `first_row` on: `copies[p]` rows for prompt p, in order.

        The last token of each prompt is left to the first `step`, which reads it once per row and so needs no
        special treatment of first tokens.
        """
        self._reserve(max(len(prompt) for prompt in prompts))
        for start, stop in _pieces([len(prompt) - 1 for prompt in prompts]):
            piece = prompts[start:stop]
            longest = max(len(prompt) for prompt in piece) - 1
            tokens = sum(len(prompt) - 1 for prompt in piece)
            self._work.prefill_tokens += tokens
            self._work.prefill_padding += longest * len(piece) - tokens
            if longest > 0:
                tokens_PS = torch.zeros((len(piece), longest), dtype=torch.int64)
                for p, prompt in enumerate(piece):
                    tokens_PS[p, : len(prompt) - 1] = torch.tensor(prompt[:-1], dtype=torch.int64)
                owner_B = torch.repeat_interleave(torch.arange(len(piece)), torch.tensor(copies[start:stop]))
                self._cache.prefill(self._places(first_row, len(owner_B)), owner_B.to(self._model.device))
                tokens_PS = tokens_PS.to(self._model.device)
                positions = torch.arange(longest, device=tokens_PS.device).expand(len(piece), -1)
                self._model.base_model(
                    input_ids=tokens_PS, position_ids=positions, past_key_values=self._cache, use_cache=True
                )
            first_row += sum(copies[start:stop])

    def step(self, tokens_B: Tensor, positions_B: Tensor, length: int) -> Tensor:
        """Logits [B, V] after `tokens_B`, which stand at `positions_B`; all positions lie below `length`."""
        self._reserve(length)
        self._cache.decode(positions_B, length)
        masks = {
            kind: row_mask(positions_B, length, window=window, dtype=self._model.dtype)
            for kind, window in self._windows.items()
        }
        output = self._model(
            input_ids=tokens_B[:, None],
            position_ids=positions_B[:, None],
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
            past_key_values=self._cache,
            use_cache=True,
        )
        return output.logits[:, -1]

    def need_only(self, num_rows: int) -> None:
        """No row from `num_rows` on will be used again: the cache drops them when it grows."""
        self._num_rows = num_rows

    def _reserve(self, length: int) -> None:
        """Make room for `length` columns."""
        if length > self._cache.capacity:
            self._cache.grow(length, self._num_rows, self._kept())

    def _places(self, first_row: int, count: int) -> slice | Tensor:
        """Where in the cache rows lie."""
        return slice(first_row, first_row + count)

    def _kept(self) -> slice | Tensor:
        """Where the rows lie that are still needed; they become the first of the cache."""
        return slice(self._num_rows)

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy what the rows `source` have read over the rows `target`."""
        self._work.moved_rows += len(source)
        self._cache.move(source, target, length)


def _pieces(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut prompts of these lengths into runs whose padded size stays below `PREFILL_TOKENS`."""
    start, longest = 0, 0
    for p, length in enumerate(lengths):
        longest = max(longest, length)
        if p > start and longest * (p + 1 - start) > PREFILL_TOKENS:
            yield start, p
            start, longest = p, length
    yield start, len(lengths)


def require_supported(model: PreTrainedModel, decoder_class: type[ModuleDecoder]) -> None:
    """Raises ValueError, with the reason, if `decoder_class` cannot decode this model."""
    config = model.config.get_text_config()
    name = type(model).__name__
    unknown = sorted(windows(config).keys() - _LAYER_TYPES)
    if unknown:
        raise ValueError(
            f"{name} has layers of type {', '.join(unknown)}, and the local engine decodes full and sliding-window "
            "attention only. Use the vllm engine for this model."
        )
    if config._attn_implementation not in ("sdpa", "eager"):
        raise ValueError(
            f"{name} was loaded with attn_implementation={config._attn_implementation!r}, and the local engine needs "
            "'sdpa' or 'eager'. Load the model with attn_implementation='sdpa'."
        )
    with borrowed(model):
        wanted, found = _plain_and_stepped(model, decoder_class)
    # Rounding differs between the two ways of computing; a cache that is handled wrongly is off by far more.
    tolerance = 1e-3 if wanted.dtype == torch.float32 else 5e-2
    error = (wanted - found).abs().max().item() / max(1.0, wanted.abs().max().item())
    if not error <= tolerance:
        raise ValueError(
            f"{name} gives other logits when it is decoded row by row than in a plain forward pass (relative "
            f"difference {error:.1e}), so the local engine would sample from a wrong policy. Use the vllm engine."
        )


def _plain_and_stepped(model: PreTrainedModel, decoder_class: type[ModuleDecoder]) -> tuple[Tensor, Tensor]:
    """Logits after tokens 3.. of a short sequence: from one forward pass, and from two rows that start apart."""
    limit = model.config.get_text_config().vocab_size
    tokens = array("i", [(5 * i + 3) % limit for i in range(8)])
    tokens_S = torch.tensor(tokens, device=model.device)
    plain = model(input_ids=tokens_S[None], use_cache=False).logits[0]
    decoder = decoder_class(model, num_rows=2, max_length=8)
    decoder.prefill([tokens[:3], tokens[:5]], [1, 1], first_row=0)
    wanted, found = [], []
    for i in (0, 1, 2):
        positions_B = torch.tensor([2 + i, 4 + i], device=model.device)
        found.append(decoder.step(tokens_S[positions_B], positions_B, 5 + i).clone())
        wanted.append(plain[positions_B])
    return torch.cat(wanted), torch.cat(found)
