"""The one-file example gives the library's gradients, and learns."""

from __future__ import annotations

import importlib.util
from array import array
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from burnish.batch import PolicyOutput, collate
from burnish.config import DAPO
from burnish.objective import clipped_objective
from burnish.types import Completion, Group, Prompt, Rollout, Score

PATH = Path(__file__).resolve().parents[2] / "examples" / "minimal_dapo.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("minimal_dapo", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gradients(model: torch.nn.Module, loss: Tensor) -> list[Tensor]:
    model.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def groups_of(rollouts, old_logprobs_BT: Tensor, scores_PG: Tensor) -> list[Group]:
    """The example's padded rollouts as the library's nouns."""

    def made(b: int, total: float) -> Rollout:
        mask_T = rollouts.mask_BT[b]
        completion = Completion(
            prompt_ids=array("i", rollouts.prompts[b].tolist()),
            token_ids=array("i", rollouts.completions_BT[b][mask_T].tolist()),
            logprobs=array("f", old_logprobs_BT[b][mask_T].tolist()),
            text="",
            finish_reason="stop",
            policy_version=0,
        )
        return Rollout(completion, Score(total))

    P, G = scores_PG.shape
    scores = scores_PG.tolist()
    return [Group(p, Prompt(str(p)), tuple(made(p * G + g, scores[p][g]) for g in range(G))) for p in range(P)]


def test_gradients_are_those_of_the_library_whole_and_in_pieces(example):
    torch.manual_seed(3)
    model = example.tiny_model()
    rollouts, _, _ = example.collect(model)
    scores_PG = (rollouts.right_B + example.overlong_penalty(rollouts.mask_BT)).view(-1, example.GROUP_SIZE)
    # An older policy than the one that sampled, so that every clip is reached.
    old_logprobs_BT = rollouts.old_logprobs_BT + 1.5 * torch.randn_like(rollouts.old_logprobs_BT)

    def forward() -> Tensor:
        return example.logprobs_of(model, rollouts.prompts, rollouts.completions_BT)

    minimal = example.dapo_loss(forward(), old_logprobs_BT, rollouts.mask_BT, scores_PG)
    minimal_gradients = gradients(model, minimal)

    dapo = DAPO()
    objective = clipped_objective(
        advantage=dapo.advantage,
        reduction=dapo.reduction,
        clip_low=dapo.clip_low,
        clip_high=dapo.clip_high,
        dual_clip=dapo.dual_clip,
        max_new_tokens=example.MAX_NEW_TOKENS,
    )
    prepared = objective.prepare(collate(groups_of(rollouts, old_logprobs_BT, scores_PG)))
    batch = prepared.batch
    order = torch.randperm(batch.num_sequences)
    for pieces in ([order], order.split(5)):
        logprobs_N = forward()[rollouts.mask_BT]
        assert set(objective.clip_codes(logprobs_N, prepared).tolist()) == {-1, 0, 1, 2}
        total = torch.zeros(())
        for sequences in pieces:
            piece_N = logprobs_N[batch.token_index(sequences)]
            output = PolicyOutput(piece_N, torch.zeros(len(piece_N)), torch.zeros(len(piece_N), 0))
            total = total + objective.loss(output, prepared.select(sequences))[0]
        assert total.item() == pytest.approx(minimal.item(), abs=1e-6)
        library_gradients = gradients(model, total)
        assert len(library_gradients) == len(minimal_gradients) > 20
        assert max(gradient.abs().max().item() for gradient in library_gradients) > 1e-3
        for ours, theirs in zip(library_gradients, minimal_gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_settings_of_the_example_are_the_published_ones_of_the_config(example):
    dapo = DAPO()
    assert (dapo.clip_low, dapo.clip_high, dapo.dual_clip) == (example.CLIP_LOW, example.CLIP_HIGH, example.DUAL_CLIP)


def test_dynamic_sampling_keeps_only_groups_whose_siblings_differ(example):
    torch.manual_seed(0)
    rollouts, _, rounds = example.collect(example.tiny_model())
    right_PG = rollouts.right_B.view(-1, example.GROUP_SIZE)
    assert len(right_PG) == example.PROMPTS
    assert rounds > 1
    assert (right_PG.amax(1) > right_PG.amin(1)).all()


def test_the_grader_wants_the_larger_digit_right_before_the_end(example):
    end = example.END
    prompts = torch.tensor([[3, 7, example.START]]).repeat(5, 1)
    completions_BT = torch.tensor([[7, end, 7], [3, end, 7], [1, 7, end], [7, 7, 7], [end, 7, end]])
    mask_BT = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1], [1, 0, 0]]).bool()
    assert example.grade(prompts, completions_BT, mask_BT).tolist() == [1.0, -1.0, 1.0, -1.0, -1.0]


@pytest.mark.slow
def test_running_it_raises_the_reward(example, capsys):
    history = example.train(steps=20, seed=0)
    first, last = sum(history[:3]) / 3, sum(history[-3:]) / 3
    assert last > first + 0.5
    assert capsys.readouterr().out.count("reward") == len(history)
