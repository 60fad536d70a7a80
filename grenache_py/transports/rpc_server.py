"""The RPC server, one for both flavours and every transport: it runs on an asyncio loop and hands requests to
a function.

Mirrors grenache-nodejs-http 1.0.2 (lib/TransportRPCServer.js). Ours: every request is answered. Node leaves
a bad body without a reply, dies of a handler that throws or replies twice, and waits for a reply without
limit.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from ssl import SSLContext
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import limits
from ..errors import BadRequestError, Refusal
from ..rpc_frames import Request
from ..tls import Certificate, is_authorized
from ..wire import (
    DEADLINE_HEADER,
    decode_action,
    decode_deadline,
    encode_bad_request_reply,
    encode_reply,
    error_text,
)
from .ports import listen_error

if TYPE_CHECKING:
    from .streams import Stream
    from .ws_server import OnChannel

log = logging.getLogger(__name__)


class Exchange(Protocol):
    """One request, and the means to answer it once; what travels, and how, is its transport's business."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...

    @property
    def peer(self) -> tuple[str, int]: ...

    @property
    def replied(self) -> bool: ...

    @property
    def certificate(self) -> Certificate | None: ...

    def when_gone(self, tell: Callable[[], object]) -> None: ...

    def reply(self, status: int, body: bytes) -> None: ...


class ExchangeServer(Protocol):
    """Listens, and hands over each request as an exchange."""

    @property
    def port(self) -> int: ...

    async def listen(self, port: int, host: str | None, ssl: SSLContext | None) -> None: ...

    async def close(self, drain_s: float) -> None: ...


class Receiver(NamedTuple):
    """Where a server takes what comes; all of it is called on the loop and must not block."""

    request: Callable[[Request, Handler], None]
    #: a request that is to be a stream
    stream: Callable[[Request, Stream, Handler], None]
    #: for what is no request, which was already answered
    bad_request: Callable[[BadRequestError], None]
    #: a request was answered in its handler's place, since its time was over
    expired: Callable[[Handler], None] = lambda handler: None
    #: who takes the WebSockets that are asked for on the same port, if anybody
    websockets: Callable[[], OnChannel | None] = lambda: None


class Server(Protocol):
    """What a ``Service`` needs of its transport."""

    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int: ...

    async def listen(self, port: int, host: str | None) -> None: ...

    async def close(self, drain_s: float) -> None: ...


MakeServer = Callable[[Receiver], Server]


