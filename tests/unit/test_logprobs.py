import subprocess
import sys
import weakref
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from burnish.learner import logprobs
from burnish.learner.logprobs import Head, token_logprobs

N, D, V = 37, 12, 50
TRACKED = (3, 17, 3)


class Case(NamedTuple):
    hidden_ND: Tensor
    weight_VD: Tensor
    bias_V: Tensor
    tokens_N: Tensor

    @property
    def trained(self) -> list[Tensor]:
        return [self.hidden_ND, self.weight_VD, self.bias_V]


@pytest.fixture
def case() -> Case:
    draw = torch.Generator().manual_seed(5)
    hidden, weight, bias = (torch.randn(s, generator=draw).requires_grad_() for s in ((N, D), (V, D), (V,)))
    return Case(hidden, weight, bias, torch.randint(0, V, (N,), generator=draw))


def plain(case: Case, *, temperature: float, scale: float = 1.0, softcap: float | None = None):
    """In double precision, with gradients that flow back to the case."""
    z = scale * (case.hidden_ND.double() @ case.weight_VD.double().T + case.bias_V.double())
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    all_NV = (z / temperature).log_softmax(dim=-1)
    entropy_N = -(all_NV.exp() * all_NV).sum(-1)
    return all_NV.gather(1, case.tokens_N[:, None]).squeeze(1), entropy_N, all_NV[:, list(TRACKED)]


def slopes_of(loss: Tensor, case: Case) -> list[Tensor]:
    """By `backward`: the head adds the gradients of its weight and bias to `.grad` itself."""
    for tensor in case.trained:
        tensor.grad = None
    loss.backward()
    return [tensor.grad for tensor in case.trained if tensor.grad is not None]


def mixed_loss(logprobs_N: Tensor, entropy_N: Tensor, tracked_NJ: Tensor) -> Tensor:
    """Reads all three outputs, every token with a weight of its own."""
    weights_N = torch.linspace(0.1, 1.0, N, dtype=logprobs_N.dtype)
    return (weights_N * (logprobs_N.exp() + 0.3 * entropy_N)).sum() + (weights_N[:, None] * tracked_NJ.square()).sum()


HEADS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.6},
    {"temperature": 1.7, "scale": 0.25},
    {"temperature": 0.8, "scale": 2.0, "softcap": 3.0},
]


@pytest.mark.parametrize("rows", [1, 7, 36, 37, 512])
@pytest.mark.parametrize("settings", HEADS)
def test_values_and_all_gradients_equal_plain_log_softmax(case: Case, settings: dict[str, Any], rows: int):
    expected = plain(case, **settings)
    head = Head(case.weight_VD, case.bias_V, **settings)
    found = token_logprobs(case.hidden_ND, case.tokens_N, head, tracked_ids=TRACKED, rows=rows)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == torch.float32
        assert float((a.detach() - b.detach()).abs().max()) <= 1e-6 * max(1.0, float(b.detach().abs().max()))
    slopes = slopes_of(mixed_loss(*found), case)
    expected_slopes = torch.autograd.grad(mixed_loss(*expected), case.trained)
    for a, b in zip(slopes, expected_slopes, strict=True):
        assert float((a - b).abs().max()) <= 1e-6 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("read", [0, 1, 2])
def test_a_loss_may_read_only_one_of_the_outputs(case: Case, read: int):
    head = Head(case.weight_VD, case.bias_V, temperature=0.9)
    found = token_logprobs(case.hidden_ND, case.tokens_N, head, tracked_ids=TRACKED, rows=10)[read]
    expected = plain(case, temperature=0.9)[read]
    slopes = slopes_of(found.square().sum(), case)
    for a, b in zip(slopes, torch.autograd.grad(expected.square().sum(), case.trained), strict=True):
        assert float((a - b).abs().max()) <= 1e-6 * max(1.0, float(b.abs().max()))


def test_gradients_agree_with_finite_differences_in_double_precision():
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    weight = torch.randn(6, 3, generator=draw, dtype=torch.float64)
    tokens = torch.tensor([0, 5, 2, 2])
    head = Head(weight.float().requires_grad_(), None, temperature=0.7, softcap=2.0)
    token_logprobs(hidden.float().requires_grad_(), tokens, head, rows=3)[0].sum().backward()
    slope = head.weight_VD.grad
    assert slope is not None

    def double(weight: Tensor) -> Tensor:
        z = 2.0 * torch.tanh(hidden @ weight.T / 2.0) / 0.7
        return z.log_softmax(-1).gather(1, tokens[:, None]).sum()

    nudge = torch.zeros_like(weight)
    nudge[2, 1] = 1e-6
    assert float(slope[2, 1]) == pytest.approx(float(double(weight + nudge) - double(weight - nudge)) / 2e-6, rel=1e-4)


