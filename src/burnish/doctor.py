"""`burnish doctor`: everything that a run checks before its first step, without the run; and all of it at once.

Each check is the function that training itself calls; here an error becomes a finding, and what does not depend on it
is still looked at. What only a doctor asks comes on top: whether gold answers score high and junk low, how near the
prompts are to their limit, what memory and disk it will take.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from burnish import build
from burnish.build import memory
from burnish.config import RunConfig, resolved
from burnish.errors import BUG, exit_code
from burnish.launch.identity import folder_of
from burnish.masking import secret_keys
from burnish.models import device, load_model, load_tokenizer, skeleton
from burnish.objective import Objective
from burnish.prompts.datasets import Loaded
from burnish.prompts.rows import in_full
from burnish.protocols import Publication
from burnish.rewards.trial import Trial, grade_gold, try_out
from burnish.rollout import kernels
from burnish.run_folder import RunFolder
from burnish.terminal import printable_lines
from burnish.types import Prompt

T = TypeVar("T")
Level = Literal["ok", "note", "warning", "fault"]

LENGTHS_READ = 1000
"""Prompts, from all over the data, whose length is taken."""
NEAR = 0.9
"""Share of the limit from which a prompt is near it."""
SHOWN_IDS = 3


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    level: Level
    """`fault`: training would stop, or learn nothing. `warning`: it would run, and hardly as meant."""
    message: str


@dataclass
class Diagnosis:
    findings: list[Finding] = field(default_factory=list)
    memory: list[memory.Need] = field(default_factory=list)
    free: int | None = None
    """Bytes of memory."""

    @property
    def is_fit(self) -> bool:
        """Whether training would start."""
        return all(finding.level != "fault" for finding in self.findings)

    def add(self, check: str, level: Level, message: str) -> None:
        finding = Finding(check, level, message)
        if finding.message not in {known.message for known in self.findings}:  # several checks may meet one cause
            self.findings.append(finding)

    def attempt(self, check: str, call: Callable[[], T]) -> T | None:
        """What `call` returns; None when it refuses, which is then a finding."""
        try:
            return call()
        except Exception as error:
            if exit_code(error) == BUG:
                raise
            self.add(check, "fault", in_full(error))
            return None

    def lines(self) -> Iterator[str]:
        """For people: a line per finding, and memory as a table."""
        for finding in self.findings:
            first, *more = printable_lines(finding.message).split("\n")
            yield f"{finding.level:8} {finding.check:10} {first}"
            yield from (f"{'':19} {line}" for line in more)
        if self.memory:
            yield "memory in MB"
            yield from (f"  {need.num_bytes / 1e6:12,.1f}  {need.when:10}  {need.what}" for need in self.memory)
            yield f"  {memory.peak(self.memory) / 1e6:12,.1f}  at most"
            yield "  free is unknown" if self.free is None else f"  {self.free / 1e6:12,.1f}  free"

    def as_json(self) -> str:
        peak = memory.peak(self.memory) if self.memory else None
        about_memory = {"needs": [asdict(need) for need in self.memory], "peak": peak, "free": self.free}
        tree = {"ok": self.is_fit, "findings": [asdict(f) for f in self.findings], "memory": about_memory}
        return json.dumps(tree, indent=1)


def examine(config: RunConfig) -> Diagnosis:
    """Look at everything that `burnish train` with this config would meet before its first step."""
    found = Diagnosis()
    _place(found, config)
    tokenizer = found.attempt("tokenizer", lambda: load_tokenizer(config))
    shapes = found.attempt("model", lambda: skeleton(config))
    encode = build.make_encoder(config, tokenizer).whole if tokenizer else _of_no_length
    loaded = _data(found, config, encode, build.positions_of(shapes) if shapes else None)
    prompts = loaded.prompts if loaded else ()
    longest = _lengths(found, config, prompts, encode) if tokenizer else 0
    _reward(found, config, prompts)
    if tokenizer and shapes:
        objective = found.attempt("method", lambda: build.trained_objective(config, shapes, tokenizer, prompts))
        fits = _memory(found, config, shapes, longest, needs_reference=bool(objective and objective.needs_reference))
        _disk(found, config, shapes)
        if fits:
            _model(found, config, tokenizer, objective)
    _arithmetic(found, config, len(prompts))
    return found


def _of_no_length(_: Prompt) -> tuple[int, ...]:
    """Stands for a tokenizer that cannot be loaded, so that the rows can be looked at all the same."""
    return ()


def _place(found: Diagnosis, config: RunConfig) -> None:
    folder = found.attempt("folder", lambda: RunFolder.require_new(folder_of(config)))
    if folder is not None:
        found.add("folder", "ok", f"{folder} is free")
    found.attempt("sinks", lambda: build.require_sinks(config))
    for key in secret_keys(resolved(config)):
        message = f"{key} looks like a secret: it will not be saved, and has to be typed again at a resume"
        found.add("secrets", "note", f"{message}. Or have the function read it from the environment")


def _data(found: Diagnosis, config: RunConfig, encode: build.Encode, positions: int | None) -> Loaded | None:
    loaded = found.attempt("data", lambda: build.training_prompts(config, encode, positions))
    if loaded is not None:
        found.add("data", "ok", str(loaded.report))
    for held_out in found.attempt("eval data", lambda: [build.heldout_prompts(config, encode, positions)]) or ():
        if held_out is not None:
            found.add("eval data", "ok", str(held_out[1].report))
            continue
        found.add("eval data", "warning", "nothing is held out, so accuracy is not measured. Type eval.data=FILE")
    return loaded


def _lengths(found: Diagnosis, config: RunConfig, prompts: Sequence[Prompt], encode: build.Encode) -> int:
    """Tokens of the longest prompt looked at, as it is trained on; the limit where none could be."""
    limit = config.data.max_prompt_tokens
    if not prompts:
        return limit
    read = prompts[:: max(len(prompts) // LENGTHS_READ, 1)][:LENGTHS_READ]
    lengths = found.attempt("lengths", lambda: sorted(min(len(encode(prompt)), limit) for prompt in read))
    if lengths is None:
        return limit
    num_near = sum(length > NEAR * limit for length in lengths)
    told = f"prompts of {lengths[len(lengths) // 2]:,} tokens (median) to {lengths[-1]:,}, at most {limit:,} are read"
    if num_near:
        more = (
            f"; {num_near / len(lengths):.1%} of them above {NEAR:.0%} of that. Type data.max_prompt_tokens={2 * limit}"
        )
        found.add("lengths", "warning", told + more)
    else:
        found.add("lengths", "ok", told)
    return lengths[-1]


# -- the reward -------------------------------------------------------------------------------------------------------


def _reward(found: Diagnosis, config: RunConfig, prompts: Sequence[Prompt]) -> None:
    made = found.attempt("reward", lambda: build.graded(config, build.NOTHING))
    if made is None:
        return
    reward, upkeep, notes = made
    with closing(upkeep):
        found.attempt("reward", upkeep.check)
        for note in notes:
            found.add("reward", "note", note)
        for remark in (found.attempt("reward", lambda: try_out(reward, prompts, upkeep)) if notes else None) or ():
            found.add("reward", "warning", remark)
        trial = found.attempt("reward", lambda: grade_gold(reward, prompts))
    if trial is not None:
        found.add("reward", *_verdict(config, trial))


def _verdict(config: RunConfig, trial: Trial) -> tuple[Level, str]:
    """Gold must score high and junk low: entirely where an answer is compared, on average elsewhere."""
    told = (
        f"of {trial.prompts} gold answers {trial.gold} are right (mean {trial.gold_mean:.3g}), of as much junk "
        f"{trial.junk} (mean {trial.junk_mean:.3g}), {trial.ms:.1f} ms each"
    )
    if trial.faults:
        fails = config.reward.on_fault == "fail"
        fix = "Type reward.on_fault=drop to leave such out" if fails else "Such completions are no measure of anything"
        return "fault" if fails else "warning", f"{told}; grading failed with {trial.faults[0]}. {fix}"
    if not config.reward.needs_answers:
        if trial.gold_mean > trial.junk_mean:
            return "ok", told
        return "warning", f"{told}: the reward does not tell them apart, which is fine only if it reads no answers"
    if trial.junk:
        return "fault" if 2 * trial.junk > trial.prompts else "warning", f"{told}: junk must not be right"
    if trial.refused:
        shown = ", ".join(map(repr, trial.refused[:SHOWN_IDS]))
        level: Level = "fault" if 2 * trial.gold < trial.prompts else "warning"
        return level, f"{told}; not right is that of {shown}. Type reward.style=auto, or correct data.columns.answer"
    return "ok", told


# -- model, memory, disk ----------------------------------------------------------------------------------------------


def _memory(
    found: Diagnosis, config: RunConfig, shapes: PreTrainedModel, longest: int, *, needs_reference: bool
) -> bool:
    """Whether the model can be loaded at all."""
    place = found.attempt("device", lambda: device(config.model.device))
    if place is None:
        return False
    found.memory = memory.needs(config, shapes, longest_prompt=longest, needs_reference=needs_reference)
    found.free = free = memory.free_memory(place)
    peak, least = memory.peak(found.memory), memory.persistent(found.memory)
    told = f"about {peak / 1e9:.2f} GB on {place}"
    if free is None or peak <= free:
        found.add("memory", "ok", told)
    elif least <= free:
        found.add(
            "memory",
            "warning",
            f"{told}, and {free / 1e9:.2f} GB are free. Type sampling.slots={max(config.sampling.slots // 2, 1)}, "
            f"train.tokens_per_piece={memory.tokens_per_piece(config) // 2} or model.gradient_checkpointing=true",
        )
    else:
        found.add(
            "memory",
            "fault",
            f"weights, gradients and optimiser alone take {least / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free on "
            f"{place}. Type model.path= of a smaller model",
        )
        return False
    return True


def _disk(found: Diagnosis, config: RunConfig, shapes: PreTrainedModel) -> None:
    """One more checkpoint than is kept must fit: the oldest goes when the newest is whole."""
    folder = folder_of(config).resolve()
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free, needed = shutil.disk_usage(place).free, (config.checkpoint.keep + 1) * memory.checkpoint_bytes(shapes)
    told = (
        f"{config.checkpoint.keep + 1} checkpoints take {needed / 1e9:.2f} GB, {free / 1e9:.2f} GB are free in {place}"
    )
    found.add(
        "disk", "ok" if needed <= free else "fault", told if needed <= free else f"{told}. Type out=ELSEWHERE/run"
    )


def _model(
    found: Diagnosis, config: RunConfig, tokenizer: PreTrainedTokenizerBase, objective: Objective | None
) -> None:
    """Load the weights, and have engine and learner compare themselves with a plain forward pass."""
    loaded = found.attempt("model", lambda: load_model(config))
    if loaded is None:
        return
    model, _ = loaded
    found.add("model", "ok", f"{config.model.path}: {type(model).__name__}, {model.num_parameters():,} parameters")
    if config.model.trust_remote_code:
        found.add("model", "warning", "model.trust_remote_code=true: Python code of the model's directory runs as you")
    encode = build.make_encoder(config, tokenizer)
    engine = found.attempt("tokenizer", lambda: build.make_engine(config, model, tokenizer, encode))
    if engine is not None:
        found.add("tokenizer", "ok", f"completions end at {_named(tokenizer, engine.eos_ids)}")
        found.attempt("engine", lambda: engine.load(Publication(0, model)))
        missing = kernels.why_not() if model.device.type == "cpu" else None
        if missing:
            found.add("engine", "note", f"completions are drawn by torch alone, at about half the rate: {missing}")
    if objective is not None:
        found.attempt("learner", lambda: build.make_learner(config, model, tokenizer, objective))


def _named(tokenizer: PreTrainedTokenizerBase, ids: frozenset[int]) -> str:
    return ", ".join(f"{tokenizer.convert_ids_to_tokens(i)!r} ({i})" for i in sorted(ids))


def _arithmetic(found: Diagnosis, config: RunConfig, num_prompts: int) -> None:
    sampling, train = config.sampling, config.train
    rollouts = sampling.prompts_per_step * sampling.group_size
    updates = train.updates_per_step * train.epochs
    passes = (
        f", {train.steps * sampling.prompts_per_step / num_prompts:.2g} passes over the data" if num_prompts else ""
    )
    found.add(
        "batch",
        "ok",
        f"{train.steps} steps of {sampling.prompts_per_step} prompts x {sampling.group_size} completions = "
        f"{rollouts:,} rollouts -> {updates} updates of {rollouts // train.updates_per_step:,}{passes}",
    )
    threads, cores = train.threads or torch.get_num_threads(), os.cpu_count() or 1
    told = f"{threads} CPU threads on {cores} cores"
    more = f". Type train.threads={cores}"
    found.add("threads", "ok" if threads <= cores else "warning", told if threads <= cores else told + more)
