"""Which of two nodes is closer to a target. IO-free.

``distance`` is k-bucket's, bit for bit; ``key_of`` gives integers whose XOR sorts the same way and faster.
Where Node's doubles round two distances to the same number, Node keeps its order of arrival and the
integers still tell them apart; nowhere else do the two differ.
"""

from __future__ import annotations

from .bounds import ID_BYTES

ID_BITS = ID_BYTES * 8


def distance(a: bytes, b: bytes) -> float:
    """k-bucket/index.js ``KBucket.distance`` as a double; ids of any length, ``inf`` from 129 bytes on."""
    shorter, longer = sorted((len(a), len(b)))
    total = 0.0
    for index in range(shorter):
        total = total * 256 + (a[index] ^ b[index])
    for _ in range(longer - shorter):
        total = total * 256 + 255
    return total


def key_of(target: bytes) -> int:
    """The target as an integer of 160 bits: the first 20 bytes, zeros where it is shorter.

    A node's distance is the XOR with the integer of its id. Bytes beyond the 20 add the same to every
    distance.
    """
    return int.from_bytes(target[:ID_BYTES].ljust(ID_BYTES, b"\0"), "big")
