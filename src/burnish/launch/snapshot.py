"""What a run depends on, as its folder and its checkpoints keep it, so that a resume can tell what changed since.

    config        every key, resolved, secrets masked
    plugins       reward part -> {path, sha256} of its file
    given         what was given from Python in place of configured parts
    model         fingerprint of the weights that the run begins with, and of the tokenizer
    data          {source, rows, sha256} of the prompts to train on
    held_out      the same of those to evaluate on, or null
    environment   what decides the last bits of a float: versions, threads, device, processor, what decodes

A snapshot is plain JSON. It is taken in two parts: `of_config` before any code of others is run, `of_content` when
model and data are loaded.
"""

from __future__ import annotations

import platform
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from burnish import build
from burnish.build.reward import plugin_sources
from burnish.config import RunConfig, resolved
from burnish.launch.identity import sha256, versions
from burnish.learner.state import checksum
from burnish.masking import masked
from burnish.prompts.datasets import Loaded
from burnish.rollout import kernels

Snapshot = dict[str, Any]


def of_config(config: RunConfig, swaps: build.Swaps) -> Snapshot:
    """What can be told before anything is loaded.

    Raises:
        ValueError: the file of a plugin is not there.
    """
    plugins = {} if swaps.reward else plugin_sources(config)
    return {
        "config": masked(resolved(config)),
        "plugins": {name: {"path": found.path, "sha256": found.sha256} for name, found in plugins.items()},
        "given": swaps.names,
    }


def of_content(parts: build.Parts, data: Loaded, held_out: tuple[str, Loaded] | None) -> Snapshot:
    """What model and data are, from themselves: where they lie does not matter. Call it before weights are restored."""
    return {
        "model": _model_sha256(parts.model, parts.tokenizer),
        "data": _rows(data),
        "held_out": None if held_out is None else _rows(held_out[1]),
        "environment": versions() | _machine(parts.model.device),
    }


def _machine(device: torch.device) -> dict[str, str]:
    """What the order of sums, and so the last bits, depends on."""
    is_cuda = device.type == "cuda"
    return {
        "threads": str(torch.get_num_threads()),
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "decoding": "torch" if is_cuda else kernels.name(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
    }


def _rows(loaded: Loaded) -> dict[str, Any]:
    report = loaded.report
    return {"source": report.source, "rows": report.read, "sha256": report.fingerprint}


def _model_sha256(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Architecture, a checksum of the weights (a sha256 of every byte would take minutes), tokenizer and template."""
    shapes = {name: list(weight.shape) for name, weight in model.named_parameters()}
    text = (
        tokenizer.backend_tokenizer.to_str()
        if isinstance(tokenizer, PreTrainedTokenizerFast)
        else sorted(tokenizer.get_vocab().items())
    )
    told = [type(model).__name__, shapes, checksum(model.parameters()), text, tokenizer.chat_template]
    return sha256(told)
