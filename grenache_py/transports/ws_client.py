"""The WebSocket client: few connections per destination, kept and shared by all calls.

Mirrors grenache-nodejs-ws 1.0.0 (lib/TransportRPCClient.js). Ours: a call has its time limit to itself, a
lost connection fails what was under way on it at once, and no connection is opened that is not needed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as tls
import uuid
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias, cast

from picows import WSError, ws_connect

from .. import limits
from ..errors import (
    ArgumentError,
    ClosedError,
    ConnectError,
    ConnectionLost,
    ConnectTimeout,
    PeerError,
    ReplySizeError,
    RequestTimeout,
    reason,
)
from ..tasks import end_tasks
from ..tls import DISTRUST, Resuming, Sessions
from ..wire import rids
from .broadcast import Call, Waiting
from .busy_poll import BusyPoll, busy_poll_on_demand
from .ws import Channel, all_gone, picows_options
from .ws_calls import (
    HEADERS_OFFER,
    add_headers,
    decode_answer,
    encode_call,
    encode_call_end,
    encode_headers,
    join_call,
    result_of,
)
from .ws_frames import NORMAL, TEXT, TOO_BIG
from .ws_listener import Listener

_TICK_S: Final = 0.01

# Its rid, its message without headers, and those for servers that take them.
_Request: TypeAlias = tuple[str, bytes, bytes]


async def connect(
    destination: str,
    *,
    max_message: int,
    ssl: tls.SSLContext | Resuming | None = None,
    timeout_s: float = limits.CONNECT_TIMEOUT_S,
    ping_s: float = limits.WS_PING_S,
    headers: Mapping[str, str] | None = None,
    on_open: Callable[[Channel], None] | None = None,
    poll: BusyPoll | None = None,
) -> Channel:
    """A connection to ``ws://destination/ws``, or ``wss`` with ``ssl``; ``headers`` go with its handshake.
    ``on_open`` sees it before any message can. Raises ``ConnectError``, ``ConnectTimeout``.
    """
    loop = asyncio.get_running_loop()
    url = f"{'ws' if ssl is None else 'wss'}://{destination}/ws"
    made: list[socket.socket] = []

    async def reach(parsed: Any) -> socket.socket:
        made.append(await _reach(loop, parsed.host, parsed.port))
        return made[0]

    channel = Channel(loop, max_message, on_open, poll)
    connecting = ws_connect(
        partial(Listener, channel),
        url,
        ssl_context=cast("tls.SSLContext | None", ssl),
        socket_factory=reach,
        max_redirects=0,
        max_frame_size=max_message,
        extra_headers=headers,
        websocket_handshake_timeout=None,
        **picows_options(ping_s),
    )
    try:
        _, listener = await asyncio.wait_for(connecting, timeout_s)
    except asyncio.TimeoutError as error:
        await _hang_up(made)
        raise ConnectTimeout(destination, "no connection within the time limit") from error
    except asyncio.CancelledError:
        await _hang_up(made)
        raise
    except (OSError, WSError) as error:
        raise ConnectError(destination, f"no connection: {reason(error)}") from error
    if not isinstance(listener, Listener):
        why = "closed during the handshake" if ssl is None else f"closed during the handshake; {DISTRUST}"
        raise ConnectError(destination, f"no connection: {why}")
    return channel


async def _reach(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """A TCP connection, by the first address that takes it."""
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        try:
            await loop.sock_connect(made, address)
        except OSError as error:
            made.close()
            failure = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise failure


async def _hang_up(made: list[socket.socket]) -> None:
    # picows goes on with a handshake that nobody waits for, until it sees the end of its connection. It is
    # over when the transport has closed the socket; a loop that ends before that leaves it open.
    for each in made:
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it ended by itself
    for _ in range(100):
        if all(each.fileno() < 0 for each in made):
            return
        await asyncio.sleep(0.01)


class _Pending:
    """Who waits, until when, and how long that was."""

    def __init__(self, waiting: Waiting, ends: float, timeout_s: float):
        self.waiting = waiting
        self.ends = ends
        self.timeout_s = timeout_s


class _Line:
    """A connection and the calls under way on it."""

    def __init__(self, channel: Channel, destination: str):
        self.channel = channel
        # By rid. Who was cancelled is found by ``expire``.
        self.calls: dict[str, _Pending] = {}
        self.loop = channel.loop
        self.used = channel.loop.time()
        self.takes_headers = HEADERS_OFFER in channel.answer
        self._destination = destination
        channel.on_message = self._receive
        channel.on_end = self._fail

    def _receive(self, opcode: int, content: bytes) -> None:
        answer = decode_answer(content)
        if answer is None:
            return
        call = self.calls.get(answer.rid)
        if call is None:
            return
        del self.calls[answer.rid]
        waiting = call.waiting
        if waiting.done():
            return
        if answer.error is None:
            waiting.set_result(answer.result)
            return
        try:
            waiting.set_result(result_of(answer, self._destination))
        except PeerError as error:
            waiting.set_exception(error)

    def _fail(self, why: str) -> None:
        calls, self.calls = self.calls, {}
        for call in calls.values():
            if not call.waiting.done():
                call.waiting.set_exception(self.failure(why))

    def expire(self, now: float) -> None:
        """Fail the calls whose time is over."""
        over = [rid for rid, call in self.calls.items() if now >= call.ends or call.waiting.done()]
        for rid in over:
            call = self.calls.pop(rid)
            if not call.waiting.done():
                message = f"no whole reply within {call.timeout_s:g} s"
                call.waiting.set_exception(RequestTimeout(self._destination, message))

    def failure(self, why: str) -> PeerError:
        if self.channel.end_code == TOO_BIG:
            return ReplySizeError(self._destination, f"a reply on the connection is too large: {why}")
        return ConnectionLost(self._destination, f"connection lost: {why}")


class WsClient:
    """Makes calls, over connections that are kept for ``limits.WS_IDLE_CONNECTION_S``; used on one loop.

    With ``deadlines`` each says how long it will wait. Headers, deadlines among them, go to servers that take
    them.
    """

    def __init__(
        self,
        *,
        ssl: tls.SSLContext | None = None,
        deadlines: bool = False,
        max_reply_bytes: int = limits.BODY_BYTES_MAX,
        ping_s: float = limits.WS_PING_S,
        busy_poll_us: float = 0,
    ):
        self._sessions = Sessions(ssl)
        self._deadlines = deadlines
        self._max_reply_bytes = max_reply_bytes
        self._ping_s = ping_s
        self._poll = busy_poll_on_demand(busy_poll_us)
        self._lines: dict[str, list[_Line]] = {}
        self._connecting: dict[str, asyncio.Task[_Line]] = {}
        self._ticking: asyncio.TimerHandle | None = None  # while there are calls
        self._tidying: asyncio.TimerHandle | None = None
        self._closed = False
        self._rids = rids(str(uuid.uuid4())[:24])

    def call(
        self,
        destination: str,
        key: object,
        payload: Any,
        timeout_s: float,
        compress: object = False,
        headers: Mapping[str, Any] | None = None,
    ) -> Awaitable[Any]:
        """Call a peer; see ``aio.client.Transport``. ``compress`` does not exist here.

        Where there is a connection that takes more, what this returns is a future, and no task or coroutine
        of ours stands between it and the reply.
        """
        said = self._headers(timeout_s, compress, headers)
        rid = next(self._rids)
        message = encode_call(rid, key, payload)
        line = self._best(destination)
        if line is None or line.channel.full:
            return self._call_late(destination, line, (rid, message, said), timeout_s)
        if said and line.takes_headers:
            message = add_headers(message, said)
        waiting: asyncio.Future[Any] = line.loop.create_future()
        self._send(line, rid, message, _Pending(waiting, line.loop.time() + timeout_s, timeout_s))
        return waiting

    def begin(
        self,
        calls: list[Call],
        key: object,
        payload: Any,
        timeout_s: float,
        compress: object = False,
        headers: Mapping[str, Any] | None = None,
    ) -> list[Call]:
        """The calls that need not be connected first; see ``aio.client.Transport``."""
        said = self._headers(timeout_s, compress, headers)
        end = encode_call_end(key, payload)
        end_with_headers = add_headers(end, said) if said else end
        ends = asyncio.get_running_loop().time() + timeout_s
        late = []
        for call in calls:
            line = self._best(call.destination)
            if line is None or line.channel.full:
                late.append(call)
            else:
                rid = next(self._rids)
                message = join_call(rid, end_with_headers if line.takes_headers else end)
                self._send(line, rid, message, _Pending(call, ends, timeout_s))
        return late

    def _headers(self, timeout_s: float, compress: object, headers: Mapping[str, Any] | None) -> bytes:
        if compress:
            raise ArgumentError("compress", "exists only over HTTP")
        if self._closed:
            raise ClosedError("stopped before the call")
        if headers or self._deadlines:
            return encode_headers(headers, timeout_s if self._deadlines else None)
        return b""

    async def _call_late(
        self, destination: str, line: _Line | None, request: _Request, timeout_s: float
    ) -> Any:
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout_s
        line = await self._another(destination, line, ends)
        rid, message, said = request
        if said and line.takes_headers:
            message = add_headers(message, said)
        waiting: asyncio.Future[Any] = loop.create_future()
        self._send(line, rid, message, _Pending(waiting, ends, timeout_s))
        return await waiting

    def _send(self, line: _Line, rid: str, message: bytes, call: _Pending) -> None:
        channel, calls = line.channel, line.calls
        calls[rid] = call
        channel.send(message, TEXT, len(calls) == 1)
        if self._ticking is None:
            self._ticking = channel.loop.call_later(_TICK_S, self._tick)

    def _best(self, destination: str) -> _Line | None:
        lines = self._lines.get(destination)
        if lines is None:
            return None
        if len(lines) == 1:
            return lines[0]
        return min(lines, key=lambda line: (line.channel.full, len(line.calls)))

    async def _another(self, destination: str, line: _Line | None, ends: float) -> _Line:
        """A connection where there is none, or none that takes more; waits for either until ``ends``."""
        loop = asyncio.get_running_loop()
        left_s = max(ends - loop.time(), 0)
        if line is None or len(self._lines[destination]) < limits.WS_CONNECTIONS_PER_DESTINATION:
            task = self._connecting.get(destination) or self._start(destination)
            await asyncio.wait([task], timeout=left_s)
            if not task.done():
                raise ConnectTimeout(destination, "no connection within the time limit")
            if task.cancelled():
                raise ClosedError("stopped during the call")
            line = task.result()
        else:
            try:
                await asyncio.wait_for(line.channel.room(), left_s)
            except asyncio.TimeoutError:
                message = "nothing could be sent within the time limit"
                raise ConnectTimeout(destination, message) from None
        if self._closed:
            raise ClosedError("stopped during the call")
        if line.channel.ended:
            raise ConnectError(destination, "no connection: closed before anything was sent")
        return line

    def _start(self, destination: str) -> asyncio.Task[_Line]:
        task = asyncio.ensure_future(self._connect(destination))
        self._connecting[destination] = task
        task.add_done_callback(lambda done: self._started(destination, done))
        return task

    def _started(self, destination: str, task: asyncio.Task[_Line]) -> None:
        del self._connecting[destination]
        if not task.cancelled():
            task.exception()  # whoever waited may have given up before

    async def _connect(self, destination: str) -> _Line:
        if sum(map(len, self._lines.values())) + len(self._connecting) > limits.CONNECTIONS_MAX:
            self._drop_oldest(destination)
        resuming = self._sessions.to(destination)
        channel = await connect(
            destination,
            max_message=self._max_reply_bytes,
            ssl=resuming,
            ping_s=self._ping_s,
            headers={HEADERS_OFFER: "1"},
            poll=self._poll(),
        )
        if resuming is not None:
            resuming.remember(channel.transport.get_extra_info("ssl_object"))
        line = _Line(channel, destination)
        fail = channel.on_end

        def ended(why: str) -> None:
            self._forget(destination, line)
            fail(why)

        channel.on_end = ended
        if channel.ended:
            raise ConnectError(destination, "no connection: closed right after the handshake")
        self._lines.setdefault(destination, []).append(line)
        if self._tidying is None:
            self._tidying = channel.loop.call_later(limits.WS_IDLE_CONNECTION_S / 2, self._tidy)
        return line

    def _forget(self, destination: str, line: _Line) -> None:
        lines = self._lines.get(destination, [])
        if line in lines:
            lines.remove(line)
            if not lines:
                del self._lines[destination]

    def _all(self) -> list[_Line]:
        return [line for lines in self._lines.values() for line in lines]

    def _drop_oldest(self, destination: str) -> None:
        idle = [line for line in self._all() if not line.calls]
        if not idle:
            raise ConnectError(destination, f"{limits.CONNECTIONS_MAX} connections are in use")
        min(idle, key=lambda line: line.used).channel.close(NORMAL)

    def _tick(self) -> None:
        # One timer for all calls costs less than one for each, and is as exact as anybody needs.
        loop = asyncio.get_running_loop()
        now = loop.time()
        busy = [line for line in self._all() if line.calls]
        for line in busy:
            line.used = now
            line.expire(now)
        self._ticking = loop.call_later(_TICK_S, self._tick) if busy else None

    def _tidy(self) -> None:
        self._tidying = None
        loop = asyncio.get_running_loop()
        oldest = loop.time() - limits.WS_IDLE_CONNECTION_S
        for line in self._all():
            if not line.calls and line.used < oldest:
                line.channel.close(NORMAL)
        if self._lines:
            self._tidying = loop.call_later(limits.WS_IDLE_CONNECTION_S / 2, self._tidy)

    async def close(self) -> None:
        """Close all connections; calls under way fail."""
        self._closed = True
        for timer in (self._tidying, self._ticking):
            if timer is not None:
                timer.cancel()
        await end_tasks(self._connecting.values())
        lines = self._all()
        for line in lines:
            for call in line.calls.values():
                if not call.waiting.done():
                    call.waiting.set_exception(ClosedError("stopped during the call"))
        await all_gone([line.channel for line in lines], NORMAL)
