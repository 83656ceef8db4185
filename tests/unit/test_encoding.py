"""Prompts become token ids once, with one beginning; and every way a completion may end is known."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from burnish.prompts.encoding import ChatEncoder, end_of_sequence_ids
from burnish.types import Prompt
from tests.tiny_models import TOKENIZERS, bpe_tokenizer, unigram_tokenizer, word_tokenizer

ASK = Prompt(id="ask", messages=({"role": "user", "content": "12+30="},), answer="42")


def encoder(tokenizer: PreTrainedTokenizerFast, **options: Any) -> ChatEncoder:
    return ChatEncoder(tokenizer, **{"template": True, "max_prompt_tokens": 100, "truncate_left": False, **options})


def with_bos_and_eos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Surrounds text with `<s>` and `</s>` unless told otherwise, as T5 and BERT do with theirs."""
    vocabulary = tokenizer.get_vocab()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")]
    )
    return tokenizer


def ids_of(tokenizer: PreTrainedTokenizerFast, *tokens: str) -> list[int]:
    return [tokenizer.get_vocab()[token] for token in tokens]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_conversation_is_rendered_by_the_template_and_asks_for_the_answer(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    ids = encoder(tokenizer)(ASK)
    assert isinstance(ids, array)
    assert ids.typecode == "i"
    assert ids[:1].tolist() == ids_of(tokenizer, "<|user|>")
    assert ids[-2:].tolist() == ids_of(tokenizer, "<|end|>", "<|assistant|>")
    assert ids.tolist() == tokenizer.apply_chat_template(
        [dict(message) for message in ASK.messages], add_generation_prompt=True, return_dict=False
    )


def test_without_template_the_text_is_encoded_as_it_is() -> None:
    tokenizer = word_tokenizer()
    encode = encoder(tokenizer, template=False)
    assert encode(ASK).tolist() == ids_of(tokenizer, *"12+30=")
    system = {"role": "system", "content": "sum"}
    assert encode(Prompt(id="a", messages=(system, *ASK.messages))).tolist() == ids_of(tokenizer, *"sum\n\n12+30=")
    assert encode(Prompt(id="a", text="<|user|>1")).tolist() == ids_of(tokenizer, "<|user|>", "1")


def test_raw_text_is_not_rendered_even_where_conversations_are() -> None:
    tokenizer = word_tokenizer()
    assert encoder(tokenizer)(Prompt(id="a", text="12")).tolist() == ids_of(tokenizer, *"12")


def test_text_begins_with_one_bos_where_the_tokenizer_has_it_and_never_ends_with_eos() -> None:
    tokenizer = with_bos_and_eos(unigram_tokenizer())
    bos, eos = ids_of(tokenizer, "<s>", "</s>")
    assert tokenizer("42")["input_ids"][-1] == eos
    encode = encoder(tokenizer, template=False)
    for text in ("42", "<s>42"):
        ids = encode(Prompt(id="a", text=text)).tolist()
        assert ids.count(bos) == 1
        assert ids[0] == bos
        assert eos not in ids


def test_a_template_that_writes_bos_gives_one() -> None:
    tokenizer = with_bos_and_eos(unigram_tokenizer())
    tokenizer.chat_template = "{{ bos_token }}" + str(tokenizer.chat_template)
    (bos,) = ids_of(tokenizer, "<s>")
    ids = encoder(tokenizer)(ASK).tolist()
    assert ids.count(bos) == 1
    assert ids[0] == bos


def test_an_empty_prompt_is_bos_alone_or_refused() -> None:
    tokenizer = with_bos_and_eos(unigram_tokenizer())
    assert encoder(tokenizer)(Prompt(id="a", text="")).tolist() == ids_of(tokenizer, "<s>")
    with pytest.raises(ValueError, match="prompt 'a' gives no tokens"):
        encoder(bpe_tokenizer())(Prompt(id="a", text=""))


def test_a_conversation_without_chat_template_is_refused_with_what_to_type() -> None:
    tokenizer = bpe_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(
        ValueError, match=r"prompt 'ask' is a conversation.* no chat template\. Type data.template=false"
    ):
        encoder(tokenizer)(ASK)
    assert len(encoder(tokenizer, template=False)(ASK)) > 0


def test_a_conversation_of_several_turns_needs_the_template() -> None:
    turns = (*ASK.messages, {"role": "assistant", "content": "42"}, *ASK.messages)
    with pytest.raises(ValueError, match=r"of user, assistant, user, .*Type data.template=true"):
        encoder(word_tokenizer(), template=False)(Prompt(id="a", messages=turns))


def test_a_refusal_of_the_template_names_the_prompt() -> None:
    tokenizer = bpe_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('System role not supported') }}"
    with pytest.raises(ValueError, match=r"refuses prompt 'ask' \(roles user\): System role not supported"):
        encoder(tokenizer)(ASK)


def test_an_overlong_prompt_is_refused_or_keeps_its_last_tokens() -> None:
    tokenizer = word_tokenizer()
    whole = encoder(tokenizer).whole(ASK)
    assert len(whole) == 9
    assert encoder(tokenizer, max_prompt_tokens=9)(ASK) == whole
    with pytest.raises(ValueError, match=r"prompt 'ask' has 9 tokens, over data.max_prompt_tokens=8\."):
        encoder(tokenizer, max_prompt_tokens=8)(ASK)
    cut = encoder(tokenizer, max_prompt_tokens=4, truncate_left=True)
    assert cut(ASK) == whole[-4:]
    assert cut.whole(ASK) == whole


# -- ends -------------------------------------------------------------------------------------------------------------


def test_all_ends_count_those_of_the_configs_the_tokenizer_and_the_template() -> None:
    tokenizer = bpe_tokenizer()
    own, turn = ids_of(tokenizer, "<|endoftext|>", "<|end|>")
    assert end_of_sequence_ids(tokenizer, config_eos=None, generation_eos=None) == {own, turn}
    assert end_of_sequence_ids(tokenizer, config_eos=77, generation_eos=[78, own]) == {own, turn, 77, 78}


@pytest.mark.parametrize(
    ("template", "has_turn_end"),
    [
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n<|end|>\n' }}{% endfor %}", True),
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}", False),
        ("{% for m in messages %}{{ '<|end|>' + m['content'] }}{% endfor %}", False),
        ("{{ messages[0]['content'] + '<|end|>' }}", False),
        ("{% if messages|length > 1 %}{{ raise_exception('one turn') }}{% endif %}", False),
        (None, False),
    ],
)
def test_the_end_of_a_turn_is_read_off_the_template(template: str | None, has_turn_end: bool) -> None:
    tokenizer = bpe_tokenizer()
    tokenizer.chat_template = template
    own, turn = ids_of(tokenizer, "<|endoftext|>", "<|end|>")
    expected = {own, turn} if has_turn_end else {own}
    assert end_of_sequence_ids(tokenizer, config_eos=None, generation_eos=None) == expected


def test_a_model_without_any_end_is_refused() -> None:
    tokenizer = bpe_tokenizer()
    tokenizer.chat_template = None
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-sequence token, so no completion could ever stop"):
        end_of_sequence_ids(tokenizer, config_eos=None, generation_eos=None)
    assert end_of_sequence_ids(tokenizer, config_eos=None, generation_eos=0) == {0}
