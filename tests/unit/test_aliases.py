"""The table of foreign spellings, row by row: each row is typed and resolved."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest

from burnish.config import resolved
from burnish.foreign.aliases import CONFIG_NAMES, DEFAULTS, ENTRIES, EXTENDED, IMPLIED, TABLE
from burnish.foreign.aliases.rows import Choice, Ignored, Listing, Pair, Quantity, Refused, Rest, Row, Same
from burnish.foreign.words import find
from burnish.overrides import ConfigError, keys, resolve
from burnish.trees import flattened

ROWS = [(system, row) for system, rows in TABLE.items() for row in rows]
OWN = ("data.train=add23", "sampling.max_new_tokens=512")


def rows(kind: type[Row]) -> list[Any]:
    found = [pytest.param(row, id=f"{system}:{row.spellings[0]}") for system, row in ROWS if isinstance(row, kind)]
    assert found
    return found


def surroundings(row: Row, *targets: str) -> list[str]:
    """Own words with which `targets` mean something: an objective that has them, a feature that is on."""
    words = [word for word in OWN if word.split("=")[0] not in targets]
    if "model.path" not in targets:
        words.append("model.path=some/model")
    if any(target.startswith(("objective.gamma", "objective.lam", "objective.value.")) for target in targets):
        words.append("objective.name=ppo")
    if any(target in ("objective.tau_positive", "objective.tau_negative") for target in targets):
        words.append("objective.name=sapo")
    if any(row is one for one in TABLE["main_adpo"]) and "objective.name" not in targets:
        words.append("objective.name=adpo")
    if isinstance(row, Same | Choice) and row.needs:
        words.append("actor_rollout_ref.actor.use_confidence_loss=true")
    return words


def implied(row: Row, word: str) -> dict[str, str | None]:
    """What the use of a system's own keys, and the word by itself, say."""
    system = next(system for system, one in ROWS if one is row)
    return {**IMPLIED.get(system, {}), **IMPLIED.get(word, {})}


def outcome(words: list[str]) -> Any:
    """What words come to: a config, or why there is none."""
    try:
        return resolve(words).config
    except ConfigError as error:
        return str(error)


def value(config: Any, key: str) -> Any:
    return dict(flattened(resolved(config))).get(key)


def targets() -> Iterator[str]:
    for _, row in ROWS:
        match row:
            case Same():
                yield from (row.to, *row.also)
            case Choice():
                yield from (key for settings in row.values.values() for key in settings)
            case Listing():
                yield from (key for settings in row.items.values() for key in settings)
            case Pair():
                yield from row.to
            case Rest():
                yield row.to.removesuffix(".")
    for defaults in DEFAULTS.values():
        yield from (*defaults.ours, *defaults.kept)
    for settings in IMPLIED.values():
        yield from settings


def test_every_target_is_a_key_of_the_schema():
    known = {re.sub(r"\.<name>\.", ".NAME.", key) for key in keys()}
    assert {re.sub(r"^reward\.parts\.\w+", "reward.parts.NAME", key) for key in targets()} <= known


def test_no_spelling_is_a_key_of_ours_and_none_is_in_two_rows():
    spellings = [spelling for _, row in ROWS for spelling in row.spellings]
    assert not set(spellings) & set(keys())
    assert sorted(spellings) == sorted(set(spellings))


@pytest.mark.parametrize("row", rows(Same))
def test_a_key_of_the_same_meaning_takes_its_value_over(row: Same):
    around = surroundings(row, row.to, *row.also)
    for spelling in row.spellings:
        for theirs, ours in {row.example: row.example, **row.special, **({row.off: "0"} if row.off else {})}.items():
            found = resolve([*around, f"{spelling}={theirs}"])
            expected = resolve([*around, *([] if ours is None else [f"{row.to}={ours}"])])
            assert value(found.config, row.to) == value(expected.config, row.to), (spelling, theirs)
            if ours is not None:
                assert {k: value(found.config, k) for k in row.also} == dict(row.also)
    given, without = resolve([*around, f"{row.to}={row.example}"]), resolve(around)
    assert value(given.config, row.to) != value(without.config, row.to), "the example shows nothing"


