"""Scalarisations: from the parts of a multi-objective reward to one total. Plain floats; no torch, so that rewards
stay light.

All functions read the parts of one completion, or of one group, by name. A part that is absent was not measured (a
reward that does not apply to this prompt) and takes no part in the formula; a part without a weight is only recorded.
The total of a completion without a single weighted part is None: it has no score.

    weighted_sum     sum_k w_k r_k
    chebyshev        -[max_k w_k (z_k - r_k) + rho sum_k w_k (z_k - r_k)], z the ideal: the worst part decides
    gated            weighted sum, in which nothing but the gate itself earns credit while the gate is closed
    constrained      weighted sum - penalty * sum_k max(0, floor_k - r_k)
    normalized_sum   sum_k w_k z-score of r_k within its group

`normalized_sum` needs the whole group; the others look at one completion, before any group statistics, because only
the first of them is linear.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from burnish.algorithms.alike import differ

Parts = Mapping[str, float]
"""Part -> its value for one completion."""

EPS = 1e-6
"""Added to a standard deviation before it divides; as in `advantages`."""


@dataclass(frozen=True, slots=True)
class Weight:
    """A weight that goes linearly from `start`, at step 0, to `end`, at step `steps`, and stays there.

    Example:
        Weight(1.0, 0.0, steps=100).at(25) == 0.75
    """

    start: float
    end: float
    steps: int = 1

    @classmethod
    def constant(cls, value: float) -> Weight:
        return cls(value, value)

    def at(self, step: int) -> float:
        return self.start + (self.end - self.start) * min(1.0, step / self.steps)


def weighted_sum(parts: Parts, weights: Mapping[str, float]) -> float | None:
    """Linear scalarisation: sum_k w_k r_k over the parts that are there."""
    terms = [weight * parts[name] for name, weight in weights.items() if name in parts]
    return math.fsum(terms) if terms else None


def chebyshev(
    parts: Parts, weights: Mapping[str, float], *, ideal: Mapping[str, float], rho: float = 0.0
) -> float | None:
    """Weighted Chebyshev distance from the ideal point, negated so that more is better: at most 0 up to the ideal.

    It reaches compromises on a concave front, which no weighted sum does. With `rho` > 0 it is augmented (ParEGO,
    Knowles 2006, with rho 0.05): the sum breaks ties between completions whose worst part is the same.

    Scales matter: a part with a wide range is nearly always the worst one.

    Args:
        weights: none below 0; parts of weight 0 take no part.
        ideal: the best value of every weighted part.

    Example:
        chebyshev({"a": 1.0, "b": 0.5}, {"a": 0.9, "b": 0.1}, ideal={"a": 1.0, "b": 1.0}) == -0.05
    """
    assert all(weight >= 0.0 for weight in weights.values()), "a distance needs weights of at least 0"
    gaps = [weight * (ideal[name] - parts[name]) for name, weight in weights.items() if weight > 0.0 and name in parts]
    return -(max(gaps) + rho * math.fsum(gaps)) if gaps else None


def gated(parts: Parts, weights: Mapping[str, float], *, gate: str, threshold: float) -> float | None:
    """Weighted sum in which style earns nothing on a wrong answer.

    While the part `gate` is below `threshold`, or was not measured, every other term counts only where it lowers the
    total: a penalty stays a penalty.
    """
    if parts.get(gate, -math.inf) >= threshold:
        return weighted_sum(parts, weights)
    terms = {name: weight * parts[name] for name, weight in weights.items() if name in parts}
    return math.fsum(term if name == gate else min(0.0, term) for name, term in terms.items()) if terms else None


def constrained(
    parts: Parts, weights: Mapping[str, float], *, floors: Mapping[str, float], penalty: float
) -> float | None:
    """Weighted sum, less `penalty` times how far each constrained part is below its floor.

    The Lagrangian of: maximise sum_k w_k r_k subject to r_k >= floor_k, with one fixed multiplier. A part may be
    constrained without a weight.
    """
    total = weighted_sum(parts, weights)
    if total is None:
        return None
    return total - penalty * math.fsum(max(0.0, floor - parts[name]) for name, floor in floors.items() if name in parts)


def normalized_sum(
    parts_G: Sequence[Parts], weights_G: Sequence[Mapping[str, float]], *, eps: float = EPS
) -> list[float | None]:
    """Normalise, then sum: sum_k w_k (r_k - group mean) / (group std + eps), with the sample's standard deviation.

    The first half of GDPO (arXiv:2601.05242): each part is put on the same scale within its group before the parts are
    summed, so that none drowns the others. The second half, one scale for the whole batch, is an advantage of these
    totals: `advantages.batch_scaled` as in the paper and in TRL (a standard deviation over sequences), or
    `advantages.whitened` as in verl (over tokens, so long completions weigh more). TRL adds 1e-4 to every standard
    deviation. A part whose values are alike in a group, or that only one sibling has, adds 0.
    """
    names = {name for weights in weights_G for name in weights}
    values = {
        name: {index: parts[name] for index, parts in enumerate(parts_G) if name in parts} for name in sorted(names)
    }
    z_scores = {name: _z_scores(found, eps) for name, found in values.items()}
    return [
        weighted_sum({name: found[index] for name, found in z_scores.items() if index in found}, weights)
        for index, weights in enumerate(weights_G)
    ]


def _z_scores(values: Mapping[int, float], eps: float) -> dict[int, float]:
    if len(values) < 2:
        return dict.fromkeys(values, 0.0)
    if not differ(min(values.values()), max(values.values())):
        return dict.fromkeys(values, 0.0)
    mean, std = fmean(values.values()), stdev(values.values())
    return {index: (value - mean) / (std + eps) for index, value in values.items()}
