"""The server of streams: requests are handed over as soon as their head has come, with both bodies open.

Mirrors the ``stream`` event of a server with ``disableBuffered`` (grenache-nodejs-http 1.0.2,
lib/TransportRPCServer.js). Each connection carries one exchange, as Node's client asks for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from ssl import SSLContext
from typing import Any

import httptools

from .. import limits
from ..errors import BadRequestError, GrenacheError, ListenError
from ..tls import Certificate, certificate_of, is_authorized
from ..wire import decode_stream_head, encode_bad_request_reply
from .http1_connection import HEAD_BYTES_MAX, HEADERS_MAX, LINGER_S
from .http1_head import ReplyHeads, join_headers
from .ports import bind
from .rpc_server import Handler, Receiver
from .streams import Stream, StreamProtocol

log = logging.getLogger(__name__)


class StreamExchange(StreamProtocol):
    """One connection: parses the request, streams the reply. To ``Handler`` it is an exchange."""

    def __init__(self, server: StreamServer):
        super().__init__("", limits.STREAM_IDLE_S)
        self.peer: tuple[str, int] = ("", 0)
        self.headers: Mapping[str, str] = {}
        self.replied = False
        self._server = server
        self._parser: Any = httptools.HttpRequestParser(self)
        self._raw: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._body_bytes = 0
        self._total_bytes = 0
        self._head_done = False
        self._handed_over = False
        self._head_sent = False
        self._chunked = True
        self._lingering = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def closed(self) -> bool:
        """Whether the caller is gone."""
        return self.gone.is_set()

    @property
    def certificate(self) -> Certificate | None:
        """As ``http1_connection.Exchange.certificate``."""
        return certificate_of(self._ssl_object())

    def _ssl_object(self) -> Any:
        return None if self.transport is None else self.transport.get_extra_info("ssl_object")

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple):
            self.peer = (name[0].removeprefix("::ffff:"), name[1])
            self.place = f"{self.peer[0]}:{self.peer[1]}"
        self._server.connections.add(self)
        # For the head to come.
        self._timer = self._loop.call_later(limits.STREAM_IDLE_S, self.abort)
        if len(self._server.connections) > self._server.connections_max:
            self.reply(503, b'[null, "ERR_BUSY", null]')

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return  # nobody reads it any more
        self._total_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # not offered here: what follows is not looked at
        except httptools.HttpParserError as error:
            # Data after the only request of a connection is not ours to judge.
            if not self._ended_in:
                self._refuse(400, f"not HTTP: {error}")
            return
        overhead = self._total_bytes - 8 * self._body_bytes
        if self._head_bytes > HEAD_BYTES_MAX or len(self._raw) > HEADERS_MAX or overhead > 4 * HEAD_BYTES_MAX:
            self._refuse(431, "the headers are too large")
        elif self._head_done and not self._handed_over:
            self._handed_over = True
            self._hand_over()

    def eof_received(self) -> bool:
        if not self._ended_in:
            self.lose("the caller closed it")
        # Half-closed: the caller has said all and may still want the reply. TLS cannot do that.
        return self._handed_over and self._ended_in and not self._lingering and self._ssl_object() is None

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if self._timer is not None:
            self._timer.cancel()
        self._parser = None
        self._server.left(self)

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
        self.took(data)

    def on_message_complete(self) -> None:
        self.took_all()

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.headers = joined = join_headers(self._raw)
        self._chunked = self._parser.get_http_version() != "1.0"
        if self.replied:
            return
        if joined.get("expect", "").lower() == "100-continue" and self._chunked:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._server.receive(self)

    # The reply.

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """As in ``StreamProtocol``; the head goes first."""
        if len(data):
            self._begin()
            if self._chunked:
                await super().write(data)
            else:
                self._check_writable()
                self.send(bytes(data))
                await self._room()

    async def end(self) -> None:
        """As in ``StreamProtocol``; the connection ends with it."""
        if self._ended_out:
            return
        self._begin()
        if self._chunked:
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
        self.send(
            b"%bContent-Length: %d\r\n\r\n%b" % (self._server.heads.head(status, False), len(body), body)
        )
        self._close()

    def _begin(self) -> None:
        self._check_writable()
        if not self._head_sent:
            self._head_sent = self.replied = True
            framing = b"Transfer-Encoding: chunked\r\n\r\n" if self._chunked else b"\r\n"
            self.send(self._server.heads.head(200, False) + framing)

    def _refuse(self, status: int, why: str) -> None:
        self.lose(why)
        self.reply(status, encode_bad_request_reply(BadRequestError("ERR_REQUEST_GENERIC", status, why)))

    def _close(self) -> None:
        """The reply is written: close, once the caller cannot lose it to a reset."""
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


class StreamServer:
    """Listens, and hands streams to ``receiver``.

    ``request`` has the rid and the key of the header ``_gr``, and no payload. ``authorize`` and ``ssl`` are
    as for ``RpcServer``; at most ``concurrency`` connections are served at a time, and no more than
    ``limits.STREAMS_MAX``.
    """

    def __init__(
        self,
        receiver: Receiver,
        *,
        concurrency: int = limits.STREAMS_MAX,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
    ):
        self._receiver = receiver
        self._ssl = ssl
        self._authorize = authorize
        self._server: asyncio.Server | None = None
        self._port: int | None = None
        self.connections: set[StreamExchange] = set()
        self.connections_max = min(concurrency, limits.STREAMS_MAX)
        self._all_gone = asyncio.Event()
        self.heads = ReplyHeads(0)
        self.loop: asyncio.AbstractEventLoop
        self.thread_id = 0

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        if self._port is None:
            raise RuntimeError("the server does not listen yet")
        return self._port

    async def listen(self, port: int, host: str | None) -> None:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all). Raises ``ListenError``."""
        if self._server is not None:
            raise RuntimeError("the server listens already")
        self.loop = asyncio.get_running_loop()
        self.thread_id = threading.get_ident()
        try:
            sock = await bind(self.loop, port, host)
        except OSError as error:
            raise ListenError(error.errno, f"cannot listen on {host or '*'}:{port}: {error}") from error
        self._server = await self.loop.create_server(
            lambda: StreamExchange(self), sock=sock, backlog=1024, ssl=self._ssl
        )
        self._port = sock.getsockname()[1]

    async def close(self, drain_s: float) -> None:
        """Accept no more; streams have ``drain_s`` seconds to come to their end, then they are cut."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self._all_gone = asyncio.Event()
        for connection in list(self.connections):
            if not connection._handed_over:
                connection.abort()
        if self.connections:
            try:
                await asyncio.wait_for(self._all_gone.wait(), drain_s)
            except asyncio.TimeoutError:
                pass
        for connection in list(self.connections):
            connection.abort()
        if self.connections:
            await self._all_gone.wait()
        await server.wait_closed()

    def left(self, connection: StreamExchange) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._all_gone.set()

    def receive(self, exchange: StreamExchange) -> None:
        """Hand a request over, now that its head has come."""
        try:
            request = decode_stream_head(exchange.headers)
        except BadRequestError as error:
            exchange.reply(error.status, encode_bad_request_reply(error))
            self._receiver.bad_request(error)
            return
        handler = Handler(self, exchange, request)
        if self._authorize is not None and not is_authorized(self._authorize, exchange.certificate):
            exchange.reply(403, b'[null, "ERR_FORBIDDEN", null]')
            return
        self._receiver.stream(request, Stream(exchange, lambda: exchange.headers), handler)

    def deliver(self, handler: Handler, exchange: StreamExchange, status: int, body: bytes) -> None:
        """Send a reply in place of a stream; on the loop."""
        if exchange.replied:
            log.warning("a second reply to one request was ignored")
            return
        exchange.reply(status, body)


async def finish(stream: Stream, handler: Handler, error: Exception | None = None) -> None:
    """The listener of a stream has returned, or raised ``error``: so the stream ends, or is cut."""
    if error is None:
        try:
            await stream.end()
        except GrenacheError as failure:
            log.debug("a stream had ended before its listener: %s", failure)
        handler.ended(None)
        return
    begun = handler.replied
    handler.fail(error)
    if begun:
        stream.cut()
