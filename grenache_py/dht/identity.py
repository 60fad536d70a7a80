"""Node ids that belong to a public address (BEP 42), and which address that is. IO-free.

BEP 42 makes it hard to choose an id next to a name: on a public address the first 21 bits follow from the
address. Ids of others are not judged by it, since Node Grapes draw theirs at random.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Address

from .bounds import ADDRESS_VOTERS_MAX, ADDRESS_VOTES_MIN, ID_BYTES

_IP_MASK = 0x030F3FFF


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _crc32c_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), RFC 3720 appendix B.4."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


@lru_cache(4096)
def is_public(host: str) -> bool:
    """Whether an IPv4 address is reachable from everywhere; BEP 42 leaves the others alone."""
    return IPv4Address(host).is_global


def _prefix(host: str, seed: int) -> int:
    """The first 21 bits of ids at this address, for a seed of 0..7."""
    masked = int(IPv4Address(host)) & _IP_MASK | seed << 29
    return crc32c(masked.to_bytes(4, "big")) >> 11


def id_fits(node_id: bytes, host: str) -> bool:
    """Whether an id follows BEP 42 at a public address; true for every id at any other."""
    if not is_public(host):
        return True
    return int.from_bytes(node_id[:3], "big") >> 3 == _prefix(host, node_id[-1] & 7)


def make_id(host: str | None, random_bytes: Callable[[int], bytes]) -> bytes:
    """A random id; one that follows BEP 42 where ``host`` is a public address."""
    drawn = bytearray(random_bytes(ID_BYTES))
    if host is not None and is_public(host):
        first = _prefix(host, drawn[-1] & 7) << 3 | drawn[2] & 7
        drawn[:3] = first.to_bytes(3, "big")
    return bytes(drawn)


class AddressVotes:
    """What other nodes say our address is (``ip`` in their replies, BEP 42); one vote for each of theirs."""

    def __init__(self) -> None:
        self._votes: OrderedDict[str, str] = OrderedDict()

    def add(self, voter: str, told: str) -> None:
        """``voter``, an address that answered a query of ours, says that we are at ``told``."""
        self._votes.pop(voter, None)
        self._votes[voter] = told
        if len(self._votes) > ADDRESS_VOTERS_MAX:
            self._votes.popitem(last=False)

    def winner(self) -> str | None:
        """The address that most agree on, once they are enough and more than half."""
        if not self._votes:
            return None
        told, count = Counter(self._votes.values()).most_common(1)[0]
        return told if count >= ADDRESS_VOTES_MIN and 2 * count > len(self._votes) else None
