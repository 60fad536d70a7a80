"""Connections to other peers: WebSockets that carry many requests at once, beside plain HTTP.

A peer that says so in its heartbeat takes requests over a WebSocket at ``/ws`` of the port on which it serves
HTTP. The messages are Grenache's: ``[rid, key, payload]`` and ``[rid, error, result]``, JSON texts. One whose
``rid`` is null wants no answer and gets none. What leaves in one turn of the event loop leaves in one write,
and an answer is a call of a function, not a task: that is why this is several times as quick as HTTP.

A request goes over the line that is open to its destination; where there is none, the caller uses HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from grenache_py.errors import ConnectionLost, PeerError, RemoteError, RequestTimeout
from grenache_py.transports.ws import Channel
from grenache_py.transports.ws_client import connect
from grenache_py.transports.ws_frames import NORMAL, POLICY_VIOLATION

from . import limits

log = logging.getLogger(__name__)

Raw = msgspec.Raw
Context = TypeVar("Context")

_answer = msgspec.json.Decoder(tuple[int, str | None, Raw])
_request = msgspec.json.Decoder(tuple[int | str | None, str, Raw])


class Line(Generic[Context]):
    """An open connection to a peer, and the calls under way on it.

    Args:
        channel: The connection.
        destination: Whose, for errors.
        key: The service that is called.
        answered: Called with the context of a call and the JSON of its result.
        failed: Called with the context of a call that has none: ``RemoteError`` when the peer answers with an
            error, ``RequestTimeout``, ``ConnectionLost``.
    """

    def __init__(
        self,
        channel: Channel,
        destination: str,
        key: str,
        answered: Callable[[Context, bytes], None],
        failed: Callable[[Context, PeerError], None],
    ):
        self._channel = channel
        self._destination = destination
        self._key = msgspec.json.encode(key)
        self._answered = answered
        self._failed = failed
        self._calls: dict[int, tuple[float, Context]] = {}
        self._last_rid = 0
        self.used = channel.loop.time()
        channel.on_message = self._receive

    def call(self, payload: bytes, context: Context, timeout_s: float) -> None:
        """Send a request, whose payload is JSON; ``answered`` or ``failed`` gets ``context``."""
        self._last_rid = rid = self._last_rid + 1
        self.used = now = self._channel.loop.time()
        calls = self._calls
        calls[rid] = (now + timeout_s, context)
        self._channel.send(b"[%d,%b,%b]" % (rid, self._key, payload), alone=len(calls) == 1)

    def tell(self, payload: bytes) -> None:
        """Send a request that needs no answer."""
        self._channel.send(b"[null,%b,%b]" % (self._key, payload))

    @property
    def full(self) -> bool:
        """Whether the peer takes less than is sent to it."""
        return self._channel.full

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._calls

    def _receive(self, opcode: int, content: bytes) -> None:
        try:
            rid, error, result = _answer.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._channel.close(POLICY_VIOLATION, "an answer is an array of rid, error and result")
            return
        call = self._calls.pop(rid, None)
        if call is None:
            return  # its time was over
        if error is None:
            self._answered(call[1], bytes(result))
        else:
            self._failed(call[1], RemoteError(self._destination, error))

    def expire(self, now: float) -> None:
        """Fail the calls whose time is over."""
        late = [rid for rid, (ends, _) in self._calls.items() if ends <= now]
        for rid in late:
            _, context = self._calls.pop(rid)
            self._failed(context, RequestTimeout(self._destination, "no answer within the time limit"))

    def lost(self, why: str) -> None:
        """The connection has ended: so have all calls."""
        calls, self._calls = self._calls, {}
        for _, context in calls.values():
            self._failed(context, ConnectionLost(self._destination, f"connection lost: {why}"))

    async def close(self) -> None:
        self._channel.close(NORMAL)
        await self._channel.gone


class Lines(Generic[Context]):
    """The lines to all peers, by destination. ``key``, ``answered`` and ``failed``: see :class:`Line`."""

    def __init__(
        self,
        key: str,
        answered: Callable[[Context, bytes], None],
        failed: Callable[[Context, PeerError], None],
    ):
        self._key = key
        self._answered = answered
        self._failed = failed
        self._open: dict[str, Line[Context]] = {}
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self.get = self._open.get  # without a call in between, since every message comes by here

    def wanted(self, destination: str) -> None:
        """Open a line to ``destination``, soon, unless there is one or it has just failed."""
        loop = asyncio.get_running_loop()
        if (
            destination in self._open
            or destination in self._connecting
            or loop.time() < self._not_before.get(destination, 0.0)
            or len(self._open) + len(self._connecting) >= limits.LINES
        ):
            return
        task = self._connecting[destination] = loop.create_task(self._connect(destination))
        task.add_done_callback(lambda _: self._connecting.pop(destination))
        if self._ticking is None:
            self._tick()

    async def _connect(self, destination: str) -> None:
        try:
            channel = await connect(destination, max_message=limits.MESSAGE_BYTES)
        except PeerError as error:
            log.info("no line to %s, which HTTP still reaches perhaps: %s", destination, error)
            self._not_before[destination] = asyncio.get_running_loop().time() + limits.LINE_RETRY_S
            return
        line = Line(channel, destination, self._key, self._answered, self._failed)

        def ended(why: str) -> None:
            if self._open.get(destination) is line:
                del self._open[destination]
            line.lost(why)

        channel.on_end = ended
        if not channel.ended:
            self._open[destination] = line

    def _tick(self) -> None:
        """One timer for the time limits of all calls."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for destination, line in list(self._open.items()):
            line.expire(now)
            if line.idle and now - line.used > limits.LINE_IDLE_S:
                del self._open[destination]
                loop.create_task(line.close())  # noqa: RUF006  # it ends by itself
        for destination, since in list(self._not_before.items()):
            if since <= now:
                del self._not_before[destination]
        self._ticking = loop.call_later(limits.LINE_TICK_S, self._tick)

    async def close(self) -> None:
        """Close all; what is under way fails."""
        if self._ticking is not None:
            self._ticking.cancel()
        for task in list(self._connecting.values()):
            task.cancel()
        await asyncio.gather(*self._connecting.values(), return_exceptions=True)
        await asyncio.gather(*(line.close() for line in list(self._open.values())))


