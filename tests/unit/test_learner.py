"""The local learner: one gradient whatever the cut, guarded updates, checkpoints that continue bit for bit."""

import copy
import json
import random
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from burnish.batch import Batch, PolicyOutput, Prepared, collate
from burnish.learner import logprobs, state
from burnish.learner.local import LocalLearner
from burnish.learner.packing import cut
from burnish.learner.schedule import make_schedule
from burnish.objective import Objective, Term, clipped_objective, group_objective, policy_terms
from burnish.protocols import Pass
from burnish.types import Completion, Group, Prompt, Rollout, Score
from tests.tiny_models import MODELS, word_tokenizer

TOKENIZER = word_tokenizer()
V = len(TOKENIZER)
LENGTHS = ((7, 1, 0, 12), (3, 3, 9, 5), (30, 2, 8, 4, 35))
PROMPTS = (5, 21, 1)


def groups_of(lengths: tuple[tuple[int, ...], ...] = LENGTHS, *, seed: int = 0) -> list[Group]:
    draw = random.Random(seed)

    def ids(n: int) -> array:
        return array("i", [draw.randrange(V) for _ in range(n)])

    def rollout(prompt: array, n: int) -> Rollout:
        logprobs = array("f", [-draw.uniform(1.0, 5.0) for _ in range(n)])
        return Rollout(Completion(prompt, ids(n), logprobs, "", "stop", 0), Score(float(draw.random() < 0.5), raw=1.0))

    prompts = [ids(PROMPTS[index % len(PROMPTS)]) for index in range(len(lengths))]
    return [
        Group(index, Prompt(str(index), text=""), tuple(rollout(prompt, n) for n in sizes))
        for index, (prompt, sizes) in enumerate(zip(prompts, lengths, strict=True))
    ]


def dapo(**changed: Any) -> Objective:
    chosen = {"advantage": "standardized", "reduction": "token_mean", "clip_low": 0.2, "clip_high": 0.28}
    return clipped_objective(**{**chosen, "dual_clip": 10.0, "max_new_tokens": 32, **changed})


def learner_of(model: PreTrainedModel, objective: Objective | None = None, **changed: Any) -> LocalLearner:
    settings: dict[str, Any] = {
        "temperature": 0.9,
        "tokens_per_piece": 4096,
        "learning_rate": 1e-2,
        "betas": (0.9, 0.99),
        "eps": 1e-8,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "schedule": make_schedule("cosine", 2, 20),
    }
    return LocalLearner(model, TOKENIZER, objective or dapo(), **{**settings, **changed})


