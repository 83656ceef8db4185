"""Numbers that go wrong: what is not finite changes nothing, what is alike teaches nothing, what overflows is held."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from burnish.algorithms import advantages, surrogates
from burnish.batch import Batch, Prepared, collate
from burnish.build.objective import make_objective
from burnish.errors import TrainingError
from burnish.learner.local import LocalLearner
from burnish.objective import Objective
from burnish.overrides import load_config
from burnish.prompts.filters import ConstantGroups
from burnish.protocols import Pass
from burnish.records import Event
from burnish.rollout.scripted import Scripted, ScriptedEngine
from burnish.store import queries
from burnish.train import ExhaustedError, Run, train
from burnish.types import Completion, Group, Metrics, Prompt, Rollout, Score
from burnish.watch import RULES, Rule, past_threshold
from tests.e2e.conftest import TINY_STEPS, Command, read_rows, write_rows
from tests.fakes import make_run
from tests.tiny_models import MODELS
from tests.unit.test_learner import V, dapo, gradient, groups_of, learner_of, weights

NAN, INF = math.nan, math.inf
ModelDir = Callable[[str], Path]

# -- groups without variance -------------------------------------------------------------------------------------------

CONSTANTS = [k * 0.01 for k in range(-500, 501)]
ADVANTAGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "standardized": advantages.standardized,
    "centered": advantages.centered,
    "batch_scaled": advantages.batch_scaled,
    "leave_one_out": advantages.leave_one_out,
    "best_of_group": advantages.best_of_group,
    "whitened": lambda scores_B, group_B: advantages.whitened(scores_B, group_B, mean=0.1, std=0.5),
    "length_weighted": lambda scores_B, group_B: advantages.length_weighted(
        scores_B, group_B, torch.arange(len(scores_B)) % 7 + 1
    ),
}


@pytest.mark.reliability(13)
@pytest.mark.parametrize("name", ADVANTAGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_advantage_of_a_constant_group_is_exactly_zero(name: str, dtype: torch.dtype) -> None:
    for size in range(2, 33):
        scores_B = torch.tensor(CONSTANTS, dtype=dtype).repeat_interleave(size)
        group_B = torch.arange(len(CONSTANTS)).repeat_interleave(size)
        assert torch.equal(ADVANTAGES[name](scores_B, group_B), torch.zeros(len(scores_B))), size


@pytest.mark.reliability(13)
def test_a_group_with_a_range_from_a_millionth_on_keeps_its_advantage() -> None:
    for dtype, size in product((torch.float32, torch.float64), (2, 8, 32)):
        scores_PG = torch.tensor(CONSTANTS, dtype=dtype).repeat(size, 1).T.contiguous()
        scores_PG[:, 0] += 1.2e-6
        differs_P = (scores_PG[:, 0] - scores_PG[:, 1]).double() >= 1e-6
        assert differs_P.sum() > 500
        group_B = torch.arange(len(CONSTANTS)).repeat_interleave(size)
        found_PG = advantages.centered(scores_PG.flatten(), group_B).unflatten(0, (-1, size))
        assert (found_PG[differs_P, 0] > 0.0).all()


@pytest.mark.reliability(13)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_filter_drops_every_constant_group_and_no_other(dtype: torch.dtype) -> None:
    admit = ConstantGroups()
    lows = torch.tensor(CONSTANTS, dtype=dtype)
    for low, above in zip(lows.tolist(), (lows + 1.001e-6).tolist(), strict=True):
        assert admit(_scored([low] * 2)) == admit(_scored([low] * 32)) == "all_right"
        if above - low >= 1e-6:
            assert admit(_scored([low, above])) == admit(_scored([above] * 31 + [low])) == "admitted"


def _scored(raw: Sequence[float]) -> Group:
    return Group(0, Prompt("p", text="p"), tuple(Rollout(NOTHING, Score(value, value)) for value in raw))


NOTHING = groups_of(((0,),))[0].rollouts[0].completion

# -- ratios that overflow ----------------------------------------------------------------------------------------------

LOG_RATIOS = [sign * size for sign in (1, -1) for size in (5.0, 11.0, 20.0, 60.0, 89.0, 200.0)]
CLIP = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0}


@pytest.mark.reliability(28)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("log_ratio", "advantage"), [*product(LOG_RATIOS, (-1.0, 1.0))])
def test_a_ratio_that_overflows_is_held(log_ratio: float, advantage: float, dtype: torch.dtype) -> None:
    old_N = torch.tensor([-abs(log_ratio) - 1.0], dtype=dtype)
    new_N = (old_N.float() + log_ratio).to(dtype).requires_grad_()
    found = surrogates.clipped(new_N, old_N, torch.tensor([advantage]), **CLIP)
    (slope,) = torch.autograd.grad(found.sum(), new_N)
    assert found.isfinite().all()
    assert slope.isfinite().all()
    code = surrogates.clip_codes(new_N, old_N, torch.tensor([advantage]), **CLIP)
    ratio = math.exp(max(-20.0, min(20.0, float(new_N.detach().double() - old_N.double()))))
    held = {-1: 0.8, 0: ratio, 1: 1.28, 2: 10.0}[int(code)]
    assert float(found.detach()) == pytest.approx(-advantage * held, rel=1e-6)
    inside = int(code) == 0 and abs(log_ratio) < 20.0
    expected = torch.tensor([-advantage * ratio if inside else 0.0]).to(dtype)
    if abs(log_ratio) != 20.0:  # at the very edge the clamp passes or stops it, and either is right
        assert float(slope) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.reliability(28)
@pytest.mark.parametrize(("log_ratio", "dtype"), [*product(LOG_RATIOS, (torch.float32, torch.bfloat16))])
def test_no_surrogate_overflows(log_ratio: float, dtype: torch.dtype) -> None:
    old_N = torch.full((2,), -abs(log_ratio) - 1.0, dtype=dtype)
    new_N = (old_N.float() + log_ratio).to(dtype).requires_grad_()
    advantage_N, mask_N = torch.tensor([1.0, -1.0]), torch.ones(2, dtype=torch.bool)
    sequence_N = torch.zeros(2, dtype=torch.int64)
    for loss_N in (
        surrogates.clipped(new_N, old_N, advantage_N, clip_low=0.2, clip_high=0.2),
        surrogates.capped(new_N, old_N, advantage_N, low=None, high=5.0),
        surrogates.gated(new_N, old_N, advantage_N, tau_positive=1.0, tau_negative=1.05),
        surrogates.geometric(new_N, old_N, advantage_N, mask_N, sequence_N, num_sequences=1, log_low=0.4, log_high=0.4),
    ):
        (slope_N,) = torch.autograd.grad(loss_N.sum(), new_N)
        assert loss_N.isfinite().all()
        assert slope_N.isfinite().all()


# -- masked, truncated, empty ------------------------------------------------------------------------------------------

METHODS = ("dapo", "grpo", "dr_grpo", "lite_ppo", "gspo", "rloo", "reinforce_pp", "cispo", "sapo", "gmpo", "adpo")
REDUCTIONS = ("token_mean", "prompt_mean", "sequence_mean", "fixed_length")
LENGTHS = ((7, 1, 0, 12), (3, 3, 9, 5))


def objectives() -> dict[str, Objective]:
    """Every method as published, and every reduction."""
    found = {name: _objective(f"objective.name={name}", "objective.overlong.mask_truncated=true") for name in METHODS}
    return found | {f"dapo-{name}": dapo(reduction=name, mask_truncated=True) for name in REDUCTIONS}


def _objective(*words: str) -> Objective:
    return make_objective(load_config(["sampling.max_new_tokens=32", *words]), vocab_size=V)


OBJECTIVES = objectives()


def cut_off(groups: Sequence[Group], which: Callable[[int, int], bool]) -> list[Group]:
    """The groups with those (group, sibling) cut at the length limit."""
    return [
        replace(
            group,
            rollouts=tuple(
                replace(r, completion=replace(r.completion, finish_reason="length" if which(g, i) else "stop"))
                for i, r in enumerate(group.rollouts)
            ),
        )
        for g, group in enumerate(groups)
    ]


def prepare(objective: Objective, batch: Batch) -> Prepared:
    return objective.prepare(batch, batch.old_logprobs_N - 0.1)


BATCHES: dict[str, Callable[[], Batch]] = {
    "all masked": lambda: (lambda b: replace(b, mask_N=torch.zeros_like(b.mask_N)))(collate(groups_of(LENGTHS))),
    "all truncated": lambda: collate(cut_off(groups_of(LENGTHS), lambda *_: True)),
    "all empty": lambda: collate(groups_of(((0, 0, 0), (0, 0)))),
    "impossible tokens": lambda: (
        lambda b: replace(b, mask_N=torch.zeros_like(b.mask_N), old_logprobs_N=torch.full_like(b.old_logprobs_N, -INF))
    )(collate(groups_of(LENGTHS))),
}


@pytest.mark.reliability(27)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("kind", BATCHES)
def test_where_nothing_trains_loss_and_gradient_are_exactly_zero(objective: str, kind: str) -> None:
    model = MODELS["qwen2"](V)
    prepared = prepare(OBJECTIVES[objective], BATCHES[kind]())
    assert not prepared.trains
    seen = learner_of(model, OBJECTIVES[objective]).forward_backward(prepared)
    assert seen.shares["loss"][0] == 0.0
    assert all(not g.any() for g in gradient(model).values())
    assert all(math.isfinite(value) for share in seen.shares.values() for value in share)


@pytest.mark.reliability(27)
@pytest.mark.parametrize("objective", [name for name in OBJECTIVES if name != "adpo"])
def test_masked_completions_weigh_as_if_they_had_said_nothing(objective: str) -> None:
    """Their scores count in their groups either way. (ADPO reads whole completions to compare siblings.)"""
    masked = cut_off(groups_of(LENGTHS), lambda group, sibling: (group, sibling) in {(0, 0), (1, 2)})
    emptied = [replace(group, rollouts=tuple(map(_said_nothing_if_cut, group.rollouts))) for group in masked]
    with_masked, with_emptied = (
        _gradient_of(OBJECTIVES[objective], replace(collate(groups), spread=collate(masked).spread))
        for groups in (masked, emptied)
    )
    assert max(float(g.abs().max()) for g in with_masked.values()) > 1e-3
    for name, slope in with_masked.items():
        torch.testing.assert_close(slope, with_emptied[name], rtol=0.0, atol=1e-6)


def _gradient_of(objective: Objective, batch: Batch) -> dict[str, Tensor]:
    model = MODELS["qwen2"](V)
    learner_of(model, objective).forward_backward(prepare(objective, batch))
    return gradient(model)


def _said_nothing_if_cut(rollout: Rollout) -> Rollout:
    said = rollout.completion
    if said.finish_reason == "stop":
        return rollout
    empty = Completion(said.prompt_ids, said.token_ids[:0], said.logprobs[:0], "", "length", said.policy_version)
    return replace(rollout, completion=empty)


@pytest.mark.reliability(27)
def test_an_update_that_would_train_nothing_is_left_out_and_said() -> None:
    run = make_run(lambda prompt, sample, seed: "yes" if sample % 2 else "no")
    run = replace(run, objective=replace(run.objective, trains=lambda batch: torch.zeros_like(batch.lengths_B).bool()))
    train(run)
    assert run.learner.steps == run.progress.updates == 0
    assert [event.kind for event in run.store.events] == ["nothing_trains"] * 2
    assert run.store.events[0].message == (
        "step 1: an update was left out: no token of its 4 completions trains "
        "(0 are cut at the length limit, 0 are empty)"
    )
    (record,) = run.store.steps
    assert record.num_updates == 0
    assert record.metrics["tokens/trained"] == 0.0


@pytest.mark.reliability(27)
def test_a_length_of_one_trains_and_a_length_of_none_keeps_its_place() -> None:
    """A first token that ends the completion is a valid sample; an engine that returns none at all breaks nothing."""
    batch = collate(groups_of(((1, 0, 3),)))
    prepared = prepare(dapo(), batch)
    assert prepared.batch.lengths_B.tolist() == [1, 0, 3]
    assert len(prepared.advantages_N) == prepared.num_trained == 4
    assert advantages.centered(batch.scores_B, batch.group_B).isfinite().all()


# -- numbers that are not finite ---------------------------------------------------------------------------------------

VOCABULARY = 128
"""The scripted engine's tokens are ASCII."""

