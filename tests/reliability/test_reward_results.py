"""Whatever a function returns or does becomes a usable number or a fault that says what happened, and never a zero."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from burnish.batch import collate
from burnish.rewards.compose import Part, PartsReward
from burnish.rewards.faults import Judged
from burnish.rewards.plugins import Plugin
from burnish.types import Group, Prompt, Rollout
from tests.e2e.conftest import TINY_STEPS, Command
from tests.fakes import make_run
from tests.reliability.test_reward_deadlines import completion

PROMPT = Prompt("sum-11", text="1+1", answer="2")
SINGLE = "import ctypes, decimal, math, os, sys\nimport numpy as np\ndef reward(solution_str):\n"
SINGLE += "    if solution_str != 'bad': return 1.0\n    {}\n"
BATCH = "import numpy as np\ndef reward(completions, **columns):\n    {}\n"

OK, ERROR, INVALID = "ok", "error", "invalid"
RETURNED: dict[str, tuple[str, str, float | None, str]] = {
    "nan": ("return math.nan", INVALID, None, "returned nan; it needs a finite number within 10,000"),
    "inf": ("return math.inf", INVALID, None, "returned inf; it needs a finite number"),
    "-inf": ("return -math.inf", INVALID, None, "returned -inf; it needs a finite number"),
    "1e38": ("return 1e38", INVALID, None, "returned 1e+38; it needs a finite number within 10,000"),
    "none": ("return None", OK, None, ""),
    "text": ("return '1.0'", INVALID, None, "returned '1.0'; it needs a finite number"),
    "score": ("return {'score': 0.5, 'form': 1}", OK, 0.5, ""),
    "no-score": ("return {'points': 0.5}", INVALID, None, "returned a mapping with ['points']; it needs an entry"),
    "one-row": ("return np.ones((1, 1))", INVALID, None, "returned array([[1.]]); it needs a finite number"),
    "a-generator": ("return (x for x in (1.0,))", INVALID, None, "returned <generator object"),
    "bool": ("return True", OK, 1.0, ""),
    "decimal": ("return decimal.Decimal('0.25')", OK, 0.25, ""),
    "numpy": ("return np.float32(0.5)", OK, 0.5, ""),
    "0-d": ("return np.array(0.5)", OK, 0.5, ""),
    "raises": ("raise LookupError('no judge')", ERROR, None, "raised LookupError: no judge"),
}  # fmt: skip
ENDED = {
    "system-exit": ("sys.exit('leaving')", "SystemExit: leaving"),
    "os-exit": ("os._exit(3)", "the grading process died: exit code 3"),
    "segfault": ("ctypes.string_at(0)", "the grading process died: killed by SIGSEGV"),
}
BATCHES: dict[str, tuple[str, str, float | None, str]] = {
    "short": ("return [1.0] * 2", INVALID, None, "returned 2 rewards for 3 completions"),
    "long": ("return [1.0] * 4", INVALID, None, "returned 4 rewards for 3 completions"),
    "endless": ("return iter(int, 1)", INVALID, None, "returned more than 3 rewards for 3 completions"),
    "2-d": ("return np.ones((3, 1))", INVALID, None, "returned array([1.]); it needs a finite number"),
    "array": ("return np.ones(3)", OK, 1.0, ""),
    "generator": ("return (1.0 for _ in completions)", OK, 1.0, ""),
    "broken-generator": ("return (1 / 0 for _ in completions)", ERROR, None, "raised ZeroDivisionError"),
    "number": ("return 1.0", INVALID, None, "returned 1.0; it needs a list with one entry per completion"),
    "scalar": ("return np.float64(1.0)", INVALID, None, "it needs a list with one entry per completion"),
    "batch-text": ("return 'abc'", INVALID, None, "returned 'abc'; it needs a list with one entry per completion"),
    "batch-dict": ("return {'score': [1, 1, 1]}", INVALID, None, "it needs a list with one entry per completion"),
}


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[[str, bool], Plugin]]:
    made: list[Plugin] = []

    def loaded(code: str, isolated: bool) -> Plugin:
        path = tmp_path / "rewards.py"
        path.write_text(code)
        made.append(Plugin(f"{path}:reward", seconds=60.0, isolated=isolated))
        return made[-1]

    yield loaded
    for plugin in made:
        plugin.close()


@pytest.mark.reliability(12)
@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("kind", RETURNED)
def test_one_completions_result(kind: str, isolated: bool, load: Callable[[str, bool], Plugin]) -> None:
    body, status, value, words = RETURNED[kind]
    good, bad, after = load(SINGLE.format(body), isolated)(PROMPT, [completion(t) for t in ("x", "bad", "x")])
    assert (good.value, after.value) == (1.0, 1.0)
    assert (bad.status, bad.value) == (status, value)
    assert words in bad.message
    if status != OK:
        assert "rewards.py:reward, completion 1: " in bad.message


@pytest.mark.reliability(12)
@pytest.mark.parametrize("kind", ENDED)
def test_a_function_that_ends_its_process(kind: str, load: Callable[[str, bool], Plugin]) -> None:
    body, words = ENDED[kind]
    good, bad, after = load(SINGLE.format(body), True)(PROMPT, [completion(t) for t in ("x", "bad", "x")])
    assert (good.value, bad.value, after.value) == (1.0, None, 1.0)
    assert bad.status == ERROR
    assert f"rewards.py:reward, completion 1: {words}" in bad.message


def test_a_function_in_this_process_may_end_it(load: Callable[[str, bool], Plugin]) -> None:
    with pytest.raises(SystemExit, match="leaving"):
        load(SINGLE.format(ENDED["system-exit"][0]), False)(PROMPT, [completion("bad")])


@pytest.mark.reliability(12)
@pytest.mark.parametrize("isolated", [True, False])
@pytest.mark.parametrize("kind", BATCHES)
def test_a_batchs_results(kind: str, isolated: bool, load: Callable[[str, bool], Plugin]) -> None:
    body, status, value, words = BATCHES[kind]
    found = load(BATCH.format(body), isolated)(PROMPT, [completion(t) for t in "abc"])
    assert [(m.status, m.value) for m in found] == [(status, value)] * 3
    assert all(words in m.message for m in found)


# -- what follows for the run ------------------------------------------------------------------------------------------


@pytest.mark.reliability(12)
@pytest.mark.parametrize("kind", [kind for kind, row in RETURNED.items() if row[1] != OK])
def test_a_dropped_completion_has_no_advantage_and_no_part_in_its_siblings(
    kind: str, load: Callable[[str, bool], Plugin]
) -> None:
    code = SINGLE.replace("return 1.0", "return float(solution_str)").format(RETURNED[kind][0])
    reward = Judged(PartsReward([Part("own", load(code, False))]), fails=False)
    texts = ["1", "bad", "0", "0"]
    completions = [completion(text) for text in texts]
    with_it = Group(0, PROMPT, tuple(map(Rollout, completions, reward(PROMPT, completions))))
    without = replace(with_it, rollouts=tuple(r for r in with_it.rollouts if r.completion.text != "bad"))
    objective = make_run(lambda *_: "yes").objective
    one, other = (objective.prepare(collate([group]), None) for group in (with_it, without))
    kept = [0, 2, 3]
    assert one.advantages_N[kept].tolist() == other.advantages_N.tolist()
    assert one.advantages_N[1] == 0.0


@pytest.fixture
def words(tmp_path: Path, model_dir: Callable[[str], Path], sums: Path) -> list[str]:
    """A tiny run whose function cannot grade completions that end in 7."""
    (tmp_path / "rewards.py").write_text(
        "def reward(solution_str, ground_truth):\n"
        "    return float('nan') if solution_str.endswith('7') else float(ground_truth in solution_str)"
    )
    return [
        *(*TINY_STEPS, f"model.path={model_dir('qwen3')}", f"data.train={sums}", f"out={tmp_path / 'run'}"),
        *("reward.style=none", "objective.overlong.buffer=0"),
        f"reward.parts.own.function={tmp_path / 'rewards.py'}:reward",
    ]


def faults_of(folder: Path) -> list[tuple[float | None, float | None, str]]:
    db = sqlite3.connect(folder / "run.sqlite")
    found = db.execute("SELECT total, raw, message FROM rollouts_v WHERE status = 'invalid'").fetchall()
    db.close()
    return found


@pytest.mark.slow
@pytest.mark.reliability(12)
@pytest.mark.parametrize(
    ("policy", "code", "score"),
    [("fail", 3, None), ("drop", 0, None), ("score:-0.5", 0, -0.5)],
)
def test_the_run_does_what_its_policy_says(
    burnish: Command, words: list[str], tmp_path: Path, policy: str, code: int, score: float | None
) -> None:
    ended = burnish("train", *words, f"reward.on_fault={policy}", "reward.max_fault_rate=1")
    assert ended.code == code, ended.err
    if policy == "fail":
        assert "rewards.py:reward, completion " in ended.err
        assert "returned nan" in ended.err
        return
    found = faults_of(tmp_path / "run")
    assert found
    assert {row[:2] for row in found} == {(score, score)}
    assert all("rewards.py:reward, completion " in row[2] and "returned nan" in row[2] for row in found)


@pytest.mark.slow
@pytest.mark.reliability(12)
def test_too_many_faults_in_a_step_stop_the_run_and_leave_the_record(
    burnish: Command, words: list[str], tmp_path: Path
) -> None:
    ended = burnish("train", *words, "reward.on_fault=drop", "reward.max_fault_rate=0.01")
    assert ended.code == 3
    assert "completions could not be graded" in ended.err
    assert "reward.max_fault_rate is 1.0%" in ended.err
    assert faults_of(tmp_path / "run")


@pytest.mark.parametrize("policy", ["ignore", "score", "score:", "score:x", "score:nan", "score:inf", "zero:1"])
def test_a_policy_written_in_another_way_is_wrong_usage(burnish: Command, words: list[str], policy: str) -> None:
    ended = burnish("train", *words, f"reward.on_fault={policy}")
    assert ended.code == 2
    assert "it needs fail, drop, or score: and a number" in ended.err
