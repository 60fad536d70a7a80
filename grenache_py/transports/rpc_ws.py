"""RPC servers over WebSocket. Mirrors grenache-nodejs-ws 1.0.0 (lib/TransportRPCServer.js)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from ssl import SSLContext
from typing import cast

from .. import limits
from ..errors import BadRequestError
from ..rpc_frames import Request
from ..tls import Certificate
from ..wire import decode_message, encode_bad_request_reply, encode_reply
from .busy_poll import BusyPoll
from .rpc_server import Exchange, Receiver, RpcServer
from .ws import Channel
from .ws_calls import HEADERS_OFFER, NOT_OF_HANDSHAKES, decode_headers
from .ws_frames import TEXT
from .ws_server import OnChannel, VerifyClient, Visitor, WsServer


def ws_rpc_server(
    receiver: Receiver,
    *,
    timeout_s: float,
    max_body: int,
    concurrency: int = limits.REQUESTS_IN_FLIGHT_MAX,
    ssl: SSLContext | None = None,
    authorize: Callable[[Certificate], object] | None = None,
    verify_client: VerifyClient | None = None,
    poll: Callable[[], BusyPoll | None] = lambda: None,
) -> RpcServer:
    """An ``RpcServer`` whose requests and replies are WebSocket messages; ``authorize`` and
    ``verify_client`` decide over connections, see ``WsServer``.
    """

    def exchanges(receive: Callable[[Exchange], None]) -> _MessageServer:
        ws = partial(
            WsServer,
            max_message=max_body,
            authorize=authorize,
            verify_client=verify_client,
            headers={HEADERS_OFFER: "1"},
            poll=poll,
        )
        return _MessageServer(receive, ws)

    def decode(exchange: Exchange) -> Request:
        request = decode_message(exchange.body)
        if request.extra is not None and (headers := decode_headers(request.extra)):
            cast(_Message, exchange).add(headers)
        return request

    return RpcServer(receiver, exchanges, decode, timeout_s=timeout_s, concurrency=concurrency, ssl=ssl)


class _Message:
    """One message, as an ``Exchange``."""

    def __init__(self, caller: _Caller, body: bytes):
        self._caller = caller
        self.headers = caller.headers
        self.body = body
        self.replied = False

    def add(self, headers: dict[str, str]) -> None:
        """It has headers of its own. What the handshake has said stands: a proxy may vouch for that."""
        self.headers = {**headers, **self.headers}

    @property
    def peer(self) -> tuple[str, int]:
        return self._caller.visitor.peer

    @property
    def certificate(self) -> Certificate | None:
        return self._caller.visitor.certificate

    def when_gone(self, tell: Callable[[], object]) -> None:
        """As ``http1_exchange.Exchange.when_gone``."""
        self._caller.when_gone(self, tell)

    def reply(self, status: int, body: bytes) -> None:
        """Send the reply; a message has no place for a status."""
        self.replied = True
        caller = self._caller
        caller.unanswered -= 1
        if caller.waiting:
            caller.waiting.pop(self, None)
        channel = caller.channel
        channel.send(body, TEXT, not caller.unanswered and not channel.more)
        if caller.held or caller.server.draining:
            caller.answered()


class _Caller:
    """One connection, and how many of its requests are unanswered."""

    def __init__(self, server: _MessageServer, channel: Channel, visitor: Visitor):
        self.channel = channel
        self.visitor = visitor
        self.headers: Mapping[str, str] = {
            name: value for name, value in visitor.headers.items() if name not in NOT_OF_HANDSHAKES
        }
        self.unanswered = 0
        #: whom to tell when it goes before these are answered
        self.waiting: dict[_Message, Callable[[], object]] = {}
        self.server = server
        self.held = False
        channel.on_message = self._receive
        channel.on_flow = self._balance

    def _receive(self, opcode: int, content: bytes) -> None:
        self.unanswered += 1
        if self.unanswered >= limits.WS_REQUESTS_PER_CONNECTION:
            self._balance()
        self.server.receive(_Message(self, content))

    def answered(self) -> None:
        """One of its requests is answered."""
        self._balance()
        if self.server.draining:
            self.server.answered()

    def when_gone(self, message: _Message, tell: Callable[[], object]) -> None:
        if self.channel.gone.done():
            tell()
        else:
            self.waiting[message] = tell

    def left(self) -> None:
        """The connection has ended."""
        while self.waiting:
            self.waiting.popitem()[1]()

    def _balance(self) -> None:
        """Read no more from who has many requests in hand here, or does not read the replies."""
        too_much = self.unanswered >= limits.WS_REQUESTS_PER_CONNECTION or self.channel.full
        if too_much and not self.held:
            self.held = True
            self.channel.hold()
        elif self.held and not too_much:
            self.held = False
            self.channel.release()


class _MessageServer:
    """What ``http1.HttpServer`` is to ``RpcServer``, over WebSocket."""

    def __init__(
        self,
        receive: Callable[[Exchange], None],
        ws: Callable[[OnChannel], WsServer],
    ):
        self._receive = receive
        #: what takes a message
        self.receive: Callable[[_Message], None] = receive
        self._ws = ws(self._greet)
        self._callers: set[_Caller] = set()
        self._idle = asyncio.Event()
        self.draining = False

    @property
    def port(self) -> int:
        return self._ws.port

    async def listen(self, port: int, host: str | None, ssl: SSLContext | None = None) -> None:
        await self._ws.listen(port, host, ssl)
        self.draining = False
        self.receive = self._receive

    async def close(self, drain_s: float) -> None:
        self._ws.stop_accepting()
        self.draining = True
        self.receive = _refuse
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

    def _greet(self, channel: Channel, visitor: Visitor) -> None:
        caller = _Caller(self, channel, visitor)
        self._callers.add(caller)

        def left(reason: str) -> None:
            self._callers.discard(caller)
            caller.left()
            if self.draining:
                self.answered()

        channel.on_end = left


def _refuse(message: _Message) -> None:
    try:
        reply = encode_reply(decode_message(message.body).rid, "ERR_BUSY", None)
    except BadRequestError as error:
        reply = encode_bad_request_reply(error)
    message.reply(503, reply)
