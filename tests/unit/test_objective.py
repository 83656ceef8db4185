"""The objective: any cut gives the same gradient, nothing to train gives 0, shares add up, and the seams hold."""

from __future__ import annotations

import math
from array import array
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from burnish.algorithms import advantages, kl, surrogates
from burnish.batch import Batch, PolicyOutput, Prepared, collate
from burnish.config import objectives as config
from burnish.objective import (
    ADVANTAGES,
    CORRECTIONS,
    KL_ESTIMATORS,
    REDUCTIONS,
    Objective,
    Term,
    clipped_objective,
)
from burnish.objective.policy_terms import RATIOS
from burnish.types import Completion, Group, Prompt, Rollout, Score, Shares

MAX_NEW_TOKENS = 12

VARIANTS: dict[str, dict[str, Any]] = {
    "dapo": {"advantage": "standardized", "reduction": "token_mean", "clip_high": 0.28, "dual_clip": 10.0},
    "grpo": {"advantage": "standardized", "reduction": "sequence_mean", "clip_high": 0.2, "dual_clip": None},
    "dr_grpo": {"advantage": "centered", "reduction": "fixed_length", "clip_high": 0.2, "dual_clip": None},
    "lite_ppo": {"advantage": "batch_scaled", "reduction": "token_mean", "clip_high": 0.2, "dual_clip": None},
    "paper_dapo_with_kl_and_entropy": {
        "advantage": "leave_one_out",
        "reduction": "prompt_mean",
        "clip_high": 0.28,
        "dual_clip": 3.0,
        "kl_coef": 0.05,
        "entropy_coef": 0.01,
    },
}


def objective(name: str, **changes: Any) -> Objective:
    return clipped_objective(**({"clip_low": 0.2, "max_new_tokens": MAX_NEW_TOKENS} | VARIANTS[name] | changes))


def rollout(length: int, total: float | None, generator: torch.Generator, *, truncated: bool = False) -> Rollout:
    tokens = torch.randint(0, 9, (length,), generator=generator).tolist()
    logprobs = (-2 * torch.rand(length, generator=generator)).tolist()
    reason = "length" if truncated else "stop"
    completion = Completion(array("i", [1, 2]), array("i", tokens), array("f", logprobs), "", reason, 0)
    return Rollout(completion, Score(total, raw=total))


def ragged_batch(seed: int = 0) -> Batch:
    """Six groups of 2 to 5 siblings, lengths 0 to 12, one score missing, some completions cut at the limit."""
    generator = torch.Generator().manual_seed(seed)
    groups = []
    for p, size in enumerate((4, 2, 5, 3, 2, 4)):
        lengths = torch.randint(0 if p == 2 else 1, MAX_NEW_TOKENS + 1, (size,), generator=generator).tolist()
        totals: list[float | None] = torch.randn(size, generator=generator).tolist()
        if p == 3:
            totals[1] = None
        rollouts = tuple(
            rollout(n, total, generator, truncated=(i == 0))
            for i, (n, total) in enumerate(zip(lengths, totals, strict=True))
        )
        groups.append(Group(p, Prompt(str(p)), rollouts))
    return collate(groups)


def policy(batch: Batch, seed: int = 1) -> PolicyOutput:
    """A policy that has moved far enough from the old one that every clip is reached."""
    generator = torch.Generator().manual_seed(seed)
    noise_N = torch.randn(batch.num_tokens, generator=generator)
    return PolicyOutput(
        logprobs_N=(batch.old_logprobs_N + 0.8 * noise_N).requires_grad_(),
        entropy_N=torch.rand(batch.num_tokens, generator=generator).requires_grad_(),
        tracked_NJ=torch.zeros(batch.num_tokens, 0),
        ref_logprobs_N=batch.old_logprobs_N - 0.3 * torch.rand(batch.num_tokens, generator=generator),
    )


