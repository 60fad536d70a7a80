"""An HTTP/1.1 server to be spoken to in raw bytes, and what is needed for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from grenache_py.transports.http1 import HttpServer
from grenache_py.transports.http1_exchange import Exchange

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
POST = b"POST /lookup HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"


class Served(HttpServer):
    """The server, and the clients a test connected to it."""

    def __init__(self, handle: Callable[[Exchange], None], **options: Any) -> None:
        super().__init__(handle, max_body=100, **options)
        self.clients: list[asyncio.StreamWriter] = []


@asynccontextmanager
async def serving(
    handle: Callable[[Exchange], None], host: str | None = "127.0.0.1", tls: Any = None, **options: Any
) -> AsyncIterator[Served]:
    server = Served(handle, **options)
    await server.listen(0, host, tls)
    try:
        yield server
    finally:
        for writer in server.clients:
            writer.transport.abort()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        await server.close()


async def connect(server: Served, tls: Any = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
    server.clients.append(writer)
    return reader, writer


async def send(server: Served, data: bytes) -> bytes:
    """Everything the server says to ``data`` until it closes."""
    reader, writer = await connect(server)
    writer.write(data)
    return await asyncio.wait_for(reader.read(), 10)


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode()
    lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    body = await asyncio.wait_for(reader.readexactly(int(headers.get("Content-Length", 0))), 10)
    return int(lines[0].split()[1]), headers, body


def echo(exchange: Exchange) -> None:
    exchange.reply(200, exchange.body)


async def until(check: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not check():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.002)
