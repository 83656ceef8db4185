"""The learner of one process: a model, an optimiser, and the cut of a mini-batch into pieces.

    forward_backward   cut (packing.py) -> for each piece: the decoder forward (forward.py);
                       for each run of its sequences: the head forward, objective.loss, the head backward;
                       the decoder backward
    step               norm, guard, clip, rate (schedule.py), AdamW
    save, restore      state.py, and value_head.py where the objective has a value head

Weights are float32 throughout. With `bf16` the decoder runs under autocast, which rounds the operands of its matrix
products to bfloat16; the float32 weights are the master copy that AdamW updates, and softmax, log-probabilities, loss
and the accumulated gradient are float32 in any case.

Shape letters: N completion tokens, B sequences, J tracked ids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from burnish.batch import Batch, Credit, PolicyOutput, Prepared
from burnish.learner import state
from burnish.learner.forward import PolicyForward, Work
from burnish.learner.packing import cut
from burnish.learner.schedule import Schedule
from burnish.protocols import Pass, Publication
from burnish.types import Metrics, Shares

if TYPE_CHECKING:
    from burnish.objective import Objective


class LocalLearner:
    """A `Learner` on one device.

    Example:
        learner = LocalLearner(model, tokenizer, objective, temperature=1.0, tokens_per_piece=1024, ...)
        seen = learner.forward_backward(objective.prepare(collate(groups)))
        metrics = learner.step()

    Args:
        model: weights in float32, on the device to train on. Trained in place, in evaluation mode (no dropout).
        temperature: of the sampling policy; every log-probability is at this temperature.
        tokens_per_piece: prompt and completion tokens that one forward and backward pass may hold.
        max_grad_norm: longer gradients are scaled down to it.
        schedule: update index -> factor of `learning_rate`.
        reference: frozen model, given exactly when the objective needs one.
        value_learning_rate: of the value head, given exactly when the objective needs one; it follows `schedule` too.
        bf16: see the module.
        gradient_checkpointing: recompute activations layer by layer in the backward pass.

    Raises:
        ValueError: the weights are not float32; the model's head is not understood.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        *,
        temperature: float,
        tokens_per_piece: int,
        learning_rate: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        max_grad_norm: float,
        schedule: Schedule,
        reference: PreTrainedModel | None = None,
        value_learning_rate: float | None = None,
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        assert (reference is not None) == objective.needs_reference, "a reference model goes with an objective's need"
        assert (value_learning_rate is not None) == (objective.credit is not None), "and so does a value head"
        self.model = model
        self.tokenizer = tokenizer
        self.objective = objective
        self.updates = 0
        self._loss = 0.0
        """Of the gradient that is being accumulated."""
        self._not_finite: tuple[str, ...] = ()
        self._tokens_per_piece = tokens_per_piece
        self._max_grad_norm = max_grad_norm
        self._schedule = schedule
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        _check_dtype(trained)
        self._policy = PolicyForward(
            model,
            temperature=temperature,
            with_values=value_learning_rate is not None,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
        )
        self.value_head = self._policy.value_head
        self._reference = None
        if reference is not None:
            self._reference = PolicyForward(reference.requires_grad_(False), temperature=temperature, bf16=bf16)
        self._settings = {
            "temperature": temperature,
            "learning_rate": learning_rate,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
            "bf16": bf16,
        }
        self._named = dict(trained)
        groups = _groups(trained, learning_rate, weight_decay)
        if self.value_head is not None and value_learning_rate is not None:
            self._named |= self.value_head.named
            self._settings["value_learning_rate"] = value_learning_rate
            groups += _groups(self.value_head.named, value_learning_rate, weight_decay)
        self._learning_rate = learning_rate
        self._rates = [group["lr"] for group in groups]
        self._optimizer = torch.optim.AdamW(
            groups,
            betas=betas,
            eps=eps,
            fused=model.device.type in ("cpu", "cuda"),
        )

    @property
    def work(self) -> Work:
        """Of the policy's forward passes so far."""
        return self._policy.work

    def forward_backward(self, prepared: Prepared) -> Pass:
        """Add the gradient of the objective's loss over the whole mini-batch to what `step` will apply.

        Weights are fixed in `prepared`, so pieces are summed as they are: any cut gives the same gradient.
        """
        traces = _Traces(prepared.batch.num_tokens, len(self.objective.tracked_ids))
        with self._policy.running():
            for sequences in cut(prepared.batch, self._tokens_per_piece):
                self._piece(prepared.select(sequences), prepared.batch.token_index(sequences), traces)
        return traces.seen()

    def _piece(self, piece: Prepared, index: Tensor, traces: _Traces) -> None:
        """Forward and backward through a piece, whose tokens are those at `index` of the mini-batch.

        Losses of whole sequences add up, so they are taken run by run, each while the head still has the run's
        probabilities, and the decoder gets the gradient of all of them at once.
        """
        ref_N = self._reference_logprobs(piece.batch)
        hidden_ND = self._policy.hidden(piece.batch)
        by_hidden_ND = torch.zeros_like(hidden_ND)
        for sequences in self._policy.runs(piece.batch):
            run, rows = piece.select(sequences), piece.batch.token_index(sequences)
            rows_there = rows.to(self._policy.device)
            hidden_CD = hidden_ND.detach()[rows_there].requires_grad_()
            output = self._policy.read(hidden_CD, run.batch.tokens_N, tracked_ids=self.objective.tracked_ids)
            output = replace(output, ref_logprobs_N=None if ref_N is None else ref_N[rows_there])
            output.logprobs_N.retain_grad()
            loss, shares = self.objective.loss(output, _on(self._policy.device, run))
            loss.backward()
            assert hidden_CD.grad is not None
            by_hidden_ND[rows_there] = hidden_CD.grad
            self._loss += loss.item()
            traces.add(index[rows], output, shares)
        if hidden_ND.requires_grad:
            hidden_ND.backward(by_hidden_ND)

    def logprobs(self, batch: Batch) -> Tensor:
        """Log-probabilities under the current weights, float32 [N] in batch order, on the CPU."""
        return self._policy.logprobs(batch, self._tokens_per_piece)

    def values(self, batch: Batch) -> Tensor:
        """Values under the current weights, float32 [N] in batch order, on the CPU."""
        return self._policy.values(batch, self._tokens_per_piece)

    def step(self) -> Metrics:
        """One update of AdamW, without weight decay on biases and norms.

        A loss or a gradient that is not finite updates nothing: weights, moments and schedule stay as they are, bit
        for bit.

        Returns:
            grad_norm before clipping; learning_rate; update/skipped, 1 when nothing was updated; weights/checksum of
            the weights that it leaves.
        """
        moved = [p for p in self._named.values() if p.grad is not None]
        norm = get_total_norm([p.grad for p in moved if p.grad is not None])
        factor = self._schedule(self.updates)
        self._not_finite = () if norm.isfinite() and math.isfinite(self._loss) else self._name_not_finite()
        if not self._not_finite:
            clip_grads_with_norm_(moved, self._max_grad_norm, norm)
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * factor
            self._optimizer.step()
            self.updates += 1
        self._optimizer.zero_grad(set_to_none=True)
        self._loss = 0.0
        return {
            "grad_norm": float(norm),
            "learning_rate": self._learning_rate * factor,
            "update/skipped": float(bool(self._not_finite)),
            "weights/checksum": float(state.checksum(self._named.values())),
        }

    def not_finite(self) -> tuple[str, ...]:
        return self._not_finite

    def _name_not_finite(self) -> tuple[str, ...]:
        loss = () if math.isfinite(self._loss) else ("the loss",)
        spoilt = [name for name, p in self._named.items() if p.grad is not None and not p.grad.norm().isfinite()]
        found = (*loss, *(f"the gradient of {name}" for name in spoilt))
        return found or ("the norm of the gradient",)  # each is finite, and their squares together are not

    def publish(self, version: int) -> Publication:
        """The model itself: an engine in this process sees every update as it is made."""
        return Publication(version=version, weights=self.model)

    def save(self, folder: Path) -> None:
        """Write what `restore` reads.

        Raises:
            TrainingError: a weight or a moment is not finite; nothing is written.
        """
        state.refuse_not_finite({**dict(self.model.named_parameters()), **self._named}, self._optimizer)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        state.write_optimizer(folder, self._optimizer, self._named, updates=self.updates, settings=self._settings)
        if self.value_head is not None:
            self.value_head.save(folder / state.RESUME)

    def restore(self, folder: Path) -> None:
        """Continue from what `save` wrote. On a CPU the next updates are those of the run that saved, bit for bit."""
        self.updates = state.read_optimizer(folder, self._optimizer, self._named)
        state.read_weights(folder, self.model)
        if self.value_head is not None:
            self.value_head.restore(folder / state.RESUME)
        self._optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _reference_logprobs(self, batch: Batch) -> Tensor | None:
        if self._reference is None:
            return None
        with self._reference.running():
            return self._reference(batch).logprobs_N


