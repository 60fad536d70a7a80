"""One connection of the HTTP/1.1 server.

``httptools`` parses. Message syntax, pipelining and closing: RFC 9112.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import httptools

from .addresses import peer_of
from .busy_poll import BusyPoll
from .connections import Connections
from .handover import move, request_head, without_upgrade
from .http1_exchange import Exchange
from .http1_head import ReplyHeads
from .http1_known import KnownHeads
from .turns import Source, Turns

log = logging.getLogger(__name__)

HEAD_BYTES_MAX = 16 * 1024
HEADERS_MAX = 100
# Requests of one connection that are with the handler at once; more wait, and reading pauses.
PIPELINED_MAX = 64
# Replies gathered for one write.
CORK_BYTES_MAX = 64 * 1024
# A body that is too large is read on, unkept, so that the connection stays usable as with Node; up to here.
DISCARDED_BYTES_MAX = 1024 * 1024
# After an error reply the rest of the input is thrown away this long, for a reset would destroy the reply.
LINGER_S = 2.0

Handler = Callable[[Exchange], None]
# Given a request for another protocol, what goes on with its connection; None: it is an ordinary request.
Upgrade = Callable[[Exchange], "asyncio.BaseProtocol | None"]
# Given the headers of a request whose body is still to come, what goes on with its connection from the first
# byte of that request; None: it is an ordinary one.
Divert = Callable[[list[tuple[bytes, bytes]]], "asyncio.BaseProtocol | None"]


@dataclass(slots=True)
class Shared:
    """What the connections of one server have in common; the fields that an ``HttpServer`` is given are
    explained there.
    """

    handle: Handler
    upgrade: Upgrade | None
    divert: Divert | None
    poll: BusyPoll | None
    max_body: int
    keep_alive_s: float
    request_timeout_s: float
    on_too_large: tuple[int, bytes]
    on_handler_error: tuple[int, bytes]
    on_busy: tuple[int, bytes]
    heads: ReplyHeads
    known_heads: KnownHeads
    connections: Connections[Connection]
    turns: Turns
    #: how often ``now`` is set, and limits are looked at
    tick_s: float
    #: the loop's time at the last tick; limits count from it, so they are up to one tick generous
    now: float = 0.0


class Connection(asyncio.Protocol):
    """One connection: parses, dispatches in order, and delivers the replies in the order of the requests."""

    # More attributes than instances of a class can share the dict keys of, without slots.
    __slots__ = (
        "_body",
        "_body_bytes",
        "_bytes",
        "_continue_due",
        "_corked",
        "_corked_bytes",
        "_dispatching",
        "_diverted",
        "_eof",
        "_expects",
        "_head_bytes",
        "_head_done",
        "_headers",
        "_hosts",
        "_in_flight",
        "_junk",
        "_lingering",
        "_modern",
        "_parser",
        "_raw",
        "_reading",
        "_receiving",
        "_refused",
        "_served",
        "_since",
        "_source",
        "_stopped",
        "_target",
        "_transport",
        "_waiting",
        "_write_blocked",
        "closed",
        "peer",
        "shared",
        "ssl_object",
    )

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.closed = False
        self.peer = ("", 0)
        self.ssl_object: Any = None
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # until connection_made
        self._parser: Any = httptools.HttpRequestParser(self)
        # Parsed, but not yet with the handler; and with the handler, in the order their replies must take.
        self._waiting: deque[Exchange] = deque()
        self._in_flight: deque[Exchange] = deque()
        # Replies that are ready while input is being worked through go out in one write.
        self._corked: list[bytes] | None = None
        self._corked_bytes = 0
        self._dispatching = False
        self._reading = True
        self._write_blocked = False
        self._eof = False
        self._source: Source | None = None
        # The last request of this connection has been seen: what follows is not looked at.
        self._stopped = False
        self._lingering = False
        # More may come after the last request.
        self._junk = False
        self._continue_due = False
        self._served = False
        # When the present state (idle, receiving, blocked, lingering) began, on the server's coarse clock.
        self._since = shared.now
        # The message being received.
        self._receiving = False
        self._refused = False
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._bytes = 0
        self._hosts = 0
        self._expects: bytes | None = None
        self._head_done = False
        self._modern = True  # HTTP/1.1
        # The message as it came, until its head has; None when another one was before it in what came.
        self._raw: bytes | None = None
        self._diverted: asyncio.BaseProtocol | None = None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = peer_of(transport)
        if peer is not None:
            self.peer = peer
        self.ssl_object = transport.get_extra_info("ssl_object")
        connections = self.shared.connections
        if connections.admit(self, transport, counted=self.ssl_object is not None):
            self._source = connections.source(self)
            return
        if connections.crowded(transport):
            self._transport.abort()
        else:
            self._turn_away(*self.shared.on_busy)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._stopped = True
        self._tell_gone()
        self._waiting.clear()
        self._in_flight.clear()
        # The parser holds our methods and we hold it: a cycle for the collector unless it is broken here.
        self._parser = None
        if self.ssl_object is not None:
            self._transport.abort()  # Python 3.10 takes a TLS transport that its peer closed for still open
        self.shared.connections.left(self)

    def eof_received(self) -> bool:
        self._eof = True
        self._tell_gone()
        # Half-closed: the client has said all, and may still want its answers. TLS cannot do that.
        return bool(self._in_flight or self._waiting) and not self._lingering and self.ssl_object is None

    def _tell_gone(self) -> None:
        for exchange in list(self._in_flight):
            tell, exchange.gone = exchange.gone, None
            if tell is not None and not exchange.replied:
                tell()

    @property
    def heads(self) -> ReplyHeads:
        """The heads of replies."""
        return self.shared.heads

    @property
    def leaves(self) -> bool:
        """Whether the client has gone or will say no more."""
        return self.closed or self._eof

    def data_received(self, data: bytes) -> None:
        if self._stopped:
            return
        shared = self.shared
        if shared.poll is not None:
            shared.poll.came()
        open_before = self._receiving
        idle = not (open_before or self._waiting or self._in_flight or self._write_blocked)
        if idle:
            found = shared.known_heads.find(data)
            if found is not None and self._may_go():
                head, body = found
                exchange = Exchange(self, head.method, head.target, head.headers, body, True, head.header_map)
                self._in_flight.append(exchange)
                self._hand_over(exchange)
                return
        if shared.divert is not None:
            if idle:
                self._raw = data
            elif self._raw is not None:
                self._raw += data
        self._corked = []
        plain = False
        try:
            plain = self._feed(data)
        except httptools.HttpParserError:
            if not self._stopped:
                self._refuse(400, b"", last=True)
        if self.closed:
            return  # it was handed on
        if self._diverted is not None:
            self._leave_to(self._diverted, cast(bytes, self._raw))
            return
        if self._receiving and open_before and not self._stopped:
            # What is neither body nor bounded by the callbacks: unfinished headers, chunk sizes, trailers.
            self._bytes += len(data)
            if self._bytes > HEAD_BYTES_MAX + 8 * self._body_bytes:
                self._refuse(431, b"", last=True)
        if plain and idle and len(self._waiting) == 1 and not (self._stopped or self._receiving):
            only = self._waiting[0]
            if only.refusal is None:
                shared.known_heads.learn(data, only.method, only.target, only.fields, only.body)
        self._dispatch()
        self._uncork()
        self._corked = None
        self._settle()

    def _feed(self, data: bytes) -> bool:
        """Parse; returns whether nothing in it was an offer of another protocol. Raises HttpParserError."""
        offers = 0
        while True:
            try:
                self._parser.feed_data(data)
                return not offers
            except httptools.HttpParserUpgrade as upgrade:
                offers += 1
                again = self._offered(data[upgrade.args[0] :], offers)
                if again is None:
                    return False
                data = again

    def _offered(self, rest: bytes, offers: int) -> bytes | None:
        """A request offers another protocol, and ``rest`` came after its head: what is to be parsed now.

        An offer that nobody takes is passed over (RFC 9110 section 7.8); and the parser has not looked for a
        body then, so it is shown the request once more, without. JDK's client, for one, offers HTTP/2 with
        each request on a new connection.
        """
        method = self._parser.get_method().decode("latin-1")
        if self._diverted is None:
            asked = self._waiting[-1] if self._waiting else None
            if asked is None or asked.fields is not self._headers or self._hand_on(rest):
                return None  # it was behind the last request, or this connection is another's now
            if asked.refusal is not None or method == "CONNECT" or offers > PIPELINED_MAX:
                self._stopped = self._junk = True  # what follows may be no HTTP
                asked.keep_alive = False
                return None
            del self._waiting[-1]
            self._stopped = False
        version = "1.1" if self._modern else "1.0"
        head = request_head(method, self._target.decode("latin-1"), without_upgrade(self._headers), version)
        if self._diverted is not None:
            self._raw = head + rest
            return None
        self._parser = httptools.HttpRequestParser(self)
        return head + rest

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._since = self.shared.now
        self._settle()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._dispatch()
        self._settle()

    # What the parser calls. After the last request of a connection nothing counts any more.

    def on_message_begin(self) -> None:
        self._receiving = True
        self._since = self.shared.now
        self._refused = False
        self._target = b""
        self._headers = []
        self._body = []
        self._body_bytes = self._head_bytes = self._bytes = self._hosts = 0
        self._expects = None
        self._head_done = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self._stopped or self._head_done:
            return  # fields of a trailer are dropped
        self._headers.append((name, value))
        length = len(name)
        if length == 4 and name.lower() == b"host":
            self._hosts += 1
        elif length == 6 and name.lower() == b"expect":
            self._expects = value.lower()
        if len(self._headers) > HEADERS_MAX:
            self._refuse(431, b"", last=True)

    def on_headers_complete(self) -> None:
        self._head_done = True
        if self._stopped:
            return
        self._modern = self._parser.get_http_version() != "1.0"
        if self._modern and self._hosts != 1:
            self._refuse(400, b"", last=True)
        elif self._expects is not None and self._modern:
            if self._expects != b"100-continue":
                self._refuse(417, b"", last=True)
            elif self._announced() > self.shared.max_body:
                self._refuse(*self.shared.on_too_large, last=True)
            else:
                self._continue_due = True
        if self.shared.divert is not None and not self._stopped:
            self._divert(self.shared.divert)

    def _announced(self) -> int:
        """The body's size, if the head tells it."""
        for name, value in self._headers:
            if name.lower() == b"content-length" and value.isdigit() and len(value) < 20:
                return int(value)
        return 0

    def on_body(self, data: bytes) -> None:
        if self._stopped:
            return
        self._body_bytes += len(data)
        if self._refused:
            if self._body_bytes > self.shared.max_body + DISCARDED_BYTES_MAX:
                self._stopped = True
                self._transport.abort()
        elif self._body_bytes > self.shared.max_body:
            self._body = []
            self._refuse(*self.shared.on_too_large)
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self._receiving = False
        self._continue_due = False
        if self._stopped:
            return
        body = self._body
        keep_alive = self._keeps_alive()
        if not self._refused:
            joined = body[0] if len(body) == 1 else b"".join(body)
            self._waiting.append(self._exchange(joined, keep_alive))
        if not keep_alive:
            self._stopped = True
        self._body = []

    def _keeps_alive(self) -> bool:
        # Node closes after every HTTP/1.0 request, whatever it asks for.
        return self._modern and bool(self._parser.should_keep_alive())

    def _exchange(self, body: bytes, keep_alive: bool) -> Exchange:
        method = self._parser.get_method().decode("latin-1")
        return Exchange(self, method, self._target.decode("latin-1"), self._headers, body, keep_alive)

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > HEAD_BYTES_MAX and not self._stopped:
            self._refuse(431, b"", last=True)

    def _refuse(self, status: int, body: bytes, *, last: bool = False) -> None:
        """Answer in the handler's place, when its turn comes; ``last``: and close after that."""
        self._continue_due = False
        if last:
            self._stopped = True
            if self._refused:  # this message has its answer already
                self._mark_last()
                return
        self._refused = True
        exchange = self._exchange(b"", not last and self._keeps_alive())
        exchange.refusal = (status, body)
        self._waiting.append(exchange)

    def _turn_away(self, status: int, body: bytes) -> None:
        """Answer who has not asked yet, and will not be listened to."""
        head = self.shared.heads.head(status, False)
        self._write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        self._receiving = True
        self._close()

    def _mark_last(self) -> None:
        pending = self._waiting or self._in_flight
        if pending:
            pending[-1].keep_alive = False
        else:
            self._close()

    # Requests go to the handler in order, and replies leave in order.

    def _dispatch(self) -> None:
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while (
                self._waiting
                and not self.closed
                and not self._write_blocked
                and len(self._in_flight) < PIPELINED_MAX
                and self._may_go()
            ):
                exchange = self._waiting.popleft()
                self._in_flight.append(exchange)
                if exchange.refusal is not None:
                    exchange.reply(*exchange.refusal)
                    continue
                self._hand_over(exchange)
        finally:
            self._dispatching = False
        if self._continue_due and not self._in_flight and not self._waiting and self._receiving:
            self._continue_due = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _may_go(self) -> bool:
        """Whether one more request may be handled now: always, while all clients are at one address."""
        if len(self.shared.connections.sources) < 2 or self._source is None:
            return True
        return self.shared.turns.take(self._source, self)

    def proceed(self) -> None:
        """Hand over what had to wait for others' turns."""
        if self.closed:
            return
        self._corked = []
        self._dispatch()
        self._uncork()
        self._corked = None
        self._settle()

    def _hand_on(self, rest: bytes) -> bool:
        """Let another protocol go on with this connection, if it was asked for and somebody speaks it."""
        upgrade = self.shared.upgrade
        if upgrade is None or len(self._waiting) != 1 or self._in_flight or self._eof:
            return False
        asked = self._waiting[0]
        protocol = None if asked.refusal is not None or asked.body else upgrade(asked)
        if protocol is None:
            return False
        self._leave_to(protocol, request_head(asked.method, asked.target, asked.fields) + rest)
        return True

    def _divert(self, divert: Divert) -> None:
        protocol = divert(self._headers)
        if protocol is None:
            self._raw = None
        elif self._raw is None or self._waiting or self._in_flight:
            self._refuse(400, b"", last=True)  # its connection is for it alone, and has replies to carry yet
        else:
            self._stopped = True
            self._diverted = protocol

    def _leave_to(self, protocol: asyncio.BaseProtocol, data: bytes) -> None:
        self._waiting.clear()
        self.closed = True
        self._parser = None
        self.shared.connections.left(self)
        move(self._transport, protocol, data)

    def _hand_over(self, exchange: Exchange) -> None:
        try:
            self.shared.handle(exchange)
        except Exception:
            log.exception("the handler of %s %s failed", exchange.method, exchange.target)
            if not exchange.replied:
                exchange.reply(*self.shared.on_handler_error)

    def deliver(self, exchange: Exchange, wire: bytes) -> None:
        """Take a reply; send it, and those that waited for it, when its turn has come."""
        in_flight = self._in_flight
        if not in_flight or in_flight[0] is not exchange:
            exchange.wire = wire
            return
        ready: bytes | None = wire
        while ready is not None:
            done = in_flight.popleft()
            self._write(ready)
            if not done.keep_alive:
                self._close()
                return
            ready = in_flight[0].wire if in_flight else None
        self._served = True
        if not self._receiving:
            self._since = self.shared.now
            if not in_flight and self.shared.poll is not None:
                self.shared.poll.expect()
        if self._corked is None and (self._waiting or self._eof or self._continue_due or not self._reading):
            self._dispatch()
            self._settle()

    def _write(self, wire: bytes) -> None:
        if self._corked is None:
            self._transport.write(wire)
            return
        self._corked.append(wire)
        self._corked_bytes += len(wire)
        if self._corked_bytes > CORK_BYTES_MAX:
            # Only what the transport has can make it call pause_writing.
            self._uncork()

    def _uncork(self) -> None:
        if self._corked and not self.closed:
            self._transport.write(self._corked[0] if len(self._corked) == 1 else b"".join(self._corked))
            self._corked.clear()
            self._corked_bytes = 0

    def _settle(self) -> None:
        """Read on, or not, as there is room; and let go of a client that has said and heard everything."""
        if self.closed or self._transport.is_closing():
            return
        if self._eof and not self._in_flight and not self._waiting:
            self._transport.close()
            return
        full = bool(self._waiting) or self._write_blocked or len(self._in_flight) >= PIPELINED_MAX
        if full == self._reading:
            self._reading = not full
            if full:
                self._transport.pause_reading()
            else:
                self._since = self.shared.now
                self._transport.resume_reading()

    def _close(self) -> None:
        """The last reply is written: close, once the client cannot lose it to a reset."""
        self._stopped = True
        self._waiting.clear()
        self._in_flight.clear()
        self._uncork()
        if not (self._receiving or self._junk) or self._eof or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._lingering = True
        self._since = self.shared.now
        self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    # Time limits and the end.

    def check(self, now: float) -> None:
        """Close when the client took too long for what it is about."""
        waited = now - self._since - self.shared.tick_s
        if self._write_blocked or self._transport.is_closing():
            if waited > self.shared.request_timeout_s:
                self._transport.abort()
        elif self._lingering:
            if waited > LINGER_S:
                self._transport.abort()
        elif self._receiving:
            if self._reading and waited > self.shared.request_timeout_s:
                self._refuse(408, b"", last=True)
                self._dispatch()
        elif not self._in_flight and not self._waiting:
            limit = self.shared.keep_alive_s if self._served else self.shared.request_timeout_s
            if waited > limit:
                self._transport.close()

    @property
    def held(self) -> int:
        """Bytes of a request that is not whole, and of replies that are not taken."""
        waiting = sum(len(each.wire) for each in self._in_flight if each.wire is not None)
        return (
            waiting + self._transport.get_write_buffer_size() + (self._body_bytes if self._receiving else 0)
        )

    def shed(self) -> None:
        """Hold nothing any more: the client is told so, or cut off while it takes no replies."""
        if self._write_blocked or self._in_flight or not self._receiving:
            self._transport.abort()
            return
        self._body = []
        self._refuse(*self.shared.on_busy, last=True)
        self._dispatch()

    @property
    def busy(self) -> bool:
        """Whether a request is in hand, its reply is still to be taken, or the end has come."""
        return bool(self._in_flight or self._waiting or self._write_blocked or self._transport.is_closing())

    def drain(self) -> None:
        if self._in_flight or self._waiting:
            (self._waiting or self._in_flight)[-1].keep_alive = False
            self._stopped = True
        elif not self._lingering:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()
