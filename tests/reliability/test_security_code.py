"""Files of models, checkpoints and configurations that try to run code, or to take all memory, are refused by name."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from burnish import checkpoint
from burnish.checkpoint.manifest import MANIFEST, seal
from burnish.config import Model, RunConfig
from burnish.models import load_model
from burnish.overrides import ConfigError, load_config
from burnish.yaml_text import MAX_ALIASES
from tests.e2e.conftest import TINY_STEPS, Command

ModelDir = Callable[[str], Path]


class Touch:
    """What a pickle runs when it is read: makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """Must never come to be."""
    return tmp_path / "executed"


def test_the_pickle_of_these_tests_would_run(tmp_path: Path, marker: Path) -> None:
    torch.save(Touch(marker), tmp_path / "x.bin")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert marker.exists()


# -- models -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def model(model_dir: ModelDir, tmp_path: Path) -> Path:
    return shutil.copytree(model_dir("llama"), tmp_path / "model")


def _as_bin(folder: Path, marker: Path) -> str:
    torch.save({"model.norm.weight": Touch(marker)}, folder / "pytorch_model.bin")
    return "pytorch_model.bin is a pickle, which can run any code when it is read, and there is no model.safetensors"


def _as_shards(folder: Path, marker: Path) -> str:
    torch.save({"model.norm.weight": Touch(marker)}, folder / "pytorch_model-00001-of-00001.bin")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "pytorch_model-00001-of-00001.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return "pytorch_model-00001-of-00001.bin is a pickle"


def _as_pt(folder: Path, marker: Path) -> str:
    torch.save(Touch(marker), folder / "consolidated.00.pth")
    return "consolidated.00.pth is a pickle"


def _under_another_name(folder: Path, marker: Path) -> str:
    (folder / "model.safetensors").write_bytes(pickle.dumps(Touch(marker)))
    return "cannot be loaded; it needs "


@pytest.mark.reliability(21)
@pytest.mark.parametrize("plant", [_as_bin, _as_shards, _as_pt, _under_another_name])
def test_pickled_weights_are_refused_by_name_and_not_read(
    model: Path, marker: Path, plant: Callable[[Path, Path], str]
) -> None:
    (model / "model.safetensors").unlink()
    message = plant(model, marker)
    with pytest.raises(ValueError, match="cannot be loaded") as caught:
        load_model(RunConfig(model=Model(path=str(model), device="cpu")))
    assert message in str(caught.value)
    assert not marker.exists()


@pytest.mark.reliability(21)
def test_a_pickle_beside_good_weights_is_not_read(model: Path, marker: Path) -> None:
    _as_bin(model, marker)
    load_model(RunConfig(model=Model(path=str(model), device="cpu")))
    assert not marker.exists()


@pytest.mark.slow
@pytest.mark.reliability(21)
def test_the_command_in_the_refusal_converts_honest_weights(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="convert it") as caught:
        load_model(RunConfig(model=Model(path=str(model), device="cpu")))
    program = str(caught.value).partition('python -c "')[2].rpartition('"')[0]
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    loaded, _ = load_model(RunConfig(model=Model(path=str(model), device="cpu")))
    assert torch.equal(loaded.state_dict()["model.norm.weight"], weights["model.norm.weight"])


def _edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


CODE = "import pathlib\npathlib.Path({marker!r}).touch()\nclass Own: pass\n"


@pytest.mark.reliability(21)
@pytest.mark.parametrize("known", [False, True], ids=["own type", "known type"])
def test_code_that_ships_with_a_model_does_not_run_whatever_its_files_say(
    model: Path, marker: Path, known: bool
) -> None:
    (model / "own.py").write_text(CODE.format(marker=str(marker)))
    names = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    claims = {"trust_remote_code": True, "_trust_remote_code": True, "auto_map": names}
    _edit(model / "config.json", **claims, **({} if known else {"model_type": "own"}))
    _edit(model / "tokenizer_config.json", **claims)
    _edit(model / "generation_config.json", trust_remote_code=True, custom_generate="own.py")
    config = RunConfig(model=Model(path=str(model), device="cpu"))
    if known:
        load_model(config)
    else:
        with pytest.raises(ValueError, match=r"config\.json wants Python code run .* model\.trust_remote_code=true"):
            load_model(config)
    assert not marker.exists()
    assert not config.model.trust_remote_code


