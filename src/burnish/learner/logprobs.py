"""Log-probabilities of given tokens, without logits for all of them at once.

`token_logprobs` takes the hidden states that predict the tokens, multiplies them with the output head a chunk of rows
at a time, and keeps per token only what the objective reads: its log-probability, the entropy, and the
log-probabilities of a few watched ids. The backward pass makes each chunk's probabilities again, so that no more than
one chunk of them exists at any time; when one chunk holds all rows, they are kept instead of made again.

Temperature divides the logits (not the log-probabilities), after the model's own scaling and soft cap:

    z = scale * (h @ W.T + b);   z = cap * tanh(z / cap) if capped;   y = z / temperature;   logprobs = log_softmax(y)

Gradients, with p = exp(logprobs) and H the entropy: d logprob_t / dy = onehot_t - p and dH / dy = -p * (log p + H).

Shape letters: N completion tokens, C rows of a chunk, D hidden size, V vocabulary, J tracked ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_ELEMENTS = 2**24
"""Logits that a chunk may hold: 64 MiB in float32, 512 rows of a vocabulary of 32768."""
MIN_ROWS = 64
"""Rows of a chunk under the largest vocabularies: fewer would leave the matrix product without work to share."""


@dataclass(frozen=True, slots=True)
class Head:
    """What turns hidden states into the logits that tokens are drawn from."""

    weight_VD: Tensor
    bias_V: Tensor | None
    temperature: float
    scale: float = 1.0
    """Factor on the logits that some models have (Cohere, Granite)."""
    softcap: float | None = None
    """Bound on the logits that some models have (Gemma 2)."""
    dtype: torch.dtype = torch.float32
    """Type of the operands of the matrix products; their results and all else are float32."""

    @property
    def rows_per_chunk(self) -> int:
        return max(CHUNK_ELEMENTS // len(self.weight_VD), MIN_ROWS)


def token_logprobs(
    hidden_ND: Tensor, tokens_N: Tensor, head: Head, *, tracked_ids: tuple[int, ...] = (), rows: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [N], entropies [N] and tracked log-probabilities [N, J], all float32 and differentiable.

    Never above 0. Differentiable once, with respect to the hidden states and the head's weight and bias.

    Args:
        hidden_ND: the state that predicts each token (of the position before it).
        tokens_N: int64.
        tracked_ids: J token ids to report for every position.
        rows: rows per chunk; None takes `head.rows_per_chunk`.
    """
    tracked_J = torch.tensor(tracked_ids, dtype=torch.int64, device=hidden_ND.device)
    return _TokenLogprobs.apply(
        hidden_ND, head.weight_VD, head.bias_V, tokens_N, tracked_J, head, rows or head.rows_per_chunk
    )  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        tokens_N: Tensor,
        tracked_J: Tensor,
        head: Head,
        rows: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(hidden_ND)
        logprobs_N, entropy_N = hidden_ND.new_empty((2, n), dtype=torch.float32)
        tracked_NJ = hidden_ND.new_empty((n, len(tracked_J)), dtype=torch.float32)
        keeps = n <= rows and head.softcap is None and any(ctx.needs_input_grad)
        probs_NV = None
        weight = weight_VD.to(head.dtype)
        for cut in _chunks(n, rows):
            scores_CV, _ = _scores(hidden_ND[cut], weight, bias_V, head)
            logprobs_N[cut], entropy_N[cut], tracked_NJ[cut], probs_CV = _read(scores_CV, tokens_N[cut], tracked_J)
            probs_NV = probs_CV if keeps else None
            del scores_CV, probs_CV
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, tokens_N, tracked_J, entropy_N, probs_NV)
        ctx.head, ctx.rows = head, rows
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N, tracked_NJ

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, by_logprob_N: Tensor | None, by_entropy_N: Tensor | None, by_tracked_NJ: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, bias_V, tokens_N, tracked_J, entropy_N, probs_NV = ctx.saved_tensors
        head: Head = ctx.head
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        by_hidden_ND = torch.zeros_like(hidden_ND) if wants_hidden else None
        by_weight_VD = torch.zeros_like(weight_VD) if wants_weight else None
        by_bias_V = torch.zeros_like(bias_V) if wants_bias else None
        weight = weight_VD.to(head.dtype)
        for cut in _chunks(len(hidden_ND), ctx.rows):
            if probs_NV is None:
                probs_CV, slope_CV = _scores(hidden_ND[cut], weight, bias_V, head)
                torch.softmax(probs_CV, dim=-1, out=probs_CV)
            else:
                probs_CV, slope_CV = probs_NV, None
            by_logit_CV = _by_score(
                probs_CV,
                tokens_N[cut],
                tracked_J,
                entropy_N[cut],
                by_logprob_C=None if by_logprob_N is None else by_logprob_N[cut],
                by_entropy_C=None if by_entropy_N is None else by_entropy_N[cut],
                by_tracked_CJ=None if by_tracked_NJ is None else by_tracked_NJ[cut],
            ).mul_(head.scale / head.temperature)
            del probs_CV
            if slope_CV is not None:
                by_logit_CV *= slope_CV
            operand_CV = by_logit_CV.to(head.dtype)
            if by_hidden_ND is not None:
                by_hidden_ND[cut] = _product(operand_CV, weight).to(hidden_ND.dtype)
            if by_weight_VD is not None:
                by_weight_VD += _product(operand_CV.T, hidden_ND[cut].to(head.dtype))
            if by_bias_V is not None:
                by_bias_V += by_logit_CV.sum(dim=0)
            del by_logit_CV, operand_CV, slope_CV
        return by_hidden_ND, by_weight_VD, by_bias_V, None, None, None, None


