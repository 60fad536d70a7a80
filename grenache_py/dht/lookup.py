"""Iterative walks towards a target: find_node, get_peers and get (Kademlia section 2.3). IO-free.

A walk knows candidates, asks the closest through a callback, and learns of closer ones from the replies. It
ends when the ``k`` closest that are alive have answered. Unlike k-rpc's walk it does not wait 2 s for the
dead: who let a query time out lately is asked but not waited for, and others not for long once something
was found.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Container
from typing import Any

from .bounds import (
    CANDIDATES_MAX,
    CONCURRENCY,
    CONTACTS_PER_HOST,
    NODES_READ_MAX,
    PATIENCE_FOUND_S,
    PATIENCE_S,
    TOKEN_BYTES_MAX,
    VALUES_FOUND_MAX,
    K,
)
from .distance import key_of
from .identity import is_public
from .items import Item, check_signature, read_item
from .krpc import NODE_BYTES, Address, Refusal, reachable, unpack_node, unpack_values
from .routing import Contact
from .transactions import Reply

# What became of a candidate. Plain numbers: this is looked at for every candidate at every reply.
_NEW, _ASKED, _ANSWERED, _FAILED = range(4)


class Candidate:
    """A node in one walk. ``id`` is ``None`` for a bootstrap address until it has answered."""

    __slots__ = ("address", "asked_at", "distance", "id", "state", "suspect", "token")

    def __init__(self, node_id: bytes | None, address: Address, distance: int) -> None:
        self.id = node_id
        self.address = address
        self.distance = distance
        #: not worth waiting for
        self.suspect = False
        self.state = _NEW
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

    __slots__ = (
        "_addresses",
        "_ask",
        "_candidates",
        "_concurrency",
        "_done",
        "_entries",
        "_hosts",
        "_in_flight",
        "_k",
        "_new",
        "_own_id",
        "_suspects",
        "answers",
        "args",
        "began",
        "finished",
        "key",
        "target",
    )
    method = b"find_node"
    #: the argument of the query that carries the target
    field = b"target"

    def __init__(
        self,
        target: bytes,
        own_id: bytes,
        ask: Callable[[Any, Candidate], None],
        done: Callable[[Any], None],
        suspects: Container[Address] = (),
        k: int = K,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self.target = target
        self.args: dict[bytes, Any] = {b"id": own_id, self.field: target}
        self.finished = False
        #: when, on the clock of the node that walks
        self.began = 0.0
        #: nodes that answered
        self.answers = 0
        self._own_id = own_id
        #: the target as ``distance.key_of`` gives it
        self.key = key_of(target)
        self._ask = ask
        self._done = done
        self._suspects = suspects
        self._k = k
        self._concurrency = concurrency
        # The closest first; bootstrap addresses, whose id is not known yet, before all.
        self._candidates: list[Candidate] = []
        self._addresses: set[Address] = set()
        self._entries: set[bytes] = set()
        # Candidates at each public IP address.
        self._hosts: dict[str, int] = {}
        self._new = 0  # not asked yet
        self._in_flight = 0  # without suspects, which hold up nothing

    @property
    def found(self) -> bool:
        """Whether the walk has what it was made for, so that it need not wait for the slow."""
        return False

    def add(self, node_id: bytes | None, address: Address) -> None:
        """Tell of a node; each address is asked once."""
        if address in self._addresses or node_id == self._own_id or len(self._candidates) >= CANDIDATES_MAX:
            return
        host = address[0]
        if is_public(host):
            at_host = self._hosts.get(host, 0)
            if at_host >= CONTACTS_PER_HOST:
                return
            self._hosts[host] = at_host + 1
        self._addresses.add(address)
        distance = -1 if node_id is None else self.key ^ int.from_bytes(node_id, "big")
        insort(self._candidates, Candidate(node_id, address, distance))
        self._new += 1

    def seed(self, contacts: list[Contact]) -> None:
        """Begin with these contacts, the closest first as the routing table gives them."""
        key, candidates = self.key, self._candidates
        for contact in contacts:
            address = contact.address
            self._addresses.add(address)
            if is_public(address[0]):
                self._hosts[address[0]] = self._hosts.get(address[0], 0) + 1
            candidates.append(Candidate(contact.id, address, key ^ contact.long_id))
        self._new += len(contacts)

    def start(self) -> None:
        """Begin; with nobody to ask it is done at once."""
        self._advance()

    def answered(self, candidate: Candidate, node_id: bytes, reply: Reply) -> None:
        """A reply, from the node with this id; not necessarily the id that was expected."""
        if self.finished or candidate.state != _ASKED:
            return
        if not candidate.suspect:
            self._in_flight -= 1
        if node_id == self._own_id:
            candidate.state = _FAILED  # a stale contact that leads back to ourselves
            self._advance()
            return
        candidate.state = _ANSWERED
        self.answers += 1
        if candidate.id != node_id:
            self._candidates.remove(candidate)
            candidate.id = node_id
            candidate.distance = self.key ^ int.from_bytes(node_id, "big")
            insort(self._candidates, candidate)
        token = reply.get(b"token")
        if type(token) is bytes and len(token) <= TOKEN_BYTES_MAX:
            candidate.token = token
        nodes = reply.get(b"nodes")
        if nodes:
            self._add_nodes(nodes)
        if self._visit(reply):
            self._finish()
        else:
            self._advance()

    def failed(self, candidate: Candidate) -> None:
        """No answer came, or an error."""
        if not self.finished and candidate.state == _ASKED:
            candidate.state = _FAILED
            if not candidate.suspect:
                self._in_flight -= 1
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
            waited_for = candidate.state == _ASKED and not candidate.suspect
            if waited_for and now - candidate.asked_at >= patience_s:
                candidate.suspect = True
                self._in_flight -= 1
                slow.append(candidate.address)
        if slow:
            self._advance()
        return slow

    def holders(self) -> list[tuple[Address, bytes]]:
        """Address and write token of the up to ``k`` closest nodes that gave one."""
        found = [(candidate.address, candidate.token) for candidate in self._candidates if candidate.token]
        return found[: self._k]

    def own_is_close(self) -> bool:
        """Whether the node that walks would be one of those ``holders`` itself."""
        own_distance = self.key ^ int.from_bytes(self._own_id, "big")
        closer = [each for each in self._candidates if each.token and each.distance < own_distance]
        return len(closer) < self._k

    def _visit(self, reply: Reply) -> bool:
        """Take what a reply brings; True ends the walk."""
        return False

    def _add_nodes(self, nodes: Any) -> None:
        own_id, entries = self._own_id, self._entries
        if type(nodes) is not bytes:
            return
        end = len(nodes) - len(nodes) % NODE_BYTES  # a short tail is dropped
        if end > NODES_READ_MAX * NODE_BYTES:
            end = NODES_READ_MAX * NODE_BYTES
        for at in range(0, end, NODE_BYTES):
            entry = nodes[at : at + NODE_BYTES]
            # Nodes list us among the others, and each other again and again.
            if entry not in entries and not entry.startswith(own_id) and len(entries) < CANDIDATES_MAX:
                entries.add(entry)
                node_id, address = unpack_node(entry)
                if reachable(address):
                    self.add(node_id, address)

    def _advance(self) -> None:
        """Ask the closest that are still to be asked; done when the ``k`` closest alive have answered."""
        if not self._in_flight and not self._new:
            self._finish()
            return
        if not self._new and len(self._candidates) <= self._k:
            return
        waiting = False
        alive = 0
        for candidate in self._candidates:
            state = candidate.state
            if state == _NEW:
                if candidate.address in self._suspects:
                    candidate.suspect = True
                elif self._in_flight >= self._concurrency:
                    waiting = True
                    break
                else:
                    self._in_flight += 1
                candidate.state = state = _ASKED
                self._new -= 1
                self._ask(self, candidate)
            if state == _FAILED:
                continue
            if state == _ASKED:
                if candidate.suspect:
                    continue
                waiting = True
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

    __slots__ = ("peers", "values")
    method = b"get_peers"
    field = b"info_hash"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        #: compact peers, as a set that keeps its order
        self.values: dict[bytes, None] = {}
        #: the answer made of them, once somebody has made it
        self.peers: list[bytes] | None = None

    @property
    def found(self) -> bool:
        return bool(self.values)

    def _visit(self, reply: Reply) -> bool:
        values = reply.get(b"values")
        if values is not None and len(self.values) < VALUES_FOUND_MAX:
            self.values.update(dict.fromkeys(unpack_values(values)))
        return False


class ItemWalk(Walk):
    """A ``get`` walk: ends with the immutable item, or has the mutable one with the highest ``seq`` at its
    end.
    """

    __slots__ = ("item", "reply", "salt", "versions")
    method = b"get"

    def __init__(self, target: bytes, own_id: bytes, *args: Any, **options: Any) -> None:
        super().__init__(target, own_id, *args, **options)
        self.item: Item | None = None
        #: the reply that brought the item
        self.reply: Reply | None = None
        #: what the signature of a mutable item covers besides; not told by those who store it
        self.salt: bytes | None = None
        #: the ``seq`` that each node says it holds, whether that is true or not
        self.versions: dict[Address, int] = {}

    @property
    def found(self) -> bool:
        return self.item is not None

    def answered(self, candidate: Candidate, node_id: bytes, reply: Reply) -> None:
        seq = reply.get(b"seq")
        if type(seq) is int and 0 <= seq < 2**63:
            self.versions[candidate.address] = seq
        super().answered(candidate, node_id, reply)

    def _visit(self, reply: Reply) -> bool:
        if b"v" not in reply:
            return False
        try:
            item = read_item(reply, self.salt)
            if item.target != self.target or not item.newer_than(self.item):
                return False
            check_signature(item)
        except Refusal:
            return False
        self.item = item
        self.reply = reply
        return not item.mutable


class TokenWalk(Walk):
    """A ``get`` walk for the write tokens alone: looking for the item would end at its first copy."""

    __slots__ = ()
    method = b"get"
