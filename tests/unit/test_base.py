"""The base-model builder, on recipes too small to learn anything, and the base that ships."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from burnish.assets import embedded_base_path
from burnish.base.warmup import RECIPES, Recipe, build_base, build_model, measure, warm_up
from burnish.errors import TrainingError
from burnish.prompts.task_tokenizer import VOCABULARY, build_tokenizer
from burnish.prompts.tasks import TASKS, task

SMALL = Recipe(
    hidden_size=16,
    num_layers=1,
    intermediate_size=16,
    batch_size=4,
    warmup_updates=2,
    target=0.0,
    first_check=4,
    check_every=2,
    check_prompts=3,
    max_updates=8,
    mixture_updates=3,
    measured_prompts=10,
)
"""Meets its target of 0 at the first check."""


def silent(line: str) -> None:
    pass


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return AutoModelForCausalLM.from_pretrained(folder).state_dict()


def test_a_base_is_a_folder_that_transformers_loads_as_it_is(tmp_path: Path):
    base = build_base("add3", tmp_path / "base", seed=3, report=silent, recipe=SMALL)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    assert model.num_parameters() == base.parameters
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == VOCABULARY["<|im_end|>"]
    assert tokenizer.pad_token_id == VOCABULARY["<|pad|>"] != tokenizer.eos_token_id
    assert tokenizer.get_vocab() == VOCABULARY
    asked = [{"role": "user", "content": "628-371"}]
    rendered = "<|im_start|>user\n628-371<|im_end|>\n<|im_start|>assistant\n"
    assert tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True) == rendered
    assert tokenizer.encode(rendered) == build_tokenizer().encode(rendered)
    assert tokenizer.decode(tokenizer.encode(rendered)) == rendered


def test_the_recipe_is_written_beside_the_weights(tmp_path: Path):
    base = build_base("modchain", tmp_path / "base", seed=5, report=silent, recipe=SMALL)
    written = json.loads((tmp_path / "base" / "recipe.json").read_text())
    assert written == json.loads(json.dumps(asdict(base)))
    assert written["task"] == "modchain"
    assert written["seed"] == 5
    assert written["recipe"]["learning_rate"] == SMALL.learning_rate
    assert [attempt["updates"] for attempt in written["attempts"]] == [4]
    assert written["accuracy"].keys() == {"tuning", "heldout"}


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path: Path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(ord(name))  # the caller's own random numbers decide nothing
        build_base("add23", tmp_path / name, seed=seed, report=silent, recipe=SMALL)
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not any(torch.equal(a[key], c[key]) for key in a)


def test_building_leaves_the_callers_random_numbers_and_threads_alone(tmp_path: Path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    threads = torch.get_num_threads()
    torch.manual_seed(7)
    build_base("add23", tmp_path / "base", seed=1, report=silent, recipe=SMALL)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


def test_a_warm_up_that_stalls_starts_over_at_half_the_rate_and_then_gives_up(tmp_path: Path):
    lines: list[str] = []
    stalled = replace(SMALL, target=1.0, learning_rate=0.004)
    with pytest.raises(TrainingError, match=r"no base for add23: after 3 attempts .* Type another --seed"):
        build_base("add23", tmp_path / "base", seed=1, report=lines.append, recipe=stalled)
    starts = [line for line in lines if line.startswith("warm-up")]
    assert [line.rsplit(maxsplit=1)[1] for line in starts] == ["0.004", "0.002", "0.001"]
    assert sum("not reached in 8 updates" in line for line in lines) == 3
    assert not (tmp_path / "base").exists()


def test_every_check_is_reported_with_each_difficulty(tmp_path: Path):
    lines: list[str] = []
    with pytest.raises(TrainingError):
        build_base(
            "add3",
            tmp_path / "base",
            seed=1,
            report=lines.append,
            recipe=replace(SMALL, target=1.0, max_attempts=1),
        )
    checks = [line for line in lines if line.startswith("update")]
    assert [int(line.split()[1]) for line in checks] == [4, 6, 8]
    assert all("2: " in line and "3: " in line and "4: " in line for line in checks)


def test_a_warm_up_lowers_the_loss():
    lines: list[str] = []
    recipe = replace(
        SMALL, target=1.0, batch_size=8, learning_rate=0.01, first_check=10, check_every=10, max_updates=60
    )
    warm_up(build_model(recipe, seed=0), task("add23"), recipe, learning_rate=0.01, seed=0, report=lines.append)
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.75 * losses[0]


def test_a_folder_with_files_is_refused(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"is not empty; type another --out"):
        build_base("add23", tmp_path, seed=1, report=silent, recipe=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_unknown_task_is_refused_before_anything_is_made(tmp_path: Path):
    with pytest.raises(ValueError, match="no built-in task 'add99'"):
        build_base("add99", tmp_path / "base", seed=1, report=silent)
    assert not (tmp_path / "base").exists()


def test_every_task_has_a_recipe_whose_styles_add_up():
    assert RECIPES.keys() == TASKS.keys()
    for recipe in RECIPES.values():
        for styles in (recipe.skill_styles, recipe.mixture_styles):
            assert sum(styles.values()) == pytest.approx(1.0)


# -- the base that ships ----------------------------------------------------------------------------------------------


def test_the_shipped_base_is_at_most_a_megabyte():
    files = [path for path in embedded_base_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 1_000_000
    assert (embedded_base_path() / "model.safetensors").exists()


def test_the_shipped_base_was_made_by_the_recipe_of_its_task():
    written = json.loads((embedded_base_path() / "recipe.json").read_text())
    assert written["task"] == "add23"
    assert written["recipe"] == json.loads(json.dumps(asdict(RECIPES["add23"])))
    assert written["attempts"][-1]["reached"]


def test_the_shipped_base_is_as_good_as_its_recipe_says_and_leaves_room_to_learn():
    folder = embedded_base_path()
    recorded = json.loads((folder / "recipe.json").read_text())["accuracy"]["heldout"]
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    found = measure(model, task("add23"), task("add23").sample(recorded["prompts"], "heldout"), seed=99)
    # Other samples of the same problems: four standard errors of 400 Bernoulli draws, with both estimates noisy.
    assert found.sampled == pytest.approx(recorded["sampled"], abs=0.13)
    assert found.greedy == pytest.approx(recorded["greedy"], abs=0.02)
    assert 0.25 <= found.sampled <= 0.5
    assert min(found.sampled_by_bucket.values()) >= 0.2
    assert found.sampled_with_steps >= found.sampled + 0.1
    assert found.truncated_share <= 0.1


def test_a_task_without_a_shipped_base_says_how_to_build_one():
    with pytest.raises(ValueError, match=r"no base model for 'modchain' ships .* Type `burnish base modchain`"):
        embedded_base_path("modchain")
