"""WebSocket calls of the synchronous flavour, made on the threads that call.

Mirrors grenache-nodejs-ws 1.0.0 (lib/TransportRPCClient.js). Each call under way has a connection to itself,
which is kept for the next one: so no other thread stands between a call and its reply, and the other calls do
not share the fate of a connection.
"""

from __future__ import annotations

import base64
import os
import secrets
import socket
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar, cast

from .. import limits
from ..errors import (
    ArgumentError,
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    GrenacheError,
    ReplySizeError,
    RequestTimeout,
    reason,
)
from ..rpc_frames import Answer
from ..tls import DISTRUST, Resuming, Sessions
from ..wire import rids
from .steps import Steps, finish
from .sync_poll import sync_poll
from .sync_socket import TimedSocket, connected
from .ws_calls import HEADERS_OFFER, add_headers, decode_answer, encode_call, encode_headers, result_of
from .ws_frames import (
    CLOSE,
    NORMAL,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    FrameError,
    Frames,
    Messages,
    check_handshake,
    encode_close,
    encode_frame,
    masks,
)

_READ_BYTES, _READ_BYTES_MAX = 64 * 1024, 1024 * 1024
_HEAD_BYTES_MAX = 16 * 1024

Found = TypeVar("Found")


class Poll(Protocol):
    """As ``sync_poll.SyncPoll``."""

    def find(self, look: Callable[[], Found | None]) -> Found | None: ...


