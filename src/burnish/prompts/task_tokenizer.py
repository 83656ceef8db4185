"""The tokenizer of the built-in tasks: a handful of words, single digits, four special tokens."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from burnish.prompts.tasks import WORDS

PAD, START, END, UNKNOWN = "<|pad|>", "<|im_start|>", "<|im_end|>", "<|unknown|>"
VOCABULARY = {token: index for index, token in enumerate((PAD, START, END, UNKNOWN, *WORDS))}
"""Token -> id."""

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, with a chat template; decoding gives the text of a built-in task back exactly.

    The confidence tags are words and not special tokens: skipping special tokens must leave them in the text.
    """
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    longest_first = sorted(WORDS, key=len, reverse=True)
    # As code points: words hold characters that mean something in a pattern.
    alternatives = ["".join(f"\\x{{{ord(character):x}}}" for character in word) for word in longest_first]
    pattern = Regex("|".join([*alternatives, "."]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        additional_special_tokens=[START],
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
