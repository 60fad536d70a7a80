"""The asyncio HTTP client: which connections are kept, shared and given up, and when calls end."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from grenache_py import errors, limits
from grenache_py.transports.aio_http import HttpClient
from tests.harness import until
from tests.scripted import Asked, ScriptedServer, reply

OK = reply("[1]")


@pytest.fixture
async def client():
    made = HttpClient()
    yield made
    await made.close()


async def call(client: HttpClient, peer: ScriptedServer, timeout_s: float = 5.0) -> bytes:
    return (await client.call(f"{peer.url}/", {}, b"[]", timeout_s)).body


async def test_calls_at_once_have_connections_of_their_own_and_keep_them(client):
    with ScriptedServer([OK]) as peer:
        await asyncio.gather(*[call(client, peer) for _ in range(5)])
        assert peer.connections == 5
        await asyncio.gather(*[call(client, peer) for _ in range(5)])
        assert peer.connections == 5


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(client):
    with ScriptedServer([OK, "close"], [OK]) as peer:
        await call(client, peer)
        await until(lambda: not client._open, what="the end is noticed")
        assert await call(client, peer) == b"[1]"
        assert (len(peer.asked), peer.connections) == (2, 2)


async def test_a_request_on_a_kept_connection_is_not_repeated_when_it_is_cut(client):
    with ScriptedServer([OK], ["close"]) as peer:
        await call(client, peer)
        with pytest.raises(errors.ConnectionLost) as caught:
            await call(client, peer)
        assert caught.value.in_doubt
        assert (len(peer.asked), peer.connections) == (2, 1)


@pytest.mark.parametrize(
    ("hint", "connections"),
    [("timeout=1", 2), ("timeout=5", 1), ("max=5, timeout=1", 2), ("timeout=x", 1), ("timeout=-1", 1)],
)
async def test_a_server_may_want_connections_back_sooner(client, hint, connections):
    with ScriptedServer([reply("[1]", headers=f"Keep-Alive: {hint}\r\n")]) as peer:
        for _ in range(2):
            await call(client, peer)
        assert peer.connections == connections


@pytest.mark.parametrize(
    "first",
    [
        reply("[1]", headers="Connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n[1]",
        OK + b"HTTP/1.1 200 OK\r\n",  # begins an answer that nobody asked for
    ],
    ids=["close", "HTTP/1.0", "more than was asked for"],
)
async def test_connections_that_are_not_kept(client, first):
    with ScriptedServer([first], [OK]) as peer:
        try:
            assert await call(client, peer) == b"[1]"
        except errors.ConnectionLost:
            assert first.endswith(b"OK\r\n")
        assert await call(client, peer) == b"[1]"
        assert peer.connections == 2


async def test_an_interim_reply_is_passed_over(client):
    with ScriptedServer([b"HTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n" + OK]) as peer:
        got = await client.call(f"{peer.url}/", {}, b"[]", 5)
        assert (got.status, got.content_encoding, got.body) == (200, "", b"[1]")


async def test_another_protocol_is_no_reply(client):
    switch = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    with ScriptedServer([switch, "hold"]) as peer, pytest.raises(errors.ConnectionLost):
        await call(client, peer)


async def test_endless_headers_are_cut(client, monkeypatch):
    monkeypatch.setattr(limits, "REPLY_HEAD_BYTES_MAX", 1000)
    endless = b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 200
    with ScriptedServer([endless, "hold"]) as peer, pytest.raises(errors.ReplySizeError):
        await call(client, peer)


@pytest.mark.parametrize("limit_s", [0.1, 0.25])
async def test_a_call_ends_at_its_time_limit_within_50_ms(client, limit_s):
    with ScriptedServer([OK], ["hold"]) as peer:
        await call(client, peer, 60)  # leaves a timer behind that is due much later
        started = time.monotonic()
        with pytest.raises(errors.RequestTimeout):
            await call(client, peer, limit_s)
        assert -0.005 < time.monotonic() - started - limit_s < 0.05


async def test_a_later_call_on_a_connection_has_its_own_whole_time(client):
    def late(asked: Asked) -> bytes:
        time.sleep(0.3)
        return OK

    with ScriptedServer([OK], [late]) as peer:
        await call(client, peer, 0.2)
        assert await call(client, peer, 5) == b"[1]"


async def test_a_cancelled_call_leaves_nothing_for_the_next(client):
    with ScriptedServer(["hold"], [OK]) as peer:
        task = asyncio.ensure_future(call(client, peer))
        await until(lambda: peer.asked)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await call(client, peer) == b"[1]"
        assert peer.connections == 2


async def test_closing_ends_calls_and_waits_for_connections(client):
    with ScriptedServer(["hold"]) as peer:
        task = asyncio.ensure_future(call(client, peer))
        await until(lambda: peer.asked)
        await client.close()
        assert not client._open
        with pytest.raises(errors.ClosedError):
            await task
        with pytest.raises(errors.ClosedError):
            await call(client, peer)


async def test_the_number_of_connections_is_bounded(client, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 3)
    seen = 0

    def answer(asked: Asked) -> bytes:
        nonlocal seen
        seen = max(seen, len(client._open))
        return reply(json.dumps(asked.json))

    with ScriptedServer([answer]) as one, ScriptedServer([answer]) as other:
        calls = [
            client.call(f"{peer.url}/", {}, json.dumps([number]).encode(), 10)
            for number in range(10)
            for peer in (one, other)
        ]
        replies = await asyncio.gather(*calls)
        assert [json.loads(got.body) for got in replies] == [[number] for number in range(10) for _ in (1, 2)]
        assert seen <= 3


async def test_waiting_for_a_connection_ends_in_time_and_leaves_no_doubt(client, monkeypatch):
    monkeypatch.setattr(limits, "CONNECTIONS_MAX", 1)
    with ScriptedServer(["hold"]) as peer:
        task = asyncio.ensure_future(call(client, peer))
        await until(lambda: peer.asked)
        started = time.monotonic()
        with pytest.raises(errors.ConnectTimeout) as caught:
            await call(client, peer, 0.2)
        assert time.monotonic() - started < 1
        assert not caught.value.in_doubt
        assert len(peer.asked) == 1
        task.cancel()
        await asyncio.wait([task])


async def test_connections_are_kept_to_so_many_destinations(client, monkeypatch):
    monkeypatch.setattr(limits, "DESTINATION_POOLS", 2)
    with ScriptedServer([OK]) as one, ScriptedServer([OK]) as two, ScriptedServer([OK]) as three:
        for peer in (one, two, three, two, three, one):
            await call(client, peer)
        assert [peer.connections for peer in (one, two, three)] == [2, 1, 1]
        assert len(client._targets) == 2
