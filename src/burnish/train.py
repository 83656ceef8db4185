"""The loop: collect groups, update on them, publish the weights, record.

`train` is the product in forty lines. `collect` samples prompts, generates, scores and filters until the step's batch
is full (DAPO's dynamic sampling); `update` makes the step's optimiser updates on whole mini-batches. Everything slow,
remote or replaceable is behind the seams of `protocols.py`, so this file is the same on one process and on many.

Vocabulary: a step is one turn of the loop; a round is one generation within it; an update is one optimiser step.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from burnish import seeds
from burnish.batch import Batch, Credit, Prepared, collate, spread
from burnish.errors import TrainingError
from burnish.grading import Grading
from burnish.objective import Objective
from burnish.progress import Progress
from burnish.protocols import GroupFilter, Learner, PromptSampler, Reward, RolloutEngine, Store
from burnish.records import Event, StepRecord
from burnish.step_metrics import rollup, throughput
from burnish.timing import Clock
from burnish.trace import Updates
from burnish.types import Group, Judged, Metrics, Request, Rollout, Sampling
from burnish.watch import not_finite, nothing_trains, pass_rates, past_threshold

if TYPE_CHECKING:
    from torch import Tensor

MAX_EMPTY_STEPS = 3
"""Steps in a row without a single group to train on, after which a run stops; before its first update, one does."""
MAX_SKIPPED_UPDATES = 3
"""Updates in a row with numbers that are not finite, after which a run stops."""


class ExhaustedError(TrainingError):
    """The generation rounds of a step were used up before its batch was full, and the run was told to stop then."""


@dataclass(frozen=True)
class Plan:
    """The sizes of a run, plain numbers."""

    steps: int
    prompts_per_step: int
    group_size: int
    updates_per_step: int
    epochs: int
    max_rounds: int
    on_exhausted: str
    """`train` on what there is, `skip` the step, or `error`."""
    keep_surplus: bool
    sampling: Sampling
    seed: int


@dataclass(frozen=True)
class Run:
    """Everything one run is made of. `build.py` makes it from a config; tests make it from fakes."""

    plan: Plan
    engine: RolloutEngine
    learner: Learner
    reward: Reward
    objective: Objective
    prompts: PromptSampler
    admit: GroupFilter
    store: Store
    after_step: Callable[[Run, Metrics], None] = lambda run, metrics: None
    """Called when a step is recorded: evaluation, checkpoints, sinks, progress."""
    phase: Callable[[str, int, int], None] = lambda name, done, total: None
    """Called within a step: what is under way, how much is done, of how much."""
    notice: Callable[[Event], None] = lambda event: None
    """Called with what a person should hear of at once, and not only find in the record."""
    droppable: Callable[[], AbstractContextManager[None]] = nullcontext
    """Open around generation: until its first update a step can be dropped, and made again as it was."""
    end_grading: Callable[[], None] | None = None
    """Ends a call of the reward that another thread is in. Given, groups are graded while the engine goes on with the
    others; None: the reward must be called in the thread of the loop, between two results of the engine."""
    report: Callable[[], Metrics] = dict
    """What else came to light since it was last called, for the metrics of the step."""
    progress: Progress = field(default_factory=Progress)
    clock: Clock = field(default_factory=Clock)

    def tell(self, event: Event) -> None:
        """Record what a person should know, and say it."""
        self.store.record_event(event)
        self.notice(event)


def train(run: Run) -> None:
    """Run the remaining steps.

    Raises:
        ExhaustedError: a step could not be filled and the plan says `error`, or several steps had no group at all.
        TrainingError: several updates in a row had numbers that are not finite.
    """
    run.engine.load(run.learner.publish(run.progress.step))
    run.clock.lap()
    while run.progress.step < run.plan.steps:
        take_step(run)


def take_step(run: Run) -> None:
    """One turn of the loop. The engine holds the weights that it begins with, and afterwards those that it made."""
    started = time.time()
    judged = collect(run)
    updates = update(run, [j.group for j in judged if j.outcome == "admitted"])
    run.progress.step += 1
    with run.clock("publish"):
        run.engine.load(run.learner.publish(run.progress.step))
    metrics = rollup(judged) | run.prompts.report() | updates.metrics() | run.clock.lap()
    metrics |= run.report() | {"updates": float(run.progress.updates)}
    metrics |= throughput(metrics)
    for event in past_threshold(run.progress.step, metrics):
        run.tell(event)
    with run.clock("record"):
        run.store.record(_record(run, started, judged, updates, metrics))
    run.after_step(run, metrics)


def collect(run: Run) -> list[Judged]:
    """Generate and judge groups until the step's batch is full or its rounds are used up.

    Returns the generated groups with their outcomes in dispatch order: which groups fill the batch never depends on
    which finished first. Backfill rounds ask for the shortage divided by the share admitted so far. Surplus groups
    that the next step starts with are returned by that step.
    """
    plan, progress = run.plan, run.progress
    judged = [Judged(group, "admitted", 0) for group in progress.surplus]
    draws: Counter[str] = Counter()
    for round_ in range(plan.max_rounds):
        wanted = _wanted(plan.prompts_per_step, judged)
        if wanted == 0:
            break
        groups = _rollouts(run, _requests(run, wanted, draws))
        judged += [Judged(group, run.admit(group), round_) for group in groups]
    admitted = [j for j in judged if j.outcome == "admitted"]
    if len(admitted) < plan.prompts_per_step:
        return _exhausted(run, judged, len(admitted))
    surplus = {j.group.id for j in admitted[plan.prompts_per_step :]}
    if plan.keep_surplus and progress.step + 1 < plan.steps:
        progress.surplus = [j.group for j in judged if j.group.id in surplus]
        return [j for j in judged if j.group.id not in surplus]
    progress.surplus = []
    return [replace(j, outcome="surplus") if j.group.id in surplus else j for j in judged]


def update(run: Run, groups: Sequence[Group]) -> Updates:
    """Make the step's updates: every epoch passes over all groups in mini-batches of whole groups.

    The old log-probabilities are the engine's, or the learner's own where the objective wants them; either way they are
    those from before the first update, so all updates after the first are off-policy, as PPO's are.
    """
    plan, made = run.plan, Updates(run.objective)
    size = plan.prompts_per_step // plan.updates_per_step
    step = spread(groups)
    minibatches = [groups[start : start + size] for start in range(0, len(groups), size)]
    olds, credits = _own_logprobs(run, minibatches), _credits(run, minibatches)
    for epoch in range(plan.epochs):
        done = epoch * len(groups)
        for index, (minibatch, old_N, credit) in enumerate(zip(minibatches, olds, credits, strict=True)):
            with run.clock("learn"):
                batch = collate(minibatch, step=step, old_logprobs_N=old_N, credit=credit, mark=run.objective.mark)
                fresh = not (epoch or index) and all(
                    r.completion.policy_version == run.progress.step for g in minibatch for r in g.rollouts
                )
                prepared = run.objective.prepare(batch, _current(run, batch, fresh=fresh))
                _update_once(run, made, minibatch, prepared, fresh=fresh)
            done += len(minibatch)
            run.phase("learning", done, plan.epochs * len(groups))
    return made


def _update_once(run: Run, made: Updates, groups: Sequence[Group], prepared: Prepared, *, fresh: bool) -> None:
    """One update, unless it would train nothing or with numbers that are not finite: then it is left out, and said."""
    step = run.progress.step + 1
    if not prepared.trains:
        run.tell(nothing_trains(step, prepared))
        return
    seen = run.learner.forward_backward(prepared)
    stepped = run.learner.step()
    made.add(groups, prepared, seen, stepped, same_policy=fresh)
    if not stepped["update/skipped"]:
        run.progress.updates += 1
        run.progress.skipped_updates = 0
        return
    fault = not_finite(step, run.learner.not_finite(), groups, prepared, seen)
    run.tell(fault)
    run.progress.skipped_updates += 1
    if run.progress.skipped_updates == MAX_SKIPPED_UPDATES:
        raise TrainingError(f"{MAX_SKIPPED_UPDATES} updates in a row were left out: {fault.message}. {fault.advice}")


def _own_logprobs(run: Run, minibatches: Sequence[Sequence[Group]]) -> list[Tensor | None]:
    """The learner's own log-probabilities of each mini-batch before the first update, if the objective wants them."""
    if not run.objective.needs_old:
        return [None] * len(minibatches)
    with run.clock("learn"):
        return [run.learner.logprobs(collate(minibatch)) for minibatch in minibatches]


