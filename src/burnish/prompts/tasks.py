"""Built-in tasks: problems made by rule, with answers, worked steps and splits that never meet.

| name | what is asked | difficulty (`meta["bucket"]`) | example |
|---|---|---|---|
| `add23` | column addition and subtraction | digits, 2 and 3 | `628-371` |
| `add3` | the same, harder | digits, 2 to 4 | `5021+9880` |
| `modchain` | chains of + - * from left to right, each result mod 10 | operations, 2 to 6 | `7+5*3 mod 10` |

A problem belongs to a split by a hash of the problem itself: 18 of 20 train, 1 of 20 is for `tuning` (when to stop a
warm-up, which base to keep), 1 of 20 is `heldout` and decides nothing. So no seed can put a held-out problem into
training; `a+b` and `b+a` count as one problem.

`Task.worked` writes the completions that a base model is warmed up on, in three styles: `direct` (the answer at once),
`steps` (worked steps first) and `check` (the steps repeated once or twice to no use).

To add a task: write a draw, a key and a solver, name them in `TASKS`, and see that `WORDS` covers its texts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from burnish.types import Prompt

Split = Literal["train", "tuning", "heldout"]
Style = Literal["direct", "steps", "check"]

TRAIN_POOL = 20_000
"""Distinct prompts that a run draws on when its data is a built-in task."""

DIGITS = tuple("0123456789")
CONFIDENCE_WORDS = ("<confidence>", "</confidence>", "high", "low")
WORDS = (
    *DIGITS,
    *("+", "-", "*", "=", "b", "\n", "Answer: ", "Check", " mod 10"),
    *("user", "assistant", "system"),
    *CONFIDENCE_WORDS,
)
"""Every text that task prompts and completions are made of is a sequence of these; each is one token."""

_SHARES = 20
"""Hash values 0 and 1 of this many are held-out and tuning."""
_CHECK_TWICE = 0.3
"""Share of `check` completions that repeat the steps twice."""
_MAX_REPEATS = 2_000
"""Draws in a row of problems already seen, after which a bucket counts as exhausted."""


@dataclass(frozen=True, slots=True)
class Solution:
    steps: tuple[str, ...]
    """One line each."""
    answer: str


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    buckets: tuple[int, ...]
    """Difficulties, drawn with equal probability."""
    max_new_tokens: int
    """Room for worked steps; some `check` completions do not fit."""
    draw: Callable[[Random, int], str]
    """(random numbers, bucket) -> the text of a problem."""
    key: Callable[[str], str]
    """The text of a problem -> what makes it the same problem as another."""
    solve: Callable[[str], Solution]

    def split_of(self, text: str) -> Split:
        """The split that a problem belongs to, in every run and on every machine."""
        digest = hashlib.sha256(f"{self.name}:{self.key(text)}".encode()).digest()
        share = int.from_bytes(digest[:8]) % _SHARES
        return "heldout" if share == 0 else "tuning" if share == 1 else "train"

    def problems(self, split: Split, *, seed: int, buckets: tuple[int, ...] | None = None) -> Iterator[Prompt]:
        """Prompts of `split` without end; a prompt may come again. `buckets` restricts the difficulties."""
        rng = Random(f"{self.name}-{split}-{seed}")
        drawn_from = self.buckets if buckets is None else buckets
        while True:
            yield self._one(rng, split, rng.choice(drawn_from))

    def sample(self, n: int, split: Split, *, seed: int = 0) -> tuple[Prompt, ...]:
        """`n` distinct prompts of `split`. A longer sample with the same seed begins with the shorter one.

        Raises:
            ValueError: the split has too few distinct problems.
        """
        rng = Random(f"{self.name}-{split}-{seed}")
        found: dict[str, Prompt] = {}
        while len(found) < n:
            bucket = rng.choice(self.buckets)
            for _ in range(_MAX_REPEATS):
                prompt = self._one(rng, split, bucket)
                if prompt.id not in found:
                    break
            else:
                raise ValueError(
                    f"{self.name} has too few distinct {split} problems of difficulty {bucket} for a sample of {n}; "
                    f"{len(found)} were found. Ask for at most that many"
                )
            found[prompt.id] = prompt
        return tuple(found.values())

    def worked(self, prompt: Prompt, style: Style, rng: Random) -> str:
        """A right completion of `prompt` in `style`, without the end-of-sequence token. Last line: `Answer: N`."""
        solution = self.solve(prompt.messages[-1]["content"])
        passes = {"direct": 0, "steps": 1, "check": 2}[style]
        if style == "check" and rng.random() < _CHECK_TWICE:
            passes += 1
        worked = "Check\n".join("".join(f"{line}\n" for line in solution.steps) for _ in range(passes))
        return f"{worked}Answer: {solution.answer}"

    def _one(self, rng: Random, split: Split, bucket: int) -> Prompt:
        text = self.draw(rng, bucket)
        while self.split_of(text) != split:
            text = self.draw(rng, bucket)
        return Prompt(
            id=f"{self.name}:{text}",
            messages=({"role": "user", "content": text},),
            answer=self.solve(text).answer,
            meta={"bucket": str(bucket)},
        )


def task(name: str) -> Task:
    """The built-in task called `name`.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in TASKS:
        raise ValueError(f"there is no built-in task {name!r}; type one of {', '.join(TASKS)}")
    return TASKS[name]