def piece_of(output: PolicyOutput, index: Tensor) -> PolicyOutput:
    ref_N = output.ref_logprobs_N
    return PolicyOutput(
        output.logprobs_N[index],
        output.entropy_N[index],
        output.tracked_NJ[index],
        None if ref_N is None else ref_N[index],
    )


def run(objective: Objective, prepared: Prepared, pieces: list[list[int]]) -> tuple[float, Tensor, Tensor, Shares]:
    """Loss, gradients in log-probabilities and entropy, and summed shares, piece by piece."""
    output = policy(prepared.batch)
    total, summed = 0.0, {}
    for piece in pieces:
        sequences = torch.tensor(piece, dtype=torch.int64)
        index = prepared.batch.token_index(sequences)
        loss, shares = objective.loss(piece_of(output, index), prepared.select(sequences))
        loss.backward()
        total += loss.item()
        for name, (amount, count) in shares.items():
            before = summed.get(name, (0.0, 0.0))
            summed[name] = (before[0] + amount, before[1] + count)
    assert output.logprobs_N.grad is not None
    entropy_grad_N = output.entropy_N.grad
    return total, output.logprobs_N.grad, torch.zeros(0) if entropy_grad_N is None else entropy_grad_N, summed


def by_tokens(batch: Batch, budget: int) -> list[list[int]]:
    pieces, held = [[]], 0
    for b, length in enumerate(batch.lengths_B.tolist()):
        if held + length > budget and pieces[-1]:
            pieces, held = [*pieces, []], 0
        pieces[-1].append(b)
        held += length
    return pieces


def ways_of_cutting(batch: Batch) -> dict[str, list[list[int]]]:
    order = list(range(batch.num_sequences))
    shuffled = torch.randperm(len(order), generator=torch.Generator().manual_seed(3)).tolist()
    return {
        "one_piece": [order],
        "uneven_halves": [order[:7], order[7:]],
        "by_tokens": by_tokens(batch, 20),
        "by_more_tokens": by_tokens(batch, 45),
        "shuffled": [shuffled],
        "shuffled_threes": [shuffled[i : i + 3] for i in range(0, len(order), 3)],
        "pairs": [order[i : i + 2] for i in range(0, len(order), 2)],
        "single_sequences": [[b] for b in order],
        "two_ranks_striped": [order[0::2], order[1::2]],
        "longest_first": [[b] for b in sorted(order, key=lambda b: -int(batch.lengths_B[b]))],
    }


# -- the invariant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ways_of_cutting(ragged_batch()))
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_cut_gives_the_same_loss_gradient_and_metrics(variant, cut):
    made = objective(variant)
    prepared = made.prepare(ragged_batch())
    cuts = ways_of_cutting(prepared.batch)
    whole_loss, whole_grad_N, whole_entropy_grad_N, whole_shares = run(made, prepared, cuts["one_piece"])
    loss, grad_N, entropy_grad_N, shares = run(made, prepared, cuts[cut])

    assert whole_grad_N.abs().max() > 1e-4
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    torch.testing.assert_close(grad_N, whole_grad_N, atol=1e-6, rtol=0)
    torch.testing.assert_close(entropy_grad_N, whole_entropy_grad_N, atol=1e-6, rtol=0)
    assert shares.keys() == whole_shares.keys()
    for name, pair in shares.items():
        assert pair == pytest.approx(whole_shares[name], abs=1e-5), name


def test_preparing_each_piece_by_itself_would_not_give_the_same_gradient():
    made, batch = objective("dapo"), ragged_batch()
    prepared = made.prepare(batch)
    halves = ways_of_cutting(batch)["uneven_halves"]
    output = policy(batch)
    for half in halves:
        sequences = torch.tensor(half)
        loss, _ = made.loss(piece_of(output, batch.token_index(sequences)), made.prepare(batch.select(sequences)))
        (loss / len(halves)).backward()
    _, grad_N, _, _ = run(made, prepared, halves)
    assert output.logprobs_N.grad is not None
    assert (output.logprobs_N.grad - grad_N).abs().max() > 1e-4


