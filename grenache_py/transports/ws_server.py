"""WebSocket servers: one that hands over connections, and the RPC server on it.

Mirrors grenache-nodejs-ws 1.0.0 (lib/TransportRPCServer.js) and the server of ws 7.5.10: any path is taken,
no extension, the first offered subprotocol is echoed. Ours: who is not welcome is told so by a close code
after the handshake, since an HTTP status would end the process of a Node client.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ssl import SSLContext
from types import MappingProxyType
from typing import Any, cast

from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]

from .. import limits
from ..errors import BadRequestError
from ..tls import Certificate
from ..wire import Request, decode_request, encode_bad_request_reply, encode_reply
from .http1 import HttpServer, bind
from .rpc_server import Handler, RpcServer, is_authorized
from .ws import Channel, all_gone, picows_log, picows_options
from .ws_frames import GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER

log = logging.getLogger(__name__)

_READ_BUFFER_BYTES = 16 * 1024  # picows' own default; it grows
# What says over HTTP how a body is to be read; a message says it all itself.
_NOT_OVER_WEBSOCKET = frozenset({"_gr", "grc-compress"})


class Visitor:
    """Who connects, as ``verify_client`` sees it."""

    __slots__ = ("_transport", "headers", "peer", "target")

    def __init__(self, transport: asyncio.BaseTransport, target: str, headers: Mapping[str, str]):
        self._transport = transport
        #: path and query of the handshake, not decoded
        self.target = target
        #: the HTTP headers of the handshake, names in lower case
        self.headers = headers
        #: the address and port it came from
        self.peer: tuple[str, int] = tuple((transport.get_extra_info("peername") or ("", 0))[:2])

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that it has shown; ``None`` without TLS or certificate."""
        der = self.peer_certificate_der()
        return None if der is None else Certificate(der, self.peer_certificate() or {})

    def peer_certificate(self) -> dict[str, Any] | None:
        """As ``http1.Exchange.peer_certificate``."""
        ssl_object = self._transport.get_extra_info("ssl_object")
        return None if ssl_object is None else cast("dict[str, Any] | None", ssl_object.getpeercert())

    def peer_certificate_der(self) -> bytes | None:
        """As ``http1.Exchange.peer_certificate_der``."""
        ssl_object = self._transport.get_extra_info("ssl_object")
        return None if ssl_object is None else cast("bytes | None", ssl_object.getpeercert(True))


VerifyClient = Callable[[Visitor], bool]


