"""Seeds are derived, never carried: a hash of what a draw is for, so that no stream has to be saved or kept in step.

`derive` hashes a seed with names into a new seed. `sample_seed` is the seed of one training completion and
`evaluation_seed` of one held-out completion. Seeds that are for different things get different names, and therefore
have nothing in common.
"""

from __future__ import annotations

from hashlib import blake2b

MASK_63 = (1 << 63) - 1


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) that depends on `seed` and on every name, its type and its place.

    blake2b over the parts, each preceded by its type and length, so that no two lists of names encode alike:
    ("ab", "c") and ("a", "bc") differ, and so do 1 and "1".
    """
    digest = blake2b(digest_size=8)
    for part in (seed, *names):
        kind, data = ("i", b"%d" % part) if isinstance(part, int) else ("s", part.encode("utf-8", "surrogatepass"))
        digest.update(f"{kind}{len(data)}:".encode() + data)
    return int.from_bytes(digest.digest(), "big") & MASK_63


def sample_seed(run_seed: int, policy_version: int, prompt_id: str, draw: int, index: int) -> int:
    """Seed of completion `index` of the `draw`-th time (from 0) that a step draws this prompt, in [0, 2**63)."""
    return derive(run_seed, "sample", policy_version, prompt_id, draw, index)


def evaluation_seed(run_seed: int, prompt_id: str, draw: int, index: int) -> int:
    """Seed of held-out completion `index` of the `draw`-th time (from 0) that the prompt stands in the suite.

    The policy version is left out on purpose: all evaluations of a run draw the same random numbers for a problem, so
    that two of them differ by what was learnt and less by luck.
    """
    return derive(run_seed, "eval", prompt_id, draw, index)
