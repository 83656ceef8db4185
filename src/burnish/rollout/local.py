"""`LocalEngine`: completions from a model in this process, on one device.

    requests -> tickets (a prompt and some of its seeds) -> rows -> completions -> requests that are whole

A ticket waits until all its seeds find a free row. Its prompt is read once and its keys are copied to the rows. Each
step draws one token for every row. When enough rows have ended, they are taken out as completions, the last rows move
into the gaps, and waiting tickets come in. No step does Python work per row.

Shape letters: B rows, L tokens of a completion (one column is spare: a row that has ended still draws, into it).
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from burnish.protocols import PromptEncoder, Publication
from burnish.rollout.decoder import ModuleDecoder, Work, borrowed, position_limit, require_supported
from burnish.rollout.llama_family import LlamaDecoder, matches
from burnish.rollout.native import NativeDecoder, runs
from burnish.rollout.sampling import drawer, uniforms
from burnish.types import Completion, Request, Sampling

_AHEAD = 16
"""Uniforms are drawn for this many tokens at a time."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    request: int
    """Index of the request in the call."""
    first_sample: int
    """Index of the first seed within the request."""
    seeds: tuple[int, ...]
    prompt_ids: array[int]


@dataclass(frozen=True, slots=True)
class _Ended:
    """A completion that has ended, and whose it is."""

    request: int
    sample: int
    token_ids: array[int]
    logprobs: array[float]