def _credits(run: Run, minibatches: Sequence[Sequence[Group]]) -> Sequence[Credit | None]:
    """The credit of each mini-batch by the values before the first update, if the objective has a value head."""
    if run.objective.credit is None or not minibatches:
        return [None] * len(minibatches)
    with run.clock("learn"):
        batches = [collate(minibatch) for minibatch in minibatches]
        return run.objective.credit(batches, [run.learner.values(batch) for batch in batches])


def _current(run: Run, batch: Batch, *, fresh: bool) -> Tensor | None:
    """Log-probabilities under the current weights, if the objective wants them. `fresh`: these weights sampled."""
    if not run.objective.needs_current:
        return None
    return batch.old_logprobs_N if fresh else run.learner.logprobs(batch)


def _requests(run: Run, n: int, draws: Counter[str]) -> list[Request]:
    """Requests for the next `n` prompts. The same prompt drawn twice in a step makes two groups with other seeds."""
    requests: list[Request] = []
    for prompt in run.prompts.take(n):
        draw = draws[prompt.id]
        draws[prompt.id] += 1
        key = (run.plan.seed, run.progress.step, prompt.id, draw)
        sample_seeds = tuple(seeds.sample_seed(*key, index) for index in range(run.plan.group_size))
        requests.append(Request(run.progress.dispatched, prompt, sample_seeds))
        run.progress.dispatched += 1
    return requests


