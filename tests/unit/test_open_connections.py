"""The connections that tests are held responsible for (``tests/open_connections.py``)."""

from __future__ import annotations

import asyncio
import socket

import pytest


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_comes_as_a_server_is_closed_is_told(turns: int) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    with socket.create_connection(server.sockets[0].getsockname()) as comer:
        comer.setblocking(False)
        for _ in range(turns):  # after two of them the connection is accepted, and not yet attached
            await asyncio.sleep(0)
        server.close()
        try:
            said = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(comer, 1), 10)
        except ConnectionResetError:
            said = b""
        assert said == b""
