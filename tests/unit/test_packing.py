"""The layout of pieces, by hand and by property; the attention over it, against the model itself."""

import random
from array import array
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from burnish.batch import Batch, collate
from burnish.learner.attention import NAME, switched
from burnish.learner.forward import PolicyForward
from burnish.learner.packing import cut, lay_out, runs
from burnish.types import Completion, Group, Prompt, Rollout, Score
from tests.tiny_models import MODELS

V = 40
Sizes = Sequence[tuple[int, Sequence[int]]]
"""(prompt length, completion lengths) of each group."""


def batch_of(sizes: Sizes, *, seed: int = 0) -> Batch:
    draw = random.Random(seed)

    def ids(n: int) -> array:
        return array("i", [draw.randrange(V) for _ in range(n)])

    def rollout(prompt: array, n: int) -> Rollout:
        completion = Completion(prompt, ids(n), array("f", [-1.0] * n), "", "stop", 0)
        return Rollout(completion, Score(draw.random()))

    prompts = [ids(size) for size, _ in sizes]
    return collate(
        [
            Group(index, Prompt(str(index), text=""), tuple(rollout(prompt, n) for n in lengths))
            for index, (prompt, (_, lengths)) in enumerate(zip(prompts, sizes, strict=True))
        ]
    )


def letters(text: str) -> array:
    return array("i", [ord(letter) - ord("a") for letter in text])


@pytest.fixture
def pictured() -> Batch:
    """The example of the module's docstring."""

    def group(index: int, prompt: str, *completions: str) -> Group:
        made = [Completion(letters(prompt), letters(c), array("f", [0.0] * len(c)), c, "stop", 0) for c in completions]
        return Group(index, Prompt(prompt, text=prompt), tuple(Rollout(c, Score(0.0)) for c in made))

    return collate([group(0, "abc", "def", "gh"), group(1, "uv", "wxy")])


def test_the_layout_is_the_one_in_the_picture(pictured: Batch):
    layout = lay_out(pictured)
    assert layout.tokens_L.tolist() == letters("abcuvdegwx").tolist()
    assert layout.position_L.tolist() == [0, 1, 2, 0, 1, 3, 4, 3, 2, 3]
    predicted_by = dict(zip("defghwxy", layout.row_N.tolist(), strict=True))
    assert predicted_by == {"d": 2, "e": 5, "f": 6, "g": 2, "h": 7, "w": 4, "x": 8, "y": 9}


def test_a_piece_keeps_working_when_siblings_are_apart(pictured: Batch):
    layout = lay_out(pictured.select(torch.tensor([2, 1])))
    assert layout.tokens_L.tolist() == letters("uvabcwxg").tolist()
    assert layout.position_L.tolist() == [0, 1, 0, 1, 2, 2, 3, 3]
    assert layout.row_N.tolist() == [1, 5, 6, 4, 7]


def test_a_prompt_without_tokens_is_refused_with_advice():
    with pytest.raises(ValueError, match=r"a prompt has no tokens.*type data\.template=true"):
        lay_out(batch_of([(3, [2]), (0, [4, 4])]))


SIZES = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(0, 12), min_size=1, max_size=5)), min_size=1, max_size=5
)


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES, budget=st.integers(1, 120), seed=st.integers(0, 9))
def test_pieces_hold_every_sequence_once_and_keep_to_the_budget(sizes: Sizes, budget: int, seed: int):
    batch = batch_of(sizes)
    order = list(range(batch.num_sequences))
    random.Random(seed).shuffle(order)
    batch = batch.select(torch.tensor(order))
    pieces = [piece.tolist() for piece in cut(batch, budget)]
    assert sorted(b for piece in pieces for b in piece) == list(range(batch.num_sequences))
    for piece in pieces:
        groups = set(batch.group_B[piece].tolist())
        cost = sum(len(batch.prompt_ids[g]) for g in groups) + int(batch.lengths_B[piece].sum())
        assert cost <= budget or len(piece) == 1


def test_siblings_stay_together_where_they_fit():
    batch = batch_of([(4, [3, 3]), (4, [3, 3]), (4, [3, 3])])
    assert [piece.tolist() for piece in cut(batch, 19)] == [[0, 1], [2, 3], [4, 5]]
    assert [piece.tolist() for piece in cut(batch, 20)] == [[0, 1, 2, 3], [4, 5]]


