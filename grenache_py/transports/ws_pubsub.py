"""Publishers and subscribers over WebSocket: one frame per message, nothing else.

Mirrors grenache-nodejs-ws 1.0.0 (lib/TransportPub.js, lib/TransportSub.js). Ours: a subscriber reaches all
publishers of a name, looks for new ones and comes back to those it lost, where Node connects once to one;
both ends are bounded; TLS.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Container
from ssl import SSLContext

from .. import limits
from ..errors import ArgumentError, ClosedError, ConnectError, GrenacheError, LookupEmptyError
from ..tasks import end_tasks
from ..tls import Certificate, Resuming
from .ports import listen_error
from .ws import Channel, all_gone
from .ws_client import connect
from .ws_frames import BINARY, NORMAL, TEXT, encode_frame
from .ws_server import VerifyClient, Visitor, WsServer

log = logging.getLogger(__name__)

Message = str | bytes


class Publisher:
    """Listens, and sends what is published to all who are connected. What they send is ignored."""

    def __init__(
        self,
        *,
        ssl: SSLContext | None,
        authorize: Callable[[Certificate], object] | None,
        verify_client: VerifyClient | None,
        queue_bytes: int,
    ):
        self._queue_bytes = queue_bytes
        self._ssl = ssl
        self._ws = WsServer(self._greet, max_message=1024, authorize=authorize, verify_client=verify_client)
        self._subscribers: set[Channel] = set()

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._ws.port

    @property
    def subscribers(self) -> int:
        """How many are connected."""
        return len(self._subscribers)

    async def listen(self, port: int, host: str | None) -> None:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all). Raises ``ListenError``."""
        try:
            await self._ws.listen(port, host, self._ssl)
        except OSError as error:
            raise listen_error(error, port, host) from error

    def publish(self, frame: bytes) -> int:
        """Send a frame made by ``encode_message``; returns to how many. Who is too slow is disconnected."""
        for channel in list(self._subscribers):
            if channel.unsent_bytes > self._queue_bytes:
                log.warning("a subscriber was too slow and is disconnected")
                channel.abort()
            else:
                channel.send_frame(frame)
        return len(self._subscribers)

    async def close(self) -> None:
        """Take no new subscribers, and disconnect those there are when they have got everything."""
        await self._ws.close()

    def _greet(self, channel: Channel, visitor: Visitor) -> None:
        self._subscribers.add(channel)
        channel.on_end = lambda reason: self._subscribers.discard(channel)


def encode_message(message: Message) -> bytes:
    """A message as a frame: text as text, bytes as binary. Raises ``ArgumentError`` for anything else."""
    if isinstance(message, str):
        try:
            opcode, content = TEXT, message.encode()
        except UnicodeEncodeError:
            raise ArgumentError("message", "must not contain half of a surrogate pair") from None
    elif isinstance(message, (bytes, bytearray, memoryview)):
        opcode, content = BINARY, bytes(message)
    else:
        raise ArgumentError("message", f"must be text or bytes, not {type(message).__name__}")
    if len(content) > limits.BODY_BYTES_MAX:
        raise ArgumentError("message", f"must be at most {limits.BODY_BYTES_MAX} bytes, not {len(content)}")
    return encode_frame(opcode, content)


SUB_EVENTS = ("message", "connected", "disconnected")


def check_sub_event(event: str, taken: Container[str]) -> str:
    """An event of a subscriber that has no listener yet. Raises ``ArgumentError``."""
    if event not in SUB_EVENTS:
        raise ArgumentError("event", f"must be one of {', '.join(SUB_EVENTS)}, not {event!r}")
    if event in taken:
        raise ArgumentError("event", f"{event} already has a listener")
    return event


# What a subscriber reports, in order: an event's name and its arguments.
Event = tuple[str, tuple[object, ...]]


