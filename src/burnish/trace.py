"""What a step's updates brought to light: its metrics, and a trace per rollout for the store.

Shape letters: N completion tokens, B sequences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from burnish.algorithms.kl import k3
from burnish.batch import Prepared
from burnish.objective import Objective
from burnish.protocols import Pass
from burnish.records import TokenTrace
from burnish.types import Group, Metrics


class Updates:
    """Collects the updates of one step, in the order they are made."""

    def __init__(self, objective: Objective) -> None:
        self.num_updates = 0
        self.traces: dict[tuple[int, int], TokenTrace] = {}
        """(group id, sibling) -> trace of the last update that used the rollout."""
        self._objective = objective
        self._sums: dict[str, tuple[float, float]] = {}
        self._stepped: dict[str, list[float]] = defaultdict(list)
        self._trained = 0

    def add(
        self, groups: Sequence[Group], prepared: Prepared, seen: Pass, stepped: Metrics, *, same_policy: bool
    ) -> None:
        """Add one update. `same_policy`: its log-probabilities are of the very weights that sampled."""
        self.num_updates += not stepped["update/skipped"]
        self._trained += prepared.num_trained
        for name, (total, count) in (seen.shares | prepared.shares).items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (before[0] + total, before[1] + count)
        for name, value in stepped.items():
            self._stepped[name].append(value)
        self._observe(prepared, seen, same_policy)
        self._trace(groups, prepared, seen, same_policy)

    def metrics(self) -> Metrics:
        """Sums over counts; means and maxima of what each update reported; what the last update left behind."""
        found = {name: total / count for name, (total, count) in self._sums.items() if count}
        for name, values in self._stepped.items():
            if name.endswith("/max"):
                found[name] = max(values)
            elif name == "update/skipped":
                found[name] = sum(values)
            elif name in ("learning_rate", "weights/checksum"):
                found[name] = values[-1]
            else:
                found[name] = sum(values) / len(values)
        return found | {"tokens/trained": float(self._trained)}

    def _observe(self, prepared: Prepared, seen: Pass, same_policy: bool) -> None:
        batch, mask_N = prepared.batch, prepared.batch.mask_N
        if not mask_N.any():
            return
        moved_N = (seen.logprobs_N - batch.old_logprobs_N)[mask_N]
        self._stepped["ratio/max"].append(moved_N.max().clamp(-20, 20).exp().item())
        own_N = self._own(prepared, seen, same_policy)
        if own_N is not None:
            gap_N = (own_N - batch.engine_logprobs_N)[mask_N]
            self._stepped["mismatch/mean"].append(gap_N.abs().mean().item())
            self._stepped["mismatch/max"].append(gap_N.abs().max().item())
            self._stepped["mismatch/kl"].append(
                k3(batch.engine_logprobs_N[mask_N].double(), own_N[mask_N].double()).mean().item()
            )

    def _own(self, prepared: Prepared, seen: Pass, same_policy: bool) -> Tensor | None:
        """The learner's own log-probabilities from before the step's first update, where it has computed them."""
        if self._objective.needs_old:
            return prepared.batch.old_logprobs_N
        return seen.logprobs_N if same_policy else None

    def _trace(self, groups: Sequence[Group], prepared: Prepared, seen: Pass, same_policy: bool) -> None:
        keys = [(group.id, sibling) for group in groups for sibling in range(len(group.rollouts))]
        lengths = prepared.batch.lengths_B.tolist()
        clip_N = self._objective.clip_codes(seen.logprobs_N, prepared)

        def cut(values_N: Tensor) -> list[memoryview]:
            return [piece.numpy().data for piece in values_N.detach().contiguous().split(lengths)]

        advantages_N = prepared.advantages_N
        own_N = self._own(prepared, seen, same_policy)
        confidence, target = self._stated(prepared, seen)
        rows = zip(
            keys,
            advantages_N.split(lengths),
            cut(seen.logprobs_N),
            [None] * len(keys) if own_N is None else cut(own_N),
            cut(seen.entropy_N),
            cut(seen.push_N),
            cut(clip_N),
            cut(prepared.batch.mask_N.to(torch.int8)),
            confidence,
            target,
            strict=True,
        )
        for key, advantage_T, new, own, entropy, push, clip, mask, stated, wanted in rows:
            before = self.traces.get(key)
            learner = own if own is not None or before is None else before.learner_logprobs
            self.traces[key] = TokenTrace(
                advantage=advantage_T.mean().item() if len(advantage_T) else 0.0,
                new_logprobs=new,
                learner_logprobs=learner,
                entropy=entropy,
                push=push,
                clip=clip,
                mask=mask,
                confidence=stated,
                target=wanted,
            )

    def _stated(self, prepared: Prepared, seen: Pass) -> tuple[list[float | None], list[float | None]]:
        """Stated confidence and its target, for each sequence."""
        batch = prepared.batch
        targets = _numbers(batch.target_B)
        if self._objective.confidence is None or seen.tracked_NJ is None:
            return [None] * batch.num_sequences, targets
        return _numbers(self._objective.confidence(seen.tracked_NJ, batch)), targets


def _numbers(values_B: Tensor) -> list[float | None]:
    """None for NaN."""
    return [None if value != value else value for value in values_B.tolist()]
