"""The local engine against plain forward passes and `generate` of transformers."""

import gc
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2ForCausalLM

from burnish.protocols import Publication
from burnish.rollout import decoder, kernels, kv_cache, local
from burnish.rollout.llama_family import LlamaDecoder, matches
from burnish.rollout.local import LocalEngine
from burnish.types import Completion, Prompt, Request, Sampling
from tests.tiny_models import MODELS, TOKENIZERS, eos_ids, tiny_gpt2, tiny_mistral, tiny_qwen2, word_tokenizer

TEXTS = ("7", "12+3=", "628-371 = ", "What is the sum of 3, 5 and 9?", "a", "Add 4 and 8. ", "1+1", "result: 24 * 3")


def with_eos_bias(model: PreTrainedModel, ids: Sequence[int], bias: float) -> PreTrainedModel:
    """Make ends of sequence likelier or rarer: the output layer gets a bias on them."""
    head: Any = model.get_output_embeddings()
    biased = nn.Linear(head.in_features, head.out_features)
    biased.weight = head.weight
    with torch.no_grad():
        biased.bias.zero_()
        biased.bias[list(ids)] = bias
    model.set_output_embeddings(biased)
    return model


def make_engine(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, *, slots: int = 20, version: int = 1, **kwargs: Any
) -> LocalEngine:
    arguments = {"eos_ids": eos_ids(tokenizer), **kwargs}
    engine = LocalEngine(
        tokenizer, lambda prompt: tokenizer(prompt.shown, add_special_tokens=False).input_ids, slots=slots, **arguments
    )
    engine.load(Publication(version, model))
    return engine


def make_requests(texts: Sequence[str] = TEXTS, *, group_size: int = 8, first_seed: int = 0) -> list[Request]:
    return [
        Request(
            id=100 + i,
            prompt=Prompt(id=f"p{i}", text=text),
            seeds=tuple(range(first_seed + i * group_size, first_seed + (i + 1) * group_size)),
        )
        for i, text in enumerate(texts)
    ]