def test_a_group_over_the_budget_is_split_and_pays_its_prompt_again():
    batch = batch_of([(4, [3, 3, 3]), (4, [30]), (4, [3])])
    assert [piece.tolist() for piece in cut(batch, 10)] == [[0, 1], [2], [3], [4]]


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12), rows=st.integers(1, 12))
def test_runs_hold_every_sequence_once_and_keep_to_the_rows_of_a_chunk(lengths: list[int], rows: int):
    found = runs(torch.tensor(lengths), rows)
    assert sorted(torch.cat(found).tolist()) == list(range(len(lengths)))
    for run in found:
        assert sum(lengths[b] for b in run.tolist()) <= rows or len(run) == 1


def test_runs_are_filled_with_the_longest_first():
    assert [run.tolist() for run in runs(torch.tensor([3, 7, 0, 5, 9]), 12)] == [[4, 0, 2], [1, 3]]


@settings(deadline=None, max_examples=60)
@given(sizes=SIZES)
def test_every_row_sees_its_prompt_and_its_own_past_and_nothing_else(sizes: Sizes):
    """Reads the visible rows back from buckets and masks, and compares them with the definition."""
    batch = batch_of(sizes)
    layout = lay_out(batch)
    expected = expected_sight(batch)
    assert len(expected) == len(layout.tokens_L)
    queries = torch.cat([bucket.queries_SQ.flatten() for bucket in layout.buckets])
    sight: list[set[int]] = []
    for bucket in layout.buckets:
        (s, q), (_, k) = bucket.queries_SQ.shape, bucket.keys_SK.shape
        mask = bucket.mask(None, torch.float32)
        seen = torch.ones(q, k).tril().bool() if mask is None else mask[:, 0] == 0
        for keys, rows in zip(bucket.keys_SK, seen.expand(s, q, k), strict=True):
            sight += [set(keys[row].tolist()) for row in rows]
    for row, where in enumerate(layout.where_L.tolist()):
        assert int(queries[where]) == row
        assert sight[where] == expected[row]


def expected_sight(batch: Batch) -> list[set[int]]:
    expected: list[set[int]] = []
    prompt_rows: dict[int, list[int]] = {}
    for group in dict.fromkeys(batch.group_B.tolist()):
        start = len(expected)
        prompt_rows[group] = list(range(start, start + len(batch.prompt_ids[group])))
        expected += [set(range(start, row + 1)) for row in prompt_rows[group]]
    for group, length in zip(batch.group_B.tolist(), batch.lengths_B.tolist(), strict=True):
        start = len(expected)
        expected += [{*prompt_rows[group], *range(start, start + i + 1)} for i in range(max(length - 1, 0))]
    return expected


def test_short_completions_spare_the_queries_of_their_prompt_and_long_ones_the_mask():
    long_prompt = lay_out(batch_of([(50, [4, 4, 4, 4])]))
    assert [(bucket.whole, len(bucket.start_S)) for bucket in long_prompt.buckets] == [(True, 1), (False, 3)]
    short_prompt = lay_out(batch_of([(4, [50, 50, 50, 50])]))
    assert [(bucket.whole, len(bucket.start_S)) for bucket in short_prompt.buckets] == [(True, 4)]


def test_padding_stays_within_its_bound():
    draw = random.Random(3)
    layout = lay_out(batch_of([(draw.randrange(1, 300), [draw.randrange(0, 900) for _ in range(6)]) for _ in range(8)]))
    useful = padded = 0
    for bucket in layout.buckets:
        (s, q), (_, k) = bucket.queries_SQ.shape, bucket.keys_SK.shape
        padded += s * q * k
        distinct_queries = torch.tensor([len(set(row.tolist())) for row in bucket.queries_SQ])
        distinct_keys = torch.tensor([len(set(row.tolist())) for row in bucket.keys_SK])
        useful += int((distinct_queries * distinct_keys).sum())
    assert padded <= 1.35 * useful
    assert len(layout.buckets) < 16


LONG_AND_SHORT: Sizes = [(3, [20, 1, 0, 7, 41]), (25, [6, 9, 2]), (1, [1, 2, 30, 36]), (14, [0, 0])]


