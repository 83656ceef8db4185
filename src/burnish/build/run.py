"""The composition root: turns a config into live objects. The only module that names concrete classes.

`assemble` makes what training, evaluation and generation share (model, tokenizer, engine, reward); `make_run` adds the
learner and the objective and returns the `Run` that `train` takes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from burnish import seeds
from burnish.batch import Batch
from burnish.build.memory import tokens_per_piece
from burnish.build.objective import make_objective, value_learning_rate
from burnish.build.reward import make_reward, shaped
from burnish.confidence.setup import Setup, require_targets, set_up
from burnish.confidence.tag import Tag
from burnish.config import RunConfig, resolved
from burnish.learner.forward import PolicyForward
from burnish.learner.local import LocalLearner
from burnish.learner.schedule import make_schedule
from burnish.masking import masked
from burnish.models import load_model
from burnish.objective import Objective, Term
from burnish.prompts.encoding import ChatEncoder, end_of_sequence_ids
from burnish.prompts.filters import AdmitAll, ConstantGroups
from burnish.prompts.history import HistorySampler
from burnish.prompts.sampler import ShuffledSampler
from burnish.protocols import PromptSampler, Reward, RolloutEngine, Sink, Statements, Store
from burnish.rewards.faults import Judged
from burnish.rewards.upkeep import NO_UPKEEP, Upkeep
from burnish.rollout.decoder import position_limit
from burnish.rollout.local import LocalEngine
from burnish.run_folder import RunFolder
from burnish.sinks.quiet import tracker
from burnish.train import Plan, Run
from burnish.types import Prompt, Sampling


@dataclass(frozen=True)
class Swaps:
    """Parts that a caller brings in place of the configured ones, or beside them."""

    reward: Reward | None = None
    terms: tuple[Term, ...] = ()
    """Terms beside the objective's own."""
    sampler: Callable[[Sequence[Prompt], int], PromptSampler] | None = None
    """(prompts, seed) -> what chooses among them."""
    engine: Callable[[Parts], RolloutEngine] | None = None
    """What is shared, the configured engine too -> what generates."""

    @property
    def names(self) -> list[str]:
        """The fields that are set."""
        return [field.name for field in fields(self) if getattr(self, field.name)]


NOTHING = Swaps()


@dataclass(frozen=True)
class Parts:
    """What training, evaluation and generation share."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encode: ChatEncoder
    engine: RolloutEngine
    reward: Reward
    upkeep: Upkeep
    """Of the reward. Its `close` ends the processes that were started."""
    notes: tuple[str, ...]
    """What a person should know before they are used: which code of others is trusted."""
    swaps: Swaps

    @property
    def end_grading(self) -> Callable[[], None] | None:
        """`train.Run.end_grading` of the reward."""
        return self.upkeep.close if self.upkeep.overlaps else None

    @property
    def positions(self) -> int | None:
        """Tokens that a sequence of the model may have."""
        return positions_of(self.model)


def assemble(config: RunConfig, swaps: Swaps = NOTHING, *, progress: Callable[[int, int], None] | None = None) -> Parts:
    """Load the model and its tokenizer and build engine and reward around them.

    Raises:
        ValueError: the model cannot be loaded, the device is not there, or there is no end-of-sequence token.
    """
    model, tokenizer = load_model(config)
    encode = make_encoder(config, tokenizer)
    engine = make_engine(config, model, tokenizer, encode, progress=progress)
    reward, upkeep, notes = graded(config, swaps)
    reward = Judged(reward, fails=config.reward.on_fault == "fail", score=config.reward.fault_score)
    parts = Parts(model, tokenizer, encode, engine, reward, upkeep, notes, swaps)
    return parts if swaps.engine is None else replace(parts, engine=swaps.engine(parts))


def make_encoder(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> ChatEncoder:
    return ChatEncoder(
        tokenizer,
        template=config.data.template,
        max_prompt_tokens=config.data.max_prompt_tokens,
        truncate_left=config.data.overlong_prompts == "truncate_left",
    )


def make_engine(
    config: RunConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    encode: ChatEncoder,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> LocalEngine:
    """
    Raises:
        ValueError: there is no end-of-sequence token.
    """
    generation = model.generation_config
    eos_ids = end_of_sequence_ids(
        tokenizer,
        config_eos=model.config.eos_token_id,
        generation_eos=generation.eos_token_id if generation else None,
    )
    return LocalEngine(
        tokenizer,
        encode,
        eos_ids=eos_ids,
        slots=config.sampling.slots,
        bf16=config.sampling.dtype == "bfloat16",
        progress=progress,
    )


def positions_of(model: PreTrainedModel) -> int | None:
    """Tokens that a sequence of the model may have; None without a limit."""
    return position_limit(model.config.get_text_config())


def graded(config: RunConfig, swaps: Swaps) -> tuple[Reward, Upkeep, tuple[str, ...]]:
    """The reward, its upkeep, and what to know of it."""
    brought = (f"given from Python: {', '.join(swaps.names)}",) if swaps.names else ()
    if swaps.reward is not None:
        upkeep = swaps.reward if isinstance(swaps.reward, Upkeep) else NO_UPKEEP
        return shaped(config, swaps.reward), upkeep, brought
    made = make_reward(config)
    return shaped(config, made), made, (*made.notes, *brought)


def make_confidence(config: RunConfig, tokenizer: PreTrainedTokenizerBase) -> Setup | None:
    """How completions state their confidence; None when they state none.

    Raises:
        ValueError: the tokenizer cannot tell the two words apart, or a given token id is wrong.
    """
    chosen = config.confidence
    if chosen is None:
        return None
    return set_up(
        tokenizer,
        Tag(chosen.tag, chosen.high, chosen.low),
        given_ids=(chosen.high_token_id, chosen.low_token_id),
        target=chosen.target,
        loss=chosen.loss,
        score=chosen.score,
        coef=chosen.coef,
        mask_tag=chosen.mask_tag,
    )


def make_statements(
    config: RunConfig, parts: Parts, logprobs: Callable[[Batch], Tensor] | None = None
) -> Statements | None:
    """What reads stated confidence in evaluations: by the learner's `logprobs`, or with a forward pass of its own."""
    confidence = make_confidence(config, parts.tokenizer)
    if confidence is None:
        return None
    if logprobs is None:
        bf16 = config.model.dtype == "bfloat16"
        policy = PolicyForward(parts.model, temperature=config.sampling.policy_temperature, bf16=bf16)
        logprobs = partial(policy.logprobs, tokens_per_piece=tokens_per_piece(config))
    return confidence.statements(logprobs)


