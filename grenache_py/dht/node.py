"""A node of the DHT: BEP 5 and BEP 44 as Node Grapes speak them. IO-free.

It is given ``send``, ``clock``, ``call_later`` and randomness, and is told of datagrams by ``receive``; so
it runs on a socket (udp.py) and in a simulation alike. Results come by plain callbacks: no task or future
per query, and one coarse timer for everything that is limited in time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Protocol, TypeVar

from .announces import OwnAnnounces
from .answers import Answers
from .bootstrap import Bootstrap
from .bounds import (
    DATAGRAM_BYTES_MIN,
    ID_BYTES,
    NAME_BYTES_MAX,
    QUERY_TIMEOUT_S,
    REFRESH_S,
    REPUBLISHED_PER_TICK,
    STRANGER_DATAGRAM_BYTES_MAX,
    STRANGER_NODES_MAX,
    STRANGER_REPLY_RATIO,
    SUSPECT_S,
    SUSPECTS_MAX,
    TICK_S,
    VALUES_MAX,
    VERIFYING_MAX,
    WAITING_MAX,
    WALKS_MAX,
    WELCOMES_PER_TICK,
    K,
)
from .counters import Counters
from .distance import key_of
from .identity import AddressVotes, id_fits, is_public, make_id
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
from .lookup import Candidate, ItemWalk, PeerWalk, TokenWalk, Walk
from .peers import PeerStore
from .proven import Proven
from .ratelimit import RateLimiter
from .republish import OwnItems
from .routing import Contact, Routing
from .server import Tables, answer
from .settings import DhtSettings
from .storing import HolderCache, Holders, Store, StoreReport
from .tokens import Tokens
from .transactions import Reply, Transactions

# Under which a look-up lists what was announced here while nobody else tells our address.
_LOOPBACK = "127.0.0.1"
_PINGS_PER_TICK = 8
_OWN_HOSTS_MAX = 8
_BUSY = "too many requests are under way"


class Busy(Exception):
    """More walks at once than this node takes on."""


class Timer(Protocol):
    def cancel(self) -> None: ...


AnyWalk = TypeVar("AnyWalk", bound=Walk)


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
        self.node_id = node_id or make_id(self.settings.host, random_bytes)
        self._clock = clock
        self._call_later = call_later
        self._random = random
        self._random_bytes = random_bytes
        self._emit = emit
        now = clock()
        self.routing = Routing(self.node_id, now)
        self.peers = PeerStore(self.settings.peer_max_age_s)
        self.items = ItemStore(self.settings.max_items)
        self.own = OwnAnnounces(self.settings.peer_max_age_s)
        self.own_items = OwnItems(self.settings.max_items)
        #: our own IP addresses, as far as they are known
        self.own_hosts = {_LOOPBACK} if self.settings.host is None else {_LOOPBACK, self.settings.host}
        self.tokens = Tokens(random_bytes, now)
        self._proven = Proven()
        self._address_votes = AddressVotes()
        self.counters = Counters()
        self.ready = False
        self._tables = Tables(
            self.node_id,
            self.routing,
            self.tokens,
            self.peers,
            self.items,
            self._proven,
            random,
            self._announced,
        )
        self._transactions = Transactions(send, clock, random)
        self._strangers = RateLimiter()
        self._send = send
        # Nodes that let a query time out, and until when they are not waited for; in the order of that time.
        self._suspects: OrderedDict[Address, float] = OrderedDict()
        # Whom we ping, and the query that waits for the pong because its answer is long.
        self._verifying: dict[Address, dict[bytes, Any] | None] = {}
        self._walks: dict[Walk, Callable[[Any], None]] = {}
        self._peer_walks: dict[bytes, list[Callable[[PeerWalk], None]]] = {}
        self._answers = Answers(random)
        self._lookups: dict[bytes, list[Callable[[list[bytes]], None]]] = {}
        self._holders = HolderCache(self.settings.max_tables)
        self._stores: dict[Store, None] = {}
        self.bootstrap = Bootstrap(random)
        self._timer: Timer | None = None

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
        earlier life are asked this once.
        """
        self._tick()
        self.bootstrap.addresses = list(bootstrap)
        self._join([*bootstrap, *contacts])

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
        callers = self._lookups.get(name)
        if callers is not None:
            if len(callers) >= WAITING_MAX:
                raise Busy(_BUSY)
            callers.append(done)
            return
        self._check_busy(name)
        self._lookups[name] = [done]
        self._walk_peers(name, self._looked_up)

    def _looked_up(self, walk: PeerWalk) -> None:
        callers = self._lookups.pop(walk.target, None)
        if callers is not None:
            peers = self._peers_of(walk.target, walk)
            self._answers.keep(walk.target, peers, self._clock())
            for done in callers:
                done(peers)

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
            self._announce_to(walk.holders(), name, port, done)

        def told(report: StoreReport) -> None:
            if report.stored and ErrorCode.PROTOCOL not in [code for code, _ in report.refusals]:
                done(report)
            else:  # nodes are gone, or have come back with other tokens
                self._walk_peers(name, walked)

        holders = self._holders.get(name, now)
        if holders and not any(address in self._suspects for address, _ in holders):
            self._announce_to(holders, name, port, told)
        else:
            self._walk_peers(name, walked)

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
        """Store an item (checked before) at the nodes closest to it; an immutable one here too, as Node does.

        Raises Busy when too much is under way.
        """
        self._check_busy()

        def told(report: StoreReport) -> None:
            if report.stored or not item.mutable:  # what was refused must not be tried again behind its back
                self.own_items.add(item, self._clock())
            done(report)

        self._put(item, cas, told)

    def _put(self, item: Item, cas: int | None, done: Callable[[StoreReport], None]) -> None:
        args: dict[bytes, Any] = {b"id": self.node_id, b"v": item.v}
        if item.mutable:
            args |= {b"k": item.k, b"seq": item.seq, b"sig": item.sig}
            if item.salt:
                args[b"salt"] = item.salt
            if cas is not None:
                args[b"cas"] = cas
        else:
            self.items.put(item, None, self._clock())

        walk = self._walk_to(TokenWalk, item.target)
        self._run(walk, lambda walk: self._store(walk.holders(), b"put", args, done))

    def get(
        self,
        target: bytes,
        done: Callable[[Item | None, Reply | None], None],
        *,
        salt: bytes | None = None,
        cache: bool = True,
    ) -> None:
        """Find an item: here, unless ``cache`` is false, or in the DHT; with the reply that brought it.

        Raises Busy when too much is under way.
        """
        self._check_busy()
        stored = self.items.get(target, self._clock()) if cache else None
        if stored is not None:
            done(stored, None)
            return
        walk = self._walk_to(ItemWalk, target)
        walk.salt = salt
        self._run(walk, lambda walk: done(walk.item, walk.reply))

    def _check_busy(self, name: bytes = b"") -> None:
        if len(self._walks) >= WALKS_MAX or len(self._peer_walks.get(name, ())) >= WAITING_MAX:
            raise Busy(_BUSY)

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
            self._on_echo(message, address)
            return
        # BEP 43: a read-only node cannot be asked anything.
        read_only = message.get(b"ro") == 1
        if stranger_bytes is None:
            reply = answer(self._tables, address, message, now)
        else:
            reply = answer(self._tables, address, message, now, STRANGER_NODES_MAX)
            if reply is not None and len(reply) > STRANGER_REPLY_RATIO * stranger_bytes:
                if not read_only:
                    self.counters.deferred += 1
                    self._verify(address, message)
                return
        if reply is not None:
            self._send(reply, address)
        if node_id is not None and not read_only and self.routing.heard(node_id, address):
            self._verify(address)

    def _on_echo(self, message: dict[bytes, Any], address: Address) -> None:
        """A query with our own id: our own, when we are one of our bootstrap addresses; or a mirror's."""
        if address in self.bootstrap.addresses:
            taken = self._transactions.take(message.get(b"t"), address)
            if taken is not None:
                self.bootstrap.own.add(address)
                done, context = taken
                done(context, None, (0, "this is our own address"))

    def _on_reply(self, message: dict[bytes, Any], address: Address, now: float) -> None:
        taken = self._transactions.take(message.get(b"t"), address)
        if taken is None:
            return
        done, context = taken
        reply = message.get(b"r")
        node_id = node_id_of(reply)
        if node_id is None:
            done(context, None, (0, "a reply needs an id"))
            return
        self._suspects.pop(address, None)
        fresh, oldest = self.routing.answered(node_id, address, now)
        if address not in self.routing.by_address:
            self._proven.add(address, now)
        if oldest is not None:
            self._verify(oldest.address)
        if fresh:
            self._welcome(self.routing.by_address[address], now)
        done(context, reply, None)
        told = message.get(b"ip")
        if told is not None:
            self._on_own_address(told, address)

    def _on_error(self, message: dict[bytes, Any], address: Address, now: float) -> None:
        taken = self._transactions.take(message.get(b"t"), address)
        if taken is None:
            return
        self.counters.refused += 1
        # Refusing is a sign of life too.
        contact = self.routing.by_address.get(address)
        if contact is not None:
            contact.seen = now
            contact.failures = 0
            self._suspects.pop(address, None)
        done, context = taken
        done(context, None, error_of(message))

    # Contacts.

    def _verify(self, address: Address, waiting: dict[bytes, Any] | None = None) -> None:
        """Ping, once at a time; what comes of it is seen to where every reply and every silence is.

        A query that is ``waiting`` is answered after the pong.
        """
        if address in self._verifying:
            if waiting is not None:
                self._verifying[address] = waiting
        elif len(self._verifying) < VERIFYING_MAX:
            self._verifying[address] = waiting
            self._transactions.query(address, b"ping", {b"id": self.node_id}, self._pinged, address)

    def _pinged(self, address: Address, reply: Reply | None, error: tuple[int, str] | None) -> None:
        waiting = self._verifying.pop(address, None)
        if waiting is not None and (reply is not None or error is not None):
            now = self._clock()
            self._proven.add(address, now)
            self._on_query(waiting, address, now, None)

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
        if len(self.own_hosts) < _OWN_HOSTS_MAX:
            self.own_hosts.add(winner)
        if self.settings.secure_id and not id_fits(self.node_id, winner):
            self._take_id(make_id(winner, self._random_bytes))

    def _take_id(self, node_id: bytes) -> None:
        """Go on under another id, with the same contacts."""
        now = self._clock()
        contacts = list(self.routing)
        self.node_id = self._tables.own_id = node_id
        self.routing = self._tables.routing = Routing(node_id, now)
        for contact in contacts:
            self.routing.answered(contact.id, contact.address, now)
        self._emit("warning", f"the node id is now {node_id.hex()}, as the public address asks for (BEP 42)")
        if not self.bootstrap.under_way:
            self._join(self.bootstrap.addresses)

    def _welcome(self, contact: Contact, now: float) -> None:
        """A node is new, or back: it may be one that own announces belong to."""
        self._emit("node", contact)
        self.own.welcome(contact.address, now)

    def _tell_own_announce(self, context: Any, reply: Reply | None, error: tuple[int, str] | None) -> None:
        address, name, port = context
        token = reply.get(b"token") if reply is not None else None
        if type(token) is bytes:
            self._announce_to([(address, token)], name, port, lambda report: None)

    # Walks.

    def _walk_peers(self, name: bytes, done: Callable[[PeerWalk], None]) -> None:
        """Simultaneous walks for one name are one."""
        waiting = self._peer_walks.get(name)
        if waiting is not None:
            waiting.append(done)
            return
        self._peer_walks[name] = [done]
        self._run(self._walk_to(PeerWalk, name), self._peers_walked)

    def _peers_walked(self, walk: PeerWalk) -> None:
        for done in self._peer_walks.pop(walk.target):
            done(walk)

    def _peers_of(self, name: bytes, walk: PeerWalk) -> list[bytes]:
        now = self._clock()
        found = walk.values
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

    def _walk_to(self, kind: Callable[..., AnyWalk], target: bytes) -> AnyWalk:
        """A walk from the contacts closest to the target; with none, from the bootstrap addresses."""
        walk = kind(
            target, self.node_id, self._ask, self._walked, self._suspects, K, self.settings.concurrency
        )
        contacts = self.routing.closest(walk.key, K)
        walk.seed(contacts)
        if not contacts:
            for address in self.bootstrap.addresses:
                walk.add(None, address)
        return walk

    def _run(self, walk: AnyWalk, done: Callable[[AnyWalk], None]) -> None:
        walk.began = self._clock()
        self._walks[walk] = done
        walk.start()

    def _walked(self, walk: Walk) -> None:
        self.counters.walks += 1
        self.counters.walk_seconds += self._clock() - walk.began
        self._walks.pop(walk)(walk)

    def _ask(self, walk: Walk, candidate: Candidate) -> None:
        if candidate.suspect and self._transactions.expects(candidate.address):
            return  # one question at a time is enough to learn that it is back
        candidate.asked_at = self._clock()
        self._transactions.query(
            candidate.address, walk.method, walk.args, self._walk_answered, (walk, candidate)
        )

    def _walk_answered(self, context: Any, reply: Reply | None, error: tuple[int, str] | None) -> None:
        walk, candidate = context
        if reply is None:
            walk.failed(candidate)
        else:
            walk.answered(candidate, reply[b"id"], reply)

    # Storing at others.

    def _announce_to(
        self, holders: Holders, name: bytes, port: int, done: Callable[[StoreReport], None]
    ) -> None:
        args = {b"id": self.node_id, b"implied_port": 0, b"info_hash": name, b"port": port}
        self._store(holders, b"announce_peer", args, done)

    def _store(
        self,
        holders: Holders,
        method: bytes,
        args: dict[bytes, Any],
        done: Callable[[StoreReport], None],
    ) -> None:
        store = Store(len(holders), self._clock(), self._stores, done)
        for address, token in holders:
            self._transactions.query(address, method, {**args, b"token": token}, store.told, None)

    # Time.

    def _tick(self) -> None:
        self._timer = self._call_later(TICK_S, self._tick)
        now = self._clock()
        for address, done, context in self._transactions.expire(now):
            self.counters.unanswered += 1
            done(context, None, None)
            self._unanswered(address, now)
        for done, context in self._transactions.take_doomed():
            done(context, None, None)
        for walk in list(self._walks):
            for address in walk.hurry(now):
                self._suspect(address, now)
        for store in list(self._stores):
            store.hurry(now)
        while self._suspects and next(iter(self._suspects.values())) <= now:
            self._suspects.popitem(last=False)
        self.peers.purge(now)
        self.items.purge(now)
        self._proven.purge(now)
        self._keep_up(now)

    def _suspect(self, address: Address, now: float) -> None:
        self._suspects.pop(address, None)
        self._suspects[address] = now + SUSPECT_S
        if len(self._suspects) > SUSPECTS_MAX:
            self._suspects.popitem(last=False)

    def _unanswered(self, address: Address, now: float) -> None:
        contact = self.routing.by_address.get(address)
        if contact is not None and now - contact.seen < QUERY_TIMEOUT_S:
            return  # it has answered other queries meanwhile: a datagram was lost
        self._suspect(address, now)
        # Many queries may end in silence at once; then the ping after the first of them decides.
        if address not in self._verifying and self.routing.failed(address) is not None:
            self._verify(address)

    def _keep_up(self, now: float) -> None:
        """Ping the silent, refresh old buckets, tell newcomers what we announced, rejoin when alone."""
        for contact in self.routing.silent(now, self.settings.node_liveness_s, _PINGS_PER_TICK):
            self._verify(contact.address)
        for address, (name, port) in self.own.take_welcomes(WELCOMES_PER_TICK, now):
            newcomer = self.routing.by_address.get(address)
            if newcomer in self.routing.closest(key_of(name), K):
                args = {b"id": self.node_id, b"info_hash": name}
                self._transactions.query(
                    address, b"get_peers", args, self._tell_own_announce, (address, name, port)
                )
        if len(self._walks) < WALKS_MAX // 2:
            for item in self.own_items.take_due(now, REPUBLISHED_PER_TICK):
                self._republish(item)
        if self.routing and len(self._walks) < WALKS_MAX:
            target = self.routing.refresh_target(now, REFRESH_S, self._random)
            if target is not None:
                self._run(self._walk_to(Walk, target), lambda walk: None)
        missing = self.bootstrap.missing(now, self.routing.by_address)
        if missing:
            self._join(missing)

    def _republish(self, item: Item) -> None:
        def told(report: StoreReport) -> None:
            if ErrorCode.SEQ_TOO_OLD in [code for code, _ in report.refusals] and not report.stored:
                # The very same one is refused too where it is still held, so look who has a newer one.
                walk = self._walk_to(ItemWalk, item.target)
                walk.salt = item.salt
                self._run(walk, found)

        def found(walk: ItemWalk) -> None:
            if walk.item is not None and (walk.item.seq or 0) > (item.seq or 0):
                self.own_items.drop(item.target)

        self._put(item, None, told)

    def _join(self, addresses: Sequence[Address]) -> None:
        """Walk to our own id, starting at these addresses."""
        self.bootstrap.under_way = True
        walk = Walk(self.node_id, self.node_id, self._ask, self._walked)
        for address in addresses:
            walk.add(None, address)
        for contact in self.routing.closest(key_of(self.node_id), K):
            walk.add(contact.id, contact.address)
        self._run(walk, self._joined)

    def _joined(self, walk: Walk) -> None:
        self.bootstrap.ended(self._clock(), alone=not self.routing)
        if not self.ready:
            self.ready = True
            self._emit("ready", None)


def _check_name(name: bytes) -> None:
    if not 1 <= len(name) <= NAME_BYTES_MAX:
        raise ValueError(f"a name must have 1..{NAME_BYTES_MAX} bytes, not {len(name)}")
