"""Who a peer is: an ed25519 key (RFC 8032). No IO.

A public key is written as 64 lower-case hexadecimal digits and a signature as 128: no character of them has
a meaning in a shell, a URL or a file, and they are what Grenache's signed items (BEP 44) look like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from grenache_py import keyfile
from grenache_py.errors import KeyFileError

from ..errors import IdentityError


class Signer(Protocol):
    """Signs as one key; :class:`Identity`, or something quicker in a simulation."""

    @property
    def key(self) -> str:
        """The public key that verifies its signatures."""

    def sign(self, data: bytes) -> str:
        """The signature of ``data``."""


Verify = Callable[[str, bytes, str], bool]
"""Whether the third argument is the signature of the second under the key in the first."""


class Identity:
    """A private key; whoever holds it speaks as this peer."""

    def __init__(self, private: Ed25519PrivateKey):
        self._private = private
        self.key = private.public_key().public_bytes_raw().hex()

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity whose private key is ``seed``: 32 bytes that nobody can guess.

        Raises:
            ValueError: They are not 32 bytes.
        """
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, pem: bytes) -> Identity:
        """The identity of a private key as :meth:`to_pem` writes it. Raises IdentityError."""
        try:
            return cls(keyfile.from_pem(pem))
        except KeyFileError as error:
            raise IdentityError(str(error)) from error

    def to_pem(self) -> bytes:
        """The private key in PKCS #8 (RFC 8410), which OpenSSL and Node read as well."""
        return keyfile.to_pem(self._private)

    def sign(self, data: bytes) -> str:
        return self._private.sign(data).hex()


def verify(key: str, data: bytes, signature: str) -> bool:
    """Whether ``signature`` is that of ``data`` under the public ``key``; False for what is no key."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True
