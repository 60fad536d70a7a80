"""BEP 44 items: immutable ones, named by their SHA-1, and mutable ones, signed with ed25519. IO-free.

Unlike the Node Grape's command line, which never verifies and so refuses mutable items, this always verifies.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

from bencode2 import bencode
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .ages import age_s
from .bounds import (
    ITEM_BYTES_MAX,
    ITEM_DEPTH_MAX,
    ITEM_MAX_AGE_S,
    ITEMS_MAX,
    ITEMS_SOURCE_SHARE,
    SALT_BYTES_MAX,
)
from .krpc import ErrorCode, Refusal


@dataclass(frozen=True)
class Item:
    """A value, and the proof of who may change it where it is mutable.

    ``v`` is what bencode carries: bytes, int, list, dict. ``k`` (32 bytes), ``sig`` (64) and ``seq`` are
    set for mutable items; ``salt`` tells apart several items of one key.
    """

    v: Any
    k: bytes | None = None
    sig: bytes | None = None
    seq: int | None = None
    salt: bytes | None = None

    @property
    def mutable(self) -> bool:
        return self.k is not None

    @property
    def target(self) -> bytes:
        """The 20-byte key that the DHT knows it by."""
        if self.k is None:
            return sha1(bencode(self.v)).digest()
        return sha1(self.k + (self.salt or b"")).digest()

    def newer_than(self, other: Item | None) -> bool:
        """Whether it is to be preferred to ``other``, another version of the same item or none."""
        return other is None or (self.seq or 0) > (other.seq or 0)

    def same_version(self, other: Item) -> bool:
        return self.seq == other.seq and self.v == other.v

    def signed_bytes(self) -> bytes:
        """What the signature covers: the bencoded dict of salt (if any), seq and v, without ``d`` and
        ``e``.
        """
        signed: dict[bytes, Any] = {b"seq": self.seq, b"v": self.v}
        if self.salt is not None:
            signed[b"salt"] = self.salt
        return bencode(signed)[1:-1]

    def signature_valid(self) -> bool:
        """Whether ``sig`` is the signature of ``k`` over this item."""
        if self.k is None or self.sig is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(self.k).verify(self.sig, self.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True


def read_item(fields: dict[bytes, Any], salt: bytes | None = None) -> Item:
    """The item in the arguments of a ``put``, or in the reply to a ``get``, whose ``salt`` only the asker
    knows.

    Its signature is not checked here: see ``check_signature``. Raises Refusal: 203 for a missing or mistyped
    field, 205 or 207 for a value or salt that is too big (BEP 44).
    """
    v = fields.get(b"v")
    if v is None or (type(v) is int and v == 0):
        raise Refusal(ErrorCode.PROTOCOL, "missing required `a.v` field")
    check_value(v)
    k, sig = fields.get(b"k"), fields.get(b"sig")
    if k is None and sig is None:
        return Item(v)
    seq = fields.get(b"seq")
    salt = fields.get(b"salt", salt)
    if type(k) is not bytes or len(k) != 32:
        raise Refusal(ErrorCode.PROTOCOL, "`a.k` must be 32 bytes")
    if type(sig) is not bytes or len(sig) != 64:
        raise Refusal(ErrorCode.PROTOCOL, "`a.sig` must be 64 bytes")
    if type(seq) is not int or not 0 <= seq < 2**63:
        raise Refusal(ErrorCode.PROTOCOL, "`a.seq` must be an integer of 63 bits")
    if salt is not None and type(salt) is not bytes:
        raise Refusal(ErrorCode.PROTOCOL, "`a.salt` must be a string")
    if salt is not None and len(salt) > SALT_BYTES_MAX:
        raise Refusal(ErrorCode.SALT_TOO_BIG, "salt too big")
    return Item(v, k, sig, seq, salt)


def check_signature(item: Item) -> None:
    """Raise Refusal 206 for a mutable item that its key did not sign."""
    if item.mutable and not item.signature_valid():
        raise Refusal(ErrorCode.INVALID_SIGNATURE, "invalid signature")


def check_value(v: Any) -> None:
    """Raise Refusal for a value that must not be stored: 205 when too large, 203 when unfit."""
    if type(v) is bytes:
        size = len(v)
    else:
        _check_tree(v, 0)
        size = len(bencode(v))
    if size > ITEM_BYTES_MAX:
        raise Refusal(ErrorCode.VALUE_TOO_BIG, "data payload too large")


def _check_tree(v: Any, depth: int) -> None:
    if depth > ITEM_DEPTH_MAX:
        raise Refusal(ErrorCode.PROTOCOL, "`v` is nested too deeply")
    if type(v) is list:
        for element in v:
            _check_tree(element, depth + 1)
    elif type(v) is dict:
        for key, element in v.items():
            # A Node Grape calls toString() on what it gets, and dies where that is not a function.
            if key == b"toString":
                raise Refusal(ErrorCode.PROTOCOL, "`v` must not have a key `toString`")
            _check_tree(element, depth + 1)
    elif type(v) is int and not -(2**63) <= v < 2**63:
        raise Refusal(ErrorCode.PROTOCOL, "`v` has an integer of more than 64 bits")


def check_version(item: Item, cas: int | None, current: Item) -> None:
    """Raise Refusal unless a mutable item may take the place of ``current``: 301 when that is not the version
    ``cas``, 302 when ``seq`` does not grow.
    """
    if item.seq is None or current.seq is None:
        return
    if cas is not None and current.seq != cas:
        raise Refusal(ErrorCode.CAS_MISMATCH, "CAS mismatch, re-read and try again")
    if item.seq <= current.seq:
        raise Refusal(ErrorCode.SEQ_TOO_OLD, "sequence number less than current")


class ItemStore:
    """The items this node holds for others; the least recently put goes first when there are too many, in
    all or of one source.

    The source of an item is the IP address that put it first, ``None`` for this node itself; who puts it
    again keeps it alive and does not take it over.
    """

    def __init__(self, max_items: int = ITEMS_MAX, max_age_s: float = ITEM_MAX_AGE_S) -> None:
        self._max_items = max_items
        self._max_per_source = max(1, max_items // ITEMS_SOURCE_SHARE)
        self._max_age_s = max_age_s
        # In the order of their last put, which is the order of expiry.
        self._items: OrderedDict[bytes, tuple[float, Item, str | None]] = OrderedDict()
        self._sources: dict[str | None, OrderedDict[bytes, None]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, target: bytes, now: float) -> Item | None:
        self.purge(now)
        found = self._items.get(target)
        return found[1] if found else None

    def put(self, item: Item, cas: int | None, now: float, source: str | None = None) -> None:
        """Store an item that has been checked, put by the IP address ``source``.

        Raises Refusal as ``check_version``. The very same item is refused as Node refuses it, but it lives on
        from now as BEP 44 wants.
        """
        target = item.target
        current = self.get(target, now)
        if current is not None:
            try:
                check_version(item, cas, current)
            except Refusal as refusal:
                if refusal.code == ErrorCode.SEQ_TOO_OLD and item.same_version(current):
                    self._set(target, current, now, source)
                raise
        self._set(target, item, now, source)

    def dump(self, now: float) -> list[tuple[Item, float, str | None]]:
        """All items with the seconds since their last put and their source, the oldest first."""
        return [
            (item, age_s(now, deadline, self._max_age_s), source)
            for deadline, item, source in self._items.values()
        ]

    def restore(self, item: Item, put_at: float, source: str | None) -> None:
        """Take back an item from ``dump``, put at that time."""
        self._set(item.target, item, put_at, source)

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        while self._items:
            target = next(iter(self._items))
            if self._items[target][0] > now:
                return
            self._drop(target)

    def _set(self, target: bytes, item: Item, now: float, source: str | None) -> None:
        known = self._items.get(target)
        if known is not None:
            source = known[2]
            self._drop(target)
        by_source = self._sources.get(source)
        if source is not None and by_source is not None and len(by_source) >= self._max_per_source:
            self._drop(next(iter(by_source)))
        if len(self._items) >= self._max_items:
            self._drop(next(iter(self._items)))
        self._items[target] = now + self._max_age_s, item, source
        self._sources.setdefault(source, OrderedDict())[target] = None

    def _drop(self, target: bytes) -> None:
        _, _, source = self._items.pop(target)
        by_source = self._sources[source]
        del by_source[target]
        if not by_source:
            del self._sources[source]

    def check(self) -> None:
        """Assert what always holds between the two indexes; for tests."""
        assert sorted(target for targets in self._sources.values() for target in targets) == sorted(
            self._items
        )
        assert all(self._sources.values())
        assert len(self._items) <= self._max_items
        for source, targets in self._sources.items():
            assert source is None or len(targets) <= self._max_per_source
            assert all(self._items[target][2] == source for target in targets)
