"""ADPO: the published numbers, the autograd gradient of the listwise loss under any cut, and switches that work."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from burnish.algorithms import advantages, anchored, temperature
from burnish.batch import Batch, PolicyOutput, Prepared, collate
from burnish.build.objective import make_objective
from burnish.config import RunConfig
from burnish.config import objectives as config_objectives
from burnish.objective import Objective
from burnish.objective.adpo import ENTROPIES, MODES, TOKEN_SHARES, Tau, adpo_objective
from burnish.train import train
from burnish.types import Completion, Group, Prompt, Rollout, Score, Shares
from tests.fakes import make_run
from tests.reference_vectors import TOLERANCE, reference

VOCABULARY = 26


def config(**fields: Any) -> RunConfig:
    """A config whose `[objective]` is ADPO with these fields."""
    return RunConfig.model_validate({"objective": {"name": "adpo", **fields}})


def adpo(**fields: Any) -> Objective:
    return make_objective(config(**fields), vocab_size=VOCABULARY)


FIXED = {"adaptive_tau": {"mode": "off"}}


def group(
    scores: Sequence[float | None], lengths: Sequence[int], id: int = 0, raw: Sequence[float | None] | None = None
) -> Group:
    generator = torch.Generator().manual_seed(id)
    rollouts = []
    for score, length, task in zip(scores, lengths, scores if raw is None else raw, strict=True):
        logprobs = (-2 * torch.rand(length, generator=generator)).tolist()
        completion = Completion(array("i", [1]), array("i", [2] * length), array("f", logprobs), "", "stop", 0)
        rollouts.append(Rollout(completion, Score(score, raw=task)))
    return Group(id, Prompt(str(id)), tuple(rollouts))


def output_of(logprobs_N: Tensor) -> PolicyOutput:
    return PolicyOutput(logprobs_N, torch.zeros(len(logprobs_N)), torch.zeros(len(logprobs_N), 0))


def gradient(made: Objective, prepared: Prepared, logprobs_N: Tensor, pieces: Sequence[Sequence[int]]) -> Tensor:
    source_N = logprobs_N.clone().requires_grad_()
    for piece in pieces:
        sequences = torch.tensor(piece)
        index = prepared.batch.token_index(sequences)
        made.loss(output_of(source_N[index]), prepared.select(sequences))[0].backward()
    assert source_N.grad is not None
    return source_N.grad


def value(shares: Shares, name: str) -> float:
    total, count = shares[name]
    return total / count


# -- the published numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", range(5))
def test_reproduces_loss_gradient_and_metrics_of_the_released_code(case: int):
    row = reference("adpo_seed_commit")[case]
    mode = "entropy_down" if row["cfg"].get("use_adaptive_tau") else "off"
    coef = row["cfg"].get("beta_anchor_kl", 0.0)
    made = adpo(adaptive_tau={"mode": mode}, beta_anchor_kl=coef)
    scores = [1.0, 0.0, 0.0, 0.0] if row["advantages"][0] else [1.0] * 4
    anchor_N, current_N = torch.tensor(row["anchor_logp"]), torch.tensor(row["seq_logp"])
    batch = replace(collate([group(scores, [1] * 4)]), old_logprobs_N=anchor_N)
    prepared = made.prepare(batch, current_N)

    assert gradient(made, prepared, current_N, [[0, 1, 2, 3]]).tolist() == pytest.approx(
        row["dloss_dseqlogp"], abs=TOLERANCE
    )
    for name, expected in row["metrics"].items():
        assert value(prepared.shares, name) == pytest.approx(expected, abs=TOLERANCE), name
    _, shares = made.loss(output_of(current_N), prepared)
    penalty = value(shares, "loss/anchor_kl") if coef else 0.0
    assert value(prepared.shares, "adpo/loss") + penalty == pytest.approx(row["loss"], abs=TOLERANCE)


@pytest.mark.parametrize("num_right", range(9))
def test_reproduces_the_adaptive_temperatures_of_document_and_code(num_right: int):
    row = reference("adpo_adaptive_tau")[num_right]
    batch = collate([group([1.0] * num_right + [0.0] * (8 - num_right), [2] * 8)])
    for mode, key in (("entropy_up", "tau_B_doc"), ("entropy_down", "tau_A_code")):
        made = adpo(adaptive_tau={"mode": mode})
        found = value(made.prepare(batch, batch.old_logprobs_N).shares, "adpo/mean_tau")
        assert found == pytest.approx(row[key], abs=TOLERANCE)
    of = anchored.siblings(batch.group_B, batch.scores_B)
    shares = adpo(**FIXED).prepare(batch, batch.old_logprobs_N).shares
    h_P = temperature.target_entropy(torch.tensor([value(shares, "adpo/q_entropy")]), of.size_P)
    assert h_P.item() == pytest.approx(row["H_over_Hmax"], abs=TOLERANCE)


@pytest.mark.parametrize("num_right", range(9))
def test_reproduces_the_targets_of_the_released_code(num_right: int):
    row = reference("adpo_adaptive_tau")[num_right]
    assert row["k_correct_of_8"] == num_right
    scores_B = torch.tensor([1.0] * num_right + [0.0] * (8 - num_right))
    group_B = torch.zeros(8, dtype=torch.int64)
    advantages_B = advantages.standardized(scores_B, group_B)
    of = anchored.siblings(group_B, scores_B)
    expected = [row["q_correct"]] * num_right + [row["q_wrong"]] * (8 - num_right)
    assert anchored.target(advantages_B, of, beta_reward=0.5).tolist() == pytest.approx(expected, abs=TOLERANCE)


def test_the_documented_temperature_is_the_default():
    assert config().objective == config_objectives.ADPO(
        tau=0.8,
        beta_reward=0.5,
        adaptive_tau=config_objectives.AdaptiveTau(mode="entropy_up", entropy_of="target", alpha=0.5, low=0.05),
    )
    assert config().sampling.group_size == 8


@pytest.mark.parametrize("size", [2, 4, 8])
def test_at_the_anchor_the_loss_is_log_of_the_group_size_whatever_the_scores(size: int):
    batch = collate([group([1.0] + [0.0] * (size - 1), [3] * size)])
    shares = adpo(**FIXED).prepare(batch, batch.old_logprobs_N).shares
    assert value(shares, "adpo/loss") == pytest.approx(math.log(size))
    assert value(shares, "adpo/anchor_kl") == value(shares, "adpo/anchor_kl_k3") == 0.0


# -- the invariant ----------------------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {},
    "fixed temperature": FIXED,
    "code's temperature, mean": {"adaptive_tau": {"mode": "entropy_down"}, "score_reduction": "mean"},
    "paper's temperature": {"adaptive_tau": {"mode": "hybrid", "entropy_of": "policy"}},
    "without failed prompts": {"drop_all_failed_prompts": True, "advantage": "batch_scaled"},
    "anchor penalty": {"beta_anchor_kl": 0.1, "advantage": "centered"},
}


def ragged() -> tuple[Batch, Tensor]:
    """Groups of 5, 3, 2, 4 and 1; lengths 0 to 7; a missing score; a failed prompt; members of groups interleaved."""
    groups = [
        group([1.0, -1.0, -1.0, 1.0, -1.0], [3, 7, 1, 5, 2], 0),
        group([-1.0, -1.0, -1.0], [4, 0, 6], 1),
        group([0.3, 1.0], [2, 2], 2),
        group([1.0, None, -1.0, 0.5], [5, 3, 1, 7], 3),
        group([1.0], [4], 4),
    ]
    batch = collate(groups)
    order = torch.randperm(batch.num_sequences, generator=torch.Generator().manual_seed(1))
    batch = batch.select(order)
    drift_N = 0.5 * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(2))
    return batch, batch.old_logprobs_N + drift_N


def listwise_loss(batch: Batch, current_N: Tensor, *, settings: Any, num_kept: int) -> Tensor:
    """The loss as written down: for each group, cross-entropy from softmax(A / beta) to softmax(drift / tau)."""
    total = torch.zeros((), dtype=torch.float64)
    for p in batch.group_B.unique().tolist():
        members = [b for b in range(batch.num_sequences) if batch.group_B[b] == p and not batch.scores_B[b].isnan()]
        if settings["drop"] and all(batch.raw_B[b] <= 0 for b in members):
            continue
        gap_N = (current_N - batch.old_logprobs_N).double()
        sums = torch.stack([gap_N[batch.sequence_N == b].sum() for b in members])
        if settings["mean"]:
            sums = sums / torch.tensor([max(int(batch.lengths_B[b]), 1) for b in members])
        scores = batch.scores_B[members]
        centred = scores - scores.mean()
        scale = settings["scale"](scores, batch)
        q = (centred / scale / 0.5).softmax(0)
        tau = settings["tau"](q, batch, members)
        total = total - (q * (sums / tau).log_softmax(0)).sum()
    return total / num_kept


def group_std(scores: Tensor, _batch: Batch) -> float:
    return scores.std().item() + 1e-6 if len(scores) > 1 else 1.0


def entropy_share(q: Tensor) -> float:
    return (-(q * q.log()).sum() / math.log(len(q))).item() if len(q) > 1 else 1.0


def paper_tau(q: Tensor, batch: Batch, members: list[int]) -> float:
    group_id = int(batch.group_B[members[0]])
    means = [batch.scores_B[batch.group_B == p].nanmean().item() for p in batch.group_B.unique().tolist()]
    reward = (means[group_id] - min(means)) / (max(means) - min(means))
    tokens_N = batch.group_B[batch.sequence_N] == group_id
    h = (-batch.old_logprobs_N[tokens_N].double().mean() / math.log(VOCABULARY)).item()
    return 0.8 * (1 + 0.5 * h + 1.0 * (1 - h) * (1 - reward))


WRITTEN: dict[str, dict[str, Any]] = {
    "as published": {"tau": lambda q, *_: 0.8 * (1 - 0.5 * (1 - entropy_share(q)))},
    "fixed temperature": {},
    "code's temperature, mean": {"tau": lambda q, *_: 0.8 * (1 - 0.5 * entropy_share(q)), "mean": True},
    "paper's temperature": {"tau": paper_tau},
    "without failed prompts": {
        "drop": True,
        "scale": lambda _, batch: batch.scores_B[~batch.scores_B.isnan()].std().item() + 1e-6,
        "tau": lambda q, *_: 0.8 * (1 - 0.5 * (1 - entropy_share(q))),
    },
    "anchor penalty": {"scale": lambda *_: 1.0, "tau": lambda q, *_: 0.8 * (1 - 0.5 * (1 - entropy_share(q)))},
}


def cuts(num_sequences: int) -> dict[str, list[list[int]]]:
    order = list(range(num_sequences))
    shuffled = torch.randperm(num_sequences, generator=torch.Generator().manual_seed(3)).tolist()
    return {
        "one piece": [order],
        "uneven halves": [order[:4], order[4:]],
        "pairs": [order[i : i + 2] for i in range(0, num_sequences, 2)],
        "single sequences": [[b] for b in order],
        "shuffled threes": [shuffled[i : i + 3] for i in range(0, num_sequences, 3)],
        "two ranks striped": [order[0::2], order[1::2]],
    }


@pytest.mark.parametrize("cut", cuts(15))
@pytest.mark.parametrize("setting", SETTINGS)
def test_any_cut_gives_the_autograd_gradient_of_the_listwise_loss(setting: str, cut: str):
    batch, current_N = ragged()
    made = adpo(**SETTINGS[setting])
    prepared = made.prepare(batch, current_N)
    settings = {"tau": lambda *_: 0.8, "scale": group_std, "mean": False, "drop": False} | WRITTEN[setting]
    num_kept = 4 if settings["drop"] else 5

    source_N = current_N.clone().requires_grad_()
    written = listwise_loss(batch, source_N, settings=settings, num_kept=num_kept)
    loss = written.item()
    if setting == "anchor penalty":
        gap_N = batch.old_logprobs_N - source_N
        written = written + 0.1 * (gap_N.exp() - gap_N - 1).mean()
    written.backward()
    assert source_N.grad is not None
    assert source_N.grad.abs().max() > 1e-3
    found_N = gradient(made, prepared, current_N, cuts(batch.num_sequences)[cut])
    torch.testing.assert_close(found_N, source_N.grad, atol=1e-6, rtol=0)
    assert value(prepared.shares, "adpo/loss") == pytest.approx(loss, abs=1e-6)


def test_cutting_before_preparing_would_not_give_that_gradient():
    batch, current_N = ragged()
    made = adpo(**FIXED)
    whole_N = gradient(made, made.prepare(batch, current_N), current_N, [list(range(15))])
    half = torch.arange(8)
    index = batch.token_index(half)
    half_N = gradient(made, made.prepare(batch.select(half), current_N[index]), current_N[index], [list(range(8))])
    assert (half_N - whole_N[index]).abs().max() > 1e-3


def test_missing_scores_and_lonely_completions_train_nothing_and_everything_else_does():
    batch, current_N = ragged()
    advantages_N = adpo(**FIXED).prepare(batch, current_N).advantages_N
    still = batch.scores_B.isnan() | (batch.group_B == 4)
    assert int(still.sum()) == 2
    assert advantages_N[still[batch.sequence_N]].count_nonzero() == 0
    assert advantages_N[~still[batch.sequence_N]].count_nonzero() == (~still[batch.sequence_N]).sum()


def test_a_constant_group_stays_at_the_anchor_and_is_pulled_back_to_it():
    batch = collate([group([1.0] * 4, [2] * 4)])
    made = adpo(**FIXED)
    assert made.prepare(batch, batch.old_logprobs_N).advantages_N.abs().max() < 1e-7
    away_N = batch.old_logprobs_N + torch.tensor([0.2, 0.2, 0, 0, 0, 0, -0.1, -0.1])
    advantages_N = made.prepare(batch, away_N).advantages_N
    assert advantages_N[0] < 0 < advantages_N[6]


# -- switches ---------------------------------------------------------------------------------------------------------


def test_scaling_by_group_batch_or_nothing_gives_three_different_gradients():
    batch = collate([group([1.0, 0.0, 0.0, 0.0], [1] * 4), group([1.0, 1.0, 0.0, 0.0], [1] * 4)])
    found = [
        adpo(advantage=name, **FIXED).prepare(batch, batch.old_logprobs_N).advantages_N
        for name in ("standardized", "batch_scaled", "centered")
    ]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (found[a] - found[b]).abs().max() > 5e-3


@pytest.mark.parametrize("failing", [0.0, -1.0, -0.0277778])
def test_prompts_whose_siblings_all_failed_can_be_left_out(failing: float):
    groups = [group([1.0, failing], [2, 2], 0), group([failing] * 2, [3, 3], 1)]
    batch = collate(groups)
    away_N = batch.old_logprobs_N + torch.linspace(-0.5, 0.5, batch.num_tokens)
    kept, dropped = adpo(), adpo(drop_all_failed_prompts=True)

    prepared = dropped.prepare(batch, away_N)
    assert value(prepared.shares, "adpo/dropped_prompts") == 1.0
    assert prepared.num_trained == 4
    assert gradient(dropped, prepared, away_N, [[0, 1, 2, 3]])[4:].count_nonzero() == 0
    whole_N = gradient(kept, kept.prepare(batch, away_N), away_N, [[0, 1, 2, 3]])
    assert whole_N[4:].count_nonzero() == 6
    torch.testing.assert_close(gradient(dropped, prepared, away_N, [[0, 1, 2, 3]])[:4], 2 * whole_N[:4])
    assert "adpo/dropped_prompts" not in kept.prepare(batch, away_N).shares


def test_failing_is_judged_by_the_raw_score_of_those_that_have_one():
    shaped = group([-0.5, 0.4], [2, 2], 0, raw=[1.0, 0.0])
    partly_judged = group([-1.0, None], [2, 2], 1, raw=[-1.0, None])
    unjudged = group([None, None], [2, 2], 2)
    batch = collate([shaped, partly_judged, unjudged])
    prepared = adpo(drop_all_failed_prompts=True).prepare(batch, batch.old_logprobs_N)
    assert value(prepared.shares, "adpo/dropped_prompts") == 1.0
    assert prepared.batch.mask_N.tolist() == [True] * 4 + [False] * 4 + [True] * 4


def test_a_batch_of_failed_prompts_has_loss_zero_with_a_graph():
    batch = collate([group([-1.0] * 4, [2] * 4)])
    made = adpo(drop_all_failed_prompts=True, beta_anchor_kl=0.1)
    prepared = made.prepare(batch, batch.old_logprobs_N + 0.1)
    assert gradient(made, prepared, batch.old_logprobs_N, [[0, 1], [2, 3]]).tolist() == [0.0] * 8
    assert prepared.shares["adpo/loss"] == (0.0, 0.0)


def test_truncated_completions_can_be_kept_from_training():
    batch = replace(collate([group([1.0, 0.0, 0.0], [2, 2, 2])]), truncated_B=torch.tensor([False, True, False]))
    prepared = adpo(overlong={"mask_truncated": True}).prepare(batch, batch.old_logprobs_N)
    assert prepared.batch.mask_N.tolist() == [True, True, False, False, True, True]
    assert prepared.weights_KN[0].tolist() == [1, 1, 0, 0, 1, 1]


def test_entropy_and_reference_terms_are_means_over_tokens():
    batch = collate([group([1.0, 0.0], [3, 1])])
    made = adpo(kl={"coef": 0.2}, entropy_coef=0.1)
    assert [term.name for term in made.terms] == ["policy", "kl", "entropy"]
    assert made.needs_reference
    weights_KN = made.prepare(batch, batch.old_logprobs_N).weights_KN
    assert weights_KN[1].tolist() == pytest.approx([0.05] * 4)
    assert weights_KN[2].tolist() == pytest.approx([0.025] * 4)


def test_metrics_of_switches_that_are_off_are_absent():
    batch, current_N = ragged()
    found = set(adpo().prepare(batch, current_N).shares)
    assert found == {"adpo/loss", "adpo/anchor_kl", "adpo/anchor_kl_k3", "adpo/mean_tau", "adpo/q_entropy"}
    more = adpo(beta_anchor_kl=1, drop_all_failed_prompts=True).prepare(batch, current_N).shares
    assert set(more) - found == {"adpo/kl_penalty", "adpo/dropped_prompts"}


def test_the_true_divergence_is_that_of_the_tokens_the_anchor_drew():
    batch, current_N = ragged()
    gap_N = current_N - batch.old_logprobs_N
    expected = (gap_N.exp() - gap_N - 1).mean().item()
    assert value(adpo().prepare(batch, current_N).shares, "adpo/anchor_kl_k3") == pytest.approx(expected, rel=1e-5)


# -- temperatures -----------------------------------------------------------------------------------------------------


def test_the_hybrid_temperature_by_hand():
    h_P, r_P = torch.tensor([0.0, 1.0, 0.5, 0.0]), torch.tensor([1.0, 0.0, 0.5, 0.0])
    found_P = temperature.hybrid(h_P, r_P, tau=0.8, alpha=0.5, reward_alpha=1.0, low=0.85, high=1.3)
    assert found_P.tolist() == pytest.approx([0.85, 1.2, 1.2, 1.3])


def test_scores_are_rescaled_over_the_batch_and_flat_ones_are_a_half():
    mean_P, among_P = torch.tensor([-1.0, 1.0, 0.0, 0.0]), torch.tensor([True, True, True, False])
    assert temperature.rescaled(mean_P, among_P).tolist() == [0.0, 1.0, 0.5, 0.5]
    assert temperature.rescaled(torch.ones(3), torch.ones(3).bool()).tolist() == [0.5] * 3
    assert temperature.rescaled(torch.ones(2), torch.zeros(2).bool()).tolist() == [0.5] * 2


def test_policy_entropy_is_the_mean_surprise_over_its_maximum():
    logprobs_N = torch.tensor([-1.0, -2.0, -3.0, -9.0])
    mask_N, owner_N = torch.tensor([True, True, False, True]), torch.tensor([0, 0, 0, 1])
    found_P = temperature.policy_entropy(logprobs_N, mask_N, owner_N, 3, vocab_size=100)
    assert found_P.tolist() == pytest.approx([1.5 / math.log(100), 1.0, 0.0])


@pytest.mark.parametrize("mode", MODES)
def test_every_temperature_stays_within_its_bounds(mode: str):
    tau = Tau(0.8, mode, "target", alpha=3.0, reward_alpha=9.0, low=0.3, high=1.0, vocab_size=VOCABULARY)
    h_P = torch.linspace(0, 1, 11, dtype=torch.float64)
    found_P = MODES[mode](h_P, 1 - h_P, tau)
    assert 0.3 <= found_P.min() <= found_P.max() <= 1.0


def test_every_name_the_config_offers_is_in_the_tables_and_no_other():
    def literals(section: type, field: str) -> set[str]:
        return set(get_args(section.model_fields[field].annotation))

    assert set(MODES) == literals(config_objectives.AdaptiveTau, "mode")
    assert set(ENTROPIES) == literals(config_objectives.AdaptiveTau, "entropy_of")
    assert set(TOKEN_SHARES) == literals(config_objectives.ADPO, "score_reduction")


def test_a_temperature_outside_of_its_bounds_is_refused():
    with pytest.raises(ValueError, match=r"Type objective\.adaptive_tau\.mode=off"):
        config(tau=0.01)
    adpo(tau=0.01, **FIXED)


# -- in the loop ------------------------------------------------------------------------------------------------------


def test_the_policy_is_asked_again_before_every_update_but_the_first():
    run = make_run(lambda prompt, sample, seed: "yes" if sample % 2 else "no", epochs=2)
    asked: list[Batch] = []

    def logprobs(batch: Batch) -> Tensor:
        asked.append(batch)
        return batch.old_logprobs_N + torch.linspace(0, 1, batch.num_tokens)

    run.learner.logprobs = logprobs
    run = replace(run, objective=adpo())
    train(run)
    assert len(run.learner.minibatches) == 4
    assert len(asked) == 3
    moved = [value(p.shares, "adpo/anchor_kl") for p in run.learner.minibatches]
    assert moved[0] == 0.0
    assert min(moved[1:]) > 0.1
    metrics = run.store.steps[0].metrics
    assert metrics["adpo/anchor_kl"] == pytest.approx(sum(moved) / 4)
    assert metrics["adpo/mean_tau"] > 0


def test_made_by_hand_it_takes_plain_values():
    tau = Tau(0.8, "off", "target", alpha=0.0, reward_alpha=0.0, low=0.1, high=1.0, vocab_size=VOCABULARY)
    made = adpo_objective(advantage="standardized", tau=tau, beta_reward=0.5, score_reduction="sum")
    batch = collate([group([1.0, 0.0, 0.0, 0.0], [1] * 4)])
    moved_N = batch.old_logprobs_N + torch.tensor([0.4, -0.2, 0.0, 0.0])
    found = gradient(made, made.prepare(batch, moved_N), moved_N, [[0, 1, 2, 3]]).tolist()
    assert found == pytest.approx([-0.7194186, 0.1981729, 0.2606229, 0.2606229], abs=TOLERANCE)
