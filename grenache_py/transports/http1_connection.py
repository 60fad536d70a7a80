"""One connection of the HTTP/1.1 server: requests in turn, replies in order, time limits and the end.

What comes on it is read by ``http1_requests``. Pipelining and closing: RFC 9112.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from .addresses import peer_of
from .busy_poll import BusyPoll
from .connections import Connections
from .handover import move, request_head
from .http1_exchange import Exchange
from .http1_head import ReplyHeads
from .http1_known import KnownHeads
from .http1_requests import Divert, RequestReader
from .turns import Source, Turns

log = logging.getLogger(__name__)

# Requests of one connection that are with the handler at once; more wait, and reading pauses.
PIPELINED_MAX = 64
# Replies gathered for one write.
CORK_BYTES_MAX = 64 * 1024
# After an error reply the rest of the input is thrown away this long, for a reset would destroy the reply.
LINGER_S = 2.0

Handler = Callable[[Exchange], None]
# Given a request for another protocol, what goes on with its connection; None: it is an ordinary request.
Upgrade = Callable[[Exchange], "asyncio.BaseProtocol | None"]


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
        "_corked",
        "_corked_bytes",
        "_dispatching",
        "_eof",
        "_in_flight",
        "_lingering",
        "_reader",
        "_reading",
        "_served",
        "_since",
        "_source",
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
        self._reader = RequestReader(self, shared)
        self._waiting = self._reader.waiting
        # With the handler, in the order their replies must take.
        self._in_flight: deque[Exchange] = deque()
        # Replies that are ready while input is being worked through go out in one write.
        self._corked: list[bytes] | None = None
        self._corked_bytes = 0
        self._dispatching = False
        self._reading = True
        self._write_blocked = False
        self._eof = False
        self._source: Source | None = None
        self._lingering = False
        self._served = False
        # When the present state (idle, receiving, blocked, lingering) began, on the server's coarse clock.
        self._since = shared.now

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
        self._tell_gone()
        self._reader.close()
        self._in_flight.clear()
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
        reader = self._reader
        if reader.stopped:
            return
        shared = self.shared
        if shared.poll is not None:
            shared.poll.came()
        idle = not (reader.receiving or self._waiting or self._in_flight or self._write_blocked)
        if idle:
            found = shared.known_heads.find(data)
            if found is not None and self._may_go():
                head, body = found
                exchange = Exchange(self, head.method, head.target, head.headers, body, True, head.header_map)
                self._in_flight.append(exchange)
                self._hand_over(exchange)
                return
        self._corked = []
        only = reader.feed(data, idle)
        if self.closed:
            return  # it was handed on
        if reader.diverted is not None:
            self._leave_to(reader.diverted, cast(bytes, reader.raw))
            return
        if only is not None:
            shared.known_heads.learn(data, only.method, only.target, only.fields, only.body)
        self._dispatch()
        self._uncork()
        self._corked = None
        self._settle()

    def pause_writing(self) -> None:
        self._write_blocked = True
        self._since = self.shared.now
        self._settle()

    def resume_writing(self) -> None:
        self._write_blocked = False
        self._dispatch()
        self._settle()

    # What the reader calls.

    @property
    def unanswered(self) -> bool:
        """Whether the handler has requests that are not answered."""
        return bool(self._in_flight)

    def began(self) -> None:
        """A request has begun to come."""
        self._since = self.shared.now

    def mark_last(self) -> None:
        """What has been read is all that will be answered."""
        pending = self._waiting or self._in_flight
        if pending:
            pending[-1].keep_alive = False
        else:
            self._close()

    def hand_on(self, asked: Exchange, rest: bytes) -> bool:
        """Let another protocol go on with this connection, if ``asked`` wants that and somebody speaks it."""
        upgrade = self.shared.upgrade
        if upgrade is None or self._in_flight or self._eof:
            return False
        protocol = None if asked.refusal is not None or asked.body else upgrade(asked)
        if protocol is None:
            return False
        self._leave_to(protocol, request_head(asked.method, asked.target, asked.fields) + rest)
        return True

    def abort(self) -> None:
        """End at once."""
        self._transport.abort()

    def _turn_away(self, status: int, body: bytes) -> None:
        """Answer who has not asked yet, and will not be listened to."""
        head = self.shared.heads.head(status, False)
        self._write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        self._reader.ends_in_junk = True
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
        reader = self._reader
        if reader.continue_due and reader.receiving and not (self._in_flight or self._waiting):
            reader.continue_due = False
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

    def _leave_to(self, protocol: asyncio.BaseProtocol, data: bytes) -> None:
        self.closed = True
        self._reader.close()
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
        reader = self._reader
        if not reader.receiving:
            self._since = self.shared.now
            if not in_flight and self.shared.poll is not None:
                self.shared.poll.expect()
        if self._corked is None and (self._waiting or self._eof or reader.continue_due or not self._reading):
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
        reader = self._reader
        reader.stop()
        self._in_flight.clear()
        self._uncork()
        if not (reader.receiving or reader.ends_in_junk) or self._eof or not self._transport.can_write_eof():
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
        elif self._reader.receiving:
            if self._reading and waited > self.shared.request_timeout_s:
                self._reader.refuse(408, b"", last=True)
                self._dispatch()
        elif not self._in_flight and not self._waiting:
            limit = self.shared.keep_alive_s if self._served else self.shared.request_timeout_s
            if waited > limit:
                self._transport.close()

    @property
    def held(self) -> int:
        """Bytes of a request that is not whole, and of replies that are not taken."""
        waiting = sum(len(each.wire) for each in self._in_flight if each.wire is not None)
        received = self._reader.body_bytes if self._reader.receiving else 0
        return waiting + self._transport.get_write_buffer_size() + received

    def shed(self) -> None:
        """Hold nothing any more: the client is told so, or cut off while it takes no replies."""
        if self._write_blocked or self._in_flight or not self._reader.receiving:
            self._transport.abort()
            return
        self._reader.refuse(*self.shared.on_busy, last=True)
        self._dispatch()

    @property
    def busy(self) -> bool:
        """Whether a request is in hand, its reply is still to be taken, or the end has come."""
        return bool(self._in_flight or self._waiting or self._write_blocked or self._transport.is_closing())

    def drain(self) -> None:
        if self._in_flight or self._waiting:
            (self._waiting or self._in_flight)[-1].keep_alive = False
            self._reader.stopped = True
        elif not self._lingering:
            self._transport.close()
