"""Where a run stands: all of the loop's own state, and how a checkpoint keeps it. Plain JSON, no torch."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from burnish.types import Completion, Group, Prompt, Rollout, Score


@dataclass
class Progress:
    step: int = 0
    """Steps done; equals the policy version that the engine holds."""
    updates: int = 0
    """Optimiser updates made."""
    dispatched: int = 0
    """Requests sent so far; the next group's id."""
    surplus: list[Group] = field(default_factory=list[Group])
    """Admitted groups left over from the last step, when the plan keeps them."""
    empty_steps: int = 0
    """Steps in a row that trained on nothing."""
    skipped_updates: int = 0
    """Updates in a row that were left out because a number was not finite."""

    def state_dict(self) -> dict[str, Any]:
        state = asdict(replace(self, surplus=[]))
        return state | {"surplus": [_group_to_json(group) for group in self.surplus]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]
        self.updates = state["updates"]
        self.dispatched = state["dispatched"]
        self.empty_steps = state["empty_steps"]
        self.skipped_updates = state["skipped_updates"]
        self.surplus = [_group_from_json(group) for group in state["surplus"]]


def _group_to_json(group: Group) -> dict[str, Any]:
    found = asdict(group)
    for rollout in found["rollouts"]:
        completion = rollout["completion"]
        for name in ("prompt_ids", "token_ids", "logprobs"):
            completion[name] = completion[name].tolist()
    return found


def _group_from_json(found: Mapping[str, Any]) -> Group:
    prompt: dict[str, Any] = {**found["prompt"], "messages": tuple(found["prompt"]["messages"])}
    return Group(found["id"], Prompt(**prompt), tuple(_rollout_from_json(r) for r in found["rollouts"]))


def _rollout_from_json(found: Mapping[str, Any]) -> Rollout:
    completion = dict(found["completion"])
    completion["prompt_ids"] = array("i", completion["prompt_ids"])
    completion["token_ids"] = array("i", completion["token_ids"])
    completion["logprobs"] = array("f", completion["logprobs"])
    return Rollout(Completion(**completion), Score(**found["score"]))
