"""A run as pictures: `curves_png`, six small charts read from its store; `reliability_png`, stated confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from sqlite3 import Connection
from typing import TYPE_CHECKING, Any

from burnish.checkpoint.durable import write_atomically
from burnish.records import Evaluation
from burnish.store import queries
from burnish.terminal import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STORE_FILE = "run.sqlite"
"""Of the store in a run folder."""

INK, FAINT, BLUE, ORANGE = "#222222", "#8a8a8a", "#2f6fb0", "#d9772b"
OUTCOMES = {
    "admitted": ("#2f6fb0", "trained on"),
    "all_right": ("#7fb37f", "all right"),
    "all_wrong": ("#d98c7f", "all wrong"),
    "constant": ("#c9b458", "scored alike"),
    "fault": ("#444444", "grader fault"),
    "surplus": ("#bcd3ea", "surplus"),
}
PHASES = {
    "generate": "#2f6fb0",
    "reward": "#d9772b",
    "learn": "#7fb37f",
    "evaluate": "#9a86b8",
    "checkpoint": "#c9b458",
    "publish": "#bcd3ea",
    "record": "#444444",
}


def curves_png(source: Path, out: Path) -> Path:
    """Draw the run's curves into `out`; returns it.

    `source` is a run folder or its store. Bands are 1.96 standard errors (reward, clustered by prompt) and 95 %
    intervals (held-out accuracy). What was not recorded is left blank and says so.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    db = queries.open_store(source / STORE_FILE if source.is_dir() else source)
    try:
        figure = Figure(figsize=(10.0, 7.6), dpi=100, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(3, 2).ravel()
        charts: Sequence[tuple[str, Callable[[Connection, Axes], bool]]] = (
            ("Reward (raw, all generated rollouts)", _reward),
            ("Held-out accuracy (95 % interval)", _held_out),
            ("Completion length (tokens)", _length),
            ("Entropy (nats per token)", _entropy),
            ("Generated groups by outcome", _outcomes),
            ("Seconds per step", _seconds),
        )
        for axis, (title, draw) in zip(axes, charts, strict=True):
            dress(axis, title)
            if not draw(db, axis):
                axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center", color=FAINT)
        last = max((row["step"] for row in queries.steps(db)), default=1)
        for axis in axes:
            axis.set_xlim(-0.02 * last, 1.02 * last + 0.5)
        for axis in axes[-2:]:
            axis.set_xlabel("step", color=FAINT)
        write_figure(figure, out)
    finally:
        db.close()
    return out


def reliability_png(evaluations: Sequence[Evaluation], out: Path) -> Path:
    """Draw stated confidence against accuracy into `out`; returns it. Two evaluations are before and after.

    A point is a tenth of the confidence scale, its area the completions in it; on the diagonal, statements are true.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 5.0), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    dress(axis, plain(f"Reliability ({evaluations[-1].suite})"))
    axis.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    for evaluation, color in zip(evaluations, (FAINT, BLUE)[-len(evaluations) :], strict=True):
        found = evaluation.reliability
        total = sum(b.n for b in found)
        confidences, accuracies = [b.confidence for b in found], [b.accuracy for b in found]
        values = [f"{name} {evaluation.values[name][0]:.3f}" for name in ("brier", "ece") if name in evaluation.values]
        axis.plot(
            confidences, accuracies, color=color, linewidth=1.2, label=f"step {evaluation.step}: {', '.join(values)}"
        )
        axis.scatter(confidences, accuracies, s=[12 + 300 * b.n / total for b in found], color=color, alpha=0.6)
    axis.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    axis.set_xlim(-0.05, 1.05)
    axis.set_ylim(-0.05, 1.05)
    axis.set_xlabel("stated confidence", color=FAINT)
    axis.set_ylabel("share right", color=FAINT)
    axis.legend(frameon=False, fontsize=8, loc="upper left", labelcolor=INK)
    write_figure(figure, out)
    return out


def _reward(db: Connection, axis: Axes) -> bool:
    points = [p for p in queries.metric_curve(db, "reward/mean") if p.value is not None]
    steps, values = [p.step for p in points], [p.value or 0.0 for p in points]
    errors = [1.96 * (p.se or 0.0) for p in points]
    low = [value - error for value, error in zip(values, errors, strict=True)]
    high = [value + error for value, error in zip(values, errors, strict=True)]
    axis.fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0)
    axis.plot(steps, values, color=BLUE, linewidth=1.6, marker=_marker(steps), markersize=3)
    return bool(points)


def _held_out(db: Connection, axis: Axes) -> bool:
    points = queries.evaluations(db)
    series: dict[tuple[str, str], list[queries.EvaluationPoint]] = {}
    for point in points:
        if point.value is not None and (point.metric.startswith("avg@") or point.metric == "greedy"):
            series.setdefault((point.suite, point.metric), []).append(point)
    for index, ((suite, metric), line) in enumerate(series.items()):
        steps, values = [p.step for p in line], [p.value or 0.0 for p in line]
        low = [v - p.low if p.low is not None else 0.0 for v, p in zip(values, line, strict=True)]
        high = [p.high - v if p.high is not None else 0.0 for v, p in zip(values, line, strict=True)]
        look: dict[str, Any] = {"color": (BLUE, ORANGE, INK, FAINT)[index % 4], "markersize": 4, "capsize": 2}
        style = "--" if len(line) == 2 else "-"  # before and after only: no curve was measured between
        axis.errorbar(
            steps,
            values,
            yerr=[low, high],
            marker="o",
            linestyle=style,
            linewidth=1.6,
            elinewidth=1,
            label=plain(f"{suite} {metric}"),
            **look,
        )
    if series:
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _legend(axis)
    return bool(series)


def _length(db: Connection, axis: Axes) -> bool:
    if not _line(db, axis, "length/mean", BLUE, "mean"):
        return False
    axis.set_ylim(bottom=0)
    cut = [(p.step, p.value) for p in queries.metric_curve(db, "length/truncated") if p.value is not None]
    if any(share for _, share in cut):
        twin = axis.twinx()
        twin.plot(*zip(*cut, strict=True), color=ORANGE, linewidth=1.0)
        twin.set_ylim(bottom=0)
        twin.yaxis.set_major_formatter(lambda value, _: f"{value:.1%}")
        twin.set_ylabel("cut at the limit", color=ORANGE, fontsize=8)
        twin.tick_params(colors=ORANGE, labelsize=8, length=0)
        twin.spines[:].set_visible(False)
    return True


def _entropy(db: Connection, axis: Axes) -> bool:
    found = _line(db, axis, "entropy", BLUE, "entropy")
    if found:
        axis.set_ylim(bottom=0)
    return found


def _outcomes(db: Connection, axis: Axes) -> bool:
    counts = queries.outcome_counts(db)
    steps = sorted({c.step for c in counts})
    by_outcome = {word: {c.step: c.n for c in counts if c.word == word} for word in OUTCOMES}
    rows = {word: [found.get(step, 0) for step in steps] for word, found in by_outcome.items() if found}
    _stack(axis, steps, rows, {word: OUTCOMES[word] for word in rows})
    return bool(rows)


def _seconds(db: Connection, axis: Axes) -> bool:
    total = {p.step: p.value or 0.0 for p in queries.metric_curve(db, "time/step")}
    steps = sorted(total)
    rows: dict[str, list[float]] = {}
    for phase in PHASES:
        found = {p.step: p.value or 0.0 for p in queries.metric_curve(db, f"time/{phase}")}
        if found:
            rows[phase] = [found.get(step, 0.0) for step in steps]
    _stack(axis, steps, rows, {phase: (PHASES[phase], phase) for phase in rows})
    return bool(rows)


def _line(db: Connection, axis: Axes, name: str, color: str, label: str) -> bool:
    points = [p for p in queries.metric_curve(db, name) if p.value is not None]
    steps = [p.step for p in points]
    values = [p.value or 0.0 for p in points]
    axis.plot(steps, values, color=color, linewidth=1.6, marker=_marker(steps), markersize=3, label=label)
    return bool(points)


def _stack(axis: Axes, steps: Sequence[int], rows: dict[str, Any], look: dict[str, tuple[str, str]]) -> None:
    if not rows:
        return
    bottom = [0.0] * len(steps)
    for name, values in rows.items():
        color, label = look[name]
        axis.bar(steps, values, bottom=bottom, width=1.0, color=color, linewidth=0, label=label)
        bottom = [low + value for low, value in zip(bottom, values, strict=True)]
    axis.set_ylim(0, max(bottom) * 1.25 or 1.0)
    _legend(axis)


def _legend(axis: Axes) -> None:
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="best", handlelength=1.2, columnspacing=1.0, labelcolor=INK)


def write_figure(figure: Figure, out: Path) -> None:
    """Write a picture whole or not at all. Raises StorageError."""
    drawn = BytesIO()
    figure.savefig(drawn)
    write_atomically(out, drawn.getvalue())


def plain(text: str) -> str:
    """Text as matplotlib shows it: a dollar is no beginning of a formula."""
    return printable(text).replace("$", r"\$")


def dress(axis: Axes, title: str) -> None:
    """The look of all charts: a title, no frame, faint marks."""
    from matplotlib.ticker import MaxNLocator

    axis.set_title(title, loc="left", fontsize=10, color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(FAINT)
    axis.tick_params(colors=FAINT, labelsize=8, length=3)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    axis.set_axisbelow(True)


def _marker(steps: Sequence[int]) -> str:
    """Points where there are few; a line alone where points would hide it."""
    return "o" if len(steps) <= 3 else ""
