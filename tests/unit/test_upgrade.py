"""WebSockets on the port of an RPC service over HTTP, on both event loops."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from grenache_py.aio import Link, PeerRPCServer, Service
from grenache_py.errors import ArgumentError, ConnectError
from grenache_py.link import Link as SyncLink
from grenache_py.peer import PeerRPCServer as SyncPeerRPCServer
from grenache_py.transports.rpc_server import Handler
from grenache_py.transports.ws import Channel
from grenache_py.transports.ws_client import connect
from grenache_py.transports.ws_frames import PROTOCOL_ERROR
from grenache_py.transports.ws_server import Visitor
from tests.unit.polls import set_processors
from tests.ws_flavours import CLOSE, TEXT, frame
from tests.ws_flavours import HANDSHAKE as HANDSHAKE_TEXT

HANDSHAKE = HANDSHAKE_TEXT.encode()

Scene = Callable[[Service, str], Awaitable[None]]


def bounce(rid: object, key: object, payload: object, handler: Handler) -> None:
    handler.reply(None, payload)


def greet(channel: Channel, visitor: Visitor) -> None:
    channel.on_message = lambda opcode, content: channel.send(content)


async def serving(scene: Scene, *, websocket: bool = True) -> None:
    async with Link("http://127.0.0.1:1") as link:
        service = PeerRPCServer(link, max_body=100_000).transport("server")
        service.on("request", bounce)
        if websocket:
            service.on("websocket", greet)
        await service.listen(0, "127.0.0.1")
        try:
            await scene(service, f"127.0.0.1:{service.port}")
        finally:
            await service.stop()


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    def run(scene: Scene, **options: bool) -> None:
        loop = request.param()
        try:
            loop.run_until_complete(asyncio.wait_for(serving(scene, **options), 30))
        finally:
            loop.close()

    return run


async def open_channel(destination: str) -> tuple[Channel, asyncio.Queue[bytes]]:
    said: asyncio.Queue[bytes] = asyncio.Queue()
    channel = await connect(destination, max_message=100_000)
    channel.on_message = lambda opcode, content: said.put_nowait(content)
    return channel, said


async def post(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> object:
    body = b'["1", "key", "hello"]'
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return json.loads(await reader.readexactly(length))


@pytest.mark.parametrize("processors", [1, 2])
def test_the_next_message_is_looked_for_without_sleeping_where_that_can_win(
    play: Callable[..., None], monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    set_processors(monkeypatch, processors)
    channels: list[Channel] = []

    async def scene(service: Service, destination: str) -> None:
        service.on("websocket", lambda channel, visitor: channels.append(channel))
        await open_channel(destination)

    play(scene, websocket=False)
    assert [channel._poll is not None for channel in channels] == [processors > 1]


def test_messages_of_any_size_go_both_ways_beside_requests(play: Callable[..., None]) -> None:
    async def scene(service: Service, destination: str) -> None:
        channel, said = await open_channel(destination)
        for size in (1, 126, 20_000, 99_000):
            channel.send(b"x" * size)
            channel.send(b"y")
            assert await said.get() == b"x" * size
            assert await said.get() == b"y"
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        assert await post(reader, writer) == ["1", None, "hello"]
        writer.close()
        channel.close()
        await channel.gone

    play(scene)


def test_a_connection_can_be_used_for_requests_first(play: Callable[..., None]) -> None:
    async def scene(service: Service, destination: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        assert await post(reader, writer) == ["1", None, "hello"]
        writer.write(HANDSHAKE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(frame(TEXT, "ab", masked=True))
        assert await reader.readexactly(4) == b"\x81\x02ab"
        writer.close()

    play(scene)


def test_the_head_may_come_in_pieces_and_frames_with_it(play: Callable[..., None]) -> None:
    async def scene(service: Service, destination: str) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(HANDSHAKE[:40])
        await asyncio.sleep(0.05)  # so that it is read on its own
        writer.write(HANDSHAKE[40:] + frame(TEXT, "ab", masked=True) + frame(TEXT, "cd", masked=True))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        assert await reader.readexactly(8) == b"\x81\x02ab\x81\x02cd"
        writer.close()

    play(scene)


def test_broken_frames_end_the_connection_and_nothing_else(play: Callable[..., None]) -> None:
    async def scene(service: Service, destination: str) -> None:
        other, said = await open_channel(destination)
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(TEXT, "not masked", masked=False))
        said_last = await reader.read()
        assert said_last[0] == 0x80 | CLOSE
        assert struct.unpack(">H", said_last[2:4]) == (PROTOCOL_ERROR,)
        writer.close()
        other.send(b"still here")
        assert await said.get() == b"still here"

    play(scene)


def test_without_a_listener_it_is_an_ordinary_request(play: Callable[..., None]) -> None:
    async def scene(service: Service, destination: str) -> None:
        with pytest.raises(ConnectError):
            await connect(destination, max_message=1000)

    play(scene, websocket=False)


def test_stopping_ends_websockets_as_well(play: Callable[..., None]) -> None:
    async def scene(service: Service, destination: str) -> None:
        channel, _ = await open_channel(destination)
        await service.stop()
        await channel.gone
        with pytest.raises(ConnectError):
            await connect(destination, max_message=1000)

    play(scene)


def test_what_has_no_websockets_says_so() -> None:
    with SyncLink("http://127.0.0.1:1") as link:
        with pytest.raises(ArgumentError, match=r"grenache_py\.aio"):
            SyncPeerRPCServer(link).transport("server").on("websocket", greet)
        with pytest.raises(ArgumentError, match="disable_buffered"):
            SyncPeerRPCServer(link, disable_buffered=True).transport("server").on("websocket", greet)
