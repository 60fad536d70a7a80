"""The services that peers announce: where all of a market are found, and each of them alone."""

from __future__ import annotations


def shared_name(market: str) -> str:
    """The service that all peers of a market announce."""
    return f"orderbook:{market}"


def own_name(market: str, peer: str) -> str:
    """The service that one peer of a market announces, to be addressed alone."""
    return f"orderbook:{market}:{peer}"


def market_of_key(key: object) -> str | None:
    """The market of a service that peers announce."""
    return key.split(":")[1] if isinstance(key, str) and key.startswith("orderbook:") else None
