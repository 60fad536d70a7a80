"""A Grape in Python: a node of the DHT that Node Grapes form, with their HTTP API.

``Grape`` runs in a thread of its own, ``grenache_py.grape.aio.Grape`` on the running asyncio loop;
``grape-py`` is the command line.
"""

from __future__ import annotations

from .grape import Grape

__all__ = ["Grape"]
