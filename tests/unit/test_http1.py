"""The HTTP/1.1 server, spoken to in raw bytes: what it is sent and what it says."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from random import Random

import pytest

from grenache_py.transports.http1_connection import PIPELINED_MAX
from grenache_py.transports.http1_exchange import Exchange
from grenache_py.transports.http1_requests import HEAD_BYTES_MAX, HEADERS_MAX
from tests.unit.http1_serving import CHUNKED, POST, connect, echo, read_reply, send, serving, until
from tests.unit.polls import still_poll


async def test_reply_as_node_sends_it() -> None:
    async with serving(echo) as server:
        reader, writer = await connect(server)
        writer.write(POST)
        raw = await reader.readuntil(b"hi")
    date = raw.split(b"\r\n")[1]
    assert date.startswith(b"Date: ")
    assert date.endswith(b" GMT")
    assert raw == (
        b"HTTP/1.1 200 OK\r\n%b\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n"
        b"Content-Length: 2\r\n\r\nhi" % date
    )


async def test_what_the_handler_sees() -> None:
    seen: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        seen.append(exchange)
        exchange.reply(200, b"", [("X-Was", exchange.headers["x-a"])])

    async with serving(handle) as server:
        reader, writer = await connect(server)
        own_address = writer.get_extra_info("sockname")
        writer.write(
            b"PUT /a%20b?c=d HTTP/1.1\r\nHoSt: here\r\nX-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\n\x00\xff!"
        )
        status, headers, _ = await read_reply(reader)
    (exchange,) = seen
    assert (exchange.method, exchange.target, exchange.body) == ("PUT", "/a%20b?c=d", b"\x00\xff!")
    assert exchange.headers == {"host": "here", "x-a": "1, 2", "content-length": "3"}
    assert exchange.peer == own_address
    assert not exchange.secure
    assert exchange.certificate is None
    assert (status, headers["X-Was"]) == (200, "1, 2")


@pytest.mark.parametrize(
    "request_bytes",
    [POST, CHUNKED + b"1\r\nh\r\n1;x=y\r\ni\r\n0\r\nT: v\r\n\r\n"],
    ids=["content-length", "chunked"],
)
async def test_any_cut_of_the_input_gives_the_same_reply(request_bytes: bytes) -> None:
    async with serving(echo) as server:
        reader, writer = await connect(server)
        for cut in range(1, len(request_bytes), 7):
            for piece in (request_bytes[:cut], request_bytes[cut:]):
                writer.write(piece)
                await asyncio.sleep(0)
            assert (await read_reply(reader))[2] == b"hi"
        for byte in request_bytes:
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await read_reply(reader))[2] == b"hi"


async def test_pipelined_replies_keep_the_order_of_the_requests() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        reader, writer = await connect(server)
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(5)))
        await until(lambda: len(waiting) == 5)
        for exchange in reversed(waiting):
            exchange.reply(200, exchange.target.encode())
        assert [(await read_reply(reader))[2] for _ in range(5)] == [b"/%d" % n for n in range(5)]


async def test_the_next_request_is_expected_when_all_are_answered() -> None:
    poll = still_poll()
    waiting: list[Exchange] = []
    async with serving(waiting.append, poll=poll) as server:
        reader, writer = await connect(server)
        poll.expect()
        for _ in range(2):  # the second time the head is known
            writer.write(POST)
            await until(lambda: waiting)
            assert poll.expected == 0
            echo(waiting.pop())
            assert poll.expected == 1
            await read_reply(reader)
        writer.write(POST + POST)
        await until(lambda: len(waiting) == 2)
        echo(waiting.pop(0))
        assert poll.expected == 0
        echo(waiting.pop())
        assert poll.expected == 1


async def test_who_has_its_last_reply_is_expected_no_more() -> None:
    poll = still_poll()
    async with serving(echo, poll=poll) as server:
        await send(server, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await send(server, b"no HTTP at all\r\n\r\n")
    assert poll.expected == 0


async def test_pipelining_is_bounded_and_everything_is_answered() -> None:
    waiting: list[Exchange] = []
    total = PIPELINED_MAX * 3
    async with serving(waiting.append) as server:
        reader, writer = await connect(server)
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(total)))
        answered = 0
        while answered < total:
            await until(lambda: waiting)
            assert len(waiting) <= PIPELINED_MAX
            waiting.pop(0).reply(200, b"x")
            answered += 1
        for _ in range(total):
            assert (await read_reply(reader))[2] == b"x"


async def test_a_second_reply_is_an_error_and_a_reply_to_nobody_is_not() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        _, writer = await connect(server)
        writer.write(POST)
        await until(lambda: waiting)
        reset = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        writer.transport.abort()
        await until(lambda: waiting[0].closed)
        waiting[0].reply(200, b"")
        with pytest.raises(RuntimeError, match="already been answered"):
            waiting[0].reply(200, b"")


@pytest.mark.parametrize(
    ("name", "value"), [("X-A", "b\r\nEvil: 1"), ("Bad Name", "x"), ("Content-Length", "5"), ("X-A", "ž")]
)
async def test_a_header_that_breaks_the_framing_is_refused(name: str, value: str) -> None:
    errors: list[str] = []

    def handle(exchange: Exchange) -> None:
        try:
            exchange.reply(200, b"", [(name, value)])
        except ValueError as error:
            errors.append(str(error))
            exchange.reply(200, b"still open")

    async with serving(handle) as server:
        reader, writer = await connect(server)
        writer.write(POST)
        assert (await read_reply(reader))[2] == b"still open"
    assert name in errors[0]


async def test_a_body_over_the_limit_is_refused_at_once_and_the_connection_stays_usable() -> None:
    async with serving(echo, on_too_large=(413, b"TOO BIG")) as server:
        reader, writer = await connect(server)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300\r\n\r\n" + b"x" * 101)
        status, headers, body = await read_reply(reader)
        assert (status, headers["Connection"], body) == (413, "keep-alive", b"TOO BIG")
        writer.write(b"x" * 199 + POST)
        assert (await read_reply(reader))[0::2] == (200, b"hi")
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"y" * 100)
        assert (await read_reply(reader))[2] == b"y" * 100


async def test_an_endless_body_is_cut_off() -> None:
    async with serving(echo) as server:
        _, writer = await connect(server)
        writer.write(CHUNKED)
        while server.connections and not writer.is_closing():
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await asyncio.sleep(0)
        await until(lambda: not server.connections)


async def test_a_head_request_gets_the_length_without_the_body() -> None:
    async with serving(lambda exchange: exchange.reply(500, b"12345")) as server:
        said = await send(server, b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert said.endswith(b"Connection: close\r\nContent-Length: 5\r\n\r\n")


async def test_no_content_has_no_length() -> None:
    async with serving(lambda exchange: exchange.reply(204, b"")) as server:
        said = await send(server, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"Content-Length" not in said


@pytest.mark.parametrize("extra", [b"", b"Connection: keep-alive\r\n"])
async def test_http_1_0_is_answered_and_closed(extra: bytes) -> None:
    async with serving(echo) as server:
        said = await send(server, b"POST / HTTP/1.0\r\nContent-Length: 2\r\n%b\r\nhi" % extra)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in said
    assert said.endswith(b"\r\n\r\nhi")


async def test_expect_continue_is_granted_after_the_replies_before_it() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        reader, writer = await connect(server)
        writer.write(
            POST + b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        await until(lambda: waiting)
        waiting[0].reply(200, b"first")
        assert (await read_reply(reader))[2] == b"first"
        assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"ok")
        await until(lambda: len(waiting) == 2)
        waiting[1].reply(200, waiting[1].body)
        assert (await read_reply(reader))[2] == b"ok"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
        (b"GET /" + b"a" * HEAD_BYTES_MAX + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * HEADERS_MAX + b"\r\n", 431),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_not_http_is_told_so_and_closed(request_bytes: bytes, status: int) -> None:
    handled: list[Exchange] = []
    async with serving(handled.append) as server:
        said = await send(server, request_bytes)
    assert said.startswith(b"HTTP/1.1 %d " % status)
    assert b"Connection: close\r\n" in said
    assert said.count(b"HTTP/1.1") == 1
    assert handled == []


@pytest.mark.parametrize("filler", [b"X: " + b"a" * 1000, b"GET /" + b"a" * 1000], ids=["header", "target"])
async def test_a_head_that_never_ends_is_cut_off(filler: bytes) -> None:
    async with serving(echo) as server:
        reader, writer = await connect(server)
        if filler.startswith(b"X"):
            writer.write(b"GET / HTTP/1.1\r\n")
        writer.write(filler)
        reply = asyncio.ensure_future(read_reply(reader))
        sent = 0
        while not reply.done():
            writer.write(b"a" * 1000)
            sent += 1000
            await asyncio.sleep(0.001)
        assert reply.result()[0] == 431
        assert sent < 10 * HEAD_BYTES_MAX


async def test_errors_wait_for_the_replies_before_them() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        reader, writer = await connect(server)
        writer.write(POST + b"nonsense\r\n\r\n")
        await until(lambda: waiting)
        waiting[0].reply(200, b"first")
        assert (await read_reply(reader))[0::2] == (200, b"first")
        assert (await read_reply(reader))[0] == 400
        assert await reader.read() == b""


async def test_nothing_after_connection_close_is_looked_at() -> None:
    handled: list[str] = []

    def handle(exchange: Exchange) -> None:
        handled.append(exchange.target)
        exchange.reply(200, b"")

    async with serving(handle) as server:
        said = await send(
            server, b"GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\n\r\n"
        )
    assert handled == ["/1"]
    assert said.count(b"HTTP/1.1") == 1


async def test_an_upgrade_is_not_granted() -> None:
    async with serving(echo) as server:
        said = await send(
            server,
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x00",
        )
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in said


OFFER = (
    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEAAEAAAAIAAAAB\r\nContent-Length: 5\r\n\r\nhello"
)


@pytest.mark.parametrize("size", [1, 7, 1000])
async def test_an_offer_of_another_protocol_is_passed_over(size: int) -> None:
    chunked = OFFER.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked")
    chunked = chunked.replace(b"hello", b"5\r\nworld\r\n0\r\n\r\n")
    async with serving(echo) as server:
        reader, writer = await connect(server)
        sent = OFFER + POST + chunked + POST
        for start in range(0, len(sent), size):
            writer.write(sent[start : start + size])
            await asyncio.sleep(0)
        for body in (b"hello", b"hi", b"world", b"hi"):
            status, headers, got = await read_reply(reader)
            assert (status, headers["Connection"], got) == (200, "keep-alive", body)


@pytest.mark.parametrize(
    ("offer", "end"),
    [
        (OFFER.replace(b"Upgrade, HTTP2", b"close, Upgrade, HTTP2"), b"hello"),
        (OFFER.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Host: a\r\n", b""), b"hello"),
        (OFFER.replace(b"POST", b"CONNECT"), b""),
    ],
    ids=["close", "HTTP/1.0", "CONNECT"],
)
async def test_an_offer_on_the_last_request_of_a_connection(offer: bytes, end: bytes) -> None:
    async with serving(echo) as server:
        said = await send(server, offer.replace(b" / ", b" a:80 ") if b"CONNECT" in offer else offer)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close\r\n" in said
    assert said.partition(b"\r\n\r\n")[2] == end


async def test_offers_without_end_do_not_hold_the_server_up() -> None:
    offers = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    async with serving(echo) as server:
        reader, writer = await connect(server)
        writer.write(offers * 5000)
        other_reader, other_writer = await connect(server)
        other_writer.write(POST)
        assert (await read_reply(other_reader))[2] == b"hi"
        assert (await read_reply(reader))[0] == 200


async def test_what_is_announced_too_large_is_refused_before_it_is_sent() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n"
    async with serving(echo) as server:
        assert (await send(server, head)).startswith(b"HTTP/1.1 413 ")


async def test_a_handler_that_raises_is_answered_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def handle(exchange: Exchange) -> None:
        raise LookupError("bug")

    async with serving(handle, on_handler_error=(500, b"ERR")) as server:
        reader, writer = await connect(server)
        with caplog.at_level(logging.ERROR):
            writer.write(POST)
            assert (await read_reply(reader))[0::2] == (500, b"ERR")
    assert "bug" in caplog.text


@pytest.mark.parametrize("seed", range(5))
async def test_any_bytes_leave_it_serving(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    random = Random(seed)
    pieces = [
        POST,
        CHUNKED,
        b"\r\n",
        b"0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"Expect: 100-continue\r\n",
    ]
    async with serving(echo) as server:
        for _ in range(40):
            reader, writer = await connect(server)
            for _ in range(random.randrange(1, 6)):
                piece = bytearray(random.choice(pieces) if random.random() < 0.7 else random.randbytes(40))
                if random.random() < 0.4:
                    piece[random.randrange(len(piece))] = random.randrange(256)
                writer.write(bytes(piece))
                await asyncio.sleep(0)
            writer.write_eof()
            await asyncio.wait_for(asyncio.gather(reader.read(), return_exceptions=True), 10)
        await until(lambda: not server.connections)
        reader, writer = await connect(server)
        writer.write(POST)
        assert (await read_reply(reader))[2] == b"hi"
    assert caplog.records == []