@pytest.mark.parametrize("name", MODELS)
def test_packed_rows_padded_rows_and_single_sequences_give_the_same_log_probabilities(name: str):
    """`mistral` and `gemma3` look back 12 positions only, and the batch is longer than that."""
    model = MODELS[name](V)
    batch = batch_of(LONG_AND_SHORT)
    policy = PolicyForward(model, temperature=0.8)
    assert policy.packs
    with torch.no_grad(), policy.running():
        packed_N = policy(batch).logprobs_N
        policy.packs = False
    with torch.no_grad(), policy.running():
        padded_N = policy(batch).logprobs_N
    single_N = one_by_one(model, batch, temperature=0.8)
    assert float((packed_N - single_N).abs().max()) < 1e-5
    assert float((padded_N - single_N).abs().max()) < 1e-5


@torch.no_grad()
def one_by_one(model: torch.nn.Module, batch: Batch, *, temperature: float) -> torch.Tensor:
    """Each sequence by itself through `model(...)`, as its authors meant it to be called."""
    found = []
    for group, tokens in zip(batch.group_B.tolist(), batch.tokens_N.split(batch.lengths_B.tolist()), strict=True):
        row = torch.cat([torch.tensor(batch.prompt_ids[group], dtype=torch.int64), tokens])
        logits_TV = model(input_ids=row[None]).logits[0] / temperature
        before = len(row) - len(tokens) - 1
        all_TV = logits_TV[before : before + len(tokens)].log_softmax(dim=-1)
        found.append(all_TV.gather(1, tokens[:, None]).squeeze(1))
    return torch.cat(found)


def test_the_switch_is_set_back_also_after_an_error():
    model = MODELS["qwen2"](V)
    before = model.config._attn_implementation
    with pytest.raises(TypeError, match="packed"), switched(model):
        model(input_ids=torch.tensor([[1, 2]]))
    assert model.config._attn_implementation == before != NAME


SMALL = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": None}
GROUPED = {**SMALL, "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}
BOUNDED = {"attn_logit_softcapping": 1.5, "final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
FAMILIES = {
    "gemma2": (True, {**GROUPED, **BOUNDED, "sliding_window": 12}),
    "cohere": (True, {**GROUPED, "logit_scale": 0.25}),
    "granite": (True, {**GROUPED, "logits_scaling": 4.0}),
    "lfm2": (False, {**GROUPED, "layer_types": ["conv", "full_attention"]}),
    "gpt_oss": (False, {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt_neo": (False, {**SMALL, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}),
}
"""Family -> (can it be packed, its sizes): bounded scores and logits, scaled logits, convolutions between tokens,
attention sinks, attention of its own. All run eagerly: other implementations leave bounds and sinks out."""


def family(name: str) -> PreTrainedModel:
    _, sizes = FAMILIES[name]
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **sizes), attn_implementation="eager").float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 0.25)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_what_cannot_be_packed_is_padded_and_the_head_is_read_as_the_model_reads_it(name: str):
    model, batch = family(name), batch_of(LONG_AND_SHORT)
    policy = PolicyForward(model, temperature=0.8)
    assert policy.packs == FAMILIES[name][0]
    with torch.no_grad(), policy.running():
        found_N = policy(batch).logprobs_N
    assert float((found_N - one_by_one(model, batch, temperature=0.8)).abs().max()) < 1e-5


class Shifted(LlamaForCausalLM):
    """Does something to its logits that nobody announces."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        assert out.logits is not None
        out.logits.add_(torch.linspace(0.0, 1.0, out.logits.shape[-1]))
        return out


def test_a_head_that_is_not_understood_is_refused():
    model = Shifted(LlamaConfig(**{**GROUPED, "num_key_value_heads": 4}))
    with pytest.raises(ValueError, match="Shifted makes its logits in a way"):
        PolicyForward(model, temperature=1.0)


def test_dropout_is_out_whatever_mode_the_model_was_left_in():
    model = MODELS["gpt2"](V, resid_pdrop=0.5)
    batch = batch_of([(3, [8, 5])])
    policy = PolicyForward(model, temperature=1.0)
    model.train()
    with torch.no_grad(), policy.running():
        assert torch.equal(policy(batch).logprobs_N, policy(batch).logprobs_N)
