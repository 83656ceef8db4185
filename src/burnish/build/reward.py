"""The part of the composition root that turns `[reward]` of a config into a `PartsReward`.

A new kind of part needs a line in `_measure`, a new scalarisation one in `_combine`.
"""

from __future__ import annotations

from pathlib import Path

import torch

from burnish.algorithms import scalarize
from burnish.algorithms.scalarize import Weight
from burnish.config import RunConfig
from burnish.config.reward import (
    Constrained,
    FromIdeal,
    FunctionPart,
    Gated,
    GoodAccuracyPart,
    LengthPart,
    ModelPart,
    NormalizedSum,
    PartConfig,
    RepetitionPart,
    TruncatedPart,
    WeightConfig,
    WeightedSum,
)
from burnish.models import device, require_no_code, require_safetensors, tokenizer_at
from burnish.protocols import Reward
from burnish.rewards.answer import Answer
from burnish.rewards.compose import SUM, Combine, Part, PartsReward, each
from burnish.rewards.form import Format, Length, Overlong, Truncated
from burnish.rewards.good_accuracy import GoodAccuracy
from burnish.rewards.load import Source, locate
from burnish.rewards.plugins import Plugin
from burnish.rewards.repetition import Repetition
from burnish.rewards.reward_model import RewardModel, load_classifier
from burnish.rewards.shaped import TARGET_LENGTH, TRUNCATION, Shaped


def make_reward(config: RunConfig) -> PartsReward:
    """The configured reward. Plugins are loaded, each in its process.

    Raises:
        ValueError: a plugin cannot be loaded, or a pattern is no regular expression.
    """
    reward, buffer = config.reward, config.overlong_buffer
    parts: list[Part] = []
    if reward.style != "none":
        answer = Answer(reward.style, right=reward.right, wrong=reward.wrong, seconds=reward.timeout)
        parts.append(Part("answer", answer, _weight(reward.weight), upkeep=answer, overlaps=True))
    if reward.format is not None:
        # A pattern may search for ever, and only in the main thread does a signal interrupt it: it overlaps nothing.
        parts.append(Part("format", Format(reward.format.pattern), _weight(reward.format.weight)))
    parts += [_part(name, part, config) for name, part in reward.parts.items()]
    if buffer:
        limit, factor = config.sampling.max_new_tokens, config.objective.overlong.factor
        parts.append(Part("overlong", Overlong(max_length=limit, buffer=buffer, factor=factor), overlaps=True))
    return PartsReward(parts, combine=_combine(config), task=reward.task_name, right=_right(config))


def plugin_sources(config: RunConfig) -> dict[str, Source]:
    """Name of a part -> the file of its function, with its fingerprint. Nothing is run.

    Raises:
        ValueError: there is no such file.
    """
    parts = config.reward.parts.items()
    return {name: locate(part.function) for name, part in parts if isinstance(part, FunctionPart)}


def reward_parts(config: RunConfig) -> dict[str, tuple[float | None, bool | None]]:
    """Part of the reward -> (its weight in the total, whether it is the task metric).

    The weight is None where it changes over the run, or where the total is no weighted sum.
    """
    reward = config.reward
    linear = isinstance(reward.combine, WeightedSum)
    weights = {
        name: weight.start if linear and weight.start == weight.end else None for name, weight in reward.weights.items()
    }
    if config.overlong_buffer:
        weights["overlong"] = 1.0 if linear else None
    if reward.target_length is not None:
        weights[TARGET_LENGTH] = 1.0
    if reward.truncation:
        weights[TRUNCATION] = 1.0
    return {name: (weight, name == reward.task_name) for name, weight in weights.items()}


def shaped(config: RunConfig, reward: Reward) -> Reward:
    """`reward` less the configured shares for length, if there are any."""
    target, truncation = config.reward.target_length, config.reward.truncation
    if target is None and not truncation:
        return reward
    return Shaped(reward, target_length=target, truncation=truncation)


