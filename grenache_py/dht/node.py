"""A node of the DHT: BEP 5 and BEP 44 as Node Grapes speak them. IO-free.

It is given ``send``, ``clock``, ``call_later`` and randomness, and is told of datagrams by ``receive``; so
it runs on a socket (udp.py) and in a simulation alike. Results come by plain callbacks: no task or future
per query, and one coarse timer for everything that is limited in time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol

from .announces import OwnAnnounces
from .answers import Answers
from .bootstrap import Bootstrap
from .bounds import (
    DATAGRAM_BYTES_MIN,
    ID_BYTES,
    NAME_BYTES_MAX,
    OWN_HOSTS_MAX,
    PROVEN_BURST,
    PROVEN_MAX,
    PROVEN_RATE,
    STRANGER_DATAGRAM_BYTES_MAX,
    STRANGER_NODES_MAX,
    STRANGER_REPLY_RATIO,
    TICK_S,
    VALUES_MAX,
    WALKS_MAX,
)
from .counters import Counters
from .identity import AddressVotes, id_fits, is_public, make_id
from .item_access import ItemAccess
from .items import Item, ItemStore
from .krpc import (
    Address,
    ErrorCode,
    MalformedDatagram,
    decode,
    error_of,
    node_id_of,
    pack_address,
    unpack_address,
)
from .lookup import PeerWalk
from .peers import PeerStore
from .proven import Proven
from .ratelimit import StrangerLimiter, TokenBuckets
from .republish import OwnItems
from .routing import Routing
from .server import Tables, answer
from .settings import DhtSettings
from .storing import HolderCache, StoreReport, Storing
from .tokens import Tokens
from .transactions import Reply, Transactions
from .upkeep import Upkeep
from .walks import Walks

# Under which a look-up lists what was announced here while nobody else tells our address.
_LOOPBACK = "127.0.0.1"


class Busy(Exception):
    """More walks at once than this node takes on."""


class Timer(Protocol):
    def cancel(self) -> None: ...


class DhtNode:
    """One node. ``emit(event, argument)`` is called for ``ready``, ``node`` (Contact), ``peer`` ("ip:port"),
    ``announce`` (name) and ``warning`` (text).
    """

    def __init__(
        self,
        *,
        send: Callable[[bytes, Address], None],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], Timer],
        random: Random,
        random_bytes: Callable[[int], bytes],
        node_id: bytes | None = None,
        settings: DhtSettings | None = None,
        emit: Callable[[str, Any], None] = lambda event, argument: None,
    ) -> None:
        if node_id is not None and len(node_id) != ID_BYTES:
            raise ValueError(f"node_id must be {ID_BYTES} bytes")
        self.settings = settings or DhtSettings()
        self._clock = clock
        self._call_later = call_later
        self._random = random
        self._random_bytes = random_bytes
        self._emit = emit
        now = clock()
        self.routing = Routing(node_id or make_id(self.settings.host, random_bytes), now)
        self.peers = PeerStore(self.settings.peer_max_age_s)
        self.items = ItemStore(self.settings.max_items)
        self.own = OwnAnnounces(self.settings.peer_max_age_s)
        self.own_items = OwnItems(self.settings.max_items)
        #: our own IP addresses, as far as they are known
        self.own_hosts = {_LOOPBACK} if self.settings.host is None else {_LOOPBACK, self.settings.host}
        self.tokens = Tokens(random_bytes, now)
        self.counters = Counters()
        self.bootstrap = Bootstrap(random)
        self._address_votes = AddressVotes()
        self._strangers = StrangerLimiter()
        self._neighbours = TokenBuckets(PROVEN_RATE, PROVEN_BURST, PROVEN_MAX)
        self._proven = Proven()
        self._tables = Tables(
            self.routing, self.tokens, self.peers, self.items, self._proven, random, self._announced
        )
        self._send = send
        self._transactions = Transactions(send, clock, call_later, random, self.counters)
        self._walks = Walks(
            self.routing,
            self._transactions,
            self.bootstrap,
            clock,
            self.counters,
            self.settings.concurrency,
        )
        self._storing = Storing(self.routing, self._transactions, clock)
        self._item_access = ItemAccess(self.items, self.own_items, self._walks, self._storing, clock)
        self._upkeep = Upkeep(
            self.routing,
            self._transactions,
            self._walks,
            self._storing,
            self.own,
            self._proven,
            self.bootstrap,
            node_liveness_s=self.settings.node_liveness_s,
            clock=clock,
            random=random,
            answer=lambda query, address, now: self._on_query(query, address, now, None),
            emit=emit,
        )
        self._answers = Answers(random)
        self._holders = HolderCache(self.settings.max_tables)
        self._timer: Timer | None = None

    @property
    def node_id(self) -> bytes:
        return self.routing.own_id

    @property
    def ready(self) -> bool:
        """Whether the first attempt to join is over."""
        return self._upkeep.ready

    @property
    def walks_under_way(self) -> int:
        return len(self._walks)

    @property
    def queries_under_way(self) -> int:
        return len(self._transactions)

    # Life.

    def start(self, bootstrap: Sequence[Address] = (), contacts: Sequence[Address] = ()) -> None:
        """Begin, and find the nodes around our own id through these addresses; ``ready`` follows.

        The bootstrap addresses are asked again whenever they are not among the contacts; ``contacts`` of an
        earlier life, the newest first, while there are no others.
        """
        self._tick()
        self.bootstrap.addresses = list(bootstrap)
        for address in reversed(contacts):
            self.bootstrap.lost(address, self._clock())
        self._upkeep.join([*bootstrap, *contacts])

    def stop(self) -> None:
        """Stop; whoever waits for a result gets it now, with what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # What ends may ask the next candidate; those are finite, and each query ends here at once.
        while True:
            ended = [(done, context) for _, done, context in self._transactions.expire(float("inf"))]
            ended += self._transactions.take_doomed()
            if not ended:
                return
            for done, context in ended:
                done(context, None, None)

    # What the DHT is for.

    def lookup(self, name: bytes, done: Callable[[list[bytes]], None]) -> None:
        """Find the peers of a name: up to 100 compact ones, in random order, no duplicates.

        Those who look a name up at the same time get one and the same list; it must not be changed. Raises
        ValueError for an unfit name, Busy when too much is under way.
        """
        _check_name(name)
        answer = self._answers.get(name, self._clock())
        if answer is not None:
            done(answer)
            return
        self._check_busy(name)
        self._walks.for_peers(name, lambda walk: done(self._peers_of(walk)))

    def _peers_of(self, walk: PeerWalk) -> list[bytes]:
        """The answer to a look-up; the same list for all who share the walk."""
        if walk.peers is None:
            now = self._clock()
            walk.peers = self._list_peers(walk.target, walk.values, now)
            self._answers.keep(walk.target, walk.peers, now)
        return walk.peers

    def _list_peers(self, name: bytes, found: dict[bytes, None], now: float) -> list[bytes]:
        withdrawn = self.own.withdrawn(name, now)
        for peer in self.peers.get(name, now, VALUES_MAX, self._random):
            found[peer] = None
        for port in self.own.ports(name, now):
            # How others see us is better than how we see ourselves.
            tail = port.to_bytes(2, "big")
            if not any(peer.endswith(tail) for peer in found):
                found[pack_address((self.settings.host or _LOOPBACK, port))] = None
        for port in withdrawn:
            for peer in self._own_peers(port):
                found.pop(peer, None)
        if not found:
            return []
        peers = self._random.sample(list(found), min(len(found), VALUES_MAX))
        for peer in peers:
            self._emit("peer", peer)
        return peers

    def announce(self, name: bytes, port: int, done: Callable[[StoreReport], None]) -> None:
        """Announce a port of this host under a name, at the nodes closest to it and here.

        Raises ValueError for an unfit name or port, Busy when too much is under way.
        """
        _check_name(name)
        if not 1 <= port <= 0xFFFF:
            raise ValueError(f"port must be 1..65535, not {port}")
        self._check_busy(name)
        now = self._clock()
        self.own.add(name, port, now)
        self._answers.drop(name)
        if self.settings.host is not None:
            self.peers.announce(name, pack_address((self.settings.host, port)), self.settings.host, now)
            self._emit("announce", name)

        def walked(walk: PeerWalk) -> None:
            self._holders.keep(name, walk.holders(), self._clock())
            self._storing.announce(walk.holders(), name, port, done)

        def told(report: StoreReport) -> None:
            if report.stored and ErrorCode.PROTOCOL not in [code for code, _ in report.refusals]:
                done(report)
            else:  # nodes are gone, or have come back with other tokens
                self._walks.for_peers(name, walked)

        holders = self._holders.get(name, now)
        if holders and not self._walks.suspected(holders):
            self._storing.announce(holders, name, port, told)
        else:
            self._walks.for_peers(name, walked)

    def withdraw(self, name: bytes, port: int) -> bool:
        """End an announce that was made here; returns whether there was one.

        Other nodes have no way to be told: they forget it in time. Look-ups here leave it out from now on.
        """
        now = self._clock()
        if not self.own.withdraw(name, port, now):
            return False
        self._answers.drop(name)
        for peer in self._own_peers(port):
            self.peers.withdraw(name, peer)
        return True

    def _announced(self, name: bytes) -> None:
        """Another node has announced something here."""
        self._answers.drop(name)
        self._emit("announce", name)

    def _own_peers(self, port: int) -> set[bytes]:
        return {pack_address((host, port)) for host in self.own_hosts}

    def put(self, item: Item, cas: int | None, done: Callable[[StoreReport], None]) -> None:
        """As :meth:`ItemAccess.put`. Raises Busy when too much is under way."""
        self._check_busy()
        self._item_access.put(item, cas, done)

    def get(
        self,
        target: bytes,
        done: Callable[[Item | None, Reply | None], None],
        *,
        salt: bytes | None = None,
        cache: bool = True,
    ) -> None:
        """As :meth:`ItemAccess.get`. Raises Busy when too much is under way."""
        self._check_busy()
        self._item_access.get(target, done, salt=salt, cache=cache)

    def _check_busy(self, name: bytes | None = None) -> None:
        if self._walks.full(name):
            raise Busy("too many requests are under way")

    # Datagrams.

    def receive(self, datagram: bytes, address: Address) -> None:
        """Take a datagram. Whatever it is, it raises nothing."""
        now = self._clock()
        proven = address in self.routing.by_address or self._proven.has(address, now)
        counters = self.counters
        counters.received += 1
        if not (proven or self._transactions.expects(address)):
            if len(datagram) > STRANGER_DATAGRAM_BYTES_MAX or not address[1]:
                counters.malformed += 1
                return
            if not self._strangers.allow(address[0], now):
                counters.limited += 1
                return
        try:
            if len(datagram) < DATAGRAM_BYTES_MIN:
                raise MalformedDatagram("too short")
            message = decode(datagram)
        except MalformedDatagram as error:
            counters.malformed += 1
            self._strangers.malformed(address[0], now)
            self._emit("warning", f"{address[0]}:{address[1]}: {error}")
            return
        kind = message.get(b"y")
        if kind == b"r":
            self._on_reply(message, address, now)
        elif kind == b"q":
            counters.queries += 1
            self._on_query(message, address, now, None if proven else len(datagram))
        elif kind == b"e":
            self._on_error(message, address, now)
        else:
            self._emit("warning", f"{address[0]}:{address[1]}: unknown kind of message")

    def _on_query(
        self, message: dict[bytes, Any], address: Address, now: float, stranger_bytes: int | None
    ) -> None:
        """``stranger_bytes``: how long the query was, when its sender has not proved its address."""
        node_id = node_id_of(message.get(b"a"))
        if node_id == self.node_id:
            self._on_echo(message, address, now)
            return
        # BEP 43: a read-only node cannot be asked anything.
        read_only = message.get(b"ro") == 1
        if stranger_bytes is None:
            if is_public(address[0]) and not self._neighbours.allow(address[0], now):
                self.counters.limited += 1
                return
            reply = answer(self._tables, address, message, now)
        else:
            reply = answer(self._tables, address, message, now, STRANGER_NODES_MAX)
            if reply is not None and len(reply) > STRANGER_REPLY_RATIO * stranger_bytes:
                if not read_only:
                    self.counters.deferred += 1
                    self._upkeep.verify(address, message)
                return
        if reply is not None:
            self._send(reply, address)
        if node_id is not None and not read_only and self.routing.heard(node_id, address):
            self._upkeep.verify(address)

    def _on_echo(self, message: dict[bytes, Any], address: Address, now: float) -> None:
        """A query with our own id: our own, when we are one of our bootstrap addresses; or a mirror's."""
        if address in self.bootstrap.addresses:
            taken = self._transactions.take(message.get(b"t"), address, now)
            if taken is not None:
                self.bootstrap.own.add(address)
                done, context = taken
                done(context, None, (0, "this is our own address"))

    def _on_reply(self, message: dict[bytes, Any], address: Address, now: float) -> None:
        taken = self._transactions.take(message.get(b"t"), address, now)
        if taken is None:
            return
        done, context = taken
        reply = message.get(b"r")
        node_id = node_id_of(reply)
        if node_id is None:
            done(context, None, (0, "a reply needs an id"))
            return
        self._upkeep.answered(node_id, address, now)
        done(context, reply, None)
        told = message.get(b"ip")
        if told is not None:
            self._on_own_address(told, address)

    def _on_error(self, message: dict[bytes, Any], address: Address, now: float) -> None:
        taken = self._transactions.take(message.get(b"t"), address, now)
        if taken is None:
            return
        self.counters.refused += 1
        self._upkeep.refused(address, now)
        done, context = taken
        done(context, None, error_of(message))

    # Our own address.

    def _on_own_address(self, told: Any, voter: Address) -> None:
        """Another node says in its reply which address our query came from (BEP 42)."""
        if type(told) is not bytes or len(told) != 6:
            return
        host, _ = unpack_address(told)
        if not is_public(host):
            return
        self._address_votes.add(voter[0], host)
        winner = self._address_votes.winner()
        if winner is None:
            return
        if len(self.own_hosts) < OWN_HOSTS_MAX:
            self.own_hosts.add(winner)
        if self.settings.secure_id and not id_fits(self.node_id, winner):
            self._take_id(make_id(winner, self._random_bytes))

    def _take_id(self, node_id: bytes) -> None:
        """Go on under another id, with the same contacts."""
        self.routing.take_id(node_id, self._clock())
        self._emit("warning", f"the node id is now {node_id.hex()}, as the public address asks for (BEP 42)")
        if not self.bootstrap.under_way:
            self._upkeep.join(self.bootstrap.addresses)

    # Time.

    def _tick(self) -> None:
        self._timer = self._call_later(TICK_S, self._tick)
        now = self._clock()
        for address, done, context in self._transactions.expire(now):
            self.counters.unanswered += 1
            done(context, None, None)
            self._upkeep.unanswered(address, now)
        for done, context in self._transactions.take_doomed():
            done(context, None, None)
        self._walks.hurry(now)
        self._storing.hurry(now)
        self.peers.purge(now)
        self.items.purge(now)
        self._proven.purge(now)
        if len(self._walks) < WALKS_MAX // 2:
            self._item_access.put_again(now)
        self._upkeep.tick(now)


def _check_name(name: bytes) -> None:
    if not 1 <= len(name) <= NAME_BYTES_MAX:
        raise ValueError(f"a name must have 1..{NAME_BYTES_MAX} bytes, not {len(name)}")
