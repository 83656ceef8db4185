"""The same run from Python, with a reward of one's own beside the configuration's sizes.

python guide.py OUT [key=value ...]
"""

from __future__ import annotations

import sys
from pathlib import Path

from burnish.api import Completion, Prompt, load, train


def right(prompt: Prompt, completion: Completion) -> float:
    return float(completion.text.strip().endswith(f"Answer: {prompt.answer}"))


if __name__ == "__main__":
    out, *words = sys.argv[1:]
    experiment = load(Path(__file__).with_name("guide.yaml"), f"out={out}", *words).with_reward(right)
    done = train(experiment)
    print(f"avg@2 {done.before['avg@2'].value:.3f} -> {done.after['avg@2'].value:.3f}")
