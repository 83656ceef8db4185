"""Pieces and their layout: the tokens of a piece end to end, without padding, every prompt once.

    group 0: prompt a b c, completions  d e f  and  g h         group 1: prompt u v, completion  w x y

    packed row   0 1 2 3 4 5 6 7 8 9        the last token of a completion is predicted, and never fed
    token        a b c u v d e g w x
    position     0 1 2 0 1 3 4 3 2 3        goes on from the prompt's length in every member
    predicts         d   w e f h x y        and g as well: row 2 predicts the first token of both d.. and g..

Only attention needs to know who may look at whom; embeddings, linear layers, norms and the head see L independent rows.
`attend` (see `attention.py`) gathers the rows of each segment into a padded block, by `Bucket`s of like length:

    whole segment    queries and keys: prompt + own tokens. Plainly causal, so kernels need no mask.
    suffix segment   queries: own tokens; keys: prompt + own tokens. Needs a mask and scores all its pairs, but spares
                     the prompt's queries: chosen where that is less work (see `BLOCK`).

The first member of a group in the piece is a whole segment, and the prompt's rows take their outputs from there.

`cut` chooses the pieces, `lay_out` makes the layout of one, and `runs` cuts one further for the output head. Index
arithmetic only; no model.

Shape letters: N completion tokens, L packed rows, B sequences, P prompts of the piece, S segments of a bucket,
Q and K queries and keys of the longest of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from burnish.batch import Batch

BLOCK = 32
"""Query rows that kernels score at once. A causal kernel skips the keys past a block, so a whole segment of T rows
costs T * (T + BLOCK) / 2 pairs, and a suffix of Q rows costs Q * T: less when Q < prompt + BLOCK."""
FREE_WASTE = 4096
"""Padded query-key pairs that cost less than another bucket's calls."""
WASTE = 0.25
"""Padding allowed in a bucket, as a share of its useful query-key pairs."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Segments whose attention is computed as one padded block."""

    queries_SQ: Tensor
    """int64, packed rows; filler repeats a row of the segment's own."""
    keys_SK: Tensor
    """int64, packed rows, from the prompt's first; filler stands after the segment's own rows."""
    start_S: Tensor
    """int64, position of the first query: 0 for whole segments."""
    whole: bool

    def mask(self, window: int | None, dtype: torch.dtype) -> Tensor | None:
        """What to add to the scores, [S or 1, 1, Q, K]; None when plain causality says it all.

        Filler keys stand at positions past every query of their segment, so causality hides them too.

        Args:
            window: a query sees its own and the `window - 1` positions before; None sees all.
        """
        (_, q), (_, k) = self.queries_SQ.shape, self.keys_SK.shape
        if window is not None and window >= k:
            window = None
        if self.whole and window is None:
            return None
        device = self.queries_SQ.device
        start_S = self.start_S[:1] if self.whole else self.start_S
        distance_SQK = (
            start_S[:, None, None]
            + torch.arange(q, device=device)[None, :, None]
            - torch.arange(k, device=device)[None, None, :]
        )
        seen_SQK = distance_SQK >= 0
        if window is not None:
            seen_SQK &= distance_SQK < window
        return torch.zeros_like(seen_SQK, dtype=dtype).masked_fill_(~seen_SQK, float("-inf"))[:, None]


@dataclass(frozen=True, slots=True)
class Layout:
    tokens_L: Tensor
    """int64."""
    position_L: Tensor
    """int64."""
    row_N: Tensor
    """int64, the packed row that predicts each completion token of the piece."""
    buckets: tuple[Bucket, ...]
    where_L: Tensor
    """int64, each packed row's place in the outputs of the buckets' blocks laid end to end."""
    masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict, compare=False)
    """(bucket, window) -> mask, filled by the first layer that needs it."""

    def to(self, device: torch.device) -> Layout:
        return Layout(
            tokens_L=self.tokens_L.to(device),
            position_L=self.position_L.to(device),
            row_N=self.row_N.to(device),
            buckets=tuple(
                Bucket(b.queries_SQ.to(device), b.keys_SK.to(device), b.start_S.to(device), b.whole)
                for b in self.buckets
            ),
            where_L=self.where_L.to(device),
        )


def cut(batch: Batch, tokens_per_piece: int) -> list[Tensor]:
    """Sequences of each piece, int64: every sequence once, in at most `tokens_per_piece` prompt and completion tokens.

    A prompt counts once per piece. Siblings stay together where they fit; a sequence over the budget gets a piece of
    its own.
    """
    lengths = batch.lengths_B.tolist()
    members: dict[int, list[int]] = {}
    for b, group in enumerate(batch.group_B.tolist()):
        members.setdefault(group, []).append(b)
    pieces: list[list[int]] = [[]]
    room = tokens_per_piece
    for group, siblings in members.items():
        prompt = len(batch.prompt_ids[group])
        if room < prompt + sum(lengths[b] for b in siblings) <= tokens_per_piece:
            pieces.append([])
            room = tokens_per_piece
        shared = 0
        for b in siblings:
            if prompt - shared + lengths[b] > room and pieces[-1]:
                pieces.append([])
                room, shared = tokens_per_piece, 0
            pieces[-1].append(b)
            room -= prompt - shared + lengths[b]
            shared = prompt
    return [torch.tensor(piece, dtype=torch.int64) for piece in pieces if piece]


