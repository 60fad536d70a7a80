"""Signed values: BEP 44 items as a caller of a Grape makes and checks them. IO-free.

A Grape tells values as text (``String(value)`` of JavaScript), so what is checked here is the text or, for
digits, the integer that it may stand for.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha1
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .dht.items import Item as DhtItem
from .errors import ArgumentError, GrapeReplyError
from .grape_api import Item

#: 32 bytes, the seed of an ed25519 key (RFC 8032), or the key itself
SecretKey = bytes | Ed25519PrivateKey


class Signer:
    """Signs the versions of one mutable item: that of a key and a salt. Raises ArgumentError."""

    def __init__(self, key: SecretKey, salt: bytes | None = None) -> None:
        if isinstance(key, bytes):
            if len(key) != 32:
                raise ArgumentError("key", f"must be 32 bytes, not {len(key)}")
            key = Ed25519PrivateKey.from_private_bytes(key)
        elif not isinstance(key, Ed25519PrivateKey):
            raise ArgumentError("key", f"must be 32 bytes or an Ed25519PrivateKey, not {type(key).__name__}")
        if salt is not None and (not isinstance(salt, bytes) or not 1 <= len(salt) <= 64):
            raise ArgumentError("salt", "must be 1 to 64 bytes")
        self._key = key
        self._salt = salt
        self.k = key.public_key().public_bytes_raw()

    @property
    def hash(self) -> str:
        """Under which ``get`` finds the item: 40 hex digits."""
        return sha1(self.k + (self._salt or b"")).hexdigest()

    def sign(self, value: str, seq: int) -> bytes:
        """The signature, 64 bytes, for a ``put`` of this text with ``k`` and ``seq``."""
        item = DhtItem(value.encode("utf-8", "surrogatepass"), self.k, None, seq, self._salt)
        return self._key.sign(item.signed_bytes())


def next_version(newest: Item | None, cas: int | None) -> tuple[int, int | None]:
    """``seq`` and ``cas`` of the version after ``newest``: nobody else's version in between is lost."""
    if newest is None or newest.seq is None:
        return 1, cas
    return newest.seq + 1, newest.seq if cas is None else cas


def check_item(item: Item, hash: str, salt: bytes | None, grape: str) -> None:
    """Raise GrapeReplyError unless ``item`` is what ``hash`` stands for, and signed where it is mutable."""
    values: list[Any] = [item.value.encode("utf-8", "surrogatepass")]
    if item.value.lstrip("-").isdecimal() and item.value.isascii() and len(item.value) <= 20:
        values.append(int(item.value))
    target = bytes.fromhex(hash)
    for value in values:
        candidate = DhtItem(value)
        if candidate.target == target:
            return
        candidate = replace(candidate, k=item.k, sig=item.sig, seq=item.seq, salt=salt)
        told = item.k is not None and item.seq is not None
        if told and candidate.target == target and candidate.signature_valid():
            return
    raise GrapeReplyError(
        grape, "get", f"the value is not what {hash} stands for, or not signed by its key", 200
    )
