"""What generating and updating cost, in counts: they are the same on every machine, so they are held exactly."""

from __future__ import annotations

import pytest
import torch

from burnish.batch import collate
from burnish.types import Sampling
from tests.tiny_models import MODELS, eos_ids, tiny_qwen2, word_tokenizer
from tests.unit.test_learner import LENGTHS, V, dapo, groups_of, learner_of
from tests.unit.test_local_engine import TEXTS, make_engine, make_requests, with_eos_bias


def test_an_update_reads_each_prompt_once_and_each_completion_but_its_last_token():
    learner, batch = learner_of(tiny_qwen2(V), tokens_per_piece=10_000), collate(groups_of())
    learner.forward_backward(dapo().prepare(batch))
    prompts = sum(map(len, batch.prompt_ids))
    fed = sum(max(length - 1, 0) for group in LENGTHS for length in group)
    assert learner.work.passes == 1
    assert learner.work.tokens == prompts + fed
    assert learner.work.padding == 0
    assert learner.work.head_rows == batch.num_tokens


def test_smaller_pieces_read_only_prompts_again():
    learner, batch = learner_of(tiny_qwen2(V), tokens_per_piece=12), collate(groups_of())
    learner.forward_backward(dapo().prepare(batch))
    whole = learner_of(tiny_qwen2(V), tokens_per_piece=10_000)
    whole.forward_backward(dapo().prepare(batch))
    again = learner.work.tokens - whole.work.tokens
    assert learner.work.passes > 1
    assert 0 < again <= learner.work.passes * max(map(len, batch.prompt_ids))
    assert learner.work.head_rows == batch.num_tokens


def test_a_model_that_cannot_be_packed_pads_and_says_so():
    learner, batch = learner_of(tiny_qwen2(V), tokens_per_piece=10_000), collate(groups_of())
    learner._policy.packs = False
    learner.forward_backward(dapo().prepare(batch))
    assert learner.work.padding > 0
    assert learner.work.head_rows == batch.num_tokens


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
@pytest.mark.parametrize("group_size", [1, 8])
def test_generating_reads_each_prompt_once_and_feeds_one_token_per_token_drawn(family: str, group_size: int):
    tokenizer = word_tokenizer()
    ends = eos_ids(tokenizer)
    model = with_eos_bias(MODELS[family](len(tokenizer)), sorted(ends), 2.0)
    engine = make_engine(model, tokenizer, slots=len(TEXTS) * group_size)
    requests = make_requests(group_size=group_size)
    with torch.no_grad():
        found = dict(engine.generate(requests, Sampling(max_new_tokens=24)))
    completions = [completion for request in requests for completion in found[request.id]]
    work = engine.work
    assert work.prefill_tokens == sum(len(found[request.id][0].prompt_ids) - 1 for request in requests)
    assert work.prefill_tokens + work.prefill_padding == len(TEXTS) * max(len(c.prompt_ids) - 1 for c in completions)
    assert work.rows - work.idle_rows == sum(len(completion.token_ids) for completion in completions)
    assert work.steps >= max(len(completion.token_ids) for completion in completions)
    assert work.moved_rows < len(completions)


@pytest.mark.parametrize(("family", "share"), [("qwen2", 1 / 32), ("gpt2", 1 / 4)])
def test_rows_that_have_ended_wait_for_a_share_of_the_others_at_most(family: str, share: float):
    tokenizer = word_tokenizer()
    model = with_eos_bias(MODELS[family](len(tokenizer)), sorted(eos_ids(tokenizer)), 1.0)
    engine = make_engine(model, tokenizer, slots=64)
    for _ in engine.generate(make_requests(group_size=8), Sampling(max_new_tokens=64)):
        pass
    assert engine.work.idle_rows < engine.work.rows * share
    assert (engine.work.moved_rows == 0) == (family == "qwen2")