class WsServer:
    """Listens, and calls ``on_channel(channel, visitor)`` on the loop for each connection. It also takes over
    connections that another server has accepted, see :meth:`adopt`.

    ``authorize(certificate)`` and ``verify_client(visitor)`` decide who is welcome; others are closed with
    code 1008 (policy violation) before anything they send is looked at. So are those for whom one raises.
    """

    def __init__(
        self,
        on_channel: Callable[[Channel, Visitor], None],
        *,
        max_message: int,
        authorize: Callable[[Certificate], object] | None = None,
        verify_client: VerifyClient | None = None,
        ping_s: float = limits.WS_PING_S,
    ):
        self._on_channel = on_channel
        self._max_message = max_message
        self._authorize = authorize
        self._verify_client = verify_client
        self._ping_s = ping_s
        self._server: asyncio.Server | None = None
        self._port = 0
        self._adopts = False
        self.channels: set[Channel] = set()

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        if not self._port:
            raise RuntimeError("not listening")
        return self._port

    async def listen(self, port: int, host: str | None, ssl: SSLContext | None = None) -> None:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all of them), over TLS with ``ssl``.
        Raises OSError, RuntimeError when it listens already.
        """
        if self._server is not None:
            raise RuntimeError("already listening")
        listener = await bind(asyncio.get_running_loop(), port, host)
        try:
            server = await self._serve(listener, ssl)
        except BaseException:
            listener.close()
            raise
        self._server = server
        self._port = listener.getsockname()[1]

    async def _serve(self, listener: socket.socket, ssl: SSLContext | None) -> asyncio.Server:
        return await ws_create_server(
            self._shake_hands,
            sock=listener,
            ssl=ssl,
            websocket_handshake_timeout=limits.CONNECT_TIMEOUT_S,
            max_frame_size=self._max_message,
            **picows_options(self._ping_s),
        )

    def adopt(self) -> asyncio.BaseProtocol:
        """What goes on with a connection on which another server was asked for a WebSocket, for the
        ``upgrade`` of ``http1.HttpServer``. From now on until :meth:`close` such connections are taken.
        """
        self._adopts = True
        options = picows_options(self._ping_s)
        protocol: asyncio.BaseProtocol = WSProtocol(
            None,
            None,
            False,
            self._shake_hands,
            picows_log,
            True,
            limits.CONNECT_TIMEOUT_S,
            options["enable_auto_ping"],
            options["auto_ping_idle_timeout"],
            options["auto_ping_reply_timeout"],
            WSAutoPingStrategy.PING_WHEN_IDLE,
            True,
            self._max_message,
            None,
            _READ_BUFFER_BYTES,
        )
        return protocol

    def stop_accepting(self) -> None:
        """Take no new connections."""
        self._adopts = False
        if self._server is not None:
            self._server.close()
            self._server = None
            self._port = 0

    async def close(self) -> None:
        """Take no new connections and end those there are; returns when they are gone."""
        self.stop_accepting()
        await all_gone(list(self.channels), GOING_AWAY)

    def _shake_hands(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("upgrade", "").lower() != "websocket":
            return _refusal(HTTPStatus.UPGRADE_REQUIRED)
        if headers.get("sec-websocket-version") not in ("8", "13"):
            return _refusal(HTTPStatus.BAD_REQUEST)
        if "upgrade" in (word.strip() for word in headers.get("connection", "").lower().split(",")):
            # picows wants to see nothing else there, and browsers say more.
            request.headers["Connection"] = "Upgrade"
        channel = Channel(asyncio.get_running_loop(), self._max_message, self._opened(request, headers))
        offered = headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        extra = {"Sec-WebSocket-Protocol": offered} if offered else None
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra), channel)

    def _opened(self, request: WSUpgradeRequest, headers: dict[str, str]) -> Callable[[Channel], None]:
        def opened(channel: Channel) -> None:
            self.channels.add(channel)
            channel.gone.add_done_callback(lambda _: self.channels.discard(channel))
            visitor = Visitor(channel.transport, request.path.decode("latin-1"), MappingProxyType(headers))
            if self._server is None and not self._adopts:
                channel.close(GOING_AWAY, "stopped")
            elif len(self.channels) > limits.WS_CONNECTIONS_MAX:
                channel.close(TRY_AGAIN_LATER, "too many connections")
            elif not self._welcome(visitor):
                channel.close(POLICY_VIOLATION, "not welcome")
            else:
                self._on_channel(channel, visitor)

        return opened

    def _welcome(self, visitor: Visitor) -> bool:
        if self._authorize is not None and not is_authorized(self._authorize, visitor):
            return False
        if self._verify_client is None:
            return True
        try:
            return bool(self._verify_client(visitor))
        except Exception:
            log.exception("verify_client raised")
            return False


def _refusal(status: HTTPStatus) -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_error_response(status, status.phrase.encode())
    return WSUpgradeResponseWithListener(response, None)


# --- RPC


class _Exchange:
    """One message, in the place of an ``http1.Exchange``."""

    __slots__ = ("_caller", "body", "replied")

    def __init__(self, caller: _Caller, body: bytes):
        self._caller = caller
        self.body = body
        self.replied = False

    @property
    def headers(self) -> Mapping[str, str]:
        return self._caller.headers

    @property
    def peer(self) -> tuple[str, int]:
        return self._caller.visitor.peer

    def peer_certificate(self) -> dict[str, Any] | None:
        return self._caller.visitor.peer_certificate()

    def peer_certificate_der(self) -> bytes | None:
        return self._caller.visitor.peer_certificate_der()

    def reply(self, status: int, body: bytes) -> None:
        """Send the reply; a message has no place for a status."""
        self.replied = True
        self._caller.reply(body)


class _Caller:
    """One connection, and how many of its requests are unanswered."""

    def __init__(self, server: _ExchangeServer, channel: Channel, visitor: Visitor):
        self.channel = channel
        self.visitor = visitor
        self.headers = {
            name: value for name, value in visitor.headers.items() if name not in _NOT_OVER_WEBSOCKET
        }
        self.unanswered = 0
        self._server = server
        self._held = False
        channel.on_message = self._receive
        channel.on_flow = self._balance

    def _receive(self, opcode: int, content: bytes) -> None:
        self.unanswered += 1
        if self.unanswered >= limits.WS_REQUESTS_PER_CONNECTION:
            self._balance()
        self._server.receive(_Exchange(self, content))

    def reply(self, body: bytes) -> None:
        self.unanswered -= 1
        self.channel.send(body, alone=not self.unanswered and not self.channel.more)
        if self._held:
            self._balance()
        if self._server.draining:
            self._server.answered()

    def _balance(self) -> None:
        """Read no more from who has many requests in hand here, or does not read the replies."""
        too_much = self.unanswered >= limits.WS_REQUESTS_PER_CONNECTION or self.channel.full
        if too_much and not self._held:
            self._held = True
            self.channel.hold()
        elif self._held and not too_much:
            self._held = False
            self.channel.release()


class _ExchangeServer:
    """Messages as exchanges: what ``http1.HttpServer`` is to ``RpcServer``, over WebSocket."""

    def __init__(self, handler: Callable[[Any], None], **options: Any):
        self._handler = handler
        self._ws = WsServer(self._greet, **options)
        self._callers: set[_Caller] = set()
        self._idle = asyncio.Event()
        self.draining = False

    @property
    def port(self) -> int:
        return self._ws.port

    async def listen(self, port: int, host: str | None, ssl: SSLContext | None = None) -> None:
        await self._ws.listen(port, host, ssl)
        self.draining = False

    async def close(self, drain_s: float) -> None:
        self._ws.stop_accepting()
        self.draining = True
        self._idle = asyncio.Event()
        self.answered()
        try:
            await asyncio.wait_for(self._idle.wait(), drain_s)
        except asyncio.TimeoutError:
            pass
        await self._ws.close()

    def answered(self) -> None:
        """While it drains: look whether all requests are answered."""
        if not any(caller.unanswered for caller in self._callers):
            self._idle.set()

    def receive(self, exchange: _Exchange) -> None:
        if self.draining:
            exchange.reply(503, _refused(exchange.body, "ERR_SERVER_BUSY"))
        else:
            self._handler(exchange)

    def _greet(self, channel: Channel, visitor: Visitor) -> None:
        caller = _Caller(self, channel, visitor)
        self._callers.add(caller)

        def left(reason: str) -> None:
            self._callers.discard(caller)
            if self.draining:
                self.answered()

        channel.on_end = left


def _refused(body: bytes, code: str) -> bytes:
    try:
        return encode_reply(decode_request({}, body).rid, code, None)
    except BadRequestError as error:
        return encode_bad_request_reply(error)


class WsRpcServer(RpcServer):
    """``RpcServer`` whose requests and replies are WebSocket messages; ``listen`` and ``close`` as there."""

    def __init__(
        self,
        on_request: Callable[[Request, Handler], None],
        on_bad_request: Callable[[BadRequestError], None],
        on_expired: Callable[[Handler], None] = lambda handler: None,
        *,
        timeout_s: float,
        max_body: int,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
        verify_client: VerifyClient | None = None,
    ):
        super().__init__(
            on_request, on_bad_request, on_expired, timeout_s=timeout_s, max_body=max_body, ssl=ssl
        )
        exchanges = _ExchangeServer(
            self._receive, max_message=max_body, authorize=authorize, verify_client=verify_client
        )
        self._http = cast("HttpServer", exchanges)
