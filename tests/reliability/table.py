"""The table of promises in `docs/reliability.md`: what is tested, by which tests, and what came of it.

python -m tests.reliability.table                          rows and their tests, nothing measured
python -m tests.reliability.table runs/reliability.md      as `make reliability` measured it
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from functools import cache
from pathlib import Path

from tests.reliability.rows import ROWS, WAITING

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
BEGIN, END = "<!-- table -->", "<!-- /table -->"
HEAD = "| row | promise | attempts | passed | tests |\n|---:|---|---:|---:|---|"


def table(made: Mapping[int, int], passed: Mapping[int, int], tests: Mapping[int, Set[str]]) -> str:
    """A line for each row. `tests`: names such as `unit/test_store.py::test_x`; rows that were not run have none."""
    lines = [HEAD]
    for row, promise in ROWS.items():
        where = ", ".join(f"`{test}`" for test in sorted(tests.get(row, ()))) or WAITING.get(row, "none")
        lines.append(f"| {row} | {promise} | {made.get(row, '')} | {passed.get(row, '')} | {where} |")
    return "\n".join(lines) + "\n"


@cache
def marked() -> Mapping[int, Set[str]]:
    """Row -> the tests whose source says that they cover it."""
    found: defaultdict[int, set[str]] = defaultdict(set)
    for path in sorted(TESTS.rglob("test_*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        of_module = [row for node in body if _is_pytestmark(node) for row in _rows(node)]
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                of_test = [row for mark in node.decorator_list for row in _rows(mark)]
                for row in of_module + of_test:
                    found[row].add(f"{path.relative_to(TESTS).as_posix()}::{node.name}")
    return found


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]


def _rows(node: ast.AST) -> Iterator[int]:
    """Arguments of `pytest.mark.reliability(...)` anywhere within."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.reliability":
            yield from (argument.value for argument in call.args if isinstance(argument, ast.Constant))


def publish(content: str) -> None:
    """Put a table into the page."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{content}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    publish(Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else table({}, {}, marked()))
