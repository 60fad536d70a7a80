"""Connections to the HTTP/1.1 server: how many, for how long, over which ports."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any

import pytest

from grenache_py.tls import Certificate
from grenache_py.transports.http1 import HttpServer
from grenache_py.transports.http1_connection import PIPELINED_MAX
from grenache_py.transports.http1_exchange import Exchange
from grenache_py.transports.turns import TURN_REQUESTS
from tests.unit.http1_serving import POST, connect, echo, read_reply, serving, until
from tests.unit.tls_files import make_ca


async def test_half_closed_client_still_gets_its_answer() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        reader, writer = await connect(server)
        writer.write(POST)
        writer.write_eof()
        await until(lambda: waiting)
        waiting[0].reply(200, b"late")
        assert (await read_reply(reader))[2] == b"late"
        assert await reader.read() == b""


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append, keep_alive_s=0.05, request_timeout_s=30) as server:
        busy_reader, busy = await connect(server)
        busy.write(POST)
        idle_reader, idle = await connect(server)
        idle.write(POST)
        await until(lambda: len(waiting) == 2)
        waiting[1].reply(200, b"")
        await read_reply(idle_reader)
        assert await asyncio.wait_for(idle_reader.read(), 10) == b""
        waiting[0].reply(200, b"still here")
        assert (await read_reply(busy_reader))[2] == b"still here"


@pytest.mark.parametrize(
    "start", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_a_request_that_does_not_come_is_given_up(start: bytes) -> None:
    async with serving(echo, request_timeout_s=0.05) as server:
        reader, writer = await connect(server)
        writer.write(start)
        said = await asyncio.wait_for(reader.read(), 10)
        assert said.startswith(b"HTTP/1.1 408 ") if start else said == b""
        writer.close()
        await until(lambda: not server.connections)


async def test_a_client_that_does_not_read_is_dropped() -> None:
    big = b"x" * 4_000_000
    handled: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        handled.append(exchange)
        exchange.reply(200, big)

    async with serving(handle, request_timeout_s=0.1) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.sendall(POST * 1000)
        await until(lambda: handled)
        # The first replies fill the transport: the handler gets no more work from this connection.
        await until(lambda: not server.connections)
        assert len(handled) < 10
        sock.close()


async def test_connections_are_bounded_and_idle_ones_make_room() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append, max_connections=2) as server:
        idle_reader, _ = await connect(server)
        reader, writer = await connect(server)
        writer.write(POST)
        await until(lambda: len(waiting) == 1)
        new_reader, new_writer = await connect(server)
        assert await idle_reader.read() == b""
        new_writer.write(POST)
        await until(lambda: len(waiting) == 2)
        # Both have a request in hand now: who comes is told so, also after it has asked.
        late_reader, late_writer = await connect(server)
        late_writer.write(POST * 1000)
        assert (await read_reply(late_reader))[0] == 503
        assert await late_reader.read() == b""
        late_writer.close()
        for each, each_reader in zip(waiting, (reader, new_reader), strict=True):
            each.reply(200, b"done")
            assert (await read_reply(each_reader))[0] == 200
        await until(lambda: len(server.connections) == 2)


async def test_a_crowd_of_silent_connections_shuts_nobody_out() -> None:
    async with serving(echo, max_connections=20) as server:
        crowd = [await connect(server) for _ in range(100)]
        await until(lambda: len(server.connections) <= 20)
        reader, writer = await connect(server)
        writer.write(POST)
        assert (await read_reply(reader))[0] == 200
        assert len(crowd) == 100


async def test_those_who_hold_most_of_the_memory_are_ended(caplog: pytest.LogCaptureFixture) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
    async with serving(echo, max_held=150, keep_alive_s=0.4, on_busy=(503, b"BUSY")) as server:
        peers = [await connect(server) for _ in range(3)]
        for size, (_, writer) in zip((80, 90, 60), peers, strict=True):
            writer.write(head + b"x" * size)
        assert (await read_reply(peers[1][0]))[::2] == (503, b"BUSY")
        for peer, size in ((0, 80), (2, 60)):
            peers[peer][1].write(b"x" * (100 - size))
            assert (await read_reply(peers[peer][0]))[2] == b"x" * 100
    assert "connections hold 230 bytes" in caplog.text


async def test_who_takes_no_replies_is_cut_off_when_they_fill_the_memory() -> None:
    megabyte = b"x" * 1024 * 1024
    waiting: list[Exchange] = []
    async with serving(waiting.append, max_held=20 * len(megabyte), keep_alive_s=0.4) as server:
        _, writer = await connect(server)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(POST * PIPELINED_MAX)
        await until(lambda: len(waiting) == PIPELINED_MAX)
        for exchange in waiting[1:]:  # held back, since the first is still to come
            exchange.reply(200, megabyte)
        await until(lambda: not server.connections)
        other_reader, other_writer = await connect(server)
        other_writer.write(POST)
        await until(lambda: len(waiting) > PIPELINED_MAX)
        waiting[-1].reply(200, megabyte)
        assert (await read_reply(other_reader))[2] == megabyte


async def test_one_address_does_not_hold_up_the_others() -> None:
    handled: list[str] = []

    def handle(exchange: Exchange) -> None:
        handled.append(exchange.peer[0])
        exchange.reply(200, b"")

    async with serving(handle) as server:
        flood = [
            await asyncio.open_connection("127.0.0.1", server.port, local_addr=("127.0.0.2", 0))
            for _ in range(20)
        ]
        server.clients += [each for _, each in flood]
        reader, writer = await connect(server)
        for _, each in flood:
            each.write(POST * 200)
        writer.write(POST)
        assert (await read_reply(reader))[0] == 200
        assert handled.index("127.0.0.1") < 10 * TURN_REQUESTS
        await until(lambda: len(handled) == 20 * 200 + 1)
        for each_reader, _ in flood:
            for _ in range(200):
                assert (await read_reply(each_reader))[0] == 200


async def test_close_drains_what_is_in_hand() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        idle_reader, _ = await connect(server)
        reader, writer = await connect(server)
        writer.write(POST + POST)
        await until(lambda: len(waiting) == 2)
        closing = asyncio.ensure_future(server.close(drain_s=10))
        assert await idle_reader.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await connect(server)
        waiting[1].reply(200, b"2")
        waiting[0].reply(200, b"1")
        await asyncio.wait_for(closing, 10)
        assert (await read_reply(reader))[2] == b"1"
        assert (await read_reply(reader))[2] == b"2"
        assert await reader.read() == b""


async def test_close_does_not_wait_longer_than_it_was_told() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        _, writer = await connect(server)
        writer.write(POST)
        await until(lambda: waiting)
        await server.close(drain_s=0.01)
        assert waiting[0].closed
        waiting[0].reply(200, b"")


async def test_listens_again_on_the_same_port_at_once() -> None:
    async with serving(echo) as server:
        port = server.port
        reader, writer = await connect(server)
        writer.write(POST)
        await read_reply(reader)
        await server.close()
        await server.listen(port, "127.0.0.1")
        assert server.port == port
        reader, writer = await connect(server)
        writer.write(POST)
        assert (await read_reply(reader))[2] == b"hi"


async def test_all_interfaces_share_one_port() -> None:
    async with serving(lambda exchange: exchange.reply(200, exchange.peer[0].encode()), host=None) as server:
        reader, writer = await connect(server)
        writer.write(POST)
        assert (await read_reply(reader))[2] == b"127.0.0.1"


async def test_a_taken_port_is_an_error() -> None:
    async with serving(echo) as server:
        other = HttpServer(echo, max_body=10)
        with pytest.raises(OSError, match="in use"):
            await other.listen(server.port, "127.0.0.1")
        with pytest.raises(RuntimeError):
            await server.listen(0, "127.0.0.1")
        with pytest.raises(RuntimeError):
            assert other.port
        await other.close()


async def test_tls_and_the_client_certificate(tmp_path: Any) -> None:
    ca = make_ca(tmp_path)
    seen: list[tuple[bool, Certificate | None]] = []

    def handle(exchange: Exchange) -> None:
        seen.append((exchange.secure, exchange.certificate))
        exchange.reply(200, b"secret")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=ca.ca_file)
    context.load_cert_chain(ca.server_cert, ca.server_key)
    context.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=ca.ca_file)
    client.load_cert_chain(ca.client_cert, ca.client_key)
    async with serving(handle, tls=context) as server:
        reader, writer = await connect(server, client)
        writer.write(POST)
        assert (await read_reply(reader))[2] == b"secret"
    ((secure, certificate),) = seen
    assert secure
    assert certificate is not None
    assert certificate.common_name == "client"
    assert certificate.der == ssl.PEM_cert_to_DER_cert(ca.client_cert.read_text())