def test_the_gradient_is_weight_times_advantage_times_ratio_where_nothing_is_clipped():
    made = objective("dapo")
    prepared = made.prepare(ragged_batch())
    output = policy(prepared.batch)
    loss, _ = made.loss(output, prepared)
    loss.backward()
    batch = prepared.batch
    ratio_N = (output.logprobs_N.detach() - batch.old_logprobs_N).exp()
    free_N = made.clip_codes(output.logprobs_N.detach(), prepared) == 0
    expected_N = (-prepared.advantages_N * ratio_N / batch.num_tokens).where(free_N, torch.zeros(()))
    assert output.logprobs_N.grad is not None
    torch.testing.assert_close(output.logprobs_N.grad, expected_N, atol=1e-7, rtol=1e-5)


# -- nothing to train -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_all_masked_batch_has_loss_zero_with_a_graph_and_zero_gradient(variant):
    made = objective(variant)
    batch = ragged_batch()
    prepared = made.prepare(replace(batch, mask_N=torch.zeros_like(batch.mask_N)))
    output = policy(batch)
    loss, shares = made.loss(output, prepared)
    loss.backward()
    assert loss.item() == 0.0
    assert prepared.num_trained == 0
    assert output.logprobs_N.grad is not None
    assert output.logprobs_N.grad.count_nonzero() == 0
    assert shares["loss"] == (0.0, 1.0)
    assert shares["entropy"] == (0.0, 0.0)
    assert all(math.isfinite(amount) for amount, _ in shares.values())


