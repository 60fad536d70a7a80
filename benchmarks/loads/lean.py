"""Loads that cost next to nothing themselves: a bare TCP echo, and a WebSocket client that repeats itself."""

from __future__ import annotations

import asyncio
import json
import os
import time
from functools import partial
from typing import Any, cast

from .orders import orders_aio, payload, report, say

RID = "11111111-1111-4111-8111-111111111111"


class EchoServer(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class EchoClient(asyncio.Protocol):
    def __init__(self, size: int, ends: float, done: asyncio.Future[int]):
        self.message = b"x" * size
        self.ends = ends
        self.done = done
        self.calls = self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)
        if self.got < len(self.message):
            return
        self.got = 0
        self.calls += 1
        if time.perf_counter() < self.ends:
            self.transport.write(self.message)
        else:
            self.done.set_result(self.calls)
            self.transport.close()


async def serve_echo() -> None:
    server = await asyncio.get_running_loop().create_server(EchoServer, "127.0.0.1", 0)
    say({"ready": server.sockets[0].getsockname()[1]})
    async for _ in orders_aio():
        pass


async def call_echo() -> None:
    """A connection for each message in flight: what is possible without RPC."""
    loop = asyncio.get_running_loop()
    say({"ready": True})
    async for order in orders_aio():
        started = time.perf_counter()
        ends = started + order["seconds"]
        done: list[asyncio.Future[int]] = [loop.create_future() for _ in range(order["in_flight"])]
        for each in done:
            client = partial(EchoClient, order["size"], ends, each)
            await loop.create_connection(client, "127.0.0.1", order["port"])
        report(sum(await asyncio.gather(*done)), started)


async def call_ws() -> None:
    """What ``wrk`` is for HTTP: one connection, on which the same request is sent again for each reply, which
    is counted and not read.
    """
    from picows import WSCloseCode, WSFrame, WSListener, WSTransport, ws_connect

    from grenache_py.transports.ws_frames import encode_frame

    class Load(WSListener):
        """``in_flight`` copies of ``request`` under way, until ``ends``."""

        def __init__(self, request: bytes, in_flight: int, ends: float, ended: asyncio.Future[None]):
            super().__init__()
            self.request, self.in_flight, self.ends, self.ended = request, in_flight, ends, ended
            self.calls = self.due = 0

        def on_ws_connected(self, transport: WSTransport) -> None:
            transport.underlying_transport.write(self.request * self.in_flight)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            self.calls += 1
            self.due += 1
            if frame.last_in_buffer:
                if time.perf_counter() < self.ends:
                    transport.underlying_transport.write(self.request * self.due)
                elif not self.ended.done():
                    self.ended.set_result(None)
                self.due = 0

    say({"ready": True})
    async for order in orders_aio():
        message = json.dumps([RID, "bench", payload(order["size"], 1)]).encode()
        request = encode_frame(1, message, os.urandom(4))
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        started = time.perf_counter()
        made = Load(request, order["in_flight"], started + order["seconds"], ended)
        url = f"ws://127.0.0.1:{order['port']}/ws"
        transport, load = await ws_connect(lambda made=made: made, url, use_aiofastnet=False)
        await ended
        assert isinstance(load, Load)
        report(load.calls, started)
        transport.send_close(WSCloseCode.OK)
        transport.disconnect()
        await transport.wait_disconnected()


def wrk_script(size: int) -> str:
    """The same request for ``wrk``, and a line ``RESULT requests microseconds errors``."""
    body = json.dumps([RID, "bench", payload(size, 1)])
    return (
        f"wrk.method = 'POST'; wrk.body = '{body}'; wrk.headers['grc-compress'] = 'none'\n"
        "wrk.headers['Content-Type'] = 'text/plain;charset=UTF-8'\n"
        "done = function(summary) io.write(string.format('RESULT %d %d %d\\n', summary.requests,"
        " summary.duration, summary.errors.status + summary.errors.read + summary.errors.connect)) end\n"
    )


LOADS: dict[str, Any] = {"echo": call_echo, "lean": call_ws}
