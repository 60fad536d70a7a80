"""OpenTelemetry with asyncio: as ``grenache_py.tracing``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..middleware import IncomingCall, Middleware, OutgoingCall
from ..tracing import client_span, server_span

# After the line above, which says what to do where they are missing.
from opentelemetry import trace  # isort: skip
from opentelemetry.trace import TracerProvider  # isort: skip


def trace_client(provider: TracerProvider | None = None) -> Middleware[OutgoingCall]:
    """A middleware for clients: a span for every call of a peer, whose context goes with the call.

    ``provider``: whose tracer it is, by default the global one's.
    """
    tracer = trace.get_tracer("grenache_py", tracer_provider=provider)

    async def middleware(call: OutgoingCall, proceed: Callable[[OutgoingCall], Any]) -> Any:
        with client_span(tracer, call):
            return await proceed(call)

    return middleware


def trace_server(provider: TracerProvider | None = None) -> Middleware[IncomingCall]:
    """A middleware for services: a span for every request, from before its handler until its reply.

    The span is the current one while the handler runs. A caller that carries a context is its parent.
    """
    tracer = trace.get_tracer("grenache_py", tracer_provider=provider)

    async def middleware(call: IncomingCall, proceed: Callable[[IncomingCall], Any]) -> Any:
        with server_span(tracer, call):
            return await proceed(call)

    return middleware
