"""RPC servers over HTTP. Mirrors grenache-nodejs-http 1.0.2 (lib/TransportRPCServer.js)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING

from .. import limits
from ..checks import check_count, check_seconds, check_streams
from ..errors import BadRequestError
from ..rpc_frames import Request
from ..tls import Authorize, Certificate, check_authorize, check_context
from ..wire import decode_request, encode_bad_request_reply
from .busy_poll import busy_poll_on_demand
from .http1 import HttpServer
from .http1_exchange import Exchange as HttpExchange
from .rpc_server import Exchange, MakeServer, Receiver, RpcServer
from .stream_exchange import StreamExchange, Streams
from .stream_server import StreamServer

if TYPE_CHECKING:
    from .ws_server import OnChannel, WsServer

IsStream = Callable[[str], bool]
_TOO_LARGE = BadRequestError("ERR_REQUEST_PAYLOAD_SIZE", 413, "the body is too large")


def http_rpc_server(
    receiver: Receiver,
    *,
    timeout_s: float,
    max_body: int,
    concurrency: int = limits.REQUESTS_IN_FLIGHT_MAX,
    ssl: SSLContext | None = None,
    authorize: Callable[[Certificate], object] | None = None,
    streams: IsStream | None = None,
) -> RpcServer:
    """An ``RpcServer`` whose requests and replies are the bodies of HTTP messages. Who asks for a WebSocket
    gets one, where ``receiver`` has somebody for it.

    Requests whose header ``_a`` ``streams`` says yes to are handed over as streams, see ``Streams``. For one
    and the same header it always says the same.
    """
    open_streams = None
    if streams is not None:
        open_streams = Streams(receiver, concurrency=concurrency, authorize=authorize, timeout_s=timeout_s)

    def exchanges(receive: Callable[[Exchange], None]) -> _HttpExchanges:
        return _HttpExchanges(receive, receiver.websockets, max_body, authorize, streams, open_streams)

    def decode(exchange: Exchange) -> Request:
        return decode_request(exchange.headers, exchange.body, max_body)

    return RpcServer(
        receiver,
        exchanges,
        decode,
        timeout_s=timeout_s,
        concurrency=concurrency,
        ssl=ssl,
        authorize=authorize,
    )


def http_servers(
    *,
    timeout: float,
    max_body: int,
    concurrency: int,
    ssl: SSLContext | None,
    authorize: Authorize | None,
    disable_buffered: bool,
    streams: IsStream | None,
) -> MakeServer:
    """What makes the servers of a ``PeerRPCServer``, whose arguments these are. Raises ``ArgumentError``."""
    check_context(ssl)
    authorized = check_authorize(authorize, ssl)
    buffered = partial(
        http_rpc_server,
        timeout_s=check_seconds(timeout),
        max_body=check_count(max_body, "max_body"),
        concurrency=check_count(concurrency, "concurrency"),
        ssl=ssl,
        authorize=authorized,
        streams=check_streams(streams, disable_buffered),
    )
    if not disable_buffered:
        return buffered
    return partial(StreamServer, concurrency=concurrency, ssl=ssl, authorize=authorized)


class _HttpExchanges:
    """HTTP messages as exchanges, and WebSockets on the same port."""

    def __init__(
        self,
        receive: Callable[[Exchange], None],
        websockets: Callable[[], OnChannel | None],
        max_body: int,
        authorize: Callable[[Certificate], object] | None,
        is_stream: IsStream | None,
        streams: Streams | None,
    ):
        self._http = HttpServer(
            receive,
            max_body=max_body,
            on_too_large=(413, encode_bad_request_reply(_TOO_LARGE)),
            on_handler_error=(500, b'[null, "ERR_SERVER", null]'),
            on_busy=(503, b'[null, "ERR_BUSY", null]'),
            upgrade=self._upgrade,
            divert=None if streams is None else self._divert,
        )
        self._is_stream = is_stream
        self._streams = streams
        self._listener = websockets
        self._max_body = max_body
        self._authorize = authorize
        self._websockets: WsServer | None = None

    @property
    def port(self) -> int:
        return self._http.port

    async def listen(self, port: int, host: str | None, ssl: SSLContext | None) -> None:
        if self._streams is not None:
            self._streams.begin()
        await self._http.listen(port, host, ssl)

    async def close(self, drain_s: float) -> None:
        streams = () if self._streams is None else (self._streams.close(drain_s),)
        await asyncio.gather(self._http.close(drain_s), *streams)
        if self._websockets is not None:
            await self._websockets.close()

    def _divert(self, headers: list[tuple[bytes, bytes]]) -> asyncio.BaseProtocol | None:
        if self._is_stream is None or self._streams is None:
            return None
        for name, value in headers:
            if name.lower() == b"_a" and self._is_stream(value.decode("latin-1")):
                return StreamExchange(self._streams, counted=True)
        return None

    def _upgrade(self, exchange: HttpExchange) -> asyncio.BaseProtocol | None:
        listener = self._listener()
        if listener is None or exchange.headers.get("upgrade", "").lower() != "websocket":
            return None
        if self._websockets is None:
            from .ws_server import WsServer  # only who wants them needs picows

            self._websockets = WsServer(
                listener,
                max_message=self._max_body,
                authorize=self._authorize,
                poll=busy_poll_on_demand(limits.BUSY_POLL_US),
            )
        return self._websockets.adopt()
