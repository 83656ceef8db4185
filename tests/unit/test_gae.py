"""Generalised advantage estimation and the value function's loss: by hand, against loops, and edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from burnish.algorithms import gae

LENGTHS = (5, 1, 0, 9, 9, 2)


def batch(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    lengths_B = torch.tensor(LENGTHS)
    values_N = torch.randn(int(lengths_B.sum()), generator=generator)
    return values_N, torch.randn(len(LENGTHS), generator=generator).double(), lengths_B


def looped(values: list[float], score: float, *, gamma: float, lam: float) -> list[float]:
    """The definition: A_n is the sum over k of (gamma lam)^k delta_(n+k)."""
    deltas = [
        (score if n == len(values) - 1 else 0.0) + gamma * (values[n + 1] if n + 1 < len(values) else 0.0) - values[n]
        for n in range(len(values))
    ]
    return [sum((gamma * lam) ** k * delta for k, delta in enumerate(deltas[n:])) for n in range(len(deltas))]


def test_three_tokens_by_hand():
    """delta = (.9 * .4 - .5, .9 * .2 - .4, 1 - .2) = (-.14, -.22, .8); the factor is .9 * .5 = .45."""
    advantages_N, returns_N = gae.gae(
        torch.tensor([0.5, 0.4, 0.2]), torch.tensor([1.0]), torch.tensor([3]), gamma=0.9, lam=0.5
    )
    assert advantages_N.tolist() == pytest.approx([-0.077, 0.14, 0.8], abs=1e-7)
    assert returns_N.tolist() == pytest.approx([0.423, 0.54, 1.0], abs=1e-7)
    assert advantages_N.dtype == returns_N.dtype == torch.float32


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.99, 0.9), (0.9, 0.0), (1.0, 1.0), (0.5, 1.0)])
def test_sequences_of_any_length_are_as_the_definition_has_them(gamma: float, lam: float):
    values_N, scores_B, lengths_B = batch()
    advantages_N, returns_N = gae.gae(values_N, scores_B, lengths_B, gamma=gamma, lam=lam)
    expected = [
        advantage
        for values, score in zip(values_N.split(LENGTHS), scores_B.tolist(), strict=True)
        for advantage in looped(values.tolist(), score, gamma=gamma, lam=lam)
    ]
    assert advantages_N.tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(returns_N, advantages_N + values_N, atol=1e-6, rtol=0)


def test_without_discounts_every_token_gets_the_score_minus_its_value():
    values_N, scores_B, lengths_B = batch()
    advantages_N, returns_N = gae.gae(values_N, scores_B, lengths_B, gamma=1.0, lam=1.0)
    score_N = scores_B.repeat_interleave(lengths_B).float()
    torch.testing.assert_close(advantages_N, score_N - values_N, atol=1e-6, rtol=0)
    torch.testing.assert_close(returns_N, score_N, atol=1e-6, rtol=0)


def padded(values_N: Tensor, scores_B: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor, Tensor]:
    """As verl and TRL compute it: a loop from the right over padded rows, in which padding passes nothing on."""
    rows = nested(values_N)
    mask_BT = nested(torch.ones_like(values_N))
    reward_BT = torch.zeros_like(rows)
    for b, length in enumerate(LENGTHS):
        if length:
            reward_BT[b, length - 1] = scores_B[b]
    following_B = last_B = torch.zeros(len(rows))
    found = []
    for t in reversed(range(rows.shape[1])):
        delta_B = reward_BT[:, t] + gamma * following_B - rows[:, t]
        here_B = delta_B + gamma * lam * last_B
        following_B = torch.where(mask_BT[:, t] > 0, rows[:, t], following_B)
        last_B = torch.where(mask_BT[:, t] > 0, here_B, last_B)
        found.append(last_B)
    advantages_BT = torch.stack(found[::-1], dim=1)
    chosen = advantages_BT[mask_BT > 0]
    whitened = (chosen - chosen.mean()) * torch.rsqrt(chosen.var(unbiased=True) + 1e-8)
    return chosen, (advantages_BT + rows)[mask_BT > 0], whitened


def nested(values_N: Tensor) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(values_N.split(LENGTHS)), batch_first=True)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.97, 1.0)])
def test_padded_rows_as_in_verl_and_trl_give_the_same(gamma: float, lam: float):
    values_N, scores_B, lengths_B = batch(seed=1)
    advantages_N, returns_N = gae.gae(values_N, scores_B, lengths_B, gamma=gamma, lam=lam)
    expected_N, expected_returns_N, whitened_N = padded(values_N, scores_B, gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages_N, expected_N, atol=1e-5, rtol=0)
    torch.testing.assert_close(returns_N, expected_returns_N, atol=1e-5, rtol=0)
    found_N = gae.whitened(advantages_N, torch.ones_like(advantages_N, dtype=torch.bool))
    torch.testing.assert_close(found_N, whitened_N, atol=1e-5, rtol=0)


@pytest.mark.parametrize("lengths", [(), (0,), (0, 0)])
def test_without_tokens_there_are_no_advantages(lengths: tuple[int, ...]):
    lengths_B = torch.tensor(lengths, dtype=torch.int64)
    advantages_N, returns_N = gae.gae(torch.zeros(0), torch.zeros(len(lengths)), lengths_B, gamma=1.0, lam=0.95)
    assert len(advantages_N) == len(returns_N) == 0
    assert len(gae.whitened(advantages_N, torch.zeros(0, dtype=torch.bool))) == 0


# -- whitening --------------------------------------------------------------------------------------------------------


def test_whitening_is_over_the_tokens_that_train_and_leaves_the_others_at_zero():
    found = gae.whitened(torch.tensor([1.0, 99.0, 2.0, 3.0]), torch.tensor([True, False, True, True]))
    assert found.tolist() == pytest.approx([-1.0, 0.0, 0.0, 1.0])


@pytest.mark.parametrize("advantages", [[0.9125] * 8, [0.3], [1e-9, 0.0, 5e-10]])
def test_advantages_that_are_alike_become_exactly_zero(advantages: list[float]):
    advantages_N = torch.tensor(advantages)
    assert gae.whitened(advantages_N, torch.ones(len(advantages), dtype=torch.bool)).tolist() == [0.0] * len(advantages)


def test_nothing_that_trains_whitens_to_zero():
    assert gae.whitened(torch.tensor([1.0, 2.0]), torch.tensor([False, False])).tolist() == [0.0, 0.0]


# -- the value function's loss ----------------------------------------------------------------------------------------

OLD, CLIP = 0.0, 0.2
CASES = [
    # value, return, loss, gradient, held
    (0.1, 1.0, 0.405, -0.9, False),  # within the clip
    (0.5, 1.0, 0.32, 0.0, True),  # moved by more than .2 towards the return: (.2 - 1)^2 / 2
    (-0.5, 1.0, 1.125, -1.5, False),  # moved away: the error itself is the larger
    (0.5, 0.1, 0.08, 0.4, False),  # beyond the return: (.5 - .1)^2 > (.2 - .1)^2
    (-0.5, -1.0, 0.32, 0.0, True),
    (0.5, 0.5, 0.045, 0.0, True),  # where it should be, and still held: (.2 - .5)^2 / 2
]


@pytest.mark.parametrize(("value", "target", "loss", "slope", "held"), CASES)
def test_a_value_that_moved_far_enough_is_held(value: float, target: float, loss: float, slope: float, held: bool):
    values_N, old_N, returns_N = torch.tensor([value], requires_grad=True), torch.tensor([OLD]), torch.tensor([target])
    found_N = gae.value_loss(values_N, old_N, returns_N, clip=CLIP)
    found_N.sum().backward()
    assert found_N.item() == pytest.approx(loss)
    assert values_N.grad is not None
    assert values_N.grad.item() == pytest.approx(slope)
    assert gae.is_held(values_N.detach(), old_N, returns_N, clip=CLIP).item() is held


def test_the_loss_is_that_of_verl_and_trl():
    generator = torch.Generator().manual_seed(2)
    values_N, old_N, returns_N = torch.randn(3, 200, generator=generator)
    clipped_N = torch.clamp(values_N, old_N - 0.5, old_N + 0.5)
    first_N, second_N = (values_N - returns_N) ** 2, (clipped_N - returns_N) ** 2
    found_N = gae.value_loss(values_N, old_N, returns_N, clip=0.5)
    torch.testing.assert_close(found_N, 0.5 * torch.max(first_N, second_N))
    held_N = gae.is_held(values_N, old_N, returns_N, clip=0.5)
    assert torch.equal(held_N, second_N > first_N)
    assert 0 < int(held_N.sum()) < 200


def test_without_a_clip_it_is_half_the_squared_error():
    values_N, returns_N = torch.tensor([3.0, -1.0]), torch.tensor([0.0, 0.0])
    assert gae.value_loss(values_N, returns_N, returns_N, clip=None).tolist() == [4.5, 0.5]
    assert not gae.is_held(values_N, returns_N, returns_N, clip=None).any()


# -- explained variance -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "share"),
    [([0.0, 2.0, 4.0], 1.0), ([5.0, 7.0, 9.0], 1.0), ([7.0, 7.0, 7.0], 0.0), ([4.0, 2.0, 0.0], -3.0)],
)
def test_explained_variance_is_of_the_shape_and_not_of_the_level(values: list[float], share: float):
    explained, total = gae.explained(torch.tensor(values), torch.tensor([0.0, 2.0, 4.0]))
    assert total == 8.0
    assert explained / total == pytest.approx(share)


def test_nothing_explains_nothing():
    assert gae.explained(torch.zeros(0), torch.zeros(0)) == (0.0, 0.0)
