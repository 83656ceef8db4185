"""SIGTERM and SIGINT during a run. The first stops it where nothing is lost; a second ends it at once.

    first     within `droppable` work: `Stopped` is raised there, and a resume does that work again
              elsewhere: `received` is set; the run calls `check` when the step is done
    second    the process ends, whatever it is doing; so it does when `grace` seconds after the first it still runs

Droppable is work that changes nothing a checkpoint holds: loading, generating, grading, evaluating. Since seeds are
derived from what a draw is for, doing it again gives the same rollouts. Updates are not droppable; they are finished.

A thread watches for the second signal, since the main thread, where Python's own handlers run, may be in one long call
for minutes: the sync of a large checkpoint to the disk.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any, Self

from burnish.terminal import show

GRACE_SECONDS = 30.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal ends the run. Left alone it ends the process too, with the exit code of that signal.

    `line` is the last that a person reads.
    """

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(128 + number)
        self.signal = number
        self.line = f"stopped by {number.name} before there was anything to save; type the same command again"

    def __str__(self) -> str:
        return self.line


class Signals:
    """Use it as a context manager around a run. In any other thread than the main one it does nothing.

    A signal that the process was told to ignore (`nohup`) stays ignored.
    """

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self.received: signal.Signals | None = None
        self.advice = "type the same command again"
        """What to do after an end without a save."""
        self._grace = grace
        self._droppable = False
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._reading, self._writing = os.pipe()
            os.set_blocking(self._writing, False)
            self._wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._handle) for number in heeded}
            self._watcher = threading.Thread(target=self._watch, name="burnish-signals", daemon=True)
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handlers:
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._writing)
            self._watcher.join()
            os.close(self._reading)
        if isinstance(error, Stopped):
            show(error.line, sys.stderr)

    @contextlib.contextmanager
    def droppable(self) -> Iterator[None]:
        """Open around work that may be dropped halfway.

        Raises:
            Stopped: a signal came, before or during it.
        """
        assert not self._droppable, "droppable work within droppable work"
        self._droppable = True
        try:
            self.check()
            yield
            self.check()  # where a library swallowed what `_handle` raised
        finally:
            self._droppable = False

    def check(self) -> None:
        """Raises `Stopped` if a signal came."""
        if self.received is not None:
            raise Stopped(self.received)

    def _handle(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if self._droppable:
            self._droppable = False  # raised once; a second exception could meet the clean-up after the first
            raise Stopped(self.received)

    def _watch(self) -> None:
        """The watching thread. It reads the number of each signal as it arrives, and the pipe's end at `__exit__`."""
        first = self._next(None)
        if first is None:
            return
        _say(f"{first.name}: stopping; what is done will be saved. A second signal stops at once")
        try:
            again = self._next(time.monotonic() + self._grace)
        except TimeoutError:
            missed = f"{self._grace:g} s were not enough to save (see --grace)"
            _leave(first, f"stopped by {first.name}: {missed}; {self.advice}")
        else:
            if again is not None:
                _leave(again, f"stopped by a second {again.name}, without saving; {self.advice}")

    def _next(self, deadline: float | None) -> signal.Signals | None:
        """The next signal that is heeded; None when the run is over. TimeoutError at the deadline."""
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._reading], [], [], left)[0]:
                raise TimeoutError
            number = os.read(self._reading, 1)
            if not number:
                return None
            if number[0] in self._handlers:
                return signal.Signals(number[0])


def _leave(number: signal.Signals, line: str) -> None:
    """End this process without unwinding. Checkpoints and record stand a kill, and children end by themselves."""
    _say(line)
    os._exit(128 + number)


def _say(line: str) -> None:
    """Straight to the file descriptor: the main thread may hold the stream's lock."""
    with contextlib.suppress(OSError):
        os.write(2, f"{line}\n".encode())
