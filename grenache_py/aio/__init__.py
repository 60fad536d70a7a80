"""The asyncio flavour: the same names as ``grenache_py``, with ``await``."""

from __future__ import annotations

from ..discovery import MapResult
from ..grape_api import Item
from ..transports.rpc_server import Handler
from .link import Link
from .peer import PeerRPCClient, PeerRPCServer, Service

__all__ = ["Handler", "Item", "Link", "MapResult", "PeerRPCClient", "PeerRPCServer", "Service"]
