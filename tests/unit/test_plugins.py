"""A user's reward function: found, called as its signature wants, read, bounded, never turned into a wrong number."""

from __future__ import annotations

import hashlib
import os
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from burnish.algorithms.scalarize import Weight
from burnish.rewards.adapters import Adapted, adapt
from burnish.rewards.compose import FunctionReward, Part, PartsReward
from burnish.rewards.measured import Measured, read
from burnish.rewards.plugins import Plugin
from burnish.rewards.trial import try_out
from burnish.types import Completion, Prompt

PROMPT = Prompt(id="aime24_001", text="Solve it", answer="540", meta={"data_source": "aime", "level": 3})
CHAT = Prompt(id="c-1", messages=({"role": "user", "content": "Solve it"},), answer="540")
SECONDS = 5.0

DOCUMENT_002 = """
def compute_score(split: str, solution_str: str, ground_truth: str, info: dict) -> dict:
    correctness = 1.0 if ground_truth and ground_truth.strip() in solution_str else 0.0
    clarity     = min(1.0, solution_str.count("\\n") / 8.0 + 0.2)
    detail      = min(1.0, len(solution_str) / 1200.0)
    creativity  = 0.5 if ("alternative" in solution_str.lower() or "another approach" in solution_str.lower()) else 0.2
    w = {"correctness": 0.5, "clarity": 0.25, "detail": 0.15, "creativity": 0.10}
    score = (
        w["correctness"] * correctness +
        w["clarity"]     * clarity +
        w["detail"]      * detail +
        w["creativity"]  * creativity
    )
    return {
        "score": float(score),
        "breakdown": {
            "correctness": float(correctness),
            "clarity": float(clarity),
            "detail": float(detail),
            "creativity": float(creativity),
        }
    }
"""
EXAMPLE_A = ("Answer: 540" + "\n" * 10 + "Alternative approach").ljust(900, ".")
EXAMPLE_B = ("wrong" + "\n" * 12).ljust(1300, ".")


def completion(text: str, version: int = 0) -> Completion:
    return Completion(array("i", [9]), array("i", [1, 2]), array("f", [-0.5, -0.25]), text, "stop", version)


def adapted(function: Callable[..., Any], **args: Any) -> Adapted:
    return adapt(function, name="rewards.py:f", args=args)


def values(function: Callable[..., Any], *texts: str, prompt: Prompt = PROMPT, **args: Any) -> list[float | None]:
    found = adapted(function, **args).measure(prompt, [completion(text) for text in texts], seconds=SECONDS)
    assert [m.message for m in found] == [""] * len(texts)
    return [m.value for m in found]


# -- conventions -------------------------------------------------------------------------------------------------------


def test_verls_convention_is_called_by_keyword_with_what_it_names() -> None:
    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        assert (data_source, extra_info) == ("aime", {"data_source": "aime", "level": 3})
        return float(solution_str == ground_truth)

    assert adapted(compute_score).convention == "verl"
    assert values(compute_score, "540", "7") == [1.0, 0.0]
    assert values(lambda solution_str: len(solution_str), "540") == [3.0]


def test_extra_info_is_the_rows_column_where_there_is_one() -> None:
    prompt = Prompt(id="p", text="?", meta={"extra_info": {"index": 7}})
    assert values(lambda solution_str, extra_info: extra_info["index"], "", prompt=prompt) == [7.0]


def test_a_function_with_kwargs_gets_everything_of_its_convention() -> None:
    def compute_score(solution_str, **kwargs):
        assert sorted(kwargs) == ["data_source", "extra_info", "ground_truth"]
        return 1

    assert values(compute_score, "x") == [1.0]


def test_the_convention_of_document_002_is_called_by_position() -> None:
    def compute_score(split, response, gold, info):
        assert (split, gold, info["qid"], info["prompt"], info["level"]) == (
            "train",
            "540",
            "aime24_001",
            "Solve it",
            3,
        )
        return {"score": len(response), "breakdown": {"clarity": 0.5}}

    assert adapted(compute_score).convention == "split_info"
    assert values(compute_score, "four") == [4.0]


