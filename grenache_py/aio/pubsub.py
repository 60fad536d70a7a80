"""Pub/sub over WebSocket, with asyncio. Mirrors grenache-nodejs-ws 1.0.0."""

from __future__ import annotations

import inspect
import logging
from functools import partial
from ssl import SSLContext

from .. import limits
from ..checks import check_count, check_listen_port, check_name, check_seconds
from ..errors import ClosedError
from ..listeners import Listening
from ..tls import Authorize, check_authorize, check_context
from ..transports.ws_pubsub import Event, Publisher, Subscriber, check_sub_event, encode_message
from ..transports.ws_server import VerifyClient
from .link import Link
from .service import Serving

log = logging.getLogger(__name__)


class PubService:
    """One listening port to which subscribers connect; made by ``PeerPub.transport``."""

    def __init__(self, link: Link, publisher: Publisher):
        self._link = link
        self._publisher = publisher
        self._listens = False

    @property
    def port(self) -> int:
        """The port that listens; raises RuntimeError before ``listen``."""
        return self._publisher.port

    @property
    def subscribers(self) -> int:
        """How many are connected."""
        return self._publisher.subscribers

    async def listen(self, port: int = 0, host: str | None = None) -> PubService:
        """Listen on ``port`` (0: any free one) of ``host`` (``None``: all of them). Raises
        ``ListenError``.
        """
        await self._publisher.listen(check_listen_port(port), host)
        self._listens = True
        return self

    def pub(self, message: str | bytes) -> int:
        """Send a text or bytes to all subscribers; returns to how many it is on its way.

        Raises ``ArgumentError`` for other types: what is to be JSON is made JSON by who publishes, as with
        Node.
        """
        return self._publisher.publish(encode_message(message))

    async def stop(self) -> None:
        """Withdraw the announcements of its port and disconnect all subscribers, once they have what was
        published, or a second later.
        """
        if self._listens:
            self._listens = False
            await self._link.withdraw(self.port)
        await self._publisher.close()


class PeerPub(Serving[PubService]):
    """Publishes messages. Mirrors grenache-nodejs-base (lib/PeerPub.js).

    ``ssl``, ``authorize`` and ``verify_client`` as for ``PeerRPCServer``. A subscriber with more than
    ``max_queue`` unsent bytes is disconnected; our ``PeerSub`` comes back then, without what it missed.
    """

    def __init__(
        self,
        link: Link,
        *,
        ssl: SSLContext | None = None,
        authorize: Authorize | None = None,
        verify_client: VerifyClient | None = None,
        max_queue: int = limits.PUB_QUEUE_BYTES,
    ):
        publisher = partial(
            Publisher,
            ssl=check_context(ssl),
            authorize=check_authorize(authorize, ssl),
            verify_client=verify_client,
            queue_bytes=check_count(max_queue, "max_queue"),
        )
        super().__init__(link, lambda: PubService(link, publisher()))


class PeerSub(Listening):
    """Subscribes to all publishers of a name. Mirrors grenache-nodejs-base (lib/PeerSub.js).

    Node connects to one of them, once. This one connects to all, looks for new ones every ``interval``
    seconds (0.5 to 1.5 times that, and sooner after a loss) and comes back to those it lost. What was
    published meanwhile is not sent again. ``ssl`` makes it ``wss://``.

    Events: ``message`` calls ``listener(message, destination)`` with a text or bytes, ``connected`` and
    ``disconnected`` call ``listener(destination)``; one after the other, in order. While a listener is slow
    no more is read, until its publishers disconnect.
    """

    def __init__(self, link: Link, *, ssl: SSLContext | None = None, interval: float = limits.SUB_LOOKUP_S):
        super().__init__(check_sub_event, coroutines=True)
        self._link = link
        self._subscriber = Subscriber(
            self._lookup,
            self._deliver,
            ssl=check_context(ssl),
            interval_s=check_seconds(interval, "interval"),
        )
        self._stopped = False
        link.attach(self)

    async def __aenter__(self) -> PeerSub:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def sub(self, name: str) -> int:
        """Subscribe, until ``unsub``; returns to how many publishers it is connected now.

        None is no error: they are looked for as long as it takes, also while the Grape is away. Doing it
        again changes nothing.
        """
        check_name(name)
        if self._stopped:
            raise ClosedError("the subscriber is stopped")
        return await self._subscriber.follow(name)

    async def unsub(self, name: str) -> bool:
        """End what ``sub`` began; returns whether there was anything to end."""
        return await self._subscriber.unfollow(name)

    async def stop(self) -> None:
        """End all subscriptions; what no listener has seen yet is dropped."""
        self._stopped = True
        self._link.detach(self)
        await self._subscriber.close()

    async def _lookup(self, name: str) -> list[str]:
        return await self._link.lookup(name, fresh=True, timeout=limits.SUB_LOOKUP_TIMEOUT_S)

    async def _deliver(self, events: list[Event]) -> None:
        for event, arguments in events:
            listener = self._listeners.get(event)
            if listener is None:
                continue
            try:
                outcome = listener(*arguments)
                if inspect.isawaitable(outcome):
                    await outcome
            except Exception:
                log.exception("the listener of %s raised", event)