def make_run(config: RunConfig, parts: Parts, prompts: Sequence[Prompt], store: Store, **hooks: Any) -> Run:
    """A run at step 0. `hooks` are the `after_step` and `phase` of `Run`."""
    objective = trained_objective(config, parts.model, parts.tokenizer, prompts)
    objective = replace(objective, terms=(*objective.terms, *parts.swaps.terms))
    return Run(
        plan=make_plan(config),
        engine=parts.engine,
        learner=make_learner(config, parts.model, parts.tokenizer, objective),
        reward=parts.reward,
        objective=objective,
        prompts=make_sampler(config, prompts, parts.swaps),
        admit=ConstantGroups() if config.objective.dynamic_sampling else AdmitAll(config.objective.min_siblings),
        store=store,
        end_grading=parts.end_grading,
        **hooks,
    )


def trained_objective(
    config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]
) -> Objective:
    """The configured objective, with the confidence term where there is one.

    Raises:
        ValueError: the tokenizer or the data does not fit the configured confidence.
    """
    objective = make_objective(config, vocab_size=model.config.get_text_config().vocab_size)
    confidence = make_confidence(config, tokenizer)
    if confidence and config.confidence and config.confidence.train:
        if config.confidence.target == "data":
            require_targets(prompts, config.confidence.loss)
        objective = confidence.train(objective)
    return objective


def make_learner(
    config: RunConfig, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, objective: Objective
) -> LocalLearner:
    """
    Raises:
        ValueError: the model makes its logits in a way that the learner cannot follow.
    """
    train, optimizer = config.train, config.optimizer
    planned_updates = train.steps * train.updates_per_step * train.epochs
    return LocalLearner(
        model,
        tokenizer,
        objective,
        temperature=config.sampling.policy_temperature,
        tokens_per_piece=tokens_per_piece(config),
        learning_rate=optimizer.learning_rate,
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.max_grad_norm,
        schedule=make_schedule(optimizer.schedule, optimizer.warmup_updates, planned_updates),
        reference=copy.deepcopy(model) if objective.needs_reference else None,
        value_learning_rate=value_learning_rate(config),
        bf16=config.model.dtype == "bfloat16",
        gradient_checkpointing=config.model.gradient_checkpointing,
    )


def make_sampler(config: RunConfig, prompts: Sequence[Prompt], swaps: Swaps) -> PromptSampler:
    data, seed = config.data, seeds.derive(config.seed, "prompts")
    if swaps.sampler is not None:
        return swaps.sampler(prompts, seed)
    if data.sampler == "history":
        return HistorySampler(
            prompts,
            seed=seed,
            shuffle=data.shuffle,
            min_variance=data.history.min_variance,
            relative=data.history.scale == "relative",
            reinclude=data.history.reinclude,
        )
    return ShuffledSampler(prompts, seed=seed, shuffle=data.shuffle)


def make_plan(config: RunConfig) -> Plan:
    sampling, train = config.sampling, config.train
    return Plan(
        steps=train.steps,
        prompts_per_step=sampling.prompts_per_step,
        group_size=sampling.group_size,
        updates_per_step=train.updates_per_step,
        epochs=train.epochs,
        max_rounds=sampling.max_rounds if config.objective.dynamic_sampling else 1,
        on_exhausted=sampling.on_exhausted,
        keep_surplus=sampling.surplus == "keep",
        sampling=training_sampling(config),
        seed=config.seed,
    )


def training_sampling(config: RunConfig) -> Sampling:
    sampling = config.sampling
    return Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        max_new_tokens=sampling.max_new_tokens,
    )


def eval_sampling(config: RunConfig) -> Sampling:
    return Sampling(
        temperature=config.eval.temperature, top_p=config.eval.top_p, max_new_tokens=config.sampling.max_new_tokens
    )


def require_sinks(config: RunConfig) -> None:
    """See that what the configured sinks need is installed.

    Raises:
        ValueError: it is not, with what to type.
    """
    for name in set(config.log.sinks) & {"wandb", "trackio"}:
        tracker(name)


def make_sinks(config: RunConfig, folder: RunFolder) -> Iterator[Sink]:
    """The configured sinks, one at a time; each library is imported only when its sink is asked for."""
    for name in config.log.sinks:
        match name:
            case "jsonl":
                from burnish.sinks.jsonl import JsonlSink

                yield JsonlSink(folder.metrics_path)
            case "tensorboard":
                from burnish.sinks.tensorboard import TensorBoardSink

                yield TensorBoardSink(folder.tensorboard_path)
            case "wandb":
                from burnish.sinks.wandb import WandbSink

                yield WandbSink(project=config.log.project, name=folder.path.name, config=masked(resolved(config)))
            case "trackio":
                from burnish.sinks.trackio import TrackioSink

                yield TrackioSink(project=config.log.project, name=folder.path.name, config=masked(resolved(config)))
