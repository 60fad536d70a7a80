"""A client of several Grapes, of which it asks one at a time, or of one within this process."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from .. import limits
from ..checks import EMBEDDED, check_bootstrap, check_grapes
from ..discovery import GrapeChoice
from ..errors import ClosedError, GrapeReplyError, GrapeUnreachableError, GrenacheError, PeerError, reason
from ..grape_api import (
    HEADERS,
    WITHDRAW_TIMEOUT_S,
    decode_grape_reply,
    decode_put_reply,
    encode_grape_request,
)
from ..tasks import end_tasks
from ..transports.aio_http import HttpClient

if TYPE_CHECKING:
    from ..grape.aio import Grape

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class GrapeClient(GrapeChoice):
    """Asks the Grape that answered last, and the next one when it does not.

    Args:
        grape, bootstrap: See :class:`~grenache_py.aio.Link`.
        timeout_s: Of one try, in seconds.

    Raises:
        ArgumentError: ``grape`` or ``bootstrap`` is none.
    """

    def __init__(self, grape: str | Sequence[str], bootstrap: Sequence[str], timeout_s: float):
        bootstrap = check_bootstrap(bootstrap, grape)
        super().__init__(check_grapes(grape))
        self._timeout_s = timeout_s
        self._http = HttpClient(limits.GRAPE_REPLY_BYTES_MAX)
        self._in_flight: dict[bytes, asyncio.Task[Any]] = {}
        self._stopped = False
        self._embedded: Grape | None = None
        self._starting: asyncio.Task[None] | None = None
        if self.url == EMBEDDED:
            from ..grape.aio import Grape

            self._embedded = Grape(bootstrap=bootstrap, api_host="127.0.0.1")

    async def start(self) -> None:
        """Have the embedded Grape running, if there is one. Raises ``GrapeUnreachableError``."""
        if self._embedded is None:
            return
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._embedded.start())
        try:
            await asyncio.shield(self._starting)
        except OSError as error:
            self._starting = None
            raise GrapeUnreachableError(EMBEDDED, f"cannot start: {reason(error)}") from error
        self.url = self._embedded.url
        self.urls = [self.url]

    def check_open(self) -> None:
        """Raises ClosedError after :meth:`stop`."""
        if self._stopped:
            raise ClosedError("the link is stopped")

    def stop(self) -> None:
        """No more requests begin."""
        self._stopped = True

    async def close(self) -> None:
        """End all connections, and the Grape within this process; after :meth:`stop`."""
        await self._http.close()
        await end_tasks(self._in_flight.values())
        if self._starting is not None:
            await end_tasks([self._starting])
        if self._embedded is not None:
            await self._embedded.stop()

    async def request(self, kind: str, data: Any, tries: int, read: Callable[[Any, str], Result]) -> Result:
        """Ask the Grape, and ``read`` its reply; identical requests under way at the same time share one.

        Args:
            kind, data: See :func:`~grenache_py.grape_api.encode_grape_request`.
            tries: How many Grapes are asked at most, though all of them once.
            read: Given the JSON and whose it is; what it returns or raises is what all who share get.

        Raises:
            ClosedError: After :meth:`stop`.
            GrapeUnreachableError: Nobody answered.
            GrapeReplyError: The Grape said no.
        """
        self.check_open()
        same = encode_grape_request(kind, data)
        task = self._in_flight.get(same)
        if task is None:
            task = asyncio.ensure_future(self._ask(kind, data, tries, read))
            self._in_flight[same] = task
            task.add_done_callback(lambda _: self._in_flight.pop(same))
        try:
            # Who shares a request may give up without taking it from the others.
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ClosedError("the link was stopped during the call") from None
            raise

    async def _ask(self, kind: str, data: Any, tries: int, read: Callable[[Any, str], Result]) -> Result:
        await self.start()
        for left in range(max(tries, len(self.urls)) - 1, -1, -1):
            grape = self.url
            body = encode_grape_request(str(uuid.uuid4()), data)
            try:
                reply = await self._http.call(f"{grape}/{kind}", HEADERS, body, self._timeout_s)
                decode = decode_put_reply if kind == "put" else decode_grape_reply
                value = decode(reply, grape, kind)
            except (PeerError, GrapeReplyError) as error:
                self._failed(grape, kind, error, last=not left)
            else:
                return read(value, grape)
        raise AssertionError("unreachable: the last try returns or raises")

    async def withdraw(self, name: str, port: int) -> None:
        """Tell the Grape that a service has stopped; a Node Grape answers that it knows no such request.

        Nothing is raised.
        """
        announcing = self._in_flight.get(encode_grape_request("announce", [name, port]))
        if announcing is not None:  # it must not overtake
            await asyncio.wait([announcing], timeout=WITHDRAW_TIMEOUT_S)
        body = encode_grape_request(str(uuid.uuid4()), [name, port])
        try:
            await self._http.call(f"{self.url}/withdraw", HEADERS, body, WITHDRAW_TIMEOUT_S)
        except GrenacheError as error:
            log.debug("withdrawing %r on port %d failed: %s", name, port, error)
