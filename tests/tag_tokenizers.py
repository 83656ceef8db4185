"""Tokenizers that write `<confidence>high</confidence>` in different ways, all of them made here.

| name | how it writes the tag |
|---|---|
| `word` | `<confidence>` `high` `</confidence>` |
| `bpe` | `<` `c` `on` ... `>` `h` `i` `g` `h` `<` ...: bytes and a few merges |
| `merged` | `<` `confidence` `>high` `</` ...: the word together with what is before it |
| `unigram` | SentencePiece style; the space before the first word is stripped when decoded |
"""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import bpe_tokenizer, word_tokenizer

TAGGED = ["<confidence>high</confidence> The answer is 4.", "<confidence>low</confidence> It is hard to say."] * 4


def merged_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges chosen so that `>high` and `>low` are one token each, and `high` alone another."""
    words = ["confidence", ">high", ">low", "high", "low", "</"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: index for index, character in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in words:
        # From the right, so that `>` joins a word that is already whole.
        piece = word[-1]
        for character in reversed(word[:-1]):
            merges.append((character, piece))
            piece = character + piece
            vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges))))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def tagged_unigram_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(TAGGED, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", clean_up_tokenization_spaces=False)


TAG_TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "word": word_tokenizer,
    "bpe": bpe_tokenizer,
    "merged": merged_tokenizer,
    "unigram": tagged_unigram_tokenizer,
}
"""Name -> builder."""