def test_document_002s_names_are_found_in_any_order() -> None:
    def compute_score(info, ground_truth, solution_str, split):
        return float(split == "train" and solution_str == ground_truth and info["qid"] == "aime24_001")

    assert values(compute_score, "540") == [1.0]


def test_trls_convention_gets_lists_columns_and_texts() -> None:
    def reward(completions, prompts, level, solution, completion_ids, trainer_state, **kwargs):
        assert prompts == ["Solve it", "Solve it"]
        assert (level, solution, completion_ids) == ([3, 3], ["540", "540"], [[1, 2], [1, 2]])
        assert kwargs["data_source"] == ["aime", "aime"]
        assert trainer_state.global_step == 4
        return [1.0 if text == "540" else None for text in completions]

    found = adapted(reward).measure(PROMPT, [completion("540", 4), completion("7", 4)], seconds=SECONDS)
    assert [(m.value, m.status) for m in found] == [(1.0, "ok"), (None, "ok")]


def test_trls_convention_gets_messages_where_the_prompt_is_a_conversation() -> None:
    def my_custom_reward(completions, solution, **kwargs):  # document 004
        assert kwargs["prompts"][0] == [{"role": "user", "content": "Solve it"}]
        return [float(comp[0]["content"] == sol) for comp, sol in zip(completions, solution, strict=True)]

    assert values(my_custom_reward, "540", "7", prompt=CHAT) == [1.0, 0.0]


def test_what_trls_functions_log_becomes_parts() -> None:
    def reward(completions, log_extra, log_metric):
        log_extra("length", [len(text) for text in completions])
        log_extra("note", ["seen" for _ in completions])
        log_metric("share", 0.5)
        return [1.0 for _ in completions]

    found = adapted(reward).measure(PROMPT, [completion("540"), completion("7")], seconds=SECONDS)
    assert [m.parts for m in found] == [{"length": 3.0, "share": 0.5}, {"length": 1.0, "share": 0.5}]


def test_a_column_that_the_row_lacks_is_named() -> None:
    found = adapted(lambda completions, difficulty: [1.0]).measure(PROMPT, [completion("")], seconds=SECONDS)
    assert found[0].status == "invalid"
    assert "wants 'difficulty', and the row has no such column" in found[0].message


def test_a_function_that_knows_both_ways_is_called_once_per_completion() -> None:
    def good_accuracy(completions=None, solution=None, solution_str=None, ground_truth=None, **kwargs):
        assert completions is None
        return {"score": float(solution_str == ground_truth), "acc": solution_str == ground_truth}

    assert adapted(good_accuracy).convention == "verl"
    assert values(good_accuracy, "540", "7") == [1.0, 0.0]


def test_our_own_convention_gets_the_objects_themselves() -> None:
    def reward(completion, prompt):
        return len(completion.token_ids) if prompt is PROMPT else 0

    assert adapted(reward).convention == "native"
    assert values(reward, "x") == [2.0]


def test_asynchronous_functions_run_at_the_same_time_in_one_event_loop() -> None:
    import asyncio

    loops, arrived = set(), []

    async def reward(solution_str):
        loops.add(id(asyncio.get_running_loop()))
        arrived.append(solution_str)
        while len(arrived) < 3:  # ends only if all three are under way together
            await asyncio.sleep(0.001)
        return float(solution_str)

    ask = adapted(reward)
    for _ in range(2):
        found = ask.measure(PROMPT, [completion(text) for text in "123"], seconds=SECONDS)
        assert [m.value for m in found] == [1.0, 2.0, 3.0]
    ask.close()
    assert len(loops) == 1


