"""PPO with a value head: one gradient whatever the cut, credit over the whole step, a head that trains and is kept."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from burnish.algorithms import gae
from burnish.batch import Batch, Credit, PolicyOutput, Prepared, collate
from burnish.build.objective import make_objective, value_learning_rate
from burnish.config import RunConfig
from burnish.learner import local
from burnish.learner.local import LocalLearner
from burnish.objective import Objective
from burnish.train import update
from burnish.types import Group, Score, Shares
from tests.fakes import RecordingLearner, make_run
from tests.tiny_models import MODELS
from tests.unit.test_learner import (
    LENGTHS,
    V,
    assert_same_gradient,
    assert_same_weights,
    gradient,
    groups_of,
    learner_of,
    of_tokens,
    spelled_out,
    weights,
)
from tests.unit.test_objective import policy, ragged_batch, ways_of_cutting


def config(**fields: Any) -> RunConfig:
    """A config whose `[objective]` is PPO with these fields."""
    return RunConfig.model_validate({"objective": {"name": "ppo", **fields}})


def ppo(**fields: Any) -> Objective:
    return make_objective(config(**fields), vocab_size=V)


def drawn(batch: Batch, seed: int) -> Tensor:
    return torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(seed))


def credited(made: Objective, batch: Batch, *, values_N: Tensor | None = None) -> Batch:
    """The batch as a step of its own."""
    assert made.credit is not None
    (credit,) = made.credit([batch], [drawn(batch, 5) if values_N is None else values_N])
    return replace(batch, credit=credit)


def credit_of(batch: Batch) -> Credit:
    assert batch.credit is not None
    return batch.credit


# -- the invariant ----------------------------------------------------------------------------------------------------

VARIANTS: dict[str, dict[str, Any]] = {
    "published": {},
    "sequence_mean_unwhitened": {"reduction": "sequence_mean", "whiten": False, "gamma": 0.9, "entropy_coef": 0.01},
    "corrected_without_truncated": {
        "mismatch": {"correct": "token"},
        "overlong": {"mask_truncated": True},
        "value": {"coef": 0.5, "clip": None},
    },
}


def run(made: Objective, prepared: Prepared, pieces: list[list[int]]) -> tuple[float, list[Tensor], Shares]:
    """Loss, gradients in log-probabilities, entropy and values, and summed shares, piece by piece."""
    output = policy(prepared.batch)
    values_N = (credit_of(prepared.batch).values_N + 0.3 * drawn(prepared.batch, 7)).requires_grad_()
    total, summed = 0.0, {}
    for piece in pieces:
        sequences = torch.tensor(piece, dtype=torch.int64)
        index = prepared.batch.token_index(sequences)
        part = PolicyOutput(
            output.logprobs_N[index], output.entropy_N[index], output.tracked_NJ[index], values_N=values_N[index]
        )
        loss, shares = made.loss(part, prepared.select(sequences))
        loss.backward()
        total += loss.item()
        for name, (amount, count) in shares.items():
            before = summed.get(name, (0.0, 0.0))
            summed[name] = (before[0] + amount, before[1] + count)
    grads = [x.grad for x in (output.logprobs_N, output.entropy_N, values_N)]
    return total, [torch.zeros(0) if grad is None else grad for grad in grads], summed


@pytest.mark.parametrize("cut", ways_of_cutting(ragged_batch()))
@pytest.mark.parametrize("variant", VARIANTS)
def test_any_cut_gives_the_same_loss_gradients_and_metrics(variant: str, cut: str):
    made = ppo(**VARIANTS[variant])
    prepared = made.prepare(credited(made, ragged_batch()))
    cuts = ways_of_cutting(prepared.batch)
    whole_loss, whole_grads, whole_shares = run(made, prepared, cuts["one_piece"])
    loss, grads, shares = run(made, prepared, cuts[cut])
    assert whole_grads[0].abs().max() > 1e-4
    assert whole_grads[2].abs().max() > 1e-5
    assert loss == pytest.approx(whole_loss, abs=1e-6)
    for found, expected in zip(grads, whole_grads, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert shares.keys() == whole_shares.keys() >= {"loss/value", "value/loss", "value/mean", "value/clipped"}
    for name, pair in shares.items():
        assert pair == pytest.approx(whole_shares[name], abs=1e-4), name


# -- credit -----------------------------------------------------------------------------------------------------------


def test_advantages_are_whitened_over_the_step_and_not_over_each_update():
    made, batch = ppo(), ragged_batch()
    whole = credit_of(credited(made, batch))
    halves = [torch.arange(0, 7), torch.arange(7, batch.num_sequences)]
    values_N = drawn(batch, 5)
    assert made.credit is not None
    found = made.credit([batch.select(h) for h in halves], [values_N[batch.token_index(h)] for h in halves])
    for half, credit in zip(halves, found, strict=True):
        index = batch.token_index(half)
        torch.testing.assert_close(credit.advantages_N, whole.advantages_N[index], atol=1e-6, rtol=0)
        torch.testing.assert_close(credit.returns_N, whole.returns_N[index])
    alone = credit_of(credited(made, batch.select(halves[0]), values_N=values_N[batch.token_index(halves[0])]))
    assert float((alone.advantages_N - found[0].advantages_N).abs().max()) > 1e-3


def test_credit_is_gae_of_the_scores_and_whitening_can_be_off():
    made, batch = ppo(whiten=False, gamma=0.9, lam=0.7), ragged_batch()
    credit = credit_of(credited(made, batch))
    advantages_N, returns_N = gae.gae(drawn(batch, 5), batch.scores_B.nan_to_num(), batch.lengths_B, gamma=0.9, lam=0.7)
    torch.testing.assert_close(credit.advantages_N, advantages_N)
    torch.testing.assert_close(credit.returns_N, returns_N)
    prepared = made.prepare(replace(batch, credit=credit))
    assert prepared.advantages_N is credit.advantages_N


@pytest.mark.parametrize("mask_truncated", [False, True])
def test_completions_without_a_score_and_filtered_ones_train_neither_policy_nor_values(mask_truncated: bool):
    made, batch = ppo(overlong={"mask_truncated": mask_truncated}), ragged_batch()
    prepared = made.prepare(credited(made, batch))
    out_B = batch.scores_B.isnan() | (batch.truncated_B if mask_truncated else False)
    out_N = out_B[batch.sequence_N]
    assert 0 < int(out_N.sum()) < batch.num_tokens
    assert torch.equal(prepared.batch.mask_N, ~out_N)
    assert prepared.weights_KN[:, out_N].count_nonzero() == 0
    assert prepared.weights_KN.sum(dim=1).tolist() == pytest.approx([1.0, 0.1])
    chosen = prepared.advantages_N[~out_N]
    assert chosen.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert chosen.std().item() == pytest.approx(1.0, abs=1e-5)


def test_the_metrics_of_a_value_head_are_what_they_say():
    made, batch = ppo(), ragged_batch()
    prepared = made.prepare(credited(made, batch))
    credit, mask_N = credit_of(prepared.batch), prepared.batch.mask_N
    old_N, returns_N = credit.values_N[mask_N], credit.returns_N[mask_N]
    mean = {name: total / count for name, (total, count) in prepared.shares.items()}
    assert mean["value/return"] == pytest.approx(returns_N.mean().item(), abs=1e-6)
    assert mean["value/advantage"] == pytest.approx((returns_N - old_N).mean().item(), abs=1e-6)
    assert mean["value/advantage_size"] == pytest.approx((returns_N - old_N).abs().mean().item(), abs=1e-6)
    expected = 1.0 - ((returns_N - old_N).var() / returns_N.var()).item()
    assert mean["value/explained_variance"] == pytest.approx(expected, abs=1e-5)

    values_N = credit.values_N + 0.3 * drawn(batch, 7)
    _, shares = made.loss(replace(policy(prepared.batch), values_N=values_N), prepared)
    now = {name: total / count for name, (total, count) in shares.items()}
    expected_N = gae.value_loss(values_N, credit.values_N, credit.returns_N, clip=0.2)[mask_N]
    assert now["value/loss"] == pytest.approx(expected_N.mean().item(), rel=1e-5)
    assert now["loss/value"] == pytest.approx(0.1 * expected_N.mean().item(), rel=1e-5)
    assert now["loss"] == pytest.approx(now["loss/policy"] + now["loss/value"], abs=1e-6)
    assert now["value/mean"] == pytest.approx(values_N[mask_N].mean().item(), rel=1e-4)
    assert 0.0 < now["value/clipped"] < 1.0


def test_a_step_asks_for_values_once_before_its_first_update_and_keeps_them_over_its_epochs():
    made = ppo()
    base = make_run(lambda *_: "yes", epochs=2)
    calls: list[str] = []

    class Learner(RecordingLearner):
        def values(self, batch: Batch, /) -> Tensor:
            calls.append("values")
            return torch.full((batch.num_tokens,), float(len(calls)))

        def forward_backward(self, prepared: Prepared, /):
            calls.append("update")
            return super().forward_backward(prepared)

    learner = Learner(made)
    update(replace(base, objective=made, learner=learner), groups_of(((3, 4), (5,), (2, 2), (1, 6))))
    assert calls == ["values", "values", *["update"] * 4]
    old = [float(credit_of(prepared.batch).values_N[0]) for prepared in learner.minibatches]
    assert old == [1.0, 2.0, 1.0, 2.0]


def test_a_step_without_groups_asks_for_nothing():
    made = ppo()
    learner = RecordingLearner(made)
    update(replace(make_run(lambda *_: "yes"), objective=made, learner=learner), [])
    assert learner.minibatches == []


# -- the head ---------------------------------------------------------------------------------------------------------


def with_head(model: PreTrainedModel, objective: Objective, *, seed: int | None = 3, **changed: Any) -> LocalLearner:
    """A learner whose head has weights; None leaves it at 0, as it starts."""
    learner = learner_of(model, objective, **{"value_learning_rate": 1e-2, **changed})
    if seed is not None:
        assert learner.value_head is not None
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            learner.value_head.weight.copy_(0.3 * torch.randn(learner.value_head.weight.shape, generator=generator))
            learner.value_head.bias.fill_(0.1)
    return learner


def all_gradients(learner: LocalLearner) -> dict[str, Tensor]:
    assert learner.value_head is not None
    head = {name: p.grad.clone() for name, p in learner.value_head.named.items() if p.grad is not None}
    assert len(head) == 2
    return gradient(learner.model) | head


def prepared_by(learner: LocalLearner, groups: Sequence[Group]) -> Prepared:
    made, batch = learner.objective, collate(groups)
    assert made.credit is not None
    (credit,) = made.credit([batch], [learner.values(batch)])
    return made.prepare(replace(batch, credit=credit))


@pytest.mark.parametrize("name", ["qwen2", "llama", "gpt2", "gemma3"])
def test_values_and_gradients_equal_padded_rows_through_the_model_itself(name: str):
    """The value at token n is read off the last hidden state before n, and both terms train the trunk."""
    made = ppo(entropy_coef=0.01, value={"coef": 0.5})
    learner = with_head(MODELS[name](V), made)
    assert learner.value_head is not None
    prepared = prepared_by(learner, groups_of())
    batch = prepared.batch
    # Moved off the values of the step, so that some are held and the ratio is not 1.
    credit = replace(credit_of(batch), values_N=credit_of(batch).values_N + 0.3 * drawn(batch, 7))
    prepared = replace(prepared, batch=replace(batch, credit=credit))
    seen = learner.forward_backward(prepared)
    assert 0.0 < seen.shares["value/clipped"][0] < seen.shares["value/clipped"][1]

    exact, head = copy.deepcopy(learner.model).double(), copy.deepcopy(learner.value_head).double()
    for module in (exact, head):
        module.zero_grad(set_to_none=True)
    values_N = padded_values(exact, head.weight, head.bias, batch)
    torch.testing.assert_close(learner.values(batch).double(), values_N.detach(), atol=1e-4, rtol=0)
    all_NV = spelled_out(exact, batch)
    output = PolicyOutput(
        of_tokens(all_NV, batch), -(all_NV.exp() * all_NV).sum(-1), torch.zeros(batch.num_tokens, 0), values_N=values_N
    )
    loss, shares = made.loss(output, prepared)
    loss.backward()
    assert seen.shares["loss/value"][0] == pytest.approx(shares["loss/value"][0], abs=1e-5)
    assert head.weight.grad is not None
    assert head.bias.grad is not None
    expected = gradient(exact) | {"value_head.weight": head.weight.grad, "value_head.bias": head.bias.grad}
    assert_same_gradient(all_gradients(learner), expected)


def padded_values(model: PreTrainedModel, weight_1D: Tensor, bias: Tensor, batch: Batch) -> Tensor:
    """Right-padded rows of prompt and completion through the model as it is, the head on the last hidden state."""
    rows = [
        torch.cat([torch.tensor(batch.prompt_ids[group], dtype=torch.int64), tokens])
        for group, tokens in zip(batch.group_B.tolist(), batch.tokens_N.split(batch.lengths_B.tolist()), strict=True)
    ]
    ids_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask_BT = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    hidden_BTD = model(input_ids=ids_BT, attention_mask=mask_BT, output_hidden_states=True).hidden_states[-1]
    values_BT = hidden_BTD @ weight_1D[0] + bias
    return torch.cat(
        [
            values_BT[b, len(row) - 1 - length : len(row) - 1]
            for b, (row, length) in enumerate(zip(rows, batch.lengths_B.tolist(), strict=True))
        ]
    )


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("tokens_per_piece", [1, 13, 40, 64, 100, 10_000])
def test_any_cut_in_the_learner_gives_the_same_values_and_gradients(packs: bool, tokens_per_piece: int):
    made = ppo()
    model = MODELS["qwen3"](V)
    whole = with_head(model, made)
    prepared = prepared_by(whole, groups_of())
    values_N = whole.values(prepared.batch)
    whole.forward_backward(prepared)
    expected = all_gradients(whole)
    model.zero_grad(set_to_none=True)
    cut = with_head(model, made, tokens_per_piece=tokens_per_piece)
    cut._policy.packs = packs
    torch.testing.assert_close(cut.values(prepared.batch), values_N, atol=1e-5, rtol=0)
    cut.forward_backward(prepared)
    assert_same_gradient(all_gradients(cut), expected)


def test_a_new_head_says_0_and_the_value_loss_reaches_the_trunk_as_soon_as_it_has_weights():
    made = ppo()
    fresh = with_head(MODELS["qwen2"](V), made, seed=None)
    assert fresh.values(collate(groups_of())).count_nonzero() == 0
    for seed, reaches in ((None, False), (3, True)):
        learner = with_head(MODELS["qwen2"](V), made, seed=seed)
        prepared = prepared_by(learner, groups_of())
        learner.forward_backward(replace(prepared, advantages_N=torch.zeros_like(prepared.advantages_N)))
        trunk = max(float(g.abs().max()) for g in gradient(learner.model).values())
        assert (trunk > 0.0) is reaches
        assert float(all_gradients(learner)["value_head.weight"].abs().max()) > 0.0


def test_values_learn_the_scores_of_completions():
    """Every second completion is right; after training, values tell them apart from their second token on."""
    groups = groups_of(((4, 6, 3, 5), (7, 2, 4, 3)))
    groups = [
        replace(
            g, rollouts=tuple(replace(r, score=Score(float(i % 2), float(i % 2))) for i, r in enumerate(g.rollouts))
        )
        for g in groups
    ]
    made = ppo(lam=1.0, value={"coef": 1.0, "clip": 0.2})
    learner = with_head(MODELS["qwen2"](V), made, seed=None, learning_rate=3e-3)
    shares = []
    for _ in range(40):
        prepared = prepared_by(learner, groups)
        explained, total = prepared.shares["value/explained_variance"]
        shares.append(explained / total)
        learner.forward_backward(replace(prepared, advantages_N=torch.zeros_like(prepared.advantages_N)))
        learner.step()
    assert shares[0] == 0.0
    assert shares[-1] > 0.5


def test_the_head_has_a_rate_of_its_own_that_follows_the_schedule():
    assert value_learning_rate(config()) == 1e-6
    assert value_learning_rate(config(value={"learning_rate": 1e-5})) == 1e-5
    assert value_learning_rate(RunConfig()) is None
    learner = with_head(MODELS["qwen2"](V), ppo(), learning_rate=1e-3, value_learning_rate=0.02, weight_decay=0.0)
    assert learner.value_head is not None
    before = {**weights(learner.model), "head": learner.value_head.weight.detach().clone()}
    learner.forward_backward(prepared_by(learner, groups_of()))
    assert learner.step()["learning_rate"] == 0.0005  # the first of two updates of warm-up
    # The first step of Adam is the rate, whatever the gradient.
    moved = (learner.value_head.weight - before["head"]).abs().max().item()
    assert moved == pytest.approx(0.01, rel=1e-3)
    name = "model.embed_tokens.weight"
    assert (weights(learner.model)[name] - before[name]).abs().max().item() == pytest.approx(0.0005, rel=1e-3)


def test_an_engine_is_given_the_model_without_the_head():
    learner = with_head(MODELS["qwen2"](V), ppo())
    assert learner.publish(1).weights is learner.model
    assert not any("value" in name for name, _ in learner.model.named_parameters())


# -- checkpoints ------------------------------------------------------------------------------------------------------


def train(learner: LocalLearner, updates: range) -> None:
    for seed in updates:
        learner.forward_backward(prepared_by(learner, groups_of(seed=seed)))
        learner.step()


def everything(learner: LocalLearner) -> dict[str, Tensor]:
    assert learner.value_head is not None
    return weights(learner.model) | {name: p.detach().clone() for name, p in learner.value_head.named.items()}


def test_a_restored_run_continues_bit_for_bit_with_its_head(tmp_path: Path):
    straight = with_head(MODELS["qwen2"](V), ppo(), seed=None)
    train(straight, range(3))
    stopped = with_head(MODELS["qwen2"](V), ppo(), seed=None)
    train(stopped, range(2))
    stopped.save(tmp_path)
    resumed = with_head(MODELS["qwen2"](V, seed=9), ppo(), seed=4)
    train(resumed, range(5, 6))
    resumed.restore(tmp_path)
    assert_same_weights(everything(resumed), everything(stopped))
    train(resumed, range(2, 3))
    assert_same_weights(everything(resumed), everything(straight))


def test_an_exported_model_loads_as_it_is_and_the_head_lies_with_what_resuming_needs(tmp_path: Path):
    learner = with_head(MODELS["qwen2"](V), ppo())
    train(learner, range(1))
    learner.save(tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_same_weights(weights(loaded), weights(learner.model))
    assert set(load_file(tmp_path / "resume" / "value_head.safetensors")) == {"value_head.weight", "value_head.bias"}
    assert not any("value_head" in key for key in load_file(tmp_path / "model.safetensors"))


def test_a_checkpoint_without_a_head_is_refused_where_one_is_needed(tmp_path: Path):
    without = learner_of(MODELS["qwen2"](V))
    without.save(tmp_path)
    with pytest.raises(ValueError, match=r"saved for other parameters.*such as value_head"):
        with_head(MODELS["qwen2"](V), ppo()).restore(tmp_path)


def test_a_head_goes_with_an_objective_that_needs_one():
    for objective, rate in ((ppo(), None), (None, 1e-3)):
        with pytest.raises(AssertionError, match="value head"):
            learner_of(MODELS["qwen2"](V), objective, value_learning_rate=rate)


def test_groups_of_one_are_enough():
    learner = with_head(MODELS["qwen2"](V), ppo(), seed=None)
    ones = groups_of(tuple((length,) for length in itertools.chain(*LENGTHS) if length))
    before = learner.logprobs(collate(ones))
    train_on = prepared_by(learner, ones)
    assert float(train_on.advantages_N.abs().max()) > 0.1
    learner.forward_backward(train_on)
    assert learner.step()["grad_norm"] > 0.0
    assert float((learner.logprobs(collate(ones)) - before).abs().max()) > 0.0


def test_credit_goes_to_the_device_with_its_piece():
    made = ppo()
    prepared = made.prepare(credited(made, ragged_batch()))
    credit = credit_of(local._on(torch.device("meta"), prepared).batch)
    assert {credit.values_N.device.type, credit.returns_N.device.type, credit.advantages_N.device.type} == {"meta"}
