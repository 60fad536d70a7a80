"""The HTTP client of the synchronous flavour, on the connection pools of requests: pooled keep-alive
connections, one bounded exchange per call. Thread-safe. Everything above this seam sees ``call`` only;
``transports/aio_http.py`` is its asyncio twin.

What lies between a request and its connection in requests and urllib3 (sessions, hooks, cookies, redirects,
retries, e-mail headers) takes four times as long as the exchange itself, and has nothing to do here. So the
adapter of requests gives and keeps the connections, and the exchange is made on their sockets directly.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from ssl import SSLContext, SSLSocket, create_default_context
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakSet

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ClosedPoolError, ConnectTimeoutError, HTTPError, NewConnectionError

from .. import limits
from ..errors import (
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    ReplySizeError,
    RequestTimeout,
    reason,
)
from ..tls import DISTRUST, Resuming
from ..wire import CLIENT_HEADERS, HttpReply, decode_reply, encode_request, header_lines, rids
from .http1_reply import BrokenReplyError, OversizedReplyError, ReplyParser
from .steps import Steps, finish

_READ_BYTES = 64 * 1024
# A socket's own limit is set anew when it is further than this from what is left of the call's time: each
# setting is a system call.
_TIMEOUT_SLACK_S = 0.01
# Targets whose pools are found without parsing their URL; the pools themselves are bounded by their manager.
_TARGETS_MAX = 4 * limits.DESTINATION_POOLS


class HttpClient:
    """Posts bodies and returns whole replies, over connections that are kept for
    ``limits.IDLE_CONNECTION_S``, or less where the server says so.

    A request is sent once, as in the asyncio twin: a ``ConnectionLost`` is in doubt, and repeating is the
    caller's decision. Connections that the server closed while they were idle are not used again.
    """

    def __init__(self, max_reply_bytes: int = limits.BODY_BYTES_MAX, ssl: SSLContext | None = None):
        self._max_reply_bytes = max_reply_bytes
        # For https; a plain one unless another was given.
        self._ssl = ssl
        self._closed = False
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        self._adapter = _Adapter(
            pool_connections=limits.DESTINATION_POOLS, pool_maxsize=limits.CONNECTIONS_PER_DESTINATION
        )
        self._targets: dict[str, _Target] = {}

    def call(self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float) -> HttpReply:
        """POST ``body`` to ``url``; the reply comes whole, undecoded, with any status; no redirect is
        followed.

        Raises ``ConnectError``, ``ConnectionLost``, ``RequestTimeout`` or ``ReplySizeError`` within
        ``timeout_s`` seconds; ``ClosedError`` after ``close``.
        """
        target = self._targets.get(url) or self._target(url)
        conn = self._borrow(url, target)
        return finish(self._exchange(target, conn, headers, body, timeout_s))

    def begin(
        self, url: str, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Steps[HttpReply] | None:
        """``call`` over a connection that is there, without TLS, for what leaves at once."""
        target = self._targets.get(url)
        if target is None or target.tls is not None or len(body) > limits.SENT_AT_ONCE_BYTES:
            return None
        conn = self._borrow(url, target)
        if conn.is_closed:
            target.pool.give(conn)
            return None
        return self._exchange(target, conn, headers, body, timeout_s)

    def _exchange(
        self, target: _Target, conn: _Connection, headers: Mapping[str, str], body: bytes, timeout_s: float
    ) -> Steps[HttpReply]:
        ends = time.monotonic() + timeout_s
        new = conn.is_closed
        head = b"%b%bContent-Length: %d\r\n\r\n" % (target.start, header_lines(headers), len(body))
        try:
            if conn.is_closed:
                self._connect(conn, target, timeout_s)
            conn.send_request(head + body, ends, self._max_reply_bytes)
            reply = None
            while reply is None:
                yield conn.sock.fileno()
                reply = conn.receive_reply(ends)
            if target.tls is not None:
                conn.remember_session(target.tls)
            return reply
        except TimeoutError as error:
            conn.close()
            if isinstance(error, ConnectTimeout):
                raise
            raise RequestTimeout(target.place, f"no whole reply within {timeout_s:g} s") from error
        except OversizedReplyError as error:
            conn.close()
            raise ReplySizeError(target.place, str(error)) from error
        except BrokenReplyError as error:
            conn.close()
            raise ConnectionLost(target.place, f"connection lost: {error}") from error
        except OSError as error:
            conn.close()
            if isinstance(error, ConnectError):
                raise
            why = reason(error)
            if new and target.tls is not None:
                why += f"; {DISTRUST}"
            raise ConnectionLost(target.place, f"connection lost: {why}") from error
        except BaseException:
            conn.close()  # interrupted: a reply may still come
            raise
        finally:
            target.pool.give(conn)

    @staticmethod
    def _after_fork() -> None:
        # The connections belong to the parent: two processes on one would get each other's replies.
        for client in list(_clients):
            client._begin()

    def close(self) -> None:
        """Close idle connections; calls under way in other threads end by themselves, within their limits."""
        self._closed = True
        self._targets.clear()
        self._adapter.close()

    def _target(self, url: str) -> _Target:
        if len(self._targets) >= _TARGETS_MAX:
            self._targets.clear()
        if url.startswith("https") and self._ssl is None:
            self._ssl = create_default_context()
        target = _Target(url, self._adapter.pool(url), self._ssl)
        self._targets[url] = target
        return target

    def _borrow(self, url: str, target: _Target) -> _Connection:
        while True:
            if self._closed:
                raise ClosedError("stopped before the call")
            try:
                return target.pool.borrow()
            except ClosedPoolError:
                # Its manager ended it in favour of others.
                target.pool = self._adapter.pool(url)

    @staticmethod
    def _connect(conn: _Connection, target: _Target, timeout_s: float) -> None:
        place = target.place
        # Connecting gets a little less than the whole time, as in the asyncio twin.
        conn.timeout = min(limits.CONNECT_TIMEOUT_S, timeout_s * 0.9)
        try:
            conn.connect_with(target.tls)
        except (ConnectTimeoutError, TimeoutError) as error:
            # NewConnectionError is a ConnectTimeoutError to urllib3, for history's sake.
            if isinstance(error, NewConnectionError):
                raise ConnectError(place, f"no connection: {reason(error.__cause__ or error)}") from error
            raise ConnectTimeout(place, "no connection within the time limit") from error
        except (HTTPError, OSError, UnicodeError) as error:
            raise ConnectError(place, f"no connection: {reason(error.__cause__ or error)}") from error


class HttpTransport:
    """Calls over HTTP, or HTTPS with ``ssl``; with ``deadlines`` each says how long it will wait."""

    def __init__(self, ssl: SSLContext | None, deadlines: bool):
        self._http = HttpClient(ssl=ssl)
        self._scheme = "http" if ssl is None else "https"
        self._deadlines = deadlines
        self._rids = rids(str(uuid.uuid4())[:24])

    def call(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Any:
        """Call a peer; see ``client.Transport``."""
        rid = next(self._rids)
        deadline_s = timeout_s if self._deadlines else None
        head, body = encode_request(rid, key, payload, compress, headers, deadline_s)
        reply = self._http.call(f"{self._scheme}://{destination}/", head, body, timeout_s)
        return decode_reply(reply, rid, destination, compress)

    def begin(
        self,
        destination: str,
        key: str,
        payload: Any,
        timeout_s: float,
        compress: bool,
        headers: Mapping[str, Any] | None,
    ) -> Steps[Any] | None:
        """A call that need not be connected first; see ``client.Transport``."""
        rid = next(self._rids)
        deadline_s = timeout_s if self._deadlines else None
        head, body = encode_request(rid, key, payload, compress, headers, deadline_s)
        steps = self._http.begin(f"{self._scheme}://{destination}/", head, body, timeout_s)
        return None if steps is None else _decoded(steps, rid, destination, compress)

    def close(self) -> None:
        """Close idle connections; calls under way end within their limits."""
        self._http.close()


def _decoded(steps: Steps[HttpReply], rid: str, destination: str, compress: bool) -> Steps[Any]:
    return decode_reply((yield from steps), rid, destination, compress)


_clients: WeakSet[HttpClient] = WeakSet()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=HttpClient._after_fork)


class _Target:
    """One URL: its pool, and how requests to it begin."""

    __slots__ = ("place", "pool", "start", "tls")

    def __init__(self, url: str, pool: _Pool, ssl: SSLContext | None) -> None:
        parts = urlsplit(url)
        self.tls = Resuming(ssl) if ssl is not None and parts.scheme == "https" else None
        self.place = parts.netloc
        fixed = "".join(f"{name}: {value}\r\n" for name, value in CLIENT_HEADERS.items())
        self.start = f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fixed}".encode("latin-1")
        self.pool = pool


class _Connection(HTTPConnection):
    """A connection that makes whole exchanges within a time, and is not used again after a long pause."""

    _parser: ReplyParser | None = None
    _kept_until = 0.0
    _resumable = False

    @property
    def is_connected(self) -> bool:
        # Asked by the pool: False makes it close the connection and connect again.
        return time.monotonic() < self._kept_until and super().is_connected

    def connect_with(self, tls: Resuming | None) -> None:
        """Connect, within ``timeout``; with TLS where it is given."""
        plain = self._new_conn()
        try:
            self.sock = plain if tls is None else tls.wrap_socket(plain, self.host.strip("[]"))
        except BaseException:
            plain.close()
            raise
        self._resumable = False

    def remember_session(self, tls: Resuming) -> None:
        """After an exchange: later connections may resume the session of this one."""
        if not self._resumable and isinstance(self.sock, SSLSocket):
            self._resumable = True
            tls.remember(self.sock)

    def send_request(self, request: bytes, ends: float, max_bytes: int) -> None:
        """Send ``request``, whose reply may have ``max_bytes`` of body. Raises OSError."""
        if self._parser is None:
            self._parser = ReplyParser(max_bytes)
        self._limit(ends)
        try:
            self.sock.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the reply may have been sent before the request was read

    def receive_reply(self, ends: float) -> HttpReply | None:
        """The reply, if it is whole with what comes next. Raises OSError, and what the parser raises."""
        parser = self._parser
        assert parser is not None
        self._limit(ends)
        data = self.sock.recv(_READ_BYTES)
        if data:
            if not parser.feed(data):
                return None
        elif not parser.end():
            raise ConnectionError("the peer closed it")
        keep_s = parser.keep_s
        reply = parser.take()
        if keep_s > 0:
            self._kept_until = time.monotonic() + keep_s
        else:
            self.close()
        return reply

    def close(self) -> None:
        super().close()
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    def _limit(self, ends: float) -> None:
        left_s = ends - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        if not 0 <= (self.sock.gettimeout() or 0.0) - left_s < _TIMEOUT_SLACK_S:
            self.sock.settimeout(left_s)


class _Pool(HTTPConnectionPool):
    """urllib3's pool, which lends its connections."""

    ConnectionCls = _Connection

    def borrow(self) -> _Connection:
        """A connection to be given back, idle or not yet connected. Raises ``ClosedPoolError``."""
        conn = self._get_conn()
        assert isinstance(conn, _Connection)
        return conn

    def give(self, conn: _Connection) -> None:
        self._put_conn(conn)


class _TlsPool(_Pool):
    """The same for https: the connections make TLS themselves, see ``connect_with``."""

    scheme = "https"


class _Adapter(HTTPAdapter):
    """requests' adapter, with such pools."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def pool(self, url: str) -> _Pool:
        pool = self.poolmanager.connection_from_url(url)
        assert isinstance(pool, _Pool)
        return pool
