"""The part of the composition root that turns `[data]` and `[eval]` of a config into prompts, or says why it cannot."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from burnish.config import RunConfig
from burnish.prompts import tasks
from burnish.prompts.datasets import Lengths, Loaded, Report, load_prompts
from burnish.prompts.packed import fingerprint
from burnish.types import Prompt

Encode = Callable[[Prompt], Sequence[int]]
"""A prompt's token ids, however many."""


def training_prompts(config: RunConfig, encode: Encode, positions: int | None) -> Loaded:
    """The prompts to train on, with the account of every row read.

    Args:
        positions: tokens that a sequence of the model may have.

    Raises:
        ValueError: the data has faults, fewer prompts than one step trains on, or prompts too long for the model.
    """
    data, wanted = config.data, config.sampling.prompts_per_step
    if data.train in tasks.TASKS:
        loaded = _of_task(data.train, "train", data.limit or tasks.TRAIN_POOL)
    else:
        loaded = _of_rows(config, data.train, encode, split=data.split, limit=data.limit)
    if len(loaded.prompts) < wanted:
        raise ValueError(
            f"each step needs {wanted} prompts, and {data.train} has {len(loaded.prompts)}. "
            f"Type sampling.prompts_per_step={len(loaded.prompts)} train.updates_per_step=1, or give more data"
        )
    _require_room(config, loaded, encode, positions)
    return loaded


def heldout_prompts(config: RunConfig, encode: Encode, positions: int | None) -> tuple[str, Loaded] | None:
    """Suite name and the prompts to evaluate on; None when nothing is held out.

    Raises:
        ValueError: the data has faults, or prompts too long for the model.
    """
    source = config.eval.data or (config.data.train if config.data.train in tasks.TASKS else None)
    if source is None:
        return None
    if source in tasks.TASKS:
        suite, loaded = source, _of_task(source, "heldout", config.eval.prompts)
    else:
        suite = Path(source).stem
        loaded = _of_rows(config, source, encode, split="test", limit=config.eval.prompts)
    _require_room(config, loaded, encode, positions)
    return suite, loaded


def _require_room(config: RunConfig, loaded: Loaded, encode: Encode, positions: int | None) -> None:
    """Every prompt must leave the model room for a completion. Asked before anything starts: the engine would find
    out when it meets such a prompt, which may be hours later."""
    encode(loaded.prompts[0])  # can it be rendered at all?
    max_new_tokens = config.sampling.max_new_tokens
    if positions is None or config.data.max_prompt_tokens + max_new_tokens <= positions:
        return
    if max_new_tokens >= positions:
        raise ValueError(
            f"sampling.max_new_tokens={max_new_tokens} leaves no room for a prompt in the {positions:,} positions of "
            f"the model. Type sampling.max_new_tokens={positions // 2}"
        )
    lengths = Lengths(encode, positions - max_new_tokens)
    found = sum(lengths.is_overlong(prompt) for prompt in loaded.prompts)
    if found:
        room = positions - lengths.longest
        raise ValueError(
            f"{found:,} prompts of {loaded.report.source} leave no room for sampling.max_new_tokens={max_new_tokens}: "
            f"the model has {positions:,} positions and the longest prompt {lengths.longest:,} tokens (ids "
            f"{', '.join(lengths.ids)}). Type data.max_prompt_tokens={positions - max_new_tokens} "
            f"data.overlong_prompts=drop{f', or sampling.max_new_tokens={room}' if room > 0 else ''}"
        )


def _refuse_near_task(source: str) -> None:
    """A misspelt task would be looked for on a hub, for a long while where there is no network."""
    near = difflib.get_close_matches(source, tasks.TASKS, n=1, cutoff=0.75)
    if near and "/" not in source and not Path(source).exists():
        raise ValueError(
            f"{source!r} is neither a built-in task nor a file; did you mean {near[0]!r}? "
            f"Tasks: {', '.join(tasks.TASKS)}. A data set of a hub is written owner/name"
        )


def _of_task(name: str, split: tasks.Split, n: int) -> Loaded:
    prompts = tasks.task(name).sample(n, split)
    report = Report(f"task {name} ({split})", n, n, {}, (), fingerprint(prompts))
    return Loaded(prompts, report)


def _of_rows(config: RunConfig, source: str, encode: Encode, *, split: str, limit: int | None) -> Loaded:
    _refuse_near_task(source)
    data = config.data
    return load_prompts(
        source,
        split=split,
        limit=limit,
        prompt_column=data.columns.prompt,
        answer_column=data.columns.answer,
        id_column=data.columns.id,
        system=data.system,
        suffix=data.suffix,
        duplicates=data.duplicates,
        max_prompt_tokens=data.max_prompt_tokens,
        overlong_prompts=data.overlong_prompts,
        encode_whole=encode,
        needs_answer=config.reward.needs_answers,
    )