Spoil = Callable[[LocalLearner, Prepared], Pass]
"""A pass in which something is spoilt."""


def half_right(prompt: Prompt, sample: int, seed: int) -> str:
    return "yes" if sample % 2 else "no"


def run_of(
    *,
    spoil: Spoil = LocalLearner.forward_backward,
    objective: Objective | None = None,
    at: Sequence[int] = (),
    **plan: Any,
) -> tuple[Run, list[dict[str, Tensor]]]:
    """A run of steps of two updates, and what the learner held before each. The passes `at`, from 0, are spoilt."""
    run = make_run(half_right, **plan)
    run = run if objective is None else replace(run, objective=objective)
    learner = learner_of(MODELS["qwen2"](VOCABULARY), run.objective)
    held: list[dict[str, Tensor]] = []

    def forward_backward(prepared: Prepared) -> Pass:
        seen = (spoil if len(held) in at else LocalLearner.forward_backward)(learner, prepared)
        held.append(state_of(learner))
        return seen

    learner.forward_backward = forward_backward
    return replace(run, learner=learner), held


def state_of(learner: LocalLearner) -> dict[str, Tensor]:
    """Weights, moments and the place in the schedule, copied."""
    optimizer = learner._optimizer.state_dict()["state"]
    moments = {f"{index}.{key}": value.clone() for index, kept in optimizer.items() for key, value in kept.items()}
    return weights(learner.model) | moments | {"updates": torch.tensor(learner.updates)}