def _chunks(n: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, also of bfloat16 operands: rounding a logit of 20 to bfloat16 moves it by up to 0.06."""
    return a @ b if a.dtype == torch.float32 else torch.mm(a, b, out_dtype=torch.float32)


def _scores(hidden_CD: Tensor, weight: Tensor, bias_V: Tensor | None, head: Head) -> tuple[Tensor, Tensor | None]:
    """Logits over temperature, float32 and owned by the caller; and the slope of the soft cap where there is one."""
    z_CV = _product(hidden_CD.to(head.dtype), weight.T)
    if bias_V is not None:
        z_CV += bias_V
    if head.scale != 1.0:
        z_CV *= head.scale
    slope_CV = None
    if head.softcap is not None:
        z_CV.div_(head.softcap).tanh_()
        slope_CV = 1.0 - z_CV.square()
        z_CV *= head.softcap
    if head.temperature != 1.0:
        z_CV /= head.temperature
    return z_CV, slope_CV


def _read(scores_CV: Tensor, tokens_C: Tensor, tracked_J: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-probabilities [C], entropies [C], tracked log-probabilities [C, J], probabilities [C, V]."""
    scores_CV -= scores_CV.amax(dim=-1, keepdim=True)
    probs_CV = scores_CV.exp()
    total_C = probs_CV.sum(dim=-1)
    log_total_C = total_C.log()
    entropy_C = log_total_C - torch.einsum("cv,cv->c", probs_CV, scores_CV) / total_C
    picked_C = scores_CV.gather(1, tokens_C[:, None]).squeeze(1) - log_total_C
    tracked_CJ = scores_CV[:, tracked_J] - log_total_C[:, None]
    probs_CV /= total_C[:, None]
    return picked_C.clamp(max=0.0), entropy_C.clamp(min=0.0), tracked_CJ.clamp(max=0.0), probs_CV


def _by_score(
    probs_CV: Tensor,
    tokens_C: Tensor,
    tracked_J: Tensor,
    entropy_C: Tensor,
    *,
    by_logprob_C: Tensor | None,
    by_entropy_C: Tensor | None,
    by_tracked_CJ: Tensor | None,
) -> Tensor:
    """Gradient with respect to y, given the gradients with respect to what was returned of it."""
    pull_C = torch.zeros_like(entropy_C)
    if by_logprob_C is not None:
        pull_C += by_logprob_C
    if by_tracked_CJ is not None:
        pull_C += by_tracked_CJ.sum(dim=-1)
    if by_entropy_C is not None:
        pull_C += by_entropy_C * entropy_C
    by_y_CV = probs_CV * -pull_C[:, None]
    if by_entropy_C is not None:
        by_y_CV.addcmul_(torch.special.xlogy(probs_CV, probs_CV), by_entropy_C[:, None], value=-1.0)
    if by_logprob_C is not None:
        by_y_CV.scatter_add_(1, tokens_C[:, None], by_logprob_C[:, None])
    if by_tracked_CJ is not None:
        by_y_CV.index_add_(1, tracked_J, by_tracked_CJ)
    return by_y_CV