def test_an_asynchronous_call_that_is_late_is_a_timeout_and_its_siblings_are_scored() -> None:
    import asyncio

    async def reward(solution_str):
        await asyncio.sleep(float(solution_str))
        return 1.0

    ask = adapted(reward)
    late, done = ask.measure(PROMPT, [completion("60"), completion("0")], seconds=0.2)
    ask.close()
    assert (late.status, late.value, done.value) == ("timeout", None, 1.0)
    assert "0.2 s" in late.message


def test_an_asynchronous_batched_function_is_awaited() -> None:
    async def reward(completions):
        return [float(len(text)) for text in completions]

    ask = adapted(reward)
    assert [m.value for m in ask.measure(PROMPT, [completion("540"), completion("")], seconds=SECONDS)] == [3.0, 0.0]
    ask.close()


def test_arguments_of_the_configuration_win_over_what_a_call_would_pass() -> None:
    assert values(lambda solution_str, scale=1.0: scale, "x", scale=3.0) == [3.0]
    assert values(lambda solution_str, data_source: len(data_source), "x", data_source="mine!") == [5.0]
    assert values(lambda completions, level: level[:1], "x", level=[8]) == [8.0]
    assert values(lambda prompt, completion, bonus: bonus, "x", bonus=2) == [2.0]


@pytest.mark.parametrize(
    ("function", "args", "words"),
    [
        (lambda text, gold: 1.0, {}, r"takes \(text, gold\); a reward function takes \(prompt, completion\)"),
        (lambda solution_str, tokenizer: 1.0, {}, "wants 'tokenizer', which nothing gives"),
        (lambda solution_str, scale=1.0: 1.0, {"scael": 2}, "does not take 'scael'.*did you mean 'scale'"),
        (lambda completions: [1.0], {"depth": 2}, r"does not take 'depth'.*it takes \(completions\)"),
        (lambda prompt, completion, judge: 1.0, {}, "wants 'judge'"),
    ],
)
def test_a_signature_that_cannot_be_called_is_refused(function: Any, args: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        adapt(function, name="rewards.py:f", args=args)


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        (1, 1.0),
        (True, 1.0),
        (-0.5, -0.5),
        (None, None),
        (np.float32(0.25), 0.25),
        (np.int64(2), 2.0),
        (np.bool_(True), 1.0),
        (np.array(0.75), 0.75),
        ({"score": np.float64(0.5)}, 0.5),
        ({"score": None, "clarity": 1}, None),
    ],
)
def test_numbers_of_any_kind_are_values(returned: Any, value: float | None) -> None:
    measured = read(returned)
    assert (measured.value, measured.status) == (value, "ok")


def test_a_zero_dimensional_tensor_is_a_value_and_a_larger_one_is_not() -> None:
    import torch

    assert read(torch.tensor(0.5)).value == 0.5
    assert read(torch.ones(2)).status == "invalid"


def test_a_mapping_gives_its_score_its_numbers_and_its_answer() -> None:
    returned = {"score": 0.9, "breakdown": {"clarity": 1, "detail": 0.5}, "acc": True, "pred": "540", "log": [1, 2]}
    assert read(returned) == Measured(0.9, parts={"clarity": 1.0, "detail": 0.5, "acc": 1.0}, answer="540")


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (float("nan"), "returned nan; it needs a finite number within 10,000, None, or a mapping"),
        (float("inf"), "returned inf"),
        (1e38, "returned 1e+38"),
        (10**400, "returned 1000"),
        ("1.0", "returned '1.0'"),
        ([1.0], "returned [1.0]"),
        ((True, "x"), "returned (True, 'x')"),
        ({"points": 1.0}, "returned a mapping with ['points']; it needs an entry 'score'"),
        ({"score": "1.0"}, "returned score '1.0'"),
        ({"score": 1.0, "clarity": float("nan")}, "returned clarity nan"),
        ({"score": 1.0, "breakdown": {"clarity": 1e6}}, "returned clarity 1000000.0"),
    ],
)
def test_a_result_that_is_no_usable_number_is_invalid_and_shown(returned: Any, words: str) -> None:
    measured = read(returned)
    assert (measured.value, measured.status) == (None, "invalid")
    assert words in measured.message


