"""`burnish base`: builds a small base model for a built-in task by supervised warm-up.

A base that reinforcement learning can lift needs two things: the skill, in every difficulty bucket, and the habit of
not always using it. So the warm-up has two phases. The skill phase trains on worked steps at a constant rate until the
*minimum* over the buckets of sampled accuracy reaches the target (the mean hides a bucket without skill, and such a
bucket stays without it). The mixture phase then teaches three ways of answering, direct answers most of all, at a
falling rate. Warm-ups plateau and then rise fast, at a step that depends on the seed; one that does not reach the
target in time starts over with other weights at half the rate.

Map: `Recipe` and `RECIPES` (every number), `build_base` (the command), `warm_up` (one attempt), `measure` (accuracy),
`build_model`. The tokenizer is in `prompts/task_tokenizer.py`.

Shape letters: B sequences, T tokens of the longest sequence of a mini-batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import tokenizers
import torch
import transformers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from burnish import __version__, seeds
from burnish.errors import TrainingError
from burnish.prompts.encoding import ChatEncoder
from burnish.prompts.task_tokenizer import END, PAD, VOCABULARY, build_tokenizer
from burnish.prompts.tasks import Style, Task, task
from burnish.protocols import Publication
from burnish.rollout.local import LocalEngine
from burnish.types import Completion, Prompt, Request, Sampling

Report = Callable[[str], None]

Writer = Callable[[Prompt, Style, Random], str]
"""(prompt, style, random numbers) -> a right completion; `Task.worked` is one."""

MAX_PROMPT_TOKENS = 32
"""Room for any prompt of a built-in task."""
IGNORED = -100
"""Label of tokens that do not train: torch's convention for cross-entropy."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Every number of a warm-up."""

    hidden_size: int = 64
    num_layers: int = 3
    num_heads: int = 4
    num_kv_heads: int = 2
    intermediate_size: int = 128
    max_positions: int = 256
    batch_size: int = 32
    learning_rate: float = 2e-3
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    warmup_updates: int = 50
    skill_styles: Mapping[Style, float] = field(
        default_factory=lambda: {"direct": 0.045, "steps": 0.94, "check": 0.015},
    )
    """Shares of the three styles in the skill phase."""
    target: float = 0.6
    """Sampled accuracy that every difficulty bucket must reach to end the skill phase."""
    first_check: int = 300
    """Updates before the first check."""
    check_every: int = 50
    check_prompts: int = 150
    """Prompts per bucket and check, one completion each."""
    max_updates: int = 2000
    """Updates of the skill phase after which an attempt has failed."""
    mixture_styles: Mapping[Style, float] = field(
        default_factory=lambda: {"direct": 0.45, "steps": 0.40, "check": 0.15},
    )
    """Shares in the mixture phase, and so in the base's own completions."""
    mixture_updates: int = 80
    mixture_rates: tuple[float, float] = (0.5, 0.03)
    """Learning rate at the first and last mixture update, as shares of `learning_rate`; linear between."""
    max_attempts: int = 3
    measured_prompts: int = 400
    """Prompts of each split that the finished base is measured on."""


RECIPES: Mapping[str, Recipe] = {
    "add23": Recipe(),
    "add3": Recipe(max_updates=3000),
    "modchain": Recipe(hidden_size=96, intermediate_size=192, learning_rate=3e-3),
}
"""Task -> its recipe. Fact tables (modchain) want width, digit columns want updates."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a base is right on `prompts` problems of one split."""

    prompts: int
    sampled: float
    """At temperature 1, one completion per prompt."""
    greedy: float
    sampled_by_bucket: Mapping[str, float]
    direct_share: float
    """Share of sampled completions that answer without a step."""
    sampled_with_steps: float
    """Sampled accuracy among the completions that do not."""
    truncated_share: float
    mean_length: float
    """Tokens, sampled."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One warm-up from fresh weights."""

    seed: int
    """Of the weights, the problems and the styles."""
    learning_rate: float
    updates: int
    """Updates of the skill phase."""
    lowest_bucket: float
    """Sampled accuracy of the weakest bucket at the last check."""
    reached: bool


@dataclass(frozen=True, slots=True)
class Base:
    """What `build_base` made; also the contents of `recipe.json`."""

    task: str
    seed: int
    recipe: Recipe
    attempts: tuple[Attempt, ...]
    parameters: int
    accuracy: Mapping[str, Accuracy]
    """By split: `tuning`, which may decide what ships, and `heldout`, which is only reported."""
    threads: int
    seconds: float
    versions: Mapping[str, str]


