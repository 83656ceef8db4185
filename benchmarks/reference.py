"""The plain way, kept as it is to compare with: transformers' `generate`, then a padded forward and backward pass.

Shape letters: B sequences, T tokens of the longest prompt and completion, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel


@torch.no_grad()
def generate(model: PreTrainedModel, prompts: Sequence[Sequence[int]], group_size: int, max_new_tokens: int) -> int:
    """Sample `group_size` completions of every prompt in one padded batch; returns the number of tokens drawn."""
    rows = [prompt for prompt in prompts for _ in range(group_size)]
    ids_BT, attention_BT = (tensor.to(model.device) for tensor in _left_padded(rows))
    eos = model.generation_config.eos_token_id
    out_BT = model.generate(
        ids_BT, attention_mask=attention_BT, do_sample=True, top_k=0, max_new_tokens=max_new_tokens, pad_token_id=eos
    )
    new_BT = out_BT[:, ids_BT.shape[1] :]
    ended_BT = (new_BT == eos).int().cumsum(1)
    return int((ended_BT - (new_BT == eos).int() == 0).sum())


def update(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    old_logprobs: Sequence[Tensor],
    advantages: Sequence[float],
    *,
    rows_per_piece: int,
    clip: tuple[float, float] = (0.2, 0.28),
) -> None:
    """Accumulate the gradient of the clipped surrogate, token mean, from padded micro-batches in the order given."""
    num_tokens = sum(map(len, completions))
    for start in range(0, len(completions), rows_per_piece):
        piece = slice(start, start + rows_per_piece)
        rows = [[*p, *c] for p, c in zip(prompts[piece], completions[piece], strict=True)]
        ids_BT, attention_BT = (tensor.to(model.device) for tensor in _right_padded(rows))
        logits_BTV = model(ids_BT, attention_mask=attention_BT, use_cache=False).logits[:, :-1]
        logprobs_BT = logits_BTV.log_softmax(-1).gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
        loss = torch.zeros((), device=model.device)
        for b, (prompt, completion) in enumerate(zip(prompts[piece], completions[piece], strict=True)):
            first = len(prompt) - 1
            ratio_T = (logprobs_BT[b, first : first + len(completion)] - old_logprobs[start + b].to(model.device)).exp()
            advantage = advantages[start + b]
            clipped_T = ratio_T.clamp(1 - clip[0], 1 + clip[1])
            loss = loss - torch.minimum(ratio_T * advantage, clipped_T * advantage).sum() / num_tokens
        loss.backward()


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    attention = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, attention


def _right_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([list(row) + [0] * (width - len(row)) for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, attention