@pytest.mark.parametrize(
    ("returned", "words"), [([1.0], "returned 1 rewards for 2 completions"), (1.0, "returned 1.0; it needs a list")]
)
def test_a_batch_of_the_wrong_size_is_invalid_for_all(returned: Any, words: str) -> None:
    found = adapted(lambda completions: returned).measure(PROMPT, [completion("")] * 2, seconds=SECONDS)
    assert [m.status for m in found] == ["invalid"] * 2
    assert words in found[0].message


# -- plugins -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Plugin]]:
    """Writes a file and loads its function."""
    made: list[Plugin] = []

    def loaded(code: str, function: str = "reward", **settings: Any) -> Plugin:
        path = tmp_path / "my_rewards.py"
        path.write_text(code)
        plugin = Plugin(f"{path}:{function}", **{"seconds": SECONDS, **settings})
        made.append(plugin)
        return plugin

    yield loaded
    for plugin in made:
        plugin.close()


@pytest.mark.parametrize("isolated", [True, False])
def test_the_worked_examples_of_document_002_run_as_they_are_written(
    load: Callable[..., Plugin], isolated: bool
) -> None:
    plugin = load(DOCUMENT_002, "compute_score", isolated=isolated)
    first, second = PartsReward([Part("quality", plugin)], task="correctness")(
        PROMPT, [completion(EXAMPLE_A), completion(EXAMPLE_B)]
    )
    assert first.total == pytest.approx(0.9125)
    assert dict(first.parts) == pytest.approx(
        {"quality": 0.9125, "correctness": 1.0, "clarity": 1.0, "detail": 0.75, "creativity": 0.5}
    )
    assert second.total == pytest.approx(0.42)
    assert dict(second.parts) == pytest.approx(
        {"quality": 0.42, "correctness": 0.0, "clarity": 1.0, "detail": 1.0, "creativity": 0.2}
    )
    assert [(s.raw, s.status) for s in (first, second)] == [(1.0, "ok"), (0.0, "wrong")]


def test_the_entries_of_document_002_can_be_weighed_here(load: Callable[..., Plugin]) -> None:
    weights = {"correctness": 0.5, "clarity": 0.25, "detail": 0.15, "creativity": 0.1}
    plugin = load(DOCUMENT_002, "compute_score", entries=tuple(weights))
    part = Part("quality", plugin, Weight.constant(0.0), {n: Weight.constant(w) for n, w in weights.items()})
    found = PartsReward([part], task="correctness")(PROMPT, [completion(EXAMPLE_A), completion(EXAMPLE_B)])
    assert [s.total for s in found] == pytest.approx([0.9125, 0.42])


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    ("code", "convention"),
    [
        ("def reward(data_source, solution_str, ground_truth, extra_info): return len(solution_str)", "verl"),
        ("def reward(split, solution_str, ground_truth, info): return {'score': len(solution_str)}", "split_info"),
        ("def reward(completions, **columns): return [len(text) for text in completions]", "trl"),
        ("def reward(prompt, completion): return len(completion.text)", "native"),
        ("async def reward(solution_str): return len(solution_str)", "verl"),
    ],
)
def test_every_convention_works_in_either_process(
    load: Callable[..., Plugin], code: str, convention: str, isolated: bool
) -> None:
    plugin = load(code, isolated=isolated)
    assert [m.value for m in plugin(PROMPT, [completion("540"), completion("7")])] == [3.0, 1.0]
    assert f"called as {convention}" in str(plugin)


def test_a_prompt_and_a_completion_cross_to_the_child_whole(load: Callable[..., Plugin]) -> None:
    code = """
def reward(prompt, completion):
    assert (prompt.id, prompt.answer, prompt.meta["level"], prompt.text) == ("aime24_001", "540", 3, "Solve it")
    assert completion.token_ids.tolist() == [1, 2] and completion.logprobs.tolist() == [-0.5, -0.25]
    assert completion.prompt_ids.tolist() == [9] and completion.finish_reason == "stop"
    return completion.policy_version
"""
    (measured,) = load(code)(PROMPT, [completion("", version=7)])
    assert measured == Measured(7.0, ms=measured.ms)


