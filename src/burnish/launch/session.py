"""A training run from its folder's point of view: what surrounds the loop, before, within and after it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from burnish import build, checkpoint
from burnish.build.reward import reward_parts
from burnish.config import RunConfig, resolved
from burnish.errors import StorageError, exit_code
from burnish.evaluate import evaluate
from burnish.launch import attempts, random_state
from burnish.launch.changes import rounding_note
from burnish.launch.facts import Recorded
from burnish.launch.identity import identity
from burnish.launch.origin import Origin
from burnish.launch.signals import Signals, Stopped
from burnish.launch.snapshot import of_config, of_content
from burnish.launch.told import gain, header, summary
from burnish.plots.curves import curves_png, reliability_png
from burnish.plots.parts import parts_png
from burnish.progress import Progress
from burnish.prompts.encoding import token_bytes
from burnish.protocols import Sink
from burnish.records import Evaluation, Event, ReliabilityBin
from burnish.rewards.faults import require_few_faults
from burnish.rewards.trial import try_out
from burnish.run_folder import RunFolder
from burnish.sinks.console import Console
from burnish.store import queries
from burnish.store.scores import scores_after
from burnish.store.sqlite import SQLiteStore, rename_run
from burnish.terminal import show
from burnish.train import Run, train
from burnish.types import Metrics

CHECK_EVERY = 50
"""Steps between two checks of what grades."""


class HeldOut(NamedTuple):
    """A value measured on held-out prompts, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Finished:
    """What a run leaves."""

    folder: Path
    model: Path
    """The last checkpoint, a directory in `save_pretrained` layout."""
    before: Mapping[str, HeldOut]
    """`avg@2`, `length`, ... on held-out prompts, with greedy decoding too; empty where nothing is held out."""
    after: Mapping[str, HeldOut]


@dataclass(frozen=True)
class Resume:
    """Where an earlier attempt left the run."""

    found: checkpoint.Found | None
    """None before the first checkpoint."""
    saved: Mapping[str, Any] | None
    """What the run depends on, as `origin.Origin` wrote it; None when the run ended before that."""
    allowed: Sequence[str] = ()
    """Keys of what may differ from it."""


@dataclass(frozen=True, slots=True)
class Boundary:
    """The run's own state between two steps. What a step changes before its first update is dropped by going back."""

    progress: Progress
    prompts: Mapping[str, Any]
    reward: Any
    random: Mapping[str, Any]


