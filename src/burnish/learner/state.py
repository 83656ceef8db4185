"""What a learner keeps on disk: weights as `save_pretrained` lays them out, the optimiser's state beside them.

    folder/config.json, model.safetensors, tokenizer files    loads with AutoModelForCausalLM.from_pretrained(folder)
    folder/resume/optimizer.safetensors                       "<parameter>.exp_avg", ".exp_avg_sq", ".step"
    folder/resume/learner.json                                updates made, parameter order, hyper-parameters

Tensors are safetensors and all else is JSON: nothing here can run code when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from burnish.errors import ResumeError, TrainingError

RESUME = "resume"
OPTIMIZER_FILE = "optimizer.safetensors"
LEARNER_FILE = "learner.json"


def refuse_not_finite(named: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Check what a checkpoint would hold.

    Raises:
        TrainingError: a parameter or an optimiser's tensor of it holds NaN or infinity.
    """
    for name, parameter in named.items():
        tensors = {name: parameter} | {f"{name}.{k}": v for k, v in optimizer.state.get(parameter, {}).items()}
        for shown, tensor in tensors.items():
            if not tensor.isfinite().all():
                raise TrainingError(
                    f"{shown} holds numbers that are not finite, so no checkpoint is written. Go back to an older one"
                )


def checksum(weights: Iterable[Tensor]) -> int:
    """A fingerprint of float32 weights, in [0, 2**53) so that a float64 holds it: the sum of their bit patterns.

    One read of the weights wherever they are. Any one weight that differs by a bit changes it; it is no proof against
    somebody who wants two models to agree. The tensors have odd factors, so that two that are swapped differ too.
    """
    sums = torch.stack([w.detach().view(torch.int32).sum(dtype=torch.int64) for w in weights]).tolist()
    return sum((2 * index + 1) * total for index, total in enumerate(sums)) % (1 << 53)


def write_optimizer(
    folder: Path,
    optimizer: torch.optim.Optimizer,
    named: Mapping[str, Tensor],
    *,
    updates: int,
    settings: dict[str, Any],
) -> None:
    """Write the optimiser's state of the named parameters into `folder/resume`.

    Args:
        updates: made so far, skipped ones included.
        settings: recorded for whoever reads the file; `read_optimizer` leaves them alone.
    """
    resume = folder / RESUME
    resume.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}.{key}": value.contiguous()
        for name, parameter in named.items()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(tensors, resume / OPTIMIZER_FILE)
    learner = {"updates": updates, "parameters": list(named), "settings": settings}
    (resume / LEARNER_FILE).write_text(json.dumps(learner, indent=1) + "\n", encoding="utf-8")


def read_optimizer(folder: Path, optimizer: torch.optim.Optimizer, named: Mapping[str, Tensor]) -> int:
    """Put back what `write_optimizer` wrote; the number of updates made.

    Raises:
        FileNotFoundError: `folder/resume` is not there or not whole.
        ValueError: it was written for other parameters.
        ResumeError: a file holds something else than its name says.
    """
    learner = json.loads((folder / RESUME / LEARNER_FILE).read_text(encoding="utf-8"))
    if learner["parameters"] != list(named):
        other = sorted(set(learner["parameters"]) ^ set(named))
        raise ValueError(
            f"{folder / RESUME} was saved for other parameters than this model trains ({len(other)} differ, such as "
            f"{other[0] if other else 'their order'}). Resume with the model that the run was started with"
        )
    with _named(folder / RESUME / OPTIMIZER_FILE) as file:
        tensors = load_file(file)
    optimizer.state.clear()
    for key, value in tensors.items():
        name, _, part = key.rpartition(".")
        optimizer.state[named[name]][part] = value.to(named[name].device)
    return learner["updates"]


def read_weights(folder: Path, model: PreTrainedModel) -> None:
    """Copy the weights saved in `folder` into `model`, in place: whoever shares the module sees them.

    Raises:
        ResumeError: the file holds something else than its name says.
    """
    with _named(folder / "model.safetensors"):
        saved = type(model).from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
    model.load_state_dict(saved.state_dict())


@contextmanager
def _named(file: Path) -> Iterator[Path]:
    """Name the file in an error of the library, which does not. A manifest only says that nobody changed it since."""
    try:
        yield file
    except SafetensorError as error:
        raise ResumeError(f"{file} holds no tensors ({error}); put back a good copy of it") from error
