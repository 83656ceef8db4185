"""The loop against fakes: which groups are asked for, kept, trained on and recorded."""

from __future__ import annotations

from dataclasses import replace
from statistics import stdev

import pytest

from burnish.progress import Progress
from burnish.train import ExhaustedError, collect, train
from burnish.types import Prompt
from tests.fakes import make_run


def half_right(prompt: Prompt, sample: int, seed: int) -> str:
    return "yes" if sample % 2 else "no"


def hopeless(prompt: Prompt, sample: int, seed: int) -> str:
    return "no"


def even_prompts_only(prompt: Prompt, sample: int, seed: int) -> str:
    """Groups of even prompts are mixed; odd prompts are solved by every sibling."""
    return "yes" if int(prompt.id[1:]) % 2 else half_right(prompt, sample, seed)


def test_a_step_trains_on_a_full_batch_in_mini_batches_of_whole_groups():
    run = make_run(half_right, steps=2)
    train(run)
    assert [p.batch.num_sequences for p in run.learner.minibatches] == [4, 4, 4, 4]
    assert run.engine.versions == [0, 1, 2]
    assert [s.policy_version for s in run.store.steps] == [0, 1]
    assert run.progress.updates == 4


def test_constant_groups_are_replaced_until_the_batch_is_full():
    run = make_run(even_prompts_only)
    judged = _train_one(run)
    assert [j.outcome for j in judged].count("admitted") == 4
    assert {j.group.prompt.id for j in judged if j.outcome == "all_right"} == {"q1", "q3", "q5", "q7"}
    assert run.store.steps[0].num_rounds == 2


def test_backfill_asks_for_the_shortage_over_the_share_admitted_so_far():
    run = make_run(even_prompts_only, num_prompts=64, prompts_per_step=8, updates_per_step=1)
    judged = _train_one(run)
    assert [sum(j.round == r for j in judged) for r in range(2)] == [8, 8]  # 4 of 8 admitted: 4 missing over 1/2


def test_which_groups_train_does_not_depend_on_which_finish_first():
    forward, backward = (
        make_run(even_prompts_only, num_prompts=5),
        make_run(even_prompts_only, num_prompts=5, order=lambda requests: reversed(list(requests))),
    )
    trained = [[(j.group.id, j.group.prompt.id, j.outcome) for j in _train_one(run)] for run in (forward, backward)]
    assert trained[0] == trained[1]


def test_groups_beyond_the_batch_are_surplus_and_recorded():
    run = make_run(_mixed_after("q3"), num_prompts=16, prompts_per_step=4)
    judged = _train_one(run)
    assert [j.outcome for j in judged].count("admitted") == 4
    assert len(judged) == len(run.engine.requests)


def test_kept_surplus_starts_the_next_step_and_every_group_is_recorded_once():
    run = make_run(_mixed_after("q2"), num_prompts=64, steps=2, max_rounds=2, keep_surplus=True)
    train(run)
    first, second = run.store.steps
    recorded = [j.group.id for step in (first, second) for j in step.judged]
    assert sorted(recorded) == [request.id for request in run.engine.requests]
    assert "surplus" not in {j.outcome for j in first.judged}
    assert second.judged[0].group.id < 8  # asked for in the first step, trained on in the second
    assert second.judged[0].outcome == "admitted"


def test_the_same_prompt_twice_in_a_step_makes_two_groups_with_other_seeds():
    run = make_run(half_right, num_prompts=2, prompts_per_step=4)
    _train_one(run)
    by_prompt: dict[str, set[tuple[int, ...]]] = {}
    for request in run.engine.requests:
        by_prompt.setdefault(request.prompt.id, set()).add(request.seeds)
    assert {prompt: len(seeds) for prompt, seeds in by_prompt.items()} == {"q0": 2, "q1": 2}


def test_seeds_do_not_depend_on_what_was_asked_before():
    first, later = make_run(half_right), make_run(half_right)
    later.prompts.take(3)
    _train_one(first)
    _train_one(later)
    seeds = {r.prompt.id: r.seeds for r in first.engine.requests}
    assert any(r.prompt.id in seeds for r in later.engine.requests)
    assert all(seeds[r.prompt.id] == r.seeds for r in later.engine.requests if r.prompt.id in seeds)


