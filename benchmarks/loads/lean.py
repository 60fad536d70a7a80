"""Loads that cost next to nothing themselves: a bare TCP echo, and a WebSocket client that repeats itself."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import time
from functools import partial
from typing import Any, cast

from .orders import orders_aio, payload, report, say

RID = "11111111-1111-4111-8111-111111111111"
READ_BYTES = 256 * 1024


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

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("the echo has ended"))


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
    is counted and not read. All replies are as long as the first one.
    """
    from grenache_py.transports.ws_frames import encode_frame

    say({"ready": True})
    async for order in orders_aio():
        message = json.dumps([RID, "bench", payload(order["size"], 1)]).encode()
        with socket.create_connection(("127.0.0.1", order["port"])) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _shake_hands(sock)
            _repeat(sock, encode_frame(1, message, os.urandom(4)), order["in_flight"], order["seconds"])


def _shake_hands(sock: socket.socket) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head


def _repeat(sock: socket.socket, request: bytes, in_flight: int, seconds: float) -> None:
    """``in_flight`` copies of ``request`` under way, and the calls of ``seconds`` reported."""
    sock.sendall(request)
    reply = sock.recv(2, socket.MSG_PEEK | socket.MSG_WAITALL)
    header = {126: 4, 127: 10}.get(reply[1], 2)
    reply = sock.recv(header, socket.MSG_PEEK | socket.MSG_WAITALL)
    length = header + (int.from_bytes(reply[2:], "big") if header > 2 else reply[1])
    sock.recv(length, socket.MSG_WAITALL)

    calls = come = 0
    buffer = bytearray(READ_BYTES)  # one for all: else each reply has memory mapped and unmapped for it
    started = time.perf_counter()
    ends = started + seconds
    sock.sendall(request * in_flight)
    while time.perf_counter() < ends:
        come += sock.recv_into(buffer)
        replies, come = divmod(come, length)
        if replies:
            calls += replies
            sock.sendall(request * replies)
    report(calls, started)


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
