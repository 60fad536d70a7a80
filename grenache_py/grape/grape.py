"""The Grape for programs without asyncio: it runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

from ..fastest_loop import new_event_loop
from . import aio
from .events import Callback


class Grape:
    """A Grape in this process; arguments and properties as of ``grenache_py.grape.aio.Grape``.

        with Grape(bootstrap=["127.0.0.1:20001"]) as grape:
            link = Link(grape=grape.url)

    Callbacks of events run in the Grape's thread and must not block.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._grape = aio.Grape(*args, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def on(self, event: str, callback: Callback) -> None:
        """Call ``callback`` at an event, in the Grape's thread. Raises ValueError for an unknown event."""
        self._grape.on(event, callback)

    def off(self, event: str, callback: Callback) -> None:
        """Call it no more."""
        self._grape.off(event, callback)

    @property
    def running(self) -> bool:
        return self._grape.running

    @property
    def node_id(self) -> bytes:
        """20 bytes; the same as long as the object lives."""
        return self._grape.node_id

    @property
    def dht_port(self) -> int:
        """The UDP port; 0 before the first start when any was asked for."""
        return self._grape.dht_port

    @property
    def api_port(self) -> int:
        """The TCP port of the HTTP API; 0 before the first start when any was asked for."""
        return self._grape.api_port

    @property
    def url(self) -> str:
        """Where a Link on this machine finds the API: ``http://127.0.0.1:30001``."""
        return self._grape.url

    @property
    def dht_address(self) -> str:
        """For the ``bootstrap`` of another Grape on this machine: ``127.0.0.1:20001``."""
        return self._grape.dht_address

    def start(self) -> None:
        """Open both ports and join the DHT; see ``aio.Grape.start``. Raises OSError when a port is taken."""
        if self._thread is not None:
            return
        self._loop = new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="grape", daemon=True)
        self._thread.start()
        try:
            self._call(self._grape.start())
        except BaseException:
            self._end()
            raise

    def stop(self) -> None:
        """Leave the DHT, close both ports, end the thread. Does nothing when it is not running, nor in a
        child of the process that runs it.
        """
        if self._thread is None or not self._thread.is_alive():
            return
        try:
            self._call(self._grape.stop())
        finally:
            self._end()

    def __enter__(self) -> Grape:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return repr(self._grape)

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop = self._thread = None

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
