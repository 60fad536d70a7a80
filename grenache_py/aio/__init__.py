"""The asyncio flavour: the same names as ``grenache_py``, with ``await``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..discovery import MapResult
from ..grape_api import Item
from ..transports.rpc_server import Handler
from .link import Link
from .peer import PeerRPCClient, PeerRPCServer, Service

if TYPE_CHECKING:
    from ..grape.aio import Grape as Grape

__all__ = ["Grape", "Handler", "Item", "Link", "MapResult", "PeerRPCClient", "PeerRPCServer", "Service"]


def __getattr__(name: str) -> Any:
    if name == "Grape":  # its imports are not light
        from ..grape.aio import Grape

        return Grape
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