def test_the_header_says_which_code_is_trusted(load: Callable[..., Plugin], tmp_path: Path) -> None:
    plugin = load("def reward(solution_str): return 1.0")
    path = tmp_path / "my_rewards.py"
    assert f"{path}:reward (sha256 {hashlib.sha256(path.read_bytes()).hexdigest()})" in str(plugin)
    assert "trusted code" in str(plugin)


def test_a_plugin_runs_in_a_process_of_its_own_unless_told_otherwise(load: Callable[..., Plugin]) -> None:
    code = "import os\ndef reward(solution_str): return {'score': 0.0, 'pred': str(os.getpid())}"
    (apart,), (here,) = (load(code, isolated=isolated)(PROMPT, [completion("")]) for isolated in (True, False))
    assert apart.answer != str(os.getpid())
    assert here.answer == str(os.getpid())


def test_a_call_that_hangs_is_killed_and_its_siblings_are_scored(load: Callable[..., Plugin]) -> None:
    code = """
def reward(solution_str):
    while solution_str == "hang":
        pass
    return 1.0
"""
    plugin = load(code, seconds=1.0)
    found = plugin(PROMPT, [completion("x"), completion("hang"), completion("x")])
    assert [(m.status, m.value) for m in found] == [("ok", 1.0), ("timeout", None), ("ok", 1.0)]
    assert "my_rewards.py:reward, completion 1: " in found[1].message


def test_a_call_that_ends_its_process_is_an_error_and_the_next_is_scored(load: Callable[..., Plugin]) -> None:
    plugin = load("import os\ndef reward(solution_str): return 1.0 if solution_str else os._exit(3)")
    found = plugin(PROMPT, [completion(""), completion("x")])
    assert [(m.status, m.value) for m in found] == [("error", None), ("ok", 1.0)]


@pytest.mark.parametrize("isolated", [True, False])
def test_a_fault_names_file_function_completion_and_value(load: Callable[..., Plugin], isolated: bool) -> None:
    plugin = load("def reward(solution_str): return 1 / int(solution_str) * float('nan')", isolated=isolated)
    broken, invalid = plugin(PROMPT, [completion("0"), completion("1")])
    assert broken.status == "error"
    assert broken.message.endswith("my_rewards.py:reward, completion 0: raised ZeroDivisionError: division by zero")
    assert invalid.status == "invalid"
    assert "my_rewards.py:reward, completion 1: returned nan; it needs a finite number" in invalid.message


def test_an_entry_that_the_configuration_names_must_be_returned(load: Callable[..., Plugin]) -> None:
    plugin = load("def reward(solution_str): return {'score': 1.0, 'clarity': 0.5}", entries=("clarty",))
    (measured,) = plugin(PROMPT, [completion("")])
    assert measured.status == "invalid"
    assert "no entry 'clarty', which the configuration names (entries: clarity)" in measured.message


