"""The routing table: ``kademlia``'s buckets behind an interface that needs no clock, socket or event loop.

Taken from kademlia are the buckets, their splitting and their replacement lists. Not its ``add_contact``,
which schedules a ping on asyncio where this table tells its caller whom to ping; nor its search for a
bucket, which misses an id at the end of a range; nor ``find_neighbors``, which goes left and right in turn
instead of by distance.

Only nodes that answered a query of ours are in the table. One that asked us something, such as a node that
bootstraps here, is pinged, and so enters a round trip later.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from operator import attrgetter
from random import Random

from kademlia.routing import KBucket, RoutingTable

from .bounds import CONTACTS_PER_HOST, FAILURES_MAX, PING_BEFORE_EVICT_S, K
from .distance import ID_BITS, key_of
from .identity import is_public
from .krpc import Address, pack_address

_seen = attrgetter("seen")


class Contact:
    """A node of the DHT. ``id`` and ``long_id`` are what kademlia's buckets ask of it."""

    __slots__ = ("address", "compact", "failures", "id", "long_id", "seen")

    def __init__(self, node_id: bytes, address: Address, now: float) -> None:
        self.id = node_id
        self.long_id = int.from_bytes(node_id, "big")
        self.address = address
        self.compact = node_id + pack_address(address)
        #: when it last answered us, on the node's clock; its own queries may be forged and count for nothing
        self.seen = now
        #: queries in a row that it left unanswered
        self.failures = 0

    def __repr__(self) -> str:
        host, port = self.address
        return f"<Contact {self.id.hex()[:8]} {host}:{port}>"


