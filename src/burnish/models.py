"""Models and tokenizers from a path: the policy's, and those of a model that judges it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from burnish.assets import embedded_base_path
from burnish.config import RunConfig

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Names under which pickled weights come."""
TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


def load_model(config: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """fp32 weights on the configured device; bf16 is a matter of computing, not of keeping."""
    disable_progress_bar()  # the run has a display of its own
    set_verbosity_error()  # and says in its own words what is wrong with a model
    path, trust, place = _model_path(config), config.model.trust_remote_code, device(config.model.device)
    try:
        _require_model_files(path)
        require_no_code(path, trust)
        tokenizer = tokenizer_at(path, trust)
        require_safetensors(path)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, trust_remote_code=trust, use_safetensors=True, output_loading_info=True
        )
        model, loading = loaded
        _require_all_weights(loading["missing_keys"])
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(config, error) from error
    return model.to(place).eval(), tokenizer


def skeleton(config: RunConfig) -> PreTrainedModel:
    """The model without its weights: shapes and settings, on no device. Tells what it needs before it is loaded."""
    path, trust = _model_path(config), config.model.trust_remote_code
    try:
        _require_model_files(path)
        require_no_code(path, trust)
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(path, trust_remote_code=trust), dtype=torch.float32, trust_remote_code=trust
            )
    except (OSError, ValueError) as error:
        raise _not_loaded(config, error) from error


def load_tokenizer(config: RunConfig) -> PreTrainedTokenizerBase:
    """The model's tokenizer, without the model."""
    path = _model_path(config)
    try:
        _require_model_files(path)
        require_no_code(path, config.model.trust_remote_code)
        return tokenizer_at(path, config.model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise _not_loaded(config, error) from error


def _model_path(config: RunConfig) -> str:
    path = config.model.path
    if path.startswith("~"):  # a shell leaves it alone within key=value
        return str(Path(path).expanduser())
    return str(embedded_base_path()) if path == "embedded" else path


def _not_loaded(config: RunConfig, error: Exception) -> ValueError:
    found = " ".join(str(error).split())  # transformers writes paragraphs
    return ValueError(
        f"model.path={config.model.path} cannot be loaded; it needs `embedded`, a directory in save_pretrained layout, "
        f"or a hub name. Found: {found}"
    )


def _require_model_files(path: str) -> None:
    """Say what is wrong with a path before the libraries take it for a hub name."""
    folder = Path(path)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError("a directory without config.json")
    if not folder.is_dir() and path.startswith((".", "/")):
        raise ValueError(f"no such directory (looked in {Path.cwd()})")


def require_no_code(path: str, trust: bool) -> None:
    """Refuse a directory whose config asks to run code, unless the user trusts it. Nothing in it can say that he does.

    `auto_map` names Python files of the model's own; transformers passes over it where it knows the type of model
    itself. An attention implementation with a slash is a kernel that would be fetched from a hub and run.

    Raises:
        ValueError: naming the file.
    """
    file = Path(path) / "config.json"
    if trust or not file.is_file():
        return
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return  # transformers says in its own words that this is no JSON
    if not isinstance(found, dict):
        raise ValueError("config.json holds no JSON object")
    if "auto_map" in found and found.get("model_type") not in CONFIG_MAPPING:
        raise ValueError(
            "config.json wants Python code run that ships with the model (auto_map). If you trust it as your own code, "
            "type model.trust_remote_code=true"
        )
    kernel = found.get("attn_implementation")
    if isinstance(kernel, str) and "/" in kernel:
        raise ValueError(f"config.json wants the attention kernel {kernel!r} fetched and run; take that key out of it")


def require_safetensors(path: str, *, auto: str = "AutoModelForCausalLM") -> None:
    """Refuse a directory whose weights are pickles: reading one can run any code that its maker put into it.

    Args:
        auto: class of transformers that converts them.

    Raises:
        ValueError: naming a file, and how to convert it.
    """
    folder = Path(path)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"{pickles[0]} is a pickle, which can run any code when it is read, and there is no model.safetensors. If "
            f'you trust its maker, convert it: python -c "from transformers import {auto} as M; '
            f'M.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"'
        )


def _require_all_weights(missing: Collection[str]) -> None:
    """transformers fills what a checkpoint lacks with random numbers, and goes on."""
    if missing:
        raise ValueError(
            f"weights for another architecture, or not all of them: {len(missing)} are missing, such as {min(missing)}"
        )


def device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` as a device that is there.

    Raises:
        ValueError: it is none of these, or not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    number = index if index else "0"
    if kind not in ("cpu", "cuda") or not number.isdecimal():
        raise ValueError(f"model.device is {name!r}; it needs auto, cpu, cuda or cuda:N. Type model.device=auto")
    if kind == "cuda" and int(number) >= torch.cuda.device_count():
        raise ValueError(
            f"model.device is {name!r}, and torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            "Type model.device=auto"
        )
    return torch.device(name)


def tokenizer_at(path: str, trust: bool) -> PreTrainedTokenizerBase:
    """The tokenizer as it was saved.

    For some model types (qwen2 among them) `AutoTokenizer` overrules what a directory says of itself, and would split
    the text of a generic tokenizer by another model's rules, without a word.
    """
    folder = Path(path)
    if folder.is_dir() and not any(next(folder.glob(pattern), None) for pattern in TOKENIZER_FILES):
        raise ValueError("a directory without a tokenizer")  # for some, transformers would make up an empty one
    settings = folder / "tokenizer_config.json"
    saved_as = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") if settings.is_file() else None
    if saved_as in ("TokenizersBackend", "PreTrainedTokenizerFast"):
        return PreTrainedTokenizerFast.from_pretrained(path)
    return AutoTokenizer.from_pretrained(path, trust_remote_code=trust)
