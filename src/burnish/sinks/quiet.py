"""What all sinks share: they receive metrics under every promised name, and their failures never stop a run."""

from __future__ import annotations

import importlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from burnish.metric_names import with_promised_names
from burnish.types import Metrics


class QuietSink(ABC):
    """Implements `protocols.Sink`. A subclass says how to send; the first failure warns and switches the sink off."""

    def __init__(self) -> None:
        self._working = True

    def write(self, step: int, metrics: Metrics, /) -> None:
        if self._working:
            self._guarded(lambda: self.send(step, with_promised_names(metrics)), "takes no more metrics")

    def close(self) -> None:
        if self._working:
            self._guarded(self.finish, "did not close")
            self._working = False

    @abstractmethod
    def send(self, step: int, metrics: Metrics) -> None: ...

    @abstractmethod
    def finish(self) -> None: ...

    def _guarded(self, call: Callable[[], None], consequence: str) -> None:
        try:
            call()
        except Exception as error:  # the fault boundary of sinks: a tracker that is down must not cost the run
            self._working = False
            name = type(self).__name__
            warnings.warn(f"{name} {consequence}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=3)


def tracker(name: str) -> Any:
    """The module of a tracker.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"log.sinks has {name}, which is not installed. Type pip install 'burnish[wandb]', or leave it out"
        ) from error


def sayable(value: float) -> float | str:
    """A number that JSON can say: `NaN`, `Infinity` and `-Infinity` become those words."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
