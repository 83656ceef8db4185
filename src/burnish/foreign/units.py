"""Foreign quantities in our units, resolved together once all words are read.

verl counts prompts, TRL completions per device and micro-step; verl's schedules count steps, TRL's updates; both count
passes over the data where we count steps. With W processes, G siblings, U updates per step and E epochs per step:

    prompts_per_step   verl train_batch_size; TRL device_batch x W x max(generation_steps, accumulation) / G, where
                       generation_steps is accumulation x num_mini_batches in its PPO trainer
    updates_per_step   verl train_batch_size / ppo_mini_batch_size; TRL generation_steps / accumulation
    steps              rows x passes / prompts_per_step, rounded down; TRL max_steps / (U x E) and
                       total_episodes / (prompts_per_step x G), rounded up
    warmup_updates     verl lr_warmup_steps x U x E; a ratio x steps x U x E
    every              TRL save_steps and eval_steps / (U x E), rounded up

The quantities are those that rows of kind `Quantity` name in `burnish.foreign.aliases`.
"""

from __future__ import annotations

import math

from burnish.foreign import rewards
from burnish.foreign.conversion import DEFAULT, Conversion, UnitError

TOGETHER = (
    frozenset({"device_batch", "accumulation", "generation_batch", "generation_steps", "mini_batches"}),
    frozenset({"kl_on", "kl_coef"}),
    frozenset({"overlong_on", "overlong_tokens"}),
)
"""Quantities that mean something only together: where one is given, the other system's default completes it."""
DEVICE_BATCH = ("device_batch", "accumulation", "generation_batch", "generation_steps", "mini_batches")
PROCESSES = ("processes", "processes_per_machine", "machines")


def convert(conversion: Conversion) -> list[str]:
    """Resolve all quantities into `conversion.settings`; returns the refusals, one sentence each."""
    refused: list[str] = []
    for part in PARTS:
        try:
            part(conversion)
        except UnitError as error:
            refused.append(str(error))
    return refused


CLIP_KEYS = {
    "cispo": {"clip_low": "objective.clip_low", "clip_high": "objective.cap"},
    "gmpo": {"clip_low": "objective.log_clip_low", "clip_high": "objective.log_clip_high"},
}
"""Objective -> what it calls the edges that the others call clip_low and clip_high."""


def _clip(c: Conversion) -> None:
    name = str(c.own("objective.name"))
    if "clip" in c.given and name == "cispo":
        c.silent.append((c.given["clip"], "cispo has an upper bound alone, and one for itself"))
    for edge in ("clip_low", "clip_high"):
        key = CLIP_KEYS.get(name, {}).get(edge, f"objective.{edge}")
        if edge in c.given:
            c.set(key, c.given[edge].value, edge)
        elif "clip" in c.given and name != "cispo" and key not in c.decided:
            c.set(key, c.given["clip"].value, "clip")


def _divisor(c: Conversion) -> None:
    if "loss_divisor" not in c.given:
        return
    if c.number("loss_divisor") != c.ours("sampling.max_new_tokens"):
        raise UnitError(
            f"{c.shown('loss_divisor')} is refused: the constant divisor is sampling.max_new_tokens, "
            f"{c.own('sampling.max_new_tokens')}. Leave it out"
        )
    c.silent.append((c.given["loss_divisor"], "it is so here"))


def _confidence(c: Conversion) -> None:
    if c.is_on("confidence_on"):
        c.set("confidence.train", "true", "confidence_on")
    elif "confidence_on" in c.given:
        c.silent.append((c.given["confidence_on"], "off, as it is here"))


def _divergence(c: Conversion) -> None:
    if "kl_on" not in c.given:
        return
    if c.is_on("kl_on"):
        c.set("objective.kl.coef", c.given["kl_coef"].value, "kl_on", "kl_coef")
    else:
        c.set("objective.kl.coef", "0", "kl_on", "kl_coef", note="the loss has no divergence from the reference")


def _overlong(c: Conversion) -> None:
    if "overlong_on" not in c.given:
        return
    if not c.is_on("overlong_on"):
        c.set("objective.overlong.buffer", "0", "overlong_on", "overlong_tokens", note="the punishment is off")
    elif "overlong_tokens" in c.given:
        c.set("objective.overlong.buffer", c.given["overlong_tokens"].value, "overlong_on", "overlong_tokens")
    else:
        c.set("objective.overlong.buffer", "auto", "overlong_on", note="no length given: a fifth of the limit")


