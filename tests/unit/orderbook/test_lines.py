"""Lines between peers over real sockets: what comes back, what does not, and what a stranger may do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from grenache_py.errors import ConnectionLost, PeerError, RemoteError, RequestTimeout
from grenache_py.transports.ws import Channel
from grenache_py.transports.ws_client import connect
from grenache_py.transports.ws_server import WsServer
from orderbook import limits
from orderbook.lines import Caller, Lines, Refusal
from tests.harness import until

Reply = Callable[[bytes], None]


class Desk:
    """A peer that serves: it echoes, refuses, says nothing, or answers when told to, as the payload says."""

    def __init__(self) -> None:
        self.server = WsServer(
            lambda channel, visitor: self.callers.append(Caller(channel, self.serve)), max_message=100_000
        )
        self.callers: list[Caller] = []
        self.seen: list[tuple[str, Any]] = []
        self.kept: list[Reply] = []

    def serve(self, key: str, payload: bytes, reply: Reply) -> None:
        said = json.loads(payload)
        self.seen.append((key, said["value"]))
        if said["do"] == "refuse":
            raise Refusal('ERR_NO: "no"')
        if said["do"] == "keep":
            self.kept.append(reply)
        elif said["do"] != "silence":
            reply(json.dumps(said["value"]).encode())


def say(what: str, value: bytes) -> bytes:
    """A payload: what is to be done with it, and some JSON."""
    return b'{"do":"%b","value":%b}' % (what.encode(), value)


class Client:
    """Lines, and what came of the calls on them: (context, result or error)."""

    def __init__(self) -> None:
        self.outcomes: list[tuple[str, Any]] = []
        self.lines: Lines[str] = Lines("the service", self.answered, self.failed)

    def answered(self, context: str, data: bytes) -> None:
        self.outcomes.append((context, json.loads(data)))

    def failed(self, context: str, error: PeerError) -> None:
        self.outcomes.append((context, error))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Desk, Client, str]]:
    desk, client = Desk(), Client()
    await desk.server.listen(0, "127.0.0.1")
    destination = f"127.0.0.1:{desk.server.port}"
    try:
        client.lines.wanted(destination)
        await until(lambda: client.lines.get(destination), what="a line")
        yield desk, client, destination
    finally:
        await client.lines.close()
        await desk.server.close()


def line_to(client: Client, destination: str) -> Any:
    line = client.lines.get(destination)
    assert line is not None
    return line


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    async with connected() as (_desk, client, destination):
        line = line_to(client, destination)
        for n in range(200):
            line.call(say("echo", b'{"n":%d}' % n), f"call {n}", 5.0)
        await until(lambda: len(client.outcomes) == 200, what="all answers")
        assert client.outcomes == [(f"call {n}", {"n": n}) for n in range(200)]
        assert line.idle


async def test_answers_in_another_order_find_their_calls() -> None:
    async with connected() as (desk, client, destination):
        line = line_to(client, destination)
        line.call(say("keep", b"1"), "first", 5.0)
        line.call(say("keep", b"2"), "second", 5.0)
        await until(lambda: len(desk.kept) == 2, what="both calls")
        desk.kept[1](b'"b"')
        desk.kept[0](b'"a"')
        await until(lambda: len(client.outcomes) == 2, what="both answers")
        assert client.outcomes == [("second", "b"), ("first", "a")]


async def test_what_is_told_is_not_answered() -> None:
    async with connected() as (desk, client, destination):
        line = line_to(client, destination)
        line.tell(say("echo", b'"told"'))
        line.tell(say("refuse", b'"told"'))
        line.call(say("echo", b'"asked"'), "asked", 5.0)
        await until(lambda: client.outcomes, what="the answer")
        assert client.outcomes == [("asked", "asked")]
        assert desk.seen == [("the service", value) for value in ("told", "told", "asked")]


async def test_a_refusal_is_the_error_it_names() -> None:
    async with connected() as (_desk, client, destination):
        line_to(client, destination).call(say("refuse", b"null"), "asked", 5.0)
        await until(lambda: client.outcomes, what="the refusal")
        [(_, error)] = client.outcomes
        assert isinstance(error, RemoteError)
        assert error.message == 'ERR_NO: "no"'


async def test_a_call_without_an_answer_fails_in_time_and_a_late_answer_is_nothing() -> None:
    async with connected() as (desk, client, destination):
        line = line_to(client, destination)
        line.call(say("keep", b"null"), "asked", 0.05)
        await until(lambda: client.outcomes, what="the time limit")
        [(_, error)] = client.outcomes
        assert isinstance(error, RequestTimeout)
        desk.kept[0](b'"late"')
        line.call(say("echo", b'"next"'), "next", 5.0)
        await until(lambda: len(client.outcomes) == 2, what="the next answer")
        assert client.outcomes[1] == ("next", "next")


async def test_a_lost_connection_fails_what_was_under_way_at_once() -> None:
    async with connected() as (desk, client, destination):
        line = line_to(client, destination)
        line.call(say("silence", b"null"), "one", 60.0)
        line.call(say("silence", b"null"), "two", 60.0)
        await until(lambda: len(desk.seen) == 2, what="both calls")
        for channel in list(desk.server.channels):
            channel.abort()
        await until(lambda: len(client.outcomes) == 2, what="the end")
        assert all(isinstance(error, ConnectionLost) for _, error in client.outcomes)
        assert client.lines.get(destination) is None


async def test_where_there_is_no_websocket_nothing_is_tried_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[str] = []

    async def refused(destination: str, **options: Any) -> Channel:
        tried.append(destination)
        raise PeerError(destination, "no")

    monkeypatch.setattr("orderbook.lines.connect", refused)
    monkeypatch.setattr(limits, "LINE_RETRY_S", 0.05)
    client = Client()
    client.lines.wanted("127.0.0.1:1")
    await until(lambda: tried, what="the first try")
    client.lines.wanted("127.0.0.1:1")
    await asyncio.sleep(0)
    assert tried == ["127.0.0.1:1"]

    def again() -> bool:
        client.lines.wanted("127.0.0.1:1")
        return len(tried) == 2

    await until(again, what="another try, later")
    await client.lines.close()


async def test_lines_that_only_wait_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_IDLE_S", 0.05)
    async with connected() as (desk, client, destination):
        await until(lambda: client.lines.get(destination) is None, what="the end of the line")
        await until(lambda: not desk.server.channels, what="the end of the connection")


async def test_there_are_only_so_many_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINES", 1)
    async with connected() as (desk, client, destination):
        client.lines.wanted(destination.replace("127.0.0.1", "localhost"))
        await asyncio.sleep(0)
        assert client.lines.get(destination.replace("127.0.0.1", "localhost")) is None
        assert len(desk.callers) == 1


@pytest.mark.parametrize(
    "message",
    [b"no JSON", b"[]", b"{}", b'[1,"key"]', b"[1,2,3]", b"[[],1,2]", b'[1.5,"key",null]', b"[" * 100_000],
)
async def test_what_is_no_request_ends_the_connection_of_who_sends_it(message: bytes) -> None:
    async with connected() as (_desk, client, destination):
        stranger = await connect(destination, max_message=1000)
        stranger.send(message)
        await stranger.gone
        line_to(client, destination).call(say("echo", b"1"), "asked", 5.0)
        await until(lambda: client.outcomes, what="the answer to somebody else")
        assert client.outcomes == [("asked", 1)]


async def test_who_sends_much_and_reads_nothing_is_read_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINE_REQUESTS", 10)
    async with connected() as (desk, client, destination):
        line = line_to(client, destination)
        for n in range(1000):
            line.call(say("keep", b'"%b"' % (b"x" * 1000)), str(n), 30.0)
        await until(lambda: desk.callers[0].held, what="an end of reading")
        assert 10 <= len(desk.kept) < 1000
        while len(client.outcomes) < 1000:
            while desk.kept:
                desk.kept.pop(0)(b"1")
            await asyncio.sleep(0.001)
