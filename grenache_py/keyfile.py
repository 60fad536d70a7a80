"""Private keys (ed25519, RFC 8032) in files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from .errors import KeyFileError

KEY_FILE_BYTES = 16 * 1024
"""A private key takes 119 bytes."""


def create_key(path: Path) -> Ed25519PrivateKey:
    """A new key in a new file that only its owner can read.

    Raises ``KeyFileError``: there is such a file already, which is left as it is, or it can't be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, to_pem(key))
            os.fsync(file)
        finally:
            os.close(file)
    except FileExistsError:
        raise KeyFileError(f"{path} exists already: name another file") from None
    except OSError as error:
        raise KeyFileError(f"{path} can't be written: {error.strerror or error}") from error
    return key


def load_key(path: Path) -> Ed25519PrivateKey:
    """The key in ``path``, as ``create_key`` writes it.

    Raises ``KeyFileError``: it can't be read, is no key, or others than its owner can read it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if os.name == "posix" and mode & 0o077:
                raise KeyFileError(
                    f"{path} can be used by others than its owner (mode {mode:04o}): run chmod 600 {path}"
                )
            pem = file.read(KEY_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror or error}") from error
    try:
        return from_pem(pem)
    except KeyFileError as error:
        raise KeyFileError(f"{path}: {error}") from error


def to_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key in PKCS #8 (RFC 8410), which OpenSSL and Node read as well."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def from_pem(pem: bytes) -> Ed25519PrivateKey:
    """The private key that ``to_pem`` wrote. Raises ``KeyFileError``."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"no private key in PEM without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError("the key must be an ed25519 key")
    return key
