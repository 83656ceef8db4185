"""The siblings of DAPO: the reference numbers, the published formulas by autograd, and the invariant under any cut."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from burnish.algorithms import advantages, mismatch, surrogates
from burnish.batch import Batch, PolicyOutput, collate, spread
from burnish.build.objective import make_objective
from burnish.config import RunConfig
from burnish.objective import Objective
from burnish.train import train
from burnish.types import Completion, Group, Prompt, Rollout, Score
from tests.fakes import make_run
from tests.reference_vectors import TOLERANCE, reference
from tests.unit.test_objective import policy, ragged_batch, run, ways_of_cutting

METHODS = ("gspo", "cispo", "sapo", "gmpo", "rloo", "reinforce_pp")


def method(name: str, **fields: Any) -> Objective:
    """The objective of a config whose `[objective]` has this name and these fields."""
    config = RunConfig.model_validate({"objective": {"name": name, **fields}})
    return make_objective(config, vocab_size=26)


def group(scores: Sequence[float], lengths: Sequence[int], id: int = 0) -> Group:
    def rollout(score: float, length: int) -> Rollout:
        tokens = array("i", [2] * length)
        return Rollout(Completion(array("i", [1]), tokens, array("f", [-1.0] * length), "", "stop", 0), Score(score))

    rollouts = tuple(rollout(score, length) for score, length in zip(scores, lengths, strict=True))
    return Group(id, Prompt(str(id)), rollouts)


# -- the reference numbers --------------------------------------------------------------------------------------------


def reference_batch() -> tuple[Batch, Tensor, Tensor]:
    """(batch, current log-probabilities [N], advantages [B]) that verl and TRL were run on."""
    vectors = reference("aggregation")
    mask = torch.tensor(vectors["mask"], dtype=torch.bool)
    batch = collate([group([0.0] * 4, mask.sum(1).tolist())])
    assert batch.old_logprobs_N.eq(vectors["old_logp_all"]).all()
    return batch, torch.tensor(vectors["ratio"])[mask].log() - 1.0, torch.tensor(vectors["advantage_per_seq"])


@pytest.mark.parametrize(
    ("name", "fields", "key", "expected"),
    [
        ("gspo", {}, "gspo_verl_seq-mean-token-mean", 0.168352),
        ("gspo", {}, "gspo_eps3e-4_4e-4_trl_grpo_agg", 0.168352),
        ("sapo", {}, "verl_sapo_1.0_1.05", 0.150512),
        ("sapo", {}, "trl_sapo_1.0_1.05", 0.150512),
        ("cispo", {}, "trl_cispo_eps_high5", 0.413828),
        ("cispo", {"cap_is": "excess", "cap": 4}, "trl_cispo_eps_high5", 0.413828),
        (
            "gmpo",
            {"log_clip_low": 0.2, "log_clip_high": 0.28},
            "gmpo_verl_geo_mean_0.2_0.28",
            0.211459,
        ),
    ],
)
def test_reproduces_the_loss_of_the_reference_implementations(name, fields, key, expected):
    batch, logprobs_N, advantages_B = reference_batch()
    made = replace(method(name, **fields), advantage=lambda b, _: advantages_B[b.sequence_N])
    loss, _ = made.loss(PolicyOutput(logprobs_N, torch.zeros(10), torch.zeros(10, 0)), made.prepare(batch))
    assert loss.item() == pytest.approx(expected, abs=TOLERANCE)
    assert reference("aggregation")[key] == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("reinforce_pp", "verl_reinforce_plus_plus_baseline"),
        ("rloo", "verl_rloo"),
        ("length_weighted", "verl_opo"),
        ("best_of_group", "verl_grpo_passk"),
    ],
)
def test_reproduces_the_advantages_of_the_reference_implementations(name, key):
    vectors = reference("advantages")
    scores, size = vectors["rewards"], vectors["group_size"]
    batch = collate([group(scores[i : i + size], [3] * size, i) for i in range(0, len(scores), size)])
    made = method(name) if name in METHODS else method("grpo", advantage=name)
    prepared = made.prepare(batch)
    found = prepared.advantages_N[batch.position_N == 0].tolist()
    assert found == pytest.approx(vectors[key], abs=TOLERANCE)


def test_the_std_over_n_of_the_sql_repository_is_the_plain_one_times_a_constant():
    vectors = reference("advantages")
    scores, size = vectors["rewards"], vectors["group_size"]
    groups = torch.arange(len(scores)) // size
    found_B = advantages.standardized(torch.tensor(scores, dtype=torch.float64), groups, eps=1e-8)
    expected = vectors["seed003_repo_ddof0_eps1e-8"]
    assert (found_B * math.sqrt(size / (size - 1))).tolist() == pytest.approx(expected, abs=TOLERANCE)


# -- the invariant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", ways_of_cutting(ragged_batch()))
@pytest.mark.parametrize("name", METHODS)
def test_any_cut_gives_the_same_loss_gradient_and_metrics(name, cut):
    made = method(name)
    prepared = made.prepare(ragged_batch())
    cuts = ways_of_cutting(prepared.batch)
    whole_loss, whole_grad_N, _, whole_shares = run(made, prepared, cuts["one_piece"])
    loss, grad_N, _, shares = run(made, prepared, cuts[cut])
    scale = max(1.0, whole_grad_N.abs().max().item())
    assert whole_grad_N.abs().max() > 1e-4
    assert loss == pytest.approx(whole_loss, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(grad_N, whole_grad_N, atol=1e-6 * scale, rtol=0)
    assert shares.keys() == whole_shares.keys()
    for metric, pair in shares.items():
        assert pair == pytest.approx(whole_shares[metric], rel=1e-5, abs=1e-5), metric


@pytest.mark.parametrize("name", METHODS)
def test_numbers_on_masked_tokens_never_reach_loss_or_gradient(name):
    made, batch = method(name), ragged_batch()
    mask_N = batch.position_N != 1
    batch = replace(batch, mask_N=mask_N)
    clean_loss, clean_shares = made.loss(policy(batch), made.prepare(batch))
    hostile = replace(batch, old_logprobs_N=batch.old_logprobs_N.masked_fill(~mask_N, -math.inf))
    source_N = policy(batch).logprobs_N.detach().masked_fill(~mask_N, math.nan).requires_grad_()
    loss, shares = made.loss(replace(policy(batch), logprobs_N=source_N), made.prepare(hostile))
    loss.backward()
    assert loss.item() == clean_loss.item()
    assert shares == clean_shares
    assert source_N.grad is not None
    assert source_N.grad[~mask_N].count_nonzero() == 0
    assert source_N.grad.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_at_ratio_one_every_sibling_is_the_plain_policy_gradient(name):
    made, batch = method(name), ragged_batch()
    prepared = made.prepare(batch)
    source_N = batch.old_logprobs_N.clone().requires_grad_()
    made.loss(PolicyOutput(source_N, torch.zeros(len(source_N)), torch.zeros(len(source_N), 0)), prepared)[0].backward()
    # One action per completion weighs its tokens alike, whatever their number.
    lengths_N = batch.lengths_B[batch.sequence_N] if name == "rloo" else 1
    assert source_N.grad is not None
    expected_N = -prepared.weights_KN[0] * lengths_N * prepared.advantages_N
    torch.testing.assert_close(source_N.grad, expected_N, atol=1e-6, rtol=1e-5)


# -- the formulas -----------------------------------------------------------------------------------------------------


def moved() -> tuple[Batch, Tensor, Tensor]:
    """(batch, current log-probabilities [N], advantages [B]) of two groups, completions of 1 to 4 tokens."""
    batch = collate([group([1.0, 0.0, 0.0], [4, 2, 1], 0), group([1.0, 1.0, 0.0], [3, 3, 2], 1)])
    change_N = 0.6 * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(4))
    return batch, batch.old_logprobs_N + change_N, torch.tensor([1.2, -0.6, -0.6, 0.5, 0.5, -1.0])


def gradient(made: Objective, batch: Batch, logprobs_N: Tensor, advantages_B: Tensor) -> tuple[float, Tensor]:
    made = replace(made, advantage=lambda b, _: advantages_B[b.sequence_N])
    source_N = logprobs_N.clone().requires_grad_()
    output = PolicyOutput(source_N, torch.zeros(len(source_N)), torch.zeros(len(source_N), 0))
    loss, _ = made.loss(output, made.prepare(batch))
    loss.backward()
    assert source_N.grad is not None
    return loss.item(), source_N.grad


def gspo_by_hand(changes: list[Tensor], advantages_B: Tensor) -> Tensor:
    terms = []
    for change_T, a in zip(changes, advantages_B, strict=True):
        s = change_T.mean().exp()
        terms.append(torch.min(s * a, s.clamp(1 - 3e-4, 1 + 4e-4) * a))
    return -torch.stack(terms).mean()


def rloo_by_hand(changes: list[Tensor], advantages_B: Tensor) -> Tensor:
    terms = []
    for change_T, a in zip(changes, advantages_B, strict=True):
        s = change_T.sum().exp()
        terms.append(torch.min(s * a, s.clamp(0.8, 1.2) * a))
    return -torch.stack(terms).mean()


def gmpo_by_hand(changes: list[Tensor], advantages_B: Tensor) -> Tensor:
    terms = []
    for change_T, a in zip(changes, advantages_B, strict=True):
        held_T = a.sign() * torch.min(a.sign() * change_T, a.sign() * change_T.clamp(-0.4, 0.4))
        terms.append(held_T.mean().exp() * a)
    return -torch.stack(terms).mean()


def sapo_by_hand(changes: list[Tensor], advantages_B: Tensor) -> Tensor:
    terms = []
    for change_T, a in zip(changes, advantages_B, strict=True):
        tau = 1.0 if a > 0 else 1.05
        terms.append((4 / tau * torch.sigmoid(tau * (change_T.exp() - 1)) * a).mean())
    return -torch.stack(terms).mean()


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [("gspo", gspo_by_hand), ("rloo", rloo_by_hand), ("gmpo", gmpo_by_hand), ("sapo", sapo_by_hand)],
)
def test_loss_and_gradient_are_those_of_the_published_formula(name, by_hand):
    batch, logprobs_N, advantages_B = moved()
    source_N = logprobs_N.clone().requires_grad_()
    changes = list((source_N - batch.old_logprobs_N).split(batch.lengths_B.tolist()))
    written = by_hand(changes, advantages_B)
    written.backward()
    loss, found_N = gradient(method(name), batch, logprobs_N, advantages_B)
    assert source_N.grad is not None
    assert source_N.grad.count_nonzero() > 0
    assert loss == pytest.approx(written.item(), abs=1e-6)
    torch.testing.assert_close(found_N, source_N.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("fields", "low", "high"),
    [
        ({}, 0.0, 5.0),
        ({"cap": 1.5}, 0.0, 1.5),
        ({"cap_is": "excess", "cap": 0.28}, 0.0, 1.28),
        ({"cap_is": "excess", "cap": 0.28, "clip_low": 0.2}, 0.8, 1.28),
    ],
)
def test_cispo_weighs_every_tokens_gradient_by_the_held_ratio(fields, low, high):
    batch, logprobs_N, advantages_B = moved()
    _, found_N = gradient(method("cispo", **fields), batch, logprobs_N, advantages_B)
    weight_N = (logprobs_N - batch.old_logprobs_N).exp().clamp(low, high)
    expected_N = -advantages_B[batch.sequence_N] * weight_N / batch.num_tokens
    torch.testing.assert_close(found_N, expected_N)
    assert found_N.count_nonzero() == batch.num_tokens


def test_codes_say_where_each_sibling_holds_a_token():
    ratio_N, advantages_N = torch.tensor([0.5, 0.9, 1.1, 2.0]), torch.tensor([-1.0, -1.0, 1.0, 1.0])
    logprobs_N, old_N = ratio_N.log(), torch.zeros(4)
    assert surrogates.capped_codes(logprobs_N, old_N, low=0.6, high=1.5).tolist() == [-1, 0, 0, 1]
    assert surrogates.capped_codes(logprobs_N, old_N, low=None, high=5.0).tolist() == [0] * 4
    held = partial(surrogates.geometric_codes, log_low=0.4, log_high=0.4)
    assert held(logprobs_N, old_N, advantages_N).tolist() == [-1, 0, 0, 1]
    assert held(logprobs_N, old_N, -advantages_N).tolist() == [0] * 4


def test_gspo_clips_whole_completions_and_sapo_none():
    batch, logprobs_N, advantages_B = moved()
    made = replace(method("gspo"), advantage=lambda b, _: advantages_B[b.sequence_N])
    codes_N = made.clip_codes(logprobs_N, made.prepare(batch))
    assert {len(set(codes.tolist())) for codes in codes_N.split(batch.lengths_B.tolist())} == {1}
    assert codes_N.count_nonzero() > 0
    sapo = method("sapo")
    assert sapo.clip_codes(logprobs_N, sapo.prepare(batch)).count_nonzero() == 0


# -- advantages -------------------------------------------------------------------------------------------------------


def test_whitening_is_over_the_tokens_of_the_whole_step():
    short, long = group([1.0, 0.0], [1, 3], 0), group([0.0, 0.0, 3.0], [2, 1, 1], 1)
    tokens = torch.tensor([0.5, -0.5, -0.5, -0.5, -1.0, -1.0, -1.0, 2.0], dtype=torch.float64)
    step = spread([short, long])
    assert step.centered_mean == pytest.approx(tokens.mean().item())
    assert step.centered_std == pytest.approx(tokens.std().item())
    assert step.score_std == pytest.approx(torch.tensor([1.0, 0.0, 0.0, 0.0, 3.0]).std().item())

    prepared = method("reinforce_pp").prepare(collate([short], step=step))
    expected = ((tokens - tokens.mean()) / (tokens.std() + 1e-6))[:4]
    assert prepared.advantages_N.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


def test_whitening_leaves_constant_groups_and_missing_scores_at_zero():
    scores_B, group_B = torch.tensor([1.0, 1.0, 0.0, math.nan, 1.0]), torch.tensor([0, 0, 1, 1, 1])
    found = advantages.whitened(scores_B, group_B, mean=0.3, std=0.5, eps=0.0).tolist()
    assert found == pytest.approx([0.0, 0.0, -1.6, 0.0, 0.4])


def test_a_length_weighted_baseline_by_hand():
    scores_B, group_B, lengths_B = torch.tensor([1.0, 0.0, 1.0, 1.0]), torch.zeros(4).long(), torch.tensor([6, 2, 0, 2])
    found = advantages.length_weighted(scores_B, group_B, lengths_B).tolist()
    assert found == pytest.approx([0.2, -0.8, 0.2, 0.2])


def test_only_a_single_best_has_a_lead():
    group_B = torch.tensor([0, 0, 0, 1, 1, 1])
    scores_B = torch.tensor([0.0, 2.0, 1.0, 1.0, 1.0, 0.0])
    found = advantages.best_of_group(scores_B, group_B).tolist()
    assert found == pytest.approx([0.0, 1.0, 0.0, 0.0, 0.0, 0.0], abs=1e-5)
    lonely = advantages.best_of_group(torch.tensor([1.0, math.nan]), torch.tensor([0, 0]))
    assert lonely.tolist() == [0.0, 0.0]


# -- engine-learner mismatch ------------------------------------------------------------------------------------------


def test_mismatch_weights_by_hand():
    engine_N = torch.tensor([-1.0, -1.0, -1.0, -1.0, math.nan])
    old_N = engine_N + torch.tensor([1.5, 0.5, -1.0, 0.2, 0.0]).log1p()
    mask_N, sequence_N = torch.tensor([True] * 4 + [False]), torch.tensor([0, 0, 1, 1, 1])
    old_N[2] = -1.0 + math.log(0.5)
    assert mismatch.token_weights(old_N, engine_N, mask_N).tolist() == pytest.approx([2.5, 1.5, 0.5, 1.2, 1.0])
    found = mismatch.sequence_weights(old_N, engine_N, mask_N, sequence_N, 2).tolist()
    assert found == pytest.approx([3.75, 3.75, 0.6, 0.6, 0.6])


def mismatched() -> tuple[Batch, Tensor]:
    batch, _, _ = moved()
    gap_N = torch.tensor([1.0, 0.2, -0.3, 0.0, 0.1, 0.4, 0.9, -0.2, 0.3, 0.0, -1.0, 0.5, 0.2, 0.1, -0.1])
    return replace(batch, old_logprobs_N=batch.engine_logprobs_N + gap_N), gap_N.exp()


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_importance_weighs_the_policy_term_and_no_other(level):
    batch, weight_N = mismatched()
    if level == "sequence":
        weight_N = torch.stack([weight_N[batch.sequence_N == b].prod() for b in range(6)])[batch.sequence_N]
    plain = method("dapo", entropy_coef=0.1).prepare(batch)
    made = method("dapo", entropy_coef=0.1, mismatch={"correct": level, "cap": 1.5})
    prepared = made.prepare(batch)
    assert made.needs_old
    torch.testing.assert_close(prepared.weights_KN[0], plain.weights_KN[0] * weight_N.clamp(max=1.5))
    torch.testing.assert_close(prepared.weights_KN[1], plain.weights_KN[1])
    total, count = prepared.shares["mismatch/weight"]
    assert total / count == pytest.approx(weight_N.clamp(max=1.5).mean().item())
    assert prepared.shares["mismatch/capped"] == (float((weight_N > 1.5).sum()), 15.0)
    assert not plain.shares


def half_right(prompt: Prompt, sample: int, seed: int) -> str:
    return "yes" if sample % 2 else "no"


def test_with_a_correction_the_learners_own_logprobs_are_taken_once_before_the_first_update():
    run = make_run(half_right, epochs=2)
    asked: list[tuple[int, Batch]] = []

    def logprobs(batch: Batch) -> Tensor:
        asked.append((run.learner.steps, batch))
        return batch.engine_logprobs_N + 0.25

    run.learner.logprobs = logprobs
    train(replace(run, objective=method("dapo", mismatch={"correct": "token"})))
    assert [steps for steps, _ in asked] == [0, 0]
    assert len(run.learner.minibatches) == 4
    for prepared in run.learner.minibatches:
        torch.testing.assert_close(prepared.batch.old_logprobs_N, prepared.batch.engine_logprobs_N + 0.25)
    record = run.store.steps[0]
    assert record.metrics["mismatch/weight"] == pytest.approx(math.exp(0.25))
    assert record.metrics["mismatch/mean"] == pytest.approx(0.25)
    assert record.metrics["mismatch/kl"] == pytest.approx(math.exp(0.25) - 0.25 - 1, rel=1e-4)
    traces = list(record.traces.values())
    assert len(traces) == 8
    assert all(trace.learner_logprobs is not None for trace in traces)


def test_without_a_correction_the_learner_is_not_asked_and_the_first_update_measures_the_mismatch():
    run = make_run(half_right)
    run.learner.logprobs = lambda batch: pytest.fail("asked")
    train(run)
    assert run.store.steps[0].metrics["mismatch/kl"] == 0.0
    assert "mismatch/weight" not in run.store.steps[0].metrics
    assert [trace.learner_logprobs is None for trace in run.store.steps[0].traces.values()].count(False) == 4
