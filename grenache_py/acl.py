"""Who may call what: an ACL file that maps fingerprints of client certificates to actions.

The file is that of Bitfinex's workers, ``sec/acl.json`` (bfx-wrk-api, api/base.js ``checkAcl``):

    {
      "AB:CD:…": {"getIpInfo": true, "getGeo": true},
      "0123…": ["getIpInfo"],
      "4567…": "*",
      "*": ["ping"]
    }

A fingerprint is SHA-1 or SHA-256 in hexadecimal digits, in either case, with or without colons: as Node
(``cert.fingerprint``, ``cert.fingerprint256``), Ruby and openssl write it. ``"*"`` stands for every
certificate, or for every action. Ours: what ``"*"`` is mapped to is heeded; Node lets everybody do everything
as soon as there is a ``"*"``.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import limits
from .errors import ArgumentError
from .tls import Certificate, FilePath

log = logging.getLogger(__name__)

ANY = "*"

_FINGERPRINT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class Acl:
    """Rights: the actions of each fingerprint (lower case, no colons) and of ``ANY`` certificate."""

    actions: Mapping[str, frozenset[str]]

    def allows(self, certificate: Certificate | None, action: str) -> bool:
        """Whether a caller may call ``action``; without a certificate nobody may call anything."""
        if certificate is None:
            return False
        rights = self.actions
        for name in (
            ANY,
            certificate.fingerprint,
            hashlib.sha1(certificate.der, usedforsecurity=False).hexdigest(),
        ):
            allowed = rights.get(name)
            if allowed is not None and (ANY in allowed or action in allowed):
                return True
        return False


def parse_acl(text: str, source: str = "acl") -> Acl:
    """Read the JSON of an ACL file. Raises ``ArgumentError`` that names ``source``, line and field."""

    def refuse(rule: str, *fields: str) -> ArgumentError:
        line = _line_of(text, fields)
        where = "".join(f", {json.dumps(field)}" for field in fields)
        return ArgumentError("acl", f"{source}{line}{where}: {rule}")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise refuse("stands there twice", name)
            found[name] = value
        return found

    try:
        file = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ArgumentError(
            "acl", f"{source}, line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except RecursionError:
        raise ArgumentError("acl", f"{source}: nested too deeply") from None
    if not isinstance(file, dict):
        raise refuse("must be an object of fingerprints")
    rights: dict[str, frozenset[str]] = {}
    for key, value in file.items():
        fingerprint = key if key == ANY else key.replace(":", "").lower()
        if key != ANY and not _FINGERPRINT.fullmatch(fingerprint):
            raise refuse('must be "*" or a fingerprint of 40 (SHA-1) or 64 (SHA-256) hexadecimal digits', key)
        if fingerprint in rights:
            raise refuse("is a fingerprint that stands there already, in another notation", key)
        rights[fingerprint] = _actions(key, value, refuse)
    return Acl(rights)


def _actions(key: str, value: Any, refuse: Callable[..., ArgumentError]) -> frozenset[str]:
    if value == ANY or (key == ANY and value is True):
        return frozenset({ANY})
    if isinstance(value, list):
        names = value
    elif isinstance(value, dict):
        for name, allowed in value.items():
            if not isinstance(allowed, bool):
                raise refuse("must be true or false", key, name)
        names = [name for name, allowed in value.items() if allowed]
    else:
        raise refuse('must be "*", a list of actions, or an object of them with true or false', key)
    for name in names:
        if not isinstance(name, str) or not name:
            raise refuse(f"an action is a text that is not empty, not {name!r}", key)
        if ANY in name and name != ANY:
            raise refuse('"*" stands alone, for every action', key, name)
    return frozenset(names)


def _line_of(text: str, fields: tuple[str, ...]) -> str:
    """``, line 3`` for the place where the last of ``fields`` stands below the ones before it."""
    place = 0
    for field in fields:
        place = text.find(json.dumps(field, ensure_ascii=False), place)
        if place < 0:
            return ""  # written with other escapes
    return f", line {text.count(chr(10), 0, place) + 1}" if fields else ""


class AclFile:
    """An ACL file that is read again when it changes, without a restart.

    Looked at no more often than every ``limits.ACL_CHECK_S``, when somebody calls. A new version that is bad,
    or a file that is gone, is logged as an error, and the rights of before stay. ``clock`` returns seconds
    that never go back. Raises ``ArgumentError`` when it cannot be read the first time.
    """

    def __init__(self, path: FilePath, clock: Callable[[], float] = time.monotonic):
        self._path = Path(path)
        self._clock = clock
        self._version: tuple[int, int, int] | None = self._stat()
        self._acl = self._read()
        self._checked = clock()

    def allows(self, certificate: Certificate | None, action: str) -> bool:
        """As ``Acl.allows``, by the file as it is now."""
        now = self._clock()
        if now - self._checked >= limits.ACL_CHECK_S:
            self._checked = now
            self._refresh()
        return self._acl.allows(certificate, action)

    def _refresh(self) -> None:
        try:
            version = self._stat()
        except ArgumentError as error:
            if self._version is not None:  # logged once
                log.error("the rights of before stay: %s", error)
            self._version = None
            return
        if version == self._version:
            return
        self._version = version
        try:
            self._acl = self._read()
        except ArgumentError as error:
            log.error("the rights of before stay: %s", error)
        else:
            log.info("%s was read again", self._path)

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise ArgumentError("acl", f"{self._path}: {error.strerror}") from error
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> Acl:
        try:
            with self._path.open("rb") as file:
                data = file.read(limits.ACL_BYTES_MAX + 1)
        except OSError as error:
            raise ArgumentError("acl", f"{self._path}: {error.strerror}") from error
        if len(data) > limits.ACL_BYTES_MAX:
            raise ArgumentError("acl", f"{self._path}: must be at most {limits.ACL_BYTES_MAX} bytes")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ArgumentError("acl", f"{self._path}: must be UTF-8") from None
        return parse_acl(text, str(self._path))
