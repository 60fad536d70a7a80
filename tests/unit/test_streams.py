"""Streams in both flavours: both bodies flow at once, at the pace of the slower side, each to its end."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from contextlib import contextmanager

import pytest

from grenache_py import errors, limits
from grenache_py.tls import client_context, server_context
from grenache_py.transports import streams
from tests.harness import eventually
from tests.scripted import reply
from tests.unit.test_peer import dead, grape_with
from tests.unit.test_rpc_server import RawClient
from tests.unit.tls_files import make_ca

NOBODY = "http://127.0.0.1:1"
MEGABYTE = bytes(range(256)) * 4096


async def echo(rid, key, stream, handler):
    async for piece in stream:
        await stream.write(piece)


async def describe(rid, key, stream, handler):
    body = await stream.read()
    handler.reply(None, [key, len(body), handler.action, handler.args])


def place_of(service) -> str:
    return f"127.0.0.1:{service.port}"


def opened(flavour, service, **options):
    return flavour.client(flavour.link(NOBODY)).stream_to(place_of(service), "k", **options)


def read_all(stream) -> bytes:
    body = bytearray()
    while piece := stream.read(1 << 20):
        body += piece
    return bytes(body)


def test_both_bodies_flow_at_the_same_time(flavour):
    stream = opened(flavour, flavour.streaming(echo))
    for number in range(20):
        word = b"word %d" % number
        assert stream.write(word) == len(word)
        got = b""
        while len(got) < len(word):
            got += stream.read(3)
        assert got == word
    stream.end()
    assert stream.read(10) == b""
    assert stream.headers["transfer-encoding"] == "chunked"
    stream.close()
    stream.close()


def test_a_stream_by_name(flavour):
    service = flavour.streaming(echo)
    with grape_with(service) as grape:
        stream = flavour.client(flavour.link(grape.url)).stream("rpc_test")
        stream.write(b"hello")
        stream.end()
        assert stream.read() == b"hello"
        stream.close()


def test_action_and_arguments(flavour):
    stream = opened(flavour, flavour.streaming(describe), headers={"_a": "upload", "_ar": {"name": "ü"}})
    stream.write(b"12345")
    stream.end()
    rid, error, result = json.loads(stream.read())
    assert (len(rid), error, result) == (36, None, ["k", 5, "upload", {"name": "ü"}])
    stream.close()


def test_action_and_arguments_of_plain_requests(flavour):
    service = flavour.service(
        lambda rid, key, payload, handler: handler.reply(None, [handler.action, handler.args])
    )
    client = flavour.client(flavour.link(NOBODY))
    assert client.request_to(place_of(service), "k", 1, headers={"_a": "x", "_ar": [1]}) == ["x", [1]]
    assert client.request_to(place_of(service), "k", 1, headers={"_ar": "nonsense"}) == [None, {}]
    assert client.request_to(place_of(service), "k", 1) == [None, {}]


@pytest.mark.parametrize("key", ["näme", 'quo"te', "x" * 1000])
def test_any_key_arrives(flavour, key):
    client = flavour.client(flavour.link(NOBODY))
    stream = client.stream_to(place_of(flavour.streaming(describe)), key)
    stream.end()
    assert json.loads(stream.read())[2][0] == key
    stream.close()


def test_large_bodies_both_ways_are_whole(flavour):
    stream = opened(flavour, flavour.streaming(echo))
    sent, got = hashlib.sha256(), hashlib.sha256()

    def send() -> None:
        for _ in range(24):
            sent.update(MEGABYTE)
            stream.write(MEGABYTE)
        stream.end()

    sender = threading.Thread(target=send)
    sender.start()
    while piece := stream.read(1 << 20):
        got.update(piece)
    sender.join()
    assert got.digest() == sent.digest()
    stream.close()


def test_a_reader_that_waits_holds_the_writer_up(flavour):
    go = threading.Event()
    written = []

    async def pour(rid, key, stream, handler):
        for _ in range(64):
            await stream.write(MEGABYTE)
            written.append(len(MEGABYTE))
        go.set()

    stream = opened(flavour, flavour.streaming(pour))
    assert stream.read(1)
    # What the two buffers and the system hold; the rest waits with the writer.
    settled = -1
    while settled != len(written):
        settled = len(written)
        go.wait(0.2)
    assert len(written) < 32
    assert not go.is_set()
    assert len(read_all(stream)) == 64 * len(MEGABYTE) - 1
    stream.close()


def test_memory_does_not_grow_with_the_stream(flavour):
    held = []

    async def swallow(rid, key, stream, handler):
        total = 0
        async for piece in stream:
            total += len(piece)
            inner = getattr(stream, "_stream", stream)
            inner = getattr(inner, "_stream", inner)
            held.append(inner._protocol._bytes)
        handler.reply(None, total)

    stream = opened(flavour, flavour.streaming(swallow))
    for _ in range(64):
        stream.write(MEGABYTE)
    stream.end()
    assert json.loads(stream.read())[2] == 64 * len(MEGABYTE)
    # One more delivery of the loop than the mark at which reading pauses.
    assert max(held) <= 2 * streams.BUFFER_BYTES
    stream.close()


def test_a_listener_that_raises_before_it_has_written(flavour, caplog):
    async def fail(rid, key, stream, handler):
        raise KeyError("broken")

    stream = opened(flavour, flavour.streaming(fail))
    stream.end()
    assert json.loads(stream.read())[1] == "KeyError: 'broken'"
    stream.close()


def test_a_listener_that_raises_after_it_has_written_cuts_the_stream(flavour, caplog):
    async def fail(rid, key, stream, handler):
        await stream.write(b"half of it")
        await stream.read(1)  # until the other side has it
        raise KeyError("broken")

    stream = opened(flavour, flavour.streaming(fail))
    assert stream.read(100) == b"half of it"
    stream.write(b"x")
    with pytest.raises(errors.ConnectionLost):
        stream.read(1)
    stream.close()


def test_a_caller_that_goes_away_is_noticed(flavour):
    seen = []

    async def wait(rid, key, stream, handler):
        try:
            await stream.read()
        except errors.ConnectionLost as error:
            seen.append(error)
            raise

    stream = opened(flavour, flavour.streaming(wait))
    stream.write(b"begun")
    stream.close()
    assert eventually(lambda: seen)[0].in_doubt


def test_an_answer_in_place_of_a_stream_while_the_caller_still_writes(flavour):
    async def refuse(rid, key, stream, handler):
        handler.reply("ERR_NO_ROOM")

    stream = opened(flavour, flavour.streaming(refuse))

    def write_on() -> None:
        for _ in range(1000):
            stream.write(MEGABYTE)

    with pytest.raises(errors.ConnectionLost):
        write_on()
    assert json.loads(stream.read())[1] == "ERR_NO_ROOM"
    stream.close()


def test_silence_ends_at_the_time_limit(flavour, monkeypatch):
    monkeypatch.setattr(limits, "STREAM_IDLE_S", 0.3)
    seen = []

    async def wait(rid, key, stream, handler):
        try:
            await stream.read(1)
        except errors.RequestTimeout as error:
            seen.append(error)
            raise

    stream = opened(flavour, flavour.streaming(wait), timeout=60)
    with pytest.raises(errors.ConnectionLost):
        stream.read(1)
    assert eventually(lambda: seen)
    stream.close()

    hanging = opened(flavour, flavour.streaming(wait), timeout=0.2)
    with pytest.raises(errors.RequestTimeout):
        hanging.read(1)
    hanging.close()


def test_a_refused_connection_and_a_forgotten_peer(flavour):
    gone = dead()
    service = flavour.streaming(echo)
    with grape_with(gone, service) as grape:
        link = flavour.link(grape.url)
        client = flavour.client(link)
        with pytest.raises(errors.ConnectError):
            client.stream_to(gone, "rpc_test")
        link.lookup("rpc_test")
        assert link.known("rpc_test") == [place_of(service)]
        client.stream("rpc_test").close()


@contextmanager
def answering(answer: bytes):
    """A server that answers one request with these bytes, as soon as its head has come, and closes."""

    def serve() -> None:
        with listener.accept()[0] as conn:
            head = b""
            while b"\r\n\r\n" not in head:
                head += conn.recv(65536)
            conn.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply("no such thing", "404 Not Found"), errors.StatusError),
        (b"HTTP/1.1 500 Oops\r\n\r\nended by close", errors.StatusError),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", errors.StatusError),
        (b"hello\r\n\r\n", errors.ConnectionLost),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort", errors.ConnectionLost),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n", errors.ConnectionLost),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, errors.ConnectionLost),
        (b"", errors.ConnectionLost),
    ],
    ids=["404", "500", "302", "no HTTP", "cut", "cut between chunks", "endless headers", "nothing"],
)
def test_what_is_no_whole_stream(flavour, answer, error):
    with answering(answer) as place:
        stream = flavour.client(flavour.link(NOBODY)).stream_to(place, "k")
        with pytest.raises(error) as caught:
            stream.read()
        assert type(caught.value) is error
        with pytest.raises(errors.GrenacheError):
            stream.write(b"more")
        stream.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_ways_to_frame_a_stream(flavour, answer):
    with answering(answer) as place:
        stream = flavour.client(flavour.link(NOBODY)).stream_to(place, "k")
        assert stream.read() == b"hello"
        stream.end()
        stream.close()


def test_without_a_listener(flavour):
    service = flavour.server(flavour.link(NOBODY), disable_buffered=True).transport("server")
    service.listen(0, "127.0.0.1")
    stream = opened(flavour, service)
    with pytest.raises(errors.StatusError) as caught:
        stream.read()
    assert caught.value.status == 501
    stream.close()


def test_events_fit_the_kind_of_server(flavour):
    link = flavour.link(NOBODY)
    for options, event in (({}, "stream"), ({"disable_buffered": True}, "request")):
        service = flavour.server(link, **options).transport("server")
        with pytest.raises(errors.ArgumentError) as caught:
            service.on(event, echo)
        assert caught.value.field == "event"


@pytest.mark.parametrize(
    ("head", "status", "body"),
    [
        ("_gr: [1\r\n", 500, b'[null, "ERR_HEADER_PARSE_GR", null]'),
        ("X: " + "y" * 20_000 + "\r\n", 431, b'[null, "ERR_REQUEST_GENERIC", null]'),
        ("no header\r\n", 400, b'[null, "ERR_REQUEST_GENERIC", null]'),
    ],
)
def test_heads_that_cannot_be_served(flavour, head, status, body):
    with RawClient(flavour.streaming(echo).port) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: x\r\n{head}Content-Length: 0\r\n\r\n".encode())
        assert client.read()[::2] == (status, body)
        assert client.at_end()


def test_a_body_with_a_length_and_an_old_caller(flavour):
    service = flavour.streaming(echo)
    with RawClient(service.port) as client:
        client.send(b"POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
        answer = b""
        while line := client._file.readline():
            answer += line
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\nhello")
    assert b"chunked" not in answer


@pytest.mark.parametrize("listener", [echo, describe])
def test_who_asks_for_the_head_gets_no_body(flavour, listener):
    with RawClient(flavour.streaming(listener).port) as client:
        client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        head = b""
        while (line := client._file.readline()) != b"\r\n":
            head += line
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert client.at_end()


def test_a_body_that_is_no_http_any_more(flavour):
    seen = []

    async def note(rid, key, stream, handler):
        try:
            async for piece in stream:
                seen.append(piece)
        except errors.ConnectionLost as error:
            seen.append(str(error))

    with RawClient(flavour.streaming(note).port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        eventually(lambda: seen)
        client.send(b"zzz\r\n")
        assert client.read()[0] == 400
    assert "not HTTP" in eventually(lambda: len(seen) > 1 and seen[1])


def test_so_many_at_a_time(flavour, monkeypatch):
    monkeypatch.setattr(limits, "STREAMS_MAX", 2)
    service = flavour.streaming(echo)
    open_ones = [opened(flavour, service) for _ in range(2)]
    for stream in open_ones:
        stream.write(b"x")
        assert stream.read(1) == b"x"
    refused = opened(flavour, service)
    with pytest.raises(errors.StatusError) as caught:
        refused.read(1)
    assert caught.value.status == 503
    for stream in [*open_ones, refused]:
        stream.close()


def test_one_address_does_not_keep_all_others_out(flavour, monkeypatch):
    monkeypatch.setattr(limits, "STREAMS_MAX", 4)
    service = flavour.streaming(echo)
    slow = []
    for _ in range(4):
        sock = socket.create_connection(("127.0.0.1", service.port), source_address=("127.0.0.2", 0))
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        assert b"200 OK" in sock.recv(4096)
        slow.append(sock)
    stream = opened(flavour, service)
    stream.write(b"hello")
    assert stream.read(5) == b"hello"
    stream.close()
    for sock in slow:
        sock.close()


def test_stopping_cuts_what_is_open(flavour):
    service = flavour.streaming(echo)
    client = flavour.client(flavour.link(NOBODY))
    stream = client.stream_to(place_of(service), "k")
    stream.write(b"x")
    assert stream.read(1) == b"x"
    service.stop(drain=0.05)
    with pytest.raises(errors.ConnectionLost):
        stream.read(1)
    client.stop()
    for refused in (lambda: client.stream_to(place_of(service), "k"), lambda: stream.write(b"y")):
        with pytest.raises((errors.ClosedError, errors.ConnectionLost)):
            refused()


def test_streams_over_tls(flavour, tmp_path):
    pem = make_ca(tmp_path)
    context = server_context(pem.server_cert, pem.server_key, pem.ca_file)

    async def named_echo(rid, key, stream, handler):
        await stream.write(handler.certificate.common_name.encode())
        await echo(rid, key, stream, handler)

    calling = client_context(pem.ca_file, pem.client_cert, pem.client_key)
    client = flavour.client(flavour.link(NOBODY), ssl=calling)
    stream = client.stream_to(place_of(flavour.streaming(named_echo, ssl=context)), "k")
    sender = threading.Thread(target=lambda: (stream.write(MEGABYTE), stream.end()))
    sender.start()
    assert read_all(stream) == b"client" + MEGABYTE
    sender.join()
    stream.close()
    shut = flavour.streaming(named_echo, ssl=context, authorize={"0" * 64})
    stream = client.stream_to(place_of(shut), "k")
    with pytest.raises(errors.StatusError) as caught:
        stream.read(1)
    assert caught.value.status == 403
    stream.close()


def test_a_handler_is_told_of_a_caller_that_goes(flavour):
    told = threading.Event()

    async def listen(rid, key, stream, handler):
        handler.when_gone(told.set)
        await stream.read(1)
        await stream.write(b"x")
        await stream.read()

    stream = opened(flavour, flavour.streaming(listen))
    stream.write(b"x")
    assert stream.read(1) == b"x"
    assert not told.is_set()
    stream.close()
    assert told.wait(10)


def test_a_port_of_nothing_but_streams_refuses_offers_of_another_protocol(flavour):
    with RawClient(flavour.streaming(echo).port) as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        )
        assert client.read()[0] == 501
