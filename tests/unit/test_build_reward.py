"""From `[reward]` of a config to a reward: parts, names, weights, the task metric, and what is refused."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from burnish.build.reward import make_reward, reward_parts
from burnish.config import RunConfig, resolved
from burnish.overrides import ConfigError, load_config, validate
from burnish.types import Completion, Prompt, Score

PROMPT = Prompt(id="p-1", text="2+2=", answer="4")
OFF = "objective.overlong.buffer=0"
CODE = """
def quality(solution_str, ground_truth, per=10):
    clear, right = len(solution_str) / per, float(solution_str.endswith(ground_truth))
    return {"score": 0.5 * clear + 0.5 * right, "clear": clear, "right": right}
"""


def completion(text: str, *, tokens: int = 3, version: int = 0) -> Completion:
    return Completion(array("i"), array("i", range(tokens)), array("f", [0.0] * tokens), text, "stop", version)


def config(*words: str) -> RunConfig:
    return load_config([OFF, *words])


def scores(words: Sequence[str], *completions: Completion) -> list[Score]:
    reward = make_reward(config(*words))
    try:
        return reward(PROMPT, completions)
    finally:
        reward.close()


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    path = tmp_path / "rewards.py"
    path.write_text(CODE)
    return f"{path}:quality"


def test_the_simple_keys_make_answer_format_and_overlong_parts():
    words = ["reward.style=auto", "reward.wrong=0", "reward.weight=2", "reward.format.pattern=<t>"]
    words += ["reward.format.weight=0.5", "sampling.max_new_tokens=64", "objective.overlong.buffer=8"]
    (score,) = scores(words, completion("<t> Answer: 4", tokens=60))
    assert score.parts == {"answer": 1.0, "format": 1.0, "overlong": -0.5}
    assert score.total == pytest.approx(2.0 + 0.5 - 0.5)
    assert (score.raw, score.status) == (1.0, "ok")
    weights = {"answer": (2.0, True), "format": (0.5, False), "overlong": (1.0, False)}
    assert reward_parts(config(*words)) == weights


def test_further_parts_are_named_and_their_kind_is_their_name_where_it_is_left_out():
    words = ["reward.parts.length.target=2", "reward.parts.length.weight=0.5", "reward.parts.truncated.weight=0.25"]
    words += ["reward.parts.loops.kind=repetition", "reward.parts.loops.ngram_size=1"]
    (score,) = scores(words, completion("a a a Answer: 4", tokens=4))
    assert list(score.parts) == ["answer", "length", "truncated", "loops"]
    assert score.parts["length"] == -1.0
    assert score.parts["loops"] == pytest.approx(-2 / 5)
    assert score.total == pytest.approx(1.0 - 0.5 - 0.4)


def test_good_accuracy_can_stand_in_for_the_answer_part():
    words = ["reward.style=none", "reward.right=5", "reward.parts.good_accuracy.penalty_scale_factor=0.1"]
    right, wrong = scores(words, completion("\\boxed{4}"), completion("x " * 10))
    assert (right.total, right.raw, right.status) == (1.0, 1.0, "ok")
    assert (wrong.total, wrong.raw, wrong.status) == (pytest.approx(-0.0428571, abs=1e-6), 0.0, "unparsed")


def test_a_function_is_a_part_with_arguments_from_the_configuration(plugin: str):
    words = [f"reward.parts.quality.function={plugin}", "reward.parts.quality.args.per=4", "reward.style=none"]
    (score,) = scores(words, completion("= 4"))
    assert score.parts == {"quality": 0.875, "clear": 0.75, "right": 1.0}
    assert (score.total, score.raw, score.status) == (0.875, 0.875, "wrong")


def test_entries_of_a_function_can_be_weighed_and_be_the_task_metric(plugin: str):
    words = [f"reward.parts.quality.function={plugin}", "reward.parts.quality.weight=0", "reward.style=none"]
    words += ["reward.parts.quality.entries.clear=2", "reward.parts.quality.entries.right=1", "reward.task=right"]
    (score,) = scores(words, completion("= 4"))
    assert score.total == pytest.approx(2 * 0.3 + 1.0)
    assert (score.raw, score.status) == (1.0, "ok")
    found = {"quality": (0.0, False), "clear": (2.0, False), "right": (1.0, True)}
    assert reward_parts(config(*words)) == found


def test_the_notes_name_the_plugins(plugin: str):
    reward = make_reward(config(f"reward.parts.quality.function={plugin}"))
    reward.close()
    (note,) = reward.notes
    assert plugin in note
    assert "sha256" in note


@pytest.mark.parametrize(
    ("combine", "right", "wrong"),
    [
        ("weighted_sum", 0.875, -1.125),
        ("chebyshev", -0.125, -2.0),
        ("augmented_chebyshev", -0.125 - 0.05 * 0.125, -2.0 - 0.05 * 2.125),
        ("chebyshev reward.combine.ideal.loops=-0.25", 0.0, -2.0),
        ("gated", 0.875, -1.125),
        ("gated reward.combine.gate=loops reward.combine.threshold=0", -0.125, -1.125),
        ("constrained reward.combine.floors.loops=-0.125 reward.combine.penalty=2", 0.625, -1.375),
        ("normalized_sum", math.sqrt(0.5), -math.sqrt(0.5)),
    ],
)
def test_parts_are_combined_as_configured(combine: str, right: float, wrong: float):
    words = ["reward.parts.loops.kind=repetition", "reward.parts.loops.ngram_size=1", "reward.parts.loops.weight=0.5"]
    found = scores(
        [*words, *f"reward.combine.name={combine}".split()], completion("a a Answer: 4"), completion("b b Answer: 5")
    )
    assert [s.parts for s in found] == [{"answer": 1.0, "loops": -0.25}, {"answer": -1.0, "loops": -0.25}]
    assert [s.total for s in found] == pytest.approx([right, wrong], abs=1e-5)
    assert [s.raw for s in found] == [1.0, -1.0]


@pytest.mark.parametrize(
    ("words", "pair"),
    [
        ("reward.format.pattern=x", None),
        ("reward.parts.truncated.weight=1", ("answer", "truncated")),
        ("reward.parts.truncated.weight=1 reward.task=truncated", ("truncated", "answer")),
        ("reward.parts.truncated.weight=1 reward.style=none", None),
    ],
)
def test_the_task_metric_and_the_next_part_are_drawn_against_each_other(words: str, pair: tuple[str, str] | None):
    assert config(*words.split()).reward.pair == pair


@pytest.mark.parametrize(
    ("words", "overlaps"),
    [
        ("", True),
        ("objective.overlong.buffer=8 reward.parts.length.target=50 reward.parts.repetition.ngram_size=3", True),
        ("reward.style=none reward.parts.own.function={plugin}", True),
        ("reward.parts.own.function={plugin} reward.parts.own.isolated=false", False),
        ("reward.format.pattern=(a*)*b", False),
    ],
)
def test_only_what_needs_no_main_thread_is_graded_beside_the_engine(plugin: str, words: str, overlaps: bool):
    reward = make_reward(config(*words.format(plugin=plugin).split()))
    assert reward.overlaps is overlaps
    reward.close()


def test_the_weight_of_a_part_is_unknown_to_the_record_where_it_is_no_constant_factor():
    words = ["reward.parts.truncated.weight.start=1", "reward.parts.truncated.weight.end=0"]
    scheduled = config(*words, "reward.parts.truncated.weight.steps=10")
    assert reward_parts(scheduled) == {"answer": (1.0, True), "truncated": (None, False)}
    assert reward_parts(config("reward.combine.name=gated")) == {"answer": (None, True)}


def test_a_scheduled_weight_follows_the_version_of_the_policy():
    words = ["reward.weight.start=1", "reward.weight.end=0.5", "reward.weight.steps=10"]
    found = scores(words, *(completion("Answer: 4", version=version) for version in (0, 5, 10, 50)))
    assert [s.total for s in found] == pytest.approx([1.0, 0.75, 0.5, 0.5])


def test_every_way_of_writing_it_down_reads_back_as_itself(tmp_path: Path):
    words = ["reward.parts.loops.kind=repetition", "reward.parts.f.function=a.py:f", "reward.parts.f.args.n=4"]
    words += ["reward.weight.start=1", "reward.weight.end=0", "reward.weight.steps=9", "reward.combine.name=gated"]
    written = config(*words)
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(resolved(written)))
    assert load_config([str(path)]) == written


def test_arguments_typed_as_text_are_the_numbers_that_they_spell():
    words = [f"reward.parts.f.args.{word}" for word in ("n=4", "eps=1e-6", "on=true", "name=x1", "text=NaN")]
    (part,) = config("reward.parts.f.function=a.py:f", *words).reward.parts.values()
    assert part.args == {"n": 4, "eps": 1e-6, "on": True, "name": "x1", "text": "NaN"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("reward.style=none", "Type reward.parts.NAME.function=FILE.py:NAME"),
        ("reward.parts.clarity.weight=1", "reward.parts.clarity does not say what it is"),
        ("reward.parts.length.weight=1", "reward.parts.length.target is not given"),
        ("reward.parts.answer.kind=truncated", "a part 'answer', which has keys of its own"),
        (
            "reward.parts.f.function=a.py:f reward.parts.f.entries.answer=1",
            "two parts of the reward are named 'answer'",
        ),
        ("reward.parts.f.function=a.py:f reward.parts.f.wieght=1", "did you mean 'reward.parts.<name>.weight'"),
        ("reward.parts.repetition.ngram_size=0", "reward.parts.repetition.ngram_size: found '0'"),
        ("reward.parts.good_accuracy.max_penalty=1", "reward.parts.good_accuracy.max_penalty: found '1'"),
        ("reward.weight=heavy", "found 'heavy' as a weight"),
        ("reward.task=acc", "reward.task names 'acc', and the parts of the reward are answer"),
        ("reward.combine.name=gated reward.combine.gate=acc", "reward.combine.gate names 'acc'"),
        ("reward.combine.name=constrained reward.combine.floors.acc=1", "reward.combine.floors names 'acc'"),
        ("reward.combine.name=constrained", "reward.combine.floors is not given"),
        ("reward.combine.name=chebyshev reward.weight=-1", "needs weights of at least 0"),
        ("reward.combine.name=lexicographic", "'chebyshev'"),
        ("reward.combine.name=gated reward.combine.rho=1", "unknown key 'reward.combine.rho'"),
    ],
)
def test_a_mistake_is_named_with_what_to_type(words: str, message: str):
    with pytest.raises(ConfigError) as caught:
        config(*words.split())
    assert message in str(caught.value)


@pytest.mark.parametrize("part", ["text", ["list"], {"kind": "format"}])
def test_a_part_that_is_none_is_refused(part: object):
    with pytest.raises(ConfigError, match=r"reward\.parts\.x"):
        validate({"reward": {"parts": {"x": part}}})