def build_base(
    task_name: str,
    out: Path,
    *,
    seed: int,
    report: Report,
    recipe: Recipe | None = None,
    threads: int = 1,
) -> Base:
    """Warm up a base for the built-in task `task_name` and write it to `out` in `save_pretrained` layout.

    The same seed, recipe and number of threads give the same weights on the same kind of processor. Progress goes to
    `report`, a line at a time.

    Raises:
        ValueError: there is no such task, or `out` holds files.
        TrainingError: no attempt reached the target.
    """
    made_for, recipe = task(task_name), recipe or RECIPES[task_name]
    require_empty(out)
    started = time.perf_counter()
    with using_threads(threads):
        model, attempts = _attempts(made_for, recipe, seed=seed, report=report)
        accuracy = {}
        for split in ("tuning", "heldout"):
            accuracy[split] = measure(model, made_for, made_for.sample(recipe.measured_prompts, split), seed=seed)
            report(f"{split}: sampled {accuracy[split].sampled:.3f}, greedy {accuracy[split].greedy:.3f}")
    base = Base(
        task=task_name,
        seed=seed,
        recipe=recipe,
        attempts=attempts,
        parameters=model.num_parameters(),
        accuracy=accuracy,
        threads=threads,
        seconds=round(time.perf_counter() - started, 1),
        versions={
            "burnish": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    )
    save(model, out, asdict(base))
    report(f"wrote {out} ({base.parameters:,} parameters) in {base.seconds:.0f} s")
    return base


def require_empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"the folder {out} is not empty; type another --out")