def _rollouts(run: Run, requests: Sequence[Request]) -> list[Group]:
    """Generate and score; groups are graded in the order in which they finish, and come back in request order."""
    prompts = {request.id: request.prompt for request in requests}
    groups: dict[int, Group] = {}
    with run.droppable(), Grading(run.reward, end_call=run.end_grading) as grading:
        generated = run.clock.each("generate", run.engine.generate(requests, run.plan.sampling))
        for done, (request_id, completions) in enumerate(generated, 1):
            with run.clock("reward"):
                grading.add(request_id, prompts[request_id], completions)
            run.phase("generating", done, len(requests))
        for request_id, completions, scores in run.clock.each("reward", grading.finished()):
            rollouts = tuple(Rollout(c, s) for c, s in zip(completions, scores, strict=True))
            groups[request_id] = Group(request_id, prompts[request_id], rollouts)
            run.phase("grading", len(groups), len(requests))
    run.clock.add("grading", grading.seconds)
    in_order = [groups[request.id] for request in requests]
    for group in in_order:
        run.prompts.observe(group)
    return in_order


def _record(run: Run, started: float, judged: Sequence[Judged], updates: Updates, metrics: Metrics) -> StepRecord:
    """All of the step that was just made."""
    return StepRecord(
        step=run.progress.step,
        policy_version=run.progress.step - 1,
        started=started,
        seconds=metrics["time/step"],
        num_updates=updates.num_updates,
        num_rounds=1 + max(j.round for j in judged),
        judged=judged,
        traces=updates.traces,
        metrics=metrics,
    )


def _wanted(prompts_per_step: int, judged: Sequence[Judged]) -> int:
    """Prompts that the next round asks for: the shortage over the share admitted so far, at most a whole batch."""
    admitted = sum(j.outcome == "admitted" for j in judged)
    shortage = max(0, prompts_per_step - admitted)
    return min(prompts_per_step, math.ceil(shortage * len(judged) / admitted)) if admitted else prompts_per_step


def _exhausted(run: Run, judged: list[Judged], num_admitted: int) -> list[Judged]:
    """The rounds are used up: do what the plan says, and say so. When nothing ever trained, no later step will do
    better with the same weights, so the run stops at once."""
    plan, progress = run.plan, run.progress
    outcomes = Counter(j.outcome for j in judged)
    never = num_admitted == 0 and progress.updates == 0
    found = (
        f"step {progress.step + 1}: {plan.max_rounds} generation rounds gave {num_admitted} of {plan.prompts_per_step} "
        f"groups that can train ({', '.join(f'{n} {name}' for name, n in sorted(outcomes.items()))})"
    )
    advice = "Type sampling.max_rounds=N for more rounds, or train on easier or harder prompts"
    progress.surplus = []
    skipped = plan.on_exhausted == "skip" or num_admitted == 0
    progress.empty_steps = progress.empty_steps + 1 if skipped else 0
    if plan.on_exhausted == "error" or progress.empty_steps == MAX_EMPTY_STEPS or never:
        raise ExhaustedError("\n".join([f"{found}:", *pass_rates(judged), advice]))
    run.tell(Event("exhausted", found, severity=2, step=progress.step + 1, value=num_admitted, advice=advice))
    if skipped:
        return [replace(j, outcome="surplus") if j.outcome == "admitted" else j for j in judged]
    return judged