class Routing:
    """Contacts by id and by address, in buckets of ``k``; only the bucket of the own id splits."""

    def __init__(self, own_id: bytes, now: float, k: int = K) -> None:
        self.k = k
        self._begin(own_id, now)

    def _begin(self, own_id: bytes, now: float) -> None:
        self.own_id = own_id
        self.by_id: dict[bytes, Contact] = {}
        self.by_address: dict[Address, Contact] = {}
        own = Contact(own_id, ("0.0.0.0", 0), now)
        self._table = RoutingTable(None, self.k, own)
        # Inclusive ends that are powers of two less one, unlike kademlia's first bucket: each is a true
        # prefix.
        self._table.buckets = [KBucket(0, 2**ID_BITS - 1, self.k)]
        self._tops = [2**ID_BITS - 1]
        self._refreshed = {0: now}

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[Contact]:
        return iter(list(self.by_id.values()))

    def take_id(self, own_id: bytes, now: float) -> None:
        """Go on under another id, with the same contacts."""
        contacts = list(self)
        self._begin(own_id, now)
        for contact in contacts:
            self.answered(contact.id, contact.address, now)

    def closest(self, target_key: int, count: int) -> list[Contact]:
        """Exactly the ``count`` contacts closest to a target (as ``key_of`` gives it), the closest first."""
        found: list[Contact]
        if len(self.by_id) <= count:
            found = list(self.by_id.values())
            if len(found) < 2:
                return found
        else:
            found = []
            # Every bucket is a prefix, so the distances of one lie wholly before or after those of another.
            for bucket in sorted(self._table.buckets, key=lambda bucket: target_key ^ bucket.range[0]):
                found += bucket.nodes.values()
                if len(found) >= count:
                    break
        found.sort(key=lambda contact: target_key ^ contact.long_id)
        return found[:count]

    def heard(self, node_id: bytes, address: Address) -> bool:
        """A query came from there. Returns whether the node should be pinged, so that it can enter."""
        known = self.by_address.get(address)
        if known is not None and known.id == node_id:
            return known.failures > 0
        if node_id == self.own_id:
            return False
        # Someone else at a known address, or a known id elsewhere: the ping tells who is there, and until
        # then nothing is given up. A full bucket is not worth a ping.
        return known is not None or node_id in self.by_id or self._has_room(node_id)

    def answered(self, node_id: bytes, address: Address, now: float) -> tuple[bool, Contact | None]:
        """A query of ours was answered from there.

        Returns whether the contact is new, or as good as new because it was thought dead, and a
        contact to ping before it may be evicted from a full bucket, if there is one.
        """
        known = self.by_address.get(address)
        if known is not None:
            if known.id == node_id:
                known.seen = now
                back = known.failures > 0
                known.failures = 0
                return back, None
            # A node that came back with another id: the old one is gone.
            self.remove(known)
        if node_id == self.own_id:
            return False, None
        elsewhere = self.by_id.get(node_id)
        if elsewhere is not None:
            if not elsewhere.failures:
                # The same id at two addresses: the one that is known to answer stays unless it stops to.
                return False, elsewhere if now - elsewhere.seen > PING_BEFORE_EVICT_S else None
            self.remove(elsewhere)
        while address in self.by_address:  # what came up from a replacement list may be older still
            self.remove(self.by_address[address])
        if self._crowded(address[0]):
            return False, None
        contact = Contact(node_id, address, now)
        oldest = self._add(contact, now)
        return node_id in self.by_id, oldest

    def failed(self, address: Address) -> Contact | None:
        """A query to there went unanswered. Returns the contact if it should be pinged once more."""
        contact = self.by_address.get(address)
        if contact is None:
            return None
        contact.failures += 1
        if contact.failures >= FAILURES_MAX:
            self.remove(contact)
            return None
        return contact

    def remove(self, contact: Contact) -> None:
        """Drop a contact; one from its bucket's replacement list takes its place."""
        if self.by_id.get(contact.id) is not contact:
            return
        del self.by_id[contact.id]
        del self.by_address[contact.address]
        bucket = self._bucket_of(contact.long_id)
        bucket.remove_node(contact)
        self._adopt(bucket)

    def silent(self, now: float, longer_than_s: float, count: int) -> list[Contact]:
        """Up to ``count`` contacts that have not answered for so long, the longest first."""
        found = [contact for contact in self.by_id.values() if now - contact.seen > longer_than_s]
        found.sort(key=_seen)
        return found[:count]

    def refresh_target(self, now: float, older_than_s: float, random: Random) -> bytes | None:
        """A random id in a bucket that was not refreshed for so long, which counts as refreshed now."""
        for bucket in self._table.buckets:
            low, high = bucket.range
            if now - self._refreshed[low] > older_than_s:
                self._refreshed[low] = now
                return random.randint(low, high).to_bytes(ID_BITS // 8, "big")
        return None

    def _add(self, contact: Contact, now: float) -> Contact | None:
        """Put a new contact into its bucket; returns whom to ping when the bucket is full."""
        while True:
            index = bisect_left(self._tops, contact.long_id)
            bucket = self._table.buckets[index]
            # kademlia leaves an earlier self on the replacement list, from where it would come back.
            bucket.replacement_nodes.pop(contact.id, None)
            if bucket.add_node(contact):
                self.by_id[contact.id] = contact
                self.by_address[contact.address] = contact
                return None
            if not bucket.has_in_range(self._table.node):
                break
            bucket.replacement_nodes.pop(contact.id)
            self._table.split_bucket(index)
            halves = self._table.buckets[index : index + 2]
            self._tops = [half.range[1] for half in self._table.buckets]
            self._refreshed[halves[1].range[0]] = self._refreshed[halves[0].range[0]]
            for half in halves:
                self._adopt(half)
        oldest: Contact = min(bucket.nodes.values(), key=_seen)
        return oldest if now - oldest.seen > PING_BEFORE_EVICT_S else None

    def _adopt(self, bucket: KBucket) -> None:
        """Index the contacts that moved up from the replacement list, unless something newer has their
        address.
        """
        for contact in list(bucket.nodes.values()):
            if contact.id in self.by_id:
                continue
            if contact.address in self.by_address or self._crowded(contact.address[0]):
                del bucket.nodes[contact.id]
            else:
                self.by_id[contact.id] = contact
                self.by_address[contact.address] = contact

    def _crowded(self, host: str) -> bool:
        """Whether there are as many contacts at a public IP address as may be."""
        if not is_public(host):
            return False
        return sum(known == host for known, _ in self.by_address) >= CONTACTS_PER_HOST

    def _bucket_of(self, long_id: int) -> KBucket:
        return self._table.buckets[bisect_left(self._tops, long_id)]

    def _has_room(self, node_id: bytes) -> bool:
        bucket = self._bucket_of(key_of(node_id))
        return len(bucket) < self.k or bool(bucket.has_in_range(self._table.node))

    def check(self) -> None:
        """Assert what always holds between buckets and indexes; for tests."""
        in_buckets = [contact for bucket in self._table.buckets for contact in bucket.nodes.values()]
        assert sorted(contact.id for contact in in_buckets) == sorted(self.by_id)
        assert {contact.address for contact in in_buckets} == set(self.by_address)
        assert all(self.by_id[contact.id] is contact for contact in in_buckets)
        assert len(self.by_id) == len(self.by_address)
        assert self.own_id not in self.by_id
        assert self._tops == [bucket.range[1] for bucket in self._table.buckets]
        edge = 0
        for bucket in self._table.buckets:
            low, high = bucket.range
            assert low == edge
            assert low in self._refreshed
            edge = high + 1
            assert len(bucket) <= self.k
            assert all(low <= contact.long_id <= high for contact in bucket.nodes.values())
        assert edge == 2**ID_BITS