def test_temperature_divides_logits_and_not_log_probabilities(case: Case):
    cold = token_logprobs(case.hidden_ND, case.tokens_N, Head(case.weight_VD, None, temperature=0.5))[0]
    warm = token_logprobs(case.hidden_ND, case.tokens_N, Head(case.weight_VD, None, temperature=1.0))[0]
    doubled = token_logprobs(2.0 * case.hidden_ND, case.tokens_N, Head(case.weight_VD, None, temperature=1.0))[0]
    torch.testing.assert_close(cold, doubled)
    assert float((cold - 2.0 * warm).detach().abs().max()) > 0.1


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_no_log_probability_is_above_zero_and_no_entropy_below(size: float):
    draw = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(400, 8, generator=draw) * size, torch.randn(11, 8, generator=draw)
    best = (hidden @ weight.T).argmax(-1)
    found, entropy, tracked = token_logprobs(hidden, best, Head(weight, None, temperature=1.0), tracked_ids=(0, 4))
    assert float(found.max()) <= 0.0
    assert float(tracked.max()) <= 0.0
    assert float(entropy.min()) >= 0.0
    assert bool(found.isfinite().all())


def test_no_tokens_give_empty_outputs_with_a_graph(case: Case):
    head = Head(case.weight_VD, case.bias_V, temperature=1.0)
    found, _, tracked = token_logprobs(case.hidden_ND[:0], case.tokens_N[:0], head, tracked_ids=TRACKED)
    assert tracked.shape == (0, 3)
    found.sum().backward()
    assert case.weight_VD.grad is not None
    assert float(case.weight_VD.grad.abs().max()) == 0.0


def test_a_frozen_head_gets_no_gradient(case: Case):
    head = Head(case.weight_VD.detach(), None, temperature=1.0)
    token_logprobs(case.hidden_ND, case.tokens_N, head)[0].sum().backward()
    assert case.hidden_ND.grad is not None
    assert case.weight_VD.grad is None


class LargeTensors(TorchDispatchMode):
    """Counts the tensors of at least `size` elements that are alive at once, views apart."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.most, self.largest = size, 0, 0
        self.made: list[weakref.ref[Tensor]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.numel() >= self.size:
            self.largest = max(self.largest, out.numel())
            self.made.append(weakref.ref(out))
            alive = [tensor for made in self.made if (tensor := made()) is not None]
            self.most = max(self.most, len({tensor.data_ptr() for tensor in alive}))
        return out


@pytest.mark.parametrize("n", [16, 256])
def test_logits_probabilities_and_their_gradient_are_one_array_of_a_chunk(n: int, monkeypatch: pytest.MonkeyPatch):
    d, v, rows = 4, 512, 16
    monkeypatch.setattr(logprobs, "BLOCK_ELEMENTS", 2 * v)
    hidden, weight = torch.randn(n, d, requires_grad=True), torch.randn(v, d, requires_grad=True)
    tokens = torch.randint(0, v, (n,))
    head = Head(weight, None, temperature=0.9)
    with LargeTensors(rows * v) as large:
        found, entropy, tracked = token_logprobs(hidden, tokens, head, tracked_ids=(1,), rows=rows)
        (found.sum() + entropy.sum() + tracked.sum()).backward()
    assert large.largest == rows * v
    assert large.most == 1


def test_the_gradient_of_the_weight_needs_no_second_array_of_its_size():
    n, d, v, rows = 64, 32, 512, 16
    hidden, weight = torch.randn(n, d, requires_grad=True), torch.randn(v, d, requires_grad=True)
    weight.grad = torch.ones_like(weight)
    tokens = torch.randint(0, v, (n,))
    with LargeTensors(v * d) as large:
        token_logprobs(hidden, tokens, Head(weight, None, temperature=1.0), rows=rows)[0].sum().backward()
    assert large.most == 2  # the weight, and the gradient that was there
    (expected,) = torch.autograd.grad((hidden @ weight.T).log_softmax(-1).gather(1, tokens[:, None]).sum(), [weight])
    torch.testing.assert_close(weight.grad - 1.0, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_head_of_qwen_takes_a_quarter_of_what_plain_log_softmax_takes():
    """Resident memory of two processes, over what they have when weights and their gradient are there."""

    def added(way: str) -> int:
        ended = subprocess.run([sys.executable, "-c", HEAD_OF_QWEN, way], capture_output=True, text=True, check=True)
        return int(ended.stdout)

    assert added("ours") <= added("plain") / 4


HEAD_OF_QWEN = """
import resource, sys, torch
from burnish.learner.logprobs import Head, token_logprobs

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

torch.set_num_threads(1)
weight = torch.empty(151_936, 896).normal_(0.0, 0.02).requires_grad_()
weight.grad = torch.ones_like(weight)
hidden, tokens = torch.randn(512, 896), torch.randint(0, len(weight), (512,))
head = Head(weight, None, temperature=1.0)
before = peak()
for cut in torch.arange(512).split(head.rows_per_chunk if sys.argv[1] == "ours" else 512):
    states_CD = hidden[cut].requires_grad_()
    if sys.argv[1] == "ours":
        logprobs_C = token_logprobs(states_CD, tokens[cut], head)[0]
    else:
        logprobs_C = (states_CD @ weight.T).log_softmax(-1).gather(1, tokens[cut, None])
    logprobs_C.sum().backward()
print(peak() - before)
"""


def test_large_vocabularies_get_fewer_rows():
    small, large = (Head(torch.empty(v, 1), None, temperature=1.0).rows_per_chunk for v in (100, 2**17))
    assert small * 100 <= logprobs.CHUNK_ELEMENTS
    assert large == 128