@pytest.mark.parametrize("row", rows(Choice))
def test_every_value_of_a_choice_becomes_its_settings_and_no_other_passes(row: Choice):
    for spellings, settings in row.values.items():
        around = surroundings(row, *settings)
        for theirs in spellings.split():
            word = f"{row.spellings[0]}={theirs}"
            expected = implied(row, word) | dict(settings)
            assert outcome([*around, word]) == outcome([*around, *(f"{key}={v}" for key, v in expected.items())])
    with pytest.raises(ConfigError) as caught:
        resolve([*surroundings(row), f"{row.spellings[0]}=nonsense"])
    assert f"{row.spellings[0]}=nonsense is refused: {row.otherwise}" in str(caught.value)


@pytest.mark.parametrize("row", rows(Listing))
def test_every_item_of_a_list_becomes_its_settings_and_no_other_passes(row: Listing):
    for spellings, settings in row.items.items():
        for item in spellings.split():
            found = resolve([*surroundings(row), f"--{row.spellings[0]}", item]).config
            for key, ours in settings.items():
                assert key == "log.sinks"
                assert found.log.sinks == ("jsonl", ours)
    with pytest.raises(ConfigError, match="nonsense is refused"):
        resolve([*surroundings(row), f"--{row.spellings[0]}", "nonsense"])


@pytest.mark.parametrize("row", rows(Pair))
def test_a_list_of_two_numbers_becomes_two_keys(row: Pair):
    found = resolve([*surroundings(row), f"{row.spellings[0]}={row.example}"]).config
    numbers = [float(number) for number in row.example.strip("[]").split(",")]
    assert [value(found, key) for key in row.to] == numbers
    with pytest.raises(ConfigError, match="it needs two numbers"):
        resolve([*surroundings(row), f"{row.spellings[0]}=[0.9]"])


@pytest.mark.parametrize("row", rows(Rest))
def test_the_rest_of_a_key_goes_over(row: Rest):
    function = "custom_reward_function.path=rewards.py"
    found = resolve([*surroundings(row), function, f"{row.spellings[0].removesuffix('*')}scale={row.example}"]).config
    assert found.reward.parts["custom"].args == {"scale": float(row.example)}


FEATURES = {"model_score_on": ("reward_model.enable=true", "reward_model.model.path=judge")}
"""Quantity that gives keys a meaning which are otherwise ignored -> words that turn it on."""


@pytest.mark.parametrize("row", [p for p in rows(Ignored) if p.values[0].unless])
def test_what_is_ignored_while_a_feature_is_off_is_refused_while_it_is_on(row: Ignored):
    for spelling in row.spellings:
        word = f"{spelling.replace('*', 'anything')}=7"
        with pytest.raises(ConfigError, match="has no counterpart here"):
            resolve([*surroundings(row), *FEATURES[row.unless], word])


@pytest.mark.parametrize("row", rows(Ignored))
def test_what_has_no_effect_is_named_with_the_reason(row: Ignored):
    assert len(row.why) > 5
    for spelling in row.spellings:
        key = spelling.replace("*", "anything")
        found = resolve([*surroundings(row), f"{key}=7"])
        assert found.translation is not None
        assert [(given.key, why) for given, why in found.translation.ignored] == [(key, row.why)]
        assert any(key in line and row.why in line for line in found.translation.lines())


@pytest.mark.parametrize("row", rows(Refused))
def test_what_cannot_be_honoured_is_refused_by_name_unless_it_is_off(row: Refused):
    for spelling in row.spellings:
        key = spelling.replace("*", "anything")
        with pytest.raises(ConfigError) as caught:
            resolve([*surroundings(row), f"{key}=something"])
        assert f"{key}=something is refused: {row.why}. {row.instead[0].upper()}{row.instead[1:]}" in str(caught.value)
        for off in row.off:
            found = resolve([*surroundings(row), f"{key}={off}"])
            assert found.translation is not None
            assert [given.key for given, _ in found.translation.ignored] == [key]