def spoil_a_logit(learner: LocalLearner, prepared: Prepared) -> Pass:
    """Of the second token of the first completion: rows of the two prompts, of two tokens each, come before."""

    def spoilt(module: torch.nn.Module, args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state.clone()
        hidden[0, 4, 0] = NAN
        output.last_hidden_state = hidden
        return output

    handle = learner.model.get_decoder().register_forward_hook(spoilt)
    try:
        return LocalLearner.forward_backward(learner, prepared)
    finally:
        handle.remove()


def spoilt_objective(what: str, at: Sequence[int]) -> Objective:
    """The objective of `make_run`, with the first token's number spoilt in the updates `at`."""
    fine, calls = make_run(half_right).objective, itertools.count()
    (term,) = fine.terms

    def advantage(batch: Batch, current_N: Tensor) -> Tensor:
        return with_first(fine.advantage(batch, current_N), INF)

    def weigh(batch: Batch) -> Tensor:
        return with_first(term.weights(batch), NAN)

    def prepare(batch: Batch, current_N: Tensor) -> Tensor:
        return (advantage if next(calls) in at else fine.advantage)(batch, current_N)

    if what == "advantage":
        return replace(fine, advantage=prepare)
    turn = itertools.count()
    weights_of = lambda batch: (weigh if next(turn) in at else term.weights)(batch)  # noqa: E731
    return replace(fine, terms=(replace(term, weights=weights_of),))


def with_first(values_N: Tensor, value: float) -> Tensor:
    return torch.cat([torch.tensor([value]), values_N[1:]])


def spoil_a_gradient(name: str, value: float) -> Spoil:
    def spoil(learner: LocalLearner, prepared: Prepared) -> Pass:
        seen = LocalLearner.forward_backward(learner, prepared)
        slope = dict(learner.model.named_parameters())[name].grad
        assert slope is not None
        slope.view(-1)[0] = value
        return seen

    return spoil


def assert_nothing_was_updated(run: Run, held: Sequence[dict[str, Tensor]]) -> Event:
    """The second of two updates was left out; what was said of it."""
    after = state_of(run.learner)
    assert after.keys() == held[1].keys()
    assert [name for name in after if not torch.equal(after[name], held[1][name])] == []
    assert run.progress.updates == run.learner.updates == 1
    (record,) = run.store.steps
    assert record.num_updates == 1
    assert record.metrics["update/skipped"] == 1.0
    (event,) = [event for event in run.store.events if event.kind == "not_finite"]
    assert event.severity == 3
    return event


SPOILT: dict[str, dict[str, Any]] = {
    "logit": {"spoil": spoil_a_logit},
    "advantage": {"objective": spoilt_objective("advantage", [1])},
    "weight": {"objective": spoilt_objective("weight", [1])},
}


@pytest.mark.reliability(14)
@pytest.mark.parametrize("what", [*SPOILT, "log-probability of the engine"])
def test_one_spoilt_token_changes_no_bit_and_its_completion_is_named(what: str) -> None:
    run, held = run_of(**SPOILT.get(what, {}), at=[1])
    if what not in SPOILT:
        run = replace(run, engine=ScriptedEngine(half_right_and_one_impossible))
    train(run)
    event = assert_nothing_was_updated(run, held)
    group = run.store.steps[0].judged[2].group  # the second mini-batch begins with the third group
    assert event.data is not None
    assert event.data["rollouts"] == [{"prompt": group.prompt.id, "group": group.id, "sibling": 0}]
    assert "the loss" in event.data["tensors"]
    assert event.message.startswith("step 1: an update was left out, for the loss")
    assert event.message.endswith(
        f" hold numbers that are not finite; so do the numbers of completion 0 of prompt {group.prompt.id}"
    )


def half_right_and_one_impossible(prompt: Prompt, sample: int, seed: int) -> Scripted:
    text = half_right(prompt, sample, seed)
    first = NAN if (prompt.id, sample) == ("q2", 0) else -1.0
    return Scripted(text, logprobs=[first] + [-1.0] * len(text))


@pytest.mark.reliability(14)
@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e38])
def test_each_spoilt_gradient_changes_no_bit_and_is_named(value: float) -> None:
    names = [name for name, _ in MODELS["qwen2"](VOCABULARY).named_parameters()]
    for name in names:
        run, held = run_of(spoil=spoil_a_gradient(name, value), at=[1])
        train(run)
        event = assert_nothing_was_updated(run, held)
        assert event.data == {"tensors": [f"the gradient of {name}"], "rollouts": []}
        assert event.message == (
            f"step 1: an update was left out, for the gradient of {name} hold numbers that are not finite; "
            "no completion stands out"
        )


