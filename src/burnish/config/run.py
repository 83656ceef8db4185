"""The schema of a run. Pydantic only: `burnish --help` must never import torch.

Every default lives here and nowhere else. Unknown keys are errors. A choice between variants is a union discriminated
by `name`, and each variant's defaults are its published setting: `objective.name=dapo` with nothing else is DAPO.
Presets (`presets/*.toml`) are complete runs: sizes, lengths, learning rates. The methods are in `objectives`,
the reward in `reward`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from burnish.config.objectives import DAPO, ObjectiveConfig
from burnish.config.reward import Reward
from burnish.config.section import Section, Share

# -- what is trained, on what -----------------------------------------------------------------------------------------


class Model(Section):
    path: str = "embedded"
    """`embedded` (the base model in the package), a directory in `save_pretrained` layout, or a hub name."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes in bf16 and keeps fp32 master weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    trust_remote_code: bool = False
    """Run Python code that ships with the model. Only for models you trust as you trust your own code."""
    device: str = "auto"
    """`auto` (cuda when there is one, else cpu), `cpu`, `cuda`, `cuda:1`."""


class Columns(Section):
    """Where a row keeps what. Dots reach into nested fields: `reward_model.ground_truth`."""

    prompt: str | None = None
    """Text or a list of messages. None looks for `prompt`, `messages`, `question`, `problem`, `query`."""
    answer: str | None = None
    """None looks for `answer`, `ground_truth`, `reward_model.ground_truth`, `solution`."""
    id: str | None = None
    """None looks for `id`, `qid`, `uid`; without any, the id is a hash of the row's prompt and answer."""


class History(Section):
    """What `data.sampler=history` skips."""

    min_variance: NonNegativeFloat = 0.01
    """Population variance that the raw scores of a prompt's last group must exceed."""
    scale: Literal["absolute", "relative"] = "absolute"
    """`relative`: `min_variance` is a share of the squared range of all raw scores seen so far."""
    reinclude: Share = 0.2
    """Share of a batch that comes back by lot, at least one prompt, when more than half of it was skipped."""


class Data(Section):
    train: str = "add23"
    """A built-in task (`add23`, `add3`, `modchain`), a file (.jsonl, .json, .parquet), a directory or a hub name."""
    split: str = "train"
    """Split of a Hugging Face data set."""
    limit: PositiveInt | None = None
    """Stop after this many rows in use."""
    columns: Columns = Columns()
    system: str | None = None
    """System message put before every prompt that has none."""
    suffix: str = ""
    """Text added to the end of every prompt, for instance the answer format that the grader wants."""
    template: bool = True
    """Render prompts with the tokenizer's chat template; false encodes the prompt's text as it is."""
    max_prompt_tokens: PositiveInt = 2048
    overlong_prompts: Literal["error", "drop", "truncate_left"] = "error"
    """What to do with a prompt over `max_prompt_tokens`."""
    duplicates: Literal["drop", "keep"] = "drop"
    """Rows with the same prompt and answer: keep the first, or all."""
    shuffle: bool = True
    sampler: Literal["shuffled", "history"] = "shuffled"
    """`shuffled`: every prompt once per epoch; `history`: skip prompts whose last group's scores were alike. That is
    biased by design and comes before objective.dynamic_sampling, which it does not replace."""
    history: History = History()

    @model_validator(mode="after")
    def _history_is_used(self) -> Self:
        if self.sampler == "shuffled" and self.history != History():
            raise ValueError("data.history does nothing with data.sampler=shuffled. Type data.sampler=history")
        return self


# -- how completions are drawn ----------------------------------------------------------------------------------------


