"""Runs of the product in processes of their own, forked from one that has imported everything: torch takes seconds.

The server that forks them has no threads and has never run a model, so a fork of it is as good as a fresh interpreter.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch  # noqa: F401
from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

import burnish.launch.local  # noqa: F401
from burnish import cli

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])


def nothing() -> None:
    """Prepare nothing."""


class Process:
    """`burnish WORDS` in a process; what it writes goes to the files `out` and `err` in `folder`."""

    def __init__(self, words: Sequence[object], folder: Path, prepare: Callable[[], None] = nothing) -> None:
        """`prepare`: called in the new process first; a function of a module, since its name is what is sent."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._process = _SERVER.Process(target=_main, args=([str(word) for word in words], folder, prepare))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def said(self) -> list[str]:
        """Lines on its standard error so far."""
        return (self._folder / "err").read_text(encoding="utf-8").splitlines()

    @property
    def shown(self) -> str:
        """Its standard output so far."""
        out = self._folder / "out"
        return out.read_text(encoding="utf-8") if out.exists() else ""

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self, seconds: float = 300.0) -> int:
        """Wait for its end; its exit code, negative for a signal that killed it."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            self._process.kill()
            raise AssertionError(f"it does not end; it said {self.said}")
        return self._process.exitcode


def _main(words: list[str], folder: Path, prepare: Callable[[], None]) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        opened = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are born deaf to it
    prepare()
    sys.exit(cli.main(words))
