"""The events of a Grape, as the Node class has them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

#: event: what its callbacks are called with
EVENTS = {
    "listening": "nothing: the DHT port is open",
    "ready": "nothing: the bootstrap is over",
    "node": "str, the address ip:port of a node that is new in the routing table",
    "peer": "str, the address ip:port of a peer that a look-up found",
    "announce": "str, the name under which a peer was stored here",
    "warning": "str, what was wrong with a datagram or a bootstrap address",
}

Callback = Callable[..., Any]


class Events:
    """Callbacks by event. One that raises is logged and disturbs nobody else."""

    def __init__(self) -> None:
        self._callbacks: dict[str, tuple[Callback, ...]] = {}

    def on(self, event: str, callback: Callback) -> None:
        """Call ``callback`` at every ``event``. Raises ValueError for an event that does not exist."""
        if event not in EVENTS:
            raise ValueError(f"event must be one of {', '.join(EVENTS)}, not {event!r}")
        self._callbacks[event] = (*self._callbacks.get(event, ()), callback)

    def off(self, event: str, callback: Callback) -> None:
        """Call it no more; nothing happens when it was not called before."""
        # Bound methods are equal without being identical.
        self._callbacks[event] = tuple(known for known in self._callbacks.get(event, ()) if known != callback)

    def wanted(self, event: str) -> bool:
        """Whether anybody listens, so that nothing is prepared for nobody."""
        return bool(self._callbacks.get(event))

    def emit(self, event: str, *arguments: Any) -> None:
        for callback in self._callbacks.get(event, ()):
            try:
                callback(*arguments)
            except Exception:
                log.exception("a callback of the Grape's event %r failed", event)
