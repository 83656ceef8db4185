"""How a token is drawn: keyed uniforms, truncation filters, the inverse of the cumulative distribution.

    logits -> temperature -> weights -> keep_top_k -> keep_top_p -> keep_min_p -> inverse_cdf(weights, uniform)

Randomness is a function of (seed, token index) and of nothing else: there is no running stream, so a completion does
not depend on which others are decoded beside it, nor on how often it was tried. One uniform is used per token.

Shape letters: B rows, V vocabulary. `weights_BV` are unnormalised probabilities; a filter returns them with zeros in
the place of what it drops. To add a filter: a function of (weights_BV, threshold), called in `truncated`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from burnish.rollout import kernels
from burnish.types import Sampling

_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
_BLOCK = 256


def uniforms(seeds: Tensor, steps: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1), one per (seed, step): float64, in the broadcast shape of the two.

    Args:
        seeds: int64.
        steps: int64 or a plain number: index of the token within its completion.

    The hash is SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators") with the mixed
    seed as its state, so that neighbouring seeds do not walk along the same sequence. The 53 high bits are used.
    """
    index = torch.as_tensor(steps, dtype=torch.int64, device=seeds.device) + 1
    mixed = _mix(_mix(seeds + _GOLDEN) + index * _GOLDEN)
    return _shifted(mixed, 11).double() * 2.0**-53


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _MIX_1
    z = (z ^ _shifted(z, 27)) * _MIX_2
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; `>>` on int64 would copy the sign bit."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def keep_top_k(weights_BV: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` heaviest tokens, and whatever ties with the last of them."""
    least_B1 = weights_BV.topk(min(top_k, weights_BV.shape[-1]), dim=-1).values[:, -1:]
    return weights_BV.masked_fill(weights_BV < least_B1, 0.0)


def keep_top_p(weights_BV: Tensor, top_p: float) -> Tensor:
    """Keep the smallest set of tokens whose share of the weight reaches `top_p`; never fewer than one.

    Holtzman et al. 2019, arXiv:1904.09751.
    """
    sorted_BV, order_BV = weights_BV.sort(dim=-1, descending=True, stable=True)
    reached_BV = sorted_BV.cumsum(-1, dtype=torch.float64)
    before_BV = reached_BV - sorted_BV
    dropped_BV = before_BV >= top_p * reached_BV[:, -1:]
    dropped_BV[:, 0] = False
    return weights_BV.masked_fill(torch.zeros_like(dropped_BV).scatter(-1, order_BV, dropped_BV), 0.0)


def keep_min_p(weights_BV: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least `min_p` times as likely as the likeliest. Nguyen et al. 2024, arXiv:2407.01082."""
    return weights_BV.masked_fill(weights_BV < min_p * weights_BV.amax(-1, keepdim=True), 0.0)


def truncated(weights_BV: Tensor, sampling: Sampling) -> Tensor:
    """All filters that `sampling` asks for, in the order of Hugging Face `generate`: each sees what the last left."""
    if sampling.top_k > 0:
        weights_BV = keep_top_k(weights_BV, sampling.top_k)
    if sampling.top_p < 1.0:
        weights_BV = keep_top_p(weights_BV, sampling.top_p)
    if sampling.min_p > 0.0:
        weights_BV = keep_min_p(weights_BV, sampling.min_p)
    return weights_BV


def inverse_cdf(weights_BV: Tensor, uniforms_B: Tensor) -> Tensor:
    """Token index per row, int64 [B]: the first at which the cumulative weight exceeds the row's uniform share of it.

    A token of weight zero is never returned, whatever the uniform. Large vocabularies are searched in two levels,
    blocks and then tokens of one block, because a running sum over the whole row costs more than all else here.
    """
    vocabulary = weights_BV.shape[-1]
    if vocabulary <= 4 * _BLOCK:
        return _search(weights_BV, uniforms_B)[0]
    whole = vocabulary - vocabulary % _BLOCK
    blocks = weights_BV[:, :whole].unflatten(-1, (-1, _BLOCK)).sum(-1)
    rest = weights_BV[:, whole:].sum(-1, keepdim=True)
    block_B, inner_B = _search(torch.cat((blocks, rest), dim=-1), uniforms_B)
    offsets = torch.arange(_BLOCK, device=weights_BV.device)
    index = block_B[:, None] * _BLOCK + offsets
    inside = weights_BV.gather(-1, index.clamp(max=vocabulary - 1)).masked_fill(index >= vocabulary, 0.0)
    return block_B * _BLOCK + _search(inside, inner_B)[0]


def _search(weights_BV: Tensor, uniforms_B: Tensor) -> tuple[Tensor, Tensor]:
    """Index per row, and where in [0, 1) of that index's own share the uniform fell."""
    reached_BV = weights_BV.cumsum(-1, dtype=torch.float64)
    total_B1 = reached_BV[:, -1:]
    # The product may round up to the total, beyond the last token; below it, the first sum that exceeds the threshold
    # exceeds its predecessor too, so its token has weight.
    threshold_B1 = torch.minimum(uniforms_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    # Rows of NaN find no index; they must reach the caller, who sees the NaN in the log-probability.
    index_B1 = torch.searchsorted(reached_BV, threshold_B1, right=True).clamp_(max=weights_BV.shape[-1] - 1)
    own_B1 = weights_BV.gather(-1, index_B1).double()
    before_B1 = reached_BV.gather(-1, index_B1) - own_B1
    inner_B1 = ((threshold_B1 - before_B1) / own_B1).clamp_(0.0, 1.0 - 2.0**-53)
    return index_B1[:, 0], inner_B1[:, 0]


def draw(logits_BV: Tensor, uniforms_B: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """One token per row and its log-probability.

    Args:
        logits_BV: any floating type; computed in float32.
        uniforms_B: float64 in [0, 1); not read when the temperature is 0.

    Returns:
        tokens_B: int64.
        logprobs_B: float32, log_softmax(logits / temperature) over the whole vocabulary at the token; truncation does
            not renormalise it. At temperature 0: at temperature 1.
    """
    scaled_BV = logits_BV.float()
    greedy = sampling.temperature == 0.0
    if not greedy and sampling.temperature != 1.0:
        scaled_BV = scaled_BV / sampling.temperature
    peak_B1 = scaled_BV.amax(-1, keepdim=True)
    weights_BV = (scaled_BV - peak_B1).exp_()
    if greedy:
        tokens_B = scaled_BV.argmax(-1)
    else:
        tokens_B = inverse_cdf(truncated(weights_BV, sampling), uniforms_B)
    chosen_B1 = scaled_BV.gather(-1, tokens_B[:, None]) - peak_B1
    return tokens_B, (chosen_B1 - weights_BV.sum(-1, keepdim=True).log())[:, 0]


def drawer(sampling: Sampling, device: torch.device) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(logits, which may be overwritten; uniforms) -> what `draw` gives, in the fastest way there is for them."""
    whole = sampling.top_k == 0 and sampling.top_p == 1.0 and sampling.min_p == 0.0
    native = kernels.load() if whole and sampling.temperature > 0.0 and device.type == "cpu" else None
    if native is None:
        return lambda logits_BV, uniforms_B: draw(logits_BV, uniforms_B, sampling)
    return lambda logits_BV, uniforms_B: native.draw(logits_BV.float(), uniforms_B, sampling.temperature)
