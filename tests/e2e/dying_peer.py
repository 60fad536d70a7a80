"""``orderbook``, killed as by ``kill -9`` at the moments that matter, when told to.

A file ``maker`` in the folder ``DIES_WHEN`` makes it die when it has executed somebody's match and that is
durable, and nothing of its answer has left; a file ``taker`` when it has just asked somebody to execute.
"""

from __future__ import annotations

import os
import signal
import sys
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orderbook import hosted
from orderbook.cli import main
from orderbook.events import Event, Executed, Intended
from orderbook.journal.file import JournalFile
from orderbook.journal.writer import SqliteJournal

WHEN = Path(os.environ["DIES_WHEN"])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingJournal:
    """A journal that dies instead of what a step has promised, or just after it."""

    def __init__(self, file: JournalFile, loop: AbstractEventLoop):
        self._journal = SqliteJournal(file, loop)
        self._peer = sys.argv[sys.argv.index("--name") + 1]
        self._step: Sequence[Event] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def append(self, events: Sequence[Event]) -> None:
        self._step = events
        self._journal.append(events)

    def when_durable(self, then: Callable[[], None]) -> None:
        step, self._step = self._step, ()
        if (WHEN / "maker").exists() and any(self._executes(event) for event in step):
            then = die
        elif (WHEN / "taker").exists() and any(isinstance(event, Intended) for event in step):
            then = self._last(then)
        self._journal.when_durable(then)

    def _executes(self, event: Event) -> bool:
        """Whether a match of another peer is executed here."""
        return isinstance(event, Executed) and event.maker_peer == self._peer != event.taker_peer

    @staticmethod
    def _last(then: Callable[[], None]) -> Callable[[], None]:
        def asked() -> None:
            then()
            die()

        return asked


if __name__ == "__main__":
    hosted.SqliteJournal = DyingJournal  # type: ignore[assignment, misc]
    main(prog_name="orderbook")
