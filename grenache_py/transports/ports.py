"""Sockets that listen."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from ssl import SSLContext
from typing import cast

from ..errors import ListenError, reason
from . import descriptors
from .handshakes import Handshakes

# Connections that wait to be accepted.
_BACKLOG = 1024

_ADVICE = {
    errno.EADDRINUSE: "; port 0 takes any free one",
    errno.EADDRNOTAVAIL: "; the host must be an address of this machine, or None for all",
    errno.EACCES: "; ports from 1024 on are for everybody",
}


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


def listen_error(error: OSError, port: int, host: str | None, kind: str = "") -> ListenError:
    """What is raised for an error of :func:`bind`, with what to do about it. ``kind``: ``"UDP "``, …"""
    advice = _ADVICE.get(error.errno or 0, "")
    return ListenError(error.errno, f"cannot listen on {kind}{host or '*'}:{port}: {reason(error)}{advice}")


class Listener:
    """A port that accepts connections, over TLS if that was asked for."""

    def __init__(self, server: asyncio.Server, handshakes: Handshakes | None):
        self._server = server
        self._handshakes = handshakes

    def close(self) -> None:
        """Accept no more."""
        loop = self._server.get_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):
            # What it has accepted in this turn it gives to a protocol in the next one. A server that is
            # closed by then leaves such a connection open and unheard, until its caller gives up (CPython
            # gh-109564).
            for sock in self._server.sockets:
                loop.remove_reader(sock)
            loop.call_soon(self._server.close)
        else:
            self._server.close()

    async def wait_closed(self) -> None:
        """End the handshakes that are under way, and wait for the port to be closed.

        Not for its connections, which have been counted elsewhere. From Python 3.12 on asyncio's server waits
        for them too, and for ever for one whose socket was handed over to another transport.
        """
        if self._handshakes is not None:
            await self._handshakes.end()
        await asyncio.sleep(0)


async def serve(
    sock: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], ssl: SSLContext | None
) -> Listener:
    """Accept connections on ``sock``, which is closed if that fails, and give them to ``protocol()``."""
    handshakes = None if ssl is None else Handshakes(ssl, protocol)
    try:
        # asyncio accepts as many as its backlog at once, before the first of them is looked at.
        server = await asyncio.get_running_loop().create_server(
            protocol if handshakes is None else handshakes.begin,
            sock=sock,
            backlog=min(_BACKLOG, descriptors.at_once()),
        )
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return Listener(server, handshakes)