Serve = Callable[[str, bytes, Callable[[bytes], None]], None]
"""Given key and payload of a request, and what to call with the JSON of the result; raises ``Refusal``."""


class Refusal(Exception):
    """A request is answered with this error."""


class Caller:
    """A peer's connection to us: gives its requests to ``serve``."""

    def __init__(self, channel: Channel, serve: Serve):
        self._channel = channel
        self._serve = serve
        self._unanswered = 0
        self.held = False  # nothing is read from it
        channel.on_message = self._receive
        channel.on_flow = self._balance

    def _receive(self, opcode: int, content: bytes) -> None:
        try:
            rid, key, payload = _request.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._channel.close(POLICY_VIOLATION, "a request is an array of rid, key and payload")
            return
        self._unanswered += 1
        if self._unanswered >= limits.LINE_REQUESTS:
            self._balance()
        try:
            self._serve(key, bytes(payload), lambda result: self._reply(rid, b"null", result))
        except Refusal as error:
            self._reply(rid, msgspec.json.encode(str(error)), b"null")

    def _reply(self, rid: int | str | None, error: bytes, result: bytes) -> None:
        self._unanswered -= 1
        if rid is not None:
            name = b"%d" % rid if type(rid) is int else msgspec.json.encode(rid)
            self._channel.send(
                b"[%b,%b,%b]" % (name, error, result), alone=not self._unanswered and not self._channel.more
            )
        if self.held:
            self._balance()

    def _balance(self) -> None:
        """Read no more from who has many requests in hand here, or does not read the answers."""
        too_much = self._unanswered >= limits.LINE_REQUESTS or self._channel.full
        if too_much and not self.held:
            self.held = True
            self._channel.hold()
        elif self.held and not too_much:
            self.held = False
            self._channel.release()
