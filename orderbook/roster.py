"""The other peers of a market: who they are, where they are, and when they were last heard.

IO-free: the worker tells what look-ups return and the negotiation what peers say; time is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import limits
from .model import Side

SILENT_S: Final = limits.HEARTBEATS_MISSED * limits.HEARTBEAT_S
"""After how long without a word a peer leaves."""


class Peer:
    """One other peer.

    Attributes:
        destination: Its address, ``"host:port"``.
        name: What it calls itself, or None until it has said so.
        heard: When it last spoke, on our monotonic clock; None: never.
        found: When look-ups found it, on our monotonic clock.
        sequence: Of its newest heartbeat.
        told: When that came, on our monotonic clock.
        best_bid: Its best open buying price as of then, in ticks, or None.
        best_ask: Its best open selling price as of then, in ticks, or None.
        refused: Why we do not trade with it (it disagrees on the instrument), or None.
        websocket: Whether it takes requests over a WebSocket too.
        session: The newest version of sessions that it opens there; 0: none.
        came_from: Where its name was heard before, or None.
        moved: When it was heard here instead, on our monotonic clock.
        returned: It was here before, a moment ago, and has not told of its prices yet.
        passed: ``sequence`` of its newest heartbeat there.
    """

    __slots__ = (
        "best_ask",
        "best_bid",
        "came_from",
        "destination",
        "found",
        "heard",
        "moved",
        "name",
        "passed",
        "refused",
        "returned",
        "sequence",
        "session",
        "told",
        "websocket",
    )

    def __init__(self, destination: str, found: float):
        self.destination = destination
        self.found = found
        self.name: str | None = None
        self.heard: float | None = None
        self.sequence = 0
        self.told = found
        self.best_bid: int | None = None
        self.best_ask: int | None = None
        self.refused: str | None = None
        self.websocket = False
        self.session = 0
        self.came_from: str | None = None
        self.moved = 0.0
        self.returned = False
        self.passed = 0

    def follows(self, before: Peer, now: float) -> None:
        """It was at ``before`` until now."""
        self.returned = before.came_from == self.destination and now - before.moved < limits.DUPLICATE_S
        self.came_from, self.moved = before.destination, now
        self.passed = before.sequence if before.sequence > before.passed else before.passed

    def tells_news(self, sequence: int, now: float) -> bool:
        """Whether a heartbeat is not one that a newer one has overtaken. Where no newer one has come for so
        long that a silent peer would have left, another process has its place, which counts anew."""
        if sequence <= self.sequence and now - self.told < SILENT_S:
            return False
        self.sequence, self.told = sequence, now
        return True

    def is_duplicate(self, sequence: int) -> bool:
        """Whether a heartbeat from here shows that two processes have its name, and are heard in turn: one
        process counts on, whichever of its addresses it is heard at."""
        returned, self.returned = self.returned, False
        return returned and sequence <= self.passed


class Roster:
    """Peers by destination and by name; bounded by :data:`limits.PEERS`."""

    def __init__(self, own_name: str):
        self._own_name = own_name
        self._own_destinations: dict[str, None] = {}
        """Oldest first."""
        self._peers: dict[str, Peer] = {}
        self._by_name: dict[str, Peer] = {}

    def discovered(self, destinations: Iterable[str], now: float) -> list[Peer]:
        """Add those that are new. Returns them; they have yet to be asked who they are."""
        new: list[Peer] = []
        for destination in destinations:
            known = destination in self._own_destinations or destination in self._peers
            if not known and len(self._peers) < limits.PEERS:
                self._peers[destination] = Peer(destination, now)
                new.append(self._peers[destination])
        return new

    def heard(self, destination: str, name: str | None, now: float) -> Peer | None:
        """``destination`` has answered as ``name`` (None: it did not say). Returns its entry, if it has one.

        Our own announcement is found by look-ups too: who answers with our name is ourselves.
        """
        if name == self._own_name:
            self.lost(destination)
            self._own_destinations[destination] = None
            if len(self._own_destinations) > limits.OWN_DESTINATIONS:
                del self._own_destinations[next(iter(self._own_destinations))]  # it is asked again
            return None
        peer = self._peers.get(destination)
        if peer is None:
            return None
        if name is not None and name != peer.name:
            before = self._by_name.get(name)
            if before is not None:
                peer.follows(before, now)
                self.lost(before.destination)  # it has moved here
            if peer.name is not None:
                del self._by_name[peer.name]
            peer.name, peer.sequence, peer.best_bid, peer.best_ask = name, 0, None, None
            self._by_name[name] = peer
        peer.heard = now
        return peer

    def called(self, name: str, now: float) -> bool:
        """The peer ``name`` has called us. Returns whether we know it."""
        peer = self._by_name.get(name)
        if peer is not None:
            peer.heard = now
        return peer is not None

    def refuses(self, destination: str, reason: str, now: float) -> None:
        """``destination`` is there but does not trade with us."""
        peer = self._peers.get(destination)
        if peer is not None:
            peer.refused, peer.heard = reason, now

    def lost(self, destination: str) -> None:
        """``destination`` refused or broke a connection; it comes back when it is discovered again."""
        peer = self._peers.pop(destination, None)
        if peer is not None and peer.name is not None:
            del self._by_name[peer.name]

    def drop_silent(self, now: float) -> list[Peer]:
        """Forget who has not been heard for :data:`limits.HEARTBEATS_MISSED` heartbeats, or not at all for so
        long since look-ups found it. Returns them."""
        oldest = now - SILENT_S
        silent = [
            peer
            for peer in self._peers.values()
            if (peer.found if peer.heard is None else peer.heard) < oldest
        ]
        for peer in silent:
            self.lost(peer.destination)
        return silent

    def named(self, name: str) -> Peer | None:
        """The peer called ``name``."""
        return self._by_name.get(name)

    def at(self, destination: str) -> Peer | None:
        """The peer at ``destination``."""
        return self._peers.get(destination)

    def all(self) -> list[Peer]:
        """Everyone, also those that have not said who they are."""
        return list(self._peers.values())

    def not_heard_since(self, time: float) -> list[Peer]:
        """Whom to ask how they are."""
        return [peer for peer in self._peers.values() if peer.heard is None or peer.heard < time]

    def best(self, side: Side) -> int | None:
        """The best price of ``side`` that any of those who trade with us has last published, in ticks."""
        prices = [peer.best_bid if side is Side.BUY else peer.best_ask for peer in self.trading()]
        known = [price for price in prices if price is not None]
        return (max if side is Side.BUY else min)(known, default=None)

    def trading(self) -> list[Peer]:
        """Those that orders are announced to."""
        return [peer for peer in self._by_name.values() if peer.refused is None]
