"""What of a step is kept in full. Every rollout's numbers are kept; text and token arrays are kept for some.

Bodies (text and the grader's message): of every group the best and the worst total and two more at random, every
fault, and all siblings of the groups below. Token arrays: a few whole groups (`store.token_groups`), so that siblings
can be laid side by side: the one whose raw scores spread most, an all-wrong one, an all-right one, and random ones up
to the number. The draws depend on the seed, the step and the group alone, so a repeated run keeps the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from burnish.types import FAULTS, Group, Judged

RANDOM_PER_GROUP = 2


def bodies_of(group: Group, *, seed: int, step: int) -> set[int]:
    """Sibling indices whose text is kept."""
    scored = [(r.score.total, -i) for i, r in enumerate(group.rollouts) if r.score.total is not None]
    kept = {i for i, r in enumerate(group.rollouts) if r.score.status in FAULTS}
    if scored:
        kept |= {-max(scored)[1], -min(scored)[1]}
    others = [i for i in range(len(group.rollouts)) if i not in kept]
    rng = random.Random(f"{seed}/{step}/{group.id}")
    return kept | set(rng.sample(others, min(RANDOM_PER_GROUP, len(others))))


def whole_groups(judged: Sequence[Judged], *, seed: int, step: int, count: int) -> set[int]:
    """Indices of the groups whose token arrays are kept."""
    rng = random.Random(f"{seed}/{step}/groups")
    chosen: list[int] = []
    spread = {i: _spread(j.group) for i, j in enumerate(judged)}
    if spread and max(spread.values()) > 0:
        chosen.append(max(spread, key=lambda i: spread[i]))
    for outcome in ("all_wrong", "all_right"):
        candidates = [i for i, j in enumerate(judged) if j.outcome == outcome]
        if candidates:
            chosen.append(rng.choice(candidates))
    rest = [i for i in range(len(judged)) if i not in chosen]
    return set(chosen[:count]) | set(rng.sample(rest, max(0, min(count - len(chosen), len(rest)))))


def _spread(group: Group) -> float:
    """Variance of the raw scores; 0 without any."""
    raw = group.raw
    if not raw:
        return 0.0
    mean = sum(raw) / len(raw)
    return sum((value - mean) ** 2 for value in raw) / len(raw)
