"""KL estimators against verl's values and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from burnish.algorithms import kl
from tests.reference_vectors import TOLERANCE, reference


def value_and_gradient(estimator, logprob: float, ref_logprob: float) -> tuple[float, float]:
    logprobs_N = torch.tensor([logprob], requires_grad=True)
    value_N = estimator(logprobs_N, torch.tensor([ref_logprob]))
    (gradient_N,) = torch.autograd.grad(value_N.sum(), logprobs_N)
    return value_N.item(), gradient_N.item()


@pytest.mark.parametrize(("name", "estimator"), [("k1", kl.k1), ("k2", kl.k2), ("k3", kl.k3), ("k3+", kl.k3_plus)])
def test_reproduces_the_reference_values_and_gradients(name, estimator):
    for row in reference("kl_[value,grad_wrt_logp]"):
        found = value_and_gradient(estimator, row["logp"], row["ref_logp"])
        assert found == pytest.approx(tuple(row[name]), rel=TOLERANCE, abs=TOLERANCE)


def test_the_absolute_difference_which_is_not_offered_is_k1_without_its_sign():
    for row in reference("kl_[value,grad_wrt_logp]"):
        value, gradient = value_and_gradient(kl.k1, row["logp"], row["ref_logp"])
        assert (abs(value), math.copysign(gradient, value) if value else 0.0) == pytest.approx(tuple(row["abs"]))


@pytest.mark.parametrize(
    ("estimator", "value", "gradient"),
    [
        (kl.k1, 0.5, 1.0),
        (kl.k2, 0.125, 0.5),
        (kl.k3, 0.106531, 0.393469),
        (kl.k1_plus, 0.5, 0.5),
        (kl.k3_plus, 0.106531, 0.5),
    ],
)
def test_each_estimator_at_half_a_nat_by_hand(estimator, value, gradient):
    assert value_and_gradient(estimator, -1.0, -1.5) == pytest.approx((value, gradient), abs=TOLERANCE)


@pytest.mark.parametrize("estimator", [kl.k1, kl.k2, kl.k3, kl.k1_plus, kl.k3_plus])
def test_equal_policies_are_at_distance_zero(estimator):
    assert value_and_gradient(estimator, -0.7, -0.7)[0] == 0.0


def test_far_drift_kills_the_gradient_of_k3_and_not_of_k3_plus():
    # exp(3) - 3 - 1 = 16.1 is over the clamp of 10.
    assert value_and_gradient(kl.k3, -4.0, -1.0) == (10.0, 0.0)
    assert value_and_gradient(kl.k3_plus, -4.0, -1.0) == (10.0, -3.0)


def test_a_token_the_policy_finds_impossible_keeps_the_gradient_finite():
    assert value_and_gradient(kl.k3, -200.0, -0.5) == (10.0, 0.0)
    assert value_and_gradient(kl.k3_plus, -200.0, -0.5) == (10.0, -199.5)


def test_expected_gradient_of_k1_is_zero_and_of_k3_plus_is_that_of_the_kl():
    logits_V = torch.tensor([0.3, -1.0, 0.8, 0.1], dtype=torch.float64, requires_grad=True)
    ref_V = torch.tensor([0.0, 0.5, -0.5, 1.0], dtype=torch.float64).log_softmax(0)

    def expected_gradient(estimator):
        logprobs_V = logits_V.log_softmax(0)
        return torch.autograd.grad((logprobs_V.exp().detach() * estimator(logprobs_V, ref_V)).sum(), logits_V)[0]

    logprobs_V = logits_V.log_softmax(0)
    (exact_V,) = torch.autograd.grad((logprobs_V.exp() * (logprobs_V - ref_V)).sum(), logits_V)
    torch.testing.assert_close(expected_gradient(kl.k1), torch.zeros_like(exact_V))
    for unbiased in (kl.k2, kl.k1_plus, kl.k3_plus):
        torch.testing.assert_close(expected_gradient(unbiased), exact_V)
    assert (expected_gradient(kl.k3) - exact_V).abs().max() > 0.01
