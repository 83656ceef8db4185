"""Prompts are passed over by the variance of their last group: the document's cases, resumes, the record, the loop."""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish import api
from burnish.overrides import ConfigError, load_config
from burnish.prompts.history import HistorySampler
from burnish.prompts.sampler import ShuffledSampler
from burnish.store.queries import group_scores, open_store
from burnish.train import train
from burnish.types import Completion, Group, Prompt, Rollout, Score
from tests.fakes import make_run, questions
from tests.recorded import judged, rollout, step, store_at

PROMPTS = [Prompt(id=str(i), text=str(i)) for i in range(10)]
COMPLETION = Completion(array("i", [1]), array("i", [2]), array("f", [0.0]), "x", "stop", 0)


def group(prompt: Prompt, raw: Sequence[float | None]) -> Group:
    """Its totals are far from its raw scores, which alone must count."""
    scores = [Score(None, status="timeout") if r is None else Score(100.0 * i, r) for i, r in enumerate(raw)]
    return Group(0, prompt, tuple(Rollout(COMPLETION, score) for score in scores))


def sampler(prompts: Sequence[Prompt] = PROMPTS, **settings) -> HistorySampler:
    return HistorySampler(prompts, **({"seed": 1, "shuffle": False} | settings))


def seen(variances: Sequence[float], *, prompts: Sequence[Prompt] = PROMPTS, **settings) -> HistorySampler:
    """A sampler that remembers prompt i to have had variance i."""
    made = sampler(prompts, **settings)
    remembered = {str(i): variance for i, variance in enumerate(variances)}
    made.load_state_dict(made.state_dict() | {"variance": remembered, "range": [-1.0, 1.0]})
    return made


def ids(prompts: Sequence[Prompt]) -> list[int]:
    return [int(prompt.id) for prompt in prompts]


# -- screening ---------------------------------------------------------------------------------------------------------


def test_two_of_ten_teach_and_a_fifth_of_the_ten_comes_back_behind_them():
    variances = [0.0, 0.0, 0.3, 0.0, 0.010, 0.0, 0.2, 0.0, 0.0, 0.0]
    selected, back = seen(variances).screen(PROMPTS)
    assert ids(selected) == [2, 6]
    assert len(back) == 2
    assert set(ids(back)) <= {0, 1, 3, 4, 5, 7, 8, 9}  # 4 too: the threshold must be exceeded


@pytest.mark.parametrize("n", [1, 3, 4])
def test_a_small_window_of_which_all_is_skipped_is_never_empty(n: int):
    selected, back = seen([0.0] * 10).screen(PROMPTS[:n])  # int(0.2 * n) is 0
    assert (len(selected), len(back)) == (0, 1)


def test_half_skipped_is_not_more_than_half():
    selected, back = seen([0.0] * 5 + [1.0] * 5).screen(PROMPTS)
    assert (ids(selected), back) == ([5, 6, 7, 8, 9], [])


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.3, 3), (1.0, 6)])
def test_the_share_is_of_the_window_and_no_more_come_back_than_were_skipped(share: float, count: int):
    selected, back = seen([0.0] * 6 + [1.0] * 4, reinclude=share).screen(PROMPTS)
    assert (len(selected), len(set(ids(back)))) == (4, count)


def test_who_comes_back_is_pinned_by_the_seed_and_differs_from_draw_to_draw():
    first, other = seen([0.0] * 10), seen([0.0] * 10, seed=2)
    draws = [[ids(made.screen(PROMPTS)[1]) for _ in range(2)] for made in (first, other)]
    assert draws == [[[9, 5], [1, 9]], [[7, 8], [8, 3]]]


def test_every_skipped_prompt_may_come_back():
    made = seen([0.0] * 10)
    assert {i for _ in range(100) for i in ids(made.screen(PROMPTS)[1])} == set(range(10))


# -- what counts as taught ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "taught"),
    [
        ([1.0] + [0.0] * 7, True),  # 0.1094
        ([1.0] + [-1.0] * 7, True),  # 0.4375
        ([1.0] + [0.0] * 15, True),  # 0.0586
        ([0.42, 0.42, 0.5, 0.42], False),  # 0.0012
        ([0.1] * 3, False),
        ([0.9125] * 8, False),
        ([0.0, 0.19], False),  # 0.009; the variance of a sample would be 0.018
        ([0.0, 0.21], True),  # 0.011
    ],
)
def test_the_population_variance_of_the_last_groups_raw_scores_decides(raw: list[float], taught: bool):
    made = sampler(PROMPTS[:1])
    made.observe(group(PROMPTS[0], raw))
    assert bool(made.screen(PROMPTS[:1])[0]) is taught


