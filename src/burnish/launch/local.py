"""One process, one machine: everything around the loop that a command does.

`start` and `resume` prepare a run folder, evaluate, train with checkpoints, evaluate again, and leave a summary and a
picture of the curves. `evaluate_once`, `generate_once` and `print_token_ids` are the commands without training.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
import yaml

from burnish import build, checkpoint, seeds
from burnish.base.confidence import teach_confidence
from burnish.confidence.setup import describe
from burnish.confidence.tag import Tag
from burnish.confidence.tokens import decision, decoder, encoder
from burnish.config import Confidence, RunConfig, resolved
from burnish.errors import ResumeError
from burnish.evaluate import evaluate, table
from burnish.launch.identity import folder_of
from burnish.launch.replay import Replay
from burnish.launch.session import Finished, Resume, Session
from burnish.launch.signals import GRACE_SECONDS, Signals, Stopped
from burnish.masking import masked_keys
from burnish.models import load_model, load_tokenizer
from burnish.overrides import validate
from burnish.plots.curves import reliability_png
from burnish.protocols import Publication
from burnish.run_folder import RunFolder
from burnish.sinks.console import Console
from burnish.terminal import printable, show
from burnish.trees import Tree
from burnish.types import Prompt, Request


def start(config: RunConfig, swaps: build.Swaps = build.NOTHING, *, grace: float = GRACE_SECONDS) -> Finished:
    """A new run in a new folder.

    A run that ends before its first step leaves nothing behind, so that the corrected command can run.

    Args:
        grace: seconds that a signal leaves for finishing and saving.

    Raises:
        Stopped: a signal came.
    """
    _use_threads(config)
    session = None
    with Signals(grace) as signals, RunFolder.open_new(folder_of(config)) as folder:
        try:
            with Session(config, folder, signals, swaps) as session:
                session.run()
                return session.finished
        except (Exception, Stopped):
            if session is None or not session.begun:
                folder.clear()
            raise


def resume(
    path: Path,
    swaps: build.Swaps = build.NOTHING,
    *,
    revise: Callable[[Tree], RunConfig] = validate,
    allowed: Sequence[str] = (),
    grace: float = GRACE_SECONDS,
) -> Finished:
    """Continue the run in `path` from its newest whole checkpoint, or from its start when it has none yet.

    Args:
        revise: the folder's configuration -> the one to continue with.
        allowed: keys, or sections of them, that may differ from what the run was started with.

    Raises:
        ResumeError: something differs that may not, no checkpoint is whole, or the record is gone.
        Stopped: a signal came.
    """
    with Signals(grace) as signals, RunFolder.open_existing(path) as folder:
        if checkpoint.steps_on_disk(folder.checkpoints_path) and not folder.store_path.exists():
            raise ResumeError(
                f"{folder.path} has checkpoints, and its record {folder.store_path.name} is gone. Put it back, or type "
                f"`burnish store rebuild {path}` to make it again from metrics.jsonl, and then resume"
            )
        config = _continued(folder, revise)
        for note in checkpoint.clean(folder.checkpoints_path):
            show(note)
        found = checkpoint.latest(folder.checkpoints_path)
        for sentence in found.rejected if found else ():
            show(sentence)
        saved = folder.read_run() or (found and found.state["origin"])
        with Session(config, folder, signals, swaps, resume=Resume(found, saved, allowed)) as session:
            session.run()
            return session.finished


def verify(
    path: Path,
    swaps: build.Swaps = build.NOTHING,
    *,
    revise: Callable[[Tree], RunConfig] = validate,
    allowed: Sequence[str] = (),
) -> None:
    """Replay one recorded step of the run in `path`, compare it with the record, and print what was compared.

    Raises:
        ResumeError: it differs; or no recorded step can be replayed; or as `resume`.
    """
    with RunFolder.open_existing(path) as folder:
        config = _continued(folder, revise)
        with Replay(config, folder, swaps, allowed) as replay:
            replay.run()


def _continued(folder: RunFolder, revise: Callable[[Tree], RunConfig]) -> RunConfig:
    config = revise(folder.read_config())
    if gone := masked_keys(resolved(config)):
        again = " ".join(f"{key}=VALUE" for key in gone)
        raise ValueError(f"no folder keeps secrets. Type it again: burnish train --resume {folder.path} {again}")
    _use_threads(config)
    return config


def evaluate_once(config: RunConfig, json_path: Path | None, reliability_path: Path | None) -> None:
    """Evaluate the model on its held-out prompts and print the table.

    Raises:
        ValueError: a reliability plot is asked for, and no confidence is measured.
    """
    if reliability_path and not config.confidence:
        raise ValueError("--reliability draws stated confidence, and none is read. Type confidence.train=false")
    _use_threads(config)
    console = Console(0)
    parts = build.assemble(config, progress=lambda done, total: console.phase("evaluating", done, total))
    held_out = build.heldout_prompts(config, parts.encode.whole, parts.positions)
    assert held_out is not None, "`burnish eval` names its data"
    suite, loaded = held_out
    console.header(str(loaded.report).splitlines())
    parts.upkeep.check()
    parts.engine.load(Publication(0, parts.model))
    found = evaluate(
        parts.engine,
        parts.reward,
        loaded.prompts,
        suite=suite,
        step=0,
        policy_version=0,
        samples=config.eval.samples,
        sampling=build.eval_sampling(config),
        seed=config.seed,
        greedy=config.eval.greedy,
        statements=build.make_statements(config, parts),
        end_grading=parts.end_grading,
    )
    parts.upkeep.close()
    console.close()
    show("\n".join(table(found)))
    if reliability_path is not None:
        reliability_png((found,), reliability_path)
    if json_path is not None:
        rows = [asdict(item) | {"prompt": item.prompt.id} for item in found.items]
        json_path.write_text(json.dumps({"suite": suite, "values": found.values, "items": rows}, indent=1))


def print_token_ids(config: RunConfig) -> None:
    """Print which tokens the two words of confidence are, and the configuration to paste.

    Raises:
        ValueError: the tokenizer cannot tell the two words apart.
    """
    chosen = config.confidence or Confidence()
    tag, tokenizer = Tag(chosen.tag, chosen.high, chosen.low), load_tokenizer(config)
    found = decision(tag, encoder(tokenizer), decoder(tokenizer))
    settled = chosen.model_copy(update={"high_token_id": found.high_id, "low_token_id": found.low_id})
    lines = yaml.safe_dump({"confidence": settled.model_dump(mode="json")}, sort_keys=False).splitlines()
    ids = f"confidence.high_token_id={found.high_id} confidence.low_token_id={found.low_id}"
    shown = [*describe(tokenizer, tag, found), "", "In a configuration file:", "", *lines, "", f"As overrides: {ids}"]
    show("\n".join(shown))


def teach_once(config: RunConfig, task: str, out: Path, *, seed: int) -> None:
    """Teach a base of a built-in task to state its confidence, and write it to `out`."""
    model, _ = load_model(config)
    teach_confidence(task, model, out, taken_from=config.model.path, seed=seed, report=print)


def generate_once(config: RunConfig, prompt: str, n: int) -> None:
    """Print `n` completions of one prompt, control characters shown as escapes."""
    _use_threads(config)
    parts = build.assemble(config)
    parts.engine.load(Publication(0, parts.model))
    asked = Prompt("prompt", messages=({"role": "user", "content": prompt + config.data.suffix},))
    request = Request(0, asked, tuple(seeds.sample_seed(config.seed, 0, asked.id, 0, i) for i in range(n)))
    for _, completions in parts.engine.generate([request], build.training_sampling(config)):
        for index, completion in enumerate(completions):
            length = f"{len(completion.token_ids)} tokens, {completion.finish_reason}"
            show(f"--- {index + 1} of {n} ({length})\n{printable(completion.text)}")


def _use_threads(config: RunConfig) -> None:
    if config.train.threads is not None:
        torch.set_num_threads(config.train.threads)
