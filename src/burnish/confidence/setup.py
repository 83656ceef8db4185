"""What is settled about stated confidence before a run: the tag, the tokens that decide, the target, the term.

`burnish.build` makes a `Setup` from a config; `describe` is what `burnish token-ids` prints of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from burnish.confidence import term, tokens
from burnish.confidence.stated import Logprobs, probabilities
from burnish.confidence.tag import Tag
from burnish.confidence.term import LossName, Marking, ScoreName
from burnish.confidence.tokens import Decision
from burnish.objective import Objective
from burnish.protocols import Statements
from burnish.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TargetName = Literal["data", "group_accuracy", "correctness"]


@dataclass(frozen=True)
class Setup:
    marking: Marking
    ids: tuple[int, int]
    """Of high and low."""
    loss: LossName
    score: ScoreName
    coef: float
    mask_tag: bool

    def train(self, objective: Objective) -> Objective:
        """The objective with the confidence term."""
        return term.with_confidence(
            objective,
            self.marking,
            self.ids,
            coef=self.coef,
            loss=self.loss,
            score=self.score,
            mask_tag=self.mask_tag,
        )

    def statements(self, logprobs: Logprobs) -> Statements:
        """What completions state under the policy behind `logprobs`, by the score that is trained."""
        return probabilities(self.marking, self.ids, score=self.score, logprobs=logprobs)


def set_up(
    tokenizer: PreTrainedTokenizerBase,
    tag: Tag,
    *,
    given_ids: tuple[int | None, int | None],
    target: TargetName,
    loss: LossName,
    score: ScoreName,
    coef: float,
    mask_tag: bool,
) -> Setup:
    """
    Args:
        given_ids: of high and low, as the user typed them; None is found.

    Raises:
        ValueError: the tokenizer cannot tell the two words apart, or a given id is not the one found.
    """
    found = tokens.decision(tag, tokens.encoder(tokenizer), tokens.decoder(tokenizer))
    ids = (found.high_id, found.low_id)
    for key, word, given, needed in zip(("high", "low"), (tag.high, tag.low), given_ids, ids, strict=True):
        if given is not None and given != needed:
            raise ValueError(
                f"confidence.{key}_token_id is {given}, and this tokenizer decides {word!r} in a {tag.written(word)!r} "
                f"with token {needed}. Type confidence.{key}_token_id={needed}, or leave it out"
            )
    targets = {
        "data": term.from_data(term.COLUMNS[loss]),
        "group_accuracy": term.group_accuracy,
        "correctness": term.correctness,
    }
    marking = Marking(tag, tokens.decoder(tokenizer), found.offset, targets[target], spans=mask_tag)
    return Setup(marking, ids, loss, score, coef, mask_tag)


def require_targets(prompts: Sequence[Prompt], loss: LossName) -> None:
    """See that the data says what to state.

    Raises:
        ValueError: a prompt lacks the column.
    """
    column = term.COLUMNS[loss]
    missing = [prompt.id for prompt in prompts if prompt.meta.get(column) is None]
    if missing:
        raise ValueError(
            f"confidence.target=data needs the column {column!r} in every row, and {len(missing):,} of "
            f"{len(prompts):,} prompts have none (the first: {missing[0]!r}). Add it, or type "
            "confidence.target=correctness or confidence.target=group_accuracy"
        )


def describe(tokenizer: PreTrainedTokenizerBase, tag: Tag, found: Decision) -> list[str]:
    """Lines for the terminal: each word's tokens, and where they differ."""
    lines: list[str] = []
    for word, ids, decides in ((tag.high, found.high_tokens, found.high_id), (tag.low, found.low_tokens, found.low_id)):
        shown = [repr(tokenizer.decode([token_id])) for token_id in ids]
        pieces = ", ".join(f"{i} ({s})" for i, s in zip(ids, shown, strict=True))
        if found.offset >= len(word):
            closing = f"{decides} ({tokenizer.decode([decides])!r}), which follows it"
            lines.append(f"{word!r} is how the other word begins: {pieces}; decided at {closing} and closes the tag")
        elif len(ids) == 1 and shown == [repr(word)]:
            lines.append(f"{word!r} is a single token: {decides}")
        elif len(ids) == 1:
            lines.append(f"{word!r} is part of a single token: {decides} ({shown[0]})")
        else:
            lines.append(f"{word!r} is {len(ids)} tokens: {pieces}; decided at {decides}, the first that differs")
    if max(len(found.high_tokens), len(found.low_tokens)) > 1:
        lines.append(f"Several tokens work. For single ones: {tokens.REMEDIES[0].lower()}{tokens.REMEDIES[1:]}.")
    return lines
