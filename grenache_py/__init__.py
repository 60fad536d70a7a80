"""Grenache for Python: find services on a DHT and call them.

``Link`` talks to a Grape, ``PeerRPCServer`` serves requests, ``PeerRPCClient`` makes them;
``Worker`` and ``ActionClient`` do so by actions, as Bitfinex's workers do; ``grenache_py.aio`` has the same
with asyncio, and ``Grape`` is a Grape in this process. What is not used is not imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import aio as aio
    from . import errors as errors
    from .actions import Actions as Actions
    from .discovery import MapResult as MapResult
    from .grape import Grape as Grape
    from .grape_api import Item as Item
    from .link import Link as Link
    from .peer import PeerRPCClient as PeerRPCClient
    from .peer import PeerRPCServer as PeerRPCServer
    from .put_report import PutReport as PutReport
    from .service import Service as Service
    from .transports.rpc_server import Handler as Handler
    from .worker import ActionClient as ActionClient
    from .worker import Worker as Worker

__version__ = "0.1.0"

_HOMES = {
    "ActionClient": "worker",
    "Actions": "actions",
    "Grape": "grape",
    "Handler": "transports.rpc_server",
    "Item": "grape_api",
    "Link": "link",
    "MapResult": "discovery",
    "PeerRPCClient": "peer",
    "PeerRPCServer": "peer",
    "PutReport": "put_report",
    "Service": "service",
    "Worker": "worker",
}

__all__ = [
    "ActionClient",
    "Actions",
    "Grape",
    "Handler",
    "Item",
    "Link",
    "MapResult",
    "PeerRPCClient",
    "PeerRPCServer",
    "PutReport",
    "Service",
    "Worker",
    "__version__",
    "aio",
    "errors",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name in ("aio", "errors"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
