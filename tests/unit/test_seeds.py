from __future__ import annotations

import subprocess
import sys
from hashlib import blake2b

import pytest

from burnish.seeds import derive, evaluation_seed, sample_seed


def test_a_seed_is_the_hash_of_its_parts_each_with_type_and_length():
    parts = b"i1:7" + b"s6:sample" + b"i1:3" + b"s4:p-01" + b"i1:0" + b"i1:5"
    expected = int.from_bytes(blake2b(parts, digest_size=8).digest(), "big") % 2**63

    assert sample_seed(7, 3, "p-01", 0, 5) == expected


def test_every_argument_of_a_sample_seed_counts():
    seeds = {
        sample_seed(run_seed, version, prompt, draw, index)
        for run_seed in (0, 1)
        for version in (0, 1)
        for prompt in ("a", "b")
        for draw in (0, 1)
        for index in (0, 1)
    }
    assert len(seeds) == 32
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("1",), (1,)),
        (("a",), ("a", "")),
        (("i1:2",), (2,)),
        ((1, 11), (11, 1)),
        ((-1,), (1,)),
        (("as1:b",), ("a", "b")),
    ],
)
def test_no_two_lists_of_names_encode_alike(one: tuple[str | int, ...], other: tuple[str | int, ...]):
    assert derive(1, *one) != derive(1, *other)


def test_training_and_evaluation_never_share_a_seed():
    training = {sample_seed(1, version, "p", 0, index) for version in range(20) for index in range(20)}
    assert not training & {evaluation_seed(1, "p", 0, index) for index in range(20)}


def test_any_text_can_name_a_prompt_lone_surrogates_too():
    assert sample_seed(1, 0, "\ud800", 0, 0) != sample_seed(1, 0, "\ud801", 0, 0)
    assert 0 <= sample_seed(2**64, 0, "", 0, 0) < 2**63


def test_seeds_are_the_same_in_a_process_with_another_hash_seed():
    code = "from burnish.seeds import sample_seed; print(sample_seed(1, 2, 'prompt', 0, 3))"
    run = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == sample_seed(1, 2, "prompt", 0, 3)


def test_bits_of_neighbouring_seeds_are_balanced():
    ones = sum(sample_seed(1, 0, "p", 0, index).bit_count() for index in range(1000))
    assert abs(ones - 31_500) < 4 * (63_000 / 4) ** 0.5
