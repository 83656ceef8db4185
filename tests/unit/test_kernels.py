"""The decoding kernels against the same computation in torch, and what happens where they cannot be built."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from burnish.rollout import kernels, native
from burnish.rollout.decoder import ModuleDecoder, borrowed
from burnish.rollout.llama_family import LlamaDecoder
from burnish.rollout.native import NativeDecoder, packed_bytes, runs
from burnish.rollout.sampling import draw, drawer, uniforms
from burnish.types import Sampling
from tests.tiny_models import tiny_llama, tiny_qwen2, tiny_qwen3

V = 101  # no multiple of a panel's width
SHAPES = {
    "heads of 8": lambda: tiny_qwen2(V),
    "heads of 32, as many keys": lambda: tiny_llama(V, hidden_size=128, num_key_value_heads=4),
    "heads of 64, one key": lambda: tiny_qwen2(V, hidden_size=128, num_attention_heads=2, num_key_value_heads=1),
    "heads of 128, normalised": lambda: tiny_qwen3(V, head_dim=128),
    "heads of 20, widths that fill no panel": lambda: tiny_llama(V, hidden_size=60, head_dim=20, num_attention_heads=3,
                                                                 num_key_value_heads=3, intermediate_size=70),
    "biases everywhere": lambda: tiny_llama(V, attention_bias=True, mlp_bias=True),
    "tied": lambda: tiny_qwen3(V, tie_word_embeddings=True),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    if kernels.load() is None:
        pytest.skip(f"no kernels: {kernels.why_not()}")


def begun(decoder_class: type[ModuleDecoder], model: PreTrainedModel, prompts: list[list[int]]) -> ModuleDecoder:
    decoder = decoder_class(model, num_rows=len(prompts), max_length=400)
    decoder.prefill([array("i", prompt) for prompt in prompts], [1] * len(prompts), first_row=0)
    return decoder


def stepped(decoder: ModuleDecoder, start: list[int], *, first: int, steps: int) -> torch.Tensor:
    """Logits [steps, B, V] of rows that stand at `start` + step and are fed tokens that only depend on that."""
    start_B, found = torch.tensor(start), []
    for step in range(first, first + steps):
        positions_B = start_B + step
        tokens_B = (5 * positions_B + 7 * start_B) % V
        found.append(decoder.step(tokens_B, positions_B, int(positions_B.max()) + 1).clone())
    return torch.stack(found)


PROMPTS = [[3, 1, 4], [1, 5, 9, 2, 6, 5, 3], [5], [8, 9, 7, 9], [3, 2]]
START = [len(prompt) - 1 for prompt in PROMPTS]


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_torch(shape: str):
    model = SHAPES[shape]().eval()
    assert runs(model)
    with borrowed(model):
        found, wanted = (
            stepped(begun(decoder, model, PROMPTS), START, first=0, steps=150)
            for decoder in (NativeDecoder, LlamaDecoder)
        )
    assert (found - wanted).abs().max() < 2e-5 * wanted.abs().max()


def test_rows_that_move_take_what_they_have_read_along_and_the_cache_drops_the_others():
    model = tiny_qwen2(V).eval()
    with borrowed(model):
        decoder = begun(NativeDecoder, model, PROMPTS)
        stepped(decoder, START, first=0, steps=3)
        decoder.move(torch.tensor([3, 4]), torch.tensor([0, 1]), 10)
        decoder.need_only(3)
        left = [START[3], START[4], START[2]]
        found = stepped(decoder, left, first=3, steps=300)
        alone = begun(NativeDecoder, model, [PROMPTS[3], PROMPTS[4], PROMPTS[2]])
        wanted = stepped(alone, left, first=0, steps=303)[3:]
    assert decoder._cache.layer(0, torch.empty(0))[0].shape[0] == 3
    assert (found - wanted).abs().max() < 1e-5


@pytest.mark.parametrize("threads", [1, 2])
def test_no_bit_of_a_row_depends_on_the_rows_beside_it_or_on_threads(threads: int):
    model = tiny_qwen2(V, hidden_size=128, intermediate_size=512).eval()
    before = torch.get_num_threads()
    many, start = [[3, 1, 4, b % V] for b in range(130)], [3] * 130
    with borrowed(model):
        alone = stepped(begun(NativeDecoder, model, many[:1]), [3], first=0, steps=5)
        torch.set_num_threads(threads)
        try:
            together = stepped(_like_prefill(begun(NativeDecoder, model, many), begun(NativeDecoder, model, many[:1])),
                               start, first=0, steps=5)  # fmt: skip
        finally:
            torch.set_num_threads(before)
    assert torch.equal(together[:, :1], alone)


def _like_prefill(decoder: ModuleDecoder, other: ModuleDecoder) -> ModuleDecoder:
    """Give the first row what it reads alone: torch reads prompts, and its products depend on how many there are."""
    for index in range(len(decoder._cache.layers)):
        for mine, theirs in zip(decoder._cache.layer(index, torch.empty(0)), other._cache.layer(index, torch.empty(0)),
                                strict=True):  # fmt: skip
            mine[0] = theirs[0]
    return decoder


@pytest.mark.parametrize("vocabulary", [5, 64, 65, 1000, 32_001])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_tokens_are_drawn_as_torch_draws_them(vocabulary: int, temperature: float):
    made = torch.Generator().manual_seed(vocabulary)
    logits_BV = 4 * torch.randn((600, vocabulary), generator=made)
    logits_BV[:, 1::3] = -torch.inf
    uniforms_B = uniforms(torch.arange(600), 3)
    uniforms_B[:2] = torch.tensor([0.0, 1.0 - 2.0**-53])
    wanted_B, wanted_logprobs_B = draw(logits_BV, uniforms_B, Sampling(temperature=temperature))
    drawn = drawer(Sampling(temperature=temperature), torch.device("cpu"))
    found_B, logprobs_B = drawn(logits_BV.clone(), uniforms_B)
    same_B = found_B == wanted_B
    assert same_B.float().mean() > 0.99  # a uniform may fall where the two sums differ by a rounding
    assert (logprobs_B - wanted_logprobs_B)[same_B].abs().max() < 3e-6
    assert logits_BV.gather(1, found_B[:, None]).isfinite().all()
    assert (logprobs_B <= 0.0).all()


def test_frequencies_are_probabilities():
    logits_V = torch.tensor([0.0, 1.0, 2.0, -1.0])
    uniforms_B = uniforms(torch.arange(40_000), 0)
    drawn = drawer(Sampling(), torch.device("cpu"))
    tokens_B, _ = drawn(logits_V.expand(40_000, -1).clone(), uniforms_B)
    assert torch.allclose(tokens_B.bincount() / 40_000, logits_V.softmax(0), atol=0.01)


@pytest.mark.parametrize("spoilt", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_show_in_the_log_probability(spoilt: float):
    logits_BV = torch.zeros((3, 200))
    logits_BV[1, 150] = spoilt
    _, logprobs_B = drawer(Sampling(), torch.device("cpu"))(logits_BV, torch.full((3,), 0.5, dtype=torch.float64))
    assert logprobs_B.isnan().tolist() == [False, True, False]


def test_only_models_that_are_known_and_fit_are_decoded_natively(monkeypatch: pytest.MonkeyPatch):
    model = tiny_qwen2(V)
    assert runs(model)
    monkeypatch.setattr(native, "PACKED_BYTES", packed_bytes(model) - 1)
    assert not runs(model)
    assert not runs(tiny_llama(V, hidden_size=1028, num_attention_heads=1, num_key_value_heads=1, head_dim=514))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Nothing is built yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kernels._found.cache_clear()
    yield monkeypatch
    kernels._found.cache_clear()


def test_the_library_is_built_once(fresh: pytest.MonkeyPatch, tmp_path: Path):
    assert kernels.load() is not None
    (library,) = (tmp_path / "cache" / "burnish").iterdir()
    made = library.stat().st_mtime_ns
    kernels._found.cache_clear()
    assert kernels.load() is not None
    assert library.stat().st_mtime_ns == made


def test_without_a_compiler_models_are_decoded_by_torch_and_the_reason_is_told(fresh: pytest.MonkeyPatch):
    fresh.setenv("CC", "no-such-compiler")
    assert kernels.load() is None
    assert kernels.why_not() == "there is no C compiler (no-such-compiler). Type apt install gcc"
    assert not runs(tiny_qwen2(V))


def test_a_compiler_that_fails_is_quoted(fresh: pytest.MonkeyPatch, tmp_path: Path):
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho this machine is on strike >&2\nexit 3\n")
    compiler.chmod(0o755)
    fresh.setenv("CC", str(compiler))
    assert kernels.why_not() == f"{compiler} failed: this machine is on strike"


def test_a_home_that_cannot_be_written_to_is_no_obstacle(fresh: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert kernels.load() is not None


def test_a_library_that_others_could_have_put_there_is_not_loaded(fresh: pytest.MonkeyPatch, tmp_path: Path):
    folder = tmp_path / "cache" / "burnish"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert kernels.load() is not None
    assert not list(folder.iterdir())
