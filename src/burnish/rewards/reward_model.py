"""A neural reward model as a part of a reward: a sequence classifier with one logit reads prompt and completion.

The only module of rewards that loads torch and transformers: import it where it is wanted, and nowhere else.

What the model reads is the conversation with the completion as the assistant's last message, in the form of its own
chat template; for a raw text prompt, the prompt and the completion as one text; for a conversation without a template,
one `role: content` line per message. Special tokens that the policy wrote as text are taken out first: a completion
must not end its own turn and praise itself in the user's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from burnish.rewards.measured import Measured, invalid, read
from burnish.types import Completion, Prompt


def load_classifier(
    path: str, *, device: torch.device, dtype: torch.dtype = torch.float32, trust_remote_code: bool = False
) -> PreTrainedModel:
    """A sequence classifier with one label, from a directory in `save_pretrained` layout or a hub name.

    Raises:
        ValueError: it cannot be loaded, has another number of labels, or a head that was never trained.
    """
    try:
        labels = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code).num_labels
        if labels != 1:
            raise ValueError(f"it has {labels} labels")
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            path,
            dtype=dtype,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(f"no trained {', '.join(missing[:3])}, and random scores teach nothing")
    except (OSError, ValueError, SafetensorError) as error:
        found = " ".join(str(error).split())  # transformers writes paragraphs
        raise ValueError(
            f"the reward model {path} cannot be used; it needs a sequence classifier with one label: a directory in "
            f"save_pretrained layout, or a hub name. Found: {found}"
        ) from error
    return model.to(device).eval()


class RewardModel:
    """Scores by the model's logit, as it is: no sigmoid, no scale.

    Siblings are read in batches of similar length, and a score does not depend on its batch beyond rounding. Nothing is
    cut: what is longer than the model can read is `invalid`.

    Example:
        RewardModel(load_classifier("./reward-model", device=torch.device("cuda")), tokenizer, batch_size=16)
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int) -> None:
        """
        Args:
            batch_size: texts that one forward pass reads. A model without a token for padding reads one at a time.
        """
        self._model = model
        self._tokenizer = tokenizer
        self._pad_id = _padding(model, tokenizer)
        self._batch_size = 1 if self._pad_id is None else batch_size
        self._limit = _limit(model, tokenizer)
        special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self._special = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))) or r"(?!)")

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        texts = [self._encode(prompt, completion.text) for completion in completions]
        verdicts: dict[int, Measured] = {}
        readable: list[int] = []
        for index, ids in enumerate(texts):
            if len(ids) > self._limit:
                verdicts[index] = invalid(f"{len(ids):,} tokens, and the reward model reads at most {self._limit:,}")
            else:
                readable.append(index)
        readable.sort(key=lambda index: len(texts[index]))
        for start in range(0, len(readable), self._batch_size):
            batch = readable[start : start + self._batch_size]
            for index, logit in zip(batch, self._logits([texts[i] for i in batch]), strict=True):
                verdicts[index] = read(logit)
        return [verdicts[index] for index in range(len(completions))]

    def _encode(self, prompt: Prompt, completion: str) -> list[int]:
        text = _without(self._special, completion)
        if prompt.text is not None:
            return self._tokenizer(prompt.text + text)["input_ids"]  # pyright: ignore[reportReturnType]
        spoken = replace(prompt, messages=(*prompt.messages, {"role": "assistant", "content": text}))
        if self._tokenizer.chat_template is None:
            return self._tokenizer(spoken.shown)["input_ids"]  # pyright: ignore[reportReturnType]
        conversation = [dict(message) for message in spoken.messages]
        rendered = self._tokenizer.apply_chat_template(conversation, tokenize=False)
        return self._tokenizer(rendered, add_special_tokens=False)["input_ids"]  # pyright: ignore

    @torch.inference_mode()
    def _logits(self, texts: Sequence[Sequence[int]]) -> list[float]:
        longest = max(map(len, texts))
        device, pad = self._model.device, self._pad_id or 0  # one text alone has no padding
        ids_BT = torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in texts], device=device)
        mask_BT = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in texts], device=device)
        logits_B1: Any = self._model(input_ids=ids_BT, attention_mask=mask_BT).logits
        return logits_B1.squeeze(-1).float().tolist()


def _padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token to pad with, made known to the model, which looks for the last token that is not padding.

    None where there is none of its own: the end of a sequence would do for filling up, but then the model would no
    longer see the end of the text itself.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        config.pad_token_id = tokenizer.pad_token_id
    pad_id = config.pad_token_id
    assert pad_id is None or isinstance(pad_id, int)
    return pad_id


def _limit(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    config = model.config.get_text_config()
    positions = config.max_position_embeddings if hasattr(config, "max_position_embeddings") else math.inf
    return min(positions, tokenizer.model_max_length)


def _without(special: re.Pattern[str], text: str) -> str:
    """`text` without any match, also without those that taking one out would make."""
    while (shorter := special.sub("", text)) != text:
        text = shorter
    return text
