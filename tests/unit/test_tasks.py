"""Built-in tasks: right answers, right steps, splits that never meet, texts that survive the tokenizer."""

from __future__ import annotations

import operator
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import islice
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from burnish.prompts.task_tokenizer import build_tokenizer
from burnish.prompts.tasks import TASKS, TRAIN_POOL, Split, Style, Task, task
from burnish.types import Prompt

SPLITS: tuple[Split, ...] = ("train", "tuning", "heldout")
STYLES: tuple[Style, ...] = ("direct", "steps", "check")

names = st.sampled_from(sorted(TASKS))
seeds = st.integers(0, 2**32)


def text_of(prompt: Prompt) -> str:
    return prompt.messages[0]["content"]


def applied(left: int, sign: str, right: int) -> int:
    return {"+": operator.add, "-": operator.sub, "*": operator.mul}[sign](left, right)


def right_answer(made: Task, text: str) -> int:
    """Computed by other means than the task's own solver: the whole number first, the remainder last."""
    first, *operations = re.findall(r"^\d+|[+*-]\d+", text.removesuffix(" mod 10"))
    value = int(first)
    for operation in operations:
        value = applied(value, operation[0], int(operation[1:]))
    return value % 10 if made.name == "modchain" else value


def assert_columns_hold(text: str, lines: list[str]) -> None:
    """Every line is true, takes its digits from the problem, and hands its carry or borrow to the next."""
    a, sign, b = re.fullmatch(r"(\d+)([+-])(\d+)", text).groups()  # pyright: ignore[reportOptionalMemberAccess]
    assert len(lines) == len(a) == len(b)
    carry = 0
    for line, x, y in zip(lines, reversed(a), reversed(b), strict=True):
        if sign == "+":
            assert re.fullmatch(rf"{x}\+{y}\+{carry}=\d{{1,2}}", line)
            result = int(line.split("=")[1])
            assert result == int(x) + int(y) + carry
            carry = int(result >= 10)
        else:
            assert re.fullmatch(rf"{x}-{y}-{carry}=\db?", line)
            borrows = line.endswith("b")
            assert int(line.split("=")[1].removesuffix("b")) - 10 * borrows == int(x) - int(y) - carry
            carry = int(borrows)


def assert_chain_holds(text: str, lines: list[str]) -> None:
    value = text[0]
    for line, operation in zip(lines, re.findall(r"[+*-]\d", text), strict=True):
        left, value_after = line.split("=")
        assert left == value + operation
        assert int(value_after) == applied(int(value), operation[0], int(operation[1:])) % 10
        value = value_after


@settings(max_examples=60, deadline=None)
@given(names, seeds)
def test_answers_are_right(name: str, seed: int):
    made = task(name)
    for prompt in islice(made.problems("train", seed=seed), 50):
        assert prompt.answer == str(right_answer(made, text_of(prompt)))


@settings(max_examples=60, deadline=None)
@given(names, seeds)
def test_worked_steps_are_true_line_by_line_and_end_in_the_answer(name: str, seed: int):
    made, rng = task(name), Random(seed)
    holds = assert_chain_holds if name == "modchain" else assert_columns_hold
    for prompt in islice(made.problems("train", seed=seed), 50):
        *lines, last = made.worked(prompt, "steps", rng).split("\n")
        assert last == f"Answer: {prompt.answer}"
        holds(text_of(prompt), lines)


def test_worked_steps_by_hand():
    rng = Random(0)
    asked = Prompt(id="x", messages=({"role": "user", "content": "628-371"},))
    assert task("add23").worked(asked, "steps", rng) == "8-1-0=7\n2-7-0=5b\n6-3-1=2\nAnswer: 257"
    asked = Prompt(id="x", messages=({"role": "user", "content": "628+571"},))
    assert task("add23").worked(asked, "steps", rng) == "8+1+0=9\n2+7+0=9\n6+5+0=11\nAnswer: 1199"
    asked = Prompt(id="x", messages=({"role": "user", "content": "7+5*3-8 mod 10"},))
    assert task("modchain").worked(asked, "steps", rng) == "7+5=2\n2*3=6\n6-8=8\nAnswer: 8"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_the_direct_style_is_the_answer_alone_and_the_check_style_repeats_the_steps(name: str):
    made, rng = task(name), Random(1)
    repeats = Counter[int]()
    for prompt in islice(made.problems("train", seed=1), 400):
        assert made.worked(prompt, "direct", rng) == f"Answer: {prompt.answer}"
        steps, answer = re.fullmatch(r"(.*\n)(Answer: .*)", made.worked(prompt, "steps", rng), re.DOTALL).groups()  # pyright: ignore[reportOptionalMemberAccess]
        *parts, last = made.worked(prompt, "check", rng).split("Check\n")
        assert parts == [steps] * len(parts)
        assert last == steps + answer
        repeats[len(parts)] += 1
    assert repeats.keys() == {1, 2}
    assert 0.2 < repeats[2] / 400 < 0.4


