"""Ports that listen, and what becomes of who comes as they end."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from grenache_py.transports.ports import bind, serve


class Told(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
@pytest.mark.parametrize("turns", range(6))
async def test_whoever_comes_as_a_port_is_closed_does_not_wait_for_nothing(turns: int) -> None:
    loop = asyncio.get_running_loop()
    loop.set_debug(True)  # else it says nothing of connections that it drops
    faults: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: faults.append(context))
    sock = await bind(loop, 0, "127.0.0.1")
    listener = await serve(sock, Told, None)
    with socket.create_connection(sock.getsockname()) as comer:
        comer.setblocking(False)
        for _ in range(turns):  # after two of them asyncio has accepted the connection, and no more than that
            await asyncio.sleep(0)
        listener.close()
        await listener.wait_closed()
        try:
            said = await asyncio.wait_for(loop.sock_recv(comer, 1), 10)
        except ConnectionResetError:
            said = b""
    assert said == b""
    assert faults == []