class WsTransport:
    """Calls peers. Thread-safe; works on in a process that was forked.

    With ``deadlines`` each call says how long it will wait. Headers, deadlines among them, go to servers that
    take them. A call that is the only one looks for its reply for ``busy_poll_us`` before it sleeps.
    """

    def __init__(
        self,
        ssl: ssl.SSLContext | None,
        deadlines: bool = False,
        max_reply_bytes: int = limits.BODY_BYTES_MAX,
        busy_poll_us: float = 0,
    ):
        self._ssl = ssl
        self._deadlines = deadlines
        self._max_reply_bytes = max_reply_bytes
        self._poll: Poll | None = None if ssl is not None else sync_poll(busy_poll_us)
        self._closed = False
        self._rids = rids(str(uuid.uuid4())[:24])
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards what follows
        # All that are open or being opened; and those of them that nobody uses, the last used one last.
        self._open: set[_Connection] = set()
        self._idle: dict[str, list[_Connection]] = {}
        self._idle_count = 0
        self._sessions = Sessions(self._ssl)

    def call(
        self,
        destination: str,
        key: object,
        payload: Any,
        timeout_s: float,
        compress: object = False,
        headers: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a peer; see ``client.Transport``. ``compress`` does not exist here."""
        if compress:
            raise ArgumentError("compress", "exists only over HTTP")
        rid, request, said = self._encode(key, payload, headers, timeout_s)
        ends = time.monotonic() + timeout_s
        conn = self._take(destination) or self._connect(destination, ends)
        if said and conn.takes_headers:
            request = add_headers(request, said)
        poll = self._poll if len(self._open) - self._idle_count == 1 else None
        return finish(self._exchange(conn, rid, request, ends, timeout_s, poll))

    def begin(
        self,
        destination: str,
        key: object,
        payload: Any,
        timeout_s: float,
        compress: object = False,
        headers: Mapping[str, Any] | None = None,
    ) -> Steps[Any] | None:
        """A call that need not be connected first; see ``client.Transport``."""
        if compress or self._ssl is not None:
            return None
        rid, request, said = self._encode(key, payload, headers, timeout_s)
        conn = self._take(destination) if len(request) + len(said) < limits.SENT_AT_ONCE_BYTES else None
        if conn is None:
            return None
        if said and conn.takes_headers:
            request = add_headers(request, said)
        return self._exchange(conn, rid, request, time.monotonic() + timeout_s, timeout_s)

    def _encode(
        self, key: object, payload: Any, headers: Mapping[str, Any] | None, timeout_s: float
    ) -> tuple[str, bytes, bytes]:
        """The rid of a request, the request, and the headers for a server that takes them."""
        rid = next(self._rids)
        request = encode_call(rid, key, payload)
        if not headers and not self._deadlines:
            return rid, request, b""
        return rid, request, encode_headers(headers, timeout_s if self._deadlines else None)

    def _exchange(
        self,
        conn: _Connection,
        rid: str,
        request: bytes,
        ends: float,
        timeout_s: float,
        poll: Poll | None = None,
    ) -> Steps[Any]:
        try:
            conn.send(request, ends)
            answer = None if poll is None else conn.find(rid, ends, poll)
            while answer is None:
                yield conn.fileno
                answer = conn.receive(rid, ends)
        except (OSError, FrameError) as error:
            self._drop(conn)
            raise self._failure(error, conn.destination, timeout_s) from error
        except BaseException:
            self._drop(conn)  # interrupted: a reply may still come
            raise
        self._give(conn)
        return result_of(answer, conn.destination)

    def close(self) -> None:
        """Close all connections; calls under way fail with ``ClosedError``."""
        if self._pid != os.getpid():
            self._begin()
        with self._lock:
            self._closed = True
            idle = [conn for conns in self._idle.values() for conn in conns]
            self._idle.clear()
            self._idle_count = 0
            busy = self._open.difference(idle)
        for conn in busy:
            conn.interrupt()
        ends = time.monotonic() + limits.WS_CLOSE_S
        for conn in idle:
            conn.say(CLOSE, encode_close(NORMAL, "stopped"), ends)
        for conn in idle:
            conn.await_end(ends)
            self._drop(conn)

    def _take(self, destination: str) -> _Connection | None:
        """The connection that was used last, if it can be used again."""
        if self._pid != os.getpid():
            # The connections belong to the parent: two processes on one would get each other's replies.
            for conn in self._open:
                conn.close()
            self._begin()
        while True:
            with self._lock:
                if self._closed:
                    raise ClosedError("stopped before the call")
                conns = self._idle.get(destination)
                if not conns:
                    return None
                conn = conns.pop()
                self._idle_count -= 1
            if conn.kept_until > time.monotonic() and conn.is_idle():
                return conn
            self._drop(conn)

    def _give(self, conn: _Connection) -> None:
        conn.kept_until = time.monotonic() + limits.WS_IDLE_CONNECTION_SYNC_S
        with self._lock:
            if not self._closed:
                self._idle.setdefault(conn.destination, []).append(conn)
                self._idle_count += 1
                return
        self._drop(conn)

    def _connect(self, destination: str, ends: float) -> _Connection:
        conn = _Connection(destination, self._max_reply_bytes)
        left, session = self._admit(conn)
        for other in left:
            other.say(CLOSE, encode_close(NORMAL), time.monotonic() + limits.WS_CLOSE_S)
            other.close()
        try:
            conn.open(session, min(ends, time.monotonic() + limits.CONNECT_TIMEOUT_S))
        except BaseException as error:
            self._drop(conn)
            if not isinstance(error, (OSError, FrameError, UnicodeError)):
                raise
            if self._closed:
                raise ClosedError("stopped during the call") from error
            if isinstance(error, TimeoutError):
                raise ConnectTimeout(destination, "no connection within the time limit") from error
            raise ConnectError(destination, f"no connection: {reason(error)}") from error
        if self._closed:
            self._drop(conn)
            raise ClosedError("stopped during the call")
        return conn

    def _admit(self, conn: _Connection) -> tuple[list[_Connection], Resuming | None]:
        """Count ``conn`` in; returns the connections that are to leave, and the TLS session to resume.

        Those leave that were idle for too long, or the longest when there is no room for more.
        """
        now = time.monotonic()
        with self._lock:
            idle = sorted((each for conns in self._idle.values() for each in conns), key=_kept_until)
            surplus = len(self._open) + 1 - limits.CONNECTIONS_MAX
            leaving = [each for at, each in enumerate(idle) if at < surplus or each.kept_until <= now]
            if len(leaving) < surplus:
                raise ConnectError(conn.destination, f"{limits.CONNECTIONS_MAX} connections are in use")
            for each in leaving:
                conns = self._idle[each.destination]
                conns.remove(each)
                if not conns:
                    del self._idle[each.destination]
            self._idle_count -= len(leaving)
            self._open.difference_update(leaving)
            self._open.add(conn)
            return leaving, self._sessions.to(conn.destination)

    def _failure(self, error: Exception, destination: str, timeout_s: float) -> GrenacheError:
        if self._closed:
            return ClosedError("stopped during the call")
        if isinstance(error, TimeoutError):
            return RequestTimeout(destination, f"no whole reply within {timeout_s:g} s")
        if isinstance(error, FrameError):
            kind = ReplySizeError if error.code == TOO_BIG else ConnectionLost
            return kind(destination, f"connection lost: {error.message}")
        return ConnectionLost(destination, f"connection lost: {reason(error)}")

    def _drop(self, conn: _Connection) -> None:
        with self._lock:
            self._open.discard(conn)
        conn.close()


def _kept_until(conn: _Connection) -> float:
    return conn.kept_until


class _Connection:
    """One connection, used by one thread at a time. What it raises: OSError, and FrameError when the peer
    breaks the protocol, who has been told then.
    """

    def __init__(self, destination: str, max_bytes: int):
        self.destination = destination
        #: not to be used again after this
        self.kept_until = 0.0
        #: whether the server has said that it takes headers
        self.takes_headers = False
        self._socket: TimedSocket | None = None
        self._frames = Frames(max_bytes)
        self._messages = Messages(max_bytes)
        self._masks = masks(256)
        self._early = b""  # came right behind the handshake

    def open(self, session: Resuming | None, ends: float) -> None:
        """Connect, and shake hands (RFC 6455 section 4.1); over TLS with a ``session``."""
        host, _, port = self.destination.rpartition(":")
        sock = connected(host.strip("[]"), int(port), ends)
        self._socket = TimedSocket(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if session is not None:
            sock.settimeout(max(ends - time.monotonic(), 0.001))
            self._socket = TimedSocket(session.wrap_socket(sock, host.strip("[]")))
        key = base64.b64encode(secrets.token_bytes(16))
        self._socket.send(
            b"GET /ws HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n%b: 1\r\n\r\n"
            % (self.destination.encode(), key, HEADERS_OFFER.encode()),
            ends,
        )
        head = b""
        while b"\r\n\r\n" not in head:
            data = self._socket.receive(_READ_BYTES, ends)
            head += data
            if not data or len(head) > _HEAD_BYTES_MAX:
                why = "no WebSocket: no answer to the handshake"
                raise ConnectionError(why if session is None else f"{why}; {DISTRUST}")
        head, _, early = head.partition(b"\r\n\r\n")
        self.takes_headers = HEADERS_OFFER.encode() in check_handshake(head, key)
        if session is not None:
            session.remember(cast(ssl.SSLSocket, self._socket.sock))
        self._early = early

    @property
    def fileno(self) -> int:
        return cast(TimedSocket, self._socket).fileno

    def send(self, request: bytes, ends: float) -> None:
        """Send a request."""
        cast(TimedSocket, self._socket).send(encode_frame(TEXT, request, next(self._masks)), ends)

    def find(self, rid: str, ends: float, poll: Poll) -> Answer | None:
        """The answer to ``rid``, if it comes at once."""
        sock = cast(TimedSocket, self._socket)
        data = None if self._early else poll.find(lambda: sock.look(_READ_BYTES))
        return None if data is None else self._read(data, rid, ends)

    def receive(self, rid: str, ends: float) -> Answer | None:
        """What comes next, if it is the whole answer to ``rid``."""
        data, self._early = self._early, b""
        if not data:
            size = max(_READ_BYTES, min(self._frames.missing, _READ_BYTES_MAX))
            data = cast(TimedSocket, self._socket).receive(size, ends)
        return self._read(data, rid, ends)

    def _read(self, data: bytes, rid: str, ends: float) -> Answer | None:
        if not data:
            raise ConnectionError("the peer closed it")
        try:
            for opcode, fin, payload in self._frames.feed(data):
                answer = self._take(opcode, fin, payload, ends)
                if answer is not None and answer.rid == rid:
                    return answer
        except FrameError as error:
            self.say(CLOSE, encode_close(error.code, error.message), ends)
            raise
        return None

    def _take(self, opcode: int, fin: bool, payload: bytes, ends: float) -> Answer | None:
        """What a frame completes, if that is an answer."""
        if opcode == PING:
            self.say(PONG, payload, ends)
        elif opcode == CLOSE:
            self.say(CLOSE, payload[:2], ends)
            raise ConnectionError("the peer closed it")
        elif opcode != PONG:
            message = self._messages.feed(opcode, fin, payload)
            return None if message is None else decode_answer(message[1])
        return None

    def is_idle(self) -> bool:
        """Whether nothing has come since the last answer, not even the end."""
        return self._socket is not None and not self._early and self._socket.is_idle()

    def say(self, opcode: int, payload: bytes, ends: float) -> None:
        """Send a control frame, if it can still be sent."""
        try:
            cast(TimedSocket, self._socket).send(encode_frame(opcode, payload, next(self._masks)), ends)
        except OSError:
            pass

    def await_end(self, ends: float) -> None:
        """Return when the peer has closed its side."""
        try:
            while cast(TimedSocket, self._socket).receive(_READ_BYTES, ends):
                pass
        except OSError:
            pass

    def interrupt(self) -> None:
        """From another thread: what is being read or sent fails."""
        if self._socket is not None:
            try:
                socket.socket.shutdown(self._socket.sock, socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended by itself

    def close(self) -> None:
        if self._socket is not None:
            self._socket.sock.close()
