"""SQL with names in it. Values are always parameters; names cannot be, so they are let in here and nowhere else."""

from __future__ import annotations

import re

_NAMES = re.compile(r"\w+(, \w+)*", re.ASCII)


def named(template: str, *names: str | int) -> str:
    """The statement with names of tables or columns (or numbers) in its braces, in order.

    Raises:
        ValueError: one is no name, as can be in a file of somebody else's making.

    Example:
        named("SELECT {} FROM {}", "step, started", "steps") == "SELECT step, started FROM steps"
    """
    for name in names:
        if not _NAMES.fullmatch(str(name)):
            raise ValueError(f"{name!r} is no name of a table or column; the file is no record of a run")
    return template.format(*names)
