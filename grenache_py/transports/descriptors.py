"""How many files and sockets this process may have open."""

from __future__ import annotations

import sys

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