class SamplingConfig(Section):
    prompts_per_step: PositiveInt = 32
    """Groups that one step trains on."""
    group_size: PositiveInt = 8
    """Completions per prompt."""
    temperature: NonNegativeFloat = 1.0
    """0 is greedy decoding, which only ppo can train on; log-probabilities are then at temperature 1."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    top_k: NonNegativeInt = 0
    min_p: Share = 0.0
    max_new_tokens: PositiveInt = 64
    max_rounds: PositiveInt = 10
    """Generation rounds a step may use to fill its batch when the objective filters groups."""
    on_exhausted: Literal["train", "skip", "error"] = "train"
    """When the rounds are used up: train on the groups there are, skip the step, or stop the run."""
    surplus: Literal["discard", "keep"] = "discard"
    """Admitted groups beyond the batch: drop them (every batch is on-policy), or start the next step with them."""
    slots: PositiveInt = 512
    """Completions the local engine decodes at once."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that completions are drawn with. `bfloat16` draws faster where memory or products are the limit (a
    GPU, or a CPU with a model beyond 1 GiB: below, `float32` has kernels of its own and is as fast), from a policy that
    is a little off: it needs `objective.mismatch.correct`."""

    @property
    def policy_temperature(self) -> float:
        """The temperature that log-probabilities are at."""
        return self.temperature or 1.0


# -- stated confidence ------------------------------------------------------------------------------------------------


class Confidence(Section):
    """Completions say how sure they are: `<confidence>high</confidence>`. Giving any of these keys turns it on."""

    train: bool = True
    """Train the statement; false only measures it in evaluations."""
    coef: PositiveFloat = 0.1
    """Weight of the mean loss over an update's valid statements."""
    loss: Literal["regression", "classification"] = "regression"
    """Squared error to a target from 0 to 1, or cross-entropy to a label."""
    score: Literal["softmax", "prob_diff"] = "softmax"
    """`softmax`: P(high) among the two words; `prob_diff`: (P(high) - P(low) + 1) / 2 of the whole vocabulary."""
    target: Literal["data", "group_accuracy", "correctness"] = "data"
    """What should be stated: the row's `target_confidence` (regression) or `confidence_label` (classification); the
    share of right siblings; or whether the completion itself is right."""
    tag: Annotated[str, Field(pattern=r"^[^<>/\s]+$")] = "confidence"
    """Name of the tag; exactly one of it makes a statement valid."""
    high: Annotated[str, Field(pattern=r"^[^<>\s]([^<>]*[^<>\s])?$")] = "high"
    low: Annotated[str, Field(pattern=r"^[^<>\s]([^<>]*[^<>\s])?$")] = "low"
    high_token_id: NonNegativeInt | None = None
    """As `burnish token-ids` prints it; None finds it. A wrong one is refused."""
    low_token_id: NonNegativeInt | None = None
    mask_tag: bool = False
    """The tokens of the tag train by the confidence term alone, without policy gradient."""

    @model_validator(mode="after")
    def _words_differ(self) -> Self:
        if self.high == self.low:
            raise ValueError(
                f"confidence.high and confidence.low are both {self.high!r}. Type confidence.high=yes confidence.low=no"
            )
        return self


# -- how the policy is updated ----------------------------------------------------------------------------------------


class Optimizer(Section):
    learning_rate: PositiveFloat = 1e-6
    warmup_updates: NonNegativeInt = 0
    """Updates over which the rate rises linearly from 0. Schedules are driven by updates, not by steps."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """After the warm-up: stay, or fall so as to reach 0 after the last planned update."""
    weight_decay: NonNegativeFloat = 0.0
    beta1: Share = 0.9
    beta2: Share = 0.99
    eps: PositiveFloat = 1e-8
    max_grad_norm: PositiveFloat = 1.0


class Train(Section):
    steps: PositiveInt = 100
    updates_per_step: PositiveInt = 4
    """Mini-batches that a step's groups are split into; each is one update."""
    epochs: PositiveInt = 1
    """Passes over a step's groups."""
    tokens_per_piece: PositiveInt | None = None
    """Prompt and completion tokens that one forward and backward pass may hold. None: 1024 on a CPU, where more is not
    faster and takes memory; 8192 on a GPU, which more keeps busy."""
    threads: PositiveInt | None = None
    """CPU threads; None uses all cores. Recorded: bits depend on it."""


# -- what is measured and kept ----------------------------------------------------------------------------------------


class Eval(Section):
    data: str | None = None
    """Held-out prompts: a file, directory or hub name; None uses the task's own held-out split (built-in tasks)."""
    every: NonNegativeInt = 10
    """Steps between evaluations; 0 evaluates only before and after."""
    prompts: PositiveInt = 200
    """How many held-out prompts, the first ones."""
    samples: PositiveInt = 2
    """Completions per prompt (the n of avg@n, pass@k, maj@n)."""
    greedy: bool = True
    """Also decode greedily, before and after."""
    temperature: NonNegativeFloat = 1.0
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0


class Checkpoint(Section):
    every: NonNegativeInt = 10
    """Steps between checkpoints; 0 saves only at the end."""
    keep: Annotated[int, Field(ge=2)] = 2
    """Complete checkpoints kept; at least 2, so that one is always whole."""
    on_save_error: Literal["stop", "continue"] = "stop"
    """When one cannot be written, on a full disk for instance: stop the run, or say so and try again at the next.
    The last one of a run always stops it."""


