"""The public Python API: its surface, what `load` takes, and that every swapped part is the one that runs."""

from __future__ import annotations

import inspect
import json
import random
import re
import runpy
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from burnish import api
from burnish.api import Completion, Experiment, Finished, Group, Parts, Prompt, Score, Term, load, train
from burnish.errors import ResumeError, TrainingError
from burnish.overrides import ConfigError
from burnish.prompts.sampler import ShuffledSampler
from burnish.protocols import Publication
from burnish.rollout.scripted import ScriptedEngine
from burnish.types import Request, Sampling

pytestmark = pytest.mark.slow  # runs of the product, seconds each

ROOT = Path(__file__).parents[2]
TINY = (
    "train.steps=1",
    "train.updates_per_step=1",
    "sampling.prompts_per_step=2",
    "sampling.group_size=4",
    "sampling.max_new_tokens=8",
    "objective.name=grpo",
    "eval.prompts=2",
    "eval.greedy=false",
    'log.sinks=["jsonl"]',
)
"""One step of one update on two groups."""


@pytest.fixture
def tiny(tmp_path: Path) -> Experiment:
    return load("add23", *TINY, f"out={tmp_path / 'run'}")


def metrics(done: Finished) -> list[dict[str, float]]:
    return [json.loads(line) for line in (done.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def length(prompt: Prompt, completion: Completion) -> float:
    return len(completion.token_ids) / 100.0


# -- the surface -------------------------------------------------------------------------------------------------------


def test_the_surface_is_listed_once_and_counted_so_that_adding_to_it_is_a_decision():
    assert len(api.__all__) == 13
    assert sorted(api.__all__) == api.__all__
    assert all(hasattr(api, name) for name in api.__all__)


def test_the_surface_says_what_it_takes():
    functions = [api.load, api.train, *(m for name, m in vars(Experiment).items() if name.startswith("with_"))]
    assert len(functions) == 6
    for function in functions:
        signature = inspect.signature(function)
        assert function.__doc__
        assert signature.return_annotation is not inspect.Signature.empty
        named = [p for p in signature.parameters.values() if p.name != "self"]
        assert all(p.annotation is not inspect.Parameter.empty for p in named)


def test_the_page_names_the_whole_surface():
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    names = [*api.__all__, *(name for name in vars(Experiment) if name.startswith("with_"))]
    assert [name for name in names if f"`{name}" not in page] == []


# -- configurations ----------------------------------------------------------------------------------------------------


def test_words_are_those_of_the_command_line():
    config = load("dapo", "model.path=some/dir", "optimizer.learning_rate=2e-6", "seed=3").config
    assert (config.name, config.model.path, config.optimizer.learning_rate, config.seed) == (
        "dapo",
        "some/dir",
        2e-6,
        3,
    )


def test_nothing_is_the_embedded_default():
    assert load().config.name == "add23"


def test_a_file_is_read_and_overridden(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("train:\n  steps: 7\nseed: 2\n")
    config = load(path, "seed=5").config
    assert (config.train.steps, config.seed) == (7, 5)


def test_a_mapping_is_a_whole_configuration():
    config = load({"train": {"steps": 5}, "objective": {"clip_high": 0.3}}).config
    assert (config.train.steps, config.objective.name, config.optimizer.learning_rate) == (5, "dapo", 1e-6)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (("add32",), "did you mean 'add23'"),
        (({"train": {"step": 5}},), "unknown key 'train.step'"),
        (({"train": {"steps": 5}}, "seed=2"), "a mapping is a whole configuration"),
    ],
)
def test_a_mistake_is_named(source: tuple[Any, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        load(*source)


# -- swapping ----------------------------------------------------------------------------------------------------------


def test_swapping_gives_a_new_experiment_and_leaves_the_old_one():
    before = load("add23")
    after = before.with_reward(length).with_sampler(ShuffledSamplers)
    assert (before.swaps.names, after.swaps.names) == ([], ["reward", "sampler"])
    assert before.config is after.config


def test_a_plain_function_is_the_reward(tiny: Experiment):
    done = train(tiny.with_reward(length))
    (step,) = (row for row in metrics(done) if "reward/mean" in row)
    assert step["reward/mean"] == pytest.approx(step["length/mean"] / 100.0)
    assert step["reward/score"] == step["reward/mean"]
    assert "reward/answer" not in step


class Siblings:
    """A reward in full: it sees a group at once, and says which completion is right."""

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Score]:
        longest = max(len(c.token_ids) for c in completions)
        return [
            Score(2.0, 1.0, {"longest": 1.0}) if len(c.token_ids) == longest else Score(0.0, 0.0, status="wrong")
            for c in completions
        ]


def test_a_reward_sees_siblings_and_gives_whole_scores(tiny: Experiment):
    done = train(tiny.with_reward(Siblings()))
    (step,) = (row for row in metrics(done) if "reward/mean" in row)
    assert step["reward/total"] == pytest.approx(2.0 * step["reward/mean"])
    assert step["reward/longest"] == 1.0


def test_a_reward_that_fails_stops_the_run_before_its_first_step_and_leaves_nothing(tiny: Experiment):
    def broken(prompt: Prompt, completion: Completion) -> float:
        raise KeyError("nothing of this name")

    with pytest.raises(TrainingError, match="nothing of this name"):
        train(tiny.with_reward(broken))
    assert list(Path(tiny.config.out).iterdir()) == []


def test_a_term_is_added_to_the_loss_and_reported(tiny: Experiment):
    def term(name: str, value: float) -> Term:
        return Term(
            name,
            weights=lambda batch: batch.mask_N / batch.mask_N.sum(),
            loss=lambda output, prepared: value + 0.0 * output.logprobs_N,
        )

    plain = train(tiny)
    done = train(_elsewhere(tiny, "other").with_term(term("three", 3.0)).with_term(term("one", 1.0)))
    (before,), (after,) = ([row for row in metrics(run) if "loss" in row] for run in (plain, done))
    assert (after["loss/three"], after["loss/one"]) == (pytest.approx(3.0), pytest.approx(1.0))
    assert after["loss"] == pytest.approx(before["loss"] + 4.0, abs=1e-5)
    assert after["grad_norm"] == pytest.approx(before["grad_norm"], rel=1e-5)


class FirstPrompt(api.PromptSampler):
    """Asks the same prompt for ever, and remembers what it heard."""

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        self.prompt, self.seed, self.heard = prompts[0], seed, []

    def take(self, n: int, /) -> list[Prompt]:
        return [self.prompt] * n

    def observe(self, group: Group, /) -> None:
        self.heard.append(group.prompt.id)

    def state_dict(self) -> dict[str, Any]:
        return {"heard": len(self.heard)}

    def load_state_dict(self, state: Any, /) -> None:
        assert state["heard"] == 2


def ShuffledSamplers(prompts: Sequence[Prompt], seed: int) -> ShuffledSampler:
    return ShuffledSampler(prompts, seed=seed)


def test_a_sampler_chooses_the_prompts(tiny: Experiment):
    made: list[FirstPrompt] = []

    def make(prompts: Sequence[Prompt], seed: int) -> FirstPrompt:
        made.append(FirstPrompt(prompts, seed))
        return made[0]

    done = train(tiny.with_sampler(make))
    with sqlite3.connect(done.folder / "run.sqlite") as db:
        assert db.execute("SELECT count(*), count(DISTINCT prompt) FROM groups_v").fetchone() == (2, 1)
    assert made[0].heard == [made[0].prompt.id] * 2


class Watched:
    """The configured engine, with an eye on what it is asked."""

    def __init__(self, engine: api.RolloutEngine) -> None:
        self.engine, self.asked, self.versions = engine, 0, []

    def load(self, publication: Publication, /) -> None:
        self.versions.append(publication.version)
        self.engine.load(publication)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        self.asked += len(requests)
        return self.engine.generate(requests, sampling)


def test_an_engine_can_stand_before_the_configured_one(tiny: Experiment):
    made: list[Watched] = []

    def make(parts: Parts) -> Watched:
        made.append(Watched(parts.engine))
        return made[0]

    train(tiny.with_engine(make))
    assert made[0].asked == 2 + 2 + 2  # an evaluation, a step, an evaluation
    assert {0, 1} == set(made[0].versions)


def test_an_engine_can_be_another_one_altogether(tiny: Experiment):
    def scripted(parts: Parts) -> ScriptedEngine:
        tokenizer = parts.tokenizer
        return ScriptedEngine(
            lambda prompt, index, seed: f"Answer: {prompt.answer if index % 2 else 'none'}",
            encode=lambda text: tokenizer.encode(text, add_special_tokens=False),
            decode=lambda ids: str(tokenizer.decode(list(ids))),
            eos_id=tokenizer.eos_token_id,
        )

    experiment = load("add23", *TINY, "sampling.max_new_tokens=40", f"out={tiny.config.out}").with_engine(scripted)
    done = train(experiment)
    (step,) = (row for row in metrics(done) if "accuracy" in row)
    assert step["accuracy"] == 0.5
    assert done.after["avg@2"].value == 0.5


# -- what is left ------------------------------------------------------------------------------------------------------


def test_a_run_leaves_its_folder_its_model_and_what_was_measured(tiny: Experiment):
    done = train(tiny)
    assert done.folder == Path(tiny.config.out).resolve()
    assert (done.model / "model.safetensors").is_file()
    assert done.before.keys() == done.after.keys() >= {"avg@2", "pass@2", "length"}
    assert all(m.low <= m.value <= m.high for m in done.after.values())


def test_nothing_held_out_is_nothing_measured(tmp_path: Path):
    rows = [{"prompt": f"{a}+{b}", "answer": str(a + b)} for a in range(4) for b in range(4)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = train(load("add23", *TINY, f"data.train={tmp_path / 'sums.jsonl'}", f"out={tmp_path / 'run'}"))
    assert (done.before, done.after) == ({}, {})


def test_a_run_with_swaps_is_resumed_with_the_same_swaps_and_with_no_others(tiny: Experiment):
    words = [*TINY, "optimizer.learning_rate=0.1", f"out={tiny.config.out}"]  # a rate that is seen in evaluation
    experiment = load("add23", *words).with_reward(length).with_sampler(FirstPrompt)
    first = train(experiment)
    assert first.before != first.after
    assert train(experiment, resume=True) == first  # it was complete
    with pytest.raises(ResumeError, match="started with reward, sampler given from Python and now has nothing given"):
        train(tiny, resume=True)


def test_a_run_is_resumed_with_its_own_configuration_or_with_what_is_allowed(tiny: Experiment):
    train(tiny)
    longer = [*TINY, f"out={tiny.config.out}", "train.steps=2"]
    assert train(load("add23", *longer), resume=True).model.name == "step-000002"
    other = load("add23", *longer, "train.steps=3", "optimizer.beta1=0.5")
    with pytest.raises(ResumeError, match=r"optimizer\.beta1  0\.9    0\.5"):
        train(other, resume=True)
    assert train(other, resume=True, allow_change=["optimizer.beta1"]).model.name == "step-000003"


def noisy(prompt: Prompt, completion: Completion) -> float:
    """Draws from the generators that everybody in a process shares; evaluations call it too."""
    return random.random() + np.random.rand() + torch.rand(1).item()


def test_a_reward_that_draws_from_shared_generators_is_resumed_in_step(tmp_path: Path):
    """From a checkpoint that an evaluation came before, which a resume does not make again."""
    often = ["train.steps=3", "checkpoint.every=1", "eval.every=1"]
    whole = train(load("add23", *TINY, *often, f"out={tmp_path / 'whole'}").with_reward(noisy))
    shutil.copytree(whole.folder, tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped/checkpoints/step-000003")
    (tmp_path / "stopped/summary.json").unlink()
    with closing(sqlite3.connect(tmp_path / "stopped/run.sqlite")) as db, db:
        db.execute("UPDATE steps SET live = 0 WHERE step = 3")  # else it would take its recorded scores
    random.seed(0)
    resumed = train(load("add23", *TINY, *often, f"out={tmp_path / 'stopped'}").with_reward(noisy), resume=True)
    for name in ("model.safetensors", "resume/optimizer.safetensors"):
        assert (whole.model / name).read_bytes() == (resumed.model / name).read_bytes(), name


def test_a_folder_with_a_run_is_not_written_over(tiny: Experiment):
    train(tiny)
    with pytest.raises(ValueError, match="is not empty"):
        train(tiny)


# -- the example -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_runs_and_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    example = runpy.run_path(str(ROOT / "examples" / "python_api.py"))
    done = example["main"](tmp_path / "run")
    assert done.after["avg@2"].value > done.before["avg@2"].value + 0.1
    assert re.search(r"avg@2 +0\.\d+ -> 0\.\d+", capsys.readouterr().out)
    assert "loss/drift" in (done.folder / "metrics.jsonl").read_text()


def test_all_four_swaps_at_once_take_a_dozen_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    (code,) = (
        block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "with_engine(lam" in block
    )
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(
        "model: {path: embedded}\ndata: {train: add23}\n"
        "sampling: {prompts_per_step: 2, group_size: 4, max_new_tokens: 48}\n"
        "objective: {name: grpo}\ntrain: {steps: 2, updates_per_step: 1}\neval: {prompts: 2, greedy: false}\nout: run\n"
    )
    (tmp_path / "script.py").write_text(code)
    done: Finished = runpy.run_path("script.py")["done"]
    steps = [row for row in metrics(done) if "loss" in row]
    assert len(steps) == 2
    for row in steps:
        assert {"loss/drift", "reward/score", "prompts/skipped"} <= row.keys()
    with sqlite3.connect(done.folder / "run.sqlite") as db:
        (scores,) = db.execute("SELECT count(*) FROM rollouts_v WHERE raw BETWEEN 0.01 AND 0.99").fetchone()
        assert scores > 0, "right answers lose a share by their length"
    told = "".join(capfd.readouterr())
    assert "given from Python: reward, terms, sampler, engine" in told


def test_the_code_of_the_page_runs(tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With small numbers in place of its own; what it swaps in then trains together."""
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)))
    loaded: list[tuple[Any, ...]] = []

    def load_tiny(*source: Any) -> Experiment:
        loaded.append(source)
        if source[0] != "run.yaml":
            load(*source)  # is it right?
        return tiny

    finished = train(_elsewhere(tiny, "first"))
    monkeypatch.setattr(api, "load", load_tiny)
    monkeypatch.setattr(api, "train", lambda experiment: finished)
    space = runpy.run_path(str(script))
    assert len(loaded) == 7
    done = train(space["experiment"])
    (step,) = (row for row in metrics(done) if "reward/score" in row)
    assert "loss/drift" in step


def _elsewhere(experiment: Experiment, name: str) -> Experiment:
    config = experiment.config.model_copy(update={"out": str(Path(experiment.config.out).parent / name)})
    return Experiment(config, experiment.swaps)