@pytest.mark.reliability(14)
def test_three_in_a_row_end_the_run_and_fewer_do_not() -> None:
    run, _ = run_of(spoil=spoil_a_logit, at=[1, 2, 4, 5], steps=4)
    train(run)
    assert run.progress.updates == 4
    run, held = run_of(spoil=spoil_a_logit, at=[1, 2, 3], steps=4)
    with pytest.raises(TrainingError, match=r"^3 updates in a row were left out: step 2: an update was left out, for "):
        train(run)
    after = state_of(run.learner)
    assert all(torch.equal(after[name], held[1][name]) for name in after)


@pytest.mark.reliability(14)
@pytest.mark.slow
def test_a_run_that_goes_bad_ends_with_its_last_good_checkpoint_and_goes_on_from_there(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", *TINY_STEPS, "train.steps=4", "checkpoint.every=1"]
    words += [f"model.path={model_dir('llama')}", f"data.train={sums}"]
    whole, bad = tmp_path / "whole", tmp_path / "bad"
    assert burnish(*words, f"out={whole}").code == 0
    with monkeypatch.context() as patched:
        fine, calls = LocalLearner.forward_backward, []

        def spoilt_from_the_last_update_of_step_2(learner: LocalLearner, prepared: Prepared) -> Pass:
            calls.append(1)
            spoilt = with_first(prepared.advantages_N, NAN)
            return fine(learner, replace(prepared, advantages_N=spoilt) if len(calls) >= 4 else prepared)

        patched.setattr(LocalLearner, "forward_backward", spoilt_from_the_last_update_of_step_2)
        ended = burnish(*words, f"out={bad}")
    assert ended.code == 3
    message, advice = ended.err.splitlines()
    assert message.startswith(
        "burnish: 3 updates in a row were left out: step 3: an update was left out, for the loss, "
    )
    assert message.endswith(". Type a smaller optimizer.learning_rate; with model.dtype=bfloat16, try float32")
    assert advice == f"last good: step-000002; continue with: burnish train --resume {bad}"
    assert "step 2: an update was left out, for the loss" in ended.out
    with queries.open_store(bad / "run.sqlite") as db:
        events = [*db.execute("SELECT step, severity, data FROM events WHERE kind = 'not_finite'")]
        assert [(step, severity) for step, severity, _ in events] == [(2, 3), (3, 3), (3, 3)]
        assert all(json.loads(data)["rollouts"][0]["sibling"] == 0 for _, _, data in events)
        assert queries.attempts(db)[-1]["exit_code"] == 3
    db.close()
    for checkpoint in (bad / "checkpoints").iterdir():
        for name in ("model.safetensors", "resume/optimizer.safetensors"):
            assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / name).values())
    resumed = burnish("train", "--resume", bad)
    assert resumed.code == 0, resumed.err
    assert [row["update/skipped"] for row in read_rows(bad / "metrics.jsonl")] == [0, 1, 0, 0]


