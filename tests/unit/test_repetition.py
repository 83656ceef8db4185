"""How much a text repeats itself."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.rewards.repetition import Repetition, Unit, repeated_share, words
from burnish.types import Completion, Prompt

PROMPT = Prompt(id="p", text="?")


def completion(text: str, tokens: list[int]) -> Completion:
    return Completion(array("i"), array("i", tokens), array("f", [0.0] * len(tokens)), text, "stop", 0)


@pytest.mark.parametrize(
    ("text", "n", "share"),
    [
        ("a b c d a b c d a b c d", 4, 5 / 9),  # 9 4-grams, 4 of them distinct
        ("x x x x x x x x x x", 4, 6 / 7),
        ("A a A a", 1, 3 / 4),
        ("a b c", 4, 0.0),
        ("a b c d", 4, 0.0),
        ("", 4, 0.0),
        ("one two three four five six", 3, 0.0),
    ],
)
def test_the_share_of_n_grams_that_occurred_before(text: str, n: int, share: float) -> None:
    assert repeated_share(words(text), n) == pytest.approx(share)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 5))
def test_the_share_is_that_of_counting_each_n_gram_by_hand(items: list[int], n: int) -> None:
    seen: list[list[int]] = []
    repeated = 0
    for start in range(len(items) - n + 1):
        gram = items[start : start + n]
        repeated += gram in seen
        seen.append(gram)
    assert repeated_share(items, n) == pytest.approx(repeated / len(seen) if seen else 0.0)


@pytest.mark.parametrize(("unit", "values"), [("words", [-0.5, 0.0]), ("tokens", [0.0, -0.5])])
def test_words_and_tokens_are_counted_apart(unit: Unit, values: list[float]) -> None:
    repeats_words = completion("go go", [1, 2, 3, 4])
    repeats_tokens = completion("go on", [1, 2, 1, 2])
    measure = Repetition(ngram_size=1, unit=unit)
    assert [m.value for m in measure(PROMPT, [repeats_words, repeats_tokens])] == values


def test_a_text_without_repetition_is_worth_zero_and_not_minus_zero() -> None:
    (measured,) = Repetition(ngram_size=2, unit="words")(PROMPT, [completion("a b c", [1])])
    assert str(measured.value) == "0.0"