def teacher_forced(model: PreTrainedModel, completion: Completion, temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of the completion from one plain forward pass over prompt and completion."""
    training, length = model.training, len(completion.prompt_ids)
    ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
    with torch.no_grad():
        logits = model.eval()(input_ids=ids, use_cache=False).logits[0].float() / temperature
    model.train(training)
    return logits.log_softmax(-1)[length - 1 : -1].gather(-1, ids[0, length:, None])[:, 0]


def largest_error(model: PreTrainedModel, groups: dict[int, tuple[Completion, ...]], temperature: float = 1.0) -> float:
    return max(
        (torch.tensor(c.logprobs) - teacher_forced(model, c, temperature)).abs().max().item()
        for completions in groups.values()
        for c in completions
    )


@pytest.mark.parametrize("tokenizer_name", TOKENIZERS)
@pytest.mark.parametrize("model_name", MODELS)
def test_logprobs_equal_a_plain_forward_pass(model_name: str, tokenizer_name: str) -> None:
    tokenizer = TOKENIZERS[tokenizer_name]()
    model = with_eos_bias(MODELS[model_name](len(tokenizer)), sorted(eos_ids(tokenizer)), 1.5)
    groups = dict(make_engine(model, tokenizer).generate(make_requests(), Sampling(max_new_tokens=40)))
    assert largest_error(model, groups) < 1e-5
    lengths = [len(c.token_ids) for completions in groups.values() for c in completions]
    assert len(lengths) == 64
    assert min(lengths) < 10
    assert max(lengths) > 25


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer_name", TOKENIZERS)
@pytest.mark.parametrize("model_name", MODELS)
def test_logprobs_of_long_completions_equal_a_plain_forward_pass(model_name: str, tokenizer_name: str) -> None:
    tokenizer = TOKENIZERS[tokenizer_name]()
    model = with_eos_bias(MODELS[model_name](len(tokenizer)), sorted(eos_ids(tokenizer)), -0.5)
    groups = dict(make_engine(model, tokenizer, slots=24).generate(make_requests(), Sampling(max_new_tokens=256)))
    assert largest_error(model, groups) < 1e-5
    lengths = [len(c.token_ids) for completions in groups.values() for c in completions]
    assert max(lengths) > 140
    assert len(set(lengths)) > 10


@pytest.mark.parametrize("model_name", MODELS)
def test_rows_that_outgrow_the_cache_and_prompts_read_in_pieces_change_nothing(
    model_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = word_tokenizer()
    model = with_eos_bias(MODELS[model_name](len(tokenizer)), sorted(eos_ids(tokenizer)), 1.0)
    sampling = Sampling(max_new_tokens=24)
    wanted = dict(make_engine(model, tokenizer).generate(make_requests(), sampling))
    monkeypatch.setattr(kv_cache, "GROWTH", 3)
    monkeypatch.setattr(decoder, "PREFILL_TOKENS", 20)
    found = dict(make_engine(model, tokenizer).generate(make_requests(), sampling))
    for key, completions in found.items():
        assert [c.token_ids for c in completions] == [c.token_ids for c in wanted[key]]
    assert largest_error(model, found) < 1e-5


def test_completions_are_what_was_sampled_and_come_in_seed_order() -> None:
    tokenizer = word_tokenizer()
    ends = eos_ids(tokenizer)
    model = with_eos_bias(tiny_qwen2(len(tokenizer)), sorted(ends), 1.5)
    requests = make_requests()
    sampling = Sampling(max_new_tokens=30)
    groups = dict(make_engine(model, tokenizer, version=7).generate(requests, sampling))
    assert groups.keys() == {request.id for request in requests}
    seen = set()
    for request in requests:
        assert len(groups[request.id]) == len(request.seeds)
        for i, completion in enumerate(groups[request.id]):
            ids = completion.token_ids.tolist()
            assert completion.prompt_ids.tolist() == tokenizer(request.prompt.shown).input_ids
            assert completion.policy_version == 7
            assert 0 < len(ids) == len(completion.logprobs) <= 30
            assert not ends & set(ids[:-1])
            assert completion.finish_reason == ("stop" if ids[-1] in ends else "length")
            assert completion.text == tokenizer.decode(ids[:-1] if ids[-1] in ends else ids)
            seen.add((completion.finish_reason, ids[-1] if ids[-1] in ends else None))
            alone = Request(id=0, prompt=request.prompt, seeds=(request.seeds[i],))
            if i == 3:
                ((_, (again,)),) = make_engine(model, tokenizer).generate([alone], sampling)
                assert again.token_ids == completion.token_ids
    assert seen == {("length", None), *(("stop", end) for end in ends)}


@pytest.mark.parametrize("slots", [1, 3, 8, 17, 400])
def test_tokens_do_not_depend_on_the_number_of_slots(slots: int) -> None:
    tokenizer = word_tokenizer()
    model = with_eos_bias(tiny_qwen2(len(tokenizer)), sorted(eos_ids(tokenizer)), 1.0)
    requests, sampling = make_requests(TEXTS[:5]), Sampling(max_new_tokens=24)
    wanted = dict(make_engine(model, tokenizer, slots=64).generate(requests, sampling))
    found = dict(make_engine(model, tokenizer, slots=slots).generate(requests, sampling))
    assert found.keys() == wanted.keys()
    for request_id, completions in found.items():
        assert [c.token_ids for c in completions] == [c.token_ids for c in wanted[request_id]]


def test_the_same_call_gives_the_same_bits() -> None:
    tokenizer = word_tokenizer()
    engine = make_engine(tiny_qwen2(len(tokenizer)), tokenizer)
    requests, sampling = make_requests(), Sampling(max_new_tokens=20)
    torch.manual_seed(1)
    first = list(engine.generate(requests, sampling))
    torch.manual_seed(2)
    assert list(engine.generate(requests, sampling)) == first


def test_other_seeds_give_other_tokens() -> None:
    tokenizer = word_tokenizer()
    engine = make_engine(tiny_qwen2(len(tokenizer)), tokenizer)
    first, second = (
        dict(engine.generate(make_requests(first_seed=seed), Sampling(max_new_tokens=20))) for seed in (0, 1000)
    )
    assert all(first[key][0].token_ids != second[key][0].token_ids for key in first)
    assert len({tuple(c.token_ids) for c in first[100]}) == 8


@pytest.mark.parametrize("model_name", MODELS)
def test_greedy_equals_generate_of_transformers(model_name: str) -> None:
    tokenizer = word_tokenizer()
    ends = eos_ids(tokenizer)
    model = with_eos_bias(MODELS[model_name](len(tokenizer)), sorted(ends), 0.5)
    sampling = Sampling(temperature=0.0, max_new_tokens=24)
    groups = dict(make_engine(model, tokenizer, slots=5).generate(make_requests(group_size=2), sampling))
    model.eval()
    for request in make_requests(group_size=2):
        prompt = torch.tensor([tokenizer(request.prompt.shown).input_ids])
        wanted: Any = model.generate(  # pyright: ignore[reportCallIssue]
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=24,
            eos_token_id=sorted(ends),
            pad_token_id=0,
        )
        for completion in groups[request.id]:
            assert completion.token_ids.tolist() == wanted[0, prompt.shape[1] :].tolist()
    assert largest_error(model, groups) < 1e-5


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.6, max_new_tokens=16),
        Sampling(temperature=1.3, top_p=0.6, max_new_tokens=16),
        Sampling(top_k=3, min_p=0.2, max_new_tokens=16),
    ],
)
def test_logprobs_are_at_the_sampling_temperature_and_not_renormalised(sampling: Sampling) -> None:
    tokenizer = word_tokenizer()
    model = tiny_qwen2(len(tokenizer))
    groups = dict(make_engine(model, tokenizer).generate(make_requests(), sampling))
    assert largest_error(model, groups, sampling.temperature) < 1e-5


def test_top_k_of_one_is_greedy() -> None:
    tokenizer = word_tokenizer()
    engine = make_engine(tiny_qwen2(len(tokenizer)), tokenizer)
    narrow, greedy = (
        dict(engine.generate(make_requests(), sampling))
        for sampling in (Sampling(top_k=1, max_new_tokens=12), Sampling(temperature=0.0, max_new_tokens=12))
    )
    for key, completions in narrow.items():
        assert [c.token_ids for c in completions] == [c.token_ids for c in greedy[key]]


def test_a_single_new_token_can_be_asked_for() -> None:
    tokenizer = word_tokenizer()
    ends = eos_ids(tokenizer)
    model = with_eos_bias(tiny_qwen2(len(tokenizer)), sorted(ends), 3.0)
    groups = dict(make_engine(model, tokenizer, slots=9).generate(make_requests(), Sampling(max_new_tokens=1)))
    completions = [c for group in groups.values() for c in group]
    assert {len(c.token_ids) for c in completions} == {1}
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    assert all((c.token_ids[0] in ends) == (c.finish_reason == "stop") for c in completions)
    assert largest_error(model, groups) < 1e-5


def test_an_end_of_sequence_at_the_limit_is_a_stop() -> None:
    tokenizer = word_tokenizer()
    model = with_eos_bias(tiny_qwen2(len(tokenizer)), [1], 2.0)
    engine = make_engine(model, tokenizer, eos_ids={1})
    reasons = {
        (c.finish_reason, c.token_ids[-1] == 1)
        for _, group in engine.generate(make_requests(), Sampling(max_new_tokens=2))
        for c in group
        if len(c.token_ids) == 2
    }
    assert reasons == {("stop", True), ("length", False)}


def test_only_the_given_ids_end_a_completion() -> None:
    tokenizer = word_tokenizer()
    model = with_eos_bias(tiny_qwen2(len(tokenizer)), [1, 3], 2.0)
    groups = dict(make_engine(model, tokenizer, eos_ids={3}).generate(make_requests(), Sampling(max_new_tokens=20)))
    completions = [c for group in groups.values() for c in group]
    assert any(1 in c.token_ids[:-1] and c.token_ids[-1] == 3 for c in completions)
    assert any("<eos>" in c.text for c in completions)
    assert not any(c.text.endswith("<|end|>") for c in completions)


def test_a_sliding_window_is_narrower_than_the_sequences() -> None:
    tokenizer = word_tokenizer()
    model = tiny_mistral(len(tokenizer), sliding_window=5)
    wide = tiny_mistral(len(tokenizer), sliding_window=500)
    (_, group), *_ = make_engine(model, tokenizer).generate(make_requests(), Sampling(max_new_tokens=30))
    assert largest_error(model, {0: group}) < 1e-5
    assert largest_error(wide, {0: group}) > 1e-2


def test_eager_attention_and_tied_bfloat16_weights_work() -> None:
    tokenizer = word_tokenizer()
    model = tiny_qwen2(len(tokenizer), tie_word_embeddings=True, attn_implementation="eager")
    groups = dict(make_engine(model, tokenizer).generate(make_requests(), Sampling(max_new_tokens=20)))
    assert largest_error(model, groups) < 1e-5
    half = tiny_qwen2(len(tokenizer)).bfloat16()
    groups = dict(make_engine(half, tokenizer).generate(make_requests(), Sampling(max_new_tokens=20)))
    assert largest_error(half, groups) < 0.15


def test_the_module_comes_back_as_it_was_whenever_the_caller_has_control() -> None:
    tokenizer = word_tokenizer()
    model = tiny_gpt2(len(tokenizer))
    frozen: Any = next(module for module in model.modules() if isinstance(module, nn.LayerNorm))
    frozen.eval()

    def state() -> tuple[Any, ...]:
        flags = [module.training for module in model.modules()]
        return flags, model.config._attn_implementation, torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    before = state()
    engine = make_engine(model, tokenizer, slots=8)
    assert state() == before
    stream = engine.generate(make_requests(), Sampling(max_new_tokens=12))
    for _ in range(3):
        next(stream)
        assert state() == before
    del stream
    gc.collect()
    assert state() == before
    list(engine.generate(make_requests(), Sampling(max_new_tokens=12)))
    assert state() == before
    model(input_ids=torch.arange(5)[None]).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_module_comes_back_as_it_was_after_an_error() -> None:
    tokenizer = word_tokenizer()
    model = tiny_qwen2(len(tokenizer))
    engine = make_engine(model, tokenizer)
    with torch.no_grad():
        next(model.parameters())[:] = float("nan")
    with pytest.raises(FloatingPointError, match="logits are not finite"):
        list(engine.generate(make_requests(), Sampling(max_new_tokens=4)))
    assert model.training
    assert model.config._attn_implementation == "sdpa"


def test_new_weights_of_the_same_module_are_used_at_once() -> None:
    tokenizer = word_tokenizer()
    model = tiny_qwen2(len(tokenizer))
    engine = make_engine(model, tokenizer)
    requests, sampling = make_requests(), Sampling(max_new_tokens=10)
    before = dict(engine.generate(requests, sampling))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    engine.load(Publication(2, model))
    after = dict(engine.generate(requests, sampling))
    assert largest_error(model, after) < 1e-5
    assert largest_error(model, before) > 1e-2
    assert after[100][0].policy_version == 2


def test_progress_counts_finished_requests() -> None:
    tokenizer = word_tokenizer()
    reports: list[tuple[int, int]] = []
    engine = make_engine(
        tiny_qwen2(len(tokenizer)), tokenizer, progress=lambda finished, total: reports.append((finished, total))
    )
    list(engine.generate(make_requests(), Sampling(max_new_tokens=5)))
    assert reports == [(i + 1, 8) for i in range(8)]


def test_no_requests_give_no_completions() -> None:
    tokenizer = word_tokenizer()
    assert list(make_engine(tiny_qwen2(len(tokenizer)), tokenizer).generate([], Sampling())) == []


def test_a_prompt_that_leaves_no_room_is_named_before_anything_is_decoded() -> None:
    tokenizer = word_tokenizer()
    engine = make_engine(tiny_qwen2(len(tokenizer), max_position_embeddings=20), tokenizer)
    requests = [Request(0, Prompt(id="short", text="1" * 12), (1,)), Request(1, Prompt(id="long", text="1" * 13), (2,))]
    sampling = Sampling(max_new_tokens=8)
    ((_, (completion,)),) = engine.generate(requests[:1], sampling)
    assert len(completion.prompt_ids) + len(completion.token_ids) <= 20
    with pytest.raises(ValueError, match=r"'long' has 13 tokens.*max_new_tokens=8.*the 20 positions"):
        engine.generate(requests, sampling)
    with pytest.raises(ValueError, match="'empty' encodes to no tokens"):
        engine.generate([Request(0, Prompt(id="empty", text=""), (1,))], sampling)


def test_the_last_learned_position_can_be_used() -> None:
    tokenizer = word_tokenizer()
    model = tiny_gpt2(len(tokenizer), n_positions=16)
    groups = dict(
        make_engine(model, tokenizer, eos_ids={3}).generate(make_requests(("1+1", "2")), Sampling(max_new_tokens=13))
    )
    assert max(len(c.prompt_ids) + len(c.token_ids) for c in groups[100]) == 16
    assert largest_error(model, groups) < 1e-5


def test_rotary_frequencies_that_follow_the_longest_row_are_limited_to_the_original_length() -> None:
    tokenizer = word_tokenizer()
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}
    engine = make_engine(tiny_qwen2(len(tokenizer), rope_parameters=rope), tokenizer)
    with pytest.raises(ValueError, match="the 24 positions"):
        engine.generate(make_requests(), Sampling(max_new_tokens=30))


def test_generating_before_loading_is_an_error() -> None:
    tokenizer = word_tokenizer()
    engine = LocalEngine(tokenizer, lambda _: [1], eos_ids={1}, slots=1)
    with pytest.raises(ValueError, match=r"Call load\(publication\)"):
        engine.generate(make_requests(), Sampling())


LEAN = ("llama", "qwen2", "qwen3")


@pytest.mark.parametrize("model_name", MODELS)
def test_the_lean_decoder_takes_the_models_it_knows_and_no_others(model_name: str) -> None:
    assert matches(MODELS[model_name](30)) == (model_name in LEAN)


def test_a_model_that_is_not_quite_the_known_one_goes_the_general_way() -> None:
    tokenizer = word_tokenizer()
    hooked = tiny_qwen2(len(tokenizer))
    middle: Any = hooked.get_submodule("model.layers.1.mlp")
    middle.register_forward_hook(lambda module, inputs, output: output * 1.5)
    assert not matches(hooked)
    groups = dict(make_engine(hooked, tokenizer).generate(make_requests(), Sampling(max_new_tokens=16)))
    assert largest_error(hooked, groups) < 1e-5
    window = {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1}
    for other in (
        tiny_qwen2(30, attn_implementation="eager"),
        tiny_qwen2(30).bfloat16(),
        tiny_qwen2(30, **window),
        tiny_qwen2(30, hidden_act="gelu"),
    ):
        assert not matches(other)


@pytest.mark.parametrize("model_name", LEAN)
def test_all_decoders_draw_the_same(model_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = word_tokenizer()
    ends = sorted(eos_ids(tokenizer))
    wanted = None
    for native, lean, fused_bytes in ((True, True, 0), (False, True, 1 << 28), (False, True, 0), (False, False, 0)):
        monkeypatch.setattr(local, "runs", lambda _, taken=native: taken)
        monkeypatch.setattr(local, "matches", lambda _, taken=lean: taken)
        monkeypatch.setattr(LlamaDecoder, "fused_bytes", fused_bytes)
        if not native:
            monkeypatch.setattr(kernels, "load", lambda: None)
        rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
        model = with_eos_bias(MODELS[model_name](len(tokenizer), rope_parameters=rope), ends, 1.0)
        groups = dict(make_engine(model, tokenizer).generate(make_requests(), Sampling(max_new_tokens=24)))
        assert largest_error(model, groups) < 1e-5
        tokens = {key: [c.token_ids for c in completions] for key, completions in groups.items()}
        assert tokens == (wanted or tokens)
        wanted = tokens


class LosesItsPast(Qwen2ForCausalLM):
    """A model that takes no notice of the cache it is given."""

    def forward(self, *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
        return super().forward(*args, **{**kwargs, "attention_mask": None, "use_cache": False})


def test_models_that_cannot_be_decoded_are_refused_when_loaded() -> None:
    tokenizer = word_tokenizer()
    good = tiny_qwen2(len(tokenizer))
    with pytest.raises(ValueError, match="LosesItsPast gives other logits"):
        make_engine(LosesItsPast(good.config), tokenizer)
    good.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ValueError, match="layers of type linear_attention"):
        make_engine(good, tokenizer)
    flash = tiny_qwen2(len(tokenizer))
    flash.config._attn_implementation = "flash_attention_2"
    with pytest.raises(ValueError, match="attn_implementation='flash_attention_2'"):
        make_engine(flash, tokenizer)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_bf16_weights_draw_from_nearly_the_same_policy_the_same_way_every_time(family: str):
    tokenizer = word_tokenizer()
    model = MODELS[family](len(tokenizer))
    engine = make_engine(model, tokenizer, bf16=True)
    first, again = (dict(engine.generate(make_requests(), Sampling(max_new_tokens=12))) for _ in range(2))
    assert first == again
    gaps = [
        (torch.tensor(completion.logprobs) - teacher_forced(model, completion)).abs().max().item()
        for completions in first.values()
        for completion in completions
    ]
    assert 0.0 < max(gaps) < 0.05
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_bf16_weights_are_refused_for_models_that_are_decoded_by_their_own_forward_pass():
    tokenizer = word_tokenizer()
    with pytest.raises(ValueError, match=r"plain Llama, Qwen2 and Qwen3 .*GPT2LMHeadModel.*sampling.dtype=float32"):
        make_engine(tiny_gpt2(len(tokenizer)), tokenizer, bf16=True)
