"""What was graded and recorded is not graded again when a resumed run repeats the step."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from burnish.launch.facts import Recorded
from burnish.store import queries
from burnish.store.scores import RecordedScore
from burnish.store.text import text_sha
from burnish.types import Completion, Prompt, Score
from tests.e2e.conftest import TINY_STEPS, Command
from tests.e2e.test_resume import assert_same_run, stop_at

__all__ = ["stop_at"]

PROMPT = Prompt("p", text="?", answer="1")
WRITING = """
def reward(completions, **columns):
    with open("{calls}", "a") as calls:
        print(*completions, sep="\\n", file=calls)
    return [None if "7" in text else float(len(text) % 3) for text in completions]
"""


def completion(*tokens: int, version: int = 3) -> Completion:
    ids = array("i", tokens)
    return Completion(array("i", [0]), ids, array("f", [0.0] * len(ids)), "text", "stop", version)


def fact(status: str, total: float | None = None, message: str | None = None) -> RecordedScore:
    return RecordedScore(status, total, total, {} if total is None else {"own": total}, None, message, 1.0)  # pyright: ignore


def test_a_recorded_score_is_taken_for_its_own_completion_alone() -> None:
    one = completion(1, 2)
    asked: list[int] = []

    def grade(prompt: Prompt, completions: list[Completion]) -> list[Score]:
        asked.append(len(completions))
        return [Score(9.0, 9.0) for _ in completions]

    reward = Recorded(grade, {(3, "p", 0, text_sha(one.token_ids)): fact("wrong", 0.5)})  # pyright: ignore
    (known,) = reward(PROMPT, [one])
    assert (known.total, known.parts, known.status, asked) == (0.5, {"own": 0.5}, "wrong", [])
    others = [[completion(1, 3)], [completion(1, 2, version=4)]]
    assert [reward(PROMPT, other)[0].total for other in others] == [9.0, 9.0]
    assert [score.total for score in reward(PROMPT, [one, one])] == [0.5, 9.0]
    assert reward(Prompt("q", text="?"), [one])[0].total == 9.0


def test_a_fault_stays_a_fault_and_what_cannot_be_told_is_graded() -> None:
    one, other = completion(1), completion(2)
    recorded = {
        (3, "p", 0, text_sha(one.token_ids)): fact("timeout", message="no verdict within 5 s"),
        (3, "p", 1, text_sha(other.token_ids)): fact("unparsed", -1.0),
    }
    reward = Recorded(lambda prompt, completions: [Score(9.0, 9.0) for _ in completions], recorded)  # pyright: ignore
    late, graded = reward(PROMPT, [one, other])
    assert (late.status, late.total, late.message) == ("timeout", None, "no verdict within 5 s")
    assert graded.total == 9.0


@pytest.mark.slow
def test_repeated_steps_are_not_graded_again(
    burnish: Command,
    model_dir: Callable[[str], Path],
    sums: Path,
    tmp_path: Path,
    stop_at: Callable[[int], None],
) -> None:
    """Stopped at step 3 with a checkpoint of step 2: step 3 is repeated, and only step 4 is graded."""
    (tmp_path / "rewards.py").write_text(WRITING.format(calls=tmp_path / "calls"))
    words = [
        *("train", *TINY_STEPS, f"model.path={model_dir('llama')}", f"data.train={sums}", "train.steps=4"),
        *("checkpoint.every=2", "reward.style=none", "objective.dynamic_sampling=false"),
        f"reward.parts.own.function={tmp_path / 'rewards.py'}:reward",
        *("reward.parts.truncated.weight=0.5", "reward.timeout=60"),
    ]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert burnish(*words, f"out={whole}").code == 0
    stop_at(3)
    assert burnish(*words, f"out={stopped}").code == 130
    before = len((tmp_path / "calls").read_text().splitlines())
    resumed = burnish("train", "--resume", stopped)
    assert resumed.code == 0, resumed.err
    assert_same_run(whole, stopped)
    graded = len((tmp_path / "calls").read_text().splitlines()) - before
    assert graded == 8 + 32  # tried out on two prompts, twice, two completions each; then step 4 alone
    with queries.open_store(stopped / "run.sqlite") as db:
        assert [row["step"] for row in queries.steps(db)] == [1, 2, 3, 4]
    db.close()
