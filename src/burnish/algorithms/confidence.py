"""Stated confidence as numbers: from the log-probabilities of two words to a score, and from a score to a loss.

A policy states its confidence with one of two words, `high` and `low`. Both log-probabilities are of the position
where the word is decided, normalised over the full vocabulary, at the sampling temperature.

    softmax     score = sigmoid(high - low) = P(high) / (P(high) + P(low))
    prob_diff   score = (P(high) - P(low) + 1) / 2        of the full vocabulary: 0.5 where neither word is likely

Renormalised over the two words, `prob_diff` would be `softmax` again.

Shape letters: V completions with a valid statement.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

EDGE = 1e-6
"""Probabilities are held this far from 0 and 1 where a logarithm is taken of them."""


def softmax_score(high_V: Tensor, low_V: Tensor) -> Tensor:
    """Probability of `high` among the two words, in [0, 1]."""
    return torch.sigmoid(high_V - low_V)


def prob_diff_score(high_V: Tensor, low_V: Tensor) -> Tensor:
    """Half of P(high) - P(low) + 1, in [0, 1]."""
    return (high_V.exp() - low_V.exp() + 1.0) / 2.0


def squared_error(score_V: Tensor, target_V: Tensor) -> Tensor:
    """(score - target)^2, the Brier score where targets are 0 and 1. Its gradient vanishes where the score is sure."""
    return (score_V - target_V).square()


def softmax_cross_entropy(high_V: Tensor, low_V: Tensor, target_V: Tensor) -> Tensor:
    """Binary cross-entropy of `softmax_score`, from the logit high - low, nats.

    The gradient with respect to the logit is score - target, also where the score rounds to 0 or 1.
    """
    return functional.binary_cross_entropy_with_logits(high_V - low_V, target_V, reduction="none")


def cross_entropy(score_V: Tensor, target_V: Tensor) -> Tensor:
    """Binary cross-entropy of a probability held within [EDGE, 1 - EDGE], nats.

    Beyond these edges the loss stays below 13.9 and the gradient is 0: for scores without a logit of their own.
    """
    return functional.binary_cross_entropy(score_V.clamp(EDGE, 1.0 - EDGE), target_V, reduction="none")