class LocalEngine:
    """A `RolloutEngine` that decodes with the published module itself; no weights are copied.

    The module may be training elsewhere in this process: whenever the caller has control (also between two results of
    `generate`), it is in the state in which it came.

    Any transformers causal language model with full or sliding-window attention works; `load` refuses others.
    """

    def __init__(
        self,
        tokenizer: Any,
        encode: PromptEncoder,
        *,
        eos_ids: Set[int],
        slots: int,
        bf16: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """
        Args:
            tokenizer: turns ids into text with `decode(ids, skip_special_tokens=...)`.
            eos_ids: every id that ends a completion.
            slots: completions that are decoded at once.
            bf16: decode with weights rounded to bfloat16; see `LlamaDecoder`.
            progress: called with (finished requests, all requests) as requests finish.
        """
        assert slots > 0
        self._tokenizer = tokenizer
        self._encode = encode
        self.eos_ids = frozenset(eos_ids)
        self._slots = slots
        self._bf16 = bf16
        self._progress = progress
        self.work = Work()
        """Of all calls so far."""
        self._model: PreTrainedModel | None = None
        self._decoder: type[ModuleDecoder] = ModuleDecoder
        self._version = -1

    def load(self, publication: Publication, /) -> None:
        """Decode with `publication.weights`, a module, from now on.

        Raises:
            ValueError: the module's architecture cannot be decoded here.
        """
        model = publication.weights
        decoder = LlamaDecoder if matches(model) else ModuleDecoder
        if self._bf16 and decoder is not LlamaDecoder:
            raise ValueError(
                f"sampling.dtype=bfloat16 is for plain Llama, Qwen2 and Qwen3 models, and this is "
                f"{type(model).__name__} (or has parts of its own). Type sampling.dtype=float32"
            )
        if runs(model) and not self._bf16:
            decoder = NativeDecoder
        if model is not self._model or decoder is not self._decoder:
            require_supported(model, decoder)
        self._model, self._decoder, self._version = model, decoder, publication.version

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (request id, its completions in seed order) as requests finish.

        Raises:
            ValueError: before anything is decoded, if a prompt is empty or leaves no room for `max_new_tokens`.
            FloatingPointError: the model's logits are not finite.
        """
        if self._model is None:
            raise ValueError("The engine has no weights yet. Call load(publication) before generate.")
        assert all(request.seeds for request in requests), "a request without seeds asks for nothing"
        limit = position_limit(self._model.config.get_text_config())
        prompts = [array("i", self._encode(request.prompt)) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            _require_room(request.prompt.id, len(prompt), sampling.max_new_tokens, limit)
        return self._stream(self._model, requests, prompts, sampling)

    def _stream(
        self, model: PreTrainedModel, requests: Sequence[Request], prompts: list[array[int]], sampling: Sampling
    ) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        version = self._version
        tickets = _tickets(requests, prompts, self._slots)
        slots = min(self._slots, sum(len(request.seeds) for request in requests))
        max_length = max(map(len, prompts), default=0) + sampling.max_new_tokens
        bf16 = {"bf16": True} if self._bf16 else {}
        decoder = self._decoder(model, num_rows=slots, max_length=max_length, work=self.work, **bf16)
        rows = _Rows(
            decoder, slots, sampling, max_length=max_length, eos_ids=self.eos_ids, device=model.device, work=self.work
        )
        found: list[dict[int, Completion]] = [{} for _ in requests]
        num_finished = 0
        while tickets or rows.count:
            with borrowed(model):
                rows.admit(tickets)
                ended = rows.run()
            for end in ended:
                completions = found[end.request]
                completions[end.sample] = self._completion(end, prompts[end.request], version)
                request = requests[end.request]
                if len(completions) == len(request.seeds):
                    found[end.request] = {}
                    num_finished += 1
                    if self._progress is not None:
                        self._progress(num_finished, len(requests))
                    yield request.id, tuple(completions[sample] for sample in range(len(request.seeds)))

    def _completion(self, end: _Ended, prompt_ids: array[int], version: int) -> Completion:
        stopped = end.token_ids[-1] in self.eos_ids
        shown = end.token_ids[:-1] if stopped else end.token_ids
        return Completion(
            prompt_ids=prompt_ids,
            token_ids=end.token_ids,
            logprobs=end.logprobs,
            text=self._tokenizer.decode(shown.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False),
            finish_reason="stop" if stopped else "length",
            policy_version=version,
        )


def _require_room(prompt_id: str, length: int, max_new_tokens: int, limit: int | None) -> None:
    if length == 0:
        raise ValueError(f"Prompt {prompt_id!r} encodes to no tokens. A prompt needs at least one.")
    if limit is not None and length + max_new_tokens > limit:
        raise ValueError(
            f"Prompt {prompt_id!r} has {length} tokens, which with sampling.max_new_tokens={max_new_tokens} is more "
            f"than the {limit} positions of the model. Shorten the prompt to {max(limit - max_new_tokens, 0)} tokens "
            f"or type sampling.max_new_tokens={max(limit - length, 0)}"
        )


def _tickets(requests: Sequence[Request], prompts: Sequence[array[int]], slots: int) -> deque[_Ticket]:
    """One ticket per request, or several where a request has more seeds than there are slots."""
    return deque(
        _Ticket(index, first, request.seeds[first : first + slots], prompt)
        for index, (request, prompt) in enumerate(zip(requests, prompts, strict=True))
        for first in range(0, len(request.seeds), slots)
    )


class _Rows:
    """The completions being decoded: row b of every tensor, the first `count` rows are in use."""

    def __init__(
        self,
        decoder: ModuleDecoder,
        slots: int,
        sampling: Sampling,
        *,
        max_length: int,
        eos_ids: Set[int],
        device: torch.device,
        work: Work,
    ) -> None:
        self.count = 0
        self._work = work
        self._slots = slots
        self._sampling = sampling
        self._draw = drawer(sampling, device)
        self._max_length = max_length
        self._decoder = decoder
        self._longest = 0
        """No row stands at or beyond this position."""
        self._indices = torch.arange(slots, device=device)
        self._eos = torch.tensor(sorted(eos_ids), dtype=torch.int64, device=device)
        self._token, self._position, self._length, self._seed, self._request, self._sample = (
            torch.zeros(slots, dtype=torch.int64, device=device) for _ in range(6)
        )
        self._ended = torch.zeros(slots, dtype=torch.bool, device=device)
        columns = sampling.max_new_tokens + 1
        self._tokens_BL = torch.zeros((slots, columns), dtype=torch.int32, device=device)
        self._logprobs_BL = torch.zeros((slots, columns), dtype=torch.float32, device=device)

    def admit(self, tickets: deque[_Ticket]) -> None:
        """Take waiting tickets in, first come first served, as long as the next one fits."""
        admitted: list[_Ticket] = []
        free = self._slots - self.count
        while tickets and len(tickets[0].seeds) <= free:
            free -= len(tickets[0].seeds)
            admitted.append(tickets.popleft())
        if admitted:
            self._seat(admitted)
        if not tickets:
            self._decoder.need_only(self.count)

    def _seat(self, admitted: list[_Ticket]) -> None:
        # Prompts of like length are read together, so that little is padding.
        admitted.sort(key=lambda ticket: len(ticket.prompt_ids))
        prompts = [ticket.prompt_ids for ticket in admitted]
        copies = [len(ticket.seeds) for ticket in admitted]
        self._decoder.prefill(prompts, copies, first_row=self.count)
        rows = slice(self.count, self.count + sum(copies))
        by_row = torch.tensor(
            [
                (ticket.prompt_ids[-1], len(ticket.prompt_ids) - 1, seed, ticket.request, ticket.first_sample + i)
                for ticket in admitted
                for i, seed in enumerate(ticket.seeds)
            ],
            dtype=torch.int64,
        ).to(self._token.device)
        columns = (self._token, self._position, self._seed, self._request, self._sample)
        for column, values in zip(columns, by_row.T, strict=True):
            column[rows] = values
        self._length[rows] = 0
        self._ended[rows] = False
        self.count = rows.stop
        self._longest = max(self._longest, len(prompts[-1]))

    def run(self) -> list[_Ended]:
        """Decode until so many rows have ended that it pays to take them out; do that."""
        count = self.count
        num_ended, step = 0, 0
        ahead = torch.empty(0)
        while num_ended == 0 or num_ended < self._decoder.patience * count:
            if step % _AHEAD == 0:
                steps = self._length[:count, None] + self._indices.new_tensor(range(_AHEAD))
                ahead = uniforms(self._seed[:count, None], steps)
            self._work.steps += 1
            self._work.rows += count
            self._work.idle_rows += num_ended
            num_ended = self._step(ahead[:, step % _AHEAD])
            step += 1
        return self._take_ended()

    def _step(self, uniforms_B: Tensor) -> int:
        """Draw one token for every row; the number of rows that have ended."""
        rows = slice(0, self.count)
        token, position, length, ended = self._token[rows], self._position[rows], self._length[rows], self._ended[rows]
        drawn_B, logprobs_B = self._draw(self._decoder.step(token, position, self._longest), uniforms_B)
        self._tokens_BL[self._indices[rows], length] = drawn_B.int()
        self._logprobs_BL[self._indices[rows], length] = logprobs_B
        # Rows that have ended stay where they are: their length is their completion's, and their position in bounds.
        going = ~ended
        length += going
        position += going
        token.copy_(drawn_B)
        ended |= (drawn_B[:, None] == self._eos).any(-1)
        ended |= length == self._sampling.max_new_tokens
        self._longest = min(self._longest + 1, self._max_length)
        return int(ended.sum())

    def _take_ended(self) -> list[_Ended]:
        """Take out the rows that have ended, and close the gaps with the last rows."""
        ended = self._ended[: self.count]
        leaving = ended.nonzero()[:, 0]
        taken = self._completions(leaving)
        remaining = self.count - len(leaving)
        source = (~ended[remaining:]).nonzero()[:, 0] + remaining
        target = leaving[leaving < remaining]
        if len(source):
            self._decoder.move(source, target, self._longest)
            for column in (
                *(self._token, self._position, self._length, self._seed, self._request, self._sample, self._ended),
                *(self._tokens_BL, self._logprobs_BL),
            ):
                column[target] = column[source]
        self.count = remaining
        self._longest = int(self._position[:remaining].max()) + 1 if remaining else 0
        return taken

    def _completions(self, rows: Tensor) -> list[_Ended]:
        longest = int(self._length[rows].max())
        logprobs_BL = self._logprobs_BL[rows, :longest].cpu().numpy()
        tokens_BL = self._tokens_BL[rows, :longest].cpu().numpy()
        of_rows = torch.stack((self._length, self._request, self._sample))[:, rows].T.tolist()
        taken = []
        for row, (length, request, sample) in enumerate(of_rows):
            logprobs = array("f", logprobs_BL[row, :length].tobytes())
            if not abs(sum(logprobs)) < float("inf"):
                raise FloatingPointError(
                    "The model's logits are not finite, so no token can be sampled: the weights have diverged. "
                    "Type a smaller optimizer.learning_rate, and model.path=RUN/checkpoints/STEP to start from there"
                )
            taken.append(_Ended(request, sample, array("i", tokens_BL[row, :length].tobytes()), logprobs))
        return taken
