"""WebSocket calls of the synchronous flavour, on the shared loop."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from ssl import SSLContext
from typing import Any

from .loop import LoopUser
from .ws_client import WsClient


class WsTransport:
    """As ``ws_client.WsClient``, for threads; works on in a process that was forked."""

    has_headers = False

    def __init__(self, ssl: SSLContext | None):
        self._ssl = ssl
        self._begin()

    def _begin(self) -> None:
        self._ws = WsClient(ssl=self._ssl)
        self._pid = os.getpid()
        self._loop = LoopUser()
        self._calls = 0
        # Guards the number of calls; ``close`` waits on it for those under way.
        self._done = threading.Condition()

    def call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        """Call a peer; see ``client.Transport``."""
        if self._pid != os.getpid():
            self._begin()  # threads and connections do not survive a fork
        with self._done:
            thread = self._loop.borrow()
            self._calls += 1
        try:
            return thread.run(self._ws.call(destination, key, payload, timeout_s, compress, headers))
        finally:
            with self._done:
                self._calls -= 1
                self._done.notify_all()

    def close(self) -> None:
        """Close the connections; calls under way fail."""
        if self._pid != os.getpid():
            self._begin()
        self._loop.end(self._ws.close, self._all_done)

    def _all_done(self) -> None:
        with self._done:
            self._done.wait_for(lambda: not self._calls)
