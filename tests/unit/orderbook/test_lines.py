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
from grenache_py.transports.ws_frames import BINARY, TEXT
from grenache_py.transports.ws_server import Visitor, WsServer
from orderbook import limits
from orderbook.errors import OrderBookError
from orderbook.lines import Caller, Greeted, Lines, Refusal
from orderbook.signing.handshake import Opening
from orderbook.signing.session import Session
from tests.harness import until
from tests.unit.orderbook.session_ends import End
from tests.unit.orderbook.signing_peers import Clock
from tests.unit.polls import still_poll

Reply = Callable[[bytes], None]


class Desk:
    """A peer that serves: it echoes, refuses, says nothing, or answers when told to, as the payload says."""

    def __init__(self) -> None:
        self.server = WsServer(self.call, max_message=100_000)
        self.end = End("bob", Clock())
        self.callers: list[Caller] = []
        self.seen: list[tuple[str, Any]] = []
        self.kept: list[Reply] = []

    def call(self, channel: Channel, visitor: Visitor) -> None:
        self.callers.append(Caller(channel, self.serve, self.greet))

    def greet(self, key: str, payload: bytes) -> Greeted | None:
        if b'"OpenSession"' not in payload:
            return None
        try:
            answer, session = self.end.sessions.accept(json.loads(payload))
        except OrderBookError as error:
            raise Refusal(str(error)) from error
        return Greeted(json.dumps(answer).encode(), session, lambda: self.end.sessions.ended(session))

    def serve(self, key: str, payload: bytes, session: Session | None, reply: Reply) -> None:
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
        self.end: End | None = None
        self.poll = still_poll()
        self.lines: Lines[str] = Lines(
            "the service", self.answered, self.failed, self.opening, lambda: self.poll
        )

    def opening(self, destination: str) -> Opening | None:
        return None if self.end is None else self.end.asks(End("bob", self.end.clock))

    def answered(self, context: str, data: bytes) -> None:
        self.outcomes.append((context, json.loads(data)))

    def failed(self, context: str, error: PeerError) -> None:
        self.outcomes.append((context, error))


@asynccontextmanager
async def connected(*, sessions: bool = False) -> AsyncIterator[tuple[Desk, Client, str]]:
    desk, client = Desk(), Client()
    if sessions:
        client.end = End("alice", desk.end.clock)
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


async def test_the_answer_to_a_call_alone_is_looked_for_without_sleeping() -> None:
    async with connected() as (_desk, client, destination):
        line = line_to(client, destination)
        line.call(say("keep", b"1"), "alone", 5.0)
        assert client.poll.expected == 1
        line.call(say("echo", b"2"), "not alone", 5.0)
        assert client.poll.expected == 1
        await until(lambda: client.outcomes == [("not alone", 2)])
        assert client.poll.expected == 0
        line.call(say("echo", b"3"), "with others to come", 5.0, alone=False)
        line.tell(say("echo", b"4"))
        assert client.poll.expected == 0


async def test_the_first_of_many_calls_leave_before_the_last_are_made() -> None:
    async with connected() as (_desk, client, destination):
        line = line_to(client, destination)
        for n in range(12):
            line.call(say("echo", b'"' + bytes([97 + n]) * 150 + b'"'), str(n), 5.0, alone=False)
            assert line._channel.unsent_bytes <= limits.LINE_GATHERED_BYTES
        await until(lambda: len(client.outcomes) == 12)
        assert client.outcomes == [(str(n), chr(97 + n) * 150) for n in range(12)]


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

    async def refused(listener: Any, url: str, **options: Any) -> None:
        tried.append(url)
        raise ConnectionRefusedError

    monkeypatch.setattr("grenache_py.transports.ws_client.ws_connect", refused)
    monkeypatch.setattr(limits, "LINE_RETRY_S", 0.05)
    client = Client()
    client.lines.wanted("127.0.0.1:1")
    await until(lambda: tried, what="the first try")
    client.lines.wanted("127.0.0.1:1")
    await asyncio.sleep(0)
    assert tried == ["ws://127.0.0.1:1/ws"]

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


async def test_a_request_is_served_however_its_json_is_written() -> None:
    payload = say("echo", b'{"text":"a, b","list":[1,2]}')
    async with connected() as (desk, _client, destination):
        stranger = await connect(destination, max_message=1000)
        answers: list[Any] = []
        stranger.on_message = lambda opcode, content: answers.append(json.loads(content))
        for message in (
            b'[1,"the service",%b]',
            b'[2,"the service",%b]',
            b'[ 3, "the service", %b ]',
            b'["4, 5","the service",%b]',
            b'[6,"another, service",%b]',
            b'[7,"the service",%b]\n',
            b'[null,"the service",%b]',
            b'[8,"the service",%b]',
        ):
            stranger.send(message % payload)
        await until(lambda: len(answers) == 7, what="all answers")
        value = {"text": "a, b", "list": [1, 2]}
        assert answers == [[rid, None, value] for rid in (1, 2, 3, "4, 5", 6, 7, 8)]
        assert [key for key, _ in desk.seen] == 4 * ["the service"] + ["another, service"] + 3 * [
            "the service"
        ]
        stranger.close()
        await stranger.gone


