"""Announces services again and again, each in a task."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from ..discovery import announce_pause_s
from ..errors import GrenacheError
from ..grape_api import WITHDRAW_TIMEOUT_S
from ..tasks import end_tasks

log = logging.getLogger(__name__)


class Announcer:
    """Keeps services announced until it is told that they have stopped.

    Args:
        announce: Given name and port; raises ``GrenacheError``.
        withdraw: Given name and port; must not raise.
        check_open: Raises ClosedError when no more are to begin.
    """

    def __init__(
        self,
        announce: Callable[[str, int], Awaitable[object]],
        withdraw: Callable[[str, int], Awaitable[None]],
        check_open: Callable[[], None],
    ):
        self._announce = announce
        self._withdraw = withdraw
        self._check_open = check_open
        self._announcing: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def start(self, name: str, port: int, interval_s: float) -> bool:
        """As ``Link.start_announcing``. Raises ClosedError."""
        self._check_open()
        place = (name, port)
        if place in self._announcing:
            return True
        first: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._announcing[place] = asyncio.ensure_future(self._keep_announcing(name, port, interval_s, first))
        return await first

    async def end(self, name: str, port: int) -> bool:
        """As ``Link.stop_announcing``."""
        task = self._announcing.pop((name, port), None)
        if task is None:
            return False
        await end_tasks([task])
        await self._withdraw(name, port)
        return True

    async def end_port(self, port: int) -> None:
        """End all announcements of ``port``, in 0.5 s at most."""
        places = [place for place in self._announcing if place[1] == port]
        await self._withdraw_all({place: self._announcing.pop(place) for place in places})

    async def stop(self) -> None:
        """End all announcements, in 0.5 s at most."""
        announcing, self._announcing = self._announcing, {}
        await self._withdraw_all(announcing)

    async def _keep_announcing(
        self, name: str, port: int, interval_s: float, first: asyncio.Future[bool]
    ) -> None:
        failures = 0
        try:
            while True:
                try:
                    await self._announce(name, port)
                    failures = 0
                except GrenacheError as error:
                    failures += 1
                    log.warning("announcing %r on port %d failed: %s", name, port, error)
                if not first.done():
                    first.set_result(failures == 0)
                await asyncio.sleep(announce_pause_s(interval_s, failures, random.uniform))
        finally:
            if not first.done():
                first.set_result(False)

    async def _withdraw_all(self, announcing: dict[tuple[str, int], asyncio.Task[None]]) -> None:
        if not announcing:
            return
        await end_tasks(announcing.values())
        withdrawing = [asyncio.ensure_future(self._withdraw(*place)) for place in announcing]
        _, late = await asyncio.wait(withdrawing, timeout=WITHDRAW_TIMEOUT_S)
        await end_tasks(late)
