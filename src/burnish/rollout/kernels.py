"""`kernels.c`, built on first use by the machine's own C compiler, and called with tensors.

    source + flags + processor -> hash -> ~/.cache/burnish/kernels-HASH.so -> `Kernels`

`load` gives None where that cannot be done (no compiler, not Linux); decoding then goes through torch's operations,
which takes two to three times as long and is otherwise the same. `why_not` says what is missing.

The library asks for OpenMP and is linked to none, so that it finds the one that torch has loaded: a second one would
bring threads of its own, and the two would fight for the processors. `torch.set_num_threads` therefore holds here too.

Shape letters: B rows, V vocabulary; the rest as in `kernels.c`.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (
    *("-O3", "-march=native", "-std=gnu11", "-fPIC", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno"),
    # Sums may be reordered, as vector instructions need; infinities and NaN keep their meaning.
    *("-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math"),
)
BUILD_SECONDS = 120
_Pointer, _Whole, _Real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class BuildError(Exception):
    """The kernels cannot be built or loaded here."""


class Linear(ctypes.Structure):
    _fields_ = (("panels", _Pointer), ("bias", _Pointer), ("inputs", _Whole), ("outputs", _Whole))


class Layer(ctypes.Structure):
    _fields_ = (
        ("norm_attention", _Pointer), ("query_key_value", Linear), ("norm_heads", _Pointer), ("output", Linear),
        ("norm_mlp", _Pointer), ("gate_up", Linear), ("down", Linear), ("keys", _Pointer), ("values", _Pointer),
    )  # fmt: skip


class Model(ctypes.Structure):
    _fields_ = (
        ("embedding", _Pointer), ("layers", ctypes.POINTER(Layer)), ("norm", _Pointer), ("head", Linear),
        ("cosine", _Pointer), ("sine", _Pointer),
        ("num_layers", _Whole), ("num_queries", _Whole), ("num_keys", _Whole), ("head_size", _Whole),
        ("epsilon", _Real), ("scaling", _Real),
    )  # fmt: skip


class Scratch(ctypes.Structure):
    _fields_ = tuple((name, _Pointer) for name in ("x", "normed", "heads", "attended", "gate_up", "inner"))


class Kernels:
    """The functions of `kernels.c`, which take addresses and check nothing."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._step, self._draw = library.burnish_step, library.burnish_draw
        self._step.argtypes = (
            *(ctypes.POINTER(Model), _Pointer, _Pointer, _Pointer),
            *(ctypes.POINTER(Scratch), _Pointer, _Whole, _Whole),
        )
        self._draw.argtypes = (*[_Pointer] * 5, *[_Whole] * 2, _Real)
        self._step.restype = self._draw.restype = None
        self._panel, self._block, self.max_head = (
            _Whole.in_dll(library, f"burnish_{name}").value for name in ("panel", "block", "max_head")
        )

    def packed(self, weight: Tensor) -> Tensor:
        """Weights [outputs, inputs] in panels, [panels, inputs, outputs of a panel]."""
        outputs, inputs = weight.shape
        panels = torch.zeros((-(-outputs // self._panel), inputs, self._panel))
        whole = outputs // self._panel
        panels[:whole] = weight[: whole * self._panel].unflatten(0, (whole, self._panel)).transpose(1, 2)
        if whole < len(panels):
            panels[whole, :, : outputs - whole * self._panel] = weight[whole * self._panel :].t()
        return panels

    def step(
        self,
        model: Model,
        tokens_B: Tensor,
        positions_B: Tensor,
        slots_B: Tensor,
        scratch: Scratch,
        logits_BV: Tensor,
        capacity: int,
    ) -> None:
        """Put the logits after `tokens_B` into `logits_BV`. The first three are int64, and all are contiguous."""
        self._step(
            *(model, tokens_B.data_ptr(), positions_B.data_ptr(), slots_B.data_ptr()),
            *(scratch, logits_BV.data_ptr(), len(tokens_B), capacity),
        )

    def draw(self, logits_BV: Tensor, uniforms_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """As `sampling.draw` without truncation and above temperature 0; what `logits_BV` held is lost.

        Args:
            logits_BV: float32.
            uniforms_B: float64 in [0, 1).
        """
        num_rows, vocabulary = logits_BV.shape
        logits_BV, uniforms_B = logits_BV.contiguous(), uniforms_B.contiguous()
        tokens_B, logprobs_B = torch.empty(num_rows, dtype=torch.int64), torch.empty(num_rows)
        sums = torch.empty((num_rows, -(-vocabulary // self._block)), dtype=torch.float64)
        self._draw(
            *(tensor.data_ptr() for tensor in (logits_BV, uniforms_B, sums, tokens_B, logprobs_B)),
            *(num_rows, vocabulary, 1.0 / temperature),
        )
        return tokens_B, logprobs_B


@cache
def _found() -> tuple[str, Kernels] | BuildError:
    """Name of the library, which no other build has, and what is in it."""
    try:
        library = _library()
        return library.stem, Kernels(ctypes.CDLL(str(library)))
    except (BuildError, OSError) as error:
        return BuildError(str(error))


def load() -> Kernels | None:
    """The kernels; None where they cannot be had. Builds them when that has not been done on this machine."""
    found = _found()
    return None if isinstance(found, BuildError) else found[1]


def name() -> str:
    """Of what decodes on this machine's CPU: last bits depend on it."""
    found = _found()
    return "torch" if isinstance(found, BuildError) else found[0]


def why_not() -> str | None:
    """Why `load` gives None, in a sentence; None when it gives the kernels."""
    found = _found()
    return str(found) if isinstance(found, BuildError) else None


def _library() -> Path:
    if sys.platform != "linux":
        raise BuildError(f"the decoding kernels are for Linux, and this is {sys.platform}")
    wanted = os.environ.get("CC") or "cc"
    compiler = shutil.which(wanted)
    if compiler is None:
        raise BuildError(f"there is no C compiler ({wanted}). Type apt install gcc")
    library = _folder() / f"kernels-{_fingerprint(compiler)}.so"
    if not library.exists():
        _build(compiler, library)
    return library


def _folder() -> Path:
    """Where libraries are kept: a folder that is this user's and that nobody else writes to. Where there is none, one
    for this process alone."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "burnish"
    with contextlib.suppress(OSError):  # a home that is not there, or cannot be written to
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid == os.getuid() and not found.st_mode & 0o022 and os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="burnish-"))


def _fingerprint(compiler: str) -> str:
    """Of all that the result depends on: machines with other processors may share a home."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    processor = sorted({line for line in cpuinfo.splitlines() if line.startswith(("model name", "flags", "Features"))})
    parts = [SOURCE.read_text(encoding="utf-8"), *FLAGS, os.path.realpath(compiler), platform.machine(), *processor]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _build(compiler: str, library: Path) -> None:
    """Compile, and put the result in its place at once: another process may be doing the same."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        made, linked = Path(folder) / "kernels.o", Path(folder) / library.name
        _run([compiler, *FLAGS, "-c", str(SOURCE), "-o", str(made)])
        _run([compiler, "-shared", str(made), "-lm", "-o", str(linked)])
        os.replace(linked, library)


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=BUILD_SECONDS)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took more than {BUILD_SECONDS} s") from None
    if done.returncode:
        raise BuildError(f"{command[0]} failed: {done.stderr.strip()[-500:]}")