@pytest.mark.parametrize(("policy", "trained"), [("train", 2), ("skip", 0)])
def test_an_unfilled_batch_does_what_the_plan_says_and_says_so(policy: str, trained: int):
    run = make_run(_only("q0", "q2"), max_rounds=2, on_exhausted=policy, updates_per_step=4)
    _train_one(run)
    assert sum(p.batch.num_groups for p in run.learner.minibatches) == trained
    (event,) = run.store.events
    assert event.message.startswith("step 1: 2 generation rounds gave 2 of 4 groups that can train")
    assert run.progress.step == 1


def test_an_unfilled_batch_stops_the_run_when_told_to():
    run = make_run(_only("q0"), max_rounds=2, on_exhausted="error")
    with pytest.raises(ExhaustedError, match="2 generation rounds gave 1 of 4 groups"):
        train(run)
    assert run.learner.steps == 0


def test_a_run_that_never_finds_a_group_stops_within_its_rounds():
    run = make_run(hopeless, steps=100, max_rounds=3)
    with pytest.raises(ExhaustedError, match="12 all_wrong"):
        train(run)
    assert run.store.steps == []  # with the weights that it has, no other step would do better
    assert len(run.engine.requests) == 3 * 4


def test_a_run_that_finds_no_group_any_more_stops_after_three_steps():
    run = make_run(
        lambda prompt, sample, seed: "no" if run.progress.step else half_right(prompt, sample, seed),
        steps=100,
        max_rounds=3,
    )
    with pytest.raises(ExhaustedError, match="12 all_wrong"):
        train(run)
    assert len(run.store.steps) == 1 + 2
    assert len(run.engine.requests) == 4 + 3 * 3 * 4


def test_every_generated_rollout_is_recorded_and_every_trained_one_has_a_trace():
    run = make_run(even_prompts_only)
    train(run)
    (record,) = run.store.steps
    assert len(record.judged) == len(run.engine.requests)
    trained = {(j.group.id, i) for j in record.judged if j.outcome == "admitted" for i in range(2)}
    assert set(record.traces) == trained
    trace = next(iter(record.traces.values()))
    assert abs(trace.advantage) == pytest.approx(0.7071, abs=1e-3)
    assert list(trace.mask) == [1] * len(trace.new_logprobs)


def test_epochs_pass_over_the_same_groups_again():
    run = make_run(half_right, epochs=3)
    train(run)
    assert run.learner.steps == 6
    assert run.learner.minibatches[0].batch.tokens_N.tolist() == run.learner.minibatches[2].batch.tokens_N.tolist()


def test_progress_survives_json_with_its_surplus_groups():
    run = make_run(half_right, keep_surplus=True, steps=5)
    progress = replace(run.progress, step=3, dispatched=12)
    run.engine.load(run.learner.publish(0))
    progress.surplus = [j.group for j in collect(run)]
    restored = Progress()
    restored.load_state_dict(progress.state_dict())
    assert restored == progress


def _train_one(run):
    train(run)
    return run.store.steps[0].judged


def _mixed_after(name: str):
    """Prompts up to `name` are constant, all later ones mixed."""
    return lambda prompt, sample, seed: half_right(prompt, sample, seed) if int(prompt.id[1:]) > int(name[1:]) else "no"


def _only(*names: str):
    return lambda prompt, sample, seed: half_right(prompt, sample, seed) if prompt.id in names else "no"


def test_the_spread_of_the_whole_step_reaches_every_mini_batch():
    """Lite PPO divides by the standard deviation of the step's scores, not of one mini-batch's."""
    run = make_run(lambda prompt, sample, seed: "yes" if sample < 1 + int(prompt.id[1:]) % 2 else "no", group_size=4)
    train(run)
    scores = [r.score.total for j in run.store.steps[0].judged for r in j.group.rollouts]
    assert [p.batch.spread.score_std for p in run.learner.minibatches] == [pytest.approx(stdev(scores))] * 2