GDPO = "custom_reward_function.path=a.py"
JUDGE = "reward_model.model.path=judge"
COUNTED: dict[str, tuple[str, str, Any]] = {
    "drop_overlong_prompts": ("data.filter_overlong_prompts=true", "data.overlong_prompts", "drop"),
    "truncation": ("data.truncation=left", "data.overlong_prompts", "truncate_left"),
    "prompts": ("data.train_batch_size=64", "sampling.prompts_per_step", 64),
    "minibatch": ("actor_rollout_ref.actor.ppo_mini_batch_size=16", "train.updates_per_step", 2),
    "filter_on": ("--filter_groups_enable", "objective.dynamic_sampling", True),
    "filter_metric": ("objective.name=grpo algorithm.filter_groups.metric=acc", "objective.dynamic_sampling", False),
    "clip": ("objective.name=grpo --epsilon 0.3", "objective.clip_high", 0.3),
    "clip_low": ("actor_rollout_ref.actor.clip_ratio_low=0.1", "objective.clip_low", 0.1),
    "clip_high": ("--epsilon_high 0.3", "objective.clip_high", 0.3),
    "kl_on": ("actor_rollout_ref.actor.use_kl_loss=true", "objective.kl.coef", 0.001),
    "kl_coef": (
        "actor_rollout_ref.actor.use_kl_loss=true actor_rollout_ref.actor.kl_loss_coef=0.02",
        "objective.kl.coef",
        0.02,
    ),
    "loss_divisor": ("actor_rollout_ref.actor.loss_scale_factor=512", "sampling.max_new_tokens", 512),
    "overlong_on": ("--apply_overlong_penalty false", "objective.overlong.buffer", 0),
    "overlong_tokens": ("--apply_overlong_penalty --overlong_buffer_len 99", "objective.overlong.buffer", 99),
    "function_file": ("custom_reward_function.path=a.py", "reward.parts.custom.function", "a.py:compute_score"),
    "function_name": (
        "custom_reward_function.path=a.py custom_reward_function.name=f",
        "reward.parts.custom.function",
        "a.py:f",
    ),
    **{
        name: (
            f"custom_reward_function.path=a.py custom_reward_function.name=good_accuracy "
            f"reward_model.reward_kwargs.{name}={number}",
            f"reward.parts.good_accuracy.{name}",
            number,
        )
        for name, number in (("ngram_size", 5), ("max_penalty", -0.25), ("penalty_scale_factor", 0.2))
    },
    "manager": ("reward_model.reward_manager=prime", "reward.style", "equivalence"),
    "gdpo_keys": (f"{GDPO} algorithm.gdpo_reward_keys=[tidy]", "reward.parts.custom.entries.tidy", 1.0),
    "gdpo_weights": (
        f"{GDPO} algorithm.gdpo_reward_keys=[right,tidy] algorithm.gdpo_reward_weights=[1.0,0.5]",
        "reward.parts.custom.entries.tidy",
        0.5,
    ),
    "model_score_on": (f"reward_model.enable=true {JUDGE}", "reward.style", "none"),
    "model_score_path": (f"reward_model.enable=true {JUDGE}", "reward.parts.model.path", "judge"),
    "model_score_batch": (
        f"reward_model.enable=true {JUDGE} reward_model.micro_batch_size_per_gpu=4",
        "reward.parts.model.batch_size",
        4,
    ),
    "model_score_length": ("reward_model.enable=false reward_model.max_length=9", "reward.style", "dapo"),
    "score_model": ("--reward_model_name_or_path judge", "reward.parts.model.path", "judge"),
    "functions": ("--reward_funcs my.tidy", "reward.parts.tidy.function", "my.py:tidy"),
    "weights": ("--reward_funcs accuracy_reward my.tidy --reward_weights 1 0.5", "reward.parts.tidy.weight", 0.5),
    "device_batch": ("--per_device_train_batch_size 16", "sampling.prompts_per_step", 2),
    "accumulation": ("--gradient_accumulation_steps 4", "sampling.prompts_per_step", 4),
    "generation_batch": ("--generation_batch_size 32", "train.updates_per_step", 4),
    "generation_steps": ("--steps_per_generation 2", "train.updates_per_step", 2),
    "processes": ("--per_device_train_batch_size 8 --num_processes 3", "sampling.prompts_per_step", 3),
    "processes_per_machine": ("--per_device_train_batch_size 8 --nproc_per_node 3", "sampling.prompts_per_step", 3),
    "machines": ("--per_device_train_batch_size 8 --nproc_per_node 3 --nnodes 2", "sampling.prompts_per_step", 6),
    "mini_batches": ("--num_mini_batches 2", "train.updates_per_step", 2),
    "updates": ("--max_steps 10", "train.steps", 3),
    "episodes": ("--total_episodes 3201", "train.steps", 101),
    "passes": ("--num_train_epochs 2", "train.steps", 1250),
    "warmup_steps": ("actor_rollout_ref.actor.optim.lr_warmup_steps=3", "optimizer.warmup_updates", 12),
    "warmup_updates": ("--warmup_steps 3", "optimizer.warmup_updates", 3),
    "warmup_share": ("--warmup_ratio 0.1", "optimizer.warmup_updates", 40),
    "eval_strategy": ("--eval_strategy no", "eval.every", 0),
    "eval_updates": ("--eval_strategy steps --eval_steps 12", "eval.every", 3),
    "save_strategy": ("--save_strategy no", "checkpoint.every", 0),
    "save_updates": ("--save_steps 10", "checkpoint.every", 3),
    "confidence_on": ("actor_rollout_ref.actor.use_confidence_loss=true", "confidence.train", True),
}
"""Quantity -> words in which it is decisive, the key of ours, and its value: 32 prompts x 8, 4 updates, 100 steps."""


