"""From a prompt to token ids, and the ids that end a completion.

A conversation is rendered by the tokenizer's chat template, which writes every special token itself. Raw text is
encoded as it is, after the beginning-of-sequence token if the tokenizer uses one. Either way that token appears once.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from burnish.protocols import PromptEncoder
from burnish.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class ChatEncoder(PromptEncoder):
    """Encodes prompts, at most `max_prompt_tokens` long.

    With `template=False` a conversation of one user message (after an optional system message) is encoded as plain
    text, its contents joined by a blank line.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, *, template: bool, max_prompt_tokens: int, truncate_left: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._max_prompt_tokens = max_prompt_tokens
        self._truncate_left = truncate_left
        bos: Any = tokenizer.bos_token_id
        self._prefix: list[int] = [bos] if bos is not None and tokenizer("x")["input_ids"][:1] == [bos] else []

    def __call__(self, prompt: Prompt, /) -> array[int]:
        """array('i') of the prompt's token ids. Over the limit: its last tokens if `truncate_left`, else ValueError."""
        ids = self.whole(prompt)
        if len(ids) <= self._max_prompt_tokens:
            return ids
        if self._truncate_left:
            return ids[-self._max_prompt_tokens :]
        raise ValueError(
            f"prompt {prompt.id!r} has {len(ids)} tokens, over data.max_prompt_tokens={self._max_prompt_tokens}. "
            f"Type data.max_prompt_tokens={len(ids)} or data.overlong_prompts=truncate_left"
        )

    def whole(self, prompt: Prompt, /) -> array[int]:
        """array('i') of the prompt's token ids, whatever their number.

        Raises ValueError for a conversation that cannot be rendered and for a prompt that gives no tokens.
        """
        if prompt.text is None and self._template:
            ids = self._rendered(prompt)
        else:
            ids = self._as_text(prompt.text if prompt.text is not None else _plain_text(prompt))
        if not ids:
            raise ValueError(f"prompt {prompt.id!r} gives no tokens, so there is nothing to continue; remove it")
        return array("i", ids)

    def _rendered(self, prompt: Prompt) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise ValueError(
                f"prompt {prompt.id!r} is a conversation, and the tokenizer has no chat template. "
                "Type data.template=false to encode its text as it is"
            )
        try:
            text = _render(self._tokenizer, prompt.messages, add_generation_prompt=True)
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in prompt.messages)
            raise ValueError(f"the chat template refuses prompt {prompt.id!r} (roles {roles}): {error}") from error
        return _encode(self._tokenizer, text)

    def _as_text(self, text: str) -> list[int]:
        ids = _encode(self._tokenizer, text)
        return ids if ids[: len(self._prefix)] == self._prefix else [*self._prefix, *ids]


def _plain_text(prompt: Prompt) -> str:
    roles = [message["role"] for message in prompt.messages]
    if roles not in (["user"], ["system", "user"]):
        raise ValueError(
            f"prompt {prompt.id!r} is a conversation of {', '.join(roles) or 'no messages'}, and data.template=false "
            "encodes one user message only. Type data.template=true"
        )
    return "\n\n".join(message["content"] for message in prompt.messages)


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Any], *, add_generation_prompt: bool) -> str:
    """The conversation as the chat template writes it. As text: what `apply_chat_template` returns for token ids
    differs between versions of transformers."""
    rendered = tokenizer.apply_chat_template(
        [dict(message) for message in messages], add_generation_prompt=add_generation_prompt, tokenize=False
    )
    assert isinstance(rendered, str)
    return rendered


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: Any = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


# -- where completions end --------------------------------------------------------------------------------------------

_SAID = "burnish"


def end_of_sequence_ids(
    tokenizer: PreTrainedTokenizerBase,
    *,
    config_eos: int | Sequence[int] | None,
    generation_eos: int | Sequence[int] | None,
) -> frozenset[int]:
    """All ids after which a completion is over: `eos_token_id` of the model's config, of its generation config and of
    the tokenizer, and the token with which the chat template ends an assistant's turn, if it is one special token.

    Counting only the tokenizer's makes chat models seem to ramble on to the length limit. Raises ValueError when there
    is none at all.
    """
    own: Any = tokenizer.eos_token_id
    ids = {*_as_ids(config_eos), *_as_ids(generation_eos), *_as_ids(own), *_turn_end_ids(tokenizer)}
    if not ids:
        raise ValueError(
            "the model and its tokenizer name no end-of-sequence token, so no completion could ever stop; "
            "set eos_token in tokenizer_config.json or eos_token_id in generation_config.json"
        )
    return frozenset(ids)


def _as_ids(value: int | Sequence[int] | None) -> Sequence[int]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else value


def _turn_end_ids(tokenizer: PreTrainedTokenizerBase) -> Sequence[int]:
    """The special token that follows an assistant's text in the chat template; empty if none does."""
    if tokenizer.chat_template is None:
        return ()
    turns = ({"role": "user", "content": "x"}, {"role": "assistant", "content": _SAID})
    try:
        text = _render(tokenizer, turns, add_generation_prompt=False)
    except TemplateError:
        # A template need not be able to render an answer; it only has to render prompts.
        return ()
    _, said, after = text.rpartition(_SAID)
    ids = _encode(tokenizer, after.lstrip()) if said else []
    return ids[:1] if ids and ids[0] in tokenizer.added_tokens_decoder else ()


def token_bytes(tokenizer: PreTrainedTokenizerBase) -> Callable[[Sequence[int]], list[int]]:
    """A function from token ids to the bytes of text that each stands for.

    Read off the vocabulary, so that a token that ends inside a character has its own share of it, which decoding the
    token alone could not tell.
    """
    specials = set(tokenizer.all_special_ids)
    backend: Any = tokenizer.backend_tokenizer
    is_byte_level = "ByteLevel" in json.dumps(json.loads(backend.to_str())["decoder"])

    @cache
    def count(token_id: int) -> int:
        token: Any = tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return 0
        if token_id in specials:
            return len(token.encode())
        if is_byte_level:
            return len(token)  # one character of the byte alphabet for each byte
        return 1 if _BYTE_TOKEN.fullmatch(token) else len(token.replace(_SPACE, " ").encode())

    return lambda token_ids: [count(token_id) for token_id in token_ids]


_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
"""How SentencePiece vocabularies write a single byte."""
_SPACE = "\u2581"
"""How they write a space."""
