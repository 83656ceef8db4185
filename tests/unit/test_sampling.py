"""Draws against naive references, and the arithmetic at the edges of the unit interval."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessorList, MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from burnish.rollout.sampling import draw, inverse_cdf, keep_min_p, keep_top_k, keep_top_p, truncated, uniforms
from burnish.types import Sampling

LAST_UNIFORM = 1.0 - 2.0**-53
MASK = (1 << 64) - 1


def splitmix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def uniform(seed: int, step: int) -> float:
    golden = 0x9E3779B97F4A7C15
    state = splitmix((seed + golden) & MASK)
    return (splitmix((state + (step + 1) * golden) & MASK) >> 11) / 2**53


@given(seed=st.integers(-(2**63), 2**63 - 1), step=st.integers(0, 2**31))
@settings(deadline=None)
def test_uniforms_lie_in_the_half_open_unit_interval_and_equal_plain_integer_arithmetic(seed: int, step: int) -> None:
    found = uniforms(torch.tensor([seed]), step).item()
    assert 0.0 <= found < 1.0
    assert found == uniform(seed, step)


def test_the_first_output_of_splitmix64_is_the_published_one() -> None:
    # Vigna's splitmix64.c, seed 0, first output.
    assert splitmix(0x9E3779B97F4A7C15) == 0xE220A8397B1DCDAF


def test_uniforms_do_not_depend_on_what_stands_beside_them() -> None:
    seeds = torch.arange(40)
    together = uniforms(seeds[:, None], torch.arange(30))
    assert together.shape == (40, 30)
    assert together[17, 23] == uniforms(seeds[17:18], 23)[0]
    assert torch.equal(together[:, 5], uniforms(seeds, torch.full((40,), 5)))


def test_uniforms_are_spread_evenly_over_seeds_and_over_steps() -> None:
    for values in (uniforms(torch.arange(20000), 0), uniforms(torch.tensor([7]), torch.arange(20000))):
        counts = torch.histc(values, bins=50, min=0.0, max=1.0)
        # Chi-square with 49 degrees of freedom: 99.99 % lies below 95.
        assert ((counts - 400.0) ** 2 / 400.0).sum() < 95
    neighbours = uniforms(torch.arange(20000)[:, None], torch.arange(2))
    assert abs(torch.corrcoef(neighbours.T)[0, 1]) < 0.03
    assert abs(torch.corrcoef(torch.stack((neighbours[:-1, 0], neighbours[1:, 0])))[0, 1]) < 0.03


def test_inverse_cdf_takes_the_token_in_whose_share_the_uniform_falls() -> None:
    weights = torch.tensor([[1.0, 0.0, 2.0, 1.0]]).expand(7, -1)
    shares = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.9999, LAST_UNIFORM], dtype=torch.float64)
    assert inverse_cdf(weights, shares).tolist() == [0, 0, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("vocabulary", [3, 26, 1024, 1025, 1280, 5000])
@pytest.mark.parametrize("edge", [0.0, 5e-324, 0.5, 1.0 - 2.0**-30, LAST_UNIFORM])
def test_no_uniform_returns_a_token_without_weight(vocabulary: int, edge: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    weights = torch.rand(64, vocabulary, generator=generator) * torch.rand(64, vocabulary, generator=generator).exp()
    weights[:, torch.randperm(vocabulary, generator=generator)[: vocabulary * 2 // 3]] = 0.0
    weights[:, -1] = 0.0
    weights[1:, 0] = 0.0
    picked = inverse_cdf(weights, torch.full((64,), edge, dtype=torch.float64))
    assert (weights.gather(-1, picked[:, None]) > 0.0).all()


def test_a_single_weight_is_found_anywhere_in_a_large_vocabulary() -> None:
    for place in (0, 255, 256, 1023, 4095, 4096, 4999):
        weights = torch.zeros(2, 5000)
        weights[:, place] = 1e-30
        assert inverse_cdf(weights, torch.tensor([0.0, LAST_UNIFORM], dtype=torch.float64)).tolist() == [place] * 2


def test_two_levels_of_search_find_what_one_running_sum_finds() -> None:
    weights = torch.rand(200, 3001, generator=torch.Generator().manual_seed(1))
    shares = uniforms(torch.arange(200), 0)
    reached = weights.double().cumsum(-1)
    wanted = torch.searchsorted(reached, shares[:, None] * reached[:, -1:], right=True)[:, 0]
    # Block sums are in float32, so a uniform within 1e-7 of a border may fall on its other side.
    assert (inverse_cdf(weights, shares) - wanted).abs().max() <= 1
    assert (inverse_cdf(weights, shares) == wanted).float().mean() > 0.99


@pytest.mark.parametrize("vocabulary", [12, 2000])
def test_frequencies_are_the_probabilities(vocabulary: int) -> None:
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(3)) * 1.5
    draws = 60000
    tokens = torch.cat(
        [
            draw(logits.expand(10000, -1), uniforms(torch.arange(10000), step), Sampling(temperature=0.8))[0]
            for step in range(draws // 10000)
        ]
    )
    # Rare tokens share one cell, so that every cell expects enough draws for the chi-square bound.
    expected = (logits.double() / 0.8).softmax(-1) * draws
    rare = expected < 20.0
    counts = torch.bincount(tokens, minlength=vocabulary).double()
    expected = torch.cat((expected[~rare], expected[rare].sum()[None]))
    counts = torch.cat((counts[~rare], counts[rare].sum()[None]))
    used = expected > 20.0
    statistic = ((counts - expected) ** 2 / expected)[used].sum().item()
    freedom = int(used.sum()) - 1
    assert statistic < freedom + 4.5 * math.sqrt(2 * freedom)


def test_logprobs_are_of_the_whole_vocabulary_at_the_temperature_whatever_is_truncated() -> None:
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(4)) * 3
    sampling = Sampling(temperature=0.6, top_p=0.7, top_k=9, min_p=0.02)
    tokens, logprobs = draw(logits, uniforms(torch.arange(50), 3), sampling)
    wanted = (logits / 0.6).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs, wanted, atol=2e-6, rtol=0)


def test_greedy_takes_the_likeliest_and_reports_temperature_one() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 3.0]])
    tokens, logprobs = draw(logits, torch.zeros(2, dtype=torch.float64), Sampling(temperature=0.0))
    assert tokens.tolist() == [1, 0]
    # log(e^2 / (1 + e^2 + e)) and log(e^3 / (2 e^3 + e^-1))
    torch.testing.assert_close(logprobs, torch.tensor([-0.407606, -0.702263]), atol=1e-5, rtol=0)


def test_bfloat16_logits_are_computed_in_float32() -> None:
    logits = torch.randn(4, 30, generator=torch.Generator().manual_seed(5)).bfloat16()
    tokens, logprobs = draw(logits, uniforms(torch.arange(4), 0), Sampling())
    assert logprobs.dtype == torch.float32
    wanted = logits.float().log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(logprobs, wanted, atol=1e-6, rtol=0)


def test_masked_logits_are_never_drawn_and_nan_shows_in_the_logprob() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf")], [0.0, float("nan"), 0.0]])
    tokens, logprobs = draw(logits, torch.tensor([LAST_UNIFORM, 0.5], dtype=torch.float64), Sampling())
    assert tokens[0] == 1
    assert logprobs[0] == 0.0
    assert logprobs[1].isnan()


def test_top_k_keeps_k_and_ties() -> None:
    weights = torch.tensor([[0.1, 0.4, 0.2, 0.2, 0.1]])
    assert keep_top_k(weights, 1).nonzero()[:, 1].tolist() == [1]
    assert keep_top_k(weights, 2).nonzero()[:, 1].tolist() == [1, 2, 3]
    assert torch.equal(keep_top_k(weights, 99), weights)


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    weights = torch.tensor([[1.0, 4.0, 2.0, 3.0]])  # shares .1 .4 .2 .3
    assert keep_top_p(weights, 0.39).nonzero()[:, 1].tolist() == [1]
    assert keep_top_p(weights, 0.41).nonzero()[:, 1].tolist() == [1, 3]
    assert keep_top_p(weights, 0.71).nonzero()[:, 1].tolist() == [1, 2, 3]
    assert keep_top_p(weights, 1e-9).nonzero()[:, 1].tolist() == [1]


def test_min_p_is_relative_to_the_likeliest() -> None:
    weights = torch.tensor([[1.0, 4.0, 2.0, 3.0]])
    assert keep_min_p(weights, 0.5).nonzero()[:, 1].tolist() == [1, 2, 3]
    assert keep_min_p(weights, 1.0).nonzero()[:, 1].tolist() == [1]


@given(
    logits=st.lists(st.lists(st.integers(-40, 40), min_size=12, max_size=12, unique=True), min_size=1, max_size=4),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.05, 1.0),
    min_p=st.floats(0.0, 0.9),
)
@settings(deadline=None, max_examples=150)
def test_truncation_keeps_what_hugging_face_generate_keeps(
    logits: list[list[int]], top_k: int, top_p: float, min_p: float
) -> None:
    scores = torch.tensor(logits, dtype=torch.float32) / 7
    kept = truncated((scores - scores.amax(-1, keepdim=True)).exp(), Sampling(top_k=top_k, top_p=top_p, min_p=min_p))
    warpers = [
        *([TopKLogitsWarper(top_k)] if top_k > 0 else []),
        *([TopPLogitsWarper(top_p)] if top_p < 1.0 else []),
        *([MinPLogitsWarper(min_p)] if min_p > 0.0 else []),
    ]
    no_ids: Any = torch.zeros((len(scores), 1), dtype=torch.int64)
    untouched: Any = scores
    warped = LogitsProcessorList(warpers)(no_ids, untouched)
    differing = (kept > 0.0) != warped.isfinite()
    # A token whose cumulative share is p itself, up to rounding, may go either way.
    shares = kept.sort(-1, descending=True).values.cumsum(-1) / kept.sum(-1, keepdim=True)
    assert not differing.any() or (differing.sum() == 1 and near_border(scores, top_k, top_p, min_p)), shares


def near_border(scores: torch.Tensor, top_k: int, top_p: float, min_p: float) -> bool:
    variants = [
        truncated(
            (scores - scores.amax(-1, keepdim=True)).double().exp(),
            Sampling(top_k=top_k, top_p=min(1.0, top_p * (1 + p)), min_p=min_p * (1 + m)),
        )
        > 0.0
        for p in (-1e-5, 1e-5)
        for m in (-1e-5, 1e-5)
    ]
    return any(not torch.equal(a, b) for a, b in pairwise(variants))


def test_a_filtered_token_is_never_drawn() -> None:
    logits = torch.randn(1, 30, generator=torch.Generator().manual_seed(6)).expand(4000, -1)
    tokens, _ = draw(logits, uniforms(torch.arange(4000), 1), Sampling(top_k=4))
    assert set(tokens.tolist()) == set(logits[0].topk(4).indices.tolist())
