"""A causal language model as a function from a piece of a batch to what the policy says about its tokens.

`PolicyForward` runs the decoder on packed rows (`packing.py`, `attention.py`) or, for models that cannot be packed, on
padded ones; takes the hidden states that predict completion tokens; and reads log-probabilities off the head in chunks
(`logprobs.py`). Whoever trains calls the two halves one by one: the loss is taken of a few sequences at a time.

Which kind of rows, and whether the head is understood, is found out once, by comparing a small probe with what
`model(...)` itself says: attention with sinks, a convolution between tokens, or a head with a scale of its own shows
there, before the first update.

Shape letters: N completion tokens, L packed rows, B sequences, T longest sequence, D hidden size.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from burnish.batch import Batch, PolicyOutput, collate
from burnish.learner.attention import switched
from burnish.learner.logprobs import Head, token_logprobs
from burnish.learner.packing import Layout, cut, lay_out, runs
from burnish.learner.value_head import ValueHead
from burnish.types import Completion, Group, Prompt, Rollout, Score

PROBE = (((1, 2, 3), ((4, 5, 6, 7, 8), (9, 10))), ((11, 12), ((13, 14, 15, 16),)))
"""(prompt, completions) of each group; token ids, to be taken modulo the vocabulary."""
PACKABLE_LAYERS = {"full_attention", "sliding_attention"}


@dataclass(slots=True)
class Work:
    """What forward passes have cost so far, in counts that no clock disturbs. Backward passes go the same way back."""

    passes: int = 0
    tokens: int = 0
    """Through the decoder: each prompt once per piece, and completions without their last tokens."""
    padding: int = 0
    """Positions that went through the decoder to fill up shorter rows; 0 where the model packs."""
    head_rows: int = 0
    """Rows through the output head: completion tokens and nothing else."""


class PolicyForward:
    """Calls a model. The model is left in evaluation mode: a policy that samples without dropout trains without it.

    Args:
        temperature: of the sampling policy; divides the logits.
        with_values: have a value head on the hidden states that predict tokens.
        bf16: run the decoder under autocast to bfloat16. Weights, log-probabilities and values stay float32.

    Raises:
        ValueError: the model's head is not linear, or does something to its logits that is not known here.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        temperature: float,
        with_values: bool = False,
        bf16: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.model = model
        self.value_head: ValueHead | None = None
        self.temperature = temperature
        self.bf16 = False
        self._decoder: nn.Module = model.get_decoder()
        self._checkpointed: list[nn.Module] = []
        self.work = Work()
        self.packs = _understands(self)
        self.work = Work()  # the probe is none
        self.bf16 = bf16
        if with_values:
            self.value_head = ValueHead(self._head().weight_VD.shape[1], self.device)
        if gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            self._checkpointed = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]

    @property
    def device(self) -> torch.device:
        return self.model.device

    @contextmanager
    def running(self) -> Iterator[None]:
        """Open around forward passes, and around their backward passes too: checkpointed layers run again in them."""
        self.model.eval()
        for layer in self._checkpointed:
            # A layer checkpoints itself only in training mode; what it consists of, dropout included, stays out of it.
            layer.training = True
        try:
            with switched(self.model) if self.packs else nullcontext():
                yield
        finally:
            for layer in self._checkpointed:
                layer.training = False

    def __call__(self, batch: Batch, *, tracked_ids: tuple[int, ...] = ()) -> PolicyOutput:
        """The policy on a piece; call it inside `running`.

        Args:
            batch: a piece, its tensors on the CPU. The output is on the model's device.
        """
        return self.read(self.hidden(batch), batch.tokens_N, tracked_ids=tracked_ids)

    def hidden(self, batch: Batch) -> Tensor:
        """The decoder's half: hidden states that predict each completion token of a piece, [N, D]."""
        self.work.passes += 1
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return self.packed(lay_out(batch).to(self.device)) if self.packs else self._padded(batch)

    def read(self, hidden_ND: Tensor, tokens_N: Tensor, *, tracked_ids: tuple[int, ...] = ()) -> PolicyOutput:
        """The heads' half: what hidden states say about the tokens that they predict."""
        self.work.head_rows += len(hidden_ND)
        logprobs_N, entropy_N, tracked_NJ = token_logprobs(
            hidden_ND, tokens_N.to(self.device), self._head(), tracked_ids=tracked_ids
        )
        values_N = None if self.value_head is None else self.value_head(hidden_ND)
        return PolicyOutput(logprobs_N=logprobs_N, entropy_N=entropy_N, tracked_NJ=tracked_NJ, values_N=values_N)

    def runs(self, batch: Batch) -> list[Tensor]:
        """Sequences of a piece, int64, whose losses are taken one run after the other.

        On a CPU a run is what one chunk of the head holds, so that no logits are made twice. On a GPU, starting the
        kernels of another loss takes longer than making them again: all are one run.
        """
        rows = self._head().rows_per_chunk if self.device.type == "cpu" else batch.num_tokens
        return runs(batch.lengths_B, rows)

    def logprobs(self, batch: Batch, tokens_per_piece: int) -> Tensor:
        """Log-probabilities of a whole batch, cut into pieces: float32 [N] in batch order, on the CPU."""
        return self._of_tokens(lambda piece: self(piece).logprobs_N, batch, tokens_per_piece)

    def values(self, batch: Batch, tokens_per_piece: int) -> Tensor:
        """Values of a whole batch, likewise."""
        assert self.value_head is not None, "there is no value head"
        head = self.value_head
        return self._of_tokens(lambda piece: head(self.hidden(piece)), batch, tokens_per_piece)

    @torch.no_grad()
    def _of_tokens(self, read: Callable[[Batch], Tensor], batch: Batch, tokens_per_piece: int) -> Tensor:
        found_N = torch.zeros(batch.num_tokens)
        with self.running():
            for sequences in cut(batch, tokens_per_piece):
                found_N[batch.token_index(sequences)] = read(batch.select(sequences)).cpu()
        return found_N

    def packed(self, layout: Layout) -> Tensor:
        """Hidden states that predict each completion token, [N, D]."""
        self.work.tokens += len(layout.tokens_L)
        hidden_LD = self._decoder(
            input_ids=layout.tokens_L[None], position_ids=layout.position_L[None], use_cache=False, packed=layout
        ).last_hidden_state.squeeze(0)
        return hidden_LD.index_select(0, layout.row_N)

    def _padded(self, batch: Batch) -> Tensor:
        rows = _rows(batch)
        sizes_B = torch.tensor([len(row) for row in rows])
        input_ids_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        position_BT = torch.arange(input_ids_BT.shape[1]).expand_as(input_ids_BT)
        self.work.tokens += int(sizes_B.sum())
        self.work.padding += input_ids_BT.numel() - int(sizes_B.sum())
        hidden_BTD = self._decoder(
            input_ids=input_ids_BT.to(self.device),
            attention_mask=(position_BT < sizes_B[:, None]).long().to(self.device),
            position_ids=position_BT.to(self.device),
            use_cache=False,
        ).last_hidden_state
        fed_B = (batch.lengths_B - 1).clamp(min=0)
        first_B = torch.arange(len(rows)) * input_ids_BT.shape[1] + sizes_B - fed_B - 1
        row_N = first_B[batch.sequence_N] + batch.position_N
        return hidden_BTD.flatten(0, 1).index_select(0, row_N.to(self.device))

    def _head(self) -> Head:
        layer = self.model.get_output_embeddings()
        if not isinstance(layer, nn.Linear):
            raise ValueError(
                f"{type(self.model).__name__} has {type(layer).__name__} for a head, and a linear layer is needed. "
                "Type model.path=... with a model for causal language modelling"
            )
        config = _text_config(self.model)
        multiplier, divisor = config.get("logit_scale"), config.get("logits_scaling")
        # Only CUDA multiplies bfloat16 operands into a float32 result; elsewhere the head is all float32.
        halves = self.device.type == "cuda" and (self.bf16 or layer.weight.dtype == torch.bfloat16)
        return Head(
            weight_VD=layer.weight,
            bias_V=layer.bias,
            temperature=self.temperature,
            scale=(1.0 if multiplier is None else multiplier) / (1.0 if divisor is None else divisor),
            softcap=config.get("final_logit_softcapping"),
            dtype=torch.bfloat16 if halves else torch.float32,
        )