@pytest.mark.parametrize("name", sorted(TASKS))
def test_splits_never_share_a_problem_whatever_the_seeds(name: str):
    made = task(name)
    seen = {
        split: {made.key(text_of(p)) for seed in (0, 7) for p in made.sample(1000, split, seed=seed)}
        for split in SPLITS
    }
    assert all(len(keys) > 500 for keys in seen.values())
    assert not seen["train"] & seen["tuning"]
    assert not seen["train"] & seen["heldout"]
    assert not seen["tuning"] & seen["heldout"]


@given(st.integers(10, 999), st.integers(10, 999))
def test_a_sum_and_its_mirror_image_are_in_the_same_split(a: int, b: int):
    made = task("add23")
    assert made.split_of(f"{a}+{b}") == made.split_of(f"{b}+{a}")


def test_a_twentieth_of_the_problems_is_held_out_and_a_twentieth_is_for_tuning():
    made = task("add23")
    shares = Counter(made.split_of(f"{a}-{b}") for a in range(100, 200) for b in range(100, a))
    total = shares.total()
    assert 0.04 < shares["heldout"] / total < 0.06
    assert 0.04 < shares["tuning"] / total < 0.06


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_sample_is_distinct_and_evenly_spread_over_difficulties(name: str):
    made = task(name)
    prompts = made.sample(TRAIN_POOL, "train")
    assert len({p.id for p in prompts}) == TRAIN_POOL
    buckets = Counter(p.meta["bucket"] for p in prompts)
    assert buckets.keys() == {str(bucket) for bucket in made.buckets}
    assert all(abs(n * len(made.buckets) / TRAIN_POOL - 1.0) < 0.1 for n in buckets.values())


def test_a_longer_sample_begins_with_the_shorter_one():
    made = task("add23")
    assert made.sample(300, "heldout")[:100] == made.sample(100, "heldout")
    assert made.sample(100, "heldout", seed=1) != made.sample(100, "heldout")


def test_a_sample_larger_than_the_split_says_what_there_is():
    with pytest.raises(ValueError, match=r"add23 has too few distinct heldout problems of difficulty 2"):
        task("add23").sample(20_000, "heldout")


def test_difficulty_counts_digits_or_operations():
    for prompt in task("add3").sample(100, "train"):
        assert int(prompt.meta["bucket"]) == len(re.split(r"[+-]", text_of(prompt))[0])
    for prompt in task("modchain").sample(100, "train"):
        assert int(prompt.meta["bucket"]) == len(re.findall(r"[+*-]", text_of(prompt)))


def test_a_stream_can_be_restricted_to_one_difficulty():
    prompts = islice(task("add3").problems("tuning", seed=3, buckets=(4,)), 50)
    assert {p.meta["bucket"] for p in prompts} == {"4"}


def test_prompts_are_the_same_in_every_process():
    code = (
        "from burnish.prompts.tasks import TASKS\n"
        "for t in TASKS.values(): print([(p.id, p.answer) for s in ('train', 'heldout') for p in t.sample(20, s)])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    here = "".join(
        f"{[(p.id, p.answer) for s in ('train', 'heldout') for p in t.sample(20, s)]}\n" for t in TASKS.values()
    )
    assert seen == {here}


def test_tasks_load_no_torch():
    code = "import sys, burnish.prompts.tasks, burnish.assets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no built-in task 'add32'; type one of add23, add3, modchain"):
        task("add32")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_text_survives_the_tokenizer(name: str):
    tokenizer, made, rng = build_tokenizer(), task(name), Random(0)
    for prompt in islice(made.problems("train", seed=5), 300):
        texts = [made.worked(prompt, style, rng) for style in STYLES]
        texts += [f"{texts[1]}\n<confidence>high</confidence>", f"<confidence>low</confidence>\n{texts[0]}"]
        texts.append(
            str(
                tokenizer.apply_chat_template(
                    [dict(m) for m in prompt.messages], tokenize=False, add_generation_prompt=True
                )
            )
        )
        for text in texts:
            ids = tokenizer.encode(text)
            assert tokenizer.decode(ids) == text
            assert tokenizer.unk_token_id not in ids


def test_digits_are_single_tokens_and_the_answer_mark_is_one():
    tokenizer = build_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("8-1-0=7\nAnswer: 257")) == [
        *("8", "-", "1", "-", "0", "=", "7", "\n", "Answer: ", "2", "5", "7"),
    ]
    assert len(tokenizer) <= 40


@pytest.mark.parametrize("name", sorted(TASKS))
def test_direct_answers_and_single_passes_fit_and_some_repeats_do_not(name: str):
    tokenizer, made, rng = build_tokenizer(), task(name), Random(0)
    lengths = {
        style: [len(tokenizer.encode(made.worked(p, style, rng))) + 1 for p in made.sample(400, "train")]
        for style in STYLES
    }
    assert max(lengths["direct"] + lengths["steps"]) <= made.max_new_tokens < max(lengths["check"])
