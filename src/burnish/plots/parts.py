"""The parts of a reward as a picture: each over the steps, and two of them against each other.

The second chart is a Pareto plot of training: one point per step, from light to dark, ringed where no other step is at
least as good in both parts and better in one. A run that trades one part for the other moves along the front; one that
improves moves to the upper right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from burnish.plots.curves import BLUE, FAINT, INK, ORANGE, STORE_FILE, dress, write_figure
from burnish.store import queries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = (BLUE, ORANGE, "#7fb37f", "#9a86b8", "#c9b458", "#d98c7f", INK)

Curves = dict[str, dict[int, float]]
"""Part -> step -> mean over the step's rollouts that have it."""


def parts_png(source: Path, out: Path, *, pair: tuple[str, str]) -> Path:
    """Draw the parts of a run into `out`; returns it.

    Args:
        source: a run folder or its store.
        pair: the parts of the Pareto plot, horizontal and vertical.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curves = _curves(source)
    figure = Figure(figsize=(10.0, 4.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    over_steps, against = figure.subplots(1, 2)
    dress(over_steps, "Parts of the reward (mean of all generated rollouts)")
    dress(against, f"{pair[1]} against {pair[0]}, light to dark by step")
    _over_steps(over_steps, curves)
    _against(against, curves, *pair)
    write_figure(figure, out)
    return out


def front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points are on the Pareto front, where more of both is better.

    Example:
        front([(0.0, 1.0), (1.0, 0.0), (0.5, 0.0)]) == [True, True, False]
    """
    return [not any(_dominates(other, point) for other in points) for point in points]


def _dominates(other: tuple[float, float], point: tuple[float, float]) -> bool:
    return other[0] >= point[0] and other[1] >= point[1] and other != point


def _curves(source: Path) -> Curves:
    db = queries.open_store(source / STORE_FILE if source.is_dir() else source)
    try:
        curves: Curves = {}
        for row in queries.parts(db):
            if row["mean"] is not None:
                curves.setdefault(row["name"], {})[row["step"]] = row["mean"]
        return curves
    finally:
        db.close()


def _over_steps(axis: Axes, curves: Curves) -> None:
    for index, (name, curve) in enumerate(curves.items()):
        axis.plot(list(curve), list(curve.values()), color=COLORS[index % len(COLORS)], linewidth=1.6, label=name)
    axis.set_xlabel("step", color=FAINT)
    if curves:
        axis.legend(frameon=False, fontsize=8, loc="best", labelcolor=INK)


def _against(axis: Axes, curves: Curves, x: str, y: str) -> None:
    steps = sorted(curves.get(x, {}).keys() & curves.get(y, {}).keys())
    if not steps:
        axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center", color=FAINT)
        return
    points = [(curves[x][step], curves[y][step]) for step in steps]
    axis.plot(*zip(*points, strict=True), color=FAINT, linewidth=0.6, zorder=1)
    axis.scatter(*zip(*points, strict=True), c=steps, cmap="Blues", vmin=2 * steps[0] - steps[-1] - 1, s=18, zorder=2)
    best = [point for point, is_best in zip(points, front(points), strict=True) if is_best]
    axis.scatter(*zip(*best, strict=True), s=60, facecolors="none", edgecolors=ORANGE, zorder=3, label="Pareto front")
    axis.set_xlabel(x, color=FAINT)
    axis.set_ylabel(y, color=FAINT)
    axis.legend(frameon=False, fontsize=8, loc="best", labelcolor=INK)
