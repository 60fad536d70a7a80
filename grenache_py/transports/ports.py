"""Sockets that listen."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from . import descriptors

# Connections that wait to be accepted.
_BACKLOG = 1024


async def bind(loop: asyncio.AbstractEventLoop, port: int, host: str | None) -> socket.socket:
    """Listen on ``port`` (0: any free one) of ``host`` (``None``: all interfaces, IPv6 and IPv4).

    Raises OSError when the address is taken or cannot be resolved. A forked child lets go of it.
    """
    return descriptors.listens(await _bound(loop, port, host))


async def _bound(loop: asyncio.AbstractEventLoop, port: int, host: str | None) -> socket.socket:
    # One socket, so that port 0 means one port: a server on several addresses would get one for each.
    if host is None:
        if socket.has_dualstack_ipv6():
            try:
                return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
            except OSError:
                pass  # IPv6 may be compiled in and switched off; a port that is taken fails again below
        return socket.create_server(("0.0.0.0", port))
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    return socket.create_server(cast("tuple[str, int]", address[:2]), family=family)


async def serve(
    sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], **options: Any
) -> asyncio.Server:
    """Accept connections on ``sock``, which is closed if that fails. ``options`` are those of
    ``loop.create_server``.
    """
    try:
        # asyncio accepts as many as its backlog at once, before the first of them is looked at.
        server = await asyncio.get_running_loop().create_server(
            protocol, sock=sock, backlog=min(_BACKLOG, descriptors.at_once()), **options
        )
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return server