def _part(name: str, part: PartConfig, config: RunConfig) -> Part:
    weight, timeout = _weight(part.weight), config.reward.timeout
    match part:
        case FunctionPart():
            entries = {entry: _weight(weight) for entry, weight in part.entries.items()}
            plugin = Plugin(
                part.function, args=part.args, entries=tuple(entries), seconds=timeout, isolated=part.isolated
            )
            return Part(name, plugin, weight, entries, upkeep=plugin, overlaps=part.isolated, note=str(plugin))
        case GoodAccuracyPart():
            graded = GoodAccuracy(
                ngram_size=part.ngram_size,
                max_penalty=part.max_penalty,
                penalty_scale_factor=part.penalty_scale_factor,
                seconds=timeout,
            )
            return Part(name, graded, weight, upkeep=graded, overlaps=True)
        case RepetitionPart():
            return Part(name, Repetition(ngram_size=part.ngram_size, unit=part.unit), weight, overlaps=True)
        case LengthPart():
            return Part(name, Length(part.target), weight, overlaps=True)
        case TruncatedPart():
            return Part(name, Truncated(), weight, overlaps=True)
        case ModelPart():
            return Part(name, _reward_model(part, config), weight)


def _reward_model(part: ModelPart, config: RunConfig) -> RewardModel:
    """It sits beside the policy and computes in the policy's precision; nothing of it is trained."""
    bf16, trust = config.model.dtype == "bfloat16", config.model.trust_remote_code
    path = str(Path(part.path).expanduser()) if part.path.startswith("~") else part.path
    try:
        require_no_code(path, trust)
        require_safetensors(path, auto="AutoModelForSequenceClassification")
    except ValueError as error:
        raise ValueError(f"the reward model {part.path} cannot be used. Found: {error}") from error
    classifier = load_classifier(
        path,
        device=device(config.model.device),
        dtype=torch.bfloat16 if bf16 else torch.float32,
        trust_remote_code=trust,
    )
    try:
        tokenizer = tokenizer_at(path, trust)
    except (OSError, ValueError) as error:
        found = " ".join(str(error).split())  # transformers writes paragraphs
        raise ValueError(
            f"the reward model {part.path} has no tokenizer that can be loaded; save the one it was trained with into "
            f"its directory. Found: {found}"
        ) from error
    return RewardModel(classifier, tokenizer, batch_size=part.batch_size)


def _combine(config: RunConfig) -> Combine:
    combine, task = config.reward.combine, config.reward.task_name
    match combine:
        case WeightedSum():
            return SUM
        case FromIdeal():
            return each(scalarize.chebyshev, ideal=_ideal(config) | combine.ideal, rho=combine.rho)
        case Gated():
            threshold = _right(config) if combine.threshold is None else combine.threshold
            return each(scalarize.gated, gate=combine.gate or task, threshold=threshold)
        case Constrained():
            return each(scalarize.constrained, floors=combine.floors, penalty=combine.penalty)
        case NormalizedSum():
            return scalarize.normalized_sum


def _ideal(config: RunConfig) -> dict[str, float]:
    """The best value of every part: what is right, 0 of a penalty, else 1."""
    penalties = [
        n for n, part in config.reward.parts.items() if isinstance(part, LengthPart | TruncatedPart | RepetitionPart)
    ]
    ideal = dict.fromkeys(config.reward.weights, 1.0) | dict.fromkeys([*penalties, "overlong"], 0.0)
    return ideal | ({} if config.reward.style == "none" else {"answer": config.reward.right})


def _right(config: RunConfig) -> float:
    """From which value of the task metric a completion is right."""
    is_accuracy = isinstance(config.reward.parts.get(config.reward.task_name), GoodAccuracyPart)
    return 1.0 if is_accuracy else config.reward.right


def _weight(weight: WeightConfig) -> Weight:
    return Weight(weight.start, weight.end, weight.steps)
