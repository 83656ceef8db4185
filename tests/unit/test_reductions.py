"""Reductions against the loss values of verl and TRL, by hand, and at the edges (masked rows, empty completions)."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from burnish.algorithms import reductions, surrogates
from tests.reference_vectors import TOLERANCE, reference

# The 4 sequences of 4, 2, 1 and 3 tokens on which the two implementations were run, with eps .2/.28.
RATIO_N = torch.tensor([1.0, 1.3, 0.7, 1.0, 0.9, 1.5, 1.1, 0.6, 1.4, 3.6])
SEQUENCE_N = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3, 3, 3])
ADVANTAGES_N = torch.tensor([1.5, -0.5, 0.25, -1.25])[SEQUENCE_N]
ALL_N = torch.ones(10, dtype=torch.bool)
WITHOUT_ROW_0_N = SEQUENCE_N != 0

BY_NAME: dict[str, Callable[[Tensor], Tensor]] = {
    "token_mean": reductions.token_mean,
    "prompt_mean": lambda mask_N: reductions.prompt_mean(mask_N, SEQUENCE_N, torch.tensor([7, 3, 3, 7])),
    "sequence_mean": lambda mask_N: reductions.sequence_mean(mask_N, SEQUENCE_N, num_sequences=4),
    "fixed_length": lambda mask_N: reductions.fixed_length(mask_N, num_sequences=4, length=8),
}


def reduced(weights_N: Tensor, *, dual_clip: float | None = 3.0) -> float:
    old_N = torch.full((10,), -1.0)
    loss_N = surrogates.clipped(
        old_N + RATIO_N.log(), old_N, ADVANTAGES_N, clip_low=0.2, clip_high=0.28, dual_clip=dual_clip
    )
    return (weights_N * loss_N).sum().item()


@pytest.mark.parametrize(
    ("name", "length", "dual_clip", "keys", "value"),
    [
        ("token_mean", None, 3.0, ("verl_token-mean", "trl_dapo_delta3", "trl_bnpo_delta3"), 0.1455),
        ("token_mean", None, None, ("trl_dapo_no_delta", "trl_bnpo_no_delta"), 0.2205),
        ("sequence_mean", None, 3.0, ("verl_seq-mean-token-mean", "trl_grpo_delta3"), 0.249792),
        ("sequence_mean", None, None, ("trl_grpo_no_delta",), 0.312292),
        ("fixed_length", 8, 3.0, ("verl_seq-mean-token-sum-norm_loss_scale_factor_8", "trl_dr_grpo_delta3"), 0.045469),
        ("fixed_length", 8, None, ("trl_dr_grpo_no_delta",), 0.068906),
        ("fixed_length", 4, 3.0, ("verl_seq-mean-token-sum-norm",), 0.090937),
        ("fixed_length", 1, 3.0, ("verl_seq-mean-token-sum",), 0.36375),
    ],
)
def test_reproduces_the_loss_of_the_reference_implementations(name, length, dual_clip, keys, value):
    if length is None:
        weights_N = BY_NAME[name](ALL_N)
    else:
        weights_N = reductions.fixed_length(ALL_N, num_sequences=4, length=length)
    found = reduced(weights_N, dual_clip=dual_clip)
    assert found == pytest.approx(value, abs=TOLERANCE)
    vectors = reference("aggregation")
    assert [vectors[key] for key in keys] == pytest.approx([found] * len(keys), abs=TOLERANCE)


def test_the_batch_here_is_the_one_the_reference_implementations_saw():
    vectors = reference("aggregation")
    mask = torch.tensor(vectors["mask"], dtype=torch.bool)
    assert torch.tensor(vectors["ratio"])[mask].tolist() == pytest.approx(RATIO_N.tolist(), abs=1e-6)
    assert mask.nonzero()[:, 0].tolist() == SEQUENCE_N.tolist()
    assert torch.tensor(vectors["advantage_per_seq"])[SEQUENCE_N].tolist() == ADVANTAGES_N.tolist()
    assert (vectors["eps_low"], vectors["eps_high"], vectors["c"]) == (0.2, 0.28, 3.0)
    assert vectors["trl_dr_grpo_max_completion_length"] == 8


def test_without_any_weight_the_loss_is_the_references_sum_over_tokens():
    assert reduced(ALL_N.float()) == pytest.approx(reference("aggregation")["verl_token-sum"], abs=TOLERANCE)


def test_clip_fractions_are_those_of_the_reference_implementations():
    old_N = torch.full((10,), -1.0)
    codes_N = surrogates.clip_codes(
        old_N + RATIO_N.log(), old_N, ADVANTAGES_N, clip_low=0.2, clip_high=0.28, dual_clip=3.0
    )
    metrics = reference("aggregation")["metrics"]
    low, high, dual = ((codes_N == code).float().mean().item() for code in (-1, 1, 2))
    assert low == pytest.approx(metrics["trl_low_mean"])
    assert high == pytest.approx(metrics["trl_high_mean"])
    assert dual == pytest.approx(metrics["verl_pg_clipfrac_lower(dual clip)"])
    assert low + high == pytest.approx(metrics["trl_region_mean"]) == pytest.approx(metrics["verl_pg_clipfrac"])


@pytest.mark.parametrize(
    ("name", "dual_clip", "value"),
    [
        ("token_mean", None, 1.3625),  # TRL dapo
        ("sequence_mean", None, 0.685417),  # TRL grpo
        ("fixed_length", 3.0, 1.85625 / 8),  # verl seq-mean-token-sum with global_batch_size=4, over the length
    ],
)
def test_a_fully_masked_sequence_still_counts_as_a_sequence(name, dual_clip, value):
    assert reduced(BY_NAME[name](WITHOUT_ROW_0_N), dual_clip=dual_clip) == pytest.approx(value, abs=TOLERANCE)


def test_prompt_mean_is_the_papers_equation_and_token_mean_is_not():
    # Prompt 0: two completions of 2 tokens, loss +1. Prompt 1: completions of 6 and 2 tokens, loss -1.
    sequence_N = torch.tensor([0] * 2 + [1] * 2 + [2] * 6 + [3] * 2)
    loss_N = torch.tensor([1.0] * 4 + [-1.0] * 8)
    mask_N = torch.ones(12, dtype=torch.bool)
    paper = (reductions.prompt_mean(mask_N, sequence_N, torch.tensor([0, 0, 1, 1])) * loss_N).sum().item()
    assert paper == pytest.approx(0.0, abs=1e-7)
    assert (reductions.token_mean(mask_N) * loss_N).sum().item() == pytest.approx(-1 / 3)


def test_prompt_mean_groups_by_id_in_any_order():
    # Groups {0, 3} with 4 + 3 tokens and {1, 2} with 2 + 1 tokens.
    weights_N = BY_NAME["prompt_mean"](ALL_N)
    expected = [1 / 14] * 4 + [1 / 6] * 3 + [1 / 14] * 3
    assert weights_N.tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "total"), [("token_mean", 1.0), ("prompt_mean", 1.0), ("sequence_mean", 1.0), ("fixed_length", 10 / 32)]
)
def test_weights_add_up_to_what_the_name_says(name, total):
    assert BY_NAME[name](ALL_N).sum().item() == pytest.approx(total)


@pytest.mark.parametrize("name", BY_NAME)
def test_masked_tokens_weigh_exactly_nothing_and_results_are_float32(name):
    weights_N = BY_NAME[name](WITHOUT_ROW_0_N)
    assert weights_N.dtype == torch.float32
    assert weights_N[~WITHOUT_ROW_0_N].tolist() == [0.0] * 4
    assert (weights_N[WITHOUT_ROW_0_N] > 0).all()


@pytest.mark.parametrize("name", BY_NAME)
def test_nothing_to_train_gives_zeros_and_never_nan(name):
    assert BY_NAME[name](torch.zeros(10, dtype=torch.bool)).tolist() == [0.0] * 10


def test_an_empty_completion_counts_as_a_sequence_and_its_group_as_a_group():
    # Sequence 1 is empty; it alone makes group 1.
    sequence_N, mask_N = torch.tensor([0, 0]), torch.ones(2, dtype=torch.bool)
    assert reductions.sequence_mean(mask_N, sequence_N, num_sequences=2).tolist() == [0.25, 0.25]
    assert reductions.fixed_length(mask_N, num_sequences=2, length=4).tolist() == [0.125, 0.125]
    assert reductions.prompt_mean(mask_N, sequence_N, torch.tensor([0, 1])).tolist() == [0.25, 0.25]
    assert reductions.token_mean(mask_N).tolist() == [0.5, 0.5]


def test_token_counts_beyond_float32_integers_keep_their_precision():
    mask_N = torch.ones(2**24 + 1, dtype=torch.bool)
    weights_N = reductions.token_mean(mask_N)
    assert weights_N.sum(dtype=torch.float64).item() == pytest.approx(1.0, abs=1e-6)
    assert math.isclose(weights_N[0].item(), 1 / (2**24 + 1), rel_tol=1e-6)
