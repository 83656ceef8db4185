"""A function with state goes on where it was, one that hides its state is found out, and no draw of a function moves
those of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.rewards.compose import FunctionReward, Part, PartsReward
from burnish.rewards.plugins import Plugin
from burnish.rewards.trial import try_out
from burnish.store import queries
from burnish.store.compare import first_divergence
from tests.e2e.conftest import TINY_STEPS, Command
from tests.e2e.test_resume import assert_same_run, stop_at
from tests.reliability.test_reward_deadlines import PROMPT, completion

__all__ = ["stop_at"]

COUNTING = """
import os, random
rng, calls = random.Random(7), 0
def reward(solution_str):
    global calls
    if solution_str == "die":
        os._exit(3)
    calls += 1
    return float(calls)
"""
DECLARED = """
def state_dict():
    return {"calls": calls, "rng": rng.getstate()}
def load_state_dict(state):
    global calls
    calls = state["calls"]
    version, numbers, gauss = state["rng"]
    rng.setstate((version, tuple(numbers), gauss))
"""
IN_AN_OBJECT = """
class Counting:
    def __init__(self):
        self.calls = 0
    def __call__(self, solution_str):
        self.calls += 1
        return float(self.calls)
    def state_dict(self):
        return self.calls
    def load_state_dict(self, state):
        self.calls = state
reward = Counting()
"""
HERE = [True, False]


@pytest.fixture
def load(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Plugin]:
    def loaded(code: str, **settings: object) -> Plugin:
        path = tmp_path / "rewards.py"
        path.write_text(code)
        plugin = Plugin(f"{path}:reward", **{"seconds": 60.0, **settings})
        request.addfinalizer(plugin.close)
        return plugin

    return loaded


def values(plugin: Plugin, *texts: str) -> list[float | None]:
    return [m.value for m in plugin(PROMPT, [completion(text) for text in texts])]


@pytest.mark.reliability(30)
@pytest.mark.parametrize("isolated", HERE)
@pytest.mark.parametrize("code", [COUNTING + DECLARED, IN_AN_OBJECT], ids=["in-the-file", "in-an-object"])
def test_declared_state_is_saved_and_given_back(load: Callable[..., Plugin], code: str, isolated: bool) -> None:
    first = load(code, isolated=isolated)
    assert values(first, "a", "b") == [1.0, 2.0]
    state = first.state_dict()
    assert values(first, "c") == [3.0]
    second = load(code, isolated=isolated)
    second.load_state_dict(state)
    assert values(second, "c", "d") == [3.0, 4.0]


@pytest.mark.reliability(30, 31)
def test_the_process_that_replaces_another_has_its_state(load: Callable[..., Plugin]) -> None:
    assert values(load(COUNTING + DECLARED), "a", "b", "die", "c") == [1.0, 2.0, None, 3.0]
    assert values(load(COUNTING), "a", "b", "die", "c") == [1.0, 2.0, None, 1.0]


def test_state_that_json_cannot_hold_is_a_fault(load: Callable[..., Plugin]) -> None:
    code = "def reward(solution_str): return 1.0\ndef state_dict(): return {1, 2}\ndef load_state_dict(state): ..."
    with pytest.raises(ValueError, match="state_dict returned what JSON cannot hold"):
        load(code)


def test_half_a_declaration_is_refused(load: Callable[..., Plugin]) -> None:
    with pytest.raises(ValueError, match="has state_dict and no load_state_dict"):
        load("def reward(solution_str): return 1.0\ndef state_dict(): return 1")


@pytest.mark.reliability(30)
@pytest.mark.parametrize("isolated", HERE)
def test_hidden_state_is_found_out_and_declared_state_is_not_remarked(
    load: Callable[..., Plugin], isolated: bool
) -> None:
    hiding = load(COUNTING.replace("return float(calls)", "return 1.0"), isolated=isolated)
    values(hiding, "a")
    (remark,) = hiding.remarks()
    assert "rewards.py:reward remembers something from call to call (calls)" in remark
    assert "Give it state_dict and load_state_dict" in remark
    declaring = load(COUNTING + DECLARED, isolated=isolated)
    values(declaring, "a")
    assert declaring.remarks() == []


def test_a_trial_leaves_declared_state_as_it_was_and_is_not_fooled_by_it(load: Callable[..., Plugin]) -> None:
    plugin = load(COUNTING + DECLARED)
    reward = PartsReward([Part("own", plugin, upkeep=plugin)])
    assert try_out(reward, [PROMPT], reward) == []
    assert values(plugin, "a") == [1.0]


def test_a_function_given_from_python_may_have_state_too() -> None:
    class Counting:
        calls = 0

        def __call__(self, solution_str: str) -> float:
            self.calls += 1
            return float(self.calls)

        def state_dict(self) -> int:
            return self.calls

        def load_state_dict(self, state: int) -> None:
            self.calls = state

    reward = FunctionReward(Counting())
    reward(PROMPT, [completion("a")])
    assert reward.state_dict() == {"score": 1}
    reward.load_state_dict({"score": 5})
    assert [score.total for score in reward(PROMPT, [completion("a")])] == [6.0]


# -- in a run ----------------------------------------------------------------------------------------------------------

STATEFUL = (COUNTING + DECLARED).replace("return float(calls)", "return rng.random() + calls % 3")
DRAWING = """
import random
import numpy as np
import torch
def reward(solution_str, draw=False):
    if draw:
        random.random(), np.random.rand(3), torch.rand(3), random.seed(1), np.random.seed(2), torch.manual_seed(3)
    return float(sum(map(ord, solution_str)) % 5)
