"""KL divergence to another policy, estimated at each token from its two log-probabilities, *unreduced*.

Shape letters: N completion tokens. With d = logprobs - ref_logprobs, on tokens drawn from the policy (Schulman,
"Approximating KL divergence", joschu.net/blog/kl-approx.html):

    name      value            gradient in logprobs     as a loss
    k1        d                1                        useless: the gradient is 0 in expectation
    k2        d^2 / 2          d                        the gradient of the reverse KL, unbiased
    k3        e^-d + d - 1     1 - e^-d                 biased; dead where the value is clamped
    k1_plus   k1's             k2's                     unbiased
    k3_plus   k3's             k2's                     unbiased, with a value that is never negative

`k3` and the value of `k3_plus` clamp -d to +-20 and the result to at most 10, as verl does. Beyond the clamp k3 has a
gradient of exactly 0: a policy that has drifted far is no longer pulled back. k3_plus keeps pulling.
"""

from __future__ import annotations

from torch import Tensor

MAX_LOG_RATIO = 20.0
MAX_K3 = 10.0


def k1(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """The log-ratio: unbiased value, high variance. For measuring only."""
    return logprobs_N - ref_logprobs_N


def k2(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """Half the squared log-ratio."""
    return 0.5 * (logprobs_N - ref_logprobs_N).square()


def k3(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """Low variance and never negative; value and gradient clamped as the module's docstring says."""
    log_ratio_N = (ref_logprobs_N - logprobs_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (log_ratio_N.exp() - log_ratio_N - 1.0).clamp(max=MAX_K3)


def k1_plus(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """k1's value with k2's gradient."""
    return _straight_through(k1(logprobs_N, ref_logprobs_N), k2(logprobs_N, ref_logprobs_N))


def k3_plus(logprobs_N: Tensor, ref_logprobs_N: Tensor) -> Tensor:
    """k3's value with k2's gradient (verl's `k3+`). On-policy it is also the gradient of ratio * k3."""
    return _straight_through(k3(logprobs_N, ref_logprobs_N), k2(logprobs_N, ref_logprobs_N))


def _straight_through(value_N: Tensor, gradient_N: Tensor) -> Tensor:
    """The value of the first with the gradient of the second."""
    return value_N.detach() + (gradient_N - gradient_N.detach())
