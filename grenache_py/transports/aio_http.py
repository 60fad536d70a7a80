"""The HTTP client of the asyncio flavour, on ``asyncio.Protocol``: pooled keep-alive connections, one bounded
exchange per call.

Everything above this seam sees ``call`` only; ``transports/http.py`` is its synchronous twin. No task is
made per call, and one timer per connection serves all its time limits, so that a call costs little more
than its bytes.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Mapping
from ssl import SSLContext, create_default_context
from typing import Any, cast
from urllib.parse import urlsplit

from .. import limits
from ..errors import (
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    PeerError,
    ReplySizeError,
    RequestTimeout,
    reason,
)
from ..tls import DISTRUST, Resuming
from ..wire import CLIENT_HEADERS, HttpReply, decode_reply, encode_request, header_lines, rids
from .broadcast import Call
from .http1_reply import BrokenReplyError, OversizedReplyError, ReplyParser

# A body up to this size leaves in one piece with its head; copying a larger one costs more than a write.
_JOINED_BYTES_MAX = 64 * 1024


class HttpClient:
    """Posts bodies and returns whole replies, over connections that are kept for
    ``limits.IDLE_CONNECTION_S``, or less where the server says so; at most ``limits.CONNECTIONS_MAX``.

    A request is sent once. Whether a server that hangs up without a word had begun to work on it cannot be
    known, not even on a connection that was idle: that is a ``ConnectionLost`` in doubt, and repeating is
    the caller's decision. Connections that the server closed while they were idle are not used again.
    """

    def __init__(self, max_reply_bytes: int = limits.BODY_BYTES_MAX, ssl: SSLContext | None = None):
        self.max_reply_bytes = max_reply_bytes
        # For https; a plain one unless another was given.
        self._ssl = ssl
        self.closed = False
        self._targets: dict[str, _Target] = {}
        # Those that connect count too.
        self._open: set[_Connection] = set()
        self._connecting: set[asyncio.Task[Any]] = set()
        # Calls that wait for one of them to end.
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._all_gone: asyncio.Event | None = None

    async def call(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        """POST ``body`` to ``url``; the reply comes whole, undecoded, with any status; no redirect is
        followed.

        Raises ``ConnectError``, ``ConnectionLost``, ``RequestTimeout`` or ``ReplySizeError`` within
        ``timeout_s`` seconds; ``ClosedError`` after ``close``.
        """
        if self.closed:
            raise ClosedError("stopped before the call")
        loop = asyncio.get_running_loop()
        target = self._targets.get(url) or self._target(url)
        now = loop.time()
        conn = target.take(now) or await self._connect(loop, target, now + timeout_s)
        head = b"%b%bContent-Length: %d\r\n\r\n" % (target.start, header_lines(headers), len(body))
        reply = conn.exchange(loop, head, body, now + timeout_s, timeout_s)
        try:
            return await reply
        except asyncio.CancelledError:
            conn.abort()
            raise

    async def close(self) -> None:
        """Close all connections; calls under way fail with ``ClosedError``."""
        self.closed = True
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(ClosedError("stopped during the call"))
        for task in self._connecting:
            task.cancel()
        for conn in list(self._open):
            conn.fail(ClosedError("stopped during the call"))
        if self._open:
            self._all_gone = asyncio.Event()
            await self._all_gone.wait()

    def _target(self, url: str) -> _Target:
        if len(self._targets) >= limits.DESTINATION_POOLS:
            self._targets = {url: target for url, target in self._targets.items() if target.idle}
        while len(self._targets) >= limits.DESTINATION_POOLS:
            # All have idle connections: the oldest destination loses its own.
            for conn in self._targets.pop(next(iter(self._targets))).idle:
                conn.abort()
        if url.startswith("https") and self._ssl is None:
            self._ssl = create_default_context()
        target = self._targets[url] = _Target(url, self._ssl)
        return target

    # Making and ending connections.

    async def _connect(self, loop: asyncio.AbstractEventLoop, target: _Target, ends: float) -> _Connection:
        # Connecting gets a little less than the whole time, so that its own limit fires and says that nothing
        # was sent.
        limit_s = min(limits.CONNECT_TIMEOUT_S, (ends - loop.time()) * 0.9)
        try:
            while len(self._open) >= limits.CONNECTIONS_MAX and not self._evict():
                await asyncio.wait_for(self._room(loop), ends - loop.time())
                if idle := target.take(loop.time()):
                    return idle
        except asyncio.TimeoutError as error:
            raise ConnectTimeout(target.place, "no connection became free within the time limit") from error
        conn = _Connection(self, target)
        self._open.add(conn)
        task = loop.create_task(
            loop.create_connection(
                lambda: conn, target.host, target.port, ssl=cast("SSLContext | None", target.tls)
            )
        )
        self._connecting.add(task)
        task.add_done_callback(lambda task: self._connected(task, conn))
        try:
            await asyncio.wait([task], timeout=limit_s)
            if not task.done():
                raise ConnectTimeout(target.place, "no connection within the time limit")
            if task.cancelled():
                raise ClosedError("stopped during the call")
            task.result()
        except (OSError, UnicodeError) as error:
            if isinstance(error, PeerError):
                raise
            raise ConnectError(target.place, f"no connection: {reason(error)}") from error
        finally:
            task.cancel()
        if not conn.usable:
            why = "closed at once" if target.tls is None else f"closed at once; {DISTRUST}"
            raise ConnectError(target.place, f"no connection: {why}")
        return conn

    def _connected(self, task: asyncio.Task[Any], conn: _Connection) -> None:
        self._connecting.discard(task)
        if task.cancelled() or task.exception() is not None:
            conn.abort()
            self.gone(conn)
        elif self.closed:
            conn.abort()

    async def _room(self, loop: asyncio.AbstractEventLoop) -> None:
        waiter = loop.create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.make_room()  # it was our turn: the next one's now
            raise
        finally:
            if waiter in self._waiting:
                self._waiting.remove(waiter)

    def _evict(self) -> bool:
        """Close the connection that was idle longest; whether there was one."""
        idle = [conn for conn in self._open if conn.idle]
        if not idle:
            return False
        oldest = min(idle, key=lambda conn: conn.ends)
        oldest.abort()
        self.gone(oldest)
        return True

    def make_room(self) -> None:
        """A connection ended or became idle: let one call that waits for that look again."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def gone(self, conn: _Connection) -> None:
        """``conn`` counts no more."""
        if conn in self._open:
            self._open.discard(conn)
            self.make_room()
            if self._all_gone is not None and not self._open:
                self._all_gone.set()


