"""Keeps a node in touch with the network: pings, refreshes, newcomers, and the way back after an outage.
IO-free.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from .announces import OwnAnnounces
from .bootstrap import Bootstrap
from .bounds import (
    PINGS_PER_TICK,
    QUERY_TIMEOUT_S,
    REFRESH_S,
    VERIFYING_MAX,
    VERIFYING_PER_HOST_MAX,
    WALKS_MAX,
    WELCOMES_PER_TICK,
    K,
)
from .distance import key_of
from .identity import is_public
from .krpc import Address
from .lookup import Walk
from .proven import Proven
from .routing import Routing
from .storing import Storing
from .transactions import Reply, Transactions
from .walks import Walks

#: a query that waits for its sender to be proven, the sender, the time
AnswerLater = Callable[[dict[bytes, Any], Address, float], None]


class Upkeep:
    """Asks those who must be asked. ``answer`` is called for a query that waited for a pong,
    ``emit`` with ``ready`` and ``node``.
    """

    def __init__(
        self,
        routing: Routing,
        transactions: Transactions,
        walks: Walks,
        storing: Storing,
        own: OwnAnnounces,
        proven: Proven,
        bootstrap: Bootstrap,
        *,
        node_liveness_s: float,
        clock: Callable[[], float],
        random: Random,
        answer: AnswerLater,
        emit: Callable[[str, Any], None],
    ) -> None:
        self._routing = routing
        self._transactions = transactions
        self._walks = walks
        self._storing = storing
        self._own = own
        self._proven = proven
        self._bootstrap = bootstrap
        self._node_liveness_s = node_liveness_s
        self._clock = clock
        self._random = random
        self._answer = answer
        self._emit = emit
        # Whom we ping, and the query that waits for the pong because its answer is long.
        self._verifying: dict[Address, dict[bytes, Any] | None] = {}
        #: whether the first attempt to join is over
        self.ready = False

    @property
    def verifying(self) -> int:
        """How many are being pinged."""
        return len(self._verifying)

    def verify(self, address: Address, waiting: dict[bytes, Any] | None = None) -> None:
        """Ping, once at a time; what comes of it is seen to where every reply and every silence is.

        A query that is ``waiting`` is answered after the pong.
        """
        if address in self._verifying:
            if waiting is not None:
                self._verifying[address] = waiting
        elif len(self._verifying) < VERIFYING_MAX and not self._crowded(address[0]):
            self._verifying[address] = waiting
            args = {b"id": self._routing.own_id}
            # Who is not a contact may not even have asked: its address can be made up.
            known = address in self._routing.by_address
            self._transactions.query(address, b"ping", args, self._pinged, address, resend=known)

    def _crowded(self, host: str) -> bool:
        """Whether as many are being pinged at a public IP address as may be."""
        if not is_public(host):
            return False
        return sum(known == host for known, _ in self._verifying) >= VERIFYING_PER_HOST_MAX

    def _pinged(self, address: Address, reply: Reply | None, error: tuple[int, str] | None) -> None:
        waiting = self._verifying.pop(address, None)
        if waiting is not None and (reply is not None or error is not None):
            now = self._clock()
            self._proven.add(address, now)
            self._answer(waiting, address, now)

    def answered(self, node_id: bytes, address: Address, now: float) -> None:
        """A query of ours was answered from there."""
        self._walks.acquit(address)
        contact = self._routing.by_address.get(address)
        if contact is not None and contact.id == node_id and not contact.failures:
            contact.seen = now  # nothing new
            return
        fresh, oldest = self._routing.answered(node_id, address, now)
        contact = self._routing.by_address.get(address)
        if contact is None:
            self._proven.add(address, now)
        if oldest is not None:
            self.verify(oldest.address)
        if fresh and contact is not None:
            # A node that is new, or back: it may be one that own announces belong to.
            self._emit("node", contact)
            self._own.welcome(address, now)

    def refused(self, address: Address, now: float) -> None:
        """An error came from there, which is a sign of life too."""
        contact = self._routing.by_address.get(address)
        if contact is not None:
            contact.seen = now
            contact.failures = 0
            self._walks.acquit(address)

    def unanswered(self, address: Address, now: float) -> None:
        """Nothing came from there in time."""
        contact = self._routing.by_address.get(address)
        if contact is not None and now - contact.seen < QUERY_TIMEOUT_S:
            return  # it has answered other queries meanwhile: a datagram was lost
        self._walks.suspect(address, now)
        self._transactions.give_up(address)
        # Many queries may end in silence at once; then the ping after the first of them decides.
        if address in self._verifying:
            return
        if self._routing.failed(address) is not None:
            self.verify(address)
        elif contact is not None:
            self._bootstrap.lost(address, now)

    def tick(self, now: float) -> None:
        """Ping the silent, tell newcomers what we announced, refresh old buckets, rejoin when alone."""
        for contact in self._routing.silent(now, self._node_liveness_s, PINGS_PER_TICK):
            self.verify(contact.address)
        for address, (name, port) in self._own.take_welcomes(WELCOMES_PER_TICK, now):
            newcomer = self._routing.by_address.get(address)
            if newcomer in self._routing.closest(key_of(name), K):
                self._tell(address, name, port)
        if self._routing and len(self._walks) < WALKS_MAX:
            target = self._routing.refresh_target(now, REFRESH_S, self._random)
            if target is not None:
                self._walks.run(self._walks.to(Walk, target), lambda walk: None)
        missing = self._bootstrap.missing(now, self._routing.by_address)
        if missing:
            self.join(missing)

    def _tell(self, address: Address, name: bytes, port: int) -> None:
        """Announce a port at one node, which needs a token of that node first."""

        def told(context: Any, reply: Reply | None, error: tuple[int, str] | None) -> None:
            token = reply.get(b"token") if reply is not None else None
            if type(token) is bytes:
                self._storing.announce([(address, token)], name, port, lambda report: None)

        args = {b"id": self._routing.own_id, b"info_hash": name}
        self._transactions.query(address, b"get_peers", args, told, None)

    def join(self, addresses: Sequence[Address]) -> None:
        """Walk to our own id, starting at these addresses."""
        self._bootstrap.under_way = True
        self._walks.run(self._walks.home(addresses), self._joined)

    def _joined(self, walk: Walk) -> None:
        self._bootstrap.ended(self._clock(), alone=not self._routing)
        if not self.ready:
            self.ready = True
            self._emit("ready", None)
