"""Progress while it happens: a live table in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from ..commands.views import counts_line, network_line, network_table, plain
from ..flow.replay import Counts
from ..records import Health
from .demo import Display

LINE_EVERY_S = 2.0
"""Pause between lines where there is no terminal."""


def make_display(console: Console) -> Display:
    """The display that suits ``console``."""
    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


class LiveDisplay(Display):
    """A table that is drawn anew in place."""

    def __init__(self, console: Console):
        self._console = console
        self._live: Live | None = None

    def note(self, text: str) -> None:
        self._console.print(plain(text, "bold"))

    def frame(self, counts: Counts, figures: Sequence[Health]) -> None:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        content = Group(network_table(figures), Text(counts_line(counts)))
        self._live.update(content, refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class LineDisplay(Display):
    """A line every :data:`LINE_EVERY_S` seconds."""

    def __init__(self, console: Console):
        self._console = console
        self._next = 0.0

    def note(self, text: str) -> None:
        self._console.print(plain(text))

    def frame(self, counts: Counts, figures: Sequence[Health]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_EVERY_S
            line = f"{counts.rows:,} rows, {counts.orders_per_s:,.0f} requests/s, {network_line(figures)}"
            self._console.print(Text(line))


@asynccontextmanager
async def counts_shown(console: Console, counts: Counts) -> AsyncIterator[None]:
    """Show how a replay is getting on inside the block."""

    async def show() -> None:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(Text(counts_line(counts)), refresh=True)
                await asyncio.sleep(0.25)

    async def say() -> None:
        while True:
            await asyncio.sleep(LINE_EVERY_S)
            console.print(Text(counts_line(counts)))

    showing = asyncio.get_running_loop().create_task(show() if console.is_terminal else say())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