@pytest.mark.parametrize("row", rows(Quantity))
def test_every_quantity_has_a_worked_example(row: Quantity):
    words, key, expected = COUNTED[row.quantity]
    assert value(resolve([*OWN, "model.path=some/model", *words.split()]).config, key) == expected


def test_every_worked_example_is_of_a_quantity_and_names_it():
    quantities = {row.quantity for _, row in ROWS if isinstance(row, Quantity)}
    assert set(COUNTED) == quantities
    for quantity, (words, _, _) in COUNTED.items():
        typed = (find(word.removeprefix("--").split("=")[0]) for word in words.split())
        assert quantity in {found[1].quantity for found in typed if found and isinstance(found[1], Quantity)}


@pytest.mark.parametrize("system", DEFAULTS)
def test_the_defaults_of_a_system_are_words_it_knows(system: str):
    for word in DEFAULTS[system].words:
        found = find(re.split("[= ]", word.removeprefix("--"))[0])
        assert found is not None, word
        assert not isinstance(found[1], Ignored | Refused), word


def test_what_stands_for_the_files_of_other_systems_is_made_of_words_they_know():
    for words in CONFIG_NAMES.values():
        assert all(find(word.split("=")[0]) for word in words)
    assert set(ENTRIES.values()) <= set(CONFIG_NAMES)
    assert set(EXTENDED) | {system for more in EXTENDED.values() for system in more} <= set(TABLE)
    for implied in IMPLIED:
        assert implied in TABLE or find(implied.split("=")[0]), implied


def test_every_argument_of_the_transformers_trainer_is_known():
    transformers = pytest.importorskip("transformers")
    names = {field.name for field in dataclasses.fields(transformers.TrainingArguments)}
    assert {name for name in names if find(name) is None} == {"seed"}, "seed is ours"
