"""Objectives: what is minimised. An advantage and a sum of terms, each a weight and a loss for each token."""

from burnish.objective.family import (
    ADVANTAGES,
    CORRECTIONS,
    KL_ESTIMATORS,
    REDUCTIONS,
    clipped_objective,
    group_objective,
    optional_terms,
)
from burnish.objective.objective import Objective, Term, Weights, not_truncated

__all__ = [
    "ADVANTAGES",
    "CORRECTIONS",
    "KL_ESTIMATORS",
    "REDUCTIONS",
    "Objective",
    "Term",
    "Weights",
    "clipped_objective",
    "group_objective",
    "not_truncated",
    "optional_terms",
]
