"""The grading process: bounded in time and memory, replaced when it falls, never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from burnish.rewards.worker import Worker

JOBS = "tests.unit.grading_jobs"
SECONDS = 0.5
SLACK = 5.0
"""What a loaded machine may add to a deadline."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(JOBS, seconds=SECONDS, memory=400 << 20) as worker:
        assert worker.call("double", number=1).value == 2
        yield worker


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_no_process_exists_before_the_first_job() -> None:
    assert Worker(JOBS, seconds=SECONDS).pid is None


@pytest.mark.parametrize("job", ["hang", "hang_in_c"])
def test_a_hanging_job_ends_at_its_deadline_and_the_next_job_is_right(worker: Worker, job: str) -> None:
    hung = worker.pid
    started = time.monotonic()
    reply = worker.call(job)
    elapsed = time.monotonic() - started

    assert reply.status == "timeout"
    assert SECONDS <= elapsed < SECONDS + SLACK
    assert "0.5 s" in reply.message
    assert hung is not None
    assert not is_running(hung)
    assert worker.call("double", number=21).value == 42


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is watched on Linux")
def test_the_memory_of_the_parent_is_not_counted() -> None:
    held = bytearray(os.urandom(1 << 20) * 300)
    with Worker(JOBS, seconds=60.0, memory=200 << 20) as worker:
        assert worker.call("double", number=2).value == 4
    assert len(held) == 300 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is watched on Linux")
def test_a_job_that_outgrows_its_memory_is_stopped_and_the_next_job_is_right() -> None:
    with Worker(JOBS, seconds=60.0, memory=200 << 20) as worker:
        reply = worker.call("bloat")
        assert (reply.status, reply.message) == ("oom", "grading needs more than 200 MiB")
        assert worker.call("double", number=2).value == 4


@pytest.mark.parametrize(("job", "args", "words"), [("die", {"code": 7}, "exit code 7"), ("leave", {}, "leaving")])
def test_the_death_of_the_process_is_an_error_and_the_next_job_is_right(
    worker: Worker, job: str, args: dict[str, int], words: str
) -> None:
    reply = worker.call(job, **args)
    assert reply.status == "error"
    assert words in reply.message
    assert worker.call("double", number=3).value == 6


def test_a_process_killed_from_outside_between_jobs_is_replaced(worker: Worker) -> None:
    assert worker.pid is not None
    killed = worker.pid
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: not is_running(killed), seconds=SLACK)
    assert worker.call("double", number=3).value == 6


def test_an_exception_is_an_error_with_its_words_and_the_process_lives_on(worker: Worker) -> None:
    before = worker.pid
    reply = worker.call("fail")
    assert (reply.status, reply.message) == ("error", "LookupError: no such thing")
    assert worker.pid == before


def test_only_listed_jobs_run(worker: Worker) -> None:
    assert worker.call("self_check").status == "error"
    assert worker.call("os.system", command="true").status == "error"


def test_what_a_job_prints_is_not_taken_for_its_reply(worker: Worker) -> None:
    assert worker.call("chatter").value == "said"
    assert worker.call("double", number=4).value == 8


def test_a_job_cannot_read_the_jobs_that_follow(worker: Worker) -> None:
    assert worker.call("read_input").value == ""


def test_the_process_loads_no_tensor_library(worker: Worker) -> None:
    assert worker.call("loaded").value == []


def test_calls_from_many_threads_get_their_own_replies(worker: Worker) -> None:
    replies: dict[int, object] = {}

    def ask(number: int) -> None:
        replies[number] = worker.call("double", number=number).value

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {number: 2 * number for number in range(16)}


def test_a_process_started_in_a_thread_outlives_the_thread() -> None:
    with Worker(JOBS, seconds=10.0) as worker:
        thread = threading.Thread(target=worker.call, args=("double",), kwargs={"number": 1})
        thread.start()
        thread.join()
        pid = worker.pid
        assert worker.call("double", number=5).value == 10
        assert worker.pid == pid


def test_an_interrupt_passes_through_and_the_next_job_gets_its_own_reply(tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with Worker(JOBS, seconds=60.0) as worker:
        worker.call("double", number=1)
        previous = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            with pytest.raises(KeyboardInterrupt):
                worker.call("sleep", started=str(tmp_path / "started"))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, previous)
        assert worker.call("double", number=6).value == 12


def test_closing_leaves_no_process_and_no_zombie(worker: Worker) -> None:
    pid = worker.pid
    assert pid is not None
    worker.close()
    assert worker.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_closed_worker_starts_again_when_asked(worker: Worker) -> None:
    worker.close()
    assert worker.call("double", number=7).value == 14


def test_a_process_that_does_not_start_says_why() -> None:
    with (
        Worker("tests.unit.broken_jobs", seconds=SECONDS) as worker,
        pytest.raises(RuntimeError, match="two and two make five"),
    ):
        worker.call("double", number=1)


def test_a_worker_that_nobody_closed_ends_with_its_interpreter() -> None:
    script = f"""
from burnish.rewards.worker import Worker
worker = Worker({JOBS!r}, seconds=60.0)
worker.call("double", number=1)
print(worker.pid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not is_running(int(done.stdout))


@pytest.mark.slow
@pytest.mark.parametrize("busy", [False, True])
def test_an_orphan_ends_by_itself(busy: bool) -> None:
    seconds = 2.0
    script = f"""
import threading, time
from burnish.rewards.worker import Worker
worker = Worker({JOBS!r}, seconds={seconds})
worker.call("double", number=1)
print(worker.pid, flush=True)
worker.call("hang") if {busy} else time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphan = int(parent.stdout.readline())
        time.sleep(0.5)
        assert is_running(orphan)
        parent.kill()
    # The kernel counts processor seconds, of which a loaded machine hands out fewer than the clock does.
    assert eventually(lambda: not is_running(orphan), seconds=60.0)
