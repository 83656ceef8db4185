"""Surrogates against verl's and TRL's numbers, the paper's formula, and hostile inputs."""

from __future__ import annotations

import math

import pytest
import torch

from burnish.algorithms import surrogates
from tests.reference_vectors import TOLERANCE, reference

DAPO = {"clip_low": 0.2, "clip_high": 0.28}


def one_token(ratio: float, advantage: float, dual_clip: float | None):
    """(loss, d loss / d logprob, clip code) of one token."""
    logprobs_N = torch.tensor([-1.0 + math.log(ratio)], requires_grad=True)
    old_N, advantages_N = torch.tensor([-1.0]), torch.tensor([advantage])
    loss_N = surrogates.clipped(logprobs_N, old_N, advantages_N, **DAPO, dual_clip=dual_clip)
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logprobs_N)
    codes_N = surrogates.clip_codes(logprobs_N, old_N, advantages_N, **DAPO, dual_clip=dual_clip)
    assert codes_N.dtype == torch.int8
    return loss_N.item(), gradient_N.item(), codes_N.item()


@pytest.mark.parametrize(
    ("column", "advantage", "dual_clip"), [("A+1_c3", 1, 3), ("A-1_c3", -1, 3), ("A-1_c10", -1, 10)]
)
def test_reproduces_the_reference_clip_table(column, advantage, dual_clip):
    for row in reference("clip_table_low0.2_high0.28"):
        loss, gradient, code = one_token(row["ratio"], float(advantage), float(dual_clip))
        expected = row[column]
        assert loss == pytest.approx(expected["loss"], abs=TOLERANCE)
        assert gradient == pytest.approx(expected["dloss_dlogp"], abs=TOLERANCE)
        assert (code in (-1, 1)) == (expected["pg_clipfrac"] == 1.0)
        assert (code == 2) == (expected["pg_clipfrac_lower"] == 1.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "dual_clip", "loss", "gradient", "code"),
    [
        (0.5, 1.0, 3.0, -0.5, -0.5, 0),
        (0.5, -1.0, 3.0, 0.8, 0.0, -1),
        (1.25, 1.0, 3.0, -1.25, -1.25, 0),
        (1.3, 1.0, 3.0, -1.28, 0.0, 1),
        (1.3, -1.0, 3.0, 1.3, 1.3, 0),
        (3.5, -2.0, 3.0, 6.0, 0.0, 2),
        (3.5, -1.0, None, 3.5, 3.5, 0),
        (3.5, 0.0, 3.0, 0.0, 0.0, 0),
    ],
)
def test_each_region_by_hand(ratio, advantage, dual_clip, loss, gradient, code):
    found = one_token(ratio, advantage, dual_clip)
    assert found == pytest.approx((loss, gradient, code), abs=TOLERANCE)


@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_equals_the_papers_min_and_clip_in_value_and_gradient(dual_clip):
    generator = torch.Generator().manual_seed(0)
    old_N = -torch.rand(4096, generator=generator) * 3
    logprobs_N = (old_N + torch.randn(4096, generator=generator)).requires_grad_()
    advantages_N = torch.randn(4096, generator=generator)

    ratio_N = (logprobs_N - old_N).exp()
    published_N = -torch.min(ratio_N * advantages_N, ratio_N.clamp(1 - 0.2, 1 + 0.28) * advantages_N)
    if dual_clip is not None:
        bounded_N = torch.min(published_N, -advantages_N * dual_clip)
        published_N = torch.where(advantages_N < 0, bounded_N, published_N)
    loss_N = surrogates.clipped(logprobs_N, old_N, advantages_N, **DAPO, dual_clip=dual_clip)

    torch.testing.assert_close(loss_N, published_N, atol=1e-6, rtol=1e-6)
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logprobs_N)
    (published_gradient_N,) = torch.autograd.grad(published_N.sum(), logprobs_N)
    torch.testing.assert_close(gradient_N, published_gradient_N, atol=1e-6, rtol=1e-6)


def test_a_token_has_a_code_exactly_where_its_gradient_is_zero():
    generator = torch.Generator().manual_seed(1)
    old_N, advantages_N = torch.full((4096,), -1.0), torch.randn(4096, generator=generator)
    logprobs_N = (old_N + torch.randn(4096, generator=generator)).requires_grad_()
    loss_N = surrogates.clipped(logprobs_N, old_N, advantages_N, **DAPO, dual_clip=3.0)
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logprobs_N)
    codes_N = surrogates.clip_codes(logprobs_N, old_N, advantages_N, **DAPO, dual_clip=3.0)
    assert torch.equal(codes_N != 0, gradient_N == 0)
    assert set(codes_N.tolist()) == {-1, 0, 1, 2}


@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
@pytest.mark.parametrize(("logprob", "old"), [(-1.0, -math.inf), (-math.inf, -1.0), (-200.0, -0.1), (-0.1, -200.0)])
def test_impossible_tokens_keep_loss_and_gradient_finite(logprob, old, advantage):
    logprobs_N = torch.tensor([logprob], requires_grad=True)
    loss_N = surrogates.clipped(logprobs_N, torch.tensor([old]), torch.tensor([advantage]), **DAPO, dual_clip=None)
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logprobs_N)
    assert loss_N.isfinite().all()
    assert gradient_N.isfinite().all()
    assert abs(loss_N.item()) <= math.exp(20) * 1.001


def test_reinforce_has_the_gradient_of_minus_the_advantage():
    logprobs_N = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss_N = surrogates.reinforce(logprobs_N, torch.tensor([0.5, -3.0]))
    assert loss_N.tolist() == [0.5, -6.0]
    (gradient_N,) = torch.autograd.grad(loss_N.sum(), logprobs_N)
    assert gradient_N.tolist() == [-0.5, 3.0]
