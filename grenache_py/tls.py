"""TLS contexts as Grenache uses them, the certificates of peers, and who is let in.

A context is an ordinary ``ssl.SSLContext``: make it by hand, or here with the three files that Node peers
call ``key``, ``cert`` and ``ca`` (grenache-nodejs-http 1.0.2, ``conf.secure``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import limits
from .errors import ArgumentError, reason

log = logging.getLogger(__name__)

FilePath = str | os.PathLike[str]

DISTRUST = "it may want a certificate, or one of another authority"
"""Where a TLS connection ends before anything has come: in TLS 1.3 a client does not learn why."""


def server_context(
    cert: FilePath, key: FilePath, ca: FilePath | None = None, *, require_cert: bool = True
) -> ssl.SSLContext:
    """A context to serve with: PEM files of our certificate (chain), its private key, and the authorities
    that the certificates of clients must come from.

    With ``ca``, clients are asked for a certificate, and ``require_cert`` refuses those who show none
    (Node: ``requestCert`` and ``rejectUnauthorized``). Raises ``ArgumentError`` for bad files.
    """
    context = _trusting(ssl.Purpose.CLIENT_AUTH, ca)
    _show(context, cert, key)
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED if require_cert else ssl.CERT_OPTIONAL
    return context


def client_context(
    ca: FilePath, cert: FilePath | None = None, key: FilePath | None = None, *, check_hostname: bool = True
) -> ssl.SSLContext:
    """A context to call with: PEM files of the authorities that servers' certificates must come from, and of
    our own certificate and key where servers ask for one.

    ``check_hostname``: the certificate must name the host or IP address that is called (Node does check it).
    Raises ``ArgumentError`` for bad files.
    """
    context = _trusting(ssl.Purpose.SERVER_AUTH, ca)
    context.check_hostname = check_hostname
    if cert is not None:
        _show(context, cert, key)
    return context


def _trusting(purpose: ssl.Purpose, ca: FilePath | None) -> ssl.SSLContext:
    if ca is not None:
        _check_readable("ca", ca)
    try:
        return ssl.create_default_context(purpose, cafile=ca)
    except ssl.SSLError as error:
        raise ArgumentError("ca", f"{ca} must hold certificates as PEM: {reason(error)}") from error


def _show(context: ssl.SSLContext, cert: FilePath, key: FilePath | None) -> None:
    private = cert if key is None else key
    _check_readable("cert", cert)
    _check_readable("key", private)

    def password() -> str:
        # Otherwise it would be asked for on the terminal.
        raise ArgumentError("key", f"{private} is encrypted: make the context by hand, with its password")

    try:
        context.load_cert_chain(cert, key, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ArgumentError("key", f"{private} is not the key of {cert}") from error
        rule = f"{cert} must hold a certificate as PEM and {private} its key: {reason(error)}"
        raise ArgumentError("cert", rule) from error


def _check_readable(field: str, path: FilePath) -> None:
    # What ssl says does not name the file.
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ArgumentError(field, f"{path}: {error.strerror}") from error


@dataclass(frozen=True)
class Certificate:
    """The certificate of a peer: ``der`` is the whole of it in DER form.

    ``fields`` are what was verified, as ``ssl.SSLSocket.getpeercert()`` tells them (``subject``,
    ``notAfter``, …).
    """

    der: bytes
    fields: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of ``der``, 64 hexadecimal digits in lower case."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def common_name(self) -> str | None:
        """The subject's common name, if it has one."""
        for part in self.fields.get("subject", ()):
            for name, value in part:
                if name == "commonName":
                    return str(value)
        return None


def certificate_of(ssl_object: ssl.SSLObject | ssl.SSLSocket | None) -> Certificate | None:
    """The certificate that the other end of a connection has shown; ``None`` without TLS (which ``None``
    stands for) or certificate.
    """
    der = None if ssl_object is None else ssl_object.getpeercert(binary_form=True)
    if ssl_object is None or der is None:
        return None
    return Certificate(der, ssl_object.getpeercert() or {})


Authorize = Callable[[Certificate], object] | Iterable[str]
"""Who is let in: a function of the certificate that says whether, or the SHA-256 fingerprints of those who
are, with or without colons, in either case (Node's ``cert.fingerprint256`` too).
"""

_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


def check_authorize(
    authorize: Authorize | None, context: ssl.SSLContext | None
) -> Callable[[Certificate], object] | None:
    """What ``authorize`` means, as a function; ``None``, everybody, stays ``None``. Raises
    ``ArgumentError``.
    """
    if authorize is None:
        return None
    if context is None or context.verify_mode == ssl.CERT_NONE:
        raise ArgumentError("authorize", "needs ssl with a context that asks clients for a certificate")
    if callable(authorize):
        return authorize
    if isinstance(authorize, (str, bytes)):
        raise ArgumentError("authorize", "must be a function or a collection of fingerprints, not one text")
    known = frozenset(_fingerprint(text) for text in authorize)
    return lambda certificate: certificate.fingerprint in known


def is_authorized(authorize: Callable[[Certificate], object], certificate: Certificate | None) -> bool:
    """Whether ``authorize`` lets the caller in: never without a certificate, nor when it raises."""
    try:
        return certificate is not None and bool(authorize(certificate))
    except Exception:
        log.exception("authorize raised; the caller is refused")
        return False


def _fingerprint(text: str) -> str:
    plain = text.replace(":", "").lower() if isinstance(text, str) else ""
    if not _FINGERPRINT.fullmatch(plain):
        raise ArgumentError("authorize", f"a SHA-256 fingerprint is 64 hexadecimal digits, not {text!r}")
    return plain


def check_context(context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """An ``ssl.SSLContext``, or ``None`` for no TLS. Raises ``ArgumentError``."""
    if context is not None and not isinstance(context, ssl.SSLContext):
        raise ArgumentError("ssl", f"must be an ssl.SSLContext, not {type(context).__name__}")
    return context


class Resuming:
    """Stands for a context when connecting to one server: it offers the session of an earlier connection, so
    that the handshake is short (RFC 8446 section 2.2).

    asyncio's and uvloop's TLS know no sessions; all they want of a context is ``wrap_bio``.
    """

    def __init__(self, context: ssl.SSLContext):
        self._context = context
        self._session: ssl.SSLSession | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> ssl.SSLObject:
        """As ``ssl.SSLContext.wrap_bio``, for a client."""
        return self._context.wrap_bio(incoming, outgoing, server_side, server_hostname, self._session)

    def wrap_socket(self, sock: Any, server_hostname: str) -> ssl.SSLSocket:
        """As ``ssl.SSLContext.wrap_socket``, for a client."""
        return self._context.wrap_socket(sock, server_hostname=server_hostname, session=self._session)

    def remember(self, ssl_object: ssl.SSLObject | ssl.SSLSocket) -> None:
        """Offer this connection's session next. To be called late: in TLS 1.3 it follows the handshake."""
        session = ssl_object.session
        if session is not None and session.has_ticket:
            self._session = session


class Sessions:
    """The sessions of a client, by destination; of the ``limits.DESTINATION_POOLS`` that were used last."""

    def __init__(self, context: ssl.SSLContext | None):
        self._context = context
        self._resuming: dict[str, Resuming] = {}  # those used last at the end

    def to(self, destination: str) -> Resuming | None:
        """What to connect with; ``None`` without TLS."""
        if self._context is None:
            return None
        resuming = self._resuming.pop(destination, None) or Resuming(self._context)
        self._resuming[destination] = resuming
        if len(self._resuming) > limits.DESTINATION_POOLS:
            del self._resuming[next(iter(self._resuming))]
        return resuming
