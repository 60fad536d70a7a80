"""Keys in files: private ones, and lists of the public ones that may trade."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from grenache_py import keyfile
from grenache_py.errors import KeyFileError

from ..errors import IdentityError, InvalidFieldError
from ..model import check_name
from .identity import Identity

ALLOWED_FILE_BYTES = 1024 * 1024
_KEY = re.compile("[0-9a-f]{64}")


def new_identity() -> Identity:
    """A key that nobody has yet."""
    return Identity(Ed25519PrivateKey.generate())


def create_key(path: Path) -> Identity:
    """A new key in a new file that only its owner can read.

    Raises:
        IdentityError: There is such a file already, which is left as it is, or it can't be written.
    """
    try:
        return Identity(keyfile.create_key(path))
    except KeyFileError as error:
        raise IdentityError(str(error)) from error


def load_key(path: Path) -> Identity:
    """The key in ``path``, as :func:`create_key` writes it.

    Raises:
        IdentityError: It can't be read, is no key, or others than its owner can read it.
    """
    try:
        return Identity(keyfile.load_key(path))
    except KeyFileError as error:
        raise IdentityError(str(error)) from error


def kept_key(path: Path) -> Identity:
    """The key in ``path``; where there is no such file, a new one in it. Raises IdentityError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityError(f"{path.parent} can't hold a key: {error.strerror or error}") from error
    return load_key(path) if path.exists() else create_key(path)


def allowed_keys(entries: Iterable[str]) -> dict[str, str | None]:
    """Who may trade: public keys, each with the only name that it may use, or None.

    Args:
        entries: ``KEY``, ``NAME=KEY``, or the path of a file with one of those a line, where ``#`` begins a
            comment.

    Raises:
        InvalidFieldError: An entry is none of these (``field`` is ``allow``); the text names file and line.
    """
    allowed: dict[str, str | None] = {}
    for entry in entries:
        if _KEY.fullmatch(entry.rpartition("=")[2]):
            _allow(allowed, entry, "")
        else:
            for number, line in enumerate(_lines_of(entry), 1):
                text = line.partition("#")[0].strip()
                if text:
                    _allow(allowed, text, f"{entry}, line {number}: ")
    return allowed


def _lines_of(path: str) -> list[str]:
    try:
        with Path(path).open(encoding="utf-8") as file:
            return file.read(ALLOWED_FILE_BYTES).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidFieldError(
            "allow", f"must be a key (64 hexadecimal digits), NAME=KEY, or a file of those: {path}: {reason}"
        ) from error


def _allow(allowed: dict[str, str | None], entry: str, where: str) -> None:
    name, equals, key = entry.rpartition("=")
    if not _KEY.fullmatch(key):
        raise InvalidFieldError("allow", f"{where}must be a key (64 hexadecimal digits) or NAME=KEY")
    try:
        only = check_name(name, "the name") if equals else None
    except InvalidFieldError as error:
        raise InvalidFieldError("allow", f"{where}{error}") from None
    if allowed.get(key, only) != only:
        raise InvalidFieldError("allow", f"{where}gives key {key} two names")
    if only is not None and any(other == only and known != key for known, other in allowed.items()):
        raise InvalidFieldError("allow", f"{where}gives the name {only} to two keys")
    allowed[key] = only
