"""How much memory a run needs, estimated from shapes alone: before anything is loaded.

Persistent things are exact (float32 weights, gradients, Adam's two moments, the reference model). What comes and goes
is told from the largest it can be: keys and values of all rows at their full length, and what one piece keeps for its
backward pass, which is an estimate for decoders of the Llama kind. Generating and training take turns, so the peak is
what persists and the larger of the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PreTrainedModel

from burnish.config import RunConfig
from burnish.learner.logprobs import CHUNK_ELEMENTS, MIN_ROWS
from burnish.models import device
from burnish.rollout.llama_family import matches
from burnish.rollout.native import PACKED_BYTES, packed_bytes

FLOAT = 4
HALF = 2
LOGIT_COPIES = 3
"""Arrays of the size of the logits that exist at once: they, their exponentials, and one more on the way."""
TOKENS_PER_PIECE = {"cpu": 1024, "cuda": 8192}
"""Type of device -> what `train.tokens_per_piece` is where it is not set."""

When = Literal["always", "generating", "training"]


@dataclass(frozen=True, slots=True)
class Need:
    what: str
    num_bytes: int
    when: When


def needs(config: RunConfig, model: PreTrainedModel, *, longest_prompt: int, needs_reference: bool) -> list[Need]:
    """What a run needs, by what it is for. `model` may be one without weights (`models.skeleton`)."""
    parameters = model.num_parameters()
    found = [
        Need(f"weights ({parameters:,} in float32)", FLOAT * parameters, "always"),
        Need("Adam's two moments", 2 * FLOAT * parameters, "always"),
    ]
    if needs_reference:
        found.append(Need("the reference model", FLOAT * parameters, "always"))
    return [
        *found,
        *_generating(config, model, longest_prompt),
        Need("gradients", FLOAT * parameters, "training"),
        *_training(config, model, longest_prompt),
    ]


def persistent(found: Sequence[Need]) -> int:
    """Bytes below which nothing goes: what is always there, and the gradients."""
    return sum(need.num_bytes for need in found if need.when == "always" or need.what == "gradients")


def peak(found: Sequence[Need]) -> int:
    by_when = {when: sum(n.num_bytes for n in found if n.when == when) for when in ("always", "generating", "training")}
    return by_when["always"] + max(by_when["generating"], by_when["training"])


def tokens_per_piece(config: RunConfig) -> int:
    """As configured, or what suits the device."""
    return config.train.tokens_per_piece or TOKENS_PER_PIECE[device(config.model.device).type]


def checkpoint_bytes(model: PreTrainedModel) -> int:
    """Of one checkpoint: the weights and Adam's two moments."""
    return 3 * FLOAT * model.num_parameters()


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdecimal():
        available = min(available, int(text) - int(used.read_text()))
    return available


def _generating(config: RunConfig, model: PreTrainedModel, longest_prompt: int) -> list[Need]:
    shape, sampling = model.config.get_text_config(), config.sampling
    asked = max(sampling.prompts_per_step * sampling.group_size, config.eval.prompts * config.eval.samples)
    rows, columns = min(sampling.slots, asked), longest_prompt + sampling.max_new_tokens
    rounded = sampling.dtype == "bfloat16"
    per_token = 2 * shape.num_hidden_layers * _key_width(model) * FLOAT
    copies: list[Need] = []
    if rounded:
        copies = [Need("rounded weights to draw with", HALF * model.num_parameters(), "generating")]
    elif device(config.model.device).type == "cpu" and matches(model) and packed_bytes(model) <= PACKED_BYTES:
        copies = [Need("weights in the order in which they are read", packed_bytes(model), "generating")]
    return [
        *copies,
        Need(f"keys and values ({rows:,} rows of {columns:,} tokens)", rows * columns * per_token, "generating"),
        Need(
            f"logits ({rows:,} rows of {shape.vocab_size:,})",
            LOGIT_COPIES * FLOAT * rows * shape.vocab_size,
            "generating",
        ),
    ]


def _training(config: RunConfig, model: PreTrainedModel, longest_prompt: int) -> list[Need]:
    """Kept of each token and layer: inputs and outputs of two norms, queries, keys, values, what attention gives and
    both residual sums (in float32); and four arrays of the gated MLP's width (in half precision under bf16)."""
    shape, half = model.config.get_text_config(), config.model.dtype == "bfloat16"
    longest = longest_prompt + config.sampling.max_new_tokens
    in_update = config.sampling.prompts_per_step * config.sampling.group_size // config.train.updates_per_step * longest
    tokens = min(max(tokens_per_piece(config), longest), in_update)
    width = shape.hidden_size
    inner = shape.intermediate_size if hasattr(shape, "intermediate_size") else 4 * width
    per_layer = FLOAT * (8 * width + 2 * _key_width(model)) + (HALF if half else FLOAT) * 4 * inner
    kept = shape.num_hidden_layers * per_layer
    if config.model.gradient_checkpointing:
        kept = (shape.num_hidden_layers + 2) * FLOAT * width + per_layer
    rows = min(tokens, max(CHUNK_ELEMENTS // shape.vocab_size, MIN_ROWS))
    found = [
        Need(f"a piece on its way back ({tokens:,} tokens)", tokens * kept, "training"),
        Need(
            f"logits of a chunk ({rows:,} rows of {shape.vocab_size:,})",
            LOGIT_COPIES * FLOAT * rows * shape.vocab_size,
            "training",
        ),
    ]
    if half:
        found.append(Need("bfloat16 copies of the weights", HALF * model.num_parameters(), "training"))
    return found


def _key_width(model: PreTrainedModel) -> int:
    """Numbers in one layer's keys of one token."""
    shape = model.config.get_text_config()
    heads = shape.num_attention_heads
    size = shape.head_dim if hasattr(shape, "head_dim") and shape.head_dim else shape.hidden_size // heads
    key_heads = shape.num_key_value_heads if hasattr(shape, "num_key_value_heads") else heads
    return (key_heads or heads) * size