def _filter(c: Conversion) -> None:
    if "filter_on" in c.given:
        c.set("objective.dynamic_sampling", "true" if c.is_on("filter_on") else "false", "filter_on")
    if "filter_metric" in c.given:
        metric = c.given["filter_metric"]
        if c.is_on("filter_on") and str(metric.value) not in ("acc", "score"):
            raise UnitError(
                f"{metric.shown} is refused: groups are filtered by their raw score, since with a shaped reward groups "
                "that are all wrong train on their lengths. Type acc as the metric"
            )
        c.silent.append((metric, "groups are filtered by their raw score, before any shaping"))


def _long_prompts(c: Conversion) -> None:
    quantities = ("drop_overlong_prompts", "truncation")
    if c.is_on("drop_overlong_prompts"):
        c.set("data.overlong_prompts", "drop", *quantities)
    elif "truncation" in c.given:
        side = str(c.given["truncation"].value)
        if side not in ("left", "error"):
            raise UnitError(
                f"{c.shown('truncation')} is refused: prompts are cut on the left, if at all, so that their end stays. "
                "Type data.overlong_prompts=truncate_left or =drop"
            )
        c.set("data.overlong_prompts", {"left": "truncate_left"}.get(side, side), *quantities)
    elif "drop_overlong_prompts" in c.given:
        c.set("data.overlong_prompts", "error", *quantities)


# -- batches ----------------------------------------------------------------------------------------------------------


def _batch(c: Conversion) -> None:
    if any(q in c.given for q in ("prompts", "minibatch")):
        _batch_of_prompts(c)
        for q in (*DEVICE_BATCH, *PROCESSES):
            if q in c.given:
                c.silent.append((c.given[q], "the batch is given in prompts"))
    elif any(q in c.given for q in DEVICE_BATCH):
        _batch_of_completions(c)
    else:
        for q in PROCESSES:
            if q in c.given:
                c.silent.append((c.given[q], "sizes here count over all devices"))


