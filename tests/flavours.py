"""Both flavours behind one face, so that one test runs on either.

``Sync`` is ``grenache_py`` itself. ``Aio`` is ``grenache_py.aio`` on a loop in a thread: its objects are
wrapped so that what they return to ``await`` is awaited there.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import grenache_py
import grenache_py.aio


class Sync:
    name = "sync"
    module = grenache_py

    def __init__(self) -> None:
        self._made: list[Any] = []

    def make(self, cls_name: str, *args: Any, **options: Any) -> Any:
        made = getattr(self.module, cls_name)(*args, **options)
        self._made.append(made)
        return made

    def link(self, grape: str, **options: Any) -> Any:
        return self.make("Link", grape, **options)

    def client(self, link: Any, **options: Any) -> Any:
        return self.make("PeerRPCClient", link, **options)

    def server(self, link: Any, **options: Any) -> Any:
        return self.make("PeerRPCServer", link, **options)

    def worker(self, link: Any, names: Any, actions: Any, **options: Any) -> Any:
        return self.make("Worker", link, names, actions, **options)

    def action_client(self, client: Any, **options: Any) -> Any:
        return self.make("ActionClient", client, **options)

    def service(self, handler: Callable[..., Any], link: Any = None, **options: Any) -> Any:
        """A service that listens on loopback."""
        if link is None:
            link = self.link("http://127.0.0.1:1")
        service = self.server(link, **options).transport("server")
        service.on("request", handler)
        service.listen(0, "127.0.0.1")
        return service

    def streaming(self, handler: Callable[..., Any], link: Any = None, **options: Any) -> Any:
        """A service of streams that listens on loopback; ``handler`` is a coroutine function for both."""
        if link is None:
            link = self.link("http://127.0.0.1:1")
        service = self.server(link, disable_buffered=True, **options).transport("server")
        service.on("stream", self._listener(handler))
        service.listen(0, "127.0.0.1")
        return service

    def _listener(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        def listen(rid: Any, key: Any, stream: Any, replier: Any) -> None:
            asyncio.run(handler(rid, key, Awaitable(stream), replier))

        return listen

    def close(self) -> None:
        while self._made:
            made = self._made.pop()
            if hasattr(made, "stop"):
                made.stop()


class Awaitable:
    """A stream of the synchronous flavour with the face of the other."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._stream, name)

        async def call(*args: Any) -> Any:
            return value(*args)

        return call if callable(value) else value

    async def __aiter__(self) -> Any:
        for piece in self._stream:
            yield piece


class Aio(Sync):
    name = "aio"
    module = grenache_py.aio

    def _listener(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        return handler

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def make(self, cls_name: str, *args: Any, **options: Any) -> Any:
        inner = [unwrap(argument) for argument in args]
        named = {name: unwrap(option) for name, option in options.items()}
        made = Awaited(getattr(self.module, cls_name)(*inner, **named), self.loop)
        self._made.append(made)
        return made

    def close(self) -> None:
        try:
            super().close()
            # aiohttp closes its transports in callbacks that are still to run.
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self.loop).result(10)
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


class Awaited:
    """An object of the asyncio flavour whose methods are called on its loop, and awaited."""

    def __init__(self, inner: Any, loop: asyncio.AbstractEventLoop):
        self.inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            async def run() -> Any:
                result = value(*args, **options)
                if inspect.isasyncgen(result):
                    return [item async for item in result]
                return await result if inspect.isawaitable(result) else result

            result = asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)
            if type(result).__module__.startswith(("grenache_py.aio", "grenache_py.transports.streams")):
                return self if result is self.inner else Awaited(result, self._loop)
            return result

        return call


def unwrap(thing: Any) -> Any:
    return thing.inner if isinstance(thing, Awaited) else thing


@pytest.fixture(params=[Sync, Aio], ids=lambda cls: cls.name)
def flavour(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Either flavour; what it made is stopped after the test."""
    made = request.param()
    yield made
    made.close()
