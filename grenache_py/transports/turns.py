"""Whose requests are handled next when one client sends more of them than there is time for. IO-free."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, Protocol

from .addresses import plain_host

#: Requests of one source that are handled in one turn of the loop while there are others: some tenths of a
#: millisecond.
TURN_REQUESTS: Final = 32


class Client(Protocol):
    """A connection whose requests are handled here."""

    def proceed(self) -> None:
        """Hand over what waits, as far as it may."""


class Source:
    """The clients at one address: all that are counted together."""

    __slots__ = ("clients", "handled", "queue", "turn")

    def __init__(self) -> None:
        #: in the order they came
        self.clients: dict[Any, None] = {}
        self.turn = 0
        self.handled = 0
        #: those of the clients that have used up what the source may have in this turn
        self.queue: OrderedDict[Client, None] = OrderedDict()


def source_of(host: str) -> str:
    """What addresses are counted together: one of IPv4, a network of 64 bits of IPv6, which one host may have
    all of.
    """
    host = plain_host(host)
    if ":" not in host:
        return host
    return str(ipaddress.IPv6Address(int(ipaddress.IPv6Address(host.partition("%")[0])) >> 64 << 64))


class Turns:
    """Lets each source have so many requests handled in a turn; more wait for the next one.

    So one source, with however many connections and requests, holds up the others by its own share of a
    turn. ``call_soon`` begins the next turn, after what has come meanwhile.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._turn = 0
        self._queued: dict[Source, None] = {}
        self._scheduled = False

    def take(self, source: Source, client: Client) -> bool:
        """Whether one more request may be handled now; if not, ``client`` is told to proceed later."""
        if source.turn != self._turn:
            source.turn = self._turn
            source.handled = 0
        if source.handled < TURN_REQUESTS:
            source.handled += 1
            return True
        source.queue[client] = None
        self._queued[source] = None
        if not self._scheduled:
            self._scheduled = True
            self._call_soon(self._next)
        return False

    def _next(self) -> None:
        self._turn += 1
        self._scheduled = False
        queued, self._queued = self._queued, {}
        for source in queued:
            # Each of them once; who is not done comes after the others.
            for _ in range(len(source.queue)):
                if source.turn == self._turn and source.handled >= TURN_REQUESTS:
                    break
                client, _ = source.queue.popitem(last=False)
                client.proceed()
            if source.queue:
                self._queued[source] = None
        if self._queued and not self._scheduled:
            self._scheduled = True
            self._call_soon(self._next)