def _rows(batch: Batch) -> list[Tensor]:
    """What each sequence feeds: its prompt and all completion tokens but the last."""
    prompts = [torch.tensor(batch.prompt_ids[group], dtype=torch.int64) for group in batch.group_B.tolist()]
    completions = batch.tokens_N.split(batch.lengths_B.tolist())
    return [torch.cat([prompt, tokens[:-1]]) for prompt, tokens in zip(prompts, completions, strict=True)]


def _text_config(model: PreTrainedModel) -> dict[str, Any]:
    return model.config.get_text_config().to_dict()


@torch.no_grad()
def _understands(policy: PolicyForward) -> bool:
    """Whether the model can be packed, found by trying.

    Raises:
        ValueError: not even padded rows give the model's own log-probabilities.
    """
    model = policy.model
    batch = _probe_batch(_text_config(model)["vocab_size"])
    model.eval()
    logits = [model(input_ids=row[None].to(policy.device), use_cache=False).logits[0].float() for row in _rows(batch)]
    expected_N = torch.cat(
        [
            (logits_TV[-len(tokens) :] / policy.temperature).log_softmax(dim=-1).gather(1, tokens[:, None]).squeeze(1)
            for logits_TV, tokens in zip(
                logits, batch.tokens_N.to(policy.device).split(batch.lengths_B.tolist()), strict=True
            )
        ]
    )
    exact = model.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    tolerance = (1e-4 if exact else 5e-2) * (1.0 + max(float(x.abs().max()) for x in logits) / policy.temperature)

    def agrees() -> bool:
        with policy.running():
            return bool(((policy(batch).logprobs_N - expected_N).abs() <= tolerance).all())

    policy.packs = False
    if not agrees():
        raise ValueError(
            f"{type(model).__name__} makes its logits in a way that is not known here (a scale, a bound or another "
            "layer on its head): its log-probabilities would be wrong. Type model.path=... with another model"
        )
    policy.packs = model._supports_attention_backend and _layers_pack(policy, batch)
    return policy.packs and agrees()


def _layers_pack(policy: PolicyForward, batch: Batch) -> bool:
    """Whether all layers are of a kind that packs, and tell their sliding window: the probe is shorter than windows."""
    config = _text_config(policy.model)
    kinds = config.get("layer_types")
    if kinds is not None and not set(kinds) <= PACKABLE_LAYERS:
        return False
    slides = bool(config.get("sliding_window")) and (kinds is None or "sliding_attention" in kinds)
    layout = lay_out(batch).to(policy.device)
    with switched(policy.model):
        policy.packed(layout)
    return not slides or any(window is not None for _, window in layout.masks)


def _probe_batch(vocabulary: int) -> Batch:
    def rollout(prompt: tuple[int, ...], tokens: tuple[int, ...]) -> Rollout:
        ids = array("i", [token % vocabulary for token in tokens])
        prompt_ids = array("i", [token % vocabulary for token in prompt])
        return Rollout(Completion(prompt_ids, ids, array("f", [0.0] * len(ids)), "", "stop", 0), Score(0.0))

    return collate(
        [
            Group(index, Prompt(str(index), text=""), tuple(rollout(prompt, tokens) for tokens in completions))
            for index, (prompt, completions) in enumerate(PROBE)
        ]
    )
