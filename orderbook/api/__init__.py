"""The client API of a peer, served over HTTP; ``orderbook.client`` speaks it."""

from .server import Api

__all__ = ["Api"]
