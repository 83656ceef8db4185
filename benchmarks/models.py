"""Models with random weights whose completions have lengths that are known, and prompts for them.

A constant direction of the residual stream sets the logit of the end, so that every token ends a completion with the
chance `END_CHANCE`, whatever came before and whoever decodes: mean length 1 / END_CHANCE. All engines that are compared
therefore see the same distribution of lengths, and short updates do not move it.

    tiny     4 x 128, vocabulary 100, 0.8 M parameters: framework and memory traffic count
    small    8 x 512, vocabulary 32,000, 55 M: matrix products count
    medium   the shape of Qwen2-0.5B with its own head, 630 M: vocabulary 151,936

Imports nothing but torch and transformers, so that it runs in a peer's environment too.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

PAD, EOS = 0, 1
END_CHANCE = 0.025
MAX_NEW_TOKENS = 256
PROMPT_TOKENS = (16, 48)
POSITIONS = 1024


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    num_prompts: int
    """Of one step."""
    rows_per_piece: int
    """Completions in a padded micro-batch; four of them make a step."""


SHAPES = {
    "tiny": Shape(4, 128, 384, 4, 2, 100, num_prompts=16, rows_per_piece=32),
    "small": Shape(8, 512, 1408, 8, 2, 32_000, num_prompts=8, rows_per_piece=16),
    "medium": Shape(24, 896, 4864, 14, 2, 151_936, num_prompts=4, rows_per_piece=8),
}


def build(name: str) -> Qwen2ForCausalLM:
    """The model in float32, in evaluation mode, the same weights every time."""
    return of_shape(SHAPES[name])


def of_shape(shape: Shape, *, end_chance: float = END_CHANCE, positions: int = POSITIONS) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.intermediate,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
            max_position_embeddings=positions, tie_word_embeddings=False, bos_token_id=None, eos_token_id=EOS,
            pad_token_id=PAD,
        )
    ).eval()  # fmt: skip
    _build_in_the_end(model, end_chance)
    model.generation_config.eos_token_id = EOS
    model.generation_config.pad_token_id = PAD
    return model


@torch.no_grad()
def _build_in_the_end(model: Qwen2ForCausalLM, chance: float) -> None:
    """Make the first direction of the residual stream constant, and let it alone decide the logit of EOS."""
    vocabulary = model.config.vocab_size
    model.model.embed_tokens.weight[:, 0] = 4.0
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight[0] = 0.0
        layer.mlp.down_proj.weight[0] = 0.0
    head = model.lm_head.weight
    head[:, 0] = 0.0
    hidden = model.model(torch.randint(2, vocabulary, (8, 64))).last_hidden_state
    logits = model.lm_head(hidden)
    others = torch.logsumexp(logits[..., torch.arange(vocabulary) != EOS], -1).mean()
    head[EOS] = 0.0
    head[EOS, 0] = (others + torch.logit(torch.tensor(chance))) / hidden[..., 0].mean()


def tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """One word per token: `w17` is 17. What ends and pads has names that no word begins with."""
    words = {"<pad>": PAD, "<eos>": EOS} | {f"w{i}": i for i in range(2, vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="w2"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece()
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", clean_up_tokenization_spaces=False
    )


def save(name: str, folder: Path) -> None:
    """Model and tokenizer, as `from_pretrained` loads them."""
    build(name).save_pretrained(folder)
    tokenizer(SHAPES[name].vocabulary).save_pretrained(folder)


def prompts(vocabulary: int, count: int) -> list[list[int]]:
    """Token ids, uniform in length and content, the same every time."""
    draw = torch.Generator().manual_seed(1)
    low, high = PROMPT_TOKENS
    lengths = torch.randint(low, high + 1, (count,), generator=draw).tolist()
    return [torch.randint(2, vocabulary, (length,), generator=draw).tolist() for length in lengths]


def as_text(ids: list[int]) -> str:
    return " ".join(f"w{i}" for i in ids)
