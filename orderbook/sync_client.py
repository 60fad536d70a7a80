"""The client of :mod:`orderbook.client` for programs without asyncio: the same methods, which block.

    with SyncClient("http://127.0.0.1:8081") as client:
        placed = client.submit("BTC-USD", "buy", "0.5", "78318.00", owner="bob")
        for order in client.orders(status="live"):
            ...

All of a process share one event loop, in a thread of its own; any thread may call, also in a forked process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import closing
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from weakref import WeakSet

from grenache_py.transports.loop import LoopUser

from .client import CONNECTIONS, TIMEOUT_S, Client, ClientError, OnBreak, tell_of_break

P = ParamSpec("P")
Result = TypeVar("Result")


def _blocking(
    method: Callable[Concatenate[Client, P], Coroutine[Any, Any, Result]],
) -> Callable[Concatenate[SyncClient, P], Result]:
    @wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        return self._loop.borrow().run(method(self._client, *args, **kwargs))

    return call


def _iterated(
    method: Callable[Concatenate[Client, P], AsyncGenerator[Result, None]],
) -> Callable[Concatenate[SyncClient, P], Generator[Result, None, None]]:
    @wraps(method)
    def iterate(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Generator[Result, None, None]:
        items = method(self._client, *args, **kwargs)
        try:
            while found := self._loop.borrow().run(_next(items)):
                yield from found
        finally:
            if self._loop.thread is not None:  # else the client is closed, and all has ended with it
                self._loop.thread.run(items.aclose())

    return iterate


def _followed(
    method: Callable[Concatenate[Client, P], AsyncGenerator[Result, None]],
    news: Callable[..., AsyncGenerator[Result | ClientError, None]],
) -> Callable[Concatenate[SyncClient, P], Generator[Result, None, None]]:
    """``on_break`` is called by the thread that iterates, which may wait there, and call the client."""
    iterate = _iterated(news)

    @wraps(method)
    def follow(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Generator[Result, None, None]:
        on_break = cast("OnBreak | None", kwargs.pop("on_break", None))
        with closing(iterate(self, *args, **kwargs)) as news:
            for each in news:
                if isinstance(each, ClientError):
                    tell_of_break(on_break, each)
                else:
                    yield each

    return follow


async def _next(items: AsyncGenerator[Result, None]) -> list[Result]:
    """The next one, or nothing when there is none."""
    try:
        return [await anext(items)]
    except StopAsyncIteration:
        return []


class SyncClient:
    """Calls the client API of one peer. Use it as a context manager, or call :meth:`close`.

    Its methods are those of :class:`~orderbook.client.Client`, with the same arguments and errors; after
    :meth:`close` they raise :class:`~grenache_py.errors.ClosedError`. Iterators end with their ``close()``.
    """

    def __init__(
        self,
        api: str,
        *,
        timeout_s: float = TIMEOUT_S,
        retry_s: float = 0.0,
        connections: int = CONNECTIONS,
    ):
        """As :class:`~orderbook.client.Client`. Raises InvalidFieldError."""
        self._new = partial(Client, api, timeout_s=timeout_s, retry_s=retry_s, connections=connections)
        self._client = self._new()
        self._inherited: list[Client] = []
        self._loop = LoopUser()
        self.api = self._client.api
        _clients.add(self)

    def __enter__(self) -> SyncClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; calls in other threads fail."""
        self._loop.end(self._client.close)

    def _after_fork(self) -> None:
        # The connections are the parent's; to forget them here would be to close them on a loop that is not.
        self._inherited.append(self._client)
        self._client = self._new()

    submit = _blocking(Client.submit)
    submit_pair = _blocking(Client.submit_pair)
    mass_quote = _blocking(Client.mass_quote)
    amend = _blocking(Client.amend)
    cancel = _blocking(Client.cancel)
    order = _blocking(Client.order)
    closed = _blocking(Client.closed)
    traded = _blocking(Client.traded)
    orders_page = _blocking(Client.orders_page)
    orders = _iterated(Client.orders)
    trades_page = _blocking(Client.trades_page)
    trades = _iterated(Client.trades)
    follow_trades = _followed(Client.follow_trades, Client._trades)
    proof = _blocking(Client.proof)
    doubts = _blocking(Client.doubts)
    resolve = _blocking(Client.resolve)
    prove = _blocking(Client.prove)
    book = _blocking(Client.book)
    follow = _followed(Client.follow, Client._books)
    peers = _blocking(Client.peers)
    reservations = _blocking(Client.reservations)
    set_state = _blocking(Client.set_state)
    health = _blocking(Client.health)


_clients: WeakSet[SyncClient] = WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
