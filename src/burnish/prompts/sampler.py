"""`ShuffledSampler`: an endless, reproducible stream of prompts."""

from __future__ import annotations

import random
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from burnish.protocols import PromptSampler
from burnish.types import Group, Prompt


class ShuffledSampler(PromptSampler):
    """Every prompt once per epoch, each epoch in an order of its own; `shuffle=False` keeps the order of the data.

    The order of epoch e follows from (seed, e) alone, so the whole state is a position in an epoch. `take` runs on
    into the next epoch when one ends, hence may give a prompt twice. Holds one index of four bytes per prompt.
    """

    def __init__(self, prompts: Sequence[Prompt], *, seed: int, shuffle: bool = True) -> None:
        if not prompts:
            raise ValueError("there are no prompts to draw from; data.train must have at least one row in use")
        self._prompts = prompts
        self._seed = seed
        self._shuffle = shuffle
        self._epoch = 0
        self._position = 0
        self._order: tuple[int, Sequence[int]] | None = None
        """(epoch, its permutation), made when first needed."""

    def take(self, n: int, /) -> list[Prompt]:
        taken: list[Prompt] = []
        while len(taken) < n:
            order = self._order_of(self._epoch)[self._position : self._position + n - len(taken)]
            taken += [self._prompts[i] for i in order]
            self._position += len(order)
            if self._position == len(self._prompts):
                self._epoch, self._position = self._epoch + 1, 0
        return taken

    def observe(self, group: Group, /) -> None:
        """Nothing is learnt from outcomes: every prompt stays equally likely."""

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "position": self._position, "prompts": len(self._prompts)}

    def load_state_dict(self, state: Mapping[str, Any], /) -> None:
        """Continue where `state` was taken; among another number of prompts, where a position says nothing, with the
        epoch that comes next."""
        self._epoch, self._position = state["epoch"], state["position"]
        if state["prompts"] != len(self._prompts):
            self._epoch, self._position = self._epoch + 1, 0

    def _order_of(self, epoch: int) -> Sequence[int]:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, permutation(len(self._prompts), key=f"{self._seed}/{epoch}", shuffle=self._shuffle))
        return self._order[1]


def permutation(n: int, *, key: str, shuffle: bool) -> Sequence[int]:
    """A permutation of 0..n-1 that `key` decides (Fisher-Yates), or the identity.

    Python promises that a seeded generator's `random()` gives the same numbers in every version, and promises it of
    no other method; `random.shuffle` is therefore not used.
    """
    if not shuffle:
        return range(n)
    order = array("I", range(n))
    draw = random.Random(key).random
    for i in range(n - 1, 0, -1):
        j = int(draw() * (i + 1))
        order[i], order[j] = order[j], order[i]
    return order