def runs(lengths_B: Tensor, rows: int) -> list[Tensor]:
    """Sequences of each run, int64: every sequence once, in at most `rows` completion tokens; a longer one is a run of
    its own. At least one run where there is a sequence, also without tokens.

    The longest sequences choose first, each the first run with room for it, so that runs come out full.
    """
    found: list[list[int]] = []
    room: list[int] = []
    order_B = torch.argsort(lengths_B, descending=True, stable=True)
    for b, length in zip(order_B.tolist(), lengths_B[order_B].tolist(), strict=True):
        run = next((run for run, free in enumerate(room) if length <= free), len(found))
        if run == len(found):
            found.append([])
            room.append(rows)
        found[run].append(b)
        room[run] -= length
    return [torch.tensor(run, dtype=torch.int64) for run in found]


def lay_out(batch: Batch) -> Layout:
    """The layout of a piece.

    Raises:
        ValueError: a prompt without tokens: nothing would predict the first token of its completions.
    """
    groups = list(dict.fromkeys(batch.group_B.tolist()))
    prompts_P = [torch.tensor(batch.prompt_ids[group], dtype=torch.int64) for group in groups]
    if any(len(prompt) == 0 for prompt in prompts_P):
        raise ValueError(
            "a prompt has no tokens, and the first token of a completion is predicted from the prompt's last one. "
            "Give every prompt some text, or type data.template=true"
        )
    slot_of = {group: slot for slot, group in enumerate(groups)}
    slot_B = torch.tensor([slot_of[group] for group in batch.group_B.tolist()], dtype=torch.int64)
    size_P = torch.tensor([len(prompt) for prompt in prompts_P], dtype=torch.int64)
    size_B, start_B = size_P[slot_B], (size_P.cumsum(0) - size_P)[slot_B]
    own_B = (batch.lengths_B - 1).clamp(min=0)
    own_start_B = size_P.sum() + own_B.cumsum(0) - own_B
    sequence_N, position_N = batch.sequence_N, batch.position_N
    fed_N = position_N + 1 < batch.lengths_B[sequence_N]
    first_row_B = start_B + size_B - 1
    buckets, where_L = _segments(slot_B, size_B, start_B, own_B, own_start_B)
    return Layout(
        tokens_L=torch.cat([*prompts_P, batch.tokens_N[fed_N]]),
        position_L=torch.cat(
            [*(torch.arange(len(prompt)) for prompt in prompts_P), (size_B[sequence_N] + position_N)[fed_N]]
        ),
        row_N=torch.where(position_N == 0, first_row_B[sequence_N], own_start_B[sequence_N] + position_N - 1),
        buckets=buckets,
        where_L=where_L,
    )


def _segments(
    slot_B: Tensor, size_B: Tensor, start_B: Tensor, own_B: Tensor, own_start_B: Tensor
) -> tuple[tuple[Bucket, ...], Tensor]:
    """Buckets, and the place of every packed row in their outputs. Sizes and first rows of prompts and own tokens."""
    seen: set[int] = set()
    carries_B = torch.tensor([not (slot in seen or seen.add(slot)) for slot in slot_B.tolist()], dtype=torch.bool)
    whole_B = carries_B | (own_B >= size_B + BLOCK)
    end_B = size_B + own_B
    where_L = torch.empty(int(size_B[carries_B].sum() + own_B.sum()), dtype=torch.int64)
    buckets: list[Bucket] = []
    offset = 0
    for whole in (True, False):
        first_B = torch.zeros_like(size_B) if whole else size_B
        chosen = torch.nonzero((whole_B == whole) & (carries_B | (own_B > 0))).squeeze(1)
        for picked in _alike(chosen, end_B - first_B, end_B):
            size_S, first_S, end_S = size_B[picked, None], first_B[picked, None], end_B[picked, None]
            position_SK = torch.arange(int(end_S.max()))[None, :]
            own_SK = own_start_B[picked, None] + position_SK - size_S
            keys_SK = torch.where(position_SK < size_S, start_B[picked, None] + position_SK, own_SK)
            keys_SK = torch.where(position_SK < end_S, keys_SK, start_B[picked, None])
            position_SQ = first_S + torch.arange(int((end_S - first_S).max()))[None, :]
            queries_SQ = keys_SK.gather(1, position_SQ.clamp(max=keys_SK.shape[1] - 1))
            tells_SQ = (position_SQ < end_S) & ((position_SQ >= size_S) | carries_B[picked, None])
            where_L[queries_SQ[tells_SQ]] = offset + torch.nonzero(tells_SQ.flatten()).squeeze(1)
            offset += queries_SQ.numel()
            buckets.append(Bucket(queries_SQ, keys_SK, first_S.squeeze(1), whole))
    return tuple(buckets), where_L


def _alike(chosen: Tensor, queries_B: Tensor, keys_B: Tensor) -> list[Tensor]:
    """Split the chosen sequences, longest first, so that padding stays small and buckets few."""
    order = chosen[torch.argsort(queries_B[chosen] * keys_B[chosen], descending=True, stable=True)]
    splits: list[list[int]] = []
    useful = padded = widest = longest = 0
    for b, queries, keys in zip(order.tolist(), queries_B[order].tolist(), keys_B[order].tolist(), strict=True):
        widest, longest, useful = max(widest, keys), max(longest, queries), useful + queries * keys
        padded = (len(splits[-1]) + 1) * widest * longest if splits else useful
        if not splits or padded - useful > max(FREE_WASTE, WASTE * useful):
            splits.append([])
            widest, longest, useful = keys, queries, queries * keys
        splits[-1].append(b)
    return [torch.tensor(split, dtype=torch.int64) for split in splits]
