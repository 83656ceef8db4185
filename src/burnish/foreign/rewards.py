"""Foreign rewards as parts of ours: rules, functions, neural reward models, and what each of them weighs.

    verl   one source: a function, or else a reward model, takes the place of the reward manager's rules
    TRL    a weighted sum of a reward model and functions, in that order

A neural reward model is the part `model`, a verl function the part `custom`, a TRL function a part of its own name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from burnish.foreign.conversion import Conversion, UnitError

MANAGERS: Mapping[str, tuple[str, str]] = {
    "naive": ("auto", "0"),
    "dapo": ("dapo", "-1"),
    "prime": ("equivalence", "0"),
    "gdpo": ("auto", "0"),
}
"""verl's reward manager -> style of the answer check, and what a wrong answer is worth."""
OF_FUNCTION = ("function_name", "ngram_size", "max_penalty", "penalty_scale_factor", "gdpo_keys", "gdpo_weights")
GOOD_ACCURACY = ("ngram_size", "max_penalty", "penalty_scale_factor")
OF_MODEL = ("model_score_path", "model_score_batch", "model_score_length")


# -- verl -------------------------------------------------------------------------------------------------------------


def _one_source(c: Conversion) -> None:
    style, wrong = _rules(c)
    has_function, has_model = "function_file" in c.given, c.is_on("model_score_on")
    if has_function and has_model:
        raise UnitError(
            f"{c.shown('function_file', 'model_score_on')}: which of the two scores depends on the release of verl. "
            "Leave one out, or sum both: reward.parts.custom.function=FILE.py:NAME reward.parts.model.path=DIRECTORY"
        )
    if has_function:
        _function(c)
    else:
        c.silent += [(c.given[q], "there is no function of one's own") for q in OF_FUNCTION if q in c.given]
    if has_model:
        _model(c)
    else:
        off = ("model_score_on", *OF_MODEL)
        c.silent += [(c.given[q], "there is no reward model") for q in off if q in c.given]
    if "manager" in c.given and not has_function and not has_model:
        c.set("reward.style", style, "manager", note="the grader is chosen by reward.style, not row by row")
        c.set("reward.wrong", wrong, "manager")


def _rules(c: Conversion) -> tuple[str, str]:
    if "manager" not in c.given:
        return MANAGERS["naive"]
    name = str(c.given["manager"].value)
    if name not in MANAGERS:
        raise UnitError(f"{c.shown('manager')} is refused: choose the grader with reward.style")
    return MANAGERS[name]


def _function(c: Conversion) -> None:
    of = ("function_file", "function_name")
    named = str(c.given["function_name"].value) if "function_name" in c.given else "compute_score"
    c.set("reward.style", "none", *of, "manager", note="the function alone says what is good")
    built_in = named == "good_accuracy"
    if built_in:
        c.set("reward.parts.good_accuracy.kind", "good_accuracy", *of, note="the one that is built in")
    else:
        c.set("reward.parts.custom.function", f"{c.given['function_file'].value}:{named}", *of)
    for q in GOOD_ACCURACY:
        if q in c.given:
            c.set(f"reward.parts.{'good_accuracy.' if built_in else 'custom.args.'}{q}", c.given[q].value, q)
    if "gdpo_keys" in c.given or "gdpo_weights" in c.given:
        _entries(c, built_in=built_in)


def _entries(c: Conversion, *, built_in: bool) -> None:
    """GDPO: entries of what the function returns are the objectives, and its own score is none."""
    keys, of = c.items("gdpo_keys"), ("gdpo_keys", "gdpo_weights")
    if built_in or not keys:
        raise UnitError(
            f"{c.shown(*of)}: there are no entries of a function to weigh. "
            "Type custom_reward_function.path=FILE.py algorithm.gdpo_reward_keys=[NAME,NAME]"
        )
    weights = _weights(c, "gdpo_weights", keys) if "gdpo_weights" in c.given else ["1"] * len(keys)
    c.set("reward.parts.custom.weight", "0", *of, note="its entries are summed, not its score")
    for key, weight in zip(keys, weights, strict=True):
        c.set(f"reward.parts.custom.entries.{key}", weight, *of)


