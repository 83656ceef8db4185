"""`ScriptedEngine`: a rollout engine whose completions are written by a function. For tests, yours included.

Example:
    engine = ScriptedEngine(lambda prompt, sample, seed: "Answer: 4" if sample % 2 else "Answer: 5")
    engine.load(Publication(version=0, weights=None))
    groups = dict(engine.generate([Request(id=0, prompt=Prompt(id="2+2", text="2+2="), seeds=(1, 2))], Sampling()))
    groups[0][1].text                      # "Answer: 4"
    engine.requests, engine.versions       # what the loop under test asked for, and what it published

Without a tokenizer, one character is one token and its id is its code point; id 0 ends a completion.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from burnish.protocols import Publication
from burnish.types import Completion, Prompt, Request, Sampling


@dataclass(frozen=True, slots=True)
class Scripted:
    """A completion in pieces, where the text alone does not say enough."""

    text: str
    logprobs: Sequence[float] | None = None
    """One per token, the end of sequence included; None gives every token the engine's `logprob`."""
    ends: bool = True
    """False: no end of sequence follows, so the finish reason is `length` although there is room."""


Script = Callable[[Prompt, int, int], str | Scripted]
"""(prompt, sample index, seed) -> what the policy says."""


def code_points(text: str) -> list[int]:
    return [ord(character) for character in text]


def from_code_points(token_ids: Sequence[int]) -> str:
    return "".join(chr(token_id) for token_id in token_ids)


class ScriptedEngine:
    """A `RolloutEngine` without a model."""

    def __init__(
        self,
        script: Script,
        *,
        encode: Callable[[str], Sequence[int]] = code_points,
        decode: Callable[[Sequence[int]], str] = from_code_points,
        eos_id: int = 0,
        logprob: float = -1.0,
        order: Callable[[Sequence[Request]], Iterable[Request]] = tuple,
    ) -> None:
        """
        Args:
            script: called once per completion, when its request is answered.
            encode: text -> token ids, for prompts and completions; `decode` is its inverse, used on what is cut at
                `max_new_tokens`.
            logprob: of every token.
            order: the order in which requests finish; `reversed` puts the last first.
        """
        self._script = script
        self._encode = encode
        self._decode = decode
        self._eos_id = eos_id
        self._logprob = logprob
        self._order = order
        self.requests: list[Request] = []
        """Every request so far."""
        self.samplings: list[Sampling] = []
        """The sampling of every call of `generate`."""
        self.versions: list[int] = []
        """The version of every publication that was loaded."""

    def load(self, publication: Publication, /) -> None:
        self.versions.append(publication.version)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        """Yield (request id, its completions in seed order), in the engine's `order`.

        Raises:
            ValueError: nothing was loaded, or a scripted completion has another number of log-probs than of tokens.
        """
        if not self.versions:
            raise ValueError("The engine has no weights yet. Call load(publication) before generate.")
        self.requests.extend(requests)
        self.samplings.append(sampling)
        return self._stream(requests, sampling, self.versions[-1])

    def _stream(
        self, requests: Sequence[Request], sampling: Sampling, version: int
    ) -> Iterator[tuple[int, tuple[Completion, ...]]]:
        for request in self._order(requests):
            yield (
                request.id,
                tuple(
                    self._completion(request.prompt, self._script(request.prompt, i, seed), sampling, version)
                    for i, seed in enumerate(request.seeds)
                ),
            )

    def _completion(self, prompt: Prompt, said: str | Scripted, sampling: Sampling, version: int) -> Completion:
        scripted = Scripted(said) if isinstance(said, str) else said
        whole = [*self._encode(scripted.text), *([self._eos_id] if scripted.ends else [])]
        token_ids = whole[: sampling.max_new_tokens]
        logprobs = [self._logprob] * len(whole) if scripted.logprobs is None else scripted.logprobs
        if len(logprobs) != len(whole):
            raise ValueError(
                f"The script gave {len(logprobs)} log-probs for {len(whole)} tokens (end of sequence included). Give "
                "one per token, or None."
            )
        cut = len(token_ids) < len(whole)
        return Completion(
            prompt_ids=array("i", self._encode(prompt.shown)),
            token_ids=array("i", token_ids),
            logprobs=array("f", logprobs[: len(token_ids)]),
            text=self._decode(token_ids) if cut else scripted.text,
            finish_reason="stop" if scripted.ends and not cut else "length",
            policy_version=version,
        )
