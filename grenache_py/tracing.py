"""OpenTelemetry: spans of calls, and their context carried from client to service.

It needs ``opentelemetry-api``, which ``pip install grenache-py[otel]`` brings.

    client = PeerRPCClient(link, middleware=[trace_client()])
    server = PeerRPCServer(link, middleware=[trace_server()])

With asyncio both come from ``grenache_py.aio.tracing``. The context travels in the headers of a call as the
global propagator puts it there, ``traceparent`` and ``tracestate`` (W3C Trace Context) unless it was
configured otherwise. Over WebSocket only peers of ours get headers: at others a trace begins anew.

Spans and attributes follow the semantic conventions for RPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import limits
from .actions import action_name
from .errors import code_of
from .middleware import IncomingCall, Middleware, OutgoingCall

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
except ImportError as error:
    raise ImportError("tracing needs opentelemetry-api: pip install grenache-py[otel]") from error


def trace_client(provider: TracerProvider | None = None) -> Middleware[OutgoingCall]:
    """A middleware for clients: a span for every call of a peer, whose context goes with the call.

    ``provider``: whose tracer it is, by default the global one's.
    """
    tracer = trace.get_tracer("grenache_py", tracer_provider=provider)

    def middleware(call: OutgoingCall, proceed: Callable[[OutgoingCall], Any]) -> Any:
        with client_span(tracer, call):
            return proceed(call)

    return middleware


def trace_server(provider: TracerProvider | None = None) -> Middleware[IncomingCall]:
    """A middleware for services: a span for every request, from before its handler until its reply.

    The span is the current one while the handler runs. A caller that carries a context is its parent.
    """
    tracer = trace.get_tracer("grenache_py", tracer_provider=provider)

    def middleware(call: IncomingCall, proceed: Callable[[IncomingCall], Any]) -> Any:
        with server_span(tracer, call):
            return proceed(call)

    return middleware


@contextmanager
def client_span(tracer: trace.Tracer, call: OutgoingCall) -> Iterator[None]:
    """The span of a call, and its context in the headers of the call."""
    host, _, port = call.destination.rpartition(":")
    attributes = {**_attributes(call.key, call.payload), "server.address": host.strip("[]")}
    if port.isdigit():
        attributes["server.port"] = int(port)
    name = _span_name(call.key, call.payload)
    with tracer.start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        propagate.inject(call.headers)
        try:
            yield
        except Exception as error:
            _failed(span, str(getattr(error, "code", type(error).__name__)), str(error))
            raise


@contextmanager
def server_span(tracer: trace.Tracer, call: IncomingCall) -> Iterator[None]:
    """The span of a request; it ends with the reply."""
    handler = call.handler
    key = call.key if isinstance(call.key, str) else ""
    attributes = {**_attributes(key, call.payload), "client.address": handler.peer[0]}
    span = tracer.start_span(
        _span_name(key, call.payload),
        context=propagate.extract(handler.headers),
        kind=SpanKind.SERVER,
        attributes=attributes,
    )

    def ended(error: str | None) -> None:
        if error is not None:
            _failed(span, code_of(error, "ERR_REMOTE"), error)
        span.end()

    handler.observe(ended)
    token = context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        context.detach(token)


def _span_name(key: str, payload: Any) -> str:
    action = action_name(payload)
    return (key if action is None else f"{key}/{action}")[: limits.ACCESS_TEXT_MAX]


def _attributes(key: str, payload: Any) -> dict[str, Any]:
    attributes: dict[str, Any] = {"rpc.system": "grenache", "rpc.service": key[: limits.ACCESS_TEXT_MAX]}
    action = action_name(payload)
    if action is not None:
        attributes["rpc.method"] = action[: limits.ACCESS_TEXT_MAX]
    return attributes


def _failed(span: Span, code: str, text: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR, text[: limits.ERROR_TEXT_MAX]))
