"""What a reward needs beside being called: checks, state, processes to end."""

from __future__ import annotations

from typing import Any


class Upkeep:
    """What a reward, or a part of one, needs beside being called; a reward class may inherit it and say what differs
    from a plain function."""

    def check(self) -> None:
        """Put known questions to it.

        Raises:
            TrainingError: it does not tell right from wrong.
        """

    def state_dict(self) -> Any:
        """Everything but its arguments that decides what it returns next, as plain JSON values; None without any."""
        return None

    def load_state_dict(self, state: Any, /) -> None:
        """Go on from there."""

    def remarks(self) -> list[str]:
        """What a person should know of it, once it has been called a few times."""
        return []

    @property
    def restarts(self) -> int:
        """Processes of it that had to be replaced."""
        return 0

    @property
    def overlaps(self) -> bool:
        """Whether it may be called in a thread of its own, while the engine generates in the main one.

        Not where it depends on the main thread (signals, an event loop), on torch's modes or threads, on generators
        that the process shares, or may spend long in one call that holds the interpreter.
        """
        return False

    def close(self) -> None:
        """End the processes that it started. A call that another thread is in ends soon, with an exception there."""


NO_UPKEEP = Upkeep()
