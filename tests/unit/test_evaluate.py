from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from burnish import evaluate as module
from burnish.errors import TrainingError
from burnish.evaluate import bootstrap, evaluate, majority_right, pass_at_k, table
from burnish.protocols import Publication
from burnish.records import Evaluation
from burnish.rollout.scripted import Script, Scripted, ScriptedEngine
from burnish.types import Completion, Prompt, Request, Sampling, Score, Status


@dataclass
class Grader:
    """Compares the text with the answer. The training total it gives is nonsense, and must not matter."""

    statuses: dict[str, Status] = field(default_factory=dict[str, Status])
    """Texts with a verdict of their own."""
    calls: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Score]:
        self.calls.append((prompt.id, len(completions)))
        return [self._score(prompt, completion.text) for completion in completions]

    def _score(self, prompt: Prompt, text: str) -> Score:
        status = self.statuses.get(text) or ("ok" if text == prompt.answer else "wrong")
        if status in ("ok", "wrong"):
            return Score(total=-7.0, raw=-7.0, status=status, answer=text)
        return Score(total=None, status=status, message="grader fell over")


def engine(script: Script, **kwargs: Any) -> ScriptedEngine:
    made = ScriptedEngine(script, **kwargs)
    made.load(Publication(version=3, weights=None))
    return made


def prompts(n: int) -> list[Prompt]:
    return [Prompt(id=f"p{i}", text=f"{i}+{i}=", answer=str(2 * i)) for i in range(n)]


def run(engine: ScriptedEngine, problems: Sequence[Prompt], reward: Grader | None = None, **changed: Any) -> Evaluation:
    arguments: dict[str, Any] = {
        "suite": "held-out", "step": 5, "policy_version": 3, "samples": 4,
        "sampling": Sampling(max_new_tokens=8), "seed": 1, "greedy": False,
    }  # fmt: skip
    return evaluate(engine, reward or Grader(), problems, **(arguments | changed))


def score(status: Status, answer: str | None = None) -> Score:
    return Score(total=None, status=status, answer=answer)


# -- estimators -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n: int):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_by_hand_and_where_it_is_not_defined():
    assert pass_at_k(4, 1, 2) == 0.5
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at_k(2048, 1, 1024) == 0.5
    assert math.isnan(pass_at_k(3, 3, 4))


@pytest.mark.parametrize(
    ("votes", "right"),
    [
        ("a+ a+ b-", True),
        ("a+ b- b-", False),
        ("a+ b-", True),
        ("b- a+", False),
        ("b- a+ a+ b-", False),
        ("c- a+ b- a+ b-", True),
        ("?. ?. ?. a+", True),
        ("?. ?.", False),
        ("!. ?.", False),
        ("!. a+ b- b- !.", False),
        ("!. !.", None),
        ("", None),
    ],
)
def test_the_majority_wins_and_among_equals_the_answer_given_first(votes: str, right: bool | None):
    """`a+` the answer a, right; `b-` the answer b, wrong; `?.` no answer found; `!.` a fault."""
    verdicts = {"+": "ok", "-": "wrong"}
    scores = [
        score("unparsed" if v[0] == "?" else "timeout") if v[1] == "." else score(verdicts[v[1]], v[0])  # type: ignore[arg-type]
        for v in votes.split()
    ]
    assert majority_right(scores) is right


def test_a_tie_favours_no_answer_over_all_orders():
    scores = [score("ok", "a"), score("ok", "a"), score("wrong", "b"), score("wrong", "b"), score("wrong", "c")]
    outcomes = [majority_right(order) for order in itertools.permutations(scores)]
    assert (outcomes.count(True), outcomes.count(False)) == (60, 60)


def test_a_reward_that_extracts_no_answers_has_no_majority():
    assert majority_right([score("ok"), score("wrong")]) is None
    assert majority_right([score("wrong"), score("unparsed")]) is None


def test_an_interval_holds_the_truth_about_nineteen_times_of_twenty():
    rng, held = random.Random(0), 0
    for trial in range(200):
        column = [float(rng.random() < 0.7) for _ in range(100)]
        _, low, high = bootstrap({"x": column}, seed=trial)["x"]
        held += low <= 0.7 <= high
    assert 0.89 <= held / 200 <= 0.99


def test_an_interval_is_as_wide_as_the_standard_error_says():
    rng = random.Random(1)
    column = [rng.gauss(10.0, 2.0) for _ in range(400)]
    mean, low, high = bootstrap({"x": column}, seed=0)["x"]
    assert mean == pytest.approx(sum(column) / 400)
    assert high - low == pytest.approx(2 * 1.96 * 2.0 / 20, rel=0.15)
    assert low < mean < high


