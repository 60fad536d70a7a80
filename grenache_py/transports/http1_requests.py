"""What comes on a connection of the HTTP/1.1 server, as requests. It does no IO itself.

``httptools`` parses. Message syntax: RFC 9112; offers of other protocols: RFC 9110 section 7.8.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

import httptools

from .handover import request_head, without_upgrade
from .http1_exchange import Carrier, Exchange

HEAD_BYTES_MAX = 16 * 1024
HEADERS_MAX = 100
# A body that is too large is read on, unkept, so that the connection stays usable as with Node; up to here.
DISCARDED_BYTES_MAX = 1024 * 1024
# Offers of other protocols in one piece of input that are passed over; each begins the parser anew.
OFFERS_MAX = 64

# Given the headers of a request whose body is still to come, what goes on with its connection from the first
# byte of that request; None: it is an ordinary one.
Divert = Callable[[list[tuple[bytes, bytes]]], "asyncio.BaseProtocol | None"]


class Rules(Protocol):
    """What holds for all connections of a server."""

    divert: Divert | None
    max_body: int
    on_too_large: tuple[int, bytes]


class Receiver(Carrier, Protocol):
    """What a reader needs of its connection."""

    @property
    def unanswered(self) -> bool:
        """Whether the handler has requests that are not answered."""

    def began(self) -> None:
        """A request has begun to come."""

    def mark_last(self) -> None:
        """What has been read is all that will be answered."""

    def hand_on(self, asked: Exchange, rest: bytes) -> bool:
        """Let another protocol go on with the connection, if ``asked`` wants that and somebody speaks it."""

    def abort(self) -> None:
        """End the connection at once."""


class RequestReader:
    """Parses what comes, and refuses what breaks a rule; after the last request nothing counts any more.

    Attributes:
        waiting: Requests that are whole, in their order, also those that are refused; for the connection to
            take.
        receiving: Whether one is on its way.
        stopped: Whether the last request of the connection has been seen: what follows is not looked at.
        ends_in_junk: Whether more may come after the last request.
        continue_due: Whether the client waits for a word before it sends the body.
        diverted: Who is to have the connection from the first byte of the request on its way.
        raw: That request as it came, until its head has; None when another one was before it in what came.
        body_bytes: Of the request on its way, so far.
    """

    __slots__ = (
        "_body",
        "_bytes",
        "_connection",
        "_expects",
        "_head_bytes",
        "_head_done",
        "_headers",
        "_hosts",
        "_modern",
        "_parser",
        "_refused",
        "_rules",
        "_target",
        "body_bytes",
        "continue_due",
        "diverted",
        "ends_in_junk",
        "raw",
        "receiving",
        "stopped",
        "waiting",
    )

    def __init__(self, connection: Receiver, rules: Rules) -> None:
        self.waiting: deque[Exchange] = deque()
        self.receiving = False
        self.stopped = False
        self.ends_in_junk = False
        self.continue_due = False
        self.diverted: asyncio.BaseProtocol | None = None
        self.raw: bytes | None = None
        self._connection = connection
        self._rules = rules
        self._parser: Any = httptools.HttpRequestParser(self)
        # The message being received.
        self._refused = False
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self.body_bytes = 0
        self._head_bytes = 0
        self._bytes = 0
        self._hosts = 0
        self._expects: bytes | None = None
        self._head_done = False
        self._modern = True  # HTTP/1.1

    def stop(self) -> None:
        """Look at nothing any more."""
        self.stopped = True
        self.waiting.clear()

    def close(self) -> None:
        """Stop for good. Parser and connection hold us, and we hold them: that would be cycles for the
        collector.
        """
        self.stop()
        self._parser = self._connection = cast(Any, None)

    def feed(self, data: bytes, idle: bool) -> Exchange | None:
        """Take ``data``; ``idle``: nothing was under way before it.

        Returns the request that it was, where it was just one that is whole and like most.
        """
        open_before = self.receiving
        if self._rules.divert is not None:
            if idle:
                self.raw = data
            elif self.raw is not None:
                self.raw += data
        plain = False
        try:
            plain = self._parse(data)
        except httptools.HttpParserError:
            if not self.stopped:
                self.refuse(400, b"", last=True)
        if self.diverted is not None:
            return None
        if self.receiving and open_before and not self.stopped:
            # What is neither body nor bounded by the callbacks: unfinished headers, chunk sizes, trailers.
            self._bytes += len(data)
            if self._bytes > HEAD_BYTES_MAX + 8 * self.body_bytes:
                self.refuse(431, b"", last=True)
        if plain and idle and len(self.waiting) == 1 and not (self.stopped or self.receiving):
            only = self.waiting[0]
            if only.refusal is None:
                return only
        return None

    def _parse(self, data: bytes) -> bool:
        """Returns whether nothing in it was an offer of another protocol. Raises HttpParserError."""
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
        if self.diverted is None:
            asked = self.waiting[-1] if self.waiting else None
            if asked is None or asked.fields is not self._headers:
                return None  # it was behind the last request
            if len(self.waiting) == 1 and self._connection.hand_on(asked, rest):
                return None
            if asked.refusal is not None or method == "CONNECT" or offers > OFFERS_MAX:
                self.stopped = self.ends_in_junk = True  # what follows may be no HTTP
                asked.keep_alive = False
                return None
            del self.waiting[-1]
            self.stopped = False
        version = "1.1" if self._modern else "1.0"
        head = request_head(method, self._target.decode("latin-1"), without_upgrade(self._headers), version)
        if self.diverted is not None:
            self.raw = head + rest
            return None
        self._parser = httptools.HttpRequestParser(self)
        return head + rest

    def _divert(self, divert: Divert) -> None:
        protocol = divert(self._headers)
        if protocol is None:
            self.raw = None
        elif self.raw is None or self.waiting or self._connection.unanswered:
            self.refuse(400, b"", last=True)  # its connection is for it alone, and has replies to carry yet
        else:
            self.stopped = True
            self.diverted = protocol

    # What the parser calls.

    def on_message_begin(self) -> None:
        self.receiving = True
        self._connection.began()
        self._refused = False
        self._target = b""
        self._headers = []
        self._body = []
        self.body_bytes = self._head_bytes = self._bytes = self._hosts = 0
        self._expects = None
        self._head_done = False

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value) + 4)
        if self.stopped or self._head_done:
            return  # fields of a trailer are dropped
        self._headers.append((name, value))
        length = len(name)
        if length == 4 and name.lower() == b"host":
            self._hosts += 1
        elif length == 6 and name.lower() == b"expect":
            self._expects = value.lower()
        if len(self._headers) > HEADERS_MAX:
            self.refuse(431, b"", last=True)

    def on_headers_complete(self) -> None:
        self._head_done = True
        if self.stopped:
            return
        self._modern = self._parser.get_http_version() != "1.0"
        if self._modern and self._hosts != 1:
            self.refuse(400, b"", last=True)
        elif self._expects is not None and self._modern:
            if self._expects != b"100-continue":
                self.refuse(417, b"", last=True)
            elif self._announced() > self._rules.max_body:
                self.refuse(*self._rules.on_too_large, last=True)
            else:
                self.continue_due = True
        if self._rules.divert is not None and not self.stopped:
            self._divert(self._rules.divert)

    def _announced(self) -> int:
        """The body's size, if the head tells it."""
        for name, value in self._headers:
            if name.lower() == b"content-length" and value.isdigit() and len(value) < 20:
                return int(value)
        return 0

    def on_body(self, data: bytes) -> None:
        if self.stopped:
            return
        self.body_bytes += len(data)
        if self._refused:
            if self.body_bytes > self._rules.max_body + DISCARDED_BYTES_MAX:
                self.stopped = True
                self._connection.abort()
        elif self.body_bytes > self._rules.max_body:
            self.refuse(*self._rules.on_too_large)
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        self.receiving = False
        self.continue_due = False
        if self.stopped:
            return
        body = self._body
        keep_alive = self._keeps_alive()
        if not self._refused:
            joined = body[0] if len(body) == 1 else b"".join(body)
            self.waiting.append(self._exchange(joined, keep_alive))
        if not keep_alive:
            self.stopped = True
        self._body = []

    def _keeps_alive(self) -> bool:
        # Node closes after every HTTP/1.0 request, whatever it asks for.
        return self._modern and bool(self._parser.should_keep_alive())

    def _exchange(self, body: bytes, keep_alive: bool) -> Exchange:
        method = self._parser.get_method().decode("latin-1")
        target = self._target.decode("latin-1")
        return Exchange(self._connection, method, target, self._headers, body, keep_alive)

    def _count_head(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > HEAD_BYTES_MAX and not self.stopped:
            self.refuse(431, b"", last=True)

    def refuse(self, status: int, body: bytes, *, last: bool = False) -> None:
        """Answer the request on its way in the handler's place, when its turn comes; ``last``: and nothing
        after it."""
        self.continue_due = False
        self._body = []
        if last:
            self.stopped = True
            if self._refused:  # this message has its answer already
                self._connection.mark_last()
                return
        self._refused = True
        exchange = self._exchange(b"", not last and self._keeps_alive())
        exchange.refusal = (status, body)
        self.waiting.append(exchange)