@pytest.mark.reliability(14)
@pytest.mark.slow
@pytest.mark.parametrize("where", ["weight", "moment"])
def test_weights_and_moments_that_are_not_finite_are_never_saved(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    fine, calls = LocalLearner.step, []

    def step(learner: LocalLearner) -> Metrics:
        calls.append(1)
        metrics = fine(learner)
        if len(calls) == 4:
            parameter = learner.model.get_decoder().norm.weight
            broken = parameter if where == "weight" else learner._optimizer.state[parameter]["exp_avg_sq"]
            broken.data[0] = NAN
        return metrics

    monkeypatch.setattr(LocalLearner, "step", step)
    run = tmp_path / "run"
    words = [*TINY_STEPS, "checkpoint.every=1", f"model.path={model_dir('llama')}", f"data.train={sums}"]
    ended = burnish("train", *words, f"out={run}")
    assert ended.code == 3
    name = "model.norm.weight" if where == "weight" else "model.norm.weight.exp_avg_sq"
    assert ended.err.splitlines() == [
        f"burnish: {name} holds numbers that are not finite, so no checkpoint is written. Go back to an older one",
        f"last good: step-000001; continue with: burnish train --resume {run}",
    ]
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-000001"]


# -- no group ever trains ----------------------------------------------------------------------------------------------


@pytest.mark.reliability(29)
@pytest.mark.parametrize(("reward", "rate"), [(0.0, "0%"), (1.0, "100%")])
@pytest.mark.parametrize("on_exhausted", ["train", "skip", "error"])
def test_a_reward_that_is_always_the_same_ends_the_run_within_its_rounds(
    reward: float, rate: str, on_exhausted: str
) -> None:
    run = make_run(half_right, steps=100, max_rounds=10, on_exhausted=on_exhausted)
    status = "ok" if reward else "wrong"
    run = replace(run, reward=lambda prompt, said: [Score(reward, reward, status=status)] * len(said))
    with pytest.raises(ExhaustedError) as stalled:
        train(run)
    found = "all_right" if reward else "all_wrong"
    assert str(stalled.value).splitlines() == [
        f"step 1: 10 generation rounds gave 0 of 4 groups that can train (40 {found}):",
        "  right       groups",
        f"  {rate:10}      40",
        "Type sampling.max_rounds=N for more rounds, or train on easier or harder prompts",
    ]
    assert len(run.engine.samplings) == 10
    assert run.learner.steps == 0


@pytest.mark.reliability(29)
@pytest.mark.slow
def test_a_run_on_answers_that_are_never_right_ends_with_code_3(
    burnish: Command, model_dir: ModelDir, tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"{n}+{n}", "answer": "77777"} for n in range(8)])
    words = [*TINY_STEPS, f"model.path={model_dir('llama')}", f"data.train={data}", f"out={tmp_path / 'run'}"]
    ended = burnish("train", *words, "sampling.max_rounds=3")
    assert ended.code == 3
    assert ended.err.splitlines() == [
        "burnish: step 1: 3 generation rounds gave 0 of 4 groups that can train (12 all_wrong):",
        "  right       groups",
        "  0%              12",
        "Type sampling.max_rounds=N for more rounds, or train on easier or harder prompts",
    ]
    assert [*(tmp_path / "run").iterdir()] == []


