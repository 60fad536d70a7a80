"""Requests whose answers take long: how many there may be, and that they end when their peer does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from grenache_py.tasks import end_tasks

from ..errors import BusyError


class Readers:
    """The requests of one kind.

    Args:
        most: So many at once.
        what: Which readers they are, for the error.
    """

    def __init__(self, most: int, what: str):
        self._most = most
        self._what = what
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextmanager
    def one(self) -> Iterator[None]:
        """The present task is one inside the block. Raises BusyError when there are too many."""
        if len(self._tasks) >= self._most:
            raise BusyError(f"this peer has {self._most:,} readers {self._what} already")
        reader = asyncio.current_task()
        assert reader is not None
        self._tasks.add(reader)
        try:
            yield
        finally:
            self._tasks.discard(reader)

    async def end(self, app: web.Application) -> None:
        """Let go of all of them."""
        await end_tasks(self._tasks)