def test_columns_keep_their_interval_whatever_stands_beside_them():
    rng = random.Random(2)
    one, other = [[rng.random() for _ in range(30)] for _ in range(2)]
    assert bootstrap({"one": one, "other": other}, seed=5)["one"] == bootstrap({"one": one}, seed=5)["one"]
    assert bootstrap({"one": one}, seed=5) != bootstrap({"one": one}, seed=6)


def test_missing_values_are_left_out_and_a_column_of_them_too():
    nan = math.nan
    found = bootstrap({"x": [1.0, nan, 0.0, nan], "none": [nan] * 4, "all": [1.0] * 4}, seed=0)
    assert set(found) == {"x", "all"}
    assert found["x"] == (0.5, 0.0, 1.0)
    assert found["all"] == (1.0, 1.0, 1.0)
    assert bootstrap({"none": [nan]}, seed=0) == {}
    assert bootstrap({"x": [1.0, nan, nan, nan, nan, nan]}, seed=0) == {"x": (1.0, 1.0, 1.0)}


# -- evaluation -------------------------------------------------------------------------------------------------------


def test_the_numbers_of_a_small_suite_by_hand():
    said = {"p0": ["0", "0", "0", "0"], "p1": ["2", "9", "9", "9"], "p2": ["4", "4", "5", "5"]}
    found = run(engine(lambda prompt, sample, seed: said[prompt.id][sample]), prompts(3))

    value = {name: values[0] for name, values in found.values.items()}
    assert value == {
        "avg@4": pytest.approx((1 + 1 / 4 + 1 / 2) / 3),
        "pass@1": pytest.approx((1 + 1 / 4 + 1 / 2) / 3),
        "pass@2": pytest.approx((1 + 1 / 2 + 5 / 6) / 3),
        "pass@4": 1.0,
        "maj@4": pytest.approx(2 / 3),
        "length": 2.0,
        "truncated": 0.0,
        "faults": 0.0,
    }
    assert (found.step, found.suite) == (5, "held-out")
    assert [(i.prompt.id, i.num_completions, i.num_right, i.majority_right) for i in found.items] == [
        ("p0", 4, 4, True), ("p1", 4, 1, False), ("p2", 4, 2, True)
    ]  # fmt: skip
    assert all(low <= mean <= high for mean, low, high in found.values.values())
    assert all(item.mean_confidence is None for item in found.items)


@pytest.mark.parametrize(("samples", "expected"), [(1, {1}), (2, {1, 2}), (6, {1, 2, 4}), (8, {1, 2, 4, 8})])
def test_pass_at_k_is_given_for_powers_of_two(samples: int, expected: set[int]):
    found = run(engine(lambda *_: "0"), prompts(2), samples=samples)
    assert {int(name[5:]) for name in found.values if name.startswith("pass@")} == expected
    assert f"avg@{samples}" in found.values
    assert f"maj@{samples}" in found.values


def test_greedy_decodes_once_more_at_temperature_zero_and_only_when_asked():
    def script(prompt: Prompt, sample: int, seed: int) -> str:
        return "2" if len(scripted.samplings) == 2 else "no"

    scripted = engine(script)
    found = run(scripted, prompts(2), greedy=True, sampling=Sampling(temperature=0.6, top_p=0.7, max_new_tokens=8))

    assert found.values["avg@4"][0] == 0.0
    assert found.values["greedy"][0] == 0.5
    assert [s.temperature for s in scripted.samplings] == [0.6, 0.0]
    assert [len(request.seeds) for request in scripted.requests] == [4, 4, 1, 1]
    assert [item.num_completions for item in found.items] == [4, 4]
    assert "greedy" not in run(engine(script), prompts(2)).values


def test_a_fault_is_no_wrong_answer():
    said = ["0", "hang", "crash", "7"]
    grader = Grader({"hang": "timeout", "crash": "error"})
    found = run(engine(lambda prompt, sample, seed: said[sample]), prompts(1), grader)

    assert found.values["avg@4"][0] == 0.5
    assert found.values["pass@1"][0] == 0.5
    assert found.values["pass@2"][0] == 1.0
    assert "pass@4" not in found.values
    assert found.values["maj@4"][0] == 1.0
    assert found.values["faults"] == (2.0, 2.0, 2.0)
    assert (found.items[0].num_completions, found.items[0].num_right) == (2, 1)


def test_a_prompt_with_faults_only_counts_nowhere_but_in_the_faults():
    grader = Grader({"hang": "oom"})
    found = run(engine(lambda prompt, *_: "hang" if prompt.id == "p1" else "0"), prompts(2), grader, greedy=True)

    assert found.values["avg@4"] == (1.0, 1.0, 1.0)
    assert found.values["greedy"] == (1.0, 1.0, 1.0)
    assert found.values["faults"][0] == 5.0
    assert found.items[1].majority_right is None


