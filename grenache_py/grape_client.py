"""A client of several Grapes, of which it asks one at a time, or of one within this process."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import limits
from .checks import EMBEDDED, check_bootstrap, check_grapes
from .discovery import GrapeChoice
from .errors import ClosedError, GrapeReplyError, GrapeUnreachableError, GrenacheError, PeerError, reason
from .grape_api import HEADERS, decode_grape_reply, decode_put_reply, encode_grape_request
from .transports.http import HttpClient

if TYPE_CHECKING:
    from .grape import Grape

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# What those who share a request find in it when they should ask themselves.
_ASK_YOURSELF = object()


class GrapeClient(GrapeChoice):
    """Asks the Grape that answered last, and the next one when it does not. Thread-safe.

    Args:
        grape, bootstrap: See :class:`~grenache_py.Link`.
        timeout_s: Of one try, in seconds.

    Raises:
        ArgumentError: ``grape`` or ``bootstrap`` is none.
        GrapeUnreachableError: The one within this process cannot start.
    """

    def __init__(self, grape: str | Sequence[str], bootstrap: Sequence[str], timeout_s: float):
        bootstrap = check_bootstrap(bootstrap, grape)
        super().__init__(check_grapes(grape))
        self._timeout_s = timeout_s
        self._http = HttpClient(limits.GRAPE_REPLY_BYTES_MAX)
        self._stopped = False
        self.after_fork()
        self._embedded: Grape | None = None
        if self.url == EMBEDDED:
            self._embed(bootstrap)

    def _embed(self, bootstrap: Sequence[str]) -> None:
        from .grape import Grape

        self._embedded = Grape(bootstrap=bootstrap, api_host="127.0.0.1")
        try:
            self._embedded.start()
        except OSError as error:
            raise GrapeUnreachableError(EMBEDDED, f"cannot start: {reason(error)}") from error
        self.url = self._embedded.url
        self.urls = [self.url]

    def after_fork(self) -> None:
        """Requests under way are the parent's."""
        self._in_flight: dict[bytes, Future[Any]] = {}
        self._lock = threading.Lock()

    def check_open(self) -> None:
        """Raises ClosedError after :meth:`stop`."""
        if self._stopped:
            raise ClosedError("the link is stopped")

    def stop(self) -> None:
        """No more requests begin."""
        with self._lock:
            self._stopped = True

    def close(self) -> None:
        """End all connections, and the Grape within this process; after :meth:`stop`."""
        self._http.close()
        if self._embedded is not None:
            self._embedded.stop()

    def request(
        self,
        kind: str,
        data: Any,
        tries: int,
        read: Callable[[Any, str], Result],
        ends: float = math.inf,
    ) -> Result:
        """Ask the Grape, and ``read`` its reply; identical requests under way at the same time share one.

        Args:
            kind, data: See :func:`~grenache_py.grape_api.encode_grape_request`.
            tries: How many Grapes are asked at most, though all of them once.
            read: Given the JSON and whose it is; what it returns or raises is what all who share get.
            ends: On the monotonic clock, when the answer has to be there.

        Raises:
            ClosedError: After :meth:`stop`.
            GrapeUnreachableError: Nobody answered in time.
            GrapeReplyError: The Grape said no.
        """
        same = encode_grape_request(kind, data)
        while True:
            with self._lock:
                self.check_open()
                shared = self._in_flight.get(same)
                if shared is None:
                    mine = self._in_flight[same] = Future()
            if shared is None:
                return self._share(
                    same, mine, lambda: read(self._ask(kind, data, tries, ends), self.url), ends
                )
            try:
                result = shared.result(None if ends == math.inf else max(0.0, ends - time.monotonic()))
            except FutureTimeout:
                raise self._too_late(kind) from None
            if result is not _ASK_YOURSELF:
                return cast(Result, result)

    def _share(self, same: bytes, mine: Future[Any], ask: Callable[[], Result], ends: float) -> Result:
        """Ask on behalf of all that came with the same request meanwhile."""
        try:
            result = ask()
        except BaseException as error:
            with self._lock:
                del self._in_flight[same]
            # What ended this caller only (its own time limit, an interrupt) is no answer for the others.
            if isinstance(error, GrenacheError) and time.monotonic() < ends:
                mine.set_exception(error)
            else:
                mine.set_result(_ASK_YOURSELF)
            raise
        with self._lock:
            del self._in_flight[same]
        mine.set_result(result)
        return result

    def _ask(self, kind: str, data: Any, tries: int, ends: float) -> Any:
        for left in range(max(tries, len(self.urls)) - 1, -1, -1):
            grape = self.url
            body = encode_grape_request(str(uuid.uuid4()), data)
            timeout_s = min(self._timeout_s, ends - time.monotonic())
            if timeout_s <= 0:
                raise self._too_late(kind)
            try:
                reply = self._http.call(f"{grape}/{kind}", HEADERS, body, timeout_s)
                decode = decode_put_reply if kind == "put" else decode_grape_reply
                return decode(reply, grape, kind)
            except (PeerError, GrapeReplyError) as error:
                self._failed(grape, kind, error, last=not left)
        raise AssertionError("unreachable: the last try returns or raises")

    def _too_late(self, kind: str) -> GrapeUnreachableError:
        return GrapeUnreachableError(self.url, f"{kind}: no answer within the time limit", "ERR_TIMEOUT")

    def withdraw(self, name: str, port: int, timeout_s: float) -> None:
        """Tell the Grape that a service has stopped; a Node Grape answers that it knows no such request.

        Nothing is raised, and nothing waited for that takes longer than ``timeout_s``.
        """
        body = encode_grape_request(str(uuid.uuid4()), [name, port])
        try:
            self._http.call(f"{self.url}/withdraw", HEADERS, body, timeout_s)
        except GrenacheError as error:
            log.debug("withdrawing %r on port %d failed: %s", name, port, error)
