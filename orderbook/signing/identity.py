"""Who a peer is: an ed25519 key (RFC 8032). No IO.

A public key is written as 64 lower-case hexadecimal digits and a signature as 128: no character of them has
a meaning in a shell, a URL or a file, and they are what Grenache's signed items (BEP 44) look like.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nacl.bindings import crypto_sign, crypto_sign_open
from nacl.exceptions import CryptoError

from grenache_py import keyfile
from grenache_py.errors import KeyFileError

from ..errors import IdentityError

SIGNATURE_BYTES = 64


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
        public = private.public_key().public_bytes_raw()
        self._secret = private.private_bytes_raw() + public  # as libsodium keeps them
        self.key = public.hex()

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
        return crypto_sign(data, self._secret)[:SIGNATURE_BYTES].hex()


def verify(key: str, data: bytes, signature: str) -> bool:
    """Whether ``signature`` is that of ``data`` under the public ``key``; False for what is no key."""
    try:
        signed = bytes.fromhex(signature) + data
        if len(signed) != SIGNATURE_BYTES + len(data):
            return False
        crypto_sign_open(signed, bytes.fromhex(key))
    except (CryptoError, ValueError):
        return False
    return True
