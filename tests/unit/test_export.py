"""`burnish export`: what is written for verl and TRL says what the run says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from burnish import cli
from burnish.config import RunConfig, resolved
from burnish.foreign.export import export, read_config
from burnish.foreign.importing import import_words
from burnish.overrides import ConfigError, load_config, presets, resolve
from burnish.trees import flattened

SAME_FOR_BOTH = ["model.path=some/model", "data.limit=16", "eval.prompts=4", "train.threads=none"]


def config(words: str, tmp_path: Path) -> RunConfig:
    return load_config([*words.split(), *SAME_FOR_BOTH, f"out={tmp_path}/run"], tell=lambda text: None)


def back(folder: Path, system: str, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The exported words, imported again."""
    monkeypatch.chdir(folder)
    words = import_words(["train.sh"]) if system == "verl" else ["--config", "grpo.yaml"]
    return resolve([*words, *(["train.steps=7"] if system == "verl" else [])]).config


def leaves(config: RunConfig) -> dict[str, Any]:
    """By key; a cap is the same cap however it is said."""
    found = dict(flattened(resolved(config)))
    if config.objective.name == "cispo":
        del found["objective.cap_is"]
        found["objective.cap"] = config.objective.largest_weight
    return found


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"exported_{path.parent.name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("system", ["verl", "trl"])
@pytest.mark.parametrize(
    "words",
    [
        "add23 train.steps=7",
        "dapo train.steps=7 sampling.max_new_tokens=500 objective.overlong.buffer=100",
        "grpo train.steps=7 objective.kl.estimator=k3",
        "dr_grpo train.steps=7",
        "gspo train.steps=7",
        "cispo train.steps=7",
        "sapo train.steps=7",
        "add23 train.steps=7 train.epochs=2 optimizer.warmup_updates=16 optimizer.schedule=cosine eval.every=0",
        'add23 train.steps=7 model.dtype=bfloat16 checkpoint.every=0 log.sinks=["jsonl","wandb"] sampling.top_k=5',
    ],
)
def test_what_is_exported_reads_back_as_itself_but_for_what_is_listed(
    words: str, system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = config(words, tmp_path)
    unexpressed = export(original, system, tmp_path / "there")  # type: ignore[arg-type]
    assert (tmp_path / "there" / "unexpressed.txt").read_text().splitlines() == unexpressed
    lost = {line.split(" = ")[0] for line in unexpressed}
    again, first = leaves(back(tmp_path / "there", system, monkeypatch)), leaves(original)
    by_files = (
        "data.suffix",
        "data.train",
        "data.limit",
        "data.columns.",
        "eval.data",
        "eval.prompts",
        "reward.",
        "objective.name",
    )
    turned_off = {
        "objective.dual_clip",
        "objective.kl.estimator",
        "objective.mismatch.cap",
        "objective.overlong.buffer",
    }
    different = {
        key: (value, again.get(key))
        for key, value in first.items()
        if value != again.get(key) and key not in lost | turned_off and not key.startswith(by_files)
    }
    renamed = {"log.sinks"} if system == "verl" else {"name"}
    assert {key for key in different if key not in renamed} == set(), different


@pytest.mark.parametrize("system", ["verl", "trl"])
@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_is_exported_or_refused_by_name(name: str, system: str, tmp_path: Path):
    original = config(f"{name} train.steps=3", tmp_path)
    name_there = (original.objective.name, system)
    if original.objective.name == "adpo" or name_there in (("gmpo", "trl"), ("ppo", "trl")):
        with pytest.raises(ConfigError, match=f"objective.name is {original.objective.name}.* Nothing was written"):
            export(original, system, tmp_path / "there")  # type: ignore[arg-type]
        assert not (tmp_path / "there").exists()
    else:
        export(original, system, tmp_path / "there")  # type: ignore[arg-type]
        assert (tmp_path / "there" / "reward.py").is_file()


@pytest.mark.parametrize(
    "words",
    [
        "ppo train.steps=7 objective.lam=0.9 objective.gamma=0.99 objective.value.clip=0.4 objective.dual_clip=3",
        "add23 objective.name=ppo train.steps=7 sampling.group_size=1 sampling.temperature=0 "
        "objective.value.learning_rate=1e-5",
    ],
)
def test_a_value_head_is_a_critic_in_verl_but_for_its_coefficient(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original = config(words, tmp_path)
    lost = {line.split(" = ")[0] for line in export(original, "verl", tmp_path / "there")}
    assert "objective.value.coef" in lost
    assert not lost & {"objective.lam", "objective.value.clip", "objective.whiten", "objective.value.learning_rate"}
    again = back(tmp_path / "there", "verl", monkeypatch)
    dual_clip = 1e6 if original.objective.dual_clip is None else original.objective.dual_clip
    assert again.objective.model_dump() == original.objective.model_dump() | {"dual_clip": dual_clip}
    assert again.sampling.group_size == 1
    assert again.sampling.temperature == original.sampling.temperature
    assert "critic.model.path=" in (tmp_path / "there" / "train.sh").read_text()


def test_what_a_critic_always_does_is_listed_where_it_is_off(tmp_path: Path):
    words = "add23 objective.name=ppo sampling.group_size=1 objective.whiten=false objective.value.clip=none"
    lost = {line.split(" = ")[0] for line in export(config(words, tmp_path), "verl", tmp_path / "there")}
    assert {"objective.whiten", "objective.value.clip"} <= lost


def test_what_has_no_counterpart_is_listed_by_name(tmp_path: Path):
    words = "add23 objective.reduction=prompt_mean objective.overlong.mask_truncated=true data.template=false"
    verl = export(config(words, tmp_path), "verl", tmp_path / "verl")
    assert {line.split(" = ")[0] for line in verl} >= {
        "objective.reduction",
        "objective.overlong.mask_truncated",
        "data.template",
        "sampling.slots",
        "sampling.dtype",
        "eval.greedy",
    }
    trl = export(config(words, tmp_path), "trl", tmp_path / "trl")
    names = {line.split(" = ")[0] for line in trl}
    assert {"objective.reduction", "objective.dynamic_sampling", "sampling.max_rounds"} <= names
    assert "objective.overlong.mask_truncated" not in names


def test_rows_are_written_in_verls_layout(tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    export(config("add23 data.suffix=!", tmp_path), "verl", tmp_path / "there")
    rows = parquet.read_table(tmp_path / "there" / "train.parquet").to_pylist()
    assert len(rows) == 16
    assert set(rows[0]) == {"data_source", "prompt", "ability", "reward_model", "extra_info"}
    assert rows[0]["reward_model"]["style"] == "rule"
    assert rows[0]["prompt"][0]["role"] == "user"
    assert len(parquet.read_table(tmp_path / "there" / "test.parquet").to_pylist()) == 4


def test_the_exported_data_trains_here_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from burnish.foreign.export import _read

    rows = [{"qid": f"q{i}", "question": f"{i} + 1?", "answer": str(i + 1), "level": i} for i in range(20)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"data.train={tmp_path}/own.jsonl", "data.suffix= Think.", "model.path=some/model", "train.steps=2"]
    original = load_config([*words, "sampling.prompts_per_step=4"])
    export(original, "verl", tmp_path / "there")
    again = back(tmp_path / "there", "verl", monkeypatch)
    prompts = _read(again, "train.parquet", "train", None)
    assert [p.messages[0]["content"] for p in prompts] == [f"{i} + 1? Think." for i in range(20)]
    assert [p.answer for p in prompts] == [str(i + 1) for i in range(20)]


def test_verls_reward_gives_the_runs_own_score_without_the_punishment_that_verl_adds(tmp_path: Path):
    words = "add23 reward.right=2 objective.overlong.buffer=32 reward.format.pattern=Answer reward.format.weight=0.5"
    export(config(words, tmp_path), "verl", tmp_path / "verl_reward")
    compute_score = load(tmp_path / "verl_reward" / "reward.py").compute_score
    extra = {"id": "x", "meta": "{}"}
    assert compute_score("burnish", "Answer: 7", "7", extra) == {"score": 2.5, "acc": 2.0}
    assert compute_score(data_source="burnish", solution_str="Answer: 8", ground_truth="7") == {
        "score": -0.5,
        "acc": -1.0,
    }
    assert compute_score("burnish", "7", "7", extra)["score"] == -1.0


def test_trls_reward_gives_the_runs_own_score_with_the_punishment(tmp_path: Path):
    export(config("add23 objective.overlong.buffer=32", tmp_path), "trl", tmp_path / "trl_reward")
    reward = load(tmp_path / "trl_reward" / "reward.py").burnish_reward
    completions = [[{"role": "assistant", "content": "Answer: 7"}], "Answer: 8", "Answer: 7"]
    columns = {"answer": ["7"] * 3, "id": ["x"] * 3, "meta": ["{}"] * 3, "prompts": [None] * 3}
    found = reward(completions=completions, completion_ids=[[1] * 5, [1] * 5, [1] * 48], **columns)
    assert found == [1.0, -1.0, 0.5]


def test_trls_arguments_are_plain_values_and_its_batches_count_completions(tmp_path: Path):
    export(config("add23 train.steps=7 train.epochs=2", tmp_path), "trl", tmp_path / "there")
    words = yaml.safe_load((tmp_path / "there" / "grpo.yaml").read_text())
    assert words["per_device_train_batch_size"] * words["gradient_accumulation_steps"] == 32 * 8 // 4
    assert words["steps_per_generation"] == 4 * words["gradient_accumulation_steps"]
    assert (words["num_generations"], words["num_iterations"], words["max_steps"]) == (8, 2, 7 * 4 * 2)
    assert words["use_bias_correction_kl"] is True
    compile((tmp_path / "there" / "train.py").read_text(), "train.py", "exec")


def test_the_command_takes_presets_files_and_run_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run-1"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(resolved(config("add23 train.steps=3", tmp_path))))
    assert read_config(str(run)).train.steps == 3
    assert cli.main(["export", "trl", str(run), "--out", str(tmp_path / "there")]) == 0
    told = capsys.readouterr()
    assert "python train.py --config grpo.yaml" in told.out
    assert "not expressed: objective.dynamic_sampling = True" in told.err
    assert cli.main(["export", "verl", str(run), "--out", str(tmp_path / "there")]) == cli.EXIT_USAGE
    assert "is not empty; type another --out" in capsys.readouterr().err
    assert cli.main(["export", "verl", "dapoo", "--out", str(tmp_path / "x")]) == cli.EXIT_USAGE
    assert "did you mean 'dapo'" in capsys.readouterr().err
