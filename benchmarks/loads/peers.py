"""Our servers and clients, of either flavour and transport; each is a process of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from .orders import PEERS, orders, orders_aio, payload, report, say


def echo(rid: Any, key: Any, payload: Any, handler: Any) -> None:
    handler.reply(None, payload)


def check(results: list[Any]) -> None:
    assert len(results) == PEERS - 1, len(results)
    assert all(result.ok for result in results)


def serve_sync(transport: str, grape: str, name: str) -> None:
    """``PEERS`` services: the first is announced under ``name``, the others under it and ``:map``."""
    from grenache_py import Link, PeerRPCServer, ws

    with Link(grape) as link:
        server: Any = (PeerRPCServer if transport == "http" else ws.PeerRPCServer)(link)
        ports = []
        for number in range(PEERS):
            service = server.transport()
            service.on("request", echo)
            service.listen(0, "127.0.0.1")
            ports.append(service.port)
            link.announce(name if number == 0 else f"{name}:map", service.port)
        say({"ready": ports[0]})
        for _ in orders():
            pass


def call_sync(transport: str, grape: str) -> None:
    """A thread for each call that is to be in flight."""
    from grenache_py import Link, PeerRPCClient, ws

    with Link(grape) as link:
        client: Any = (PeerRPCClient if transport == "http" else ws.PeerRPCClient)(link)
        say({"ready": True})
        for order in orders():
            counts: list[int] = []
            started = time.perf_counter()
            arguments = (client, order, started + order["seconds"], counts)
            threads = [threading.Thread(target=_work, args=arguments) for _ in range(order["in_flight"])]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            report(sum(counts), started)


def _work(client: Any, order: dict[str, Any], ends: float, counts: list[int]) -> None:
    calls = 0
    name, size = order["name"], order["size"]
    while time.perf_counter() < ends:
        if order["call"] == "map":
            check(client.map(f"{name}:map", payload(size, calls)))
        else:
            client.request(name, payload(size, calls))
        calls += 1
    counts.append(calls)


async def serve_aio(transport: str, grape: str, name: str, options: dict[str, Any]) -> None:
    """As ``serve_sync``."""
    from grenache_py.aio import Link, PeerRPCServer, ws

    async with Link(grape) as link:
        server: Any = (PeerRPCServer if transport == "http" else ws.PeerRPCServer)(link, **options)
        ports = []
        for number in range(PEERS):
            service = server.transport()
            service.on("request", echo)
            await service.listen(0, "127.0.0.1")
            ports.append(service.port)
            await link.announce(name if number == 0 else f"{name}:map", service.port)
        say({"ready": ports[0]})
        async for _ in orders_aio():
            pass


async def call_aio(transport: str, grape: str, options: dict[str, Any]) -> None:
    """A task for each call that is to be in flight."""
    from grenache_py.aio import Link, PeerRPCClient, ws

    async with Link(grape) as link:
        client: Any = (PeerRPCClient if transport == "http" else ws.PeerRPCClient)(link, **options)
        say({"ready": True})
        async for order in orders_aio():
            started = time.perf_counter()
            ends = started + order["seconds"]
            counts = await asyncio.gather(
                *[_work_aio(client, order, ends) for _ in range(order["in_flight"])]
            )
            report(sum(counts), started)


async def _work_aio(client: Any, order: dict[str, Any], ends: float) -> int:
    calls = 0
    name, size = order["name"], order["size"]
    while time.perf_counter() < ends:
        if order["call"] == "map":
            check(await client.map(f"{name}:map", payload(size, calls)))
        else:
            await client.request(name, payload(size, calls))
        calls += 1
    return calls
