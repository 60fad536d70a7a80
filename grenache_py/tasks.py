"""Tasks that have to end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

# Longer than a task that has been told takes to clean up.
_TELL_AGAIN_S = 2.0


async def end_tasks(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel them, and wait until all have ended, whatever they end with.

    Who does not go is told again: before Python 3.12 ``asyncio.wait_for`` keeps a cancellation to itself when
    what it waits for comes in the same turn of the loop, and its task runs on.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_TELL_AGAIN_S)
