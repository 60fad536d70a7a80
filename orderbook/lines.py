"""Connections to other peers: WebSockets that carry many requests at once, beside plain HTTP.

A peer that says so in its heartbeat takes requests over a WebSocket at ``/ws`` of the port on which it serves
HTTP. The messages are Grenache's: ``[rid, key, payload]`` and ``[rid, error, result]``, JSON texts. One whose
``rid`` is null wants no answer and gets none. What leaves in one turn of the event loop leaves in few writes,
and an answer is a call of a function, not a task: that is why this is several times as quick as HTTP.

A request goes over the line that is open to its destination; where there is none, the caller uses HTTP.

A line to a peer that signs begins with the opening of a session, which then carries everything that comes
after it, both ways, as binary messages; or it never has one. A frame that breaks its session ends the
connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from grenache_py.errors import ConnectionLost, PeerError, RemoteError, RequestTimeout
from grenache_py.tasks import end_tasks
from grenache_py.transports.busy_poll import BusyPoll
from grenache_py.transports.ws import Channel
from grenache_py.transports.ws_client import connect
from grenache_py.transports.ws_frames import BINARY, NORMAL, POLICY_VIOLATION, TEXT

from . import limits
from .envelopes import decode
from .errors import OrderBookError, ProtocolError
from .signing.handshake import Opening
from .signing.session import Session

log = logging.getLogger(__name__)

Raw = msgspec.Raw
Context = TypeVar("Context")

_answer: Final = msgspec.json.Decoder(tuple[int, str | None, Raw])
_request: Final = msgspec.json.Decoder(tuple[int | str | None, str, Raw])
_NO_RID: Final = b"null"
"""Of a request that wants no answer."""


class Line(Generic[Context]):
    """An open connection to a peer, and the calls under way on it.

    Args:
        channel: The connection.
        destination: Whose, for errors.
        key: The service that is called.
        answered: Called with the context of a call and the JSON of its result, which has yet to be read.
        failed: Called with the context of a call that has none: ``RemoteError`` when the peer answers with an
            error, ``RequestTimeout``, ``ConnectionLost``.
        session: What carries everything on this connection; None: the messages have to be signed.
    """

    def __init__(
        self,
        channel: Channel,
        destination: str,
        key: str,
        answered: Callable[[Context, bytes], None],
        failed: Callable[[Context, PeerError], None],
        session: Session | None = None,
    ):
        self.session = session
        self._channel = channel
        self._destination = destination
        self._key = msgspec.json.encode(key)
        self._answered = answered
        self._failed = failed
        self._calls: dict[bytes, tuple[float, Context]] = {}  # by what the request and its answer begin with
        self._last_rid = 0
        self.used = channel.loop.time()
        channel.gathered_bytes = limits.LINE_GATHERED_BYTES
        channel.on_message = self._receive

    def call(self, payload: bytes, context: Context, timeout_s: float, *, alone: bool = True) -> None:
        """Send a request, whose payload is JSON; ``answered`` or ``failed`` gets ``context``.

        ``alone``: no others are about to follow, so that it need not wait for them.
        """
        self._last_rid += 1
        begin = b"[%d" % self._last_rid
        self.used = now = self._channel.loop.time()
        calls = self._calls
        calls[begin] = (now + timeout_s, context)
        self._send(b"%b,%b,%b]" % (begin, self._key, payload), alone=alone and len(calls) == 1)

    def tell(self, payload: bytes) -> None:
        """Send a request that needs no answer."""
        self._send(b"[null,%b,%b]" % (self._key, payload), alone=False)

    def _send(self, text: bytes, *, alone: bool) -> None:
        if self.session is None:
            self._channel.send(text, alone=alone)
        else:
            self._channel.send(self.session.wrap(text), BINARY, alone=alone)

    @property
    def full(self) -> bool:
        """Whether the peer takes less than is sent to it."""
        return self._channel.full

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._calls

    def _receive(self, opcode: int, content: bytes) -> None:
        if self.session is not None:
            try:
                content = unwrap(self.session, opcode, content)
            except ProtocolError as broken:
                log.warning("%s breaks its session: %s", self._destination, broken)
                self._channel.close(POLICY_VIOLATION, SESSION_BROKEN)
                return
        parts = content.split(b",", 2)
        if len(parts) == 3 and parts[1] == b"null" and parts[2][-1:] == b"]":  # as nearly all
            call = self._calls.pop(parts[0], None)
            if call is not None:
                self._answered(call[1], parts[2][:-1])
                return
        try:
            rid, error, result = _answer.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._channel.close(POLICY_VIOLATION, "an answer is an array of rid, error and result")
            return
        call = self._calls.pop(b"[%d" % rid, None)
        if call is None:
            return  # its time was over
        if error is None:
            self._answered(call[1], bytes(result))
        else:
            self._failed(call[1], RemoteError(self._destination, error))

    def expire(self, now: float) -> None:
        """Fail the calls whose time is over."""
        late = [begin for begin, (ends, _) in self._calls.items() if ends <= now]
        for begin in late:
            _, context = self._calls.pop(begin)
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
    """The lines to all peers, by destination.

    Args:
        key, answered, failed: See :class:`Line`.
        opening: Given a destination, the session to open there; None: none.
        poll: Keeps the loop awake for a moment while an answer should come at once; None: it sleeps.
    """

    def __init__(
        self,
        key: str,
        answered: Callable[[Context, bytes], None],
        failed: Callable[[Context, PeerError], None],
        opening: Callable[[str], Opening | None] = lambda _: None,
        poll: Callable[[], BusyPoll | None] = lambda: None,
    ):
        self._key = key
        self._poll = poll
        self._answered = answered
        self._failed = failed
        self._opening = opening
        self._open: dict[str, Line[Context]] = {}
        self._replaced: list[Line[Context]] = []  # something may still be under way on them
        self._connecting: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}
        self._ticking: asyncio.TimerHandle | None = None
        self.get = self._open.get  # without a call in between, since every message comes by here

    def wanted(self, destination: str) -> None:
        """Open a line to ``destination``, soon, unless there is one or there was one a moment ago."""
        if destination not in self._open and len(self._open) + len(self._connecting) < limits.LINES:
            self._begin(destination)

    def _begin(self, destination: str) -> None:
        loop = asyncio.get_running_loop()
        if destination in self._connecting or loop.time() < self._not_before.get(destination, 0.0):
            return
        self._not_before[destination] = loop.time() + limits.LINE_RETRY_S
        task = self._connecting[destination] = loop.create_task(self._connect(destination))
        task.add_done_callback(lambda _: self._connecting.pop(destination))
        if self._ticking is None:
            self._tick()

    async def _connect(self, destination: str) -> None:
        try:
            channel = await connect(destination, max_message=limits.MESSAGE_BYTES, poll=self._poll())
            session = await self._open_session(channel, destination)
        except PeerError as error:
            log.info("no line to %s, which HTTP still reaches perhaps: %s", destination, error)
            return
        line = Line(channel, destination, self._key, self._answered, self._failed, session)

        def ended(why: str) -> None:
            if self._open.get(destination) is line:
                del self._open[destination]
            line.lost(why)

        channel.on_end = ended
        if not channel.ended:
            before = self._open.get(destination)
            if before is not None:
                self._replaced.append(before)
            self._open[destination] = line

    async def _open_session(self, channel: Channel, destination: str) -> Session | None:
        """The session with which the connection begins; None: it has none.

        Raises:
            PeerError: It was to have one. The connection is closed.
        """
        opening = self._opening(destination)
        if opening is None:
            return None
        said: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def heard(opcode: int, content: bytes) -> None:
            if not said.done():
                said.set_result(content)

        def ended(why: str) -> None:
            if not said.done():
                said.set_exception(ConnectionLost(destination, f"connection lost: {why}"))

        channel.on_message, channel.on_end = heard, ended
        try:
            channel.send(b"[0,%b,%b]" % (msgspec.json.encode(self._key), opening.request.data))
            content = await asyncio.wait_for(said, limits.SESSION_OPEN_S)
            _, error, result = _answer.decode(content)
            if error is None:
                return opening.answered(decode(bytes(result)))
        except asyncio.TimeoutError as late:
            channel.close(NORMAL)
            raise RequestTimeout(destination, "opens no session within the time limit") from late
        except (OrderBookError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
            log.warning("%s does not open a session as it should: %s", destination, wrong)
            channel.close(POLICY_VIOLATION, SESSION_BROKEN)
            raise ConnectionLost(
                destination, "it answers the opening of a session with something else"
            ) from wrong
        except BaseException:
            channel.close(NORMAL)
            raise
        log.warning("%s opens no session, so that we sign what it is sent: %s", destination, error)
        return None

    def _tick(self) -> None:
        """One timer for the time limits of all calls."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for destination, line in list(self._open.items()):
            line.expire(now)
            if line.idle and now - line.used > limits.LINE_IDLE_S:
                del self._open[destination]
                self._replaced.append(line)
            elif line.session is not None and line.session.spent:
                self._begin(destination)  # another line, with a session of its own
        for line in self._replaced[:]:
            line.expire(now)
            if line.idle:
                self._replaced.remove(line)
                loop.create_task(line.close())  # noqa: RUF006  # it ends by itself
        for destination, since in list(self._not_before.items()):
            if since <= now:
                del self._not_before[destination]
        self._ticking = loop.call_later(limits.LINE_TICK_S, self._tick)

    async def close(self) -> None:
        """Close all; what is under way fails."""
        if self._ticking is not None:
            self._ticking.cancel()
        await end_tasks(self._connecting.values())
        await asyncio.gather(*(line.close() for line in (*self._open.values(), *self._replaced)))


