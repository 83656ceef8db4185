"""What a person sees while a run goes on: a progress bar on a terminal, plain lines anywhere else.

On a terminal the bar shows the step, what is under way and the time left; one summary line per step stays above it.
Elsewhere (a pipe, CI, TERM=dumb) the same lines are printed, flushed, without the bar. NO_COLOR is respected.

Nothing printed here is ever interpreted: not as rich markup, and not by the terminal (`printable`). Run names, prompts
and model output may hold anything.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from burnish.terminal import printable, sayable_in
from burnish.types import Metrics

ETA_STEPS = 20
"""The time left is told from the median of this many latest steps."""

SUMMARY = (
    ("reward", "reward/mean", "{:+.3f}"),
    ("accuracy", "accuracy", "{:.1%}"),
    ("len", "length/mean", "{:.1f}"),
    ("entropy", "entropy", "{:.3f}"),
    ("rounds", "rounds", "{:.0f}"),
    ("clip", "clip/fraction", "{:.2%}"),
    ("", "time/step", "{:.1f} s"),
)
"""(label, metric, format) of the summary line, where groups and tokens per second come from two metrics each."""


class Console:
    """Also a sink: `write` is `step`.

    Example:
        console = Console(100)
        console.header(["dapo on embedded, seed 1"])
        console.phase("generating", 12, 64)
        console.step(1, {"reward/mean": -0.4, "time/step": 3.1})
        console.close()
    """

    def __init__(self, total_steps: int, stream: TextIO | None = None) -> None:
        """`total_steps`: of the whole run; 0 when there are no steps. `stream`: standard output unless given."""
        self._total = total_steps
        self._stream = sys.stdout if stream is None else stream
        self._seconds: deque[float] = deque(maxlen=ETA_STEPS)
        self._progress: Progress | None = None
        self._last_step_at: float | None = None
        if self._stream.isatty() and os.environ.get("TERM") != "dumb":
            self._progress = Progress(
                TextColumn("{task.fields[where]}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[phase]}", markup=False),
                TextColumn("{task.fields[left]}", markup=False, style="dim"),
                console=RichConsole(file=self._stream, markup=False, highlight=False, emoji=False),
                refresh_per_second=4,
                transient=True,
            )
            where = f"step 0/{total_steps}" if total_steps else ""
            self._task = self._progress.add_task("", total=total_steps or None, where=where, phase="", left="")

    def header(self, lines: Iterable[str]) -> None:
        """Say what the run is, above everything else."""
        for line in lines:
            self._print(line)

    def phase(self, name: str, done: int, total: int) -> None:
        """Show what is under way, and how much of it is done. Shown on terminals only."""
        if self._progress is None:
            return
        phase = printable(f"{name} {done:,}/{total:,}")
        if self._total:
            self._progress.update(self._task, phase=phase)
        else:
            self._progress.update(self._task, phase=phase, completed=done, total=total)
        self._progress.start()

    def step(self, step: int, metrics: Metrics) -> None:
        """Print the step's summary line and move the bar."""
        self._print(f"step {step:>{len(str(self._total))}}/{self._total}  {summary(metrics)}")
        now = time.monotonic()
        if self._last_step_at is not None:
            self._seconds.append(now - self._last_step_at)
        self._last_step_at = now
        if self._progress is not None:
            where = f"step {step}/{self._total}"
            self._progress.update(self._task, completed=step, where=where, phase="", left=self._left(step))
            self._progress.start()

    def evaluation(self, step: int, values: Mapping[str, tuple[float, float, float]]) -> None:
        """Print held-out results: name -> (value, low, high), the last two an interval."""
        shown = [f"{name} {_held_out(name, *value)}" for name, value in values.items()]
        self._print(f"held out after step {step}: " + ", ".join(shown))

    def note(self, text: str) -> None:
        """Print a sentence; each line of it is a line."""
        for line in text.split("\n"):
            self._print(line)

    def write(self, step: int, metrics: Metrics, /) -> None:
        self.step(step, metrics)

    def close(self) -> None:
        """Take the bar away. What is printed after this stands below the lines."""
        if self._progress is not None:
            self._progress.stop()

    def _left(self, step: int) -> str:
        if not self._seconds or step >= self._total:
            return ""
        return f"{_duration(statistics.median(self._seconds) * (self._total - step))} left"

    def _print(self, line: str) -> None:
        line = sayable_in(self._stream, printable(line).rstrip())
        if self._progress is not None:
            self._progress.console.print(Text(line), soft_wrap=True)
        else:
            self._stream.write(line + "\n")
            self._stream.flush()


def summary(metrics: Metrics) -> str:
    """One line of the numbers people look at; what was not measured is left out."""
    pieces = [f"{label} {form.format(metrics[name])}".strip() for label, name, form in SUMMARY if name in metrics]
    if "groups/generated" in metrics:
        admitted = f"groups {metrics['groups/admitted']:.0f}/{metrics['groups/generated']:.0f}"
        pieces.insert(min(4, len(pieces)), admitted)
    if "tokens/generated" in metrics and metrics.get("time/step", 0.0) > 0.0:
        pieces.append(f"{metrics['tokens/generated'] / metrics['time/step']:,.0f} tok/s")
    held_out = [f"{name} {value:.1%}" for name, value in metrics.items() if name.startswith("eval/") and "avg@" in name]
    return "  ".join(pieces + held_out)


def _held_out(name: str, value: float, low: float, high: float) -> str:
    if name == "faults":
        return f"{value:.0f}"
    form = "{:.1f}" if name == "length" else "{:.1%}"
    return f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {seconds:02} s" if minutes else f"{seconds} s"