@pytest.mark.parametrize("answer", [b"[1,null,%b]", b" [1,null,%b]", b"[1, null, %b ]", b"[1,null,%b]\n"])
async def test_an_answer_is_taken_however_its_json_is_written(answer: bytes) -> None:
    callers: list[Channel] = []
    server, client = WsServer(lambda channel, visitor: callers.append(channel), max_message=1000), Client()
    await server.listen(0, "127.0.0.1")
    destination = f"127.0.0.1:{server.port}"
    client.lines.wanted(destination)
    await until(lambda: client.lines.get(destination), what="a line")
    line_to(client, destination).call(b"null", "asked", 5.0)
    callers[0].send(answer % b'{"text":"a, b","list":[1,2]}')
    await until(lambda: client.outcomes, what="the answer")
    assert client.outcomes == [("asked", {"text": "a, b", "list": [1, 2]})]
    assert line_to(client, destination).idle
    await client.lines.close()
    await server.close()


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


# -- sessions --------------------------------------------------------------------------------------------

Alter = Callable[[int, bytes], list[tuple[int, bytes]]]
"""What a wire makes of a message."""


class Wire:
    """Stands between two peers, passes on what they say, and does to it what it is told to."""

    def __init__(self, destination: str):
        self.server = WsServer(self.call, max_message=100_000)
        self.there: list[tuple[int, bytes]] = []
        self.back: list[tuple[int, bytes]] = []
        self.alter_there: Alter = lambda opcode, content: [(opcode, content)]
        self.alter_back: Alter = lambda opcode, content: [(opcode, content)]
        self._destination = destination
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, channel: Channel, visitor: Visitor) -> None:
        waiting: list[tuple[int, bytes]] = []
        channel.on_message = lambda *message: waiting.append(message)
        task = asyncio.ensure_future(self.connect(channel, waiting))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def connect(self, near: Channel, waiting: list[tuple[int, bytes]]) -> None:
        far = await connect(self._destination, max_message=100_000)

        def there(opcode: int, content: bytes) -> None:
            self.there.append((opcode, content))
            for passed in self.alter_there(opcode, content):
                far.send(passed[1], passed[0])

        def back(opcode: int, content: bytes) -> None:
            self.back.append((opcode, content))
            for passed in self.alter_back(opcode, content):
                near.send(passed[1], passed[0])

        near.on_message, far.on_message = there, back
        near.on_end, far.on_end = lambda _: far.close(), lambda _: near.close()
        for message in waiting:
            there(*message)


@asynccontextmanager
async def tapped() -> AsyncIterator[tuple[Desk, Client, Wire, str]]:
    """A client, and a session with a desk, by way of a wire."""
    desk, client = Desk(), Client()
    client.end = End("alice", desk.end.clock)
    await desk.server.listen(0, "127.0.0.1")
    wire = Wire(f"127.0.0.1:{desk.server.port}")
    await wire.server.listen(0, "127.0.0.1")
    destination = f"127.0.0.1:{wire.server.port}"
    try:
        client.lines.wanted(destination)
        await until(lambda: client.lines.get(destination), what="a line")
        yield desk, client, wire, destination
    finally:
        await client.lines.close()
        await wire.server.close()
        await desk.server.close()


async def test_a_session_carries_everything_that_comes_after_its_opening() -> None:
    async with tapped() as (desk, client, wire, destination):
        line = line_to(client, destination)
        assert line.session is not None
        line.tell(say("echo", b'"told"'))
        line.call(say("refuse", b"null"), "refused", 5.0)
        for n in range(200):
            line.call(say("echo", b"%d" % n), f"call {n}", 5.0)
        await until(lambda: len(client.outcomes) == 201, what="all answers")
        assert client.outcomes[1:] == [(f"call {n}", n) for n in range(200)]
        assert isinstance(client.outcomes[0][1], RemoteError)
        for direction, count in ((wire.there, 203), (wire.back, 202)):
            assert [opcode for opcode, _ in direction] == [TEXT] + [BINARY] * (count - 1)
        assert len(desk.end.sessions) == 1
    await until(lambda: len(desk.end.sessions) == 0, what="the end of the session")


def flipped(opcode: int, content: bytes) -> list[tuple[int, bytes]]:
    return [(opcode, content[:-1] + bytes([content[-1] ^ 1]))]