def test_a_relative_threshold_means_the_same_on_every_scale():
    close = sampler(relative=True)
    close.observe(group(PROMPTS[0], [0.42, 0.42, 0.5, 0.42]))
    assert ids(close.screen(PROMPTS[:1])[0]) == [0]  # 0.0012 of 0.08 ** 2
    close.observe(group(PROMPTS[1], [-1.0, 1.0]))
    assert ids(close.screen(PROMPTS[:1])[0]) == []  # of 2 ** 2
    assert ids(close.screen(PROMPTS[1:2])[0]) == [1]


def test_a_relative_threshold_skips_what_is_alike_when_nothing_else_was_seen():
    made = sampler(relative=True)
    made.observe(group(PROMPTS[0], [1.0, 1.0]))
    assert made.screen(PROMPTS[:1])[0] == []


def test_the_last_group_counts_and_a_group_of_faults_says_nothing():
    made = sampler()
    made.observe(group(PROMPTS[0], [0.0, 1.0]))
    made.observe(group(PROMPTS[0], [1.0, 1.0]))
    made.observe(group(PROMPTS[0], [0.0, None]))  # one score alone has no variance
    made.observe(group(PROMPTS[1], [None, None]))
    made.observe(group(PROMPTS[2], [0.0, None, 1.0]))
    assert made.state_dict()["variance"] == {"0": 0.0, "2": 0.25}


def test_prompts_are_told_apart_by_id_and_not_by_text():
    twins = [Prompt("a", text="same"), Prompt("b", text="same"), Prompt("c", text="same")]
    made = sampler(twins)
    made.observe(group(twins[0], [1.0, 1.0]))
    assert [p.id for p in made.screen(twins)[0]] == ["b", "c"]


# -- the stream --------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 27), max_size=8), seed=st.integers(0, 5))
def test_with_nothing_seen_it_is_the_shuffled_stream(sizes: list[int], seed: int):
    plain, history = ShuffledSampler(PROMPTS, seed=seed), sampler(seed=seed, shuffle=True)
    assert [ids(history.take(n)) for n in sizes] == [ids(plain.take(n)) for n in sizes]


@given(dead=st.sets(st.integers(0, 9)), n=st.integers(0, 40), share=st.floats(0, 1))
def test_a_batch_is_always_full(dead: set[int], n: int, share: float):
    made = seen([float(i not in dead) for i in range(10)], reinclude=share)
    assert len(made.take(n)) == n


def test_the_selected_come_before_all_that_came_back():
    taken = ids(seen([0.0] * 8 + [1.0] * 2).take(8))  # the batch is 0 to 7, then one pass looks at 8, 9, 0 to 7
    assert taken[:2] == [8, 9]
    assert set(taken[2:]) <= set(range(8))


def test_a_batch_is_filled_from_prompts_that_teach_before_lots_are_drawn():
    prompts = [Prompt(id=str(i), text=str(i)) for i in range(40)]
    made = seen([0.0] * 10 + [1.0] * 30, prompts=prompts)
    assert [i < 10 for i in ids(made.take(10))] == [False] * 8 + [True] * 2
    assert [i < 10 for i in ids(made.take(10))] == [False] * 10
    assert made.report() == {"prompts/skipped": 8.0, "prompts/reincluded": 2.0}


@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6),
    cut=st.integers(0, 6),
    scores=st.lists(st.sampled_from([0.0, 0.05, 1.0]), min_size=20, max_size=20),
)
def test_a_resume_anywhere_continues_identically(sizes: list[int], cut: int, scores: list[float]):
    def turn(made: HistorySampler, n: int) -> list[int]:
        taken = made.take(n)
        for i, prompt in enumerate(taken):
            made.observe(group(prompt, [0.0, scores[i]]))
        return ids(taken)

    whole = sampler(shuffle=True, relative=True)
    expected = [turn(whole, n) for n in sizes]
    first = sampler(shuffle=True, relative=True)
    got = [turn(first, n) for n in sizes[:cut]]
    second = sampler(shuffle=True, relative=True)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [turn(second, n) for n in sizes[cut:]]
    assert got == expected
    assert second.state_dict() == whole.state_dict()


def test_the_report_tells_what_was_skipped_since_the_last_one():
    made = seen([0.0] * 8 + [1.0] * 2)
    made.screen(PROMPTS)
    assert made.report() == {"prompts/skipped": 6.0, "prompts/reincluded": 2.0}
    assert made.report() == {"prompts/skipped": 0.0, "prompts/reincluded": 0.0}


# -- the record --------------------------------------------------------------------------------------------------------


