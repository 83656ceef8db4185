"""Packed prompts are the prompts that were put in, in less memory."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import pytest

from burnish.prompts.packed import PackedPrompts, fingerprint
from burnish.types import Prompt

PROMPTS = (
    Prompt("a", messages=({"role": "user", "content": "1+1"},), answer="2", meta={"level": 1, "tags": ["x", None]}),
    Prompt("ü\n", text="a line\nand another \u2028 \U0001f600", meta={"nested": {"b": 1.5, "a": [True]}}),
    Prompt("c", messages=({"role": "system", "content": ""}, {"role": "user", "content": "\x00"}), answer=None),
)


def packed(*prompts: Prompt) -> PackedPrompts:
    made = PackedPrompts()
    for prompt in prompts:
        made.append(prompt)
    return made


def test_what_comes_out_is_what_went_in():
    made = packed(*PROMPTS)
    assert tuple(made) == PROMPTS
    assert len(made) == 3
    assert made[-1] == PROMPTS[2]
    assert made[1:] == PROMPTS[1:]
    assert made[::-2] == PROMPTS[::-2]


@pytest.mark.parametrize("index", [3, -4])
def test_beyond_the_ends_there_is_nothing(index: int):
    with pytest.raises(IndexError):
        packed(*PROMPTS)[index]


def test_the_fingerprint_tells_order_and_content_apart():
    made = packed(*PROMPTS).fingerprint
    assert made == fingerprint(PROMPTS)
    assert made != fingerprint(PROMPTS[::-1])
    assert made != fingerprint(PROMPTS[:2])


def test_the_fingerprint_is_that_of_the_prompts_as_json_lines():
    rows = [(p.id, p.messages, p.text, p.answer, p.meta) for p in PROMPTS]
    lines = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    assert fingerprint(PROMPTS) == hashlib.sha256(lines.encode()).hexdigest()


def test_a_prompt_takes_little_more_than_its_text():
    def prompt(i: int) -> Prompt:
        text = f"Problem {i}: {'word ' * 20}"
        return Prompt(f"id-{i}", messages=({"role": "user", "content": text},), answer=str(i), meta={"level": i})

    tracemalloc.start()
    try:
        as_objects = [prompt(i) for i in range(2000)]
        objects, _ = tracemalloc.get_traced_memory()
        made = packed(*as_objects)
        both, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(made) == 2000
    assert (both - objects) * 2.5 < objects
