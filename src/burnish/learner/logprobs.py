"""Log-probabilities of given tokens, without logits for all of them at once.

`token_logprobs` takes the hidden states that predict the tokens, multiplies them with the output head a chunk of rows
at a time, and keeps per token only what the objective reads: its log-probability, the entropy, and the
log-probabilities of a few watched ids. Memory is one array of a chunk's size, [C, V], and the gradient of the weight:

    forward    logits; in their place, a block of rows at a time, probabilities
    backward   in their place the gradient of the logits; from it those of the hidden states and of the weight

When one chunk holds all rows, the backward pass finds the probabilities as the forward pass left them, and the head
costs three matrix products; otherwise it makes them again, and the head costs four. `packing.runs` therefore cuts a
piece into runs of whole sequences that fit a chunk. Gradients of the head's weight and bias are added to their `.grad`
where they arise: handed to autograd they would be further arrays of the weight's size.

Temperature divides the logits (not the log-probabilities), after the model's own scaling and soft cap:

    z = scale * (h @ W.T + b);   z = cap * tanh(z / cap) if capped;   y = z / temperature;   logprobs = log_softmax(y)

Gradients, with p = exp(logprobs) and H the entropy: d logprob_t / dy = onehot_t - p and dH / dy = -p * (log p + H).

Shape letters: N completion tokens, C rows of a chunk, R rows of a block, D hidden size, V vocabulary, J tracked ids.
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
BLOCK_ELEMENTS = 2**18
"""Logits that are turned into probabilities at a time on a CPU: 1 MiB, which stays in its cache from pass to pass."""


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

    Never above 0. Differentiable once, and to autograd functions of the hidden states alone: the backward pass adds the
    gradients of the head's weight and bias to their `.grad` itself, where they require one. Hooks do not see those.

    Args:
        hidden_ND: the state that predicts each token (of the position before it); it requires a gradient if the head is
            to get one.
        tokens_N: int64.
        tracked_ids: J token ids to report for every position.
        rows: rows per chunk; None takes `head.rows_per_chunk`.
    """
    tracked_J = torch.tensor(tracked_ids, dtype=torch.int64, device=hidden_ND.device)
    return _TokenLogprobs.apply(hidden_ND, tokens_N, tracked_J, head, rows or head.rows_per_chunk)  # pyright: ignore[reportReturnType]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        hidden_ND: Tensor,
        tokens_N: Tensor,
        tracked_J: Tensor,
        head: Head,
        rows: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n = len(hidden_ND)
        logprobs_N, entropy_N = hidden_ND.new_empty((2, n), dtype=torch.float32)
        tracked_NJ = hidden_ND.new_empty((n, len(tracked_J)), dtype=torch.float32)
        weight = head.weight_VD.to(head.dtype)
        chunk = None
        for cut in _slices(n, rows):
            chunk = None  # no two at once
            chunk = _Chunk(hidden_ND[cut], weight, tokens_N[cut], tracked_J, head)
            logprobs_N[cut], entropy_N[cut], tracked_NJ[cut] = chunk.logprobs_C, chunk.entropy_C, chunk.tracked_CJ
        ctx.save_for_backward(hidden_ND, tokens_N, tracked_J)
        ctx.chunk = chunk if n <= rows and ctx.needs_input_grad[0] else None
        ctx.head, ctx.rows = head, rows
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N, tracked_NJ

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, by_logprob_N: Tensor | None, by_entropy_N: Tensor | None, by_tracked_NJ: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden_ND, tokens_N, tracked_J = ctx.saved_tensors
        head: Head = ctx.head
        by_hidden_ND = torch.empty_like(hidden_ND)
        by_weight_VD, by_bias_V = _accumulated(head.weight_VD), _accumulated(head.bias_V)
        weight = head.weight_VD.to(head.dtype)
        chunk, ctx.chunk = ctx.chunk, None
        for cut in _slices(len(hidden_ND), ctx.rows):
            chunk = chunk or _Chunk(hidden_ND[cut], weight, tokens_N[cut], tracked_J, head)
            by_logit_CV = chunk.by_logit(
                None if by_logprob_N is None else by_logprob_N[cut],
                None if by_entropy_N is None else by_entropy_N[cut],
                None if by_tracked_NJ is None else by_tracked_NJ[cut],
            )
            chunk = None
            operand_CV = by_logit_CV.to(head.dtype)
            by_hidden_ND[cut] = _product(operand_CV, weight)
            if by_weight_VD is not None:
                _add_product(by_weight_VD, operand_CV.T, hidden_ND[cut].to(head.dtype))
            if by_bias_V is not None:
                by_bias_V += by_logit_CV.sum(dim=0)
            del by_logit_CV, operand_CV
        return by_hidden_ND, None, None, None, None


