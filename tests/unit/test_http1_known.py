"""Requests whose head is known already are taken exactly as those that are parsed."""

from __future__ import annotations

import asyncio
import re

import pytest

from grenache_py.transports.http1_exchange import Exchange
from grenache_py.transports.http1_known import KnownHeads
from tests.unit.http1_serving import connect, read_reply, serving, until


def test_only_one_whole_request_is_found() -> None:
    heads = KnownHeads()
    head = b"POST /lookup HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
    headers = [(b"Host", b"a"), (b"Content-Length", b"2")]
    assert heads.find(head + b"hi") is None
    heads.learn(head + b"hi", "POST", "/lookup", headers, b"hi")
    found = heads.find(head + b"ho")
    assert found is not None
    assert found[0][:3] == ("POST", "/lookup", headers)
    assert found[1] == b"ho"
    for other in (head, head + b"h", head + b"hi!", head + b"hi" + head, head[1:] + b"hi", b"", b"\r\n\r\n"):
        assert heads.find(other) is None


@pytest.mark.parametrize(
    ("data", "headers", "body"),
    [
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", [(b"Transfer-Encoding", b"chunked")], b""),
        (b"POST / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n", [(b"EXPECT", b"100-continue")], b""),
        (b"\r\n\r\nPOST / HTTP/1.1\r\n\r\n", [], b""),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 1100 + b"\r\n\r\n", [(b"X", b"x" * 1100)], b""),
    ],
    ids=["chunked", "expect", "empty lines before it", "long"],
)
def test_what_is_not_learned(data: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    heads = KnownHeads()
    heads.learn(data, "POST", "/", headers, body)
    assert len(heads) == 0


def test_heads_that_never_repeat_do_not_fill_the_memory() -> None:
    heads = KnownHeads()
    largest = 0
    for number in range(2000):
        heads.learn(b"GET /%d HTTP/1.1\r\n\r\n" % number, "GET", f"/{number}", [], b"")
        largest = max(largest, len(heads))
    assert largest <= 256


async def test_the_second_request_is_answered_as_the_first() -> None:
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    def handle(exchange: Exchange) -> None:
        seen.append((exchange.method, exchange.target, dict(exchange.headers), exchange.body))
        if exchange.body == b"bug":
            raise LookupError("bug")
        exchange.reply(200, exchange.body)

    async with serving(handle) as server:
        reader, writer = await connect(server)

        async def ask(data: bytes) -> bytes:
            writer.write(data)
            status, _, body = await read_reply(reader)
            return b"%d %b" % (status, body)

        head = b"POST /a HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nContent-Length: 3\r\n\r\n"
        assert [await ask(head + b"abc") for _ in range(3)] == [b"200 abc"] * 3
        assert len(server._shared.known_heads) == 1
        assert seen[0] == seen[1] == seen[2]
        assert await ask(head + b"bug") == b"500 "
        # In two pieces, and two at once: parsed as ever.
        writer.write(head + b"a")
        await asyncio.sleep(0)
        assert await ask(b"bc") == b"200 abc"
        writer.write(head + b"one" + head + b"two")
        assert [(await read_reply(reader))[2] for _ in range(2)] == [b"one", b"two"]
        last = head.replace(b"Host", b"Connection: close\r\nHost")
        for _ in range(2):
            reader, writer = await connect(server)
            assert await ask(last + b"end") == b"200 end"
            assert await reader.read() == b""
        assert re.findall(rb"close", b"".join(server._shared.known_heads._heads)) == []


async def test_a_known_head_may_be_answered_later() -> None:
    waiting: list[Exchange] = []
    async with serving(waiting.append) as server:
        reader, writer = await connect(server)
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        for _ in range(2):
            writer.write(request)
            await until(lambda: len(waiting) == 1)
            # A second one meanwhile waits for its turn.
            writer.write(request)
            await until(lambda: len(waiting) == 2)
            waiting[1].reply(200, b"second")
            waiting[0].reply(200, b"first")
            assert [(await read_reply(reader))[2] for _ in range(2)] == [b"first", b"second"]
            waiting.clear()