class Session:
    """Everything of one run that the loop does not know: folder, console, sinks, evaluation, checkpoints, summary.

    Use it as a context manager: leaving it writes what is queued and how the run ended.
    """

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        signals: Signals,
        swaps: build.Swaps = build.NOTHING,
        *,
        resume: Resume | None = None,
    ) -> None:
        self.config = config
        self.swaps = swaps
        self.folder = folder
        self.signals = signals
        self.console = Console(config.train.steps)
        self.evaluations: list[Evaluation] = []
        self.totals: Counter[str] = Counter()
        """Sums over the whole run, attempts before a resume included: seconds per phase, tokens."""
        self._attempt_opened = False
        self._restarts_reported = 0
        self._noticed: set[str] = set()
        self._saved: str | None = None
        """The checkpoint that holds all that was done so far."""
        self._resume = resume
        self.origin = Origin(
            folder, config, saved=resume.saved if resume else None, allowed=resume.allowed if resume else ()
        )
        self.origin.agree(of_config(config, swaps))  # before any code of others is run
        with ExitStack() as opened, signals.droppable():  # what is open is closed if the rest cannot be made
            self._open(opened)
            self._closing = opened.pop_all()

    def _open(self, opened: ExitStack) -> None:
        config, folder = self.config, self.folder
        self.parts = build.assemble(config, self.swaps)
        opened.callback(self.parts.upkeep.close)
        opened.callback(self.console.close)
        self.data = build.training_prompts(config, self.parts.encode.whole, self.parts.positions)
        self.held_out = build.heldout_prompts(config, self.parts.encode.whole, self.parts.positions)
        self.origin.agree(of_content(self.parts, self.data, self.held_out))
        self.parts.upkeep.check()
        self.remarks = self._try_out() if self.parts.notes else []
        if self._resume is None:
            folder.write_config(resolved(config))
            self.origin.write(0)
        self.signals.advice = f"continue with: {folder.resume_command}"
        if self.origin.copied_from and folder.store_path.is_file():
            rename_run(folder.store_path, self.origin.run_id)
        self.store = open_store(
            folder.store_path,
            config,
            self.parts,
            identity(config, self.data.report.fingerprint, run_id=self.origin.run_id),
            warn=self.console.note,
        )
        opened.callback(self.store.close)
        self.sinks: list[Sink] = []
        for sink in build.make_sinks(config, folder):
            opened.callback(sink.close)
            self.sinks.append(sink)
        self.run_state: Run = build.make_run(
            config,
            self.parts,
            self.data.prompts,
            self.store,
            after_step=self._after_step,
            phase=self.console.phase,
            notice=self._notice,
            droppable=self.signals.droppable,
            report=self._restarts,
        )
        self.statements = build.make_statements(config, self.parts, self.run_state.learner.logprobs)

    def _try_out(self) -> list[str]:
        return try_out(self.parts.reward, self.data.prompts, self.parts.upkeep)

    # -- the whole run -------------------------------------------------------------------------------------------------

    def _restore(self, resume: Resume) -> None:
        """Put back what the checkpoint holds, and make what was found what the next attempt is compared with."""
        run = self.run_state
        random_state.seed(self.config.seed)
        if resume.found is not None:
            state = resume.found.state
            run.learner.restore(resume.found.path)
            run.prompts.load_state_dict(state["prompts"])
            run.progress.load_state_dict(state["progress"])
            self.parts.upkeep.load_state_dict(state["reward"])
            random_state.load_state_dict(state["random"])
            self.totals.update(state["totals"])
            self.evaluations = [_evaluation(found) for found in state["evaluations"]]
            self._saved = resume.found.path.name
        self._take_recorded_scores()
        self.folder.write_config(resolved(self.config))
        self.origin.write(run.progress.step)

    def _take_recorded_scores(self) -> None:
        """Steps that are repeated are not graded again, unless they are meant to come out otherwise."""
        run = self.run_state
        changed = any(change.kind == "refused" for change in self.origin.changes)
        if changed or self.parts.upkeep.state_dict() is not None:
            return
        with closing(queries.open_store(self.folder.store_path)) as db:
            recorded = scores_after(db, run.progress.step)
        self.run_state = replace(run, reward=Recorded(run.reward, recorded))

    def run(self) -> None:
        """Evaluate, train to the last step, save, evaluate again and write the summary.

        Raises:
            Stopped: a signal came, and what was done is saved.
        """
        run = self.run_state
        if self._resume is None:
            random_state.seed(self.config.seed)
        else:
            self._restore(self._resume)
        if run.progress.step == run.plan.steps and self.folder.summary_path.exists():
            self.console.note(f"the run is complete: {run.progress.step} of {run.plan.steps} steps")
            return
        if self._resume:
            found = self._resume.found
            self.console.note(attempts.told(self.folder.store_path, found and found.path.name, run.progress.step))
        self.store.open_attempt(run.progress.step, config_diff=self.origin.diff())
        self._attempt_opened = True
        self._report_changes()
        self.console.header(
            header(self.config, self.parts, self.data.report, self.folder.path, held_out=self.held_out is not None)
        )
        if self.folder.note:
            self.console.note(self.folder.note)
        self._report_plugins()
        self._boundary = self._mark()
        try:
            self._to_the_end()
        except Exception as error:
            if self.begun:
                error.add_note(self._how_to_continue(error))
            raise

    def _to_the_end(self) -> None:
        try:
            self._evaluate_if_due()
            train(self.run_state)
            self._finish()
        except Stopped as stopped:
            stopped.line = self._stop(stopped)
            raise

    @property
    def begun(self) -> bool:
        """Whether there is anything to continue from: a step, or a checkpoint of none."""
        return self.run_state.progress.step > 0 or self._saved is not None

    @cached_property
    def finished(self) -> Finished:
        """What a run to its end left, in this attempt or an earlier one."""
        model = checkpoint.latest(self.folder.checkpoints_path)
        assert model is not None, "the last step saves"
        held_out = json.loads(self.folder.summary_path.read_text(encoding="utf-8"))["held_out"] or {}
        before, after = (
            {name: HeldOut(**found) for name, found in held_out.get(when, {}).items()} for when in ("before", "after")
        )
        return Finished(self.folder.path, model.path, before, after)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with self._closing:  # each is closed, whatever the others do
                if self._attempt_opened:
                    ended = None if error is None else f"{type(error).__name__}: {error}"
                    self.store.end_attempt(0 if error is None else exit_code(error), ended)
        except StorageError as fault:
            if error is None:
                fault.add_note(self._how_to_continue(fault))
                raise
            error.__notes__ = [str(fault), *getattr(error, "__notes__", ())]  # what ended the run is the error

    # -- within the loop -----------------------------------------------------------------------------------------------

    def _after_step(self, run: Run, metrics: Metrics) -> None:
        step, last = run.progress.step, run.progress.step == run.plan.steps
        self.totals.update({name: value for name, value in metrics.items() if name.startswith(("time/", "tokens/"))})
        self._write(step, metrics)
        self.console.step(step, metrics)
        self._boundary, self._saved = self._mark(), None
        self.signals.check()
        require_few_faults(metrics, most=self.config.reward.max_fault_rate)
        if step % CHECK_EVERY == 0:
            self.parts.upkeep.check()
        if not last:
            self._evaluate_if_due()
        every = self.config.checkpoint.every
        if last or (every and step % every == 0):
            self._save(may_fail=self.config.checkpoint.on_save_error == "continue" and not last)
        self.signals.check()

    def _restarts(self) -> Metrics:
        found = self.parts.upkeep.restarts
        before, self._restarts_reported = self._restarts_reported, found
        return {"rollouts/restarts": float(found - before)}

    def _notice(self, event: Event) -> None:
        """Show what is recorded, the first time that it happens: some things go on happening at every step."""
        if event.kind not in self._noticed:
            self._noticed.add(event.kind)
            self.console.note(f"{event.message}. {event.advice}" if event.advice else event.message)

    def _write(self, step: int, metrics: Metrics) -> None:
        for sink in self.sinks:
            sink.write(step, metrics)

    def _evaluate_if_due(self) -> None:
        """The evaluation that belongs to the last step done, unless it was made: a stop may have dropped it."""
        step, every = self.run_state.progress.step, self.config.eval.every
        made = any(evaluation.step == step for evaluation in self.evaluations)
        if not made and step < self.config.train.steps and (step == 0 or (every and step % every == 0)):
            self._evaluate(greedy=step == 0 and self.config.eval.greedy)

    def _evaluate(self, *, greedy: bool) -> None:
        if self.held_out is None:
            return
        run, (suite, loaded) = self.run_state, self.held_out
        # What a reward remembers and draws comes from training alone: an evaluation is not made again by a resume.
        remembered, drawn = self.parts.upkeep.state_dict(), random_state.state_dict()
        with run.clock("evaluate"), self.signals.droppable():
            step = run.progress.step
            run.engine.load(run.learner.publish(step))
            found = evaluate(
                run.engine,
                self.parts.reward,
                loaded.prompts,
                suite=suite,
                step=step,
                policy_version=step,
                samples=self.config.eval.samples,
                sampling=build.eval_sampling(self.config),
                seed=self.config.seed,
                greedy=greedy,
                statements=self.statements,
                progress=lambda done, total: self.console.phase("evaluating", done, total),
                end_grading=self.parts.end_grading,
            )
        self.parts.upkeep.load_state_dict(remembered)
        random_state.load_state_dict(drawn)
        self.evaluations.append(found)
        self._saved = None
        self.store.record_evaluation(found)
        self._write(step, {f"eval/{suite}/{name}": value for name, (value, _, _) in found.values.items()})
        self.console.evaluation(step, found.values)

    def _save(self, *, may_fail: bool = False) -> None:
        """Save where the run stood after its last step. `may_fail`: what cannot be written is said, and no error."""
        step = self._boundary.progress.step
        with self.run_state.clock("checkpoint"):
            self.store.flush()  # a run must not continue from a step that its record lacks
            try:
                self._saved = self._write_checkpoint().name
            except StorageError as error:
                if not may_fail:
                    raise
                self.run_state.tell(Event("save", f"{error}; the run goes on", severity=3, step=step))

    def _write_checkpoint(self) -> Path:
        run, boundary = self.run_state, self._boundary
        return checkpoint.save(
            self.folder.checkpoints_path,
            boundary.progress.step,
            write=run.learner.save,
            state={
                "progress": boundary.progress.state_dict(),
                "prompts": boundary.prompts,
                "reward": boundary.reward,
                "random": boundary.random,
                "origin": self.origin.state_dict(),
                "totals": dict(self.totals),
                "evaluations": [_without_items(evaluation) for evaluation in self.evaluations],
            },
            keep=self.config.checkpoint.keep,
            warn=self.console.note,
        )

    def _mark(self) -> Boundary:
        run, upkeep = self.run_state, self.parts.upkeep
        return Boundary(replace(run.progress), run.prompts.state_dict(), upkeep.state_dict(), random_state.state_dict())

    # -- the end before the end ----------------------------------------------------------------------------------------

    def _stop(self, stopped: Stopped) -> str:
        """Save what is not saved; the last line that a person reads."""
        saved = f"{self._saved} has it all"
        if self._saved is None:
            started = time.perf_counter()
            self._save()
            saved = f"saved {self._saved} in {time.perf_counter() - started:.1f} s"
        at = f"stopped by {stopped.signal.name} at step {self._boundary.progress.step}"
        return f"{at}; {saved}; continue with: {self.folder.resume_command}"

    def _how_to_continue(self, error: Exception) -> str:
        command = self.folder.resume_command
        if isinstance(error, StorageError):
            return f"when it can be written again, continue with: {command}"
        return f"{checkpoint.last_good(self.folder.checkpoints_path)}; continue with: {command}"

    # -- before and after ----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._evaluate(greedy=self.config.eval.greedy)
        self.store.flush()
        curves_png(self.folder.store_path, self.folder.curves_path)
        if pair := self.config.reward.pair:
            parts_png(self.folder.store_path, self.folder.parts_path, pair=pair)
        if self.evaluations and self.evaluations[-1].reliability:
            reliability_png((self.evaluations[0], self.evaluations[-1]), self.folder.reliability_path)
        done = summary(
            self.config, self.run_state.progress, self.evaluations, self.totals, self.data.report.fingerprint
        )
        self.folder.write_summary(done)  # last, since it says that the run is complete
        self.console.close()
        lines = [
            f"model   {self.finished.model}",
            f"curves  {self.folder.curves_path}",
            f"record  {self.folder.store_path}",
        ]
        show("\n".join([*gain(self.evaluations), *lines]))

    def _report_changes(self) -> None:
        """What is other than in the attempts before: on the console and in the record."""
        origin = self.origin
        if origin.copied_from:
            self._tell("copy", f"this folder is a copy of run {origin.copied_from}; from now on it is {origin.run_id}")
        if warning := rounding_note(origin.changes):
            self._tell("environment", warning, severity=2)
        for change in origin.changes:
            if change.kind == "refused":
                self._tell("change", f"allowed: {change}", severity=2)

    def _tell(self, kind: str, message: str, *, severity: int = 1) -> None:
        self.console.note(message)
        self.store.record_event(Event(kind, message, severity=severity, step=self.run_state.progress.step))

    def _report_plugins(self) -> None:
        for note in self.parts.notes:
            self.store.record_event(Event("plugin", note))
        for remark in self.remarks:
            self.console.note(remark)
            self.store.record_event(Event("reward", remark, severity=2))


def open_store(
    path: Path, config: RunConfig, parts: build.Parts, run: Mapping[str, Any], *, warn: Callable[[str], None]
) -> SQLiteStore:
    """The store of a run of this config. `run`: its identity."""
    return SQLiteStore(
        path,
        run=run,
        parts={} if parts.swaps.reward else reward_parts(config),
        raw_range=(config.reward.wrong, config.reward.right),
        seed=config.seed,
        token_bytes=token_bytes(parts.tokenizer),
        max_bytes=config.store.max_bytes,
        token_groups=config.store.token_groups,
        warn=warn,
    )


def _without_items(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "step": evaluation.step,
        "suite": evaluation.suite,
        "values": evaluation.values,
        "reliability": [asdict(found) for found in evaluation.reliability],
    }


def _evaluation(found: Mapping[str, Any]) -> Evaluation:
    values = {name: tuple(value) for name, value in found["values"].items()}
    bins = tuple(ReliabilityBin(**each) for each in found["reliability"])
    return Evaluation(found["step"], found["suite"], values, (), bins)