# -- column arithmetic ------------------------------------------------------------------------------------------------


def _draw_sum(rng: Random, digits: int) -> str:
    low, high = 10 ** (digits - 1), 10**digits - 1
    a, b = rng.randint(low, high), rng.randint(low, high)
    if rng.random() < 0.5:
        return f"{a}+{b}"
    return f"{max(a, b)}-{min(a, b)}"


def _key_of_sum(text: str) -> str:
    a, sign, b = _parse_sum(text)
    return f"{min(a, b)}+{max(a, b)}" if sign == "+" else text


def _solve_sum(text: str) -> Solution:
    """Columns from the units up: `8+5+0=13` (digits, carry, sum), `2-7-0=5b` (digits, borrow, result; b borrows)."""
    a, sign, b = _parse_sum(text)
    steps: list[str] = []
    carry = 0
    for x, y in zip(reversed(str(a)), reversed(str(b)), strict=True):
        if sign == "+":
            column = int(x) + int(y) + carry
            steps.append(f"{x}+{y}+{carry}={column}")
            carry = column // 10
        else:
            column = int(x) - int(y) - carry
            borrows = column < 0
            steps.append(f"{x}-{y}-{carry}={column % 10}{'b' if borrows else ''}")
            carry = int(borrows)
    return Solution(tuple(steps), str(a + b if sign == "+" else a - b))


def _parse_sum(text: str) -> tuple[int, str, int]:
    found = re.fullmatch(r"(\d+)([+-])(\d+)", text)
    assert found is not None, text
    return int(found[1]), found[2], int(found[3])


# -- modular chains ---------------------------------------------------------------------------------------------------


def _draw_chain(rng: Random, operations: int) -> str:
    tail = "".join(f"{rng.choice('+-*')}{rng.randint(1, 9)}" for _ in range(operations))
    return f"{rng.randint(0, 9)}{tail} mod 10"


def _solve_chain(text: str) -> Solution:
    """From left to right, one operation a line: `7+5=2`, `2*3=6`."""
    chain = text.removesuffix(" mod 10")
    value, steps = int(chain[0]), list[str]()
    for sign, digit in zip(chain[1::2], chain[2::2], strict=True):
        before, operand = value, int(digit)
        value = {"+": before + operand, "-": before - operand, "*": before * operand}[sign] % 10
        steps.append(f"{before}{sign}{operand}={value}")
    return Solution(tuple(steps), str(value))


def _itself(text: str) -> str:
    return text


TASKS = {
    made.name: made
    for made in (
        Task("add23", (2, 3), 64, _draw_sum, _key_of_sum, _solve_sum),
        Task("add3", (2, 3, 4), 64, _draw_sum, _key_of_sum, _solve_sum),
        Task("modchain", (2, 3, 4, 5, 6), 64, _draw_chain, _itself, _solve_chain),
    )
}
