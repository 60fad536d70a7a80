"""The events of services and subscribers, and who listens to them; for both flavours."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Container
from functools import partial
from typing import Any, TypeVar, overload

from .errors import ArgumentError, BadRequestError

log = logging.getLogger(__name__)

Listener = TypeVar("Listener", bound=Callable[..., Any])
# Given an event and those that are taken; raises ArgumentError.
Check = Callable[[str, Container[str]], object]


class Listening:
    """Has events, each with one listener at most.

    ``check(event, taken)`` raises ``ArgumentError`` for an event that does not exist or has a listener;
    without ``coroutines`` so does ``on`` for a coroutine function.
    """

    def __init__(self, check: Check, *, coroutines: bool):
        self._check = check
        self._coroutines = coroutines
        self._listeners: dict[str, Callable[..., Any]] = {}

    @overload
    def on(self, event: str, listener: None = None) -> Callable[[Listener], Listener]: ...

    @overload
    def on(self, event: str, listener: Listener) -> Listener: ...

    def on(self, event: str, listener: Any = None) -> Any:
        """Set the listener of an event; without ``listener`` this is a decorator.

        Raises ``ArgumentError`` for an event that does not exist or has a listener already.
        """
        self._check(event, self._listeners)
        if listener is None:
            return partial(self.on, event)
        if not self._coroutines and inspect.iscoroutinefunction(listener):
            raise ArgumentError("listener", "must be a plain function; coroutines need grenache_py.aio")
        self._listeners[event] = listener
        return listener

    def _report(self, error: BadRequestError) -> None:
        """Tell the listener of ``request-error``, a plain function, or the log."""
        listener = self._listeners.get("request-error")
        if listener is None:
            log.info("not a request: %s", error)
            return
        try:
            listener(error)
        except Exception:
            log.exception("the listener of request-error raised")
