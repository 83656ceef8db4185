"""The order of prompts: every prompt once per epoch, the same in every run, and after every resume."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from burnish.prompts.sampler import ShuffledSampler, permutation
from burnish.types import Group, Prompt

PROMPTS = [Prompt(id=str(i), text=str(i)) for i in range(10)]


def sampler(prompts: list[Prompt] = PROMPTS, *, seed: int = 1, shuffle: bool = True) -> ShuffledSampler:
    return ShuffledSampler(prompts, seed=seed, shuffle=shuffle)


def ids(prompts: list[Prompt]) -> list[int]:
    return [int(prompt.id) for prompt in prompts]


def test_every_epoch_is_a_permutation_and_no_two_are_alike() -> None:
    stream = sampler()
    epochs = [tuple(ids(stream.take(10))) for _ in range(20)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == 20


def test_the_order_is_pinned_so_that_no_version_changes_a_run() -> None:
    assert ids(sampler(seed=1).take(10)) == [2, 4, 5, 1, 0, 6, 7, 8, 3, 9]
    assert ids(sampler(seed=2).take(20))[10:] == [2, 0, 8, 7, 4, 3, 9, 5, 1, 6]


def test_without_shuffling_the_order_is_that_of_the_data() -> None:
    assert ids(sampler(shuffle=False).take(23)) == [*range(10), *range(10), 0, 1, 2]


@given(sizes=st.lists(st.integers(0, 27), max_size=8), cut=st.integers(0, 8), seed=st.integers(0, 5))
def test_a_resume_anywhere_continues_identically(sizes: list[int], cut: int, seed: int) -> None:
    whole = sampler(seed=seed)
    expected = [ids(whole.take(n)) for n in sizes]
    first = sampler(seed=seed)
    got = [ids(first.take(n)) for n in sizes[:cut]]
    second = sampler(seed=seed)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [ids(second.take(n)) for n in sizes[cut:]]
    assert got == expected
    assert second.state_dict() == whole.state_dict()


@given(sizes=st.lists(st.integers(0, 27), max_size=8))
def test_the_stream_does_not_depend_on_how_it_is_cut(sizes: list[int]) -> None:
    pieces, whole = sampler(), sampler()
    assert [i for n in sizes for i in ids(pieces.take(n))] == ids(whole.take(sum(sizes)))


def test_a_state_can_be_loaded_backwards_into_an_epoch_already_left() -> None:
    stream = sampler()
    stream.take(3)
    state = stream.state_dict()
    assert state == {"epoch": 0, "position": 3, "prompts": 10}
    expected = ids(stream.take(30))
    stream.load_state_dict(state)
    assert ids(stream.take(30)) == expected


def test_the_end_of_an_epoch_is_the_start_of_the_next() -> None:
    stream = sampler()
    stream.take(10)
    assert stream.state_dict() == {"epoch": 1, "position": 0, "prompts": 10}


def test_among_another_number_of_prompts_the_next_epoch_begins() -> None:
    """Where the data changed and somebody allowed it."""
    stream = sampler()
    stream.take(9)
    fewer, expected = sampler(PROMPTS[:5]), sampler(PROMPTS[:5])
    fewer.load_state_dict(stream.state_dict())
    expected.take(5)
    assert ids(fewer.take(5)) == ids(expected.take(5))


def test_no_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="no prompts to draw from"):
        sampler([])


def test_observing_changes_nothing() -> None:
    stream, other = sampler(), sampler()
    stream.observe(Group(id=0, prompt=PROMPTS[0], rollouts=()))
    assert ids(stream.take(15)) == ids(other.take(15))


def test_all_orders_are_equally_likely() -> None:
    counts = Counter(tuple(permutation(3, key=f"key {i}", shuffle=True)) for i in range(6000))
    assert len(counts) == 6
    assert all(850 < count < 1150 for count in counts.values())


def test_many_prompts_cost_a_few_bytes_each() -> None:
    prompts = PROMPTS[:1] * 200_000
    tracemalloc.start()
    ShuffledSampler(prompts, seed=1, shuffle=True).take(8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 200_000
