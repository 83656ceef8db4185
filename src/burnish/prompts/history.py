"""`HistorySampler`: passes over prompts whose last group taught little.

A prompt that every sibling solved, or none did, gives no advantage; generating for it again is a waste if it would turn
out the same. So the prompts of a batch are screened by the variance of the raw scores of the last group seen of each:

    never seen, or variance above the threshold     selected
    else                                            skipped
    more than half of the batch skipped             max(1, int(reinclude * batch)) of the skipped come back, by lot
    still short                                     further prompts of the stream that are selected; when a whole pass
                                                    over the data has too few, the rest are skipped ones, by lot

**Biased by design.** The statistics are those of an older policy, and a prompt that once came out alike is met again by
lot alone: reward curves and accuracies over generated rollouts then speak of the prompts that were chosen, and only
held-out evaluation speaks of the task. It goes before dynamic sampling (`filters.ConstantGroups`) and does not replace
it: dynamic sampling sees the group that was generated now.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import pvariance
from typing import Any

from burnish.prompts.sampler import ShuffledSampler, permutation
from burnish.protocols import PromptSampler
from burnish.types import Group, Metrics, Prompt


class HistorySampler(PromptSampler):
    """Draws from the stream of `ShuffledSampler` and skips prompts of little variance.

    A batch is as large as it was asked for, however many are skipped. Prompts are told apart by their id alone. What
    was learnt of them is part of the state; a store can tell it too: `note` what `store.queries.group_scores` gives.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        seed: int,
        shuffle: bool = True,
        min_variance: float = 0.01,
        relative: bool = False,
        reinclude: float = 0.2,
    ) -> None:
        """
        Args:
            min_variance: population variance of raw scores (divided by their number, not one less) that a prompt's last
                group must exceed.
            relative: `min_variance` is a share of the squared range of all raw scores seen so far, and so means the
                same on every scale: a variance is at most a quarter of that square.
            reinclude: share of a batch that comes back from among the skipped, at least one prompt.
        """
        self._stream = ShuffledSampler(prompts, seed=seed, shuffle=shuffle)
        self._num_prompts = len(prompts)
        self._seed = seed
        self._min_variance = min_variance
        self._relative = relative
        self._reinclude = reinclude
        self._variance: dict[str, float] = {}
        self._range = (math.inf, -math.inf)
        """Lowest and highest raw score seen."""
        self._lots = 0
        """Draws of lots so far: each has a key of its own."""
        self._skipped = self._reincluded = 0
        """Since the last report."""

    def take(self, n: int, /) -> list[Prompt]:
        """`n` prompts, the selected ones before those that came by lot. As epochs run on, one may come twice."""
        selected, back = self.screen(self._stream.take(n))
        more, rest = self._search(n - len(selected) - len(back))
        return selected + more + back + rest

    def screen(self, batch: Sequence[Prompt], /) -> tuple[list[Prompt], list[Prompt]]:
        """Judge one batch: (selected, re-included). Never both empty, unless the batch is."""
        threshold = self._threshold()
        selected = [prompt for prompt in batch if self._teaches(prompt, threshold)]
        skipped = [prompt for prompt in batch if not self._teaches(prompt, threshold)]
        if 2 * len(skipped) <= len(batch):
            return selected, self._by_lot(skipped, 0)
        return selected, self._by_lot(skipped, max(1, int(self._reinclude * len(batch))))

    def _search(self, missing: int) -> tuple[list[Prompt], list[Prompt]]:
        """Fill up from the stream: (selected, by lot)."""
        threshold = self._threshold()
        selected: list[Prompt] = []
        skipped: list[Prompt] = []
        while len(selected) < missing and len(selected) + len(skipped) < max(missing, self._num_prompts):
            (prompt,) = self._stream.take(1)
            (selected if self._teaches(prompt, threshold) else skipped).append(prompt)
        return selected, self._by_lot(skipped, missing - len(selected))

    def observe(self, group: Group, /) -> None:
        self.note(group.prompt.id, group.raw)

    def note(self, prompt_id: str, raw: Sequence[float], /) -> None:
        """Remember a group by its raw scores. One with fewer than two says nothing about variance."""
        if len(raw) < 2:
            return
        self._variance[prompt_id] = float(pvariance(raw))  # exact: 0 for scores that are equal
        low, high = self._range
        self._range = (min(low, *raw), max(high, *raw))

    def report(self) -> Metrics:
        found = {"prompts/skipped": float(self._skipped), "prompts/reincluded": float(self._reincluded)}
        self._skipped = self._reincluded = 0
        return found

    def state_dict(self) -> dict[str, Any]:
        """Grows with the prompts seen: an id and a number each."""
        return {
            "stream": self._stream.state_dict(),
            "lots": self._lots,
            "variance": dict(self._variance),
            "range": list(self._range) if self._variance else None,
        }

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Continue where `state` was taken."""
        self._stream.load_state_dict(state["stream"])
        self._lots = state["lots"]
        self._variance = dict(state["variance"])
        low, high = state["range"] or (math.inf, -math.inf)
        self._range = (low, high)

    def _teaches(self, prompt: Prompt, threshold: float) -> bool:
        return self._variance.get(prompt.id, math.inf) > threshold

    def _threshold(self) -> float:
        if not self._relative or not self._variance:
            return self._min_variance
        low, high = self._range
        return self._min_variance * (high - low) ** 2

    def _by_lot(self, skipped: Sequence[Prompt], count: int) -> list[Prompt]:
        """At most `count` of the skipped; the others are counted as such."""
        if count == 0:
            self._skipped += len(skipped)
            return []
        order = permutation(len(skipped), key=f"{self._seed}/lot/{self._lots}", shuffle=True)[:count]
        self._lots += 1
        self._skipped += len(skipped) - len(order)
        self._reincluded += len(order)
        return [skipped[i] for i in order]
