"""The walks of a node that are under way, and who is not waited for in them. IO-free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .bootstrap import Bootstrap
from .bounds import SUSPECT_S, SUSPECTS_MAX, WAITING_MAX, WALKS_MAX, K
from .counters import Counters
from .krpc import Address
from .lookup import Candidate, PeerWalk, Walk
from .routing import Routing
from .storing import Holders
from .transactions import Reply, Transactions

AnyWalk = TypeVar("AnyWalk", bound=Walk)


class Walks:
    """Begins walks, hands their queries to ``transactions`` and the outcomes back to them.

    Without any contact they begin at the bootstrap addresses.
    """

    def __init__(
        self,
        routing: Routing,
        transactions: Transactions,
        bootstrap: Bootstrap,
        clock: Callable[[], float],
        counters: Counters,
        concurrency: int,
    ) -> None:
        self._routing = routing
        self._transactions = transactions
        self._bootstrap = bootstrap
        self._clock = clock
        self._counters = counters
        self._concurrency = concurrency
        self._under_way: dict[Walk, list[Callable[[Any], None]]] = {}
        self._peer_walks: dict[bytes, PeerWalk] = {}
        # Nodes that let a query time out, and until when they are not waited for; in the order of that time.
        self._suspects: OrderedDict[Address, float] = OrderedDict()

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._under_way)

    def to(self, kind: Callable[..., AnyWalk], target: bytes) -> AnyWalk:
        """A walk from the contacts closest to the target; with none, from the bootstrap addresses."""
        walk = kind(
            target, self._routing.own_id, self._ask, self._ended, self._suspects, K, self._concurrency
        )
        contacts = self._routing.closest(walk.key, K)
        walk.seed(contacts)
        if not contacts:
            for address in self._bootstrap.addresses:
                walk.add(None, address)
        return walk

    def home(self, addresses: Sequence[Address]) -> Walk:
        """A walk to our own id, from these addresses and the contacts closest to it."""
        walk = Walk(self._routing.own_id, self._routing.own_id, self._ask, self._ended)
        for address in addresses:
            walk.add(None, address)
        for contact in self._routing.closest(walk.key, K):
            walk.add(contact.id, contact.address)
        return walk

    def run(self, walk: AnyWalk, done: Callable[[AnyWalk], None]) -> None:
        walk.began = self._clock()
        self._under_way[walk] = [done]
        walk.start()

    def for_peers(self, name: bytes, done: Callable[[PeerWalk], None]) -> None:
        """Walk to those who know the peers of a name; simultaneous walks for one name are one."""
        walk = self._peer_walks.get(name)
        if walk is not None:
            self._under_way[walk].append(done)
        else:
            self._peer_walks[name] = walk = self.to(PeerWalk, name)
            self.run(walk, done)

    def full(self, name: bytes | None = None) -> bool:
        """Whether there are as many walks as may be, or as many callers of the walk for a name."""
        if len(self._under_way) >= WALKS_MAX:
            return True
        return name in self._peer_walks and len(self._under_way[self._peer_walks[name]]) >= WAITING_MAX

    def hurry(self, now: float) -> None:
        """End the wait for those who are too slow; they are suspects for a while."""
        for walk in list(self._under_way):
            for address in walk.hurry(now):
                self.suspect(address, now)
        while self._suspects and next(iter(self._suspects.values())) <= now:
            self._suspects.popitem(last=False)

    def suspect(self, address: Address, now: float) -> None:
        """This node was silent: do not wait for it."""
        self._suspects.pop(address, None)
        self._suspects[address] = now + SUSPECT_S
        if len(self._suspects) > SUSPECTS_MAX:
            self._suspects.popitem(last=False)

    def suspected(self, holders: Holders) -> bool:
        """Whether one of these nodes was silent lately."""
        return bool(self._suspects) and any(address in self._suspects for address, _ in holders)

    def acquit(self, address: Address) -> None:
        """It has answered."""
        if self._suspects:
            self._suspects.pop(address, None)

    def _ended(self, walk: Walk) -> None:
        counters = self._counters
        counters.walks += 1
        counters.walk_seconds += self._clock() - walk.began
        callers = self._under_way.pop(walk)
        if self._peer_walks.get(walk.target) is walk:
            del self._peer_walks[walk.target]
        for done in callers:
            done(walk)

    def _ask(self, walk: Walk, candidate: Candidate) -> None:
        if candidate.suspect and self._transactions.expects(candidate.address):
            return  # one question at a time is enough to learn that it is back
        candidate.asked_at = self._clock()
        self._transactions.query(
            candidate.address,
            walk.method,
            walk.args,
            self._answered,
            (walk, candidate),
            not candidate.suspect,
        )

    def _answered(self, context: Any, reply: Reply | None, error: tuple[int, str] | None) -> None:
        walk, candidate = context
        if reply is None:
            walk.failed(candidate)
        else:
            walk.answered(candidate, reply[b"id"], reply)
