"""How the addresses of callers are written."""

from __future__ import annotations

import asyncio

_MAPPED = "::ffff:"


def plain_host(host: str) -> str:
    """An address of IPv4 as that, also where a socket of IPv6 has taken the connection."""
    return host.removeprefix(_MAPPED) if host.startswith(_MAPPED) and "." in host else host


def peer_of(transport: asyncio.BaseTransport) -> tuple[str, int] | None:
    """Host and port of the other end; None where it has none, as over a socket of Unix, or has gone."""
    name = transport.get_extra_info("peername")
    return (plain_host(name[0]), name[1]) if isinstance(name, tuple) else None