class Subscriber:
    """Stays connected to all publishers of the names it is told to follow; used on one loop.

    ``lookup(name)`` is asked for them, now and then and after each loss. ``deliver(events)`` gets what
    happened, a batch at a time and the next when it has returned: ``("message", (message, destination))``,
    ``("connected", (destination,))``, ``("disconnected", (destination,))``. While it is behind by
    ``limits.SUB_QUEUE_MESSAGES`` nothing more is read, until publishers lose patience.
    """

    def __init__(
        self,
        lookup: Callable[[str], Awaitable[list[str]]],
        deliver: Callable[[list[Event]], Awaitable[None]],
        *,
        ssl: SSLContext | None,
        interval_s: float,
    ):
        self.lookup = lookup
        self._deliver = deliver
        self.ssl = ssl
        self.interval_s = interval_s
        self._names: dict[str, _Following] = {}
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._held: set[Channel] = set()
        self._delivering: asyncio.Task[None] | None = None

    async def follow(self, name: str) -> int:
        """Begin, unless it has; returns to how many publishers it is connected after a first round."""
        following = self._names.get(name)
        if following is None:
            if self._delivering is None:
                self._delivering = asyncio.ensure_future(self._deliver_all())
            following = self._names[name] = _Following(self, name)
        await following.first_round.wait()
        return len(following.channels)

    async def unfollow(self, name: str) -> bool:
        """End; returns whether there was anything to end."""
        following = self._names.pop(name, None)
        if following is None:
            return False
        await following.end()
        return True

    async def close(self) -> None:
        """End everything; what was not delivered is dropped."""
        for name in list(self._names):
            await self.unfollow(name)
        if self._delivering is not None:
            task, self._delivering = self._delivering, None
            await end_tasks([task])

    def report(self, channel: Channel, event: Event) -> None:
        self._events.append(event)
        self._wake.set()
        if len(self._events) >= limits.SUB_QUEUE_MESSAGES and channel not in self._held and not channel.ended:
            self._held.add(channel)
            channel.hold()

    async def _deliver_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = list(self._events)
            self._events.clear()
            try:
                await self._deliver(batch)
            except Exception:
                log.exception("messages could not be delivered")
            held, self._held = self._held, set()
            for channel in held:
                channel.release()


class _Following:
    """One name: who publishes it, and a connection to each."""

    def __init__(self, subscriber: Subscriber, name: str):
        self._subscriber = subscriber
        self._name = name
        self._listed: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lost = asyncio.Event()
        self.channels: dict[str, Channel] = {}
        self.first_round = asyncio.Event()
        self._looking = asyncio.ensure_future(self._keep_looking())

    async def end(self) -> None:
        await end_tasks([self._looking, *self._tasks.values()])
        self.first_round.set()
        await all_gone(list(self.channels.values()), NORMAL)

    async def _keep_looking(self) -> None:
        while True:
            self._lost.clear()
            tried = self._visit(await self._look())
            if not self.first_round.is_set():
                await asyncio.gather(*[event.wait() for event in tried])
                self.first_round.set()
            pause_s = self._subscriber.interval_s * random.uniform(0.5, 1.5)
            # Who lost a publisher looks sooner, but not at once: it may be coming back.
            await asyncio.sleep(min(pause_s, limits.SUB_RECONNECT_S))
            try:
                await asyncio.wait_for(self._lost.wait(), max(pause_s - limits.SUB_RECONNECT_S, 0))
            except asyncio.TimeoutError:
                pass

    async def _look(self) -> set[str]:
        try:
            return set(await self._subscriber.lookup(self._name))
        except LookupEmptyError:
            return set()
        except ClosedError:  # the link has been stopped before us
            return self._listed
        except GrenacheError as error:
            log.warning("publishers of %r could not be looked up: %s", self._name, error)
            return self._listed

    def _visit(self, listed: set[str]) -> list[asyncio.Event]:
        """Connect to those that are new; returns what says that each was tried."""
        self._listed = listed
        for destination in set(self._tasks) - listed - set(self.channels):
            self._tasks.pop(destination).cancel()
        tried = []
        for destination in listed - set(self._tasks):
            tried.append(asyncio.Event())
            self._tasks[destination] = asyncio.ensure_future(self._stay(destination, tried[-1]))
        return tried

    async def _stay(self, destination: str, tried: asyncio.Event) -> None:
        """Be connected to a publisher, again and again while it is announced."""
        failures = 0
        context = self._subscriber.ssl
        session = None if context is None else Resuming(context)
        try:
            while not tried.is_set() or destination in self._listed:
                try:
                    channel = await connect(
                        destination,
                        max_message=limits.BODY_BYTES_MAX,
                        ssl=session,
                        on_open=lambda channel: self._opened(destination, channel),
                    )
                except ConnectError as error:
                    log.info("no connection to a publisher of %r: %s", self._name, error)
                    failures += 1
                else:
                    tried.set()
                    failures = 0
                    if session is not None:
                        session.remember(channel.transport.get_extra_info("ssl_object"))
                    await asyncio.wait([channel.gone])
                tried.set()
                mean_s = min(limits.SUB_RECONNECT_S * 2 ** min(failures, 10), limits.SUB_LOOKUP_S)
                await asyncio.sleep(mean_s * random.uniform(0.5, 1.5))
        finally:
            tried.set()
            if self._tasks.get(destination) is asyncio.current_task():
                del self._tasks[destination]

    def _opened(self, destination: str, channel: Channel) -> None:
        subscriber = self._subscriber
        self.channels[destination] = channel

        def receive(opcode: int, content: bytes) -> None:
            message = content.decode() if opcode == TEXT else content
            subscriber.report(channel, ("message", (message, destination)))

        def ended(reason: str) -> None:
            if self.channels.get(destination) is channel:
                del self.channels[destination]
            subscriber.report(channel, ("disconnected", (destination,)))
            self._lost.set()

        channel.on_message = receive
        channel.on_end = ended
        subscriber.report(channel, ("connected", (destination,)))
