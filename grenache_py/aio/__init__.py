"""The asyncio flavour: the same names as ``grenache_py``, with ``await``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..discovery import MapResult
from ..grape_api import Item
from ..put_report import PutReport
from ..transports.rpc_server import Handler
from .link import Link
from .peer import PeerRPCClient, PeerRPCServer
from .service import Service

if TYPE_CHECKING:
    from ..actions import Actions as Actions
    from ..grape.aio import Grape as Grape
    from .worker import ActionClient as ActionClient
    from .worker import Worker as Worker

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
]

# What not everybody uses, and takes its time to be imported.
_HOMES = {"ActionClient": ".worker", "Actions": "..actions", "Grape": "..grape.aio", "Worker": ".worker"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