def test_a_plugin_may_import_its_neighbours_and_a_large_library(load: Callable[..., Plugin], tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_rewards.py").write_text("VALUE = 0.5")
    code = "import torch\nimport neighbour_of_rewards as n\ndef reward(solution_str): return torch.tensor(n.VALUE)"
    (measured,) = load(code, seconds=60.0)(PROMPT, [completion("")])
    assert (measured.value, measured.message) == (0.5, "")


def test_arguments_reach_the_function(load: Callable[..., Plugin]) -> None:
    code = "def reward(solution_str, scale, names=()): return scale * len(names)"
    (measured,) = load(code, args={"scale": 0.5, "names": ["a", "b"]})(PROMPT, [completion("")])
    assert measured.value == 1.0


@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize(
    ("code", "function", "words"),
    [
        ("def reward(solution_str): return 1.0", "rewrad", "no function 'rewrad'; did you mean 'reward'"),
        ("def reward(:", "reward", "cannot be loaded: SyntaxError"),
        ("import no_such_module", "reward", "cannot be loaded: ModuleNotFoundError"),
        ("def reward(a, b): return 1.0", "reward", r"my_rewards.py:reward takes \(a, b\)"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_refused_when_it_is_loaded(
    load: Callable[..., Plugin], code: str, function: str, words: str, isolated: bool
) -> None:
    with pytest.raises(ValueError, match=words):
        load(code, function, isolated=isolated)


@pytest.mark.parametrize("target", ["rewards.py", "rewards.py:", ":f", "rewards.py:a-b"])
def test_a_target_written_in_another_way_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"path/to/file.py:function|there is no file"):
        Plugin(target, seconds=SECONDS)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*nowhere.py"):
        Plugin(f"{tmp_path}/nowhere.py:f", seconds=SECONDS)


def test_a_file_that_changed_is_not_loaded_again_in_silence(load: Callable[..., Plugin], tmp_path: Path) -> None:
    plugin = load("import os\ndef reward(solution_str): return 1.0 if solution_str else os._exit(3)")
    (tmp_path / "my_rewards.py").write_text("def reward(solution_str): return 2.0")
    dead, after = plugin(PROMPT, [completion(""), completion("x")])
    assert (dead.status, after.status, after.value) == ("error", "error", None)
    assert "changed while the run was going on" in after.message


def test_a_column_that_cannot_be_sent_is_refused_with_what_to_type(load: Callable[..., Plugin]) -> None:
    plugin = load("def reward(solution_str): return 1.0")
    with pytest.raises(ValueError, match=r"a column of prompt p cannot be sent.*isolated=false"):
        plugin(Prompt(id="p", text="?", meta={"when": {1, 2}}), [completion("")])


def test_what_a_plugin_prints_does_not_disturb(load: Callable[..., Plugin]) -> None:
    (measured,) = load("def reward(solution_str):\n    print('{\"value\": 9}')\n    return 1.0")(
        PROMPT, [completion("")]
    )
    assert measured.value == 1.0


def test_closing_a_plugin_leaves_no_process(load: Callable[..., Plugin]) -> None:
    code = "import os\ndef reward(solution_str): return {'score': 0.0, 'pred': str(os.getpid())}"
    plugin = load(code)
    (measured,) = plugin(PROMPT, [completion("")])
    assert measured.answer is not None
    plugin.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int(measured.answer), 0)


# -- a reward tried out ------------------------------------------------------------------------------------------------


def test_a_deterministic_reward_passes_in_silence() -> None:
    assert try_out(FunctionReward(lambda prompt, completion: len(completion.text)), [PROMPT, CHAT]) == []


def test_a_reward_with_moods_is_noticed() -> None:
    calls = iter(range(100))
    (remark,) = try_out(FunctionReward(lambda prompt, completion: next(calls)), [PROMPT, CHAT])
    assert "not deterministic: on one completion of prompt aime24_001 it gave total 0.0, score 0.0, then" in remark


def test_a_reward_that_fails_is_noticed_with_its_words() -> None:
    def reward(prompt, completion):
        raise LookupError("no judge at this address")

    assert try_out(FunctionReward(reward), [PROMPT]) == [
        "the reward failed on prompt aime24_001 with error: raised LookupError: no judge at this address"
    ]


def test_only_the_first_prompts_are_tried() -> None:
    seen: list[str] = []

    def reward(prompt, completion):
        seen.append(prompt.id)
        return 1.0

    try_out(FunctionReward(reward), [Prompt(id=f"p-{i}", text="?") for i in range(9)])
    assert set(seen) == {"p-0", "p-1"}


def test_the_adapters_load_no_tensor_library() -> None:
    import subprocess

    code = "import sys, burnish.rewards.plugins, burnish.rewards.good_accuracy; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