class HttpTransport:
    """Calls over HTTP, or HTTPS with ``ssl``; with ``deadlines`` each says how long it will wait."""

    def __init__(self, ssl: SSLContext | None, deadlines: bool):
        self._http = HttpClient(ssl=ssl)
        self._scheme = "http" if ssl is None else "https"
        self._deadlines = deadlines
        self._rids = rids(str(uuid.uuid4())[:24])

    async def call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        """Call a peer; see ``aio.client.Transport``."""
        rid = next(self._rids)
        deadline_s = timeout_s if self._deadlines else None
        head, body = encode_request(rid, key, payload, compress, headers, deadline_s)
        reply = await self._http.call(f"{self._scheme}://{destination}/", head, body, timeout_s)
        return decode_reply(reply, rid, destination, compress)

    def begin(self, calls: list[Call], *request: Any) -> list[Call]:
        """See ``aio.client.Transport``: of each call here a task is made."""
        return calls

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        await self._http.close()


class _Target:
    """One URL: where it leads, how requests to it begin, and its idle connections."""

    __slots__ = ("host", "idle", "place", "port", "start", "tls")

    def __init__(self, url: str, ssl: SSLContext | None) -> None:
        parts = urlsplit(url)
        self.place = parts.netloc
        self.host = parts.hostname or ""
        self.tls = Resuming(ssl) if ssl is not None and parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        fixed = "".join(f"{name}: {value}\r\n" for name, value in CLIENT_HEADERS.items())
        self.start = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fixed}".encode("latin-1")
        self.idle: list[_Connection] = []

    def take(self, now: float) -> _Connection | None:
        """The connection that was used last, unless its time is over."""
        while self.idle:
            conn = self.idle.pop()
            if conn.ends > now and conn.usable:
                return conn
            conn.abort()
        return None


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    __slots__ = (
        "_client",
        "_loop",
        "_parser",
        "_resumable",
        "_target",
        "_timeout_s",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "ends",
        "idle",
    )

    def __init__(self, client: HttpClient, target: _Target) -> None:
        self._client = client
        self._target = target
        self._loop: asyncio.AbstractEventLoop
        self._transport: asyncio.Transport | None = None
        self._parser = ReplyParser(client.max_reply_bytes)
        self._waiter: asyncio.Future[HttpReply] | None = None
        self._resumable = False
        self.idle = False
        #: on the loop's clock: the end of the call's time, or of the time that it may be idle
        self.ends = 0.0
        self._timeout_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def exchange(
        self, loop: asyncio.AbstractEventLoop, head: bytes, body: bytes, ends: float, timeout_s: float
    ) -> asyncio.Future[HttpReply]:
        """Send one request; the future has its reply, or the error in its place."""
        waiter = self._waiter = loop.create_future()
        self._loop = loop
        self._timeout_s = timeout_s
        self.idle = False
        self._limit(ends)
        transport = cast(asyncio.Transport, self._transport)
        if len(body) <= _JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        return waiter

    def fail(self, error: Exception) -> None:
        """End the call under way with ``error``, and the connection."""
        waiter, self._waiter = self._waiter, None
        self.abort()
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Time. The timer is left to run when a call ends before it, and armed again for what is left: calls with
    # the same limit, one after the other, then need no timer of their own.

    def _limit(self, ends: float) -> None:
        self.ends = ends
        if self._timer is None or ends < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = ends
            self._timer = self._loop.call_at(ends, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        if self._loop.time() < self.ends - 0.001:  # timers are exact to a millisecond
            self._limit(self.ends)
        elif self._waiter is not None:
            self.fail(RequestTimeout(self._target.place, f"no whole reply within {self._timeout_s:g} s"))
        else:
            self.abort()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None:
            self.abort()  # nobody asked
            return
        try:
            if self._parser.feed(data):
                self._finish(self._waiter)
        except BrokenReplyError as error:
            self._lose(str(error))
        except OversizedReplyError as error:
            self.fail(ReplySizeError(self._target.place, str(error)))

    def eof_received(self) -> bool:
        if self._waiter is not None and self._parser.end():
            self._finish(self._waiter)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self._waiter is not None:
            why = reason(error) if error is not None else "the peer closed it"
            if self._target.tls is not None and not self._resumable:
                why += f"; {DISTRUST}"
            self._lose(why)
        if self.idle and self in self._target.idle:
            self._target.idle.remove(self)
        if self._timer is not None:
            self._timer.cancel()
        self._parser.close()
        if self._target.tls is not None:
            self.abort()  # Python 3.10 takes a TLS transport that its peer closed for still open
        self._client.gone(self)

    def _lose(self, why: str) -> None:
        self.fail(ConnectionLost(self._target.place, f"connection lost: {why}"))

    def _finish(self, waiter: asyncio.Future[HttpReply]) -> None:
        self._waiter = None
        keep_s = self._parser.keep_s
        reply = self._parser.take()
        if self._target.tls is not None and not self._resumable:
            self._resumable = True
            self._target.tls.remember(cast(asyncio.Transport, self._transport).get_extra_info("ssl_object"))
        if keep_s > 0 and self.usable:
            self.idle = True
            self._limit(self._loop.time() + keep_s)
            self._target.idle.append(self)
            self._client.make_room()
        else:
            self.abort()
        if not waiter.done():
            waiter.set_result(reply)
