"""The signals that ask a process to end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable


def on_stop_signals(callback: Callable[[], object]) -> None:
    """Call ``callback`` on the running loop at each SIGINT and SIGTERM, in place of what these do."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # what the loops of Windows raise
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
