"""Text and fingerprints as the store keeps them."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from burnish.records import StepRecord
from burnish.types import Prompt, Rollout

Number = TypeVar("Number", float, float | None)


def clean(text: str) -> tuple[str, bool]:
    """The text with lone surrogates replaced by U+FFFD, and whether there were any.

    A completion can contain them (a token that ends inside a character, decoded with `surrogateescape`), and neither
    SQLite nor UTF-8 can hold them. NUL and other control characters stay as they are.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), True
    return text, False


def packed(text: str) -> bytes:
    """zlib of the UTF-8 of clean text, at its usual level: a tenth smaller than at the first."""
    return zlib.compress(text.encode())


def unpacked(blob: bytes) -> str:
    return zlib.decompress(blob).decode()


def json_text(value: Any) -> str:
    """JSON with sorted keys. What JSON cannot say is written as its `str`, numbers that are not finite too: SQLite's
    own functions refuse a text with a bare NaN in it."""
    try:
        return json.dumps(value, sort_keys=True, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), sort_keys=True, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def text_sha(token_ids: Any) -> int:
    """Signed 64-bit fingerprint of a completion's token ids (array('i'))."""
    return int.from_bytes(hashlib.sha256(token_ids.tobytes()).digest()[:8], "little", signed=True)


def suite_sha(prompts: Sequence[Prompt]) -> str:
    """Fingerprint of a set of prompts: their ids, what they show, their answers, in order."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps([prompt.id, prompt.shown, prompt.answer]).encode())
    return digest.hexdigest()


def content_sha(step: StepRecord) -> bytes:
    """Fingerprint of all that a step recorded but wall-clock times: two runs that agree on it did the same."""
    digest = hashlib.sha256()
    digest.update(repr((step.step, step.policy_version, step.num_updates, step.num_rounds)).encode())
    for judged in step.judged:
        group = judged.group
        digest.update(json.dumps([group.id, group.prompt.id, judged.outcome, judged.round]).encode())
        for sibling, rollout in enumerate(group.rollouts):
            _add_rollout(digest, rollout)
            trace = step.traces.get((group.id, sibling))
            if trace is not None:
                digest.update(repr((float(trace.advantage), trace.confidence, trace.target)).encode())
    digest.update(repr(sorted(timeless(step.metrics).items())).encode())
    return digest.digest()


def timeless(metrics: Mapping[str, Number]) -> dict[str, Number]:
    """The metrics that a repeated run must reproduce: all but those of the machine it ran on."""
    machine = ("time/", "throughput/", "rollouts/restarts")
    return {name: value for name, value in metrics.items() if not name.startswith(machine)}


def verdict(rollout: Rollout) -> tuple[Any, ...]:
    """What grading said, without how long it took."""
    score = rollout.score
    return (score.status, score.raw, score.total, sorted(score.parts.items()), score.answer, score.message)


def _add_rollout(digest: Any, rollout: Rollout) -> None:
    completion = rollout.completion
    digest.update(completion.token_ids.tobytes())
    digest.update(completion.logprobs.tobytes())
    digest.update(repr((completion.finish_reason, completion.policy_version, verdict(rollout))).encode())
