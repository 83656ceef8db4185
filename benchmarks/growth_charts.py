"""The charts of `growth.py`: a quantity over the size of what grows, each value written at its point."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from benchmarks.growth_axes import Axis, Panel, number
from benchmarks.growth_points import Point
from burnish.plots.curves import BLUE, FAINT, INK, ORANGE, dress, write_figure

COLORS = (BLUE, ORANGE)


def draw(axis: Axis, points: Sequence[Point], out: Path) -> Path:
    """Draw the panels of an axis side by side into `out`; returns it."""
    figure = Figure(figsize=(9.0, 3.1), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for chart, panel in zip(figure.subplots(1, len(axis.panels)), axis.panels, strict=True):
        _panel(chart, panel, points)
        chart.set_xlabel(axis.name, color=FAINT, fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_figure(figure, out)
    return out


def _panel(chart: Axes, panel: Panel, points: Sequence[Point]) -> None:
    dress(chart, panel.title)
    sizes = [point["size"] for point in points]
    rows = [[point[quantity.key] for point in points] for quantity in panel.quantities]
    highest, lowest = max(map(max, rows)), min(map(min, rows))
    for values, quantity, color in zip(rows, panel.quantities, COLORS, strict=False):
        chart.plot(sizes, values, color=color, linewidth=1.6, marker="o", markersize=4, label=quantity.name)
    for i, size in enumerate(sizes):
        for values, color in zip(rows, COLORS, strict=False):
            above = values[i] == max(row[i] for row in rows)  # the lower line has its numbers below
            _write(chart, size, values[i], color=color, above=above)
    if panel.log:
        chart.set_yscale("log")
        chart.set_ylim(lowest / 3, highest * 3)
        chart.yaxis.set_minor_locator(NullLocator())
    else:
        chart.set_ylim(0, highest * 1.25)
    chart.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    _mark_sizes(chart, sizes)
    if len(rows) > 1:
        chart.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")


def _write(chart: Axes, size: float, value: float, *, color: str, above: bool) -> None:
    chart.annotate(
        number(value),
        (size, value),
        xytext=(0, 6 if above else -6),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        fontsize=7,
        color=color,
    )


def _mark_sizes(chart: Axes, sizes: Sequence[float]) -> None:
    """A logarithmic axis whose marks are the sizes that were measured."""
    chart.set_xscale("log")
    chart.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    chart.xaxis.set_minor_locator(NullLocator())
    chart.margins(x=0.08)
