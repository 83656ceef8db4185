"""How many attempts a reliability test makes, and the table of what came of them.

pytest                                              a few attempts of each
pytest -m reliability --long --table FILE.md        as many as promised (`make reliability`), and the table
"""

from __future__ import annotations

import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.rows import ROWS
from tests.reliability.table import table

PROPERTY = "reliability"
LONG_SECONDS = 2400
"""One test may take with `--long`."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("reliability")
    group.addoption("--long", action="store_true", help="make as many attempts as promised, and run tests marked long")
    group.addoption("--table", type=Path, help="write what came of the reliability tests into this file")


def pytest_configure() -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if config.getoption("--long"):
            item.add_marker(pytest.mark.timeout(LONG_SECONDS))
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="long: runs in `make reliability`"))
        rows = [row for marker in item.iter_markers("reliability") for row in marker.args]
        unknown = set(rows) - set(ROWS)
        assert not unknown, f"{item.nodeid}: no such row of tests/reliability/rows.py: {unknown}"


@pytest.fixture
def attempts(request: pytest.FixtureRequest) -> Callable[..., int]:
    """`attempts(quick=2, long=20)`: how many to make now.

    The test counts as that many attempts in the table, all passed if it passes and none if it fails; a test without
    this fixture counts as one."""

    def choose(*, quick: int, long: int) -> int:
        made = long if request.config.getoption("--long") else quick
        request.node.stash[MADE] = request.node.stash.get(MADE, 0) + made
        return made

    return choose


MADE = pytest.StashKey[int]()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    if call.when == "call":
        for row in [row for marker in item.iter_markers("reliability") for row in marker.args]:
            item.user_properties.append((PROPERTY, [row, item.stash.get(MADE, 1)]))
    yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    out: Path | None = config.getoption("--table")
    if out is None:
        return
    made, passed, tests = defaultdict[int, int](int), defaultdict[int, int](int), defaultdict[int, set[str]](set)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", []):
                if name == PROPERTY and report.when == "call":
                    row, count = value
                    made[row] += count
                    passed[row] += count if outcome == "passed" else 0
                    tests[row].add(report.nodeid.partition("[")[0].partition("tests/")[2])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(table(made, passed, tests), encoding="utf-8")
    terminalreporter.write_line(
        f"reliability: {sum(passed.values())} of {sum(made.values())} attempts passed; see {out}"
    )