class _Chunk:
    """Rows on their way through the head and back, in one array: logits, then probabilities, then their gradient."""

    def __init__(self, hidden_CD: Tensor, weight_VD: Tensor, tokens_C: Tensor, tracked_J: Tensor, head: Head) -> None:
        self._tokens_C, self._tracked_J, self._head = tokens_C, tracked_J, head
        self._values_CV = _product(hidden_CD.to(head.dtype), weight_VD.T)
        self._slope_CV = None if head.softcap is None else torch.empty_like(self._values_CV)
        """Of the soft cap."""
        c, v = self._values_CV.shape
        self._rows = min(c, max(BLOCK_ELEMENTS // v, 1)) if self._values_CV.device.type == "cpu" else c
        self._scratch_RV = self._values_CV.new_empty(self._rows, v)
        self.logprobs_C, self.entropy_C = self._values_CV.new_empty(2, c)
        self.tracked_CJ = self._values_CV.new_empty(c, len(tracked_J))
        for block in _slices(c, self._rows):
            self._read(block)

    def by_logit(
        self, by_logprob_C: Tensor | None, by_entropy_C: Tensor | None, by_tracked_CJ: Tensor | None
    ) -> Tensor:
        """Gradient with respect to h @ W.T, [C, V], given those with respect to what was read. To be called once."""
        factor = self._head.scale / self._head.temperature
        pull_C = torch.zeros_like(self.entropy_C)
        if by_logprob_C is not None:
            by_logprob_C = by_logprob_C * factor
            pull_C += by_logprob_C
        if by_tracked_CJ is not None:
            by_tracked_CJ = by_tracked_CJ * factor
            pull_C += by_tracked_CJ.sum(dim=-1)
        if by_entropy_C is not None:
            by_entropy_C = by_entropy_C * factor
            pull_C += by_entropy_C * self.entropy_C
        for block in _slices(len(pull_C), self._rows):
            values_RV = self._values_CV[block]
            if by_entropy_C is None:
                values_RV *= -pull_C[block, None]
            else:
                spread_RV = torch.xlogy(values_RV, values_RV, out=self._scratch_RV[: len(values_RV)])
                values_RV.mul_(-pull_C[block, None]).addcmul_(spread_RV, by_entropy_C[block, None], value=-1.0)
            if by_logprob_C is not None:
                values_RV.scatter_add_(1, self._tokens_C[block, None], by_logprob_C[block, None])
            if by_tracked_CJ is not None:
                values_RV.index_add_(1, self._tracked_J, by_tracked_CJ[block])
            if self._slope_CV is not None:
                values_RV *= self._slope_CV[block]
        return self._values_CV

    def _read(self, block: slice) -> None:
        """What the objective reads of a block of rows, whose logits become probabilities."""
        values_RV = self._values_CV[block]
        self._to_scores(values_RV, None if self._slope_CV is None else self._slope_CV[block])
        values_RV -= values_RV.amax(dim=-1, keepdim=True)
        exps_RV = torch.exp(values_RV, out=self._scratch_RV[: len(values_RV)])
        total_R = exps_RV.sum(dim=-1)
        log_total_R = total_R.log()
        entropy_R = log_total_R - torch.einsum("rv,rv->r", exps_RV, values_RV) / total_R
        logprobs_R = values_RV.gather(1, self._tokens_C[block, None]).squeeze(1) - log_total_R
        tracked_RJ = values_RV[:, self._tracked_J] - log_total_R[:, None]
        self.logprobs_C[block] = logprobs_R.clamp_(max=0.0)
        self.entropy_C[block] = entropy_R.clamp_(min=0.0)
        self.tracked_CJ[block] = tracked_RJ.clamp_(max=0.0)
        torch.div(exps_RV, total_R[:, None], out=values_RV)

    def _to_scores(self, values_RV: Tensor, slope_RV: Tensor | None) -> None:
        """Turn products of hidden states and weight into logits over temperature."""
        head = self._head
        if head.bias_V is not None:
            values_RV += head.bias_V
        if head.scale != 1.0:
            values_RV *= head.scale
        if head.softcap is not None and slope_RV is not None:
            values_RV.div_(head.softcap).tanh_()
            torch.square(values_RV, out=slope_RV).neg_().add_(1.0)
            values_RV *= head.softcap
        if head.temperature != 1.0:
            values_RV /= head.temperature


def _slices(n: int, rows: int) -> Iterator[slice]:
    return (slice(start, min(start + rows, n)) for start in range(0, n, rows))


def _accumulated(parameter: Tensor | None) -> Tensor | None:
    """Its `.grad`, to be added to; None where it is not trained."""
    if parameter is None or not parameter.requires_grad:
        return None
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in float32, also of bfloat16 operands: rounding a logit of 20 to bfloat16 moves it by up to 0.06."""
    return a @ b if a.dtype == torch.float32 else torch.mm(a, b, out_dtype=torch.float32)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a @ b in float32; of float32 operands without an array for the product."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    else:
        total += _product(a, b)