def test_a_piece_of_empty_completions_has_loss_zero_with_a_graph():
    generator = torch.Generator().manual_seed(0)
    batch = collate([Group(0, Prompt("p"), (rollout(3, 1.0, generator), rollout(0, 0.0, generator)))])
    made = objective("dapo")
    piece = made.prepare(batch).select(torch.tensor([1]))
    source = torch.zeros(5, requires_grad=True)
    output = PolicyOutput(source[:0], torch.zeros(0), torch.zeros(0, 0))
    loss, shares = made.loss(output, piece)
    loss.backward()
    assert loss.item() == 0.0
    assert source.grad is not None
    assert source.grad.tolist() == [0.0] * 5
    assert shares["loss"] == (0.0, 0.5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_on_masked_tokens_never_reach_loss_gradient_or_metrics(variant):
    made, batch = objective(variant), ragged_batch()
    mask_N = batch.position_N != 1
    batch = replace(batch, mask_N=mask_N)
    clean_loss, clean_shares = made.loss(policy(batch), made.prepare(batch))

    hostile_old_N = batch.old_logprobs_N.masked_fill(~mask_N, -math.inf)
    output = policy(batch)
    source_N = output.logprobs_N.detach().masked_fill(~mask_N, math.nan).requires_grad_()
    hostile = replace(output, logprobs_N=source_N, entropy_N=output.entropy_N.masked_fill(~mask_N, math.nan))
    loss, shares = made.loss(hostile, made.prepare(replace(batch, old_logprobs_N=hostile_old_N)))
    loss.backward()
    assert loss.item() == clean_loss.item()
    assert shares == clean_shares
    assert source_N.grad is not None
    assert source_N.grad[~mask_N].count_nonzero() == 0
    assert source_N.grad.isfinite().all()


def test_constant_groups_and_missing_scores_train_nothing_without_a_kl():
    generator = torch.Generator().manual_seed(0)
    alike = tuple(rollout(4, 0.9125, generator) for _ in range(8))
    lonely = (rollout(3, 1.0, generator), rollout(3, None, generator))
    batch = collate([Group(0, Prompt("a"), alike), Group(1, Prompt("b"), lonely)])
    made = objective("dapo")
    output = policy(batch)
    loss, _ = made.loss(output, made.prepare(batch))
    loss.backward()
    assert loss.item() == 0.0
    assert output.logprobs_N.grad is not None
    assert output.logprobs_N.grad.count_nonzero() == 0


# -- overlong filtering -----------------------------------------------------------------------------------------------


def test_overlong_filtering_masks_truncated_completions_and_keeps_their_scores_in_the_baseline():
    batch = ragged_batch()
    plain, filtered = objective("dapo").prepare(batch), objective("dapo", mask_truncated=True).prepare(batch)
    cut_N = batch.truncated_B[batch.sequence_N]
    assert 0 < int(cut_N.sum()) < batch.num_tokens
    assert torch.equal(filtered.batch.mask_N, ~cut_N)
    assert torch.equal(filtered.advantages_N, plain.advantages_N)
    assert filtered.weights_KN[:, cut_N].count_nonzero() == 0
    assert filtered.weights_KN.sum().item() == pytest.approx(1.0)
    assert filtered.num_trained == batch.num_tokens - int(cut_N.sum())
    assert filtered.num_sequences == batch.num_sequences
    assert batch.mask_N.all()


# -- shares -----------------------------------------------------------------------------------------------------------


def test_shares_are_the_means_they_say():
    made = objective("paper_dapo_with_kl_and_entropy")
    batch = ragged_batch()
    batch = replace(batch, mask_N=batch.position_N != 2)
    prepared = made.prepare(batch)
    output = policy(batch)
    loss, shares = made.loss(output, prepared)
    mean = {name: amount / count for name, (amount, count) in shares.items()}
    mask_N, old_N = batch.mask_N, batch.old_logprobs_N
    logprobs_N = output.logprobs_N.detach()
    ratio_N = (logprobs_N - old_N).exp()
    assert output.ref_logprobs_N is not None
    codes_N = made.clip_codes(logprobs_N, prepared)[mask_N]

    assert mean["loss"] == pytest.approx(loss.item())
    assert mean["loss/policy"] + mean["loss/kl"] + mean["loss/entropy"] == pytest.approx(loss.item(), abs=1e-6)
    assert mean["entropy"] == pytest.approx(output.entropy_N[mask_N].mean().item(), rel=1e-5)
    assert mean["ratio/mean"] == pytest.approx(ratio_N[mask_N].mean().item(), rel=1e-5)
    assert mean["kl/old"] == pytest.approx((ratio_N - ratio_N.log() - 1)[mask_N].mean().item(), rel=1e-4)
    expected_ref = kl.k3(logprobs_N, output.ref_logprobs_N)[mask_N].mean().item()
    assert mean["kl/ref"] == pytest.approx(expected_ref, rel=1e-5)
    for name, code in (("clip/low", -1), ("clip/high", 1), ("clip/dual", 2)):
        assert mean[name] == pytest.approx((codes_N == code).float().mean().item())
        assert mean[name] > 0
    assert mean["clip/fraction"] == pytest.approx((codes_N != 0).float().mean().item())
    assert {count for name, (_, count) in shares.items() if not name.startswith("loss")} == {float(mask_N.sum())}


def test_an_unmoved_policy_has_ratio_one_no_drift_and_no_clipping():
    made, batch = objective("dapo"), ragged_batch()
    output = replace(policy(batch), logprobs_N=batch.old_logprobs_N.clone().requires_grad_(), ref_logprobs_N=None)
    _, shares = made.loss(output, made.prepare(batch))
    n = float(batch.num_tokens)
    assert "kl/ref" not in shares
    assert shares["ratio/mean"] == (n, n)
    assert shares["kl/old"] == (0.0, n)
    assert shares["clip/fraction"] == (0.0, n)


def test_clip_codes_leave_masked_tokens_free_and_are_all_free_without_a_clip():
    made, batch = objective("grpo"), ragged_batch()
    batch = replace(batch, mask_N=batch.position_N != 0)
    prepared = made.prepare(batch)
    logprobs_N = policy(batch).logprobs_N.detach()
    codes_N = made.clip_codes(logprobs_N, prepared)
    assert codes_N.dtype == torch.int8
    assert codes_N.count_nonzero() > 0
    assert codes_N[~batch.mask_N].count_nonzero() == 0
    assert replace(made, codes=None).clip_codes(logprobs_N, prepared).count_nonzero() == 0


# -- the factory ------------------------------------------------------------------------------------------------------


def literals(field: str, section: type = config.Clipped) -> set[str]:
    return set(get_args(section.model_fields[field].annotation))


def test_every_name_the_config_offers_is_in_the_tables_and_no_other():
    assert set(ADVANTAGES) == literals("advantage")
    assert set(REDUCTIONS) == literals("reduction")
    assert set(KL_ESTIMATORS) == literals("estimator", config.KL)
    assert set(CORRECTIONS) == literals("correct", config.Mismatch)
    assert set(RATIOS) == literals("ratio")


def test_kl_and_entropy_are_terms_only_when_they_have_a_coefficient():
    plain = objective("dapo")
    assert [term.name for term in plain.terms] == ["policy"]
    assert not plain.needs_reference
    both = objective("dapo", kl_coef=0.1, entropy_coef=0.2)
    assert [term.name for term in both.terms] == ["policy", "kl", "entropy"]
    assert both.needs_reference


def test_optional_terms_weigh_as_the_policy_times_their_coefficient():
    weights_KN = objective("grpo", kl_coef=0.1, entropy_coef=0.2).prepare(ragged_batch()).weights_KN
    torch.testing.assert_close(weights_KN[1], 0.1 * weights_KN[0])
    torch.testing.assert_close(weights_KN[2], 0.2 * weights_KN[0])


def test_the_entropy_term_raises_entropy_and_the_kl_term_pulls_towards_the_reference():
    batch = ragged_batch()
    made = replace(objective("dapo", kl_coef=0.1, entropy_coef=0.2), advantage=lambda b, _: torch.zeros(b.num_tokens))
    output = policy(batch)
    made.loss(output, made.prepare(batch))[0].backward()
    assert output.entropy_N.grad is not None
    assert output.logprobs_N.grad is not None
    assert output.ref_logprobs_N is not None
    n = batch.num_tokens
    torch.testing.assert_close(output.entropy_N.grad, torch.full((n,), -0.2 / n))
    torch.testing.assert_close(
        output.logprobs_N.grad, 0.1 / n * (output.logprobs_N.detach() - output.ref_logprobs_N), atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize("estimator", sorted(KL_ESTIMATORS))
def test_every_kl_estimator_is_the_one_its_name_says(estimator):
    batch = ragged_batch()
    made = objective("dapo", kl_coef=1.0, kl_estimator=estimator)
    output = policy(batch)
    _, shares = made.loss(output, made.prepare(batch))
    assert output.ref_logprobs_N is not None
    expected = getattr(kl, estimator)(output.logprobs_N, output.ref_logprobs_N).mean().item()
    assert shares["loss/kl"][0] == pytest.approx(expected, rel=1e-5)


def test_a_kl_term_without_a_reference_fails_at_once():
    made, batch = objective("dapo", kl_coef=0.1), ragged_batch()
    with pytest.raises(AssertionError, match="reference"):
        made.loss(replace(policy(batch), ref_logprobs_N=None), made.prepare(batch))


def test_groups_of_a_selected_mini_batch_are_counted_as_that_mini_batch_has_them():
    batch = ragged_batch()
    sequences = (batch.group_B < 2).nonzero()[:, 0]
    weights_KN = objective("paper_dapo_with_kl_and_entropy").prepare(batch.select(sequences)).weights_KN
    assert weights_KN[0].sum().item() == pytest.approx(1.0)


# -- what the types must be able to carry -----------------------------------------------------------------------------


def test_an_advantage_recomputed_from_the_current_policy_gives_the_listwise_gradient():
    """ADPO on the reference numbers: 4 one-token completions, tau .8, q = softmax(A / .5)."""
    generator = torch.Generator().manual_seed(0)
    made = anchored_objective(tau=0.8, beta=0.5)
    batch = collate([Group(0, Prompt("p"), tuple(rollout(1, r, generator) for r in (1.0, 0.0, 0.0, 0.0)))])
    logprobs_N = (batch.old_logprobs_N + torch.tensor([0.4, -0.2, 0.0, 0.0])).requires_grad_()
    output = PolicyOutput(logprobs_N, torch.zeros(4), torch.zeros(4, 0))
    made.loss(output, made.prepare(batch, logprobs_N.detach()))[0].backward()
    assert logprobs_N.grad is not None
    assert logprobs_N.grad.tolist() == pytest.approx([-0.7194186, 0.1981729, 0.2606229, 0.2606229], abs=1e-5)
    with pytest.raises(AssertionError, match="current"):
        made.prepare(batch)


def anchored_objective(*, tau: float, beta: float) -> Objective:
    def anchored(batch: Batch, current_N: Tensor) -> Tensor:
        drift_B = torch.zeros(batch.num_sequences).index_add(0, batch.sequence_N, current_N - batch.old_logprobs_N)
        target_B = (advantages.standardized(batch.scores_B, batch.group_B) / beta).softmax(0)
        return ((target_B - (drift_B / tau).softmax(0)) / tau)[batch.sequence_N]

    policy_term = Term(
        "policy",
        weights=lambda batch: batch.mask_N.float() / batch.num_groups,
        loss=lambda output, prepared: surrogates.reinforce(output.logprobs_N, prepared.advantages_N),
    )
    return Objective(anchored, (policy_term,), needs_current=True)


def test_a_term_on_tracked_tokens_sits_beside_the_policy_term_and_survives_any_cut():
    """A confidence term: squared error of a two-way softmax at the first token of sequences that have a target."""

    def weights(batch: Batch) -> Tensor:
        tag_N = batch.mask_N & (batch.position_N == 0) & ~batch.target_B[batch.sequence_N].isnan()
        return 0.1 * tag_N.float() / tag_N.sum().clamp(min=1)

    def loss(output: PolicyOutput, prepared: Prepared) -> Tensor:
        target_N = prepared.batch.target_B.nan_to_num(0.5)[prepared.batch.sequence_N]
        return ((output.tracked_NJ[:, 0] - output.tracked_NJ[:, 1]).sigmoid() - target_N).square()

    made = objective("dapo")
    made = replace(made, terms=(*made.terms, Term("confidence", weights, loss)), tracked_ids=(7, 8))
    batch = ragged_batch()
    target_B = torch.linspace(0, 1, batch.num_sequences).where(torch.arange(batch.num_sequences) % 3 > 0, math.nan)
    prepared = made.prepare(replace(batch, target_B=target_B))

    def gradient(pieces: list[list[int]]) -> Tensor:
        generator = torch.Generator().manual_seed(5)
        tracked_NJ = torch.randn(batch.num_tokens, 2, generator=generator).requires_grad_()
        output = replace(policy(batch), tracked_NJ=tracked_NJ)
        for piece in pieces:
            sequences = torch.tensor(piece)
            made.loss(piece_of(output, batch.token_index(sequences)), prepared.select(sequences))[0].backward()
        assert tracked_NJ.grad is not None
        return tracked_NJ.grad

    cuts = ways_of_cutting(batch)
    whole_NJ = gradient(cuts["one_piece"])
    assert whole_NJ.abs().max() > 1e-4
    for cut in ("pairs", "shuffled_threes", "single_sequences"):
        torch.testing.assert_close(gradient(cuts[cut]), whole_NJ, atol=1e-6, rtol=0)
