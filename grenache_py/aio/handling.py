"""What a service does with its requests: it hands them to its listeners, on the loop."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from ..middleware import IncomingCall, Middleware, chain
from ..rpc_frames import Request
from ..tasks import end_tasks
from ..transports.rpc_server import Handler
from ..transports.stream_server import finish
from ..transports.streams import Stream


class Handling:
    """Requests in hand, of one service; ``listeners`` are those of its events."""

    def __init__(
        self, listeners: Mapping[str, Callable[..., Any]], middleware: tuple[Middleware[IncomingCall], ...]
    ):
        self._listeners = listeners
        self._middleware = middleware
        self._tasks: dict[Handler, asyncio.Task[None]] = {}

    def handle(self, request: Request, handler: Handler) -> None:
        """As ``transports.rpc_server.Receiver`` has it, and so the others."""
        listener = self._listeners.get("request")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
            return
        try:
            if self._middleware:
                call = IncomingCall(request.rid, request.key, request.payload, handler)
                outcome = chain(self._middleware, partial(_listen, listener))(call)
            else:
                outcome = listener(request.rid, request.key, request.payload, handler)
        except Exception as error:
            handler.fail(error)
            return
        if outcome is not None and inspect.isawaitable(outcome):
            self._begin(handler, self._finish(outcome, handler))

    def handle_stream(self, request: Request, stream: Stream, handler: Handler) -> None:
        listener = self._listeners.get("stream")
        if listener is None:
            handler.refuse(501, "ERR_SERVER_NO_HANDLER")
            return
        self._begin(handler, self._run_stream(listener, request, stream, handler))

    def expired(self, handler: Handler) -> None:
        task = self._tasks.get(handler)
        if task is not None:
            task.cancel()

    async def end(self) -> None:
        """End those that run."""
        await end_tasks(self._tasks.values())

    def _begin(self, handler: Handler, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks[handler] = task
        task.add_done_callback(lambda _: self._tasks.pop(handler))

    async def _finish(self, outcome: Awaitable[Any], handler: Handler) -> None:
        try:
            await outcome
        except Exception as error:
            handler.fail(error)

    async def _run_stream(
        self, listener: Callable[..., Any], request: Request, stream: Stream, handler: Handler
    ) -> None:
        try:
            call = IncomingCall(request.rid, request.key, None, handler, stream)
            await chain(self._middleware, partial(_listen, listener))(call)
        except Exception as error:
            await finish(stream, handler, error)
        else:
            await finish(stream, handler)


async def _listen(listener: Callable[..., Any], call: IncomingCall) -> None:
    what = call.payload if call.stream is None else call.stream
    outcome = listener(call.rid, call.key, what, call.handler)
    if inspect.isawaitable(outcome):
        await outcome