def test_the_record_rebuilds_what_a_sampler_knew(tmp_path: Path):
    scores = {"p0": [[1.0, -1.0], [0.1, 0.1]], "p1": [[0.5, -0.25, 0.125]], "p2": [[1.0, None]], "p3": [[None]]}
    groups = [
        judged(
            *(rollout(raw=r, status="ok" if r is not None else "timeout") for r in raw),
            id=10 * n + i,
            uid=uid,
            outcome="all_wrong",
        )
        for i, (uid, rounds) in enumerate(scores.items())
        for n, raw in enumerate(rounds)
    ]
    watching, rebuilt = sampler(), sampler()
    for found in sorted(groups, key=lambda j: j.group.id):
        watching.observe(found.group)
    store = store_at(tmp_path / "run.sqlite")
    store.record(step(1, *[j for j in groups if j.group.id < 10]))
    store.record(step(2, *[j for j in groups if j.group.id >= 10]))
    store.close()
    with open_store(tmp_path / "run.sqlite") as db:
        for prompt, raw in group_scores(db):
            rebuilt.note(prompt, raw)
    assert rebuilt.state_dict() == watching.state_dict()
    assert watching.state_dict()["variance"].keys() == {"p0", "p1"}


def test_superseded_steps_are_not_part_of_the_history(tmp_path: Path):
    store = store_at(tmp_path / "run.sqlite")
    store.record(step(1, judged(rollout(raw=1.0), rollout(raw=-1.0), id=0)))
    store.record(step(2, judged(rollout(raw=1.0), rollout(raw=1.0), id=1)))
    store.close()
    store = store_at(tmp_path / "run.sqlite")  # continues from step 0
    store.close()
    with open_store(tmp_path / "run.sqlite") as db:
        assert list(group_scores(db)) == []


# -- the loop ----------------------------------------------------------------------------------------------------------


def even_prompts_only(prompt: Prompt, sample: int, seed: int) -> str:
    """Groups of even prompts are mixed; odd prompts are solved by every sibling."""
    return "yes" if int(prompt.id[1:]) % 2 or sample % 2 else "no"


def test_groups_that_dynamic_sampling_drops_are_not_asked_for_again():
    run = make_run(even_prompts_only, num_prompts=8, steps=3, max_rounds=8)
    run = replace(run, prompts=HistorySampler(questions(8), seed=1, shuffle=False))
    train(run)
    asked = [[j.group.prompt.id for j in s.judged] for s in run.store.steps]
    assert asked[0] == [f"q{i}" for i in range(8)]  # two rounds: four prompts, then the other four
    assert asked[1] == asked[2] == ["q0", "q2", "q4", "q6"]
    assert all([j.outcome for j in s.judged].count("admitted") == 4 for s in run.store.steps)
    assert [s.metrics["prompts/skipped"] for s in run.store.steps] == [0, 3, 4]


# -- a whole run -------------------------------------------------------------------------------------------------------


def test_a_run_from_yaml_skips_and_its_checkpoint_knows_what_its_record_knows(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text(f"""
out: {tmp_path / "run"}
data: {{train: add23, limit: 8, sampler: history, history: {{min_variance: 0.5, scale: absolute, reinclude: 0.5}}}}
sampling: {{prompts_per_step: 4, group_size: 4, max_new_tokens: 24}}
objective: {{name: grpo, clip_low: 0.2, clip_high: 0.28}}
train: {{steps: 4, updates_per_step: 1, threads: 1}}
eval: {{prompts: 2, every: 0, greedy: false}}
log: {{sinks: [jsonl]}}
""")
    done = api.train(api.load(path))
    rows = [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text().splitlines()]
    skipped = [row["prompts/skipped"] for row in rows if "prompts/skipped" in row]
    assert skipped[:2] == [0.0, 0.0]  # nothing was seen of the first eight
    assert sum(skipped[2:]) > 0

    saved = json.loads((done.model / "resume" / "state.json").read_text())["prompts"]
    rebuilt = sampler()
    with open_store(done.folder / "run.sqlite") as db:
        for prompt, raw in group_scores(db):
            rebuilt.note(prompt, raw)
    assert rebuilt.state_dict()["variance"] == saved["variance"]
    assert len(saved["variance"]) == 8


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.history.reinclude=0.5"], r"does nothing with data\.sampler=shuffled\. Type data\.sampler=history"),
        (["data.sampler=historic"], r"data\.sampler: found 'historic'"),
        (["data.sampler=history", "data.history.min_variance=-1"], r"data\.history\.min_variance: found '-1'"),
    ],
)
def test_a_wrong_configuration_is_named(words: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(words)
