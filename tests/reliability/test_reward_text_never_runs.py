"""No text of a model, and none of a data set, is ever executed by what grades it."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from burnish.rewards import equivalence, extract, known, limits, numbers, plain, verify
from burnish.rewards.extract import Style
from burnish.rewards.good_accuracy import good_accuracy
from burnish.rewards.verify import Verifier
from tests.reliability.hostile_code import Traps, deeds, payloads

MODULES: tuple[ModuleType, ...] = (equivalence, extract, known, limits, numbers, plain, verify)
STATED: dict[Style, str] = {
    "dapo": "Answer: {}",
    "gsm8k": "#### {}",
    "boxed": "\\boxed{{{}}}",
    "auto": "<answer>{}</answer>",
    "equivalence": "The answer is ${}$.",
}
GOLDS = ("5", "\\pi", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", "x+1")


@pytest.fixture
def traps(tmp_path: Path) -> Iterator[tuple[Traps, Callable[[], list[str]]]]:
    """The traps, and what has gone into them since they were last looked at."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        marker = tmp_path / "m"

        def caught() -> list[str]:
            found = ["file"] if marker.exists() else []
            marker.unlink(missing_ok=True)
            try:
                server.accept()[0].close()
            except BlockingIOError:
                return found
            return [*found, "call"]

        yield Traps(str(marker), server.getsockname()[1]), caught


def test_the_payloads_are_live_and_as_many_as_promised(traps: tuple[Traps, Callable[[], list[str]]]) -> None:
    """Otherwise the test below could not fail."""
    made, caught = traps
    assert len(set(payloads(made))) == 200
    for deed in deeds(made):
        subprocess.run([sys.executable, "-c", deed], check=True)
        assert caught() in (["file"], ["call"]), deed
    homoglyphs = payloads(made)[-8]
    assert not homoglyphs.isascii()


@pytest.mark.slow
@pytest.mark.reliability(3)
@pytest.mark.parametrize("style", get_args(Style))
def test_no_payload_runs_as_an_answer_or_as_a_gold_answer(
    style: Style, traps: tuple[Traps, Callable[[], list[str]]], attempts: Callable[..., int]
) -> None:
    made, caught = traps
    found = payloads(made)[:: 200 // attempts(quick=20, long=200)]
    identity = {module.__name__: dict(vars(module)) for module in MODULES}
    with Verifier(style, right=1.0, wrong=0.0, seconds=20.0) as verifier:
        verifier.check()
        graders = verifier._worker.pids
        for payload, gold in zip(found, itertools.cycle(GOLDS), strict=False):
            assert verifier(STATED[style].format(payload), gold).status in ("wrong", "unparsed", "error"), payload
            assert verifier(STATED[style].format("7"), payload).status in ("wrong", "unparsed", "error"), payload
            assert good_accuracy(solution_str=payload, ground_truth=gold)["acc"] is False
        assert caught() == []
        assert verifier._worker.pids == graders
        verifier.check()
    assert identity == {module.__name__: dict(vars(module)) for module in MODULES}