class ReplyingServer(Protocol):
    """What a ``Handler`` needs of its server."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def thread_id(self) -> int: ...

    def deliver(self, handler: Handler, exchange: Any, status: int, body: bytes) -> None:
        """Send a reply; on the loop."""


class Handler:
    """What a request handler replies with; safe to use from any thread, also after the handler returned."""

    def __init__(self, server: ReplyingServer, exchange: Any, rid: Any, gzipped: bool):
        self._server = server
        self._exchange = exchange
        self._rid = rid
        self._gzipped = gzipped
        self._ends: float | None = None
        self._observers: list[Callable[[str | None], object]] | None = None

    @property
    def remaining_s(self) -> float | None:
        """For how many seconds the caller will still wait, 0 when it has gone; ``None`` when it does not say.

        What it says is the header ``grc-deadline-ms``, see ``deadlines`` of ``PeerRPCClient``.
        """
        return None if self._ends is None else max(0.0, self._ends - time.monotonic())

    def expect_until(self, ends: float) -> None:
        """The caller waits until ``ends`` on the clock of ``time.monotonic``."""
        self._ends = ends

    @property
    def peer(self) -> tuple[str, int]:
        """The address and port that the request came from."""
        peer: tuple[str, int] = self._exchange.peer
        return peer

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers of the request, names in lower case; over WebSocket those of the handshake, and
        those that came with the request where the handshake has not said the same ones.
        """
        headers: Mapping[str, str] = self._exchange.headers
        return headers

    @property
    def action(self) -> str | None:
        """The header ``_a``, Node's ``meta.action``."""
        return decode_action(self.headers)[0]

    @property
    def args(self) -> Any:
        """The JSON of the header ``_ar``, Node's ``meta.args``; ``{}`` without it."""
        return decode_action(self.headers)[1]

    @property
    def certificate(self) -> Certificate | None:
        """The certificate that the caller has shown; ``None`` without TLS or without certificate."""
        certificate: Certificate | None = self._exchange.certificate
        return certificate

    @property
    def replied(self) -> bool:
        """Whether a reply was given, by the handler or in its place when its time was over."""
        return bool(self._exchange.replied)

    def reply(self, error: BaseException | str | None = None, result: Any = None) -> None:
        """Answer the request, once; later replies are logged and ignored.

        ``error`` is ``None``, a text or an exception (of which the message is sent); ``result`` may
        accompany an error. Raises ``ArgumentError`` when ``result`` has no JSON form; the request is then
        still unanswered.
        """
        text = None if error is None else error_text(error)
        self._send(200, encode_reply(self._rid, text, result, self._gzipped))
        if self._observers is not None:
            self.ended(text)

    def refuse(self, status: int, error: str, result: Any = None) -> None:
        """Answer with an HTTP status and an error, as the service itself does. Raises as ``reply``."""
        self._send(status, encode_reply(self._rid, error, result, self._gzipped))
        self.ended(error)

    def fail(self, error: BaseException) -> None:
        """Answer a request whose handler raised: with what a ``Refusal`` says, or with the exception's class
        and message; its trace is logged then.
        """
        text, result = describe(error), None
        if isinstance(error, Refusal):
            text, result = error.message, error.result
        else:
            log.error("the handler of a request raised %s", type(error).__name__, exc_info=error)
        if not self.replied:
            self.reply(text, result)
        else:
            self.ended(text)

    def when_gone(self, tell: Callable[[], object]) -> None:
        """Have ``tell()`` called, on the loop of the service, when the caller goes before it is answered: for
        work that is worth nothing then. A caller that closes its half of the connection counts as gone.
        """
        if get_ident() == self._server.thread_id:
            self._exchange.when_gone(tell)
            return
        try:
            self._server.loop.call_soon_threadsafe(self._exchange.when_gone, tell)
        except RuntimeError:
            log.debug("a service had stopped before its caller was watched")

    def observe(self, observer: Callable[[str | None], object]) -> None:
        """Have ``observer(error)`` called when the request has been answered, ``error`` being the text of the
        answer or ``None``; of a stream, when it has ended. In whichever thread that happens, and once.
        """
        if self._observers is None:
            self._observers = []
        self._observers.append(observer)

    def ended(self, error: str | None) -> None:
        """It was answered: tell the observers."""
        while self._observers:
            try:
                observer = self._observers.pop()
            except IndexError:
                return  # another thread was here
            try:
                observer(error)
            except Exception:
                log.exception("an observer of a request raised")

    def _send(self, status: int, body: bytes) -> None:
        if get_ident() == self._server.thread_id:
            self._server.deliver(self, self._exchange, status, body)
            return
        try:
            self._server.loop.call_soon_threadsafe(self._server.deliver, self, self._exchange, status, body)
        except RuntimeError:
            log.debug("a reply came after the service had stopped")


def describe(error: BaseException) -> str:
    message = str(error).encode("utf-8", "replace").decode()
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


