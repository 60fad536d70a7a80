"""Middleware: functions around every call, of clients and of services.

    def middleware(call, proceed):
        ...                     # look at the call, change it, or raise
        return proceed(call)    # the rest: further middleware, then the call itself

With ``grenache_py.aio`` it is a coroutine function and awaits ``proceed(call)``. Of several, the first one is
the outermost: it sees a call first and its end last. It need not proceed, and may do so more than once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .errors import ArgumentError

if TYPE_CHECKING:
    from .transports.rpc_server import Handler


@dataclass
class OutgoingCall:
    """A client calls one peer: a request, each attempt of which is a call; one part of a ``map``; or the
    opening of a stream.

    What ``proceed`` returns is the result, or the ``Stream``; it raises ``PeerError``.
    """

    #: ``host:port``
    destination: str
    #: the name of the service
    key: str
    #: ``None`` for a stream
    payload: Any
    #: when it has to be over (a stream: open), on the clock of ``time.monotonic``
    ends: float
    #: further headers, to be added to; over WebSocket only peers of ours get them
    headers: dict[str, Any]
    compress: bool = False
    stream: bool = False


@dataclass
class IncomingCall:
    """A service is called: a request, or a stream that is opened.

    ``proceed`` returns ``None`` when the listener has returned, which may be before it replies;
    ``handler.observe`` tells of the reply. A middleware answers in place of the listener by
    ``handler.reply``, or by raising ``Refusal``.
    """

    rid: Any
    key: Any
    #: ``None`` for a stream
    payload: Any
    #: with ``headers``, ``peer``, ``certificate``, ``remaining_s``, …
    handler: Handler
    #: what the listener of ``stream`` is given
    stream: Any = None


CallT = TypeVar("CallT")
Middleware = Callable[[CallT, Callable[[CallT], Any]], Any]


def check_middleware(middleware: Iterable[Any], *, coroutines: bool) -> tuple[Any, ...]:
    """Functions, the outermost first; ``coroutines``: they may be coroutine functions."""
    if not isinstance(middleware, Iterable) or isinstance(middleware, (str, bytes)):
        raise ArgumentError("middleware", f"must be a list of functions, not {middleware!r}")
    functions = tuple(middleware)
    for function in functions:
        if not callable(function):
            raise ArgumentError("middleware", f"must be functions, not {function!r}")
        if not coroutines and inspect.iscoroutinefunction(function):
            raise ArgumentError("middleware", "must be plain functions; coroutines need grenache_py.aio")
    return functions


def chain(middleware: tuple[Any, ...], last: Callable[[CallT], Any]) -> Callable[[CallT], Any]:
    """All of them around ``last``, as one function; for both flavours."""
    for function in reversed(middleware):
        last = partial(_step, function, last)
    return last


def _step(function: Callable[..., Any], proceed: Callable[[CallT], Any], call: CallT) -> Any:
    return function(call, proceed)