def test_an_evaluation_without_one_verdict_stops_with_the_first_fault():
    with pytest.raises(TrainingError, match=r"none of 8 completions could be graded.*timeout: grader fell over"):
        run(engine(lambda *_: "hang"), prompts(2), Grader({"hang": "timeout"}))


def test_an_unparsed_answer_is_wrong():
    found = run(engine(lambda *_: "hm"), prompts(2), Grader({"hm": "unparsed"}))
    assert found.values["avg@4"][0] == 0.0
    assert found.values["maj@4"][0] == 0.0
    assert found.values["faults"][0] == 0.0


def test_length_and_truncation_come_from_the_tokens_and_the_finish_reason():
    def script(prompt: Prompt, sample: int, seed: int) -> str | Scripted:
        return "123456789" if sample == 0 else Scripted("1234567", ends=False) if sample == 1 else "1"

    found = run(engine(script), prompts(2))
    assert found.values["length"][0] == (8 + 7 + 2 + 2) / 4
    assert found.values["truncated"][0] == 0.5
    assert found.items[0].mean_length == 19 / 4


def rolled(requests: Sequence[Request]) -> Iterable[Request]:
    return [*requests[2:], *requests[:2]]


@pytest.mark.parametrize("order", [reversed, rolled])
def test_nothing_depends_on_the_order_in_which_the_engine_finishes(
    order: Callable[[Sequence[Request]], Iterable[Request]],
):
    def script(prompt: Prompt, sample: int, seed: int) -> str:
        return str(2 * int(prompt.id[1:]) + seed % 2)

    in_order, shuffled = (run(engine(script, order=o), prompts(9), greedy=True) for o in (tuple, order))
    assert shuffled == in_order
    assert [item.prompt.id for item in shuffled.items] == [f"p{i}" for i in range(9)]


def test_a_problem_gets_the_same_seeds_whatever_else_happened():
    def seeds(problems: Sequence[Prompt], **changed: Any) -> dict[str, tuple[int, ...]]:
        scripted = engine(lambda *_: "0")
        run(scripted, problems, **changed)
        return {request.prompt.id: request.seeds for request in scripted.requests}

    alone = seeds(prompts(5)[4:])["p4"]
    assert len(set(alone)) == 4
    assert seeds(prompts(5), step=99, suite="other")["p4"] == alone
    assert seeds(prompts(5), samples=2)["p4"] == alone[:2]
    assert seeds(prompts(5), seed=2)["p4"] != alone


def test_a_problem_that_stands_in_the_suite_twice_draws_other_seeds():
    scripted = engine(lambda *_: "0")
    run(scripted, [*prompts(1), *prompts(1)])
    first, second = (request.seeds for request in scripted.requests)
    assert not set(first) & set(second)


def test_the_same_evaluation_twice_is_the_same_to_the_last_bit():
    def script(prompt: Prompt, sample: int, seed: int) -> str:
        return str(2 * int(prompt.id[1:]) + seed % 3)

    assert run(engine(script), prompts(20)) == run(engine(script), prompts(20))
    assert run(engine(script), prompts(20)).values != run(engine(script), prompts(20), seed=9).values


def test_progress_is_told_of_every_prompt():
    heard: list[tuple[int, int]] = []
    run(engine(lambda *_: "0"), prompts(3), greedy=True, progress=lambda done, total: heard.append((done, total)))
    assert heard == [(done, 6) for done in range(1, 7)]


def test_siblings_are_graded_together():
    grader = Grader()
    run(engine(lambda *_: "0"), prompts(2), grader)
    assert grader.calls == [("p0", 4), ("p1", 4)]


def test_completions_of_other_weights_are_not_evaluated():
    with pytest.raises(AssertionError, match="other weights"):
        run(engine(lambda *_: "0"), prompts(1), policy_version=4)


def test_no_prompts_is_an_error_of_the_user():
    with pytest.raises(ValueError, match=r"evaluation of held-out has no prompts\. Type"):
        run(engine(lambda *_: "0"), [])


def test_the_table_shows_every_value_with_its_interval():
    found = Evaluation(
        30, "add23", {"avg@2": (0.9051, 0.87, 0.935), "length": (25.61, 24.0, 27.0), "faults": (3.0, 3.0, 3.0)}, []
    )
    assert table(found) == [
        "add23, step 30: 0 prompts, 0 completions graded",
        "  avg@2       0.905  [0.870, 0.935]",
        "  length       25.6  [24.0, 27.0]",
        "  faults          3",
    ]


def test_the_map_at_the_top_names_every_value():
    found = run(engine(lambda *_: "0"), prompts(1), greedy=True)
    for name in found.values:
        assert name.split("@")[0] in (module.__doc__ or "")
