"""The ``sec:`` twin of a worker: the same actions over TLS, for those that an ACL file names.

Mirrors bfx-facs-grc (index.js ``setupPeers``, ``getSslConf``, ``tick``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from ssl import CERT_NONE, SSLContext

from .acl import AclFile
from .errors import ArgumentError
from .tls import FilePath, check_context, client_context, server_context

PREFIX = "sec:"


@dataclass(frozen=True)
class Sec:
    """What the twin needs: a TLS context that asks clients for a certificate, and who may call what."""

    ssl: SSLContext
    acl: AclFile

    def __post_init__(self) -> None:
        context = check_context(self.ssl)
        if context is None or context.verify_mode == CERT_NONE:
            raise ArgumentError("ssl", "must be a context that asks clients for a certificate")


def load_sec(folder: FilePath) -> Sec:
    """From the files of a Bitfinex worker: ``server-crt.pem``, ``server-key.pem``, ``ca-crt.pem`` and
    ``acl.json``, in ``folder``. Raises ``ArgumentError`` for bad ones.
    """
    here = Path(folder)
    context = server_context(here / "server-crt.pem", here / "server-key.pem", here / "ca-crt.pem")
    return Sec(context, AclFile(here / "acl.json"))


def load_client_context(folder: FilePath, *, check_hostname: bool = True) -> SSLContext:
    """To call such twins: from ``client-crt.pem``, ``client-key.pem`` and ``ca-crt.pem`` in ``folder``.

    ``check_hostname``: the worker's certificate must name its IP address, as peers are called by that. Raises
    ``ArgumentError`` for bad files.
    """
    here = Path(folder)
    cert, key = here / "client-crt.pem", here / "client-key.pem"
    return client_context(here / "ca-crt.pem", cert, key, check_hostname=check_hostname)