class Store(Section):
    max_bytes: PositiveInt = 10 * 2**30
    """Size of the record over which its oldest texts and token arrays are dropped. Numbers are never dropped."""
    token_groups: NonNegativeInt = 4
    """Groups of each step whose token ids and log-probabilities are kept, all siblings; 0 keeps none."""


class Log(Section):
    sinks: tuple[Literal["jsonl", "tensorboard", "wandb", "trackio"], ...] = ("jsonl", "tensorboard")
    project: str = "burnish"
    """Project name for W&B and trackio."""


class RunConfig(Section):
    out: str = "runs/{name}-{seed}"
    """The run folder. {name} and {seed} are filled in."""
    name: str = "run"
    """Without slashes, so that it cannot lead out of a folder."""
    seed: NonNegativeInt = 1
    model: Model = Model()
    data: Data = Data()
    reward: Reward = Reward()
    sampling: SamplingConfig = SamplingConfig()
    objective: ObjectiveConfig = DAPO()
    confidence: Confidence | None = None
    """None: completions state no confidence."""
    optimizer: Optimizer = Optimizer()
    train: Train = Train()
    eval: Eval = Eval()
    checkpoint: Checkpoint = Checkpoint()
    store: Store = Store()
    log: Log = Log()

    @field_validator("name")
    @classmethod
    def _names_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]{0,99}", name):
            proposed = re.sub(r"[^\w-]+", "-", name).strip("-_")[:99] or "run"
            raise ValueError(
                f"name is {name!a}, and a run's name is part of its folder's: 1 to 100 characters, no slash and no "
                f"control character among them, and no dot in front. Type name={proposed}"
            )
        return name

    @property
    def overlong_buffer(self) -> int:
        """Tokens of the overlong buffer, `auto` resolved."""
        buffer = self.objective.overlong.buffer
        return self.sampling.max_new_tokens // 5 if buffer == "auto" else buffer

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        sampling, train = self.sampling, self.train
        self._has_siblings_to_compare()
        if sampling.dtype == "bfloat16" and not self.objective.corrects_mismatch:
            raise ValueError(
                "sampling.dtype=bfloat16 draws from rounded weights, and nothing corrects for it. "
                "Type objective.mismatch.correct=token (or =sequence), or sampling.dtype=float32"
            )
        if self.overlong_buffer >= sampling.max_new_tokens:
            raise ValueError(
                f"objective.overlong.buffer is {self.overlong_buffer} and sampling.max_new_tokens is "
                f"{sampling.max_new_tokens}: every completion would be penalised. Type "
                f"objective.overlong.buffer={sampling.max_new_tokens // 5}"
            )
        if sampling.prompts_per_step % train.updates_per_step:
            raise ValueError(
                f"sampling.prompts_per_step is {sampling.prompts_per_step} and does not divide into "
                f"train.updates_per_step={train.updates_per_step} equal mini-batches. "
                f"Type train.updates_per_step={_nearest_divisor(sampling.prompts_per_step, train.updates_per_step)}"
            )
        return self

    def _has_siblings_to_compare(self) -> None:
        objective, size = self.objective, self.sampling.group_size
        if size < objective.min_siblings:
            raise ValueError(
                f"sampling.group_size is {size}, and {objective.name} compares siblings, so it needs at least "
                f"{objective.min_siblings}. Type sampling.group_size=8, or objective.name=ppo for one completion per "
                "prompt"
            )
        if size > 1 and self.sampling.temperature == 0.0:
            raise ValueError(
                f"sampling.temperature is 0 (greedy): all {size} siblings would be the same and every advantage over "
                "them 0. Type sampling.temperature=1 (greedy decoding is for evaluation: eval.greedy), or "
                "objective.name=ppo sampling.group_size=1"
            )
        if size == 1 and objective.dynamic_sampling:
            raise ValueError(
                "sampling.group_size is 1, and objective.dynamic_sampling drops groups whose siblings are scored "
                "alike: it would drop all. Type objective.dynamic_sampling=false"
            )
        if size == 1 and self.data.sampler == "history":
            raise ValueError(
                "sampling.group_size is 1, and data.sampler=history skips prompts whose siblings were scored alike: it "
                "would skip all. Type data.sampler=shuffled"
            )


def _nearest_divisor(n: int, wanted: int) -> int:
    return min((d for d in range(1, n + 1) if n % d == 0), key=lambda d: abs(d - wanted))


def resolved(config: RunConfig) -> dict[str, Any]:
    """The whole config as plain values, every default spelled out: what is written into the run folder."""
    return config.model_dump(mode="json")
