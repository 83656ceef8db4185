"""Reward plugins: a user's function from a file, as a part of a reward.

    Plugin -> Host (plugin_hosts.py) -> Worker -> child process: plugin_jobs.py -> Adapted (adapters.py) -> the function

A plugin is trusted code: loading it runs it, with the user's own rights. By default it runs in a child process, which
is no sandbox but a bulkhead: a call that hangs is killed at its deadline, one that grows too large or crashes ends
alone, and each of these is a status and never a number. What such a function prints is not shown.

With `isolated=False` it runs in this process: it may print, keep what JSON cannot carry, and hang the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from burnish.rewards.load import locate
from burnish.rewards.measured import Measured, invalid
from burnish.rewards.plugin_hosts import Here, Host, InChild
from burnish.rewards.upkeep import Upkeep
from burnish.types import FAULTS, Completion, Prompt


class Plugin(Upkeep):
    """A function from a file, as a part of a reward; `close` ends its process.

    Example:
        Plugin("rewards.py:clarity", args={"target": 8}, seconds=5.0)
    """

    def __init__(
        self,
        target: str,
        *,
        args: Mapping[str, Any] | None = None,
        entries: Sequence[str] = (),
        seconds: float,
        isolated: bool = True,
    ) -> None:
        """Load the function.

        Args:
            target: `path/to/file.py:function`.
            args: keyword arguments for every call.
            entries: what the mappings that it returns must have beside `score`.
            seconds: that one completion may take; all of a prompt's, when the function is called once for all.
            isolated: run it in a child process.

        Raises:
            ValueError: the function cannot be found, loaded or called.
        """
        self.source = locate(target)
        self._entries = tuple(entries)
        host = InChild if isolated else Here
        self._host: Host = host(self.source, dict(args or {}), seconds)
        self._where = "in a process of its own" if isolated else "in this process"
        self._convention = self._host.load()

    def __str__(self) -> str:
        """For the header of a run: exactly which code is trusted."""
        return (
            f"reward plugin {self.source} (sha256 {self.source.sha256}), trusted code, called as {self._convention}, "
            f"{self._where}"
        )

    def __call__(self, prompt: Prompt, completions: Sequence[Completion], /) -> list[Measured]:
        found = self._host.measure(prompt, completions)
        return [self._named(self._complete(measured), index) for index, measured in enumerate(found)]

    @property
    def restarts(self) -> int:
        return self._host.restarts

    def state_dict(self) -> Any:
        return self._host.state_dict()

    def load_state_dict(self, state: Any, /) -> None:
        self._host.load_state_dict(state)

    def remarks(self) -> list[str]:
        names = self._host.undeclared()
        if not names:
            return []
        return [
            f"{self.source} remembers something from call to call ({', '.join(names)}), which a resumed run will not "
            "have. Give it state_dict and load_state_dict, or let it remember nothing"
        ]

    def close(self) -> None:
        self._host.close()

    def _complete(self, measured: Measured) -> Measured:
        absent = [name for name in self._entries if name not in measured.parts]
        if not absent or measured.value is None:
            return measured
        found = ", ".join(measured.parts) or "none"
        return invalid(f"returned no entry {absent[0]!r}, which the configuration names (entries: {found})")

    def _named(self, measured: Measured, index: int) -> Measured:
        if measured.status not in FAULTS:
            return measured
        return replace(measured, message=f"{self.source}, completion {index}: {measured.message}")
