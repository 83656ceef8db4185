"""Answers and functions that hang, bloat or crash end at the parent's deadline, and the next verdict is right."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from burnish.rewards.plain import plain
from burnish.rewards.plugins import Plugin
from burnish.rewards.verify import Verifier
from burnish.rewards.worker import Worker, usable_cores
from burnish.types import Completion, Prompt
from tests.unit.hostile_answers import COSTLY, FOOLING
from tests.unit.test_worker import eventually, is_running

pytestmark = pytest.mark.slow

SECONDS = 2.0
SLACK = 10.0
"""What a loaded machine may add."""
GROWTH = 50 << 20
"""Bytes that the parent may grow by."""

MORE: tuple[tuple[str, str], ...] = (
    ("1", "\\sqrt[" * 300 + "2" + "]{2}" * 300),
    ("1", "x^{" * 400 + "2" + "}" * 400),
    ("1", "\\frac{" * 2000),
    ("1", "a_" * 3000 + "1"),
    ("1", "\\begin{pmatrix}" + "&".join(["x"] * 2000) + "\\end{pmatrix}"),
    ("1", "\\sin" * 500 + "(1)"),
    ("1", "(x^2+1)^{500}"),
    ("1", "-" * 5000 + "1"),
    ("1", "\\log_{" * 200 + "2" + "}2" * 200),
    ("1", "0." + "\\overline{" + "3" * 5000 + "}"),
    ("1", "1/" * 5000 + "1"),
    ("1", "3" + "!" * 200),
    ("1", "=".join(["1"] * 3000)),
)
HOSTILE = (*COSTLY, *FOOLING, *MORE)


@pytest.mark.reliability(4)
def test_no_hostile_answer_is_right_outlasts_its_deadline_or_fills_the_parent(attempts: Callable[..., int]) -> None:
    assert len(HOSTILE) == 100
    chosen = HOSTILE[:: 100 // attempts(quick=20, long=100)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    wrong: list[tuple[str, str]] = []
    with Verifier("boxed", right=1.0, wrong=0.0, seconds=SECONDS) as verify:
        for gold, answer in chosen:
            started = time.monotonic()
            score = verify(f"\\boxed{{{answer}}}", gold)
            late = time.monotonic() - started > SECONDS + SLACK
            # A fault has no number, and what was judged is not right.
            if late or score.status == "ok" or (score.status == "timeout") != (score.total is None):
                wrong.append((answer[:60], score.status))
        verify.check()
    assert wrong == []
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < GROWTH


@pytest.mark.reliability(4)
def test_what_hangs_the_algebra_system_itself_is_killed_by_the_parent(attempts: Callable[..., int]) -> None:
    """The same answers without the limits in front of it: many run into the deadline, and nothing else happens."""
    chosen = [pair for pair in HOSTILE if 0 < len(pair[1]) < 4096]
    chosen = chosen[:: max(1, len(chosen) // attempts(quick=12, long=len(chosen)))]
    asked = [{"gold": plain(gold), "answer": plain(answer), "links": []} for gold, answer in chosen]
    with Worker("burnish.rewards.symbolic", seconds=SECONDS, size=usable_cores()) as worker:
        replies = worker.call_all("equal", asked)
        late = [reply for reply in replies if reply.status == "timeout"]
        assert late
        assert all(SECONDS <= reply.seconds < SECONDS + SLACK and reply.value is None for reply in late)
        assert worker.restarts >= len(late)
        assert worker.call("equal", gold="x^2-1", answer="(x-1)(x+1)", links=[]).value is True


@pytest.mark.reliability(4)
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is watched on Linux")
def test_a_process_is_killed_beyond_a_gigabyte() -> None:
    with Worker("tests.unit.grading_jobs", seconds=120.0) as worker:
        assert worker.call("bloat").message == "grading needs more than 1024 MiB"
        assert worker.call("double", number=2).value == 4


@pytest.mark.reliability(5)
def test_one_long_computation_in_c_which_no_signal_interrupts_ends_at_the_deadline(
    attempts: Callable[..., int],
) -> None:
    with Worker("tests.unit.grading_jobs", seconds=SECONDS) as worker:
        for attempt in range(attempts(quick=2, long=20)):
            assert worker.call("double", number=attempt).value == 2 * attempt
            (pid,) = worker.pids
            reply = worker.call("hang_in_c")
            assert (reply.status, SECONDS <= reply.seconds < SECONDS + SLACK) == ("timeout", True)
            assert not is_running(pid)


def test_the_long_computation_is_one_that_no_signal_interrupts() -> None:
    """Otherwise the test above would prove nothing."""
    code = "import signal; signal.alarm(1); from tests.unit.grading_jobs import hang_in_c; hang_in_c()"
    handled = "import signal; signal.signal(signal.SIGALRM, lambda *_: exit(0)); " + code
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", handled], timeout=4.0, check=False)


HANGING = {
    "loop": "    while True: pass",
    "swallow": "    while True:\n        try:\n            raise ValueError\n        except BaseException: continue",
    "in_c": "    return sum(range(10**12))",
    "sleep": "    import time; time.sleep(10**6)",
    "lock": "    import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "ignored_signals": "    import signal, time\n"
    "    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM): signal.signal(number, signal.SIG_IGN)\n"
    "    time.sleep(10**6)",
}
PLUGIN = "import os\ndef reward(solution_str):\n    if solution_str != 'hang': return 1.0\n{body}\n"
PROMPT = Prompt("p", text="?", answer="1")


def completion(text: str) -> Completion:
    return Completion(array("i", [0]), array("i", [1]), array("f", [0.0]), text, "stop", 0)


@pytest.fixture
def plugin(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Plugin]:
    path = tmp_path / "rewards.py"
    path.write_text(PLUGIN.format(body=HANGING[request.param]))
    plugin = Plugin(f"{path}:reward", seconds=1.0)
    yield plugin
    plugin.close()


@pytest.mark.reliability(6)
@pytest.mark.parametrize("plugin", HANGING, indirect=True)
def test_a_hanging_function_is_killed_and_the_next_completion_is_scored(
    plugin: Plugin, attempts: Callable[..., int]
) -> None:
    for _ in range(attempts(quick=1, long=5)):
        pids = plugin._host._worker.pids
        hung, good = plugin(PROMPT, [completion("hang"), completion("x")])
        assert (hung.status, hung.value, good.status, good.value) == ("timeout", None, "ok", 1.0)
        assert not any(is_running(pid) for pid in pids)
    pids = plugin._host._worker.pids
    plugin.close()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)  # not even as zombies


@pytest.mark.reliability(6)
@pytest.mark.parametrize("hang", HANGING)
def test_no_process_outlives_a_killed_trainer(hang: str, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(PLUGIN.format(body=HANGING[hang]))
    script = f"""
from burnish.rewards.plugins import Plugin
from tests.reliability.test_reward_deadlines import PROMPT, completion
plugin = Plugin("{tmp_path / "rewards.py"}:reward", seconds=2.0)
print(*plugin._host._worker.pids, flush=True)
plugin(PROMPT, [completion("hang")] * 1000)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        orphans = [int(pid) for pid in trainer.stdout.readline().split()]
        time.sleep(1.0)
        os.kill(trainer.pid, signal.SIGKILL)
    assert orphans
    # A loop in C is ended by the kernel, after seconds of processor time that a loaded machine is slow to give.
    assert eventually(lambda: not any(is_running(pid) for pid in orphans), seconds=90.0)
