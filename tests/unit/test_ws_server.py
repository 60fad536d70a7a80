"""The RPC server over WebSocket, in both flavours, asked in raw bytes: as tolerant as the Node server where
frames are right, and gone with the right code where they are not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grenache_py import errors, limits
from grenache_py.transports.ws_listener import Listener
from grenache_py.transports.ws_server import WsServer
from tests.harness import eventually, until
from tests.unit.test_rpc_server import MyError, listens_on, node_like
from tests.ws_flavours import BINARY, CLOSE, HANDSHAKE, PING, PONG, TEXT, RawWs, frame, raw_client

NODE = json.loads((Path(__file__).parent / "data" / "node_ws_server.json").read_text("utf-8"))["cases"]


def text(message: str) -> bytes:
    return frame(TEXT, message, masked=True)


def ask(client: RawWs, message: str) -> Any:
    client.send(text(message))
    return answer(client)


def answer(client: RawWs) -> Any:
    opcode, data = client.next_frame()
    assert opcode == TEXT
    return json.loads(data)


def closed_with(client: RawWs) -> int | None:
    """The code of the close frame that comes next, before the end of the connection."""
    seen = client.read()
    if seen is None:
        return None
    opcode, data = seen
    assert opcode == CLOSE, seen
    assert client.read() is None
    return struct.unpack(">H", data[:2])[0]


# --- what Node answers

# Where we answer otherwise than Node, and why.
DIFFERENT = {
    "string as error": [["11111111-1111-4111-8111-111111111111", "ERR_STRING", None]],
    # A second reply is logged and ignored.
    "reply twice": [["11111111-1111-4111-8111-111111111111", None, "one"]],
    # Node says nothing, and ends its process over the last one.
    "message bad JSON": [[None, "ERR_REQUEST_PAYLOAD_INVALID", None]],
    "message null": [[None, "ERR_REQUEST_PAYLOAD_INVALID", None]],
    "message empty text": [[None, "ERR_REQUEST_PAYLOAD_INVALID", None]],
    "message 0": [[None, "ERR_REQUEST_PAYLOAD_INVALID", None]],
    "handler throws": [["11111111-1111-4111-8111-111111111111", "MyError: thrown", None]],
}


def as_node(rid, key, payload, handler):
    if payload == "slow":
        threading.Timer(0.1, lambda: handler.reply(None, payload)).start()
    elif payload == "twice":
        handler.reply(None, "one")
        handler.reply(None, "two")
    elif payload == "throw":
        raise MyError("thrown")
    else:
        node_like(rid, key, payload, handler)


@pytest.mark.parametrize("case", NODE, ids=[case["name"] for case in NODE])
def test_frames_that_a_node_server_was_sent(ws_flavour, case):
    service = ws_flavour.service(as_node)
    with raw_client(service.port, case.get("handshake", HANDSHAKE)) as client:
        for sent in case["sent"]:
            client.send(bytes.fromhex(sent))
        if case["name"] in DIFFERENT:
            for expected in DIFFERENT[case["name"]]:
                assert answer(client) == expected
            client.send(frame(PING, b"still there", masked=True))
            assert client.read() == (PONG, b"still there")
        elif case["closed"]:
            assert closed_with(client) == struct.unpack(">H", bytes.fromhex(case["received"][0])[2:4])[0]
        else:
            got = [frame(*client.next_frame()).hex() for _ in case["received"]]
            assert got == case["received"]


@pytest.mark.parametrize("case", [case for case in NODE if case.get("answer")], ids=lambda case: case["name"])
def test_handshakes_as_node_answers_them(ws_flavour, case):
    service = ws_flavour.service(as_node)
    with RawWs(socket.create_connection(("127.0.0.1", service.port), timeout=10)) as client:
        client.send(case["handshake"])
        got = client.head()
    expected = case["answer"].rstrip("\r\n").split("\r\n")
    assert got[0] == expected[0]
    assert {line.lower() for line in got[1:]} == {line.lower() for line in expected[1:]}


# --- handshakes and frames that are wrong


@pytest.mark.parametrize(
    ("handshake", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", 426),
        ('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18\r\n\r\n["1","name",null]\n', 426),
        (HANDSHAKE.replace("Version: 13", "Version: 12"), 400),
        (HANDSHAKE.replace("Sec-WebSocket-Version: 13\r\n", ""), 400),
        (HANDSHAKE.replace("Sec-WebSocket-Key", "X-Key"), 400),
        (HANDSHAKE.replace("Connection: Upgrade\r\n", ""), 426),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 426),
        ("nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x00\xc8\r\n\r\n", 400),
    ],
)
def test_handshakes_that_are_refused(ws_flavour, handshake, status):
    service = ws_flavour.service(node_like)
    with RawWs(socket.create_connection(("127.0.0.1", service.port), timeout=10)) as client:
        client.send(handshake)
        assert client.head()[0].split()[1] == str(status)
        client.conn.shutdown(socket.SHUT_WR)
        client.file.read()  # to the end of the connection
    with raw_client(service.port) as client:
        assert ask(client, '["r","k",1]') == ["r", None, 1]


def test_what_browsers_say_is_a_handshake(ws_flavour):
    service = ws_flavour.service(node_like)
    with raw_client(service.port, HANDSHAKE.replace("on: Upgrade", "on: keep-alive, Upgrade")) as client:
        assert ask(client, '["r","k",1]') == ["r", None, 1]


SPOILED = {
    "not masked": (frame(TEXT, '["r","k",1]'), 1002),
    "RSV1, as of compression": (frame(TEXT, b"x", masked=True, first=0xC1), 1002),
    "RSV2": (frame(TEXT, b"x", masked=True, first=0xA1), 1002),
    "RSV3": (frame(TEXT, b"x", masked=True, first=0x91), 1002),
    "an opcode that does not exist": (frame(3, b"x", masked=True), 1002),
    "a control opcode that does not exist": (frame(11, b"x", masked=True), 1002),
    "a ping in pieces": (frame(PING, b"x", masked=True, first=PING), 1002),
    "a ping that is too long": (frame(PING, b"x" * 126, masked=True), 1002),
    "a continuation of nothing": (frame(0, b"x", masked=True), 1002),
    "a text within a text": (
        frame(TEXT, b"[", masked=True, first=TEXT) + frame(TEXT, b"]", masked=True),
        1002,
    ),
    "text that is not UTF-8": (frame(TEXT, b'["r","k","\xff"]', masked=True), 1007),
    "half a surrogate pair": (frame(TEXT, b'["r","k","\xed\xa0\x80"]', masked=True), 1007),
    "a close code of one byte": (frame(CLOSE, b"\x03", masked=True), 1002),
    "a close code that is none": (frame(CLOSE, struct.pack(">H", 1), masked=True), 1002),
    "a close reason that is not UTF-8": (frame(CLOSE, struct.pack(">H", 1000) + b"\xff", masked=True), 1007),
    "a length in a longer form than it needs": (b"\x81\xfe\x00\x05" + bytes(9), 1002),
    "a length beyond 63 bits": (b"\x81\xff" + b"\xff" * 8 + bytes(4), 1002),
    "too large, as it says": (b"\x81\xff" + struct.pack(">Q", 1 << 40) + bytes(4), 1009),
    "too large, in pieces": (
        frame(TEXT, b"x" * 60_000, masked=True, first=TEXT) + frame(0, b"x" * 60_000, masked=True),
        1009,
    ),
}


@pytest.mark.parametrize("name", SPOILED)
def test_spoiled_frames_end_their_connection_and_nothing_else(ws_flavour, name, caplog):
    spoiled, code = SPOILED[name]
    service = ws_flavour.service(node_like, max_body=100_000)
    with raw_client(service.port) as good, raw_client(service.port) as bad:
        with caplog.at_level(logging.WARNING):
            bad.send(spoiled)
            assert closed_with(bad) == code
        assert ask(good, '["r","k",1]') == ["r", None, 1]
    assert not caplog.records  # what strangers send is no news


def test_spoiled_frames_byte_by_byte(ws_flavour):
    service = ws_flavour.service(node_like)
    with raw_client(service.port) as client:
        for byte in text('["r","k","ž"]'):
            client.send(bytes([byte]))
        assert answer(client) == ["r", None, "ž"]
        for byte in SPOILED["text that is not UTF-8"][0]:
            client.send(bytes([byte]))
        assert closed_with(client) == 1007


@pytest.mark.parametrize("end", ["close", "reset", "half a frame"])
def test_connections_that_just_end(ws_flavour, end):
    held = []
    service = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler))
    client = raw_client(service.port)
    client.send(text('["r","k",1]'))
    eventually(lambda: held)
    if end == "half a frame":
        client.send(text('["r","k",2]')[:-3])
    if end == "reset":
        client.conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    held[0].reply(None, "to nobody")
    with raw_client(service.port) as other:
        other.send(text('["r","k",3]'))
        eventually(lambda: len(held) == 2)
        held[1].reply(None, 3)
        assert answer(other) == ["r", None, 3]


# --- requests


def test_replies_come_as_they_are_ready(ws_flavour):
    held = {}
    service = ws_flavour.service(lambda rid, key, payload, handler: held.update({payload: handler}))
    with raw_client(service.port) as client:
        client.send(b"".join(text(f'["r{number}","k",{number}]') for number in range(3)))
        eventually(lambda: len(held) == 3)
        for number in (2, 0, 1):
            held[number].reply(None, number)
            assert answer(client) == [f"r{number}", None, number]


def test_many_requests_at_once(ws_flavour):
    service = ws_flavour.service(node_like)
    with raw_client(service.port) as client:
        count = 3 * limits.WS_REQUESTS_PER_CONNECTION
        sender = threading.Thread(
            target=client.send, args=(b"".join(text(f'["r","k",{n}]') for n in range(count)),)
        )
        sender.start()
        assert sorted(answer(client)[2] for _ in range(count)) == list(range(count))
        sender.join()


def test_a_large_message(ws_flavour):
    service = ws_flavour.service(node_like)
    payload = "xž" * 200_000
    with raw_client(service.port) as client:
        assert ask(client, json.dumps(["r", "k", payload])) == ["r", None, payload]
        client.send(frame(BINARY, json.dumps(["r", "k", payload]), masked=True))
        assert answer(client) == ["r", None, payload]


def test_what_a_handler_is_told(ws_flavour):
    told = []

    def handle(rid, key, payload, handler):
        told.append((rid, key, payload, handler.peer, dict(handler.headers), handler.replied))
        handler.reply(None, None)

    service = ws_flavour.service(handle)
    # What belongs to HTTP bodies is not taken over.
    extra = 'X-Mine: yes\r\ngrc-compress: gzip\r\n_gr: ["other","key"]\r\n'
    with raw_client(service.port, HANDSHAKE.replace("Host: x\r\n", f"Host: x\r\n{extra}")) as client:
        assert ask(client, '["r","k",{"a":1}]') == ["r", None, None]
    rid, key, payload, peer, headers, replied = told[0]
    assert (rid, key, payload, replied) == ("r", "k", {"a": 1}, False)
    assert peer[0] == "127.0.0.1"
    assert headers["x-mine"] == "yes"


async def test_an_ipv4_peer_of_a_service_on_all_addresses_has_its_ipv4_address():
    seen: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    server = WsServer(lambda channel, visitor: seen.set_result(visitor.peer), max_message=100)
    await server.listen(0, None)
    try:
        with await asyncio.to_thread(raw_client, server.port) as client:
            assert await asyncio.wait_for(seen, 10) == client.conn.getsockname()[:2]
    finally:
        await server.close()


def test_request_error_tells_what_was_wrong(ws_flavour):
    seen: list[Any] = []
    service = ws_flavour.service(node_like)
    service.on("request-error", seen.append)
    with raw_client(service.port) as client:
        assert ask(client, "nonsense") == [None, "ERR_REQUEST_PAYLOAD_INVALID", None]
        assert ask(client, '["r","k",1]') == ["r", None, 1]
    eventually(lambda: seen)
    assert isinstance(seen[0], errors.BadRequestError)


def test_an_unanswered_request_is_answered_when_its_time_is_over(ws_flavour):
    held = []
    service = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler), timeout=0.1)
    with raw_client(service.port) as client:
        assert ask(client, '["r","k",1]') == ["r", "ERR_TIMEOUT", None]
        held[0].reply(None, "too late")
        assert ask(client, '["s","k",1]') == ["s", "ERR_TIMEOUT", None]  # the late reply did not go out


def test_too_many_unanswered_requests(ws_flavour):
    held = []
    service = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler), concurrency=2)
    with raw_client(service.port) as client:
        client.send(text('["r0","k",0]') + text('["r1","k",1]'))
        eventually(lambda: len(held) == 2)
        assert ask(client, '["r2","k",2]') == ["r2", "ERR_BUSY", None]
        for handler in held:
            handler.reply(None, None)
        assert {answer(client)[0] for _ in held} == {"r0", "r1"}


def test_no_more_is_read_from_who_has_much_in_hand(ws_flavour, monkeypatch):
    monkeypatch.setattr(limits, "WS_REQUESTS_PER_CONNECTION", 4)
    held = []
    service = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with raw_client(service.port) as client, raw_client(service.port) as other:
        for number in range(4):
            client.send(text(f'["r","k",{number}]'))
        eventually(lambda: len(held) == 4)
        client.send(text('["r","k",4]'))
        other.send(text('["s","k",0]'))
        eventually(lambda: len(held) == 5)  # of the other one
        assert len(held) == 5
        held[4].reply(None, "other")
        assert answer(other) == ["s", None, "other"]
        assert len(held) == 5
        held[0].reply(None, 0)
        eventually(lambda: len(held) == 6)
        for handler in held[1:4] + held[5:]:
            handler.reply(None, 1)
        for _ in range(5):
            answer(client)


def test_who_does_not_read_its_replies_is_not_read_either(ws_flavour):
    asked = []

    def handle(rid, key, payload, handler):
        asked.append(payload)
        handler.reply(None, "x" * 1_000_000)

    service = ws_flavour.service(handle)
    # Larger than what one read takes, so that it cannot all be in hand before the first reply.
    request = text(json.dumps(["r", "k", "y" * 300_000]))
    with raw_client(service.port) as client:
        client.conn.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.send(request * 200)
        assert len(asked) < 200
        client.conn.settimeout(10)
        assert answer(client)[0] == "r"


# --- welcome and farewell


def test_verify_client_says_who_is_welcome(ws_flavour, caplog):
    def verify(visitor):
        if "boom" in visitor.target:
            raise MyError("boom")
        seen.append((visitor.target, visitor.headers["host"], visitor.certificate))
        return "yes" in visitor.target

    seen: list[object] = []
    asked: list[object] = []
    service = ws_flavour.service(
        lambda rid, key, payload, handler: asked.append(handler.reply(None, 1)), verify_client=verify
    )
    with raw_client(service.port, HANDSHAKE.replace("/ws", "/ws?yes")) as client:
        assert ask(client, '["r","k",1]') == ["r", None, 1]
    for path in ("/ws?no", "/ws?boom"):
        handshake = HANDSHAKE.replace("/ws", path).encode() + text('["r","k",1]')
        with raw_client(service.port, handshake.decode("latin-1")) as client:
            assert closed_with(client) == 1008
    assert seen == [("/ws?yes", "x", None), ("/ws?no", "x", None)]
    assert len(asked) == 1
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [MyError]


def test_too_many_connections(ws_flavour, monkeypatch):
    monkeypatch.setattr(limits, "WS_CONNECTIONS_MAX", 1)
    service = ws_flavour.service(node_like)
    with raw_client(service.port) as first:
        with raw_client(service.port) as second:
            assert closed_with(second) == 1013
        assert ask(first, '["r","k",1]') == ["r", None, 1]


def test_stopping_answers_what_was_taken_and_takes_no_more(ws_flavour):
    held = []
    service = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with raw_client(service.port) as client, raw_client(service.port) as idle:
        client.send(text('["r","k",1]'))
        eventually(lambda: held)
        port = service.port
        stopper = threading.Thread(target=lambda: service.stop(drain=10))
        stopper.start()
        eventually(lambda: not listens(service))
        assert ask(idle, '["late","k",1]') == ["late", "ERR_BUSY", None]
        assert ask(idle, "nonsense") == [None, "ERR_REQUEST_PAYLOAD_INVALID", None]
        held[0].reply(None, "still answered")
        assert answer(client) == ["r", None, "still answered"]
        assert closed_with(client) == 1001
        assert closed_with(idle) == 1001
        stopper.join(10)
    with pytest.raises(ConnectionRefusedError):
        raw_client(port)
    service.stop()
    eventually(lambda: listens_on(service, port))
    with raw_client(port) as client:
        client.send(text('["r","k",1]'))
        eventually(lambda: len(held) == 2)
        held[1].reply(None, 1)
        assert answer(client) == ["r", None, 1]


def listens(service) -> bool:
    try:
        return bool(service.port)
    except RuntimeError:
        return False


def test_stopping_ends_when_the_other_side_has_consented(ws_flavour, monkeypatch):
    monkeypatch.setattr(limits, "WS_CLOSE_S", 8.0)
    service = ws_flavour.service(node_like)
    with raw_client(service.port) as client:
        assert ask(client, '["r","k",1]') == ["r", None, 1]
        stopper = threading.Thread(target=service.stop)
        stopper.start()
        opcode, data = client.next_frame()
        assert opcode == CLOSE
        started = time.monotonic()
        client.send(frame(CLOSE, data, masked=True))
        assert client.read() is None
        stopper.join()
        assert time.monotonic() - started < limits.WS_CLOSE_S / 2


def test_stopping_does_not_wait_for_ever(ws_flavour):
    held = []
    service = ws_flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with raw_client(service.port) as client:
        client.send(text('["r","k",1]'))
        eventually(lambda: held)
        started = time.monotonic()
        service.stop(drain=0.05)
        assert time.monotonic() - started < limits.WS_CLOSE_S + 1
        assert closed_with(client) == 1001
    held[0].reply(None, "to nobody")


async def test_a_silent_connection_is_asked_for_a_sign_of_life_and_ended_without_one():
    ends: list[Any] = []

    def greet(channel, visitor):
        channel.on_end = ends.append

    server = WsServer(greet, max_message=1000, ping_s=0.1)
    await server.listen(0, "127.0.0.1")
    with await asyncio.to_thread(raw_client, server.port) as silent:
        opcode, data = await asyncio.to_thread(silent.next_frame)
        assert opcode == PING
        silent.send(frame(PONG, data, masked=True))
        assert (await asyncio.to_thread(silent.next_frame))[0] == PING
        await until(lambda: ends and not server.channels)
    await server.close()


async def test_who_is_not_read_at_present_is_not_taken_for_dead(monkeypatch):
    ends: list[Any] = []
    asked: list[Any] = []
    channels: list[Any] = []
    ping = Listener.send_user_specific_ping

    def counted(listener, transport):
        asked.append(listener)
        ping(listener, transport)

    monkeypatch.setattr(Listener, "send_user_specific_ping", counted)

    def greet(channel, visitor):
        channels.append(channel)
        channel.on_end = ends.append
        channel.hold()

    server = WsServer(greet, max_message=1000, ping_s=0.05)
    await server.listen(0, "127.0.0.1")
    with await asyncio.to_thread(raw_client, server.port) as client:
        await until(lambda: len(asked) > 3)
        assert not ends
        channels[0].release()
        assert (await asyncio.to_thread(client.next_frame))[0] == PING
        await until(lambda: ends)  # and is, when it is read and says nothing
    await server.close()


async def test_who_says_nothing_at_all_is_let_go(monkeypatch):
    monkeypatch.setattr(limits, "CONNECT_TIMEOUT_S", 0.1)
    server = WsServer(lambda channel, visitor: None, max_message=1000)
    await server.listen(0, "127.0.0.1")
    with RawWs(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as silent:
        assert await asyncio.to_thread(silent.file.read, 1) == b""
    await server.close()


def test_a_port_that_is_taken(ws_flavour):
    service = ws_flavour.service(node_like)
    other = ws_flavour.server(ws_flavour.link()).transport()
    with pytest.raises(errors.ListenError):
        other.listen(service.port, "127.0.0.1")
    other.listen()
    assert other.port != service.port
