"""Tiny random models and tokenizers, made without a network. One builder per family, all in fp32.

Models: `tiny_qwen2`, `tiny_qwen3`, `tiny_llama` (rotary, grouped heads), `tiny_gpt_neox` (rotary on a part of the head,
LayerNorm), `tiny_gpt2` (learned positions), `tiny_mistral` and `tiny_gemma3` (sliding windows); all of them by name in
`MODELS`. Every builder takes the vocabulary size, and gives the same weights for the same seed.

Tokenizers: `word_tokenizer` (a regex on characters and tags; has pad, eos and a chat template), `bpe_tokenizer`
(byte-level BPE trained on a small text; no pad), `unigram_tokenizer` (SentencePiece style, two end-of-sequence ids);
all by name in `TOKENIZERS`. To add one: write a builder and name it there.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

TEXT = """628-371 = 257. Let us add the digits one by one: 4 + 8 = 12, carry 1, write 2.
The answer is 42, and the number of apples is 7; so the result is twelve. Think first, then answer.
What is the sum of 3, 5 and 9? Add them: 3 + 5 = 8, 8 + 9 = 17. Answer: 17. I am sure of it.
She has 24 boxes with 3 pens each, and gives away 15. How many are left? 24 * 3 = 72, 72 - 15 = 57."""

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")

_COMMON = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def _made(build: Callable[[], PreTrainedModel], seed: int) -> PreTrainedModel:
    """The model in training mode, its weights large enough that the distributions are far from uniform."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 0.15)
                else:
                    parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.float().train()


def tiny_qwen2(vocab_size: int, *, seed: int = 0, **overrides: object) -> PreTrainedModel:
    config = Qwen2Config(**{**_COMMON, "vocab_size": vocab_size, "num_key_value_heads": 2, **overrides})
    return _made(lambda: Qwen2ForCausalLM(config), seed)


def tiny_qwen3(vocab_size: int, *, seed: int = 0, **overrides: object) -> PreTrainedModel:
    sizes = {**_COMMON, "vocab_size": vocab_size, "num_key_value_heads": 2, "head_dim": 16}
    config = Qwen3Config(**{**sizes, **overrides})
    return _made(lambda: Qwen3ForCausalLM(config), seed)


def tiny_llama(vocab_size: int, *, seed: int = 0, **overrides: object) -> PreTrainedModel:
    config = LlamaConfig(**{**_COMMON, "vocab_size": vocab_size, "num_key_value_heads": 4, **overrides})
    return _made(lambda: LlamaForCausalLM(config), seed)


def tiny_gpt_neox(vocab_size: int, *, seed: int = 0, **overrides: object) -> PreTrainedModel:
    config = GPTNeoXConfig(**{**_COMMON, "vocab_size": vocab_size, **overrides})
    return _made(lambda: GPTNeoXForCausalLM(config), seed)


def tiny_gpt2(vocab_size: int, *, seed: int = 0, **overrides: object) -> PreTrainedModel:
    """Learned absolute positions; dropout as it ships, so that a forgotten `eval()` shows."""
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "vocab_size": vocab_size}
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = GPT2Config(**{**sizes, **ends, **overrides})
    return _made(lambda: GPT2LMHeadModel(config), seed)


def tiny_mistral(vocab_size: int, *, seed: int = 0, sliding_window: int = 12, **overrides: object) -> PreTrainedModel:
    """Every layer sees only the last `sliding_window` tokens."""
    sizes = {**_COMMON, "vocab_size": vocab_size, "num_key_value_heads": 2, "sliding_window": sliding_window}
    config = MistralConfig(**{**sizes, **overrides})
    return _made(lambda: MistralForCausalLM(config), seed)


def tiny_gemma3(vocab_size: int, *, seed: int = 0, sliding_window: int = 12, **overrides: object) -> PreTrainedModel:
    """One layer with a sliding window and one without, each with rotary frequencies of its own."""
    sizes = {**_COMMON, "vocab_size": vocab_size, "num_key_value_heads": 2, "head_dim": 16}
    windows = {"sliding_window": sliding_window, "layer_types": ["sliding_attention", "full_attention"]}
    config = Gemma3TextConfig(**{**sizes, **windows, **overrides})
    return _made(lambda: Gemma3ForCausalLM(config), seed)


MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    "qwen2": tiny_qwen2,
    "qwen3": tiny_qwen3,
    "llama": tiny_llama,
    "gpt_neox": tiny_gpt_neox,
    "gpt2": tiny_gpt2,
    "mistral": tiny_mistral,
    "gemma3": tiny_gemma3,
}
"""Name -> builder (vocab_size, *, seed, **config overrides)."""


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per character of a small alphabet and per tag. Has pad, eos and a chat template."""
    specials = ["<pad>", "<eos>", "<unk>", "<|end|>", *ROLES]
    words = [*"0123456789+-*= .,:;?!", "\n", "Answer:", *"abcdefghijklmnopqrstuvwxyz", *"ATLWISH"]
    words += ["<confidence>", "</confidence>", "high", "low"]
    vocabulary = {word: i for i, word in enumerate(specials + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pattern = Regex(r"Answer:|</?confidence>|high|low|.|\n")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<|end|>", *ROLES],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def bpe_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on a small text, as in GPT-2 and Qwen. Has no pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<|end|>", *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        additional_special_tokens=["<|end|>", *ROLES],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """SentencePiece-style unigram with the underscore-like space mark. `<|end|>` ends a turn beside `</s>`."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120,
        special_tokens=["<s>", "</s>", "<unk>", "<pad>", "<|end|>", *ROLES],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT.splitlines(), trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<|end|>", *ROLES],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "word": word_tokenizer,
    "bpe": bpe_tokenizer,
    "unigram": unigram_tokenizer,
}
"""Name -> builder."""


def eos_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """The tokenizer's end of sequence and the end of a turn: two ids, as chat models have."""
    return frozenset(tokenizer.get_vocab()[token] for token in (str(tokenizer.eos_token), "<|end|>"))
