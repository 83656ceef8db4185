"""Steps as large as those of a real run: text, token ids and log-probabilities that compress as real ones do."""

from __future__ import annotations

import random
import zlib
from array import array
from pathlib import Path

import numpy as np

from burnish.records import StepRecord, TokenTrace
from burnish.types import Completion, Group, Judged, Prompt, Rollout, Score
from tests.recorded import step

ROOT = Path(__file__).parents[2]
CHARACTERS_PER_TOKEN = 4.1
"""Of English with a vocabulary of 32,000."""


def prose() -> str:
    """The project's own pages: text that is no random letters."""
    pages = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def large_step(number: int, *, groups: int, group_size: int, tokens: int, source: str) -> StepRecord:
    """A step of completions of `tokens` tokens each; half of the groups are mixed, the others all right or wrong."""
    rng = np.random.default_rng(number)
    judged = [_group(rng, number * groups + p, p, group_size, tokens, source) for p in range(groups)]
    traces = {
        (j.group.id, i): _trace(rng, tokens)
        for j in judged
        if j.outcome == "admitted"
        for i in range(len(j.group.rollouts))
    }
    return step(number, *judged, traces=traces)


def _group(rng: np.random.Generator, id_: int, p: int, group_size: int, tokens: int, source: str) -> Judged:
    outcome = ("admitted", "all_right", "admitted", "all_wrong")[p % 4]
    rollouts = []
    for sibling in range(group_size):
        right = outcome == "all_right" or (outcome == "admitted" and sibling % 2 == 0)
        length = round(tokens * CHARACTERS_PER_TOKEN)
        start = int(rng.integers(len(source)))
        text = (source[start:] + source * (length // len(source) + 1))[:length]
        ids = array("i", [_id(text, n) for n in range(tokens)])
        completion = Completion(array("i", [7]), ids, _floats(rng, tokens), text, "length", 0)
        raw = 1.0 if right else -1.0
        parts = {"answer": raw, "format": float(rng.random()), "length": float(rng.random())}
        score = Score(raw + parts["format"], raw, parts, "ok" if right else "wrong", "", str(sibling % 5), 2.5)
        rollouts.append(Rollout(completion, score))
    prompt = Prompt(f"p{id_ % 5000}", text=source[p * 50 :][:300], answer="4")
    return Judged(Group(id_, prompt, tuple(rollouts)), outcome, 0)


def _id(text: str, n: int) -> int:
    """An id for the characters of the n-th token: the same characters have the same."""
    start = round(n * CHARACTERS_PER_TOKEN)
    return zlib.crc32(text[start : start + 4].encode()) % 32_000


def _trace(rng: np.random.Generator, tokens: int) -> TokenTrace:
    return TokenTrace(
        advantage=float(rng.normal()),
        new_logprobs=_floats(rng, tokens),
        learner_logprobs=_floats(rng, tokens),
        entropy=array("f", rng.exponential(0.5, tokens).astype("f").tobytes()),
        push=array("f", (rng.normal(size=tokens) / 1e6).astype("f").tobytes()),
        clip=array("b", (rng.random(tokens) < 0.01).astype("b").tobytes()),
        mask=array("b", np.ones(tokens, dtype="b").tobytes()),
    )


def _floats(rng: np.random.Generator, n: int) -> array[float]:
    """Log-probabilities: most near 0, some far below."""
    return array("f", (-rng.exponential(0.5, n)).astype("f").tobytes())


def shuffled(source: str, seed: int) -> str:
    """The paragraphs of a text in another order."""
    paragraphs = source.split("\n\n")
    random.Random(seed).shuffle(paragraphs)
    return "\n\n".join(paragraphs)
