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

from burnish.rewards.worker import StartError, Worker

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
    assert Worker(JOBS, seconds=SECONDS).pids == []


@pytest.mark.parametrize("job", ["hang", "hang_in_c"])
def test_a_hanging_job_ends_at_its_deadline_and_the_next_job_is_right(worker: Worker, job: str) -> None:
    hung = worker.pids[0]
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
    killed = worker.pids[0]
    os.kill(killed, signal.SIGKILL)
    assert eventually(lambda: not is_running(killed), seconds=SLACK)
    assert worker.call("double", number=3).value == 6


def test_processes_that_replace_one_another_are_forks_of_one_that_imported(worker: Worker) -> None:
    (first,), server = worker.pids, worker.call("imported_by").value
    assert worker.call("hang").status == "timeout"
    assert worker.call("imported_by").value == server
    assert server not in (first, *worker.pids)


def test_the_death_of_the_process_that_imported_is_no_fault_of_any_job(tmp_path: Path) -> None:
    """Between two jobs, and while one is running, which then runs again in a fork of another."""
    with Worker(JOBS, seconds=60.0, size=2) as worker:
        os.kill(worker.call("imported_by").value, signal.SIGKILL)
        assert eventually(lambda: not any(map(is_running, worker.pids)), SLACK)
        replies = worker.call_all("double", [{"number": n} for n in range(4)])
        assert [reply.value for reply in replies] == [0, 2, 4, 6]
        kill = threading.Thread(target=kill_when_there, args=(tmp_path / "kills", worker.call("imported_by").value))
        kill.start()
        reply = worker.call("wait_until_killed", path=str(tmp_path / "kills"))
        kill.join()
        assert (reply.status, reply.value) == ("done", "again")


def kill_when_there(path: Path, pid: int) -> None:
    assert eventually(path.exists, SLACK)
    os.kill(pid, signal.SIGKILL)


def test_an_exception_is_an_error_with_its_words_and_the_process_lives_on(worker: Worker) -> None:
    before = worker.pids[0]
    reply = worker.call("fail")
    assert (reply.status, reply.message) == ("error", "LookupError: no such thing")
    assert worker.pids[0] == before


def test_only_listed_jobs_run(worker: Worker) -> None:
    assert worker.call("self_check").status == "error"
    assert worker.call("os.system", command="true").status == "error"


def test_what_a_job_prints_is_not_taken_for_its_reply(worker: Worker) -> None:
    assert worker.call("chatter").value == "said"
    assert worker.call("double", number=4).value == 8


def test_a_job_cannot_read_the_jobs_that_follow(worker: Worker) -> None:
    assert worker.call("read_input").value == ""


def test_what_a_job_starts_cannot_speak_in_its_place(worker: Worker) -> None:
    assert worker.call("inheritable").value == []


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


def test_jobs_spread_over_processes_come_back_in_their_order() -> None:
    alone, together = Worker(JOBS, seconds=60.0), Worker(JOBS, seconds=60.0, size=3)
    with alone, together:
        numbers = [{"number": n} for n in range(40)]
        assert together.call_all("double", numbers) != []
        replies = [[r.value for r in worker.call_all("double", numbers)] for worker in (alone, together)]
        assert replies[0] == replies[1] == [2 * n for n in range(40)]
        assert (len(alone.pids), len(together.pids)) == (1, 3)


def test_one_job_starts_one_process_though_more_are_allowed() -> None:
    with Worker(JOBS, seconds=60.0, size=3) as worker:
        assert worker.call("double", number=1).value == 2
        assert len(worker.pids) == 1


def test_a_job_that_hangs_holds_up_only_its_own_process() -> None:
    with Worker(JOBS, seconds=3.0, size=2) as worker:
        worker.call_all("double", [{"number": 1}] * 2)
        replies = worker.call_all("nap", [{"seconds": 600.0}, *[{"seconds": 0.0}] * 5])
        assert [r.status for r in replies] == ["timeout", *["done"] * 5]
        assert worker.restarts == 1


def test_a_job_whose_process_was_killed_from_outside_is_run_again(tmp_path: Path) -> None:
    with Worker(JOBS, seconds=60.0) as worker:
        reply = worker.call("killed_until", path=str(tmp_path / "kills"), kills=3)
        assert (reply.status, reply.value) == ("done", 3)
        assert worker.restarts == 3


def test_a_job_that_always_gets_its_process_killed_is_given_up() -> None:
    with Worker(JOBS, seconds=60.0) as worker:
        reply = worker.call("kill_me")
        assert (reply.status, reply.message) == ("error", "the grading process died: killed by SIGKILL")


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is watched on Linux")
def test_what_earlier_jobs_left_in_memory_is_no_fault_of_the_next() -> None:
    with Worker(JOBS, seconds=60.0, memory=200 << 20) as worker:
        replies = [worker.call("keep", mebibytes=60) for _ in range(8)]
        assert [r.status for r in replies] == ["done"] * 8
        assert worker.restarts > 0


def test_a_job_larger_than_a_pipe_to_a_process_that_does_not_read_meets_its_deadline(worker: Worker) -> None:
    os.kill(worker.pids[0], signal.SIGSTOP)
    assert worker.call("length", text="x" * (1 << 22)).status == "timeout"
    with Worker(JOBS, seconds=60.0) as patient:
        assert patient.call("length", text="x" * (1 << 22)).value == 1 << 22


def test_a_fork_has_a_process_of_its_own_and_leaves_its_parents_alone(worker: Worker) -> None:
    pid = os.fork()
    if pid == 0:
        right = worker.call("double", number=5).value == 10
        worker.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert is_running(worker.pids[0])
    assert worker.call("double", number=6).value == 12


def test_what_jobs_print_does_not_pile_up(worker: Worker) -> None:
    for _ in range(5):
        worker.call("print_", text="x" * (1 << 20))
    (child,) = worker._children
    assert os.fstat(child._log.fileno()).st_size <= 1 << 20


def test_a_set_up_process_runs_its_setup_before_any_job() -> None:
    given = iter(range(1, 100))
    with Worker(JOBS, seconds=SECONDS, setup=lambda: ("remember", {"value": next(given)})) as worker:
        assert worker.call("recall").value == 1
        assert worker.call("hang").status == "timeout"
        assert worker.call("recall").value == 2


def test_a_setup_that_fails_says_why() -> None:
    with (
        Worker(JOBS, seconds=SECONDS, setup=lambda: ("fail", {})) as worker,
        pytest.raises(StartError, match="no such thing"),
    ):
        worker.call("recall")


def test_a_process_started_in_a_thread_outlives_the_thread() -> None:
    with Worker(JOBS, seconds=10.0) as worker:
        thread = threading.Thread(target=worker.call, args=("double",), kwargs={"number": 1})
        thread.start()
        thread.join()
        pid = worker.pids[0]
        assert worker.call("double", number=5).value == 10
        assert worker.pids[0] == pid


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
    pids = [worker.pids[0], worker.call("imported_by").value]
    worker.close()
    assert worker.pids == []
    for pid in pids:
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
print(worker.pids[0])
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
print(worker.pids[0], worker.call("imported_by").value, flush=True)
worker.call("hang") if {busy} else time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        orphans = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.5)
        assert all(map(is_running, orphans))
        parent.kill()
    # The kernel counts processor seconds, of which a loaded machine hands out fewer than the clock does.
    assert eventually(lambda: not any(map(is_running, orphans)), seconds=60.0)
