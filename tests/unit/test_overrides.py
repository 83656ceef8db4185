from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from burnish.config import RunConfig, resolved
from burnish.overrides import ConfigError, keys, load_config, presets, validate


def value(config: RunConfig, key: str):
    for part in key.split("."):
        config = getattr(config, part)
    return config


@pytest.mark.parametrize(
    ("words", "key", "expected"),
    [
        ("optimizer.learning_rate=1e-6", "optimizer.learning_rate", 1e-6),
        ("--optimizer.learning-rate 2e-5", "optimizer.learning_rate", 2e-5),
        ("--sampling.group_size=16", "sampling.group_size", 16),
        ("--model.gradient-checkpointing", "model.gradient_checkpointing", True),
        ("--data.shuffle false seed=3", "data.shuffle", False),
        ("objective.dual_clip=none", "objective.dual_clip", None),
        ("objective.overlong.buffer=8", "objective.overlong.buffer", 8),
        ('log.sinks=["jsonl"]', "log.sinks", ("jsonl",)),
        ("objective.name=grpo objective.clip_high=0.3", "objective.clip_high", 0.3),
        ("seed=2 seed=5", "seed", 5),
    ],
)
def test_words_override_the_preset(words: str, key: str, expected: object):
    assert value(load_config(words.split()), key) == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("dapoo", "did you mean 'dapo'?"),
        ("objective.clip_hihg=0.3", "unknown key 'objective.clip_hihg'; did you mean 'objective.clip_high'?"),
        ("group_size=4", "unknown key 'group_size'; did you mean 'sampling.group_size'?"),
        ("sampling.group_size=1", "Type sampling.group_size=8"),
        ("sampling.group_size=1", "or objective.name=ppo for one completion per prompt"),
        ("sampling.temperature=0", "Type sampling.temperature=1"),
        ("objective.name=ppo sampling.temperature=0", "or objective.name=ppo sampling.group_size=1"),
        ("objective.name=ppo sampling.group_size=1 objective.dynamic_sampling=true", "Type objective.dynamic_sampling"),
        ("objective.name=ppo sampling.group_size=1 data.sampler=history", "Type data.sampler=shuffled"),
        ("objective.name=ppo objective.lam=1.1", "objective.lam: found '1.1'"),
        ("objective.overlong.buffer=64", "Type objective.overlong.buffer=12"),
        ("train.updates_per_step=5", "Type train.updates_per_step=4"),
        ("objective.dual_clip=1.1", "Type objective.dual_clip=10"),
        ("objective.clip_low=1.5", "Type objective.clip_low=0.2"),
        ("sampling.group_size=many", "sampling.group_size: found 'many'"),
        ("optimizer.learning_rate=nan", "optimizer.learning_rate"),
        ("checkpoint.keep=1", "checkpoint.keep: found '1'"),
        ("seed=1 stray", "found 'stray' among the overrides"),
        ("nowhere.toml", "config file nowhere.toml does not exist"),
    ],
)
def test_a_mistake_is_named_with_what_to_type(words: str, message: str):
    with pytest.raises(ConfigError) as caught:
        load_config(words.split())
    assert message in str(caught.value)


def test_another_objective_starts_from_its_own_published_setting():
    config = load_config(["dapo", "objective.name=grpo"])
    assert (config.objective.clip_high, config.objective.reduction) == (0.2, "sequence_mean")
    assert config.overlong_buffer == 0


def test_an_objective_section_without_a_name_is_the_default_objective(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text("[objective]\nclip_high = 0.3\n")
    assert load_config([str(path)]).objective.name == "dapo"


def test_without_a_model_the_embedded_default_runs_and_with_one_the_schema_defaults_hold():
    assert load_config([]).name == "add23"
    assert load_config(["model.path=some/dir"]).optimizer.learning_rate == 1e-6


@pytest.mark.parametrize("name", sorted(presets()))
def test_every_preset_resolves_and_is_named_after_its_file(name: str):
    assert load_config([name]).name == name


@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_a_resolved_config_reads_back_as_itself(tmp_path: Path, suffix: str):
    config = load_config(["dapo", "optimizer.learning_rate=1e-6"])
    path = tmp_path / f"run{suffix}"
    path.write_text(yaml.safe_dump(resolved(config)) if suffix == ".yaml" else json.dumps(resolved(config)))
    assert load_config([str(path)]) == config


def test_yaml_numbers_in_scientific_notation_are_numbers(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_text("optimizer:\n  learning_rate: 1e-6\n")
    assert load_config([str(path)]).optimizer.learning_rate == 1e-6


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", "- a\n- b\n", "needs sections with keys"),
        ("run.yaml", "a: [", "is not valid YAML"),
        ("run.yaml", "a: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("run.toml", "a = ", "is not valid TOML"),
        ("run.json", "{", "is not valid JSON"),
        ("run.yaml", "#" * (1 << 21), "at most 1,048,576 are read"),
    ],
)
def test_an_unreadable_config_file_is_named(tmp_path: Path, name: str, text: str, message: str):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config([str(path)])
    assert message in str(caught.value)
    assert name in str(caught.value)


def test_validation_does_not_change_what_it_is_given():
    tree = {"objective": {"clip_high": 0.3}}
    validate(tree)
    assert tree == {"objective": {"clip_high": 0.3}}


def test_the_options_are_counted_so_that_adding_one_is_a_decision():
    found = keys()
    assert len(found) == 149, sorted(found)
    assert all(meaning or default for default, meaning in found.values())


def test_rounded_weights_are_corrected_for():
    with pytest.raises(ConfigError, match=r"draws from rounded weights.*objective.mismatch.correct=token"):
        load_config(["add23", "sampling.dtype=bfloat16"])
    assert load_config(["add23", "sampling.dtype=bfloat16", "objective.mismatch.correct=token"])
