"""Models and tokenizers from a path: the policy's, and those of a model that judges it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
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

TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


def load_model(config: RunConfig) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """fp32 weights on the configured device; bf16 is a matter of computing, not of keeping."""
    disable_progress_bar()  # the run has a display of its own
    set_verbosity_error()  # and says in its own words what is wrong with a model
    path, trust, place = _model_path(config), config.model.trust_remote_code, device(config.model.device)
    try:
        _require_model_files(path)
        tokenizer = tokenizer_at(path, trust)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, trust_remote_code=trust, output_loading_info=True
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
