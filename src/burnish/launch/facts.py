"""Scores that are in the record are facts: a resumed run that repeats a step takes them and does not grade again.

Grading again could give another verdict, for a deadline depends on how busy the machine is. A function with state is
asked again nevertheless, since its state has to follow; its answers are then a matter of that state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from burnish.protocols import Reward
from burnish.store.scores import Key, RecordedScore
from burnish.store.text import text_sha
from burnish.types import FAULTS, Completion, Prompt, Score


class Recorded:
    """A reward around a reward, with the scores of the record.

    A score is recognised by its prompt, its place among its siblings, the weights that sampled it and its very tokens,
    so a completion that came out otherwise is graded.
    """

    def __init__(self, reward: Reward, recorded: Mapping[Key, RecordedScore]) -> None:
        self._reward = reward
        self._recorded = recorded

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> Sequence[Score]:
        known = [self._known(prompt, index, completion) for index, completion in enumerate(completions)]
        if None not in known:
            return [score for score in known if score is not None]
        graded = self._reward(prompt, completions)
        return [score if fact is None else fact for fact, score in zip(known, graded, strict=True)]

    def _known(self, prompt: Prompt, index: int, completion: Completion) -> Score | None:
        found = self._recorded.get((completion.policy_version, prompt.id, index, text_sha(completion.token_ids)))
        if found is None:
            return None
        message = found.message
        if message is None:  # kept for every fault, and for some of the others
            if found.status == "unparsed":
                return None  # only grading can say why, and it says the same again
            message = "its message was not kept" if found.status in FAULTS else ""
        return Score(found.total, found.raw, found.parts, found.status, message, found.answer, found.ms)
