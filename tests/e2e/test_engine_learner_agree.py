"""The engine samples and the learner trains: they must mean the same probabilities, token by token.

The engine decodes one token at a time with a cache of its own; the learner reads packed sequences with shared prompts.
A disagreement here is a silent bias of every importance ratio (`mismatch/mean`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from burnish import build
from burnish.batch import Batch, collate
from burnish.build import Parts
from burnish.overrides import load_config
from burnish.prompts import tasks
from burnish.protocols import Publication
from burnish.types import Completion, Group, Prompt, Request, Rollout, Sampling, Score
from tests.e2e.conftest import Command, read_rows
from tests.fakes import ListStore
from tests.tiny_models import MODELS, TOKENIZERS

pytestmark = pytest.mark.reliability(26)

ModelDir = Callable[[str], Path]

TOLERANCE = 1e-5


@pytest.fixture
def random_model(tmp_path: Path) -> Callable[[str, str], Path]:
    """(family, tokenizer) -> a directory with random weights: every token is possible, and few are likely."""

    def make(family: str, tokenizer_name: str) -> Path:
        tokenizer = TOKENIZERS[tokenizer_name]()
        MODELS[family](len(tokenizer)).save_pretrained(tmp_path / family)
        tokenizer.save_pretrained(tmp_path / family)
        return tmp_path / family

    return make


def groups_of(parts: Parts, prompts: Sequence[Prompt], sampling: Sampling) -> list[Group]:
    """Five completions of each prompt from the engine."""
    requests = [Request(i, prompt, tuple(range(10 * i, 10 * i + 5))) for i, prompt in enumerate(prompts)]
    parts.engine.load(Publication(0, parts.model))
    found = dict(parts.engine.generate(requests, sampling))
    score = Score(1.0, 1.0)
    return [Group(r.id, r.prompt, tuple(Rollout(c, score) for c in found[r.id])) for r in requests]


def disagreement(model: Path | str, prompts: Sequence[Prompt], *words: str) -> tuple[float, Batch]:
    """The largest |learner - engine| log-probability, and the batch it was measured on."""
    config = load_config([f"model.path={model}", "sampling.max_new_tokens=40", "train.tokens_per_piece=150", *words])
    parts = build.assemble(config)
    run = build.make_run(config, parts, prompts, ListStore())
    batch = collate(groups_of(parts, prompts, run.plan.sampling))
    learner_N = run.learner.logprobs(batch)
    parts.upkeep.close()
    return (learner_N - batch.old_logprobs_N).abs().max().item(), batch


def questions() -> tuple[Prompt, ...]:
    """Of different lengths, so that rows and packs are ragged."""
    texts = ("1", "24 * 3 = 72, 72 - 15", "how many apples are left", "7+5", "628-371 = 257. 4 + 8 = 12, carry 1")
    return tuple(Prompt(f"q{i}", messages=({"role": "user", "content": text},)) for i, text in enumerate(texts))


@pytest.mark.parametrize(
    "words", [[], ["sampling.temperature=0.7"], ["sampling.top_p=0.8", "sampling.temperature=1.3"]]
)
def test_they_agree_on_the_embedded_base(words: list[str]) -> None:
    worst, batch = disagreement("embedded", tasks.task("add23").sample(12, "train"), *words)
    assert batch.num_tokens > 500
    assert batch.old_logprobs_N.min() < -1, "surprising tokens are where a difference would show"
    assert worst < TOLERANCE


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize(
    ("family", "tokenizer"),
    [("qwen2", "word"), ("llama", "bpe"), ("qwen3", "unigram"), ("gpt_neox", "bpe"), ("mistral", "word")],
)
def test_they_agree_on_models_of_other_families(
    random_model: Callable[[str, str], Path], family: str, tokenizer: str, temperature: float
) -> None:
    path = random_model(family, tokenizer)
    worst, batch = disagreement(path, questions(), f"sampling.temperature={temperature}")
    assert len(set(batch.lengths_B.tolist())) > 1
    assert batch.old_logprobs_N.min() < -4
    assert worst < TOLERANCE


def test_the_measure_would_see_a_wrong_temperature() -> None:
    prompts = tasks.task("add23").sample(12, "train")
    config = load_config(["model.path=embedded", "sampling.temperature=0.7", "train.threads=1"])
    parts = build.assemble(config)
    run = build.make_run(config, parts, prompts, ListStore())
    batch = collate(groups_of(parts, prompts, replace(run.plan.sampling, temperature=1.0)))
    assert (run.learner.logprobs(batch) - batch.old_logprobs_N).abs().max() > 0.1
    parts.upkeep.close()


def test_the_learner_agrees_with_transformers_on_what_the_engine_sampled() -> None:
    """A third opinion: the model's own forward pass, one whole sequence at a time."""
    config = load_config(["model.path=embedded", "sampling.temperature=0.7", "train.threads=1"])
    parts = build.assemble(config)
    groups = groups_of(parts, tasks.task("add23").sample(4, "train"), Sampling(temperature=0.7, max_new_tokens=64))
    parts.upkeep.close()
    for rollout in (rollout for group in groups for rollout in group.rollouts):
        completion = rollout.completion
        assert plain_logprobs(parts.model, completion, 0.7) == pytest.approx(
            completion.logprobs.tolist(), abs=TOLERANCE
        )


@torch.no_grad()
def plain_logprobs(model: torch.nn.Module, completion: Completion, temperature: float) -> list[float]:
    ids = torch.tensor([[*completion.prompt_ids, *completion.token_ids]])
    logits_NV = model(input_ids=ids, use_cache=False).logits[0, len(completion.prompt_ids) - 1 : -1].double()
    logprobs_NV = (logits_NV / temperature).log_softmax(-1)
    return logprobs_NV[range(len(completion.token_ids)), list(completion.token_ids)].tolist()


def test_a_run_reports_the_mismatch_of_its_first_updates(
    burnish: Command, model_dir: ModelDir, sums: Path, tmp_path: Path
) -> None:
    words = ["train.steps=3", "sampling.prompts_per_step=4", "train.updates_per_step=2", "sampling.max_new_tokens=8"]
    paths = [f"model.path={model_dir('llama')}", f"data.train={sums}", f"out={tmp_path / 'run'}", "train.threads=1"]
    assert burnish("train", *words, *paths, "sampling.temperature=0.7", "optimizer.learning_rate=1e-3").code == 0
    for row in read_rows(tmp_path / "run/metrics.jsonl"):
        assert 0.0 < row["mismatch/max"] < TOLERANCE
        assert row["mismatch/mean"] <= row["mismatch/max"]
        assert row["ratio/max"] > 1.001, "later updates of a step are off-policy, and are not in the mismatch"