def gradient(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


ROUNDING = 2e-6
"""Largest difference allowed in a gradient, as a share of its largest entry. In float32, `transformers` run on single
sequences is itself up to 1.5e-6 from the same gradient in double precision on these models, so a bound of 1e-6 on the
worst entry would test rounding. The whole gradient is held to 1e-6 in the Euclidean norm, per side."""


def assert_same_traces(seen: Pass, whole: Pass) -> None:
    for a, b in (
        (seen.logprobs_N, whole.logprobs_N),
        (seen.entropy_N, whole.entropy_N),
        (seen.push_N, whole.push_N),
    ):
        assert float((a - b).abs().max()) < 1e-5
    for key, pair in whole.shares.items():
        assert seen.shares[key] == pytest.approx(pair, abs=1e-4), key


def assert_same_gradient(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    assert largest > 0.0
    for name in expected:
        assert float((found[name] - expected[name]).abs().max()) <= ROUNDING * largest, name
    a, b = (torch.cat([g[name].double().flatten() for name in expected]) for g in (found, expected))
    sides = 1 if next(iter(expected.values())).dtype == torch.float64 else 2
    assert float((a - b).norm()) <= sides * 1e-6 * float(b.norm())


def weights(model: PreTrainedModel) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def spelled_out(model: PreTrainedModel, batch: Batch, *, temperature: float = 0.9) -> Tensor:
    """Log-probabilities of the whole vocabulary [N, V], each sequence by itself through `model(...)`, with a graph."""
    found = []
    for group, tokens in zip(batch.group_B.tolist(), batch.tokens_N.split(batch.lengths_B.tolist()), strict=True):
        row = torch.cat([torch.tensor(batch.prompt_ids[group], dtype=torch.int64), tokens])
        before = len(row) - len(tokens) - 1
        logits_TV = model(input_ids=row[None]).logits[0, before : before + len(tokens)]
        found.append((logits_TV / temperature).log_softmax(-1))
    return torch.cat(found)


def of_tokens(all_NV: Tensor, batch: Batch) -> Tensor:
    return all_NV.gather(1, batch.tokens_N[:, None]).squeeze(1)


# -- one gradient, whatever the cut -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "gpt_neox"])
def test_gradient_shares_and_traces_equal_autograd_on_single_sequences(name: str):
    objective = dapo(entropy_coef=0.01)
    model = MODELS[name](V)
    prepared = objective.prepare(collate(groups_of()))
    seen = learner_of(model, objective).forward_backward(prepared)
    found = gradient(model)

    exact = copy.deepcopy(model).double()
    exact.zero_grad(set_to_none=True)
    all_NV = spelled_out(exact, prepared.batch)
    logprobs_N, entropy_N = of_tokens(all_NV, prepared.batch), -(all_NV.exp() * all_NV).sum(-1)
    logprobs_N.retain_grad()
    output = PolicyOutput(logprobs_N, entropy_N, torch.zeros(len(logprobs_N), 0))
    loss, shares = objective.loss(output, prepared)
    loss.backward()
    assert_same_gradient(found, gradient(exact))
    assert float((seen.logprobs_N - logprobs_N.detach()).abs().max()) < 1e-5
    assert float((seen.entropy_N - entropy_N.detach()).abs().max()) < 1e-5
    assert logprobs_N.grad is not None
    assert float((seen.push_N + logprobs_N.grad).abs().max()) < 1e-6
    assert float(seen.push_N.abs().max()) > 1e-3
    for key, (total, count) in shares.items():
        assert seen.shares[key] == pytest.approx((total, count), abs=1e-4), key


@pytest.mark.parametrize("packs", [True, False])
def test_any_cut_gives_the_same_gradient_and_traces(packs: bool):
    objective = dapo(entropy_coef=0.01)
    model = MODELS["qwen3"](V)
    prepared = objective.prepare(collate(groups_of()))
    whole = learner_of(model, objective).forward_backward(prepared)
    expected = gradient(model)
    for tokens_per_piece in (1, 13, 30, 40, 64, 100, 10_000):
        model.zero_grad(set_to_none=True)
        learner = learner_of(model, objective, tokens_per_piece=tokens_per_piece)
        learner._policy.packs = packs
        seen = learner.forward_backward(prepared)
        assert_same_gradient(gradient(model), expected)
        assert_same_traces(seen, whole)


@pytest.mark.parametrize("rows", [1, 12, 40, 64])
@pytest.mark.parametrize("tied", [True, False])
def test_any_cut_of_the_head_gives_the_same_gradient_and_traces(rows: int, tied: bool, monkeypatch: pytest.MonkeyPatch):
    """Also where the loss of a token depends on all tokens of its sequence."""
    surrogate = policy_terms.clipped(clip_low=0.2, clip_high=0.28, dual_clip=None, ratio="sequence_mean")
    settings = {"advantage": "standardized", "reduction": "token_mean", "max_new_tokens": 32, "entropy_coef": 0.01}
    objective = group_objective(surrogate, **settings)
    model = MODELS["qwen2"](V, tie_word_embeddings=tied)
    prepared = objective.prepare(collate(groups_of()))
    whole = learner_of(model, objective).forward_backward(prepared)
    expected = gradient(model)
    model.zero_grad(set_to_none=True)
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", rows * V)
    monkeypatch.setattr(logprobs, "MIN_ROWS", 1)
    seen = learner_of(model, objective, tokens_per_piece=100).forward_backward(prepared)
    assert_same_gradient(gradient(model), expected)
    assert_same_traces(seen, whole)


def test_a_run_makes_its_logits_once_and_a_sequence_over_a_chunk_twice(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", 12 * V)
    monkeypatch.setattr(logprobs, "MIN_ROWS", 1)
    learner, made = learner_of(MODELS["qwen2"](V)), list[int]()
    through = logprobs._product
    monkeypatch.setattr(logprobs, "_product", lambda a, b: made.append(b.shape[1]) or through(a, b))
    learner.forward_backward(dapo().prepare(collate(groups_of(((7, 1, 0, 12), (3, 3, 9, 5))))))
    assert made.count(V) == 4  # 12, 9 3, 7 5, 3 1 0
    made.clear()
    learner.forward_backward(dapo().prepare(collate(groups_of(((20, 5),)))))
    assert made.count(V) == 2 * 2 + 1


@pytest.mark.parametrize("frozen", ["lm_head", "model"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_gets_its_own(frozen: str):
    model = MODELS["qwen2"](V, tie_word_embeddings=False)
    prepared = dapo().prepare(collate(groups_of()))
    learner_of(model).forward_backward(prepared)
    expected = {name: g for name, g in gradient(model).items() if not name.startswith(f"{frozen}.")}
    model.zero_grad(set_to_none=True)
    model.get_submodule(frozen).requires_grad_(False)
    learner_of(model).forward_backward(prepared)
    assert_same_gradient(gradient(model), expected)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_order_of_sequences_changes_nothing(seed: int):
    objective = dapo()
    model = MODELS["qwen2"](V)
    prepared = objective.prepare(collate(groups_of()))
    whole = learner_of(model, objective).forward_backward(prepared)
    expected = gradient(model)
    model.zero_grad(set_to_none=True)
    order = torch.randperm(prepared.batch.num_sequences, generator=torch.Generator().manual_seed(seed))
    seen = learner_of(model, objective, tokens_per_piece=45).forward_backward(prepared.select(order))
    assert_same_gradient(gradient(model), expected)
    index = prepared.batch.token_index(order)
    assert float((seen.logprobs_N - whole.logprobs_N[index]).abs().max()) < 1e-5
    assert float((seen.push_N - whole.push_N[index]).abs().max()) < 1e-6


def test_logprobs_come_in_batch_order_and_without_a_graph():
    model = MODELS["llama"](V)
    batch = collate(groups_of()).select(torch.tensor([5, 0, 11, 3, 8, 7]))
    expected_N = of_tokens(spelled_out(model, batch), batch)
    for tokens_per_piece in (1, 40, 4096):
        found_N = learner_of(model, tokens_per_piece=tokens_per_piece).logprobs(batch)
        assert not found_N.requires_grad
        assert float((found_N - expected_N.detach()).abs().max()) < 1e-5
    assert gradient(model) == {}


def test_push_is_minus_the_weight_where_the_loss_is_minus_the_log_probability():
    weights_N = torch.linspace(0.5, 2.0, 13)
    term = Term("policy", lambda batch: weights_N, lambda output, prepared: -3.0 * output.logprobs_N)
    objective = Objective(advantage=lambda batch, current_N: current_N, terms=(term,))
    prepared = objective.prepare(collate(groups_of(((7, 0, 1, 5),))))
    seen = learner_of(MODELS["qwen2"](V), objective, tokens_per_piece=8).forward_backward(prepared)
    torch.testing.assert_close(seen.push_N, 3.0 * weights_N)


def test_tracked_ids_reach_the_objective_and_train():
    tracked = (11, 12)

    def spread(output: PolicyOutput, _: Prepared) -> Tensor:
        return output.tracked_NJ[:, 0].exp() - 2.0 * output.tracked_NJ[:, 1]

    term = Term("tags", lambda batch: torch.ones(batch.num_tokens), spread)
    objective = Objective(advantage=lambda batch, current_N: current_N, terms=(term,), tracked_ids=tracked)
    prepared = objective.prepare(collate(groups_of()))
    model = MODELS["qwen2"](V)
    seen = learner_of(model, objective, tokens_per_piece=50).forward_backward(prepared)
    found = gradient(model)
    assert float(seen.push_N.abs().max()) == 0.0

    model.zero_grad(set_to_none=True)
    all_NV = spelled_out(model, prepared.batch)
    loss = (all_NV[:, 11].exp() - 2.0 * all_NV[:, 12]).sum()
    loss.backward()
    assert seen.shares["loss"][0] == pytest.approx(float(loss.detach()), rel=1e-5)
    assert_same_gradient(found, gradient(model))


def test_the_reference_is_read_and_stays_as_it_is():
    objective = dapo(kl_coef=0.1)
    model = MODELS["qwen2"](V)
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(0.9)
    before = weights(reference)
    prepared = objective.prepare(collate(groups_of()))
    ours_N, theirs_N = (of_tokens(spelled_out(m, prepared.batch), prepared.batch) for m in (model, reference))
    gap_N = (theirs_N - ours_N).detach()
    learner = learner_of(model, objective, reference=reference, tokens_per_piece=50)
    seen = learner.forward_backward(prepared)
    learner.step()
    assert seen.shares["kl/ref"][0] == pytest.approx(float((gap_N.exp() - 1.0 - gap_N).sum()), rel=1e-4)
    assert_same_weights(weights(reference), before)
    assert all(p.grad is None for p in reference.parameters())


# -- edges ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", [((0, 0),), ((0, 0), (0, 4)), ((1, 1), (0, 1))])
@pytest.mark.parametrize("packs", [True, False])
def test_empty_and_single_token_completions_work(lengths: tuple[tuple[int, ...], ...], packs: bool):
    model = MODELS["qwen2"](V)
    prepared = dapo().prepare(collate(groups_of(lengths)))
    learner = learner_of(model)
    learner._policy.packs = packs
    seen = learner.forward_backward(prepared)
    expected_N = of_tokens(spelled_out(model, prepared.batch), prepared.batch)
    assert seen.logprobs_N.shape == (sum(map(sum, lengths)),)
    torch.testing.assert_close(seen.logprobs_N, expected_N.detach(), rtol=0, atol=1e-5)
    assert learner.step()["update/skipped"] == 0.0


def test_a_batch_with_everything_masked_moves_nothing():
    model = MODELS["qwen2"](V)
    batch = collate(groups_of())
    prepared = dapo().prepare(replace(batch, mask_N=torch.zeros_like(batch.mask_N)))
    learner = learner_of(model, weight_decay=0.0, tokens_per_piece=40)
    before = weights(model)
    seen = learner.forward_backward(prepared)
    assert seen.shares["loss"][0] == 0.0
    assert float(seen.push_N.abs().max()) == 0.0
    assert learner.step()["grad_norm"] == 0.0
    assert_same_weights(weights(model), before)


def test_gradient_checkpointing_gives_the_same_gradient_and_leaves_no_trace():
    model = MODELS["qwen3"](V)
    prepared = dapo().prepare(collate(groups_of()))
    learner_of(model).forward_backward(prepared)
    expected = gradient(model)
    model.zero_grad(set_to_none=True)
    learner = learner_of(model, gradient_checkpointing=True, tokens_per_piece=60)
    pieces = len(cut(prepared.batch, 60))
    calls: list[int] = []
    handle = model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    learner.forward_backward(prepared)
    handle.remove()
    assert_same_gradient(gradient(model), expected)
    assert len(calls) == 2 * pieces > 2
    assert not any(module.training for module in model.modules())


def test_bf16_is_close_to_float32_and_keeps_float32_weights():
    model = MODELS["qwen2"](V)
    prepared = dapo().prepare(collate(groups_of()))
    exact = learner_of(model).forward_backward(prepared)
    expected = gradient(model)
    model.zero_grad(set_to_none=True)
    learner = learner_of(model, bf16=True)
    rounded = learner.forward_backward(prepared)
    assert 0.0 < float((rounded.logprobs_N - exact.logprobs_N).abs().max()) < 0.15
    assert rounded.logprobs_N.dtype == torch.float32
    a, b = (torch.cat([g.flatten() for g in found.values()]) for found in (gradient(model), expected))
    assert float(torch.nn.functional.cosine_similarity(a, b, dim=0)) > 0.99
    learner.step()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_weights_in_fewer_bits_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"torch.bfloat16.*dtype=torch.float32"):
        learner_of(MODELS["qwen2"](V).bfloat16())


# -- updates ----------------------------------------------------------------------------------------------------------


def test_a_step_is_clipped_adamw_without_decay_on_vectors():
    model = MODELS["qwen2"](V)
    twin = copy.deepcopy(model)
    learner = learner_of(model, max_grad_norm=0.01, schedule=make_schedule("constant", 4, 10))
    learner.forward_backward(dapo().prepare(collate(groups_of())))
    slopes = gradient(model)
    norm = float(torch.stack([g.double().square().sum() for g in slopes.values()]).sum().sqrt())
    metrics = learner.step()
    assert metrics == {
        "grad_norm": pytest.approx(norm, rel=1e-5),
        "learning_rate": 0.0025,
        "update/skipped": 0.0,
        "weights/checksum": state.checksum(model.parameters()),
    }
    assert norm > 0.01
    for (name, after), before in zip(model.named_parameters(), twin.parameters(), strict=True):
        slope = slopes[name] * (0.01 / norm)
        decay = 0.1 if before.dim() > 1 else 0.0
        # The first step of Adam is the sign of the gradient, softened by eps.
        expected = before * (1.0 - 0.0025 * decay) - 0.0025 * slope / (slope.abs() + 1e-8)
        assert float((after - expected).detach().abs().max()) < 1e-6, name
    assert all(p.grad is None for p in model.parameters())


def test_the_rate_follows_updates():
    learner = learner_of(MODELS["qwen2"](V), learning_rate=1.0, schedule=make_schedule("linear", 2, 4))
    assert [learner.step()["learning_rate"] for _ in range(4)] == [0.5, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_no_bit(poison: float):
    model = MODELS["qwen2"](V)
    learner = learner_of(model)
    prepared = dapo().prepare(collate(groups_of()))
    learner.forward_backward(prepared)
    learner.step()
    before = weights(model)
    moments = copy.deepcopy(learner._optimizer.state_dict()["state"])
    learner.forward_backward(replace(prepared, weights_KN=prepared.weights_KN * poison))
    metrics = learner.step()
    assert metrics["update/skipped"] == 1.0
    assert_same_weights(weights(model), before)
    for index, kept in moments.items():
        assert all(torch.equal(kept[key], learner._optimizer.state_dict()["state"][index][key]) for key in kept)
    assert all(p.grad is None for p in model.parameters())
    learner.forward_backward(prepared)
    assert learner.step()["update/skipped"] == 0.0


def test_an_update_raises_the_likelihood_of_what_was_rewarded():
    groups = groups_of(((6, 6, 6, 6),))
    rewarded = [replace(r, score=Score(float(i == 0))) for i, r in enumerate(groups[0].rollouts)]
    batch = collate([replace(groups[0], rollouts=tuple(rewarded))])
    learner = learner_of(MODELS["qwen2"](V), learning_rate=1e-3)
    before_N = learner.logprobs(batch)
    batch = replace(batch, old_logprobs_N=before_N)
    learner.forward_backward(dapo().prepare(batch))
    learner.step()
    gained_N = learner.logprobs(batch) - before_N
    assert float(gained_N[:6].sum()) > 0.0 > float(gained_N[6:].sum())


def test_published_weights_are_the_model_itself():
    model = MODELS["qwen2"](V)
    publication = learner_of(model).publish(7)
    assert publication.version == 7
    assert publication.weights is model


# -- checkpoints ------------------------------------------------------------------------------------------------------


def train(learner: LocalLearner, updates: range) -> None:
    for update in updates:
        learner.forward_backward(learner.objective.prepare(collate(groups_of(seed=update))))
        learner.step()


@pytest.mark.parametrize("tied", [True, False])
def test_a_restored_run_continues_bit_for_bit(tmp_path: Path, tied: bool):
    straight = MODELS["qwen2"](V, tie_word_embeddings=tied)
    train(learner_of(straight), range(3))

    stopped = learner_of(MODELS["qwen2"](V, tie_word_embeddings=tied))
    train(stopped, range(2))
    stopped.save(tmp_path)
    other = MODELS["qwen2"](V, seed=9, tie_word_embeddings=tied)
    resumed = learner_of(other)
    train(resumed, range(5, 6))
    resumed.restore(tmp_path)
    assert resumed.updates == 2
    train(resumed, range(2, 3))
    assert_same_weights(weights(other), weights(straight))


@pytest.mark.parametrize("tied", [True, False])
def test_a_checkpoint_loads_as_it_is_and_generates(tmp_path: Path, tied: bool):
    model = MODELS["qwen2"](V, tie_word_embeddings=tied)
    learner = learner_of(model)
    train(learner, range(1))
    learner.save(tmp_path)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("3+5=", return_tensors="pt").input_ids
    assert ids.tolist()[0] == TOKENIZER("3+5=").input_ids
    out = loaded.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert out.shape[1] <= ids.shape[1] + 4
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)


def test_a_checkpoint_is_safetensors_and_json_only(tmp_path: Path):
    learner = learner_of(MODELS["qwen2"](V))
    train(learner, range(1))
    learner.save(tmp_path)
    kinds = {path.suffix for path in tmp_path.rglob("*") if path.is_file()}
    assert kinds <= {".safetensors", ".json", ".jinja", ".txt", ".md"}
    written = json.loads((tmp_path / "resume" / "learner.json").read_text())
    assert written["updates"] == 1
    assert written["settings"]["betas"] == [0.9, 0.99]
    moments = load_file(tmp_path / "resume" / "optimizer.safetensors")
    assert len(moments) == 3 * len(written["parameters"])
    assert float(moments["model.norm.weight.exp_avg"].abs().max()) > 0.0


def test_a_checkpoint_of_another_model_is_refused_before_anything_changes(tmp_path: Path):
    saved = learner_of(MODELS["qwen2"](V))
    train(saved, range(1))
    saved.save(tmp_path)
    other = MODELS["llama"](V)
    before = weights(other)
    with pytest.raises(ValueError, match=r"saved for other parameters.*Resume with the model"):
        learner_of(other).restore(tmp_path)
    assert_same_weights(weights(other), before)


def test_a_prepared_batch_is_not_changed():
    prepared: Prepared = dapo().prepare(collate(groups_of()))
    before = copy.deepcopy(prepared)
    learner_of(MODELS["qwen2"](V), tokens_per_piece=30).forward_backward(prepared)
    assert torch.equal(before.weights_KN, prepared.weights_KN)
    assert torch.equal(before.batch.tokens_N, prepared.batch.tokens_N)


def test_the_checksum_of_weights_tells_one_bit_and_two_tensors_that_are_swapped():
    a, b = torch.randn(7, 3), torch.randn(5)
    before = state.checksum([a, b])
    assert 0 <= before < 2**53
    assert state.checksum([a.clone(), b.clone()]) == before
    assert state.checksum([b, a]) != before
    for position in range(21):
        changed = a.clone()
        changed.view(torch.int32).view(-1)[position] ^= 1 << position
        assert state.checksum([changed, b]) != before