"""


@pytest.fixture
def command(tmp_path: Path, model_dir: Callable[[str], Path], sums: Path) -> Callable[..., list[str]]:
    def words(code: str, out: str, *more: str) -> list[str]:
        (tmp_path / "rewards.py").write_text(code)
        own = f"reward.parts.own.function={tmp_path / 'rewards.py'}:reward"
        paths = [f"model.path={model_dir('llama')}", f"data.train={sums}", f"eval.data={sums}", f"out={tmp_path / out}"]
        return ["train", *TINY_STEPS, *paths, "eval.prompts=8", "eval.every=1", "reward.style=none", own, *more]

    return words


@pytest.mark.slow
@pytest.mark.reliability(30)
@pytest.mark.parametrize("stopped_at", [1, 3])
def test_a_resumed_run_with_declared_state_is_the_run_that_never_stopped(
    burnish: Command,
    command: Callable[..., list[str]],
    tmp_path: Path,
    stop_at: Callable[[int], None],
    stopped_at: int,
) -> None:
    more = ["train.steps=4", "checkpoint.every=2"]
    whole = burnish(*command(STATEFUL, "whole", *more))
    assert whole.code == 0, whole.err
    assert "remembers" not in whole.out
    stop_at(stopped_at)
    assert burnish(*command(STATEFUL, "stopped", *more)).code == 130
    resumed = burnish("train", "--resume", tmp_path / "stopped")
    assert resumed.code == 0, resumed.err
    assert_same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.slow
@pytest.mark.reliability(30)
def test_hidden_state_is_warned_of_before_the_first_step_and_recorded(
    burnish: Command, command: Callable[..., list[str]], tmp_path: Path
) -> None:
    ended = burnish(*command(COUNTING, "run"))
    assert ended.code == 0, ended.err
    warned = ended.out.index("remembers something from call to call (calls)")
    assert warned < ended.out.index("step 1")
    assert ended.out.index("the reward is not deterministic") < ended.out.index("step 1")
    with queries.open_store(tmp_path / "run/run.sqlite") as db:
        remarks = [event["message"] for event in queries.events(db, severity=2) if event["kind"] == "reward"]
    db.close()
    assert len(remarks) == 2


@pytest.mark.slow
@pytest.mark.reliability(30)
@pytest.mark.parametrize("isolated", HERE)
def test_draws_of_a_function_do_not_move_those_of_the_run(
    burnish: Command, command: Callable[..., list[str]], tmp_path: Path, isolated: bool
) -> None:
    more = [f"reward.parts.own.isolated={str(isolated).lower()}", "reward.timeout=60"]
    for out in ("true", "false"):
        ended = burnish(*command(DRAWING, out, *more, f"reward.parts.own.args.draw={out}"))
        assert ended.code == 0, ended.err
    weights = [(tmp_path / out / "checkpoints/step-000002/model.safetensors").read_bytes() for out in ("true", "false")]
    assert weights[0] == weights[1]
    with (
        queries.open_store(tmp_path / "true/run.sqlite") as one,
        queries.open_store(tmp_path / "false/run.sqlite") as other,
    ):
        assert first_divergence(one, other) is None
    one.close()
    other.close()
