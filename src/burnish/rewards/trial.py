"""A reward tried out before the first step, on completions made up for the purpose.

Faults appear before anything is spent, and a reward that gives one text two scores is known for it: such a reward makes
runs that cannot be repeated.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace

from burnish.rewards.upkeep import NO_UPKEEP, Upkeep
from burnish.types import FAULTS, Completion, Prompt, Score

ROWS = 2
"""Prompts that are tried."""


def try_out(
    reward: Callable[[Prompt, Sequence[Completion]], Sequence[Score]],
    prompts: Sequence[Prompt],
    upkeep: Upkeep = NO_UPKEEP,
) -> list[str]:
    """Score made-up completions of the first prompts, twice; return what a person should know.

    One completion states the prompt's answer, the other does not. State that the reward declares is as before each
    time, and afterwards. Whatever the reward raises passes through.
    """
    state = upkeep.state_dict()

    def ask(prompt: Prompt, completions: Sequence[Completion]) -> list[Score]:
        scores = list(reward(prompt, completions))
        if state is not None:
            upkeep.load_state_dict(state)
        return scores

    faults: list[str] = []
    moods: list[str] = []
    for prompt in prompts[:ROWS]:
        completions = [_completion(text) for text in (f"Answer: {prompt.answer or 'yes'}", "I do not know.")]
        first, second = (ask(prompt, completions) for _ in range(2))
        if len(first) != len(completions):
            raise ValueError(f"the reward gave {len(first)} scores for {len(completions)} completions")
        for one, other in zip(first, second, strict=True):
            if one.status in FAULTS:
                faults.append(f"the reward failed on prompt {prompt.id} with {one.status}: {one.message}")
            elif replace(one, ms=None) != replace(other, ms=None):
                moods.append(
                    f"the reward is not deterministic: on one completion of prompt {prompt.id} it gave {_shown(one)}, "
                    f"then {_shown(other)}. Runs with it cannot be repeated"
                )
    return list(dict.fromkeys(faults)) + moods[:1] + upkeep.remarks()


def _shown(score: Score) -> str:
    return ", ".join(f"{name} {value!r}" for name, value in {"total": score.total, **score.parts}.items())


def _completion(text: str) -> Completion:
    tokens = range(len(text.split()))
    return Completion(array("i", [0]), array("i", tokens), array("f", [0.0] * len(tokens)), text, "stop", 0)
