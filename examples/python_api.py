"""Training from Python, with parts of one's own in it. Offline, on the embedded base, in well under a minute:

    python examples/python_api.py

`docs/python-api.md` explains every line.
"""

from __future__ import annotations

import sys
from pathlib import Path

from burnish.api import Completion, Finished, Prompt, Term, load, train


def right_and_brief(prompt: Prompt, completion: Completion) -> float:
    """1 for a right answer, a little more for one in few tokens; 0 for a wrong one."""
    right = completion.text.strip().endswith(f"Answer: {prompt.answer}")
    return right * (1.0 + 0.1 * (len(completion.token_ids) < 30))


def stay_close(coef: float) -> Term:
    """Half the squared log-ratio to the policy that sampled, averaged over all tokens of the update."""
    return Term(
        "drift",
        weights=lambda batch: coef * batch.mask_N / batch.mask_N.sum(),
        loss=lambda output, prepared: 0.5 * (output.logprobs_N - prepared.batch.old_logprobs_N) ** 2,
    )


def main(out: Path) -> Finished:
    words = ["train.steps=6", "sampling.prompts_per_step=16", "eval.prompts=50", f"out={out}"]
    experiment = load("add23", *words).with_reward(right_and_brief).with_term(stay_close(0.1))
    done = train(experiment)
    for name in ("avg@2", "length"):
        print(f"{name:6} {done.before[name].value:.3f} -> {done.after[name].value:.3f}")
    return done


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/python-api"))
