"""What becomes of the cost when one thing grows: groups, completions, batch, vocabulary, data set, record.

    make bench-growth                          every axis, about ten minutes of one quiet core
    make bench-growth ARGS="--axis batch"      one axis; may be given several times
    make bench-growth ARGS="--doc"             also draws docs/images/growth-*.png and writes docs/performance.md

What grows, and to which sizes, is in `growth_axes.py`; every point is measured in a process of its own
(`growth_points.py`) on one thread, and drawn by `growth_charts.py`. Raw numbers are in runs/bench/growth-AXIS.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.growth_axes import AXES, Axis, number
from benchmarks.growth_points import Point
from benchmarks.peers import ROOT, processor, put_into_doc

IMAGES = ROOT / "docs" / "images"
DATA = ROOT / "runs" / "bench"


def measured(name: str) -> list[Point]:
    """A point for each size of an axis."""
    axis = AXES[name]
    runs = [axis.sizes] if axis.together else [(size,) for size in axis.sizes]
    return [point for sizes in runs for point in reported(name, sizes)]


def reported(name: str, sizes: Sequence[int]) -> list[Point]:
    """What one process measures.

    Raises:
        RuntimeError: it failed.
    """
    print(f"{name} {' '.join(map(str, sizes))}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth_points", name, *map(str, sizes)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"benchmarks.growth_points failed with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(axis: Axis, points: Sequence[Point]) -> list[str]:
    """Markdown: a row per size."""
    quantities = [quantity for panel in axis.panels for quantity in panel.quantities]
    titles = [f"{q.name}, {q.unit}" if q.unit else q.name for q in quantities]
    lines = [f"| {axis.name} | " + " | ".join(titles) + " |", "|" + "--:|" * (1 + len(titles))]
    for point in points:
        cells = [number(point[quantity.key]) for quantity in quantities]
        lines.append(f"| {point['size']:,.0f} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", action="append", choices=list(AXES), help="all, unless given")
    parser.add_argument("--doc", action="store_true", help="draw the charts and write docs/performance.md")
    args = parser.parse_args()
    DATA.mkdir(parents=True, exist_ok=True)
    for name in args.axis or AXES:
        load = os.getloadavg()
        points = measured(name)
        print("\n".join(table(AXES[name], points)) + "\n", flush=True)
        found = {"axis": name, "processor": processor(), "load": [load, os.getloadavg()], "points": points}
        (DATA / f"growth-{name}.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
        if args.doc:
            into_doc(name, points)


def into_doc(name: str, points: Sequence[Point]) -> None:
    from benchmarks.growth_charts import draw  # matplotlib, where there is something to draw

    picture = draw(AXES[name], points, IMAGES / f"growth-{name}.png")
    lines = [f"![{AXES[name].name}](images/{picture.name})", "", *table(AXES[name], points)]
    put_into_doc(f"growth-{name}", lines)


if __name__ == "__main__":
    main()
