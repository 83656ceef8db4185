"""Which groups train. A filter reads the raw task metric, never the shaped total: two right answers that differ only in
an overlong penalty teach nothing about being right.

`ConstantGroups` is DAPO's dynamic sampling (arXiv:2503.14476, eq. 11: 0 < #right < group size), for any task metric;
`AdmitAll` keeps whatever can be compared. Both call a group with fewer than two scored siblings a `fault`.
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
    """Admits every group with at least two scored siblings."""

    def __call__(self, group: Group, /) -> Outcome:
        return "admitted" if len(group.raw) >= 2 else "fault"