SESSION_BROKEN: Final = "what was sent does not belong to the session"


def unwrap(session: Session, opcode: int, content: bytes) -> bytes:
    """The text in a message on a connection that has a session. Raises ProtocolError."""
    if opcode != BINARY:
        raise ProtocolError("a message outside of the session")
    return session.unwrap(content)


Serve = Callable[[str, bytes, Session | None, Callable[[bytes], None]], None]
"""Given key and payload of a request, which has yet to be read, the session in which it has come, and what to
call with the JSON of the result; raises ``Refusal``."""


class Greeted(NamedTuple):
    """The opening of a session.

    Attributes:
        answer: To it, as JSON.
        session: From now on.
        ended: To be called when the connection is closed.
    """

    answer: bytes
    session: Session
    ended: Callable[[], None]


Greet = Callable[[str, bytes], Greeted | None]
"""Given key and payload of the first request on a connection; None: it opens none; raises ``Refusal``."""


class Refusal(Exception):
    """A request is answered with this error."""


class Caller:
    """A peer's connection to us: gives its first request to ``greet`` and all others to ``serve``."""

    def __init__(self, channel: Channel, serve: Serve, greet: Greet = lambda key, payload: None):
        self._channel = channel
        self._serve = serve
        self._greet: Greet | None = greet
        self._session: Session | None = None
        self._key: tuple[bytes, str] = (b"", "")  # of the request that was served last: as it came, and read
        self._unanswered = 0
        self.held = False  # nothing is read from it
        channel.gathered_bytes = limits.LINE_GATHERED_BYTES
        channel.on_message = self._receive
        channel.on_flow = self._balance

    def _receive(self, opcode: int, content: bytes) -> None:
        session = self._session
        if session is not None:
            try:
                content = unwrap(session, opcode, content)
            except ProtocolError as error:
                log.warning("%s breaks its session: %s", session.name, error)
                self._channel.close(POLICY_VIOLATION, SESSION_BROKEN)
                return
        parts = content.split(b",", 2)
        if len(parts) == 3 and parts[1] == self._key[0] and parts[2][-1:] == b"]":  # as nearly all
            begin, rid = parts[0][:1], parts[0][1:]
            if begin == b"[" and (rid.isdigit() or rid == _NO_RID):
                self._take(rid, self._key[1], parts[2][:-1])
                return
        try:
            any_rid, key, payload = _request.decode(content)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._channel.close(POLICY_VIOLATION, "a request is an array of rid, key and payload")
            return
        if self._take(msgspec.json.encode(any_rid), key, bytes(payload)):
            self._key = msgspec.json.encode(key), key

    def _take(self, rid: bytes, key: str, payload: bytes) -> bool:
        """Whether a request is served."""
        self._unanswered += 1
        if self._unanswered >= limits.LINE_REQUESTS:
            self._balance()
        try:
            if self._greet is not None and self._begin(rid, key, payload):
                return False
            self._serve(key, payload, self._session, Reply(self, rid))
        except Refusal as error:
            self.reply(rid, b"null", msgspec.json.encode(str(error)))
            return False
        return True

    def _begin(self, rid: bytes, key: str, payload: bytes) -> bool:
        """Whether the first request opens a session, or tries to."""
        greet, self._greet = self._greet, None
        greeted = None if greet is None else greet(key, payload)
        if greeted is None:
            return False
        self.reply(rid, greeted.answer)
        self._session = greeted.session
        self._channel.on_end = lambda why: greeted.ended()
        return True

    def reply(self, rid: bytes, result: bytes, error: bytes = b"null") -> None:
        """Answer the request ``rid``, once; all three are JSON."""
        self._unanswered -= 1
        if rid != _NO_RID:
            text, opcode = b"[%b,%b,%b]" % (rid, error, result), TEXT
            if self._session is not None:
                text, opcode = self._session.wrap(text), BINARY
            self._channel.send(text, opcode, alone=not self._unanswered and not self._channel.more)
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


class Reply:
    """What to call with the answer to one request."""

    def __init__(self, caller: Caller, rid: bytes):
        self._caller = caller
        self._rid = rid

    def __call__(self, result: bytes) -> None:
        self._caller.reply(self._rid, result)