def _batch_of_prompts(c: Conversion) -> None:
    if "prompts" in c.given:
        c.set("sampling.prompts_per_step", str(c.whole("prompts")), "prompts")
    if "minibatch" not in c.given:
        return
    prompts, size = int(c.ours("sampling.prompts_per_step")), c.whole("minibatch")
    if size > prompts and c.given["minibatch"].rank == DEFAULT:
        size = prompts
    if prompts % size:
        near = min((d for d in range(1, prompts + 1) if prompts % d == 0), key=lambda d: abs(d - size))
        raise UnitError(
            f"{c.shown('minibatch')}: {prompts} prompts per step do not divide into mini-batches of {size}. "
            f"Type {c.given['minibatch'].key}={near}"
        )
    c.set(
        "train.updates_per_step",
        str(prompts // size),
        *("prompts", "minibatch"),
        note=f"{prompts} / {size} prompts per update",
    )


def _batch_of_completions(c: Conversion) -> None:
    of = (*DEVICE_BATCH, *PROCESSES)
    group = int(c.ours("sampling.group_size"))
    micro = c.whole("device_batch") * _world(c)
    accumulation = c.whole("accumulation")
    micro_steps = _generation_steps(c, micro, accumulation)
    total = micro * max(micro_steps, accumulation)
    if total % group:
        raise UnitError(
            f"{c.shown(*of)}: {total} completions per step do not divide into groups of {group}. "
            f"Type sampling.prompts_per_step={max(1, round(total / group))} train.updates_per_step=1"
        )
    note = f"{total} completions / {group} per prompt"
    c.set("sampling.prompts_per_step", str(total // group), *of, note=note)
    updates = max(1, micro_steps // accumulation)
    note = f"{total} completions / {micro * accumulation} per update"
    c.set("train.updates_per_step", str(updates), *of, note=note)


def _world(c: Conversion) -> int:
    if "processes" in c.given:
        return c.whole("processes")
    machines = c.whole("machines") if "machines" in c.given else 1
    return machines * (c.whole("processes_per_machine") if "processes_per_machine" in c.given else 1)


def _generation_steps(c: Conversion, micro: int, accumulation: int) -> int:
    """Micro-steps that one generation feeds."""
    if "generation_batch" in c.given and "generation_steps" in c.given:
        raise UnitError(f"{c.shown('generation_batch', 'generation_steps')} cannot both be given. Leave one out")
    if "mini_batches" in c.given:
        return accumulation * c.whole("mini_batches")
    if "generation_batch" in c.given and "filter_on" in c.given:
        c.silent.append((c.given["generation_batch"], "a round asks for what is missing"))
        return accumulation
    steps = accumulation
    if "generation_steps" in c.given:
        steps = c.whole("generation_steps")
    elif "generation_batch" in c.given:
        size = c.whole("generation_batch")
        if size % micro:
            raise UnitError(
                f"{c.shown('generation_batch')}: it does not divide by the {micro} completions of a micro-step"
            )
        steps = size // micro
    if steps % accumulation and accumulation % steps:
        raise UnitError(
            f"{c.shown('generation_batch', 'generation_steps', 'accumulation')}: {steps} micro-steps per generation "
            f"and {accumulation} per update do not divide each other. Type --steps_per_generation {accumulation}"
        )
    return steps


# -- lengths of time --------------------------------------------------------------------------------------------------


def _steps(c: Conversion) -> None:
    lengths = {"updates": _steps_of_updates, "episodes": _steps_of_episodes, "passes": _steps_of_passes}
    given = [quantity for quantity in lengths if quantity in c.given]
    for quantity in given:
        if c.given[quantity].rank <= c.decided.get("train.steps", DEFAULT - 1):
            c.silent.append((c.given[quantity], "train.steps says how long"))
        elif quantity != given[0]:
            c.silent.append((c.given[quantity], f"the number of {given[0]} says how long"))
        else:
            lengths[quantity](c)


def _steps_of_updates(c: Conversion) -> None:
    updates, per_step = c.whole("updates"), c.updates_per_step
    note = f"{updates} updates / {per_step} per step"
    c.set("train.steps", str(math.ceil(updates / per_step)), "updates", note=note)


def _steps_of_episodes(c: Conversion) -> None:
    completions = int(c.ours("sampling.prompts_per_step") * c.ours("sampling.group_size"))
    note = f"{c.whole('episodes')} completions / {completions} per step"
    c.set("train.steps", str(math.ceil(c.whole("episodes") / completions)), "episodes", note=note)


def _steps_of_passes(c: Conversion) -> None:
    passes, prompts = c.number("passes"), int(c.ours("sampling.prompts_per_step"))
    rows = c.rows()
    if rows is None:
        raise UnitError(
            f"{c.shown('passes')}: steps are rows x passes / {prompts} prompts, and {c.own('data.train')!r} is not "
            "here to be counted. Type train.steps=NUMBER"
        )
    steps = max(1, int(rows * passes / prompts))
    c.set("train.steps", str(steps), "passes", note=f"{rows:,} rows x {passes:g} / {prompts} prompts per step")


def _warmup(c: Conversion) -> None:
    per_step = c.updates_per_step
    if "warmup_steps" in c.given and c.number("warmup_steps") >= 0:
        updates = math.ceil(c.number("warmup_steps") * per_step)
        c.set("optimizer.warmup_updates", str(updates), "warmup_steps", note=f"steps x {per_step} updates per step")
    elif "warmup_updates" in c.given and c.number("warmup_updates") >= 1:
        c.set("optimizer.warmup_updates", str(c.whole("warmup_updates")), "warmup_updates")
    else:
        for q in ("warmup_share", "warmup_updates"):
            if q in c.given:
                total = int(c.ours("train.steps")) * per_step
                note = f"of {total} updates"
                c.set("optimizer.warmup_updates", str(math.ceil(c.number(q) * total)), q, note=note)


def _cadences(c: Conversion) -> None:
    for key, strategy, updates in (
        ("eval.every", "eval_strategy", "eval_updates"),
        ("checkpoint.every", "save_strategy", "save_updates"),
    ):
        chosen = str(c.given[strategy].value) if strategy in c.given else "steps"
        if chosen == "no":
            c.set(
                key, "0", strategy, updates, note="only before and after" if key == "eval.every" else "only at the end"
            )
        elif chosen != "steps":
            raise UnitError(f"{c.shown(strategy)} is refused: it is counted in steps. Type {key}=10")
        elif updates in c.given:
            number, per_step = c.number(updates), c.updates_per_step
            if number < 1:
                number *= int(c.ours("train.steps")) * per_step
            every = max(1, math.ceil(number / per_step))
            c.set(key, str(every), strategy, updates, note=f"updates / {per_step} per step")
        elif strategy in c.given:
            c.silent.append((c.given[strategy], f"it is so here: {key} steps"))


PARTS = (
    *(_clip, _divisor, _divergence, _confidence, *rewards.PARTS, _overlong, _filter, _long_prompts),
    *(_batch, _steps, _warmup, _cadences),
)
"""In this order: the later ones read what the earlier ones settled."""
