"""Iterative walks towards a target: find_node, get_peers and get (Kademlia section 2.3). IO-free.

A walk knows candidates, asks the closest through a callback, and learns of closer ones from the replies. It
ends when the ``k`` closest that are alive have answered. Unlike k-rpc's walk it does not wait 2 s for the
dead: who let a query time out lately is asked but not waited for, and others not for long once something
was found.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container
from enum import IntEnum
from typing import Any

from grenache_py.dht.bounds import (
    CANDIDATES_MAX,
    CONCURRENCY,
    PATIENCE_FOUND_S,
    PATIENCE_S,
    TOKEN_BYTES_MAX,
    K,
)
from grenache_py.dht.distance import key_of
from grenache_py.dht.items import Item, check_signature, read_item
from grenache_py.dht.krpc import Address, Refusal, reachable, split_nodes, unpack_node, unpack_values
from grenache_py.dht.transactions import Reply


class State(IntEnum):
    NEW = 0
    ASKED = 1
    ANSWERED = 2
    FAILED = 3


class Candidate:
    """A node in one walk. ``id`` is ``None`` for a bootstrap address until it has answered."""

    __slots__ = ("address", "asked_at", "distance", "id", "state", "suspect", "token")

    def __init__(self, node_id: bytes | None, address: Address, distance: int) -> None:
        self.id = node_id
        self.address = address
        self.distance = distance
        #: not worth waiting for
        self.suspect = False
        self.state = State.NEW
        self.asked_at = 0.0
        #: its write token for this target, for the announce or put that may follow
        self.token: bytes | None = None

    def __lt__(self, other: Candidate) -> bool:
        return self.distance < other.distance


class Walk:
    """A ``find_node`` walk, and what all walks share.

    ``ask(walk, candidate)`` sends ``walk.method`` with ``walk.args``; its outcome comes back through
    ``answered`` or ``failed``, never from within ``ask``. ``done(walk)`` is called once.
    """

    method = b"find_node"

    def __init__(
        self,
        target: bytes,
        own_id: bytes,
        *,
        ask: Callable[[Walk, Candidate], None],
        done: Callable[[Any], None],
        suspects: Container[Address] = (),
        k: int = K,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self.target = target
        self.args: dict[bytes, Any] = {b"id": own_id, b"target": target}
        self.finished = False
        #: nodes that answered
        self.answers = 0
        self._own_id = own_id
        self._key = key_of(target)
        self._ask = ask
        self._done = done
        self._suspects = suspects
        self._k = k
        self._concurrency = concurrency
        # The closest first; bootstrap addresses, whose id is not known yet, before all.
        self._candidates: list[Candidate] = []
        self._addresses: set[Address] = set()
        self._entries: set[bytes] = set()
        self._in_flight = 0  # without suspects, which hold up nothing

    @property
    def found(self) -> bool:
        """Whether the walk has what it was made for, so that it need not wait for the slow."""
        return False

    def add(self, node_id: bytes | None, address: Address) -> None:
        """Tell of a node; each address is asked once."""
        if address in self._addresses or node_id == self._own_id or len(self._candidates) >= CANDIDATES_MAX:
            return
        self._addresses.add(address)
        distance = -1 if node_id is None else self._key ^ int.from_bytes(node_id, "big")
        insort(self._candidates, Candidate(node_id, address, distance))

    def start(self) -> None:
        """Begin; with nobody to ask it is done at once."""
        self._advance()

    def answered(self, candidate: Candidate, node_id: bytes, reply: Reply) -> None:
        """A reply, from the node with this id; not necessarily the id that was expected."""
        if self.finished or candidate.state is not State.ASKED:
            return
        self._settle(candidate, State.ANSWERED)
        if node_id == self._own_id:
            candidate.state = State.FAILED  # a stale contact that leads back to ourselves
            self._advance()
            return
        self.answers += 1
        if candidate.id != node_id:
            self._candidates.remove(candidate)
            candidate.id = node_id
            candidate.distance = self._key ^ int.from_bytes(node_id, "big")
            insort(self._candidates, candidate)
        token = reply.get(b"token")
        if type(token) is bytes and len(token) <= TOKEN_BYTES_MAX:
            candidate.token = token
        for entry in split_nodes(reply.get(b"nodes")):
            if entry not in self._entries and len(self._entries) < CANDIDATES_MAX:
                self._entries.add(entry)
                other_id, address = unpack_node(entry)
                if reachable(address):
                    self.add(other_id, address)
        if self._visit(reply):
            self._finish()
        else:
            self._advance()

    def failed(self, candidate: Candidate) -> None:
        """No answer came, or an error."""
        if not self.finished and candidate.state is State.ASKED:
            self._settle(candidate, State.FAILED)
            self._advance()

    def hurry(self, now: float) -> list[Address]:
        """Stop waiting for those who have been silent for too long, as of ``now``, while others answered.

        Returns their addresses.
        """
        if self.finished or not self.answers:
            return []
        patience_s = PATIENCE_FOUND_S if self.found else PATIENCE_S
        slow = []
        for candidate in self._candidates:
            waited_for = candidate.state is State.ASKED and not candidate.suspect
            if waited_for and now - candidate.asked_at >= patience_s:
                candidate.suspect = True
                self._in_flight -= 1
                slow.append(candidate.address)
        if slow:
            self._advance()
        return slow

    def closest_with_token(self) -> list[Candidate]:
        """The up to ``k`` closest nodes that answered with a write token."""
        found = [candidate for candidate in self._candidates if candidate.token is not None]
        return found[: self._k]

    def _visit(self, reply: Reply) -> bool:
        """Take what a reply brings; True ends the walk."""
        return False

    def _settle(self, candidate: Candidate, state: State) -> None:
        candidate.state = state
        if not candidate.suspect:
            self._in_flight -= 1

    def _advance(self) -> None:
        """Ask the closest that are still to be asked; done when the ``k`` closest alive have answered."""
        waiting = False
        alive = 0
        for candidate in self._candidates:
            state = candidate.state
            if state is State.NEW:
                if candidate.address in self._suspects:
                    candidate.suspect = True
                elif self._in_flight >= self._concurrency:
                    waiting = True
                    break
                else:
                    self._in_flight += 1
                candidate.state = State.ASKED
                self._ask(self, candidate)
                waiting |= not candidate.suspect
            elif state is State.ASKED:
                waiting |= not candidate.suspect
            if state is State.FAILED or (candidate.suspect and candidate.state is State.ASKED):
                continue
            if candidate.distance >= 0:
                alive += 1
                if alive == self._k:
                    break
        if not waiting:
            self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._done(self)


class PeerWalk(Walk):
    """A ``get_peers`` walk: gathers the peers of a name from all who know some."""

    method = b"get_peers"

    def __init__(self, name: bytes, own_id: bytes, **options: Any) -> None:
        super().__init__(name, own_id, **options)
        self.args = {b"id": own_id, b"info_hash": name}
        #: compact peers, as a set that keeps its order
        self.values: dict[bytes, None] = {}

    @property
    def found(self) -> bool:
        return bool(self.values)

    def _visit(self, reply: Reply) -> bool:
        values = reply.get(b"values")
        if values is not None:
            self.values.update(dict.fromkeys(unpack_values(values)))
        return False


class ItemWalk(Walk):
    """A ``get`` walk: ends with the immutable item, or has the mutable one with the highest ``seq`` at its
    end.
    """

    method = b"get"

    def __init__(self, target: bytes, own_id: bytes, *, salt: bytes | None = None, **options: Any) -> None:
        super().__init__(target, own_id, **options)
        self.item: Item | None = None
        #: the reply that brought the item
        self.reply: Reply | None = None
        self._salt = salt

    @property
    def found(self) -> bool:
        return self.item is not None

    def _visit(self, reply: Reply) -> bool:
        if b"v" not in reply:
            return False
        try:
            item = read_item(reply, self._salt)
            if item.target != self.target:
                return False
            check_signature(item)
        except Refusal:
            return False
        if self.item is None or (item.seq is not None and item.seq > (self.item.seq or 0)):
            self.item = item
            self.reply = reply
        return not item.mutable
