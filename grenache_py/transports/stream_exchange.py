"""The server's end of streams: requests are handed over as soon as their head has come, both bodies open.

Mirrors the ``stream`` event of grenache-nodejs-http 1.0.2 (lib/TransportRPCServer.js). Each connection
carries one exchange, as Node's client asks for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httptools

from .. import limits
from ..errors import BadRequestError, RequestTimeout
from ..tls import Certificate, certificate_of, is_authorized
from ..wire import decode_deadline, decode_stream_head, encode_bad_request_reply
from .addresses import peer_of
from .connections import Connections
from .http1_connection import LINGER_S
from .http1_head import ReplyHeads, join_headers
from .http1_requests import HEAD_BYTES_MAX, HEADERS_MAX
from .rpc_server import Handler, Receiver
from .streams import Stream, StreamProtocol

log = logging.getLogger(__name__)


class StreamExchange(StreamProtocol):
    """One connection: parses the request, streams the reply. To ``Handler`` it is an exchange."""

    def __init__(self, streams: Streams, counted: bool = False):
        super().__init__("", limits.STREAM_IDLE_S)
        self.peer: tuple[str, int] = ("", 0)
        self.headers: Mapping[str, str] = {}
        self.replied = False
        #: whether it is with a listener
        self.handed_over = False
        self._streams = streams
        self._counted = counted
        self._parser: Any = httptools.HttpRequestParser(self)
        self._raw: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._body_bytes = 0
        self._total_bytes = 0
        self._head_done = False
        self._head_sent = False
        self._chunked = True
        self._head_only = False  # the reply has no body (RFC 9110 section 9.3.2)
        self._lingering = False
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._moved = 0.0
        self._when_gone: Callable[[], object] | None = None

    @property
    def busy(self) -> bool:
        """Whether it has begun, or its end has come, as ``Connections`` asks."""
        return self.handed_over or self.transport is None or self.transport.is_closing()

    @property
    def closed(self) -> bool:
        """Whether the caller is gone."""
        return self.gone.is_set()

    def when_gone(self, tell: Callable[[], object]) -> None:
        """As ``http1_exchange.Exchange.when_gone``, but only when the connection has gone."""
        if self.closed:
            tell()
        else:
            self._when_gone = tell

    @property
    def certificate(self) -> Certificate | None:
        """As ``http1_exchange.Exchange.certificate``."""
        return certificate_of(self._ssl_object())

    def _ssl_object(self) -> Any:
        return None if self.transport is None else self.transport.get_extra_info("ssl_object")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = peer_of(transport)
        if peer is not None:
            self.peer = peer
            self.place = f"{self.peer[0]}:{self.peer[1]}"
        # For the head to come.
        self._timer = self._loop.call_later(limits.STREAM_IDLE_S, self.abort)
        counted = self._counted or self._ssl_object() is not None
        if self._streams.connections.admit(self, transport, counted=counted):
            return
        if self._streams.connections.crowded(transport):
            self.abort()
        else:
            self.reply(503, b'[null, "ERR_BUSY", null]')

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return  # nobody reads it any more
        self._total_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(501, "no other protocol is spoken here")  # its body would be lost
            return
        except httptools.HttpParserError as error:
            # Data after the only request of a connection is not ours to judge.
            if not self._ended_in:
                self._refuse(400, f"not HTTP: {error}")
            return
        overhead = self._total_bytes - 8 * self._body_bytes
        if self._head_bytes > HEAD_BYTES_MAX or len(self._raw) > HEADERS_MAX or overhead > 4 * HEAD_BYTES_MAX:
            self._refuse(431, "the headers are too large")
        elif self._head_done and not self.handed_over:
            self.handed_over = True
            self._hand_over()

    def eof_received(self) -> bool:
        if not self._ended_in:
            self.lose("the caller closed it")
        # Half-closed: the caller has said all and may still want the reply. TLS cannot do that.
        return self.handed_over and self._ended_in and not self._lingering and self._ssl_object() is None

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self._forget_times()
        if self._when_gone is not None and not self.ended_out:
            self._when_gone()
        self._when_gone = None
        self._parser = None
        self._streams.connections.left(self)

    # What the parser calls.

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:
            self._head_bytes += len(name) + len(value) + 4
            self._raw.append((name, value))

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)

    def on_headers_complete(self) -> None:
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        self._moved = self._loop.time()
        self.took(data)

    def on_message_complete(self) -> None:
        self.took_all()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.headers = joined = join_headers(self._raw)
        self._chunked = self._parser.get_http_version() != "1.0"
        self._head_only = self._parser.get_method() == b"HEAD"
        if self.replied:
            return
        if joined.get("expect", "").lower() == "100-continue" and self._chunked:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._streams.receive(self)

    # Its time.

    def watch(self, idle_s: float, expire: Callable[[], None]) -> None:
        """Call ``expire`` when nothing has moved either way for ``idle_s`` seconds."""
        self._moved = self._loop.time()

        def look() -> None:
            still_s = self._loop.time() - self._moved
            if still_s >= idle_s:
                expire()
            else:
                self._timer = self._loop.call_later(idle_s - still_s, look)

        self._timer = self._loop.call_later(idle_s, look)

    def limit(self, seconds: float, expire: Callable[[], None]) -> None:
        """Call ``expire`` in ``seconds``."""
        self._deadline = self._loop.call_later(seconds, expire)

    def _forget_times(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline = None

    # The reply.

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """As in ``StreamProtocol``; the head goes first."""
        if len(data):
            self._begin()
            if self._head_only:
                return
            if self._chunked:
                await super().write(data)
            else:
                self._check_writable()
                self.send(bytes(data))
                await self._room()

    def send(self, data: bytes) -> None:
        """As in ``StreamProtocol``."""
        self._moved = self._loop.time()
        super().send(data)

    async def end(self) -> None:
        """As in ``StreamProtocol``; the connection ends with it."""
        if self._ended_out:
            return
        self._begin()
        if self._chunked and not self._head_only:
            await super().end()
        else:
            self._ended_out = True
        self._close()

    def reply(self, status: int, body: bytes) -> None:
        """Answer with a whole body in place of a stream."""
        self.replied = True
        if self._head_sent:
            self.abort()  # it cannot be answered any more; the caller sees that it was cut
            return
        self._head_sent = self._ended_out = True
        head = b"%bContent-Length: %d\r\n\r\n" % (self._streams.heads.head(status, False), len(body))
        self.send(head if self._head_only else head + body)
        self._close()

    def _begin(self) -> None:
        self._check_writable()
        if not self._head_sent:
            self._head_sent = self.replied = True
            framing = b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
            self.send(self._streams.heads.head(200, False) + framing)

    def _refuse(self, status: int, why: str) -> None:
        self.lose(why)
        self.reply(status, encode_bad_request_reply(BadRequestError("ERR_REQUEST_GENERIC", status, why)))

    def _close(self) -> None:
        """The reply is written: close, once the caller cannot lose it to a reset."""
        self._forget_times()
        transport = self.transport
        if transport is None:
            return
        if self._ended_in or not transport.can_write_eof():
            transport.close()
            return
        self._lingering = True
        transport.write_eof()
        self.release()
        self._timer = self._loop.call_later(LINGER_S, self.abort)


class Streams:
    """The streams of one port: hands them to ``receiver``, and counts them.

    ``request`` has the rid and the key of the header ``_gr``, and no payload. At most ``concurrency`` are
    served at a time, and no more than ``limits.STREAMS_MAX``; further ones are answered ``ERR_BUSY``.
    ``authorize`` is as for ``RpcServer``. One on which nothing has moved for ``timeout_s`` seconds (``None``:
    no limit), or whose caller waits no longer, is answered ``ERR_TIMEOUT``, or cut when its answer has begun.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        concurrency: int,
        authorize: Callable[[Certificate], object] | None,
        timeout_s: float | None = None,
    ):
        self._receiver = receiver
        self._authorize = authorize
        self._timeout_s = timeout_s
        self.connections: Connections[StreamExchange] = Connections(min(concurrency, limits.STREAMS_MAX))
        self.heads = ReplyHeads(0)
        self.loop: asyncio.AbstractEventLoop
        self.thread_id = 0

    def begin(self) -> None:
        """To be called on the loop, before the first connection."""
        self.loop = asyncio.get_running_loop()
        self.thread_id = threading.get_ident()
        self.connections.open()

    async def close(self, drain_s: float) -> None:
        """Streams have ``drain_s`` seconds to come to their end, then they are cut."""
        for exchange in self.connections:
            if not exchange.handed_over:
                exchange.abort()
        await self.connections.end(drain_s)

    def receive(self, exchange: StreamExchange) -> None:
        """Hand a request over, now that its head has come."""
        try:
            request = decode_stream_head(exchange.headers)
        except BadRequestError as error:
            exchange.reply(error.status, encode_bad_request_reply(error))
            self._receiver.bad_request(error)
            return
        handler = Handler(self, exchange, request.rid, request.gzipped)
        if self._authorize is not None and not is_authorized(self._authorize, exchange.certificate):
            exchange.reply(403, b'[null, "ERR_FORBIDDEN", null]')
            return

        def expire() -> None:
            self._expire(handler, exchange)

        if self._timeout_s is not None:
            exchange.watch(self._timeout_s, expire)
        seconds = decode_deadline(exchange.headers)
        if seconds is not None:
            handler.expect_until(time.monotonic() + seconds)
            exchange.limit(seconds, expire)
        self._receiver.stream(request, Stream(exchange, lambda: exchange.headers), handler)

    def _expire(self, handler: Handler, exchange: StreamExchange) -> None:
        error = RequestTimeout(exchange.place, "its time was over")
        if exchange.replied:
            exchange.abort(error)
            handler.ended("ERR_TIMEOUT")
        else:
            exchange.fail(error)
            handler.refuse(504, "ERR_TIMEOUT")
        self._receiver.expired(handler)

    def deliver(self, handler: Handler, exchange: StreamExchange, status: int, body: bytes) -> None:
        """Send a reply in place of a stream; on the loop."""
        if exchange.replied:
            log.warning("a second reply to one request was ignored")
            return
        exchange.reply(status, body)