# -- what a person should hear of --------------------------------------------------------------------------------------


@pytest.mark.reliability(26, 27)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.kind)
def test_a_metric_past_its_threshold_is_said_with_what_to_type(rule: Rule) -> None:
    assert past_threshold(3, {rule.metric: rule.threshold}) == []
    assert past_threshold(3, {}) == []
    (event,) = past_threshold(3, {rule.metric: rule.threshold * 1.1})
    assert event.message.startswith("step 3: ")
    assert (event.kind, event.rule, event.severity) == (rule.kind, rule.metric, 2)
    assert event.advice is not None
    assert event.advice.startswith("Type ")


@pytest.mark.reliability(26)
def test_an_engine_that_disagrees_with_the_learner_is_reported() -> None:
    run, _ = run_of(steps=2)  # the script says that every token has log-probability -1
    heard: list[Event] = []
    train(replace(run, notice=heard.append))
    assert [event.kind for event in heard] == ["mismatch", "mismatch"]
    assert heard[0].message == (
        f"step 1: log-probabilities of engine and learner differ by {heard[0].value:.3f} nats on average, "
        "for the same weights"
    )
    assert heard == [event for event in run.store.events if event.kind == "mismatch"]


@pytest.mark.reliability(27)
@pytest.mark.slow
def test_completions_that_are_nearly_all_cut_are_reported_once_on_the_way_and_kept_in_the_record(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    words = [
        *TINY_STEPS,
        "sampling.max_new_tokens=2",
        "objective.overlong.buffer=1",
        "objective.dynamic_sampling=false",
    ]
    paths = [f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={tmp_path / 'run'}"]
    ended = burnish("train", *words, *paths)
    assert ended.code == 0, ended.err
    said = [line for line in ended.out.splitlines() if "of the completions were cut" in line]
    assert said == [
        "step 1: 100% of the completions were cut at the length limit. Type a larger sampling.max_new_tokens"
    ]
    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        (count,) = db.execute("SELECT count(*) FROM events WHERE kind = 'truncated'").fetchone()
        assert count == 2
    db.close()
