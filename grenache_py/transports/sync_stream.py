"""Streams of the synchronous flavour: file-like, on the background loop that does their IO."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from ssl import SSLContext
from typing import Any, TypeVar

from ..errors import ClosedError, GrenacheError
from . import streams
from .loop import LoopUser

Result = TypeVar("Result")


class Stream:
    """Two bodies that flow at the same time: ours is written, the other side's is read.

    Iterating gives what comes, in pieces as they come. Nothing is held beyond a small buffer: ``write``
    waits while the other side does not read, and the other side waits while we do not.

    Errors are those of a call: ``ConnectionLost`` when it was cut, ``RequestTimeout`` when the other side was
    silent for too long, ``StatusError`` when it refused. When a write fails because the other side has
    answered and closed, its answer can still be read. One thread reads and one writes;
    ``shutil.copyfileobj`` works both ways.
    """

    def __init__(self, stream: streams.Stream, loop: asyncio.AbstractEventLoop):
        self._stream = stream
        self._loop = loop

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers that came with what is read, names in lower case; empty before they have come."""
        return self._stream.headers

    @property
    def error(self) -> GrenacheError | None:
        """What has ended it before its time: what a read or write raises then; ``None`` while it is open."""
        return self._stream.error

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes (-1: all there is to come), as soon as there are any; empty at the end."""
        return self._run(self._stream.read(size))

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(streams.BUFFER_BYTES):
            yield piece

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send ``data``, waiting for room; returns how many bytes that were."""
        return self._run(self._stream.write(data))

    def end(self) -> None:
        """We have written all; the other side may go on."""
        self._run(self._stream.end())

    def close(self) -> None:
        """Let go of the connection; a stream that has not come to its ends is cut."""
        try:
            self._run(self._stream.close())
        except ClosedError:
            pass  # its loop has ended, and the connection with it

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return run(coroutine, self._loop)


class StreamClient:
    """As ``streams.StreamClient``, on the shared loop; works on in a process that was forked."""

    def __init__(self, ssl: SSLContext | None = None):
        self._ssl = ssl
        self._begin()

    def _begin(self) -> None:
        self._streams = streams.StreamClient(self._ssl)
        self._loop = LoopUser()
        self._pid = os.getpid()

    def open(self, destination: str, headers: Mapping[str, str], timeout_s: float, idle_s: float) -> Stream:
        """As there."""
        if self._pid != os.getpid():
            self._begin()
        thread = self._loop.borrow()
        stream = thread.run(self._streams.open(destination, headers, timeout_s, idle_s))
        return Stream(stream, thread.loop)

    def close(self) -> None:
        """Cut the streams that are open."""
        if self._pid != os.getpid():
            self._begin()
        self._loop.end(self._streams.close)


def run(coroutine: Coroutine[Any, Any, Result], loop: asyncio.AbstractEventLoop) -> Result:
    """Run ``coroutine`` on ``loop`` from another thread; raises ``ClosedError`` when that ends before it."""
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise ClosedError("the loop of this stream has ended") from None
    try:
        return future.result()
    except CancelledError:
        raise ClosedError("stopped during the stream") from None
    except BaseException:
        future.cancel()  # nothing but an interrupt comes before the result
        raise
