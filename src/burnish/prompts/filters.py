"""Which groups train. A filter reads the raw task metric, never the shaped total: two right answers that differ only in
an overlong penalty teach nothing about being right.

`ConstantGroups` is DAPO's dynamic sampling (arXiv:2503.14476, eq. 11: 0 < #right < group size), for any task metric;
`AdmitAll` keeps whatever can be learned from. A group with fewer scored siblings than that takes is a `fault`.
"""

from __future__ import annotations

from burnish.algorithms.alike import differ
from burnish.protocols import GroupFilter
from burnish.types import Group, Outcome


class ConstantGroups(GroupFilter):
    """Drops groups whose siblings are all right, all wrong, or scored alike: they have no advantage to learn from."""

    def __call__(self, group: Group, /) -> Outcome:
        raw = group.raw
        if len(raw) < 2:
            return "fault"
        if differ(min(raw), max(raw)):
            return "admitted"
        statuses = {rollout.score.status for rollout in group.rollouts if rollout.score.raw is not None}
        if statuses == {"ok"}:
            return "all_right"
        return "all_wrong" if statuses <= {"wrong", "unparsed"} else "constant"


class AdmitAll(GroupFilter):
    """Admits every group with at least `min_siblings` of its siblings scored: two to compare, one with a value head."""

    def __init__(self, min_siblings: int = 2) -> None:
        self._min_siblings = min_siblings

    def __call__(self, group: Group, /) -> Outcome:
        return "admitted" if len(group.raw) >= self._min_siblings else "fault"