class RpcServer:
    """Listens, decodes, and hands requests to ``receiver``; every request passes through ``_receive``, every
    reply through ``deliver``.

    ``exchanges(receive)`` is the transport below, which calls ``receive(exchange)`` for each request;
    ``decode(exchange)`` reads it, or raises ``BadRequestError``.

    A request that nobody answers within ``timeout_s`` is answered ``ERR_TIMEOUT`` with status 504; beyond
    ``concurrency`` unanswered ones, further requests are answered ``ERR_BUSY`` with status 503. With ``ssl``
    it speaks TLS; ``authorize`` says who may request anything at all, others are answered ``ERR_FORBIDDEN``
    with status 403.
    """

    def __init__(
        self,
        receiver: Receiver,
        exchanges: Callable[[Callable[[Exchange], None]], ExchangeServer],
        decode: Callable[[Exchange], Request],
        *,
        timeout_s: float,
        concurrency: int = limits.REQUESTS_IN_FLIGHT_MAX,
        ssl: SSLContext | None = None,
        authorize: Callable[[Certificate], object] | None = None,
    ):
        self._receiver = receiver
        self._request = receiver.request
        self._decode = decode
        self._exchanges = exchanges(self._receive)
        self._timeout_s = timeout_s
        self._concurrency = concurrency
        self._ssl = ssl
        self._authorize = authorize
        # Unanswered requests and when they expire; the time limit is the same for all, so the first one is
        # next.
        self._unanswered: dict[Handler, float] = {}
        # Those whose callers wait for less.
        self._deadlines: dict[Handler, asyncio.TimerHandle] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.loop: asyncio.AbstractEventLoop
        self._clock: Callable[[], float]
        self.thread_id = 0

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._exchanges.port

    async def listen(self, port: int, host: str | None) -> None:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all of them). Raises
        ``ListenError``.
        """
        self.loop = asyncio.get_running_loop()
        self._clock = self.loop.time
        self.thread_id = get_ident()
        try:
            await self._exchanges.listen(port, host, self._ssl)
        except OSError as error:
            raise listen_error(error, port, host) from error

    async def close(self, drain_s: float) -> None:
        """Accept no more; requests in hand have ``drain_s`` seconds to be answered, then are dropped."""
        await self._exchanges.close(drain_s)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for handler in list(self._unanswered):
            handler.ended("ERR_CLOSED")
        self._unanswered.clear()
        while self._deadlines:
            self._deadlines.popitem()[1].cancel()

    def _receive(self, exchange: Exchange) -> None:
        if self._authorize is not None and not is_authorized(self._authorize, exchange.certificate):
            exchange.reply(403, b'[null, "ERR_FORBIDDEN", null]')
            return
        try:
            request = self._decode(exchange)
        except BadRequestError as error:
            exchange.reply(error.status, encode_bad_request_reply(error))
            self._receiver.bad_request(error)
            return
        handler = Handler(self, exchange, request.rid, request.gzipped)
        if len(self._unanswered) >= self._concurrency:
            handler.refuse(503, "ERR_BUSY")
            return
        if DEADLINE_HEADER in exchange.headers:
            self._limit(handler, exchange.headers)
        self._request(request, handler)
        if exchange.replied:
            return  # nothing is left to be remembered
        self._unanswered[handler] = self._clock() + self._timeout_s
        if self._timer is None:
            self._timer = self.loop.call_later(self._timeout_s, self._expire)

    def _limit(self, handler: Handler, headers: Mapping[str, str]) -> None:
        seconds = decode_deadline(headers)
        if seconds is not None:
            handler.expect_until(time.monotonic() + seconds)
            if seconds < self._timeout_s:
                self._deadlines[handler] = self.loop.call_later(seconds, self._give_up, handler)

    def deliver(self, handler: Handler, exchange: Exchange, status: int, body: bytes) -> None:
        """Send a reply; on the loop."""
        self._unanswered.pop(handler, None)
        if self._deadlines and handler in self._deadlines:
            self._deadlines.pop(handler).cancel()
        if exchange.replied:
            log.warning("a second reply to one request was ignored")
            return
        exchange.reply(status, body)

    def _expire(self) -> None:
        self._timer = None
        now = self.loop.time()
        for handler, ends in list(self._unanswered.items()):
            if ends > now:
                self._timer = self.loop.call_at(ends, self._expire)
                break
            log.warning("a request was not answered within %g s", self._timeout_s)
            self._give_up(handler)

    def _give_up(self, handler: Handler) -> None:
        handler.refuse(504, "ERR_TIMEOUT")
        self._receiver.expired(handler)