class _Traces:
    """Gathers what the runs of a mini-batch had to say, in the order of its tokens."""

    def __init__(self, num_tokens: int, num_tracked: int) -> None:
        self._shares: Shares = {}
        self._logprobs_N, self._entropy_N, self._push_N = torch.zeros(3, num_tokens)
        self._tracked_NJ = torch.zeros(num_tokens, num_tracked)

    def add(self, index: Tensor, output: PolicyOutput, shares: Shares) -> None:
        """Call it after the backward pass, for the gradients of log-probabilities."""
        self._shares = _sum(self._shares, shares)
        self._logprobs_N[index] = output.logprobs_N.detach().cpu()
        self._entropy_N[index] = output.entropy_N.detach().cpu()
        self._tracked_NJ[index] = output.tracked_NJ.detach().cpu()
        if output.logprobs_N.grad is not None:
            self._push_N[index] = -output.logprobs_N.grad.cpu()

    def seen(self) -> Pass:
        return Pass(
            shares=self._shares,
            logprobs_N=self._logprobs_N,
            entropy_N=self._entropy_N,
            push_N=self._push_N,
            tracked_NJ=self._tracked_NJ if self._tracked_NJ.shape[1] else None,
        )


def _groups(named: Mapping[str, Tensor], rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters with the settings that they share: biases and norms do not decay."""
    matrices = [p for p in named.values() if p.dim() > 1]
    vectors = [p for p in named.values() if p.dim() <= 1]
    return [
        {"params": matrices, "lr": rate, "weight_decay": weight_decay},
        {"params": vectors, "lr": rate, "weight_decay": 0.0},
    ]


def _check_dtype(named: dict[str, torch.nn.Parameter]) -> None:
    for name, parameter in named.items():
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"{name} is {parameter.dtype}, and updates need float32 weights: steps of the usual learning rates "
                "vanish in fewer bits. Load the model with dtype=torch.float32 (model.dtype=bfloat16 computes in "
                "bfloat16 on top of float32 weights)"
            )


def _on(device: torch.device, prepared: Prepared) -> Prepared:
    """The piece with its tensors on the device."""
    if device.type == "cpu":
        return prepared
    credit = prepared.batch.credit
    moved = None if credit is None else replace(credit, **_moved(credit, device))
    batch = replace(prepared.batch, **_moved(prepared.batch, device), credit=moved)
    return replace(prepared, **_moved(prepared, device), batch=batch)


def _moved(record: Batch | Prepared | Credit, device: torch.device) -> dict[str, Any]:
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: value.to(device) for name, value in values.items() if isinstance(value, Tensor)}


def _sum(a: Shares, b: Shares) -> Shares:
    nothing = (0.0, 0.0)
    pairs = {name: (a.get(name, nothing), b.get(name, nothing)) for name in a | b}
    return {name: (x[0] + y[0], x[1] + y[1]) for name, (x, y) in pairs.items()}
