"""The WebSocket server, which hands over connections.

Mirrors the server of ws 7.5.10: any path is taken, no extension, the first offered subprotocol is echoed.
Ours: who is not welcome is told so by a close code after the handshake, since an HTTP status would end the
process of a Node client.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus
from ssl import SSLContext
from types import MappingProxyType

from picows import (
    WSListener,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
)
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]

from .. import limits
from ..tls import Certificate, certificate_of, is_authorized
from . import descriptors
from .addresses import peer_of
from .busy_poll import BusyPoll
from .http1 import HttpServer
from .http1_exchange import Exchange
from .ws import Channel, all_gone, picows_log, picows_options
from .ws_frames import GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN_LATER
from .ws_listener import Listener

log = logging.getLogger(__name__)

_READ_BUFFER_BYTES = 16 * 1024  # picows' own default; it grows
_SPEAKS_WEBSOCKET = b"this service speaks WebSocket"


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
        self.peer: tuple[str, int] = peer_of(transport) or ("", 0)

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that it has shown; ``None`` without TLS or certificate."""
        return certificate_of(self._transport.get_extra_info("ssl_object"))


VerifyClient = Callable[[Visitor], bool]
OnChannel = Callable[[Channel, Visitor], None]


class WsServer:
    """Listens, and calls ``on_channel(channel, visitor)`` on the loop for each connection. It also takes over
    connections that another server has accepted, see :meth:`adopt`.

    ``authorize(certificate)`` and ``verify_client(visitor)`` decide who is welcome; others are closed with
    code 1008 (policy violation) before anything they send is looked at. So are those for whom one raises.
    Of ``headers``, those that a handshake names go with the answer to it.
    """

    def __init__(
        self,
        on_channel: OnChannel,
        *,
        max_message: int,
        authorize: Callable[[Certificate], object] | None = None,
        verify_client: VerifyClient | None = None,
        headers: Mapping[str, str] = MappingProxyType({}),
        ping_s: float = limits.WS_PING_S,
        poll: Callable[[], BusyPoll | None] = lambda: None,
    ):
        self._on_channel = on_channel
        self._max_message = max_message
        self._authorize = authorize
        self._verify_client = verify_client
        self._headers = headers
        self._ping_s = ping_s
        self._poll = poll
        self._http: HttpServer | None = None
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
        if self._http is not None:
            raise RuntimeError("already listening")
        http = HttpServer(
            _no_websocket,
            max_body=0,
            on_too_large=(HTTPStatus.UPGRADE_REQUIRED, _SPEAKS_WEBSOCKET),
            request_timeout_s=limits.CONNECT_TIMEOUT_S,
            max_connections=limits.WS_CONNECTIONS_MAX,
            upgrade=self._upgrade,
        )
        await http.listen(port, host, ssl)
        self._http = http
        self._port = http.port

    def _upgrade(self, exchange: Exchange) -> asyncio.BaseProtocol | None:
        return self._protocol() if exchange.headers.get("upgrade", "").lower() == "websocket" else None

    def adopt(self) -> asyncio.BaseProtocol:
        """What goes on with a connection on which another server was asked for a WebSocket, for the
        ``upgrade`` of ``http1.HttpServer``. From now on until :meth:`close` such connections are taken.
        """
        self._adopts = True
        return self._protocol()

    def _protocol(self) -> asyncio.BaseProtocol:
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
        if self._http is not None:
            self._http.stop_accepting()
            self._port = 0

    async def close(self) -> None:
        """Take no new connections and end those there are; returns when they are gone."""
        self.stop_accepting()
        http, self._http = self._http, None
        await all_gone(list(self.channels), GOING_AWAY)
        if http is not None:
            await http.close()

    def _shake_hands(self, request: WSUpgradeRequest) -> WSListener | WSUpgradeResponseWithListener:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("sec-websocket-version") not in ("8", "13"):
            return _refusal(HTTPStatus.BAD_REQUEST)
        if "upgrade" in (word.strip() for word in headers.get("connection", "").lower().split(",")):
            # picows wants to see nothing else there, and browsers say more.
            request.headers["Connection"] = "Upgrade"
        opened = self._opened(request, headers)
        channel = Channel(asyncio.get_running_loop(), self._max_message, opened, self._poll())
        offered = headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        extra = {name: value for name, value in self._headers.items() if name in headers}
        if offered:
            extra["Sec-WebSocket-Protocol"] = offered
        return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(extra), Listener(channel))

    def _opened(self, request: WSUpgradeRequest, headers: dict[str, str]) -> Callable[[Channel], None]:
        def opened(channel: Channel) -> None:
            self.channels.add(channel)
            descriptors.take(channel.transport)
            channel.gone.add_done_callback(lambda _: self._left(channel))
            visitor = Visitor(channel.transport, request.path.decode("latin-1"), MappingProxyType(headers))
            if not (self._port or self._adopts):
                channel.close(GOING_AWAY, "stopped")
            elif len(self.channels) > limits.WS_CONNECTIONS_MAX:
                channel.close(TRY_AGAIN_LATER, "too many connections")
            elif not self._welcome(visitor):
                channel.close(POLICY_VIOLATION, "not welcome")
            else:
                self._on_channel(channel, visitor)

        return opened

    def _left(self, channel: Channel) -> None:
        self.channels.discard(channel)
        descriptors.give_back(channel.transport)

    def _welcome(self, visitor: Visitor) -> bool:
        if self._authorize is not None and not is_authorized(self._authorize, visitor.certificate):
            return False
        if self._verify_client is None:
            return True
        try:
            return bool(self._verify_client(visitor))
        except Exception:
            log.exception("verify_client raised")
            return False


def _no_websocket(exchange: Exchange) -> None:
    exchange.reply(HTTPStatus.UPGRADE_REQUIRED, _SPEAKS_WEBSOCKET, [("Upgrade", "websocket")])


def _refusal(status: HTTPStatus) -> WSUpgradeResponseWithListener:
    response = WSUpgradeResponse.create_error_response(status, status.phrase.encode())
    return WSUpgradeResponseWithListener(response, None)