@pytest.mark.reliability(21)
def test_a_kernel_that_would_be_fetched_and_run_is_refused(model: Path) -> None:
    _edit(model / "config.json", attn_implementation="somebody/kernel")
    with pytest.raises(ValueError, match=r"config\.json wants the attention kernel 'somebody/kernel' fetched and run"):
        load_model(RunConfig(model=Model(path=str(model), device="cpu")))


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.reliability(21)
@pytest.mark.parametrize("name", ["model.safetensors", "resume/optimizer.safetensors", "resume/state.json", "rng.pt"])
@pytest.mark.parametrize("resealed", [False, True], ids=["as found", "with a fitting manifest"])
def test_a_pickle_within_a_checkpoint_is_refused_by_name_at_a_resume(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path, marker: Path, name: str, resealed: bool
) -> None:
    run = tmp_path / "run"
    words = [*TINY_STEPS, f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={run}", "train.steps=1"]
    assert burnish("train", *words).code == 0
    (run / "summary.json").unlink()
    folder = run / "checkpoints/step-000001"
    torch.save(Touch(marker), folder / name)
    if resealed:
        (folder / MANIFEST).unlink()
        seal(folder, 1)
    ended = burnish("train", "--resume", run)
    assert not marker.exists()
    if resealed and name == "rng.pt":
        assert ended.code == 0, ended.err  # a file that nobody reads
        return
    assert ended.code in (2, 5), (ended.code, ended.err)
    assert Path(name).name in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.reliability(21)
def test_a_checkpoint_has_no_file_but_safetensors_and_text(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    words = [*TINY_STEPS, f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={tmp_path / 'run'}"]
    assert burnish("train", *words).code == 0
    found = checkpoint.latest(tmp_path / "run/checkpoints")
    assert found is not None
    for file in filter(Path.is_file, found.path.rglob("*")):
        assert file.suffix in (".safetensors", ".json", ".jinja"), file


# -- configuration files ----------------------------------------------------------------------------------------------


@pytest.mark.reliability(21)
@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {marker}']",
        "!!python/object/new:os.system ['touch {marker}']",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/object:os.Own {{}}",
        "!Own {{}}",
    ],
)
def test_a_yaml_tag_makes_nothing_but_a_refusal(tmp_path: Path, marker: Path, tag: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(f"name: {tag.format(marker=marker)}\n")
    with pytest.raises(ConfigError, match=r"run\.yaml is not valid YAML: could not determine a constructor") as caught:
        load_config([str(file)])
    assert str(file) in str(caught.value)
    assert not marker.exists()


def _bomb(levels: int) -> str:
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.reliability(21)
@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("run.yaml", _bomb(9), "its aliases stand for 490,329,064 nodes, and at most 100,000 are read"),
        ("run.yaml", "x: &x [*x]", "an alias within its own anchor has no end"),
        ("run.yaml", f"x: &x 1\ny: [{', '.join(['*x'] * (MAX_ALIASES + 1))}]", "it has more than 100 aliases"),
        ("run.yaml", "[" * 50_000, "it is nested too deeply"),
        ("run.json", "[" * 200_000, "it is nested too deeply"),
        ("run.yaml", "a: 1\n" * 250_000, "has 1,250,000 bytes; at most 1,048,576 are read"),
        ("run.toml", "a = " + "[" * 100_000, "is not valid TOML: "),
        ("run.yaml", "\udcff", "is not valid YAML: 'utf-8' codec can't decode byte 0xff in position 0"),
    ],
)
def test_a_configuration_that_would_take_all_memory_is_refused(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    file = tmp_path / name
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load_config([str(file)])
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_aliases_within_reason_are_read(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: {path: embedded}\nseed: &n 7\ntrain: {steps: *n}\n")
    config = load_config([str(file)])
    assert (config.seed, config.train.steps) == (7, 7)