def _model(c: Conversion) -> None:
    of = ("model_score_on", "model_score_path")
    if "model_score_path" not in c.given:
        raise UnitError(f"{c.shown(*of)}: no reward model is given. Type reward_model.model.path=DIRECTORY")
    if "model_score_length" in c.given:
        raise UnitError(
            f"{c.shown('model_score_length')} is refused: a text is scored whole or not at all. Leave it out"
        )
    c.set("reward.style", "none", *of, "manager", note="the reward model alone says what is good")
    c.set("reward.parts.model.path", c.given["model_score_path"].value, *of)
    if "model_score_batch" in c.given:
        c.set("reward.parts.model.batch_size", str(c.whole("model_score_batch")), "model_score_batch")


# -- TRL --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """One addend of TRL's sum."""

    name: str
    weight: str
    """Key of ours that weighs it."""
    settings: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


_ACCURACY = _Source(
    "accuracy_reward", "reward.weight", {"reward.style": "equivalence", "reward.right": "1", "reward.wrong": "0"}
)
BUILT_IN: Mapping[str, _Source] = {
    "accuracy_reward": _ACCURACY,
    "reasoning_accuracy_reward": _ACCURACY,
    "think_format_reward": _Source(
        "think_format_reward",
        "reward.format.weight",
        {"reward.format.pattern": r"(?s)^<think>(?!.*<think>)(.*?)</think>.*$"},
    ),
    "get_soft_overlong_punishment": _Source(
        "get_soft_overlong_punishment",
        "objective.overlong.factor",
        {"objective.overlong.buffer": "256"},
        "the buffer of TRL's command line; the limit is sampling.max_new_tokens",
    ),
}
"""Functions that TRL's command line knows by name."""


def _weighted_sum(c: Conversion) -> None:
    of = ("score_model", "functions")
    sources = [_model_source(c)] if "score_model" in c.given else []
    sources += [_function_source(c, item) for item in c.items("functions")]
    if not sources:
        if "weights" in c.given:
            raise UnitError(
                f"{c.shown('weights')}: there is nothing to weigh without --reward_funcs. Type reward.weight=1, and "
                "reward.parts.NAME.weight=1 for a part"
            )
        return
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UnitError(
            f"{c.shown(*of)}: two rewards are named {twice}. Leave one out, or give it a name of its own: "
            f"reward.parts.NAME.function=FILE.py:{twice}"
        )
    if _ACCURACY not in sources:
        c.set("reward.style", "none", *of, note="there is no answer check among the rewards")
    for source in sources:
        for key, value in source.settings.items():
            c.set(key, value, "score_model" if source.name == "model" else "functions", note=source.note)
    if "weights" in c.given:
        for source, weight in zip(sources, _weights(c, "weights", names), strict=True):
            c.set(source.weight, weight, "weights", note=f"of {source.name}")


def _model_source(c: Conversion) -> _Source:
    return _Source("model", "reward.parts.model.weight", {"reward.parts.model.path": str(c.given["score_model"].value)})


def _function_source(c: Conversion, item: str) -> _Source:
    """A function that TRL has, or one by its dotted path."""
    if item in BUILT_IN:
        return BUILT_IN[item]
    module, _, name = item.rpartition(".")
    if not module:
        raise UnitError(f"{c.shown('functions')}: {item} is refused: choose the grader with reward.style")
    path = f"{module.replace('.', '/')}.py:{name}"
    return _Source(name, f"reward.parts.{name}.weight", {f"reward.parts.{name}.function": path})


# -- both -------------------------------------------------------------------------------------------------------------


def _weights(c: Conversion, quantity: str, names: list[str]) -> list[str]:
    """One number for each name."""
    weights = c.items(quantity)
    if len(weights) != len(names):
        raise UnitError(
            f"{c.shown(quantity)}: found {len(weights)} weights for {len(names)} rewards ({', '.join(names)})"
        )
    for weight in weights:
        try:
            is_number = math.isfinite(float(weight))
        except ValueError:
            is_number = False
        if not is_number:
            raise UnitError(f"{c.shown(quantity)}: found {weight!r}; it needs a finite number for each reward")
    return weights


PARTS = (_one_source, _weighted_sum)
