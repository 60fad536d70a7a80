"""How many files and sockets this process may have open, and those of its servers."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from weakref import WeakSet

if sys.platform != "win32":
    import resource

# What is counted on where the system has no such limit.
_UNLIMITED = 2**16


def raise_limit() -> None:
    """Take as many as the system lets us, as Node does at its start; for a process that is a server."""
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            pass  # macOS tells a limit that it does not grant


def limit() -> int:
    """How many may be open."""
    if sys.platform == "win32":
        return _UNLIMITED
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _UNLIMITED if soft == resource.RLIM_INFINITY else soft


# Of all servers of this process, on whichever loop.
_listening: WeakSet[socket.socket] = WeakSet()
_accepted: set[asyncio.BaseTransport] = set()


def listens(sock: socket.socket) -> socket.socket:
    """It listens, or a server receives on it: a forked child lets go of it."""
    _listening.add(sock)
    return sock


def take(transport: asyncio.BaseTransport) -> None:
    """A server has a connection more."""
    _accepted.add(transport)


def give_back(transport: asyncio.BaseTransport) -> None:
    """It has that one no more."""
    _accepted.discard(transport)


def room(transport: asyncio.BaseTransport) -> int:
    """For how many further connections there is room, beside the one just made; below 0 for too many.

    All servers of a process have half of what it may open, so that files and calls have some, and a burst
    does not take the last; and three quarters together with whatever else it has open, as far as that can be
    told: a number that was given is the lowest that was free (POSIX.1-2017, section 2.14).
    """
    most = limit()
    return min(most // 2 - len(_accepted), most - most // 4 - _number(transport))


def to_tell() -> int:
    """How many connections beyond those are told that there is no room."""
    return limit() // 8


def at_once() -> int:
    """How many connections may be accepted before they are counted."""
    return max(1, limit() // 8)


def _number(transport: asyncio.BaseTransport) -> int:
    sock = transport.get_extra_info("socket")
    return -1 if sock is None or sys.platform == "win32" else int(sock.fileno())


def _let_go() -> None:
    """In a forked child: the ports and connections of its parent must not stay open because of it.

    Their numbers stay taken, so that whoever closes them here at last closes nothing else.
    """
    numbers = [sock.fileno() for sock in _listening]
    # The number of one that is closing may be another's already.
    numbers += [_number(transport) for transport in _accepted if not transport.is_closing()]
    _listening.clear()
    _accepted.clear()
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
    except OSError:
        return  # none left, or no such device
    for number in numbers:
        if number >= 0:
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