ALTERATIONS: dict[str, Alter] = {
    "tampered": flipped,
    "truncated": lambda opcode, content: [(opcode, content[:-1])],
    "repeated": lambda opcode, content: [(opcode, content)] * 2,
    "as text": lambda opcode, content: [(TEXT, content[24:])],
    "and more": lambda opcode, content: [(TEXT, b'[1,null,"more"]'), (opcode, content)],
    "garbage": lambda opcode, content: [(BINARY, b"")],
}


@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("alter", ALTERATIONS)
async def test_a_frame_that_is_altered_ends_the_line_and_it_is_not_opened_again_at_once(
    alter: str, back: bool
) -> None:
    async with tapped() as (desk, client, wire, destination):
        line = line_to(client, destination)
        line.call(say("echo", b"1"), "before", 5.0)
        await until(lambda: client.outcomes, what="an answer before that")
        setattr(wire, "alter_back" if back else "alter_there", ALTERATIONS[alter])
        line.call(say("echo", b"2"), "altered", 60.0)
        line.call(say("echo", b"3"), "after", 60.0)
        await until(lambda: len(client.outcomes) == 3, what="the end of all calls")
        assert client.outcomes[0] == ("before", 1)
        assert client.lines.get(destination) is None
        assert all(said in ("2", 2) or isinstance(said, ConnectionLost) for _, said in client.outcomes[1:])
        assert isinstance(client.outcomes[-1][1], ConnectionLost)
        assert [said for _, said in desk.seen].count(2) <= 1, "nothing was taken twice"
        client.lines.wanted(destination)
        await asyncio.sleep(0)
        assert len(wire.server.channels) <= 1
        await until(lambda: len(desk.end.sessions) == 0, what="the end of the session")
        assert len(desk.callers) == 1


async def test_who_opens_no_session_gets_signed_messages() -> None:
    desk, client = Desk(), Client()
    desk.end.gate.signs = False
    client.end = End("alice", desk.end.clock)
    await desk.server.listen(0, "127.0.0.1")
    destination = f"127.0.0.1:{desk.server.port}"
    client.lines.wanted(destination)
    await until(lambda: client.lines.get(destination), what="a line")
    line = line_to(client, destination)
    assert line.session is None
    line.call(say("echo", b"1"), "asked", 5.0)
    await until(lambda: client.outcomes, what="the answer")
    assert client.outcomes == [("asked", 1)]
    await client.lines.close()
    await desk.server.close()


@pytest.mark.parametrize(
    "answer", [None, b"no JSON", b"[0,null,null]", b"[0,null,{}]", b'[0,null,{"from":"bob"}]', b"[]"]
)
async def test_who_answers_an_opening_with_something_else_gets_no_line(
    answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SESSION_OPEN_S", 0.2)
    callers: list[Channel] = []

    def call(channel: Channel, visitor: Visitor) -> None:
        callers.append(channel)
        if answer is not None:
            channel.on_message = lambda *_: channel.send(answer)

    server, client = WsServer(call, max_message=100_000), Client()
    client.end = End("alice", Clock())
    await server.listen(0, "127.0.0.1")
    destination = f"127.0.0.1:{server.port}"
    client.lines.wanted(destination)
    await until(lambda: callers and callers[0].ended, what="the end of the connection")
    assert client.lines.get(destination) is None
    client.lines.wanted(destination)
    await asyncio.sleep(0)
    assert len(callers) == 1, "it is not tried again at once"
    await client.lines.close()
    await server.close()


async def test_a_session_is_opened_with_the_first_request_or_never() -> None:
    async with connected() as (desk, client, destination):
        line = line_to(client, destination)
        line.call(say("echo", b"1"), "first", 5.0)
        hello = End("alice", desk.end.clock).asks(desk.end).request.message
        hello |= {"do": "echo", "value": 2}
        line.call(json.dumps(hello).encode(), "second", 5.0)
        await until(lambda: len(client.outcomes) == 2, what="the answers")
        assert client.outcomes == [("first", 1), ("second", 2)]
        assert len(desk.end.sessions) == 0


async def test_a_session_that_is_spent_is_replaced_and_no_call_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSION_FRAMES", 50)
    monkeypatch.setattr(limits, "LINE_RETRY_S", 0.05)
    async with connected(sessions=True) as (desk, client, destination):
        sessions = {line_to(client, destination).session}
        asked = 0
        while len(sessions) < 3:
            line = line_to(client, destination)
            sessions.add(line.session)
            line.call(say("keep", b"%d" % asked), f"call {asked}", 30.0)
            asked += 1
            await asyncio.sleep(0.005)
            if len(desk.kept) > 3:
                desk.kept.pop(0)(b"1")  # late, over the line on which it was asked
        for reply in desk.kept:
            reply(b"1")
        await until(lambda: len(client.outcomes) == asked, what="all answers")
        assert {said for _, said in client.outcomes} == {1}
        await until(lambda: len(desk.end.sessions) == 1, what="the end of the old sessions")
