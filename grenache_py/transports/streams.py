"""Streams: one HTTP exchange whose two bodies flow at the same time, both ways at the pace of the reader.

A client posts with ``Transfer-Encoding: chunked`` and says in the header ``_gr`` whom it calls; the reply is
raw bytes too, and the connection ends with it. Mirrors grenache-nodejs-http 1.0.2 (``sendRequestStream`` of
lib/TransportRPCClient.js). This file has what both ends share, and the client's; ``stream_server.py`` the
server's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import cast

from .. import limits
from ..errors import (
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GrenacheError,
    RequestTimeout,
    reason,
)
from ..tls import Resuming, Sessions
from ..wire import status_error
from .http1_reply import BrokenReplyError, OversizedReplyError, ReplyParser

# Bytes that wait to be read here, and to be taken by the transport, before the other side is held up.
BUFFER_BYTES = 256 * 1024
# A large write goes out in pieces of this size, so that no more than one is held twice.
_CHUNK_BYTES = 64 * 1024


class StreamProtocol(asyncio.Protocol):
    """One connection that carries one stream, seen from either end.

    ``place`` names the other end in errors; ``idle_s`` is how long a read or write waits for it.
    """

    def __init__(self, place: str, idle_s: float):
        self.place = place
        self.transport: asyncio.Transport | None = None
        self.gone = asyncio.Event()
        self._idle_s = idle_s
        self._loop = asyncio.get_running_loop()
        self._pieces: deque[bytes] = deque()
        self._bytes = 0
        self._held = False  # reading is paused
        self._blocked = False  # the transport wants no more
        self._ended_in = False
        self._ended_out = False
        self._error: GrenacheError | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def connection_lost(self, error: Exception | None) -> None:
        self.lose(reason(error) if error is not None else "the peer closed it")
        if self.transport is not None and self.transport.get_extra_info("ssl_object") is not None:
            self.transport.abort()  # Python 3.10 takes a TLS transport that its peer closed for still open
        self.gone.set()

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        self._wake_writer()

    # What comes in.

    def took(self, piece: bytes) -> None:
        """Body has come."""
        self._pieces.append(piece)
        self._bytes += len(piece)
        if self._bytes > BUFFER_BYTES:
            self.hold()
        self._wake_reader()

    def took_all(self) -> None:
        """The body has come to its end."""
        self._ended_in = True
        self._wake_reader()

    async def read(self) -> bytes:
        """The next piece of body, empty at its end. Raises what ended the stream before that."""
        while not self._pieces:
            if self._ended_in:
                return b""
            if self._error is not None:
                raise self._error
            if self._reader is not None:
                raise RuntimeError("somebody else is reading this stream")
            self._reader = self._loop.create_future()
            try:
                await self._in_time(self._reader)
            finally:
                self._reader = None
        piece = self._pieces.popleft()
        self._bytes -= len(piece)
        if self._bytes <= BUFFER_BYTES // 2:
            self.release()
        return piece

    def hold(self) -> None:
        """Take no more from the other side for now."""
        if not self._held and self.transport is not None and not self.transport.is_closing():
            self._held = True
            self.transport.pause_reading()

    def release(self) -> None:
        """Take what comes again."""
        if self._held and self.transport is not None and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()

    def put_back(self, piece: bytes) -> None:
        """Have ``piece`` read again."""
        self._pieces.appendleft(piece)
        self._bytes += len(piece)

    # What goes out.

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send a part of our body; returns when there is room for more. Raises what ended the stream."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _CHUNK_BYTES):
            self._check_writable()
            piece = view[start : start + _CHUNK_BYTES]
            self.send(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
            await self._room()

    async def end(self) -> None:
        """Our body ends here; or is of no interest any more, when the other side has said all."""
        if self._ended_in and self._error is not None:
            self._ended_out = True
        elif not self._ended_out:
            self._check_writable()
            self._ended_out = True
            self.send(b"0\r\n\r\n")

    @property
    def ended_out(self) -> bool:
        return self._ended_out

    @property
    def error(self) -> GrenacheError | None:
        """What ended the stream before its time."""
        return self._error

    @property
    def complete(self) -> bool:
        """Whether both bodies have come to their ends."""
        return self._ended_in and self._ended_out

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def _check_writable(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended_out:
            raise ClosedError("this side of the stream has ended")

    async def _room(self) -> None:
        while self._blocked:
            if self._error is not None:
                raise self._error
            if self._writer is not None:
                raise RuntimeError("somebody else is writing to this stream")
            self._writer = self._loop.create_future()
            try:
                await self._in_time(self._writer)
            finally:
                self._writer = None

    # The end, and time.

    def lose(self, why: str) -> None:
        self.fail(ConnectionLost(self.place, f"connection lost: {why}"))

    def fail(self, error: GrenacheError) -> None:
        """The stream has ended by ``error``, unless it had ended before; those who wait are told."""
        if self._error is None:
            self._error = error
        self._wake_reader()
        self._wake_writer()

    def abort(self, error: GrenacheError | None = None) -> None:
        """End the connection now."""
        self.fail(error or ClosedError("the stream was closed"))
        if self.transport is not None:
            self.transport.abort()
        else:
            self.gone.set()

    async def _in_time(self, waiter: asyncio.Future[None]) -> None:
        timer = self._loop.call_later(self._idle_s, self._too_late)
        try:
            await waiter
        finally:
            timer.cancel()

    def _too_late(self) -> None:
        self.abort(RequestTimeout(self.place, f"the other side was silent for {self._idle_s:g} s"))

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writer(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)


class Stream:
    """Two bodies that flow at the same time: ours is written, the other side's is read.

    Iterating gives what comes, in pieces as they come. Nothing is held beyond a small buffer: ``write``
    waits while the other side does not read, and the other side waits while we do not.

    Errors are those of a call: ``ConnectionLost`` when it was cut, ``RequestTimeout`` when the other side was
    silent for too long, ``StatusError`` when it refused. When a write fails because the other side has
    answered and closed, its answer can still be read. One task reads and one writes.
    """

    def __init__(self, protocol: StreamProtocol, headers: Callable[[], Mapping[str, str]]):
        self._protocol = protocol
        self._headers = headers

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers that came with what is read, names in lower case; empty before they have come."""
        return self._headers()

    @property
    def error(self) -> GrenacheError | None:
        """What has ended it before its time: what a read or write raises then; ``None`` while it is open."""
        return self._protocol.error

    async def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes (-1: all there is to come), as soon as there are any; empty at the end."""
        if size < 0:
            return b"".join([piece async for piece in self])
        piece = await self._protocol.read() if size else b""
        if len(piece) > size:
            self._protocol.put_back(piece[size:])
        return piece[:size]

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._protocol.read()
        if not piece:
            raise StopAsyncIteration
        return piece

    async def write(self, data: bytes | bytearray | memoryview) -> int:
        """Send ``data``, waiting for room; returns how many bytes that were."""
        await self._protocol.write(data)
        return len(data)

    async def end(self) -> None:
        """We have written all; the other side may go on."""
        await self._protocol.end()

    def cut(self) -> None:
        """End it where it is, unless we have written all: the other side sees that it is not whole."""
        if not self._protocol.ended_out:
            self._protocol.abort()

    async def close(self) -> None:
        """Let go of the connection; a stream that has not come to its ends is cut."""
        if not self._protocol.gone.is_set():
            self._protocol.abort()
            await self._protocol.gone.wait()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()


# --- the client's end


class _ClientProtocol(StreamProtocol):
    def __init__(self, place: str, idle_s: float, session: Resuming | None):
        super().__init__(place, idle_s)
        self._session = session
        self.reply = ReplyParser(None)
        self._refusal: bytearray | None = None

    def data_received(self, data: bytes) -> None:
        headless = not self.reply.head_done
        try:
            whole = self.reply.feed(data)
        except BrokenReplyError as error:
            self.abort(ConnectionLost(self.place, f"connection lost: {error}"))
            return
        except OversizedReplyError as error:
            self.abort(ConnectionLost(self.place, f"connection given up: {error}"))
            return
        if headless and self.reply.head_done:
            if self._session is not None and self.transport is not None:
                self._session.remember(self.transport.get_extra_info("ssl_object"))
            if not 200 <= self.reply.status < 300:
                self._refusal = bytearray()
        pieces, self.reply.body = self.reply.body, []
        if self._refusal is not None:
            self._refusal += b"".join(pieces)
            if whole or len(self._refusal) > 4 * limits.ERROR_TEXT_MAX:
                self._refused(self._refusal)
            return
        for piece in pieces:
            self.took(piece)
        if whole:
            self.took_all()

    def eof_received(self) -> bool:
        if self.reply.end():
            if self._refusal is not None:
                self._refused(self._refusal)
            else:
                self.took_all()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.reply.close()

    def _refused(self, body: bytearray) -> None:
        self.abort(status_error(self.reply.status, bytes(body), self.place))


class StreamClient:
    """Opens streams, and closes those that are still open with itself."""

    def __init__(self, ssl: SSLContext | None = None):
        self._sessions = Sessions(ssl)
        self._open: set[_ClientProtocol] = set()
        self._closed = False

    async def open(
        self, destination: str, headers: Mapping[str, str], timeout_s: float, idle_s: float
    ) -> Stream:
        """A stream to ``destination``, connected within ``timeout_s`` seconds, with its head sent.

        Raises ``ConnectError``, ``ClosedError`` after ``close``.
        """
        self._check_open("before")
        loop = asyncio.get_running_loop()
        session = self._sessions.to(destination)
        protocol = _ClientProtocol(destination, idle_s, session)
        host, _, port = destination.rpartition(":")
        try:
            await asyncio.wait_for(
                loop.create_connection(
                    lambda: protocol, host.strip("[]"), int(port), ssl=cast("SSLContext | None", session)
                ),
                min(limits.CONNECT_TIMEOUT_S, timeout_s),
            )
        except asyncio.TimeoutError as error:
            protocol.abort()
            raise ConnectTimeout(destination, "no connection within the time limit") from error
        except (OSError, UnicodeError) as error:
            raise ConnectError(destination, f"no connection: {reason(error)}") from error
        try:
            self._check_open("during")
        except ClosedError:
            protocol.abort()
            raise
        self._open = {each for each in self._open if not each.gone.is_set()}
        self._open.add(protocol)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        protocol.send(f"POST / HTTP/1.1\r\nHost: {destination}\r\n{lines}\r\n".encode("latin-1"))
        return Stream(protocol, lambda: protocol.reply.headers)

    def _check_open(self, when: str) -> None:
        if self._closed:
            raise ClosedError(f"stopped {when} the call")

    async def close(self) -> None:
        """Cut the streams that are open."""
        self._closed = True
        for protocol in self._open:
            if not protocol.gone.is_set():
                protocol.abort(ClosedError("stopped during the stream"))
                await protocol.gone.wait()