def build_model(recipe: Recipe, *, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 with fresh weights, fp32, embeddings tied.

    Beside a Qwen3, `AutoTokenizer` loads the tokenizer that lies there; beside a Qwen2 it insists on Qwen2's own kind.
    """
    config = Qwen3Config(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.hidden_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_kv_heads,
        head_dim=recipe.hidden_size // recipe.num_heads,
        intermediate_size=recipe.intermediate_size,
        max_position_embeddings=recipe.max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[PAD],
        dtype=torch.float32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, eos_token_id=VOCABULARY[END], pad_token_id=VOCABULARY[PAD]
    )
    return model


def warm_up(
    model: PreTrainedModel,
    made_for: Task,
    recipe: Recipe,
    *,
    learning_rate: float,
    seed: int,
    report: Report,
) -> tuple[int, float]:
    """Train `model` in place through both phases; the mixture phase is left out when the target is not reached.

    Returns the updates of the skill phase and the sampled accuracy of the weakest bucket at the last check.
    """
    trainer = Trainer(model, made_for, recipe, seed=seed)
    lowest = 0.0
    for update in range(1, recipe.max_updates + 1):
        loss = trainer.update(recipe.skill_styles, learning_rate * min(1.0, update / recipe.warmup_updates))
        if update < recipe.first_check or update % recipe.check_every:
            continue
        check_seed = seeds.derive(seed, "check", update)
        by_bucket = _accuracy_by_bucket(model, made_for, recipe.check_prompts, seed=check_seed)
        lowest = min(by_bucket.values())
        shown = "  ".join(f"{bucket}: {value:.2f}" for bucket, value in by_bucket.items())
        report(f"update {update:4d}  loss {loss:.3f}  sampled accuracy by difficulty  {shown}")
        if lowest >= recipe.target:
            break
    else:
        return recipe.max_updates, lowest
    first, last = recipe.mixture_rates
    for index in range(recipe.mixture_updates):
        share = first + (last - first) * index / max(1, recipe.mixture_updates - 1)
        trainer.update(recipe.mixture_styles, learning_rate * share)
    return update, lowest


def measure(model: PreTrainedModel, made_for: Task, prompts: Sequence[Prompt], *, seed: int) -> Accuracy:
    """Accuracy on `prompts`, one sampled and one greedy completion each."""
    sampled = _complete(model, made_for, prompts, temperature=1.0, seed=seed)
    greedy = _complete(model, made_for, prompts, temperature=0.0, seed=seed)
    rights = [_is_right(*pair) for pair in zip(prompts, sampled, strict=True)]
    worked = [right for right, c in zip(rights, sampled, strict=True) if not c.text.startswith("Answer")]
    return Accuracy(
        prompts=len(prompts),
        sampled=_mean(rights),
        greedy=_mean([_is_right(*pair) for pair in zip(prompts, greedy, strict=True)]),
        sampled_by_bucket=_by_bucket(prompts, rights),
        direct_share=1.0 - len(worked) / len(prompts),
        sampled_with_steps=_mean(worked),
        truncated_share=_mean([c.finish_reason == "length" for c in sampled]),
        mean_length=_mean([len(c.token_ids) for c in sampled]),
    )


class Trainer:
    """The model with its optimiser and its stream of problems. `write` makes completions of them."""

    def __init__(
        self, model: PreTrainedModel, made_for: Task, recipe: Recipe, *, seed: int, write: Writer | None = None
    ) -> None:
        self._model, self._write, self._recipe = model, write or made_for.worked, recipe
        self._problems = made_for.problems("train", seed=seed)
        self._rng = Random(f"styles-{seed}")
        self._tokenizer = build_tokenizer()
        self._encode = _encoder(self._tokenizer)
        self._optimizer = torch.optim.AdamW(
            model.parameters(), betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
        )

    def update(self, styles: Mapping[Style, float], learning_rate: float) -> float:
        """One update on a fresh mini-batch with completions in shares of `styles`. Returns the loss, nats per token."""
        tokens_BT, labels_BT = self._batch(styles)
        logits = self._model(input_ids=tokens_BT[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.max_grad_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.item()

    def _batch(self, styles: Mapping[Style, float]) -> tuple[Tensor, Tensor]:
        """Token ids and labels. Padding is on the right, where a causal model needs no attention mask for it."""
        names, shares = list(styles), list(styles.values())
        prompts = [next(self._problems) for _ in range(self._recipe.batch_size)]
        asked = [list(self._encode(prompt)) for prompt in prompts]
        completed = [
            self._tokenizer.encode(self._write(p, self._rng.choices(names, shares)[0], self._rng) + END)
            for p in prompts
        ]
        rows = [torch.tensor(a + c) for a, c in zip(asked, completed, strict=True)]
        tokens_BT = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=VOCABULARY[PAD])
        labels_BT = torch.full_like(tokens_BT, IGNORED)
        for b, (a, row) in enumerate(zip(asked, rows, strict=True)):
            labels_BT[b, len(a) : len(row)] = row[len(a) :]
        return tokens_BT, labels_BT


def _attempts(
    made_for: Task, recipe: Recipe, *, seed: int, report: Report
) -> tuple[Qwen3ForCausalLM, tuple[Attempt, ...]]:
    attempts: list[Attempt] = []
    for index in range(recipe.max_attempts):
        attempt_seed, learning_rate = seeds.derive(seed, "attempt", index), recipe.learning_rate / 2**index
        model = build_model(recipe, seed=attempt_seed)
        report(f"warm-up for {made_for.name}: {model.num_parameters():,} parameters, rate {learning_rate:g}")
        updates, lowest = warm_up(
            model, made_for, recipe, learning_rate=learning_rate, seed=attempt_seed, report=report
        )
        reached = lowest >= recipe.target
        attempts.append(Attempt(attempt_seed, learning_rate, updates, lowest, reached))
        if reached:
            report(
                f"target {recipe.target:g} reached after {updates} updates, then {recipe.mixture_updates} of mixture"
            )
            return model.eval(), tuple(attempts)
        report(f"target {recipe.target:g} not reached in {updates} updates: starting over at half the rate")
    raise TrainingError(
        f"no base for {made_for.name}: after {recipe.max_attempts} attempts the weakest difficulty is at "
        f"{attempts[-1].lowest_bucket:.2f} and {recipe.target:g} is needed. Type another --seed"
    )


def _accuracy_by_bucket(model: PreTrainedModel, made_for: Task, prompts_each: int, *, seed: int) -> dict[str, float]:
    """Sampled accuracy per difficulty on fresh problems of the tuning split."""
    streams = [made_for.problems("tuning", seed=seed, buckets=(bucket,)) for bucket in made_for.buckets]
    prompts = [next(stream) for stream in streams for _ in range(prompts_each)]
    completions = _complete(model, made_for, prompts, temperature=1.0, seed=seed)
    return _by_bucket(prompts, [_is_right(*pair) for pair in zip(prompts, completions, strict=True)])


def _complete(
    model: PreTrainedModel,
    made_for: Task,
    prompts: Sequence[Prompt],
    *,
    temperature: float,
    seed: int,
) -> list[Completion]:
    """One completion of every prompt, in their order; a prompt that comes twice is completed with two seeds."""
    tokenizer = build_tokenizer()
    engine = LocalEngine(tokenizer, _encoder(tokenizer), eos_ids={VOCABULARY[END]}, slots=len(prompts))
    engine.load(Publication(0, model))
    requests = [Request(i, p, (seeds.evaluation_seed(seed, p.id, i, 0),)) for i, p in enumerate(prompts)]
    sampling = Sampling(temperature=temperature, max_new_tokens=made_for.max_new_tokens)
    found = {request_id: completions[0] for request_id, completions in engine.generate(requests, sampling)}
    return [found[request.id] for request in requests]


def _encoder(tokenizer: PreTrainedTokenizerFast) -> ChatEncoder:
    return ChatEncoder(tokenizer, template=True, max_prompt_tokens=MAX_PROMPT_TOKENS, truncate_left=False)


def _is_right(prompt: Prompt, completion: Completion) -> bool:
    return completion.finish_reason == "stop" and completion.text.endswith(f"Answer: {prompt.answer}")


def _by_bucket(prompts: Sequence[Prompt], rights: Sequence[bool]) -> dict[str, float]:
    buckets = dict.fromkeys(prompt.meta["bucket"] for prompt in prompts)
    return {
        bucket: _mean([r for p, r in zip(prompts, rights, strict=True) if p.meta["bucket"] == bucket])
        for bucket in sorted(buckets)
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


@contextmanager
def using_threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers: saving a megabyte needs none."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers.utils.logging.enable_progress_bar()


def save(model: PreTrainedModel, out: Path, recipe: Mapping[str, Any]) -> None:
    """Write the model, its tokenizer, and how it came about."""
    out.mkdir(parents=True, exist_ok=True)
    with _quiet():
        model.save_pretrained(out)
    build_tokenizer().save_pretrained(out)
    (out / "recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
