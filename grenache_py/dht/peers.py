"""The peers that were announced to this node, per name, until they expire. IO-free.

In place of record-cache in a Node Grape; a peer lives exactly ``max_age_s`` after its last announce.
"""

from __future__ import annotations

from collections import OrderedDict
from random import Random

from .ages import age_s
from .bounds import (
    PEER_MAX_AGE_S,
    PEERS_MAX,
    PEERS_PER_NAME_MAX,
    PEERS_PER_SOURCE_MAX,
)

_Record = tuple[bytes, bytes]  # name, compact peer


class PeerStore:
    """Compact peers (IPv4, port) by name; bounded in all, per name and per announcing address.

    Each bound drops the oldest announce under it, so one announcer or one name cannot push out the others.
    """

    def __init__(
        self,
        max_age_s: float = PEER_MAX_AGE_S,
        *,
        max_peers: int = PEERS_MAX,
        max_per_name: int = PEERS_PER_NAME_MAX,
        max_per_source: int = PEERS_PER_SOURCE_MAX,
    ) -> None:
        self.max_age_s = max_age_s
        self._max_peers = max_peers
        self._max_per_name = max_per_name
        self._max_per_source = max_per_source
        # All in the order of their last announce, which with one age for all is the order of expiry.
        self._expiry: OrderedDict[_Record, tuple[float, str]] = OrderedDict()
        self._names: dict[bytes, OrderedDict[bytes, None]] = {}
        self._sources: dict[str, OrderedDict[_Record, None]] = {}

    def __len__(self) -> int:
        return len(self._expiry)

    @property
    def names(self) -> int:
        """How many names have peers."""
        return len(self._names)

    def announce(self, name: bytes, peer: bytes, source: str, now: float) -> None:
        """Store a peer, or renew it. ``source`` is the IP address of who announced it."""
        record = name, peer
        known = self._expiry.get(record)
        if known is not None and known[1] == source:
            self._expiry[record] = now + self.max_age_s, source
            self._expiry.move_to_end(record)
            self._names[name].move_to_end(peer)
            self._sources[source].move_to_end(record)
            return
        self.purge(now)
        self._drop(record)
        by_source = self._sources.get(source)
        if by_source is not None and len(by_source) >= self._max_per_source:
            self._drop(next(iter(by_source)))
        by_name = self._names.get(name)
        if by_name is not None and len(by_name) >= self._max_per_name:
            self._drop((name, next(iter(by_name))))
        if len(self._expiry) >= self._max_peers:
            self._drop(next(iter(self._expiry)))
        self._expiry[record] = now + self.max_age_s, source
        self._names.setdefault(name, OrderedDict())[peer] = None
        self._sources.setdefault(source, OrderedDict())[record] = None

    def withdraw(self, name: bytes, peer: bytes) -> None:
        """Forget a peer; nothing happens when it is not known."""
        self._drop((name, peer))

    def get(self, name: bytes, now: float, limit: int, random: Random) -> list[bytes]:
        """The peers of a name; a random ``limit`` of them when there are more."""
        if name not in self._names:
            return []
        self.purge(now)
        found = self._names.get(name)
        if found is None:
            return []
        return list(found) if len(found) <= limit else random.sample(list(found), limit)

    def dump(self, now: float) -> list[tuple[bytes, bytes, str, float]]:
        """All records as (name, peer, source, seconds since the last announce), the oldest first."""
        return [
            (name, peer, source, age_s(now, deadline, self.max_age_s))
            for (name, peer), (deadline, source) in self._expiry.items()
        ]

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        while self._expiry:
            record = next(iter(self._expiry))
            if self._expiry[record][0] > now:
                return
            self._drop(record)

    def _drop(self, record: _Record) -> None:
        known = self._expiry.pop(record, None)
        if known is None:
            return
        name, peer = record
        by_name = self._names[name]
        del by_name[peer]
        if not by_name:
            del self._names[name]
        source = known[1]
        by_source = self._sources[source]
        del by_source[record]
        if not by_source:
            del self._sources[source]

    def check(self) -> None:
        """Assert what always holds between the three indexes; for tests."""
        assert {(name, peer) for name, peers in self._names.items() for peer in peers} == set(self._expiry)
        assert {record for records in self._sources.values() for record in records} == set(self._expiry)
        assert all(self._names.values())
        assert all(self._sources.values())
        assert len(self._expiry) <= self._max_peers
        assert all(len(peers) <= self._max_per_name for peers in self._names.values())
        assert all(len(records) <= self._max_per_source for records in self._sources.values())
        deadlines = [deadline for deadline, _ in self._expiry.values()]
        assert deadlines == sorted(deadlines)
