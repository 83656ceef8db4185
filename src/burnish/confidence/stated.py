"""The confidence that finished completions state, for evaluation.

`probabilities` asks the policy: the score that the confidence term trains, from the log-probabilities of the two words
where the completion decided between them. `words` reads the word itself as 1 or 0, where no log-probabilities are to be
had; calibration measured so is coarse: a policy that says `high` nine times out of ten where it is right nine times out
of ten is as good as can be by the first, and off by 0.1 or 0.9 at every single completion by the second.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from burnish.batch import Batch, collate
from burnish.confidence.tag import Tag
from burnish.confidence.term import SCORES, Marking, ScoreName
from burnish.protocols import Statements
from burnish.types import Group, Rollout

Logprobs = Callable[[Batch], Tensor]
"""`Learner.logprobs`."""


def probabilities(marking: Marking, ids: tuple[int, int], *, score: ScoreName, logprobs: Logprobs) -> Statements:
    """What the policy behind `logprobs` would say, at its temperature."""
    return partial(_probabilities, marking=marking, ids=ids, score=score, logprobs=logprobs)


def words(tag: Tag) -> Statements:
    """1 for a completion that says high, 0 for one that says low. Reads `Completion.text`."""

    def stated(rollout: Rollout) -> float | None:
        found = tag.find(rollout.completion.text)
        return None if isinstance(found, str) else float(found.is_high)

    return lambda groups: [[stated(rollout) for rollout in group.rollouts] for group in groups]


def _probabilities(
    groups: Sequence[Group], *, marking: Marking, ids: tuple[int, int], score: ScoreName, logprobs: Logprobs
) -> list[list[float | None]]:
    marks = [[mark.token for mark in marking(group)] for group in groups]
    asked = [_both_ways(group, tokens, ids) for group, tokens in zip(groups, marks, strict=True)]
    batch = collate([group for group in asked if group.rollouts])
    if batch.num_sequences == 0:
        return [[None] * len(tokens) for tokens in marks]
    last = batch.lengths_B.cumsum(0) - 1
    high_V, low_V = logprobs(batch)[last].reshape(-1, 2).unbind(1)
    scores = iter(SCORES[score](high_V, low_V).tolist())
    return [[next(scores) if token >= 0 else None for token in tokens] for tokens in marks]


def _both_ways(group: Group, tokens: Sequence[int], ids: tuple[int, int]) -> Group:
    """Each completion that has a tag, cut at its deciding token: once with high there, once with low."""
    cut = [
        _with_last(rollout, token, last)
        for rollout, token in zip(group.rollouts, tokens, strict=True)
        if token >= 0
        for last in ids
    ]
    return replace(group, rollouts=tuple(cut))


def _with_last(rollout: Rollout, token: int, last: int) -> Rollout:
    ids = array("i", [*rollout.completion.token_ids[:token], last])
    completion = replace(rollout.completion, token_ids=ids, logprobs=array("f", bytes(4 * len(ids))))
    return replace(rollout, completion=completion)
