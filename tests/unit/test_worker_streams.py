"""Streams among the actions of a worker, on the port of its requests, in both flavours."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import socket
import threading
from functools import partial

import pytest

from grenache_py import Actions, errors
from grenache_py.errors import Refusal
from grenache_py.sec import load_client_context, load_sec
from tests.flavours import Awaitable
from tests.harness import eventually
from tests.unit.test_rpc_server import RawClient
from tests.unit.test_streams import read_all
from tests.unit.test_worker import NAME, action_client, grape, pem, sec  # noqa: F401

MEGABYTE = bytes(range(256)) * 4096


class Stage:
    """A worker with streams, and what its access log says."""

    def __init__(self, flavour, grape_url, caplog):
        caplog.set_level(logging.INFO, "grenache_py.access")
        self.flavour = flavour
        self.actions = Actions()
        self.link = flavour.link(grape_url)
        self._caplog = caplog

    def stream(self, function):
        """Export a coroutine function, also where plain ones are wanted."""
        name = function.__name__
        if self.flavour.name == "aio":
            return self.actions.stream(function)

        @functools.wraps(function)
        def run(space, stream, *args, **named):
            return asyncio.run(function(space, Awaitable(stream), *args, **named))

        return self.actions.stream(name)(run)

    def start(self, **options):
        worker = self.flavour.make("Worker", self.link, NAME, self.actions, **options)
        worker.start(0, "127.0.0.1")
        return worker

    @property
    def client(self):
        return action_client(self.flavour, self.link)

    def logged(self):
        return [
            (line["action"], line["outcome"])
            for record in self._caplog.records
            if record.name == "grenache_py.access"
            for line in [json.loads(record.getMessage())]
        ]


@pytest.fixture
def stage(flavour, grape, caplog):  # noqa: F811
    return Stage(flavour, grape, caplog)


def test_streams_and_requests_share_a_port(stage):
    @stage.stream
    async def echoStream(space, stream, prefix: str = ""):  # noqa: N802
        await stream.write(f"{space.service}/{space.action}/{prefix}:".encode())
        async for piece in stream:
            await stream.write(piece)

    @stage.actions.export
    def ping(space):
        return "pong"

    stage.start()
    client = stage.client
    assert client.request(NAME, "ping") == "pong"
    stream = client.stream(NAME, "echoStream", ["ü"])
    stream.write(b"hello")
    assert stream.read(100).startswith(f"{NAME}/echoStream/ü:".encode())
    assert client.request(NAME, "ping") == "pong"  # while the stream is open
    stream.end()
    read_all(stream)
    stream.close()
    eventually(lambda: stage.logged() == [("ping", "ok"), ("ping", "ok"), ("echoStream", "ok")])
    assert stage.actions.names == ["ping", "echoStream"]


async def bounce(space, stream):
    async for piece in stream:
        await stream.write(piece)


def named(name, function=bounce):
    async def action(space, stream, *args):
        return await function(space, stream, *args)

    action.__name__ = name
    return action


def head(action, *lines, key="k"):
    return "".join(
        f"{line}\r\n"
        for line in (
            "POST / HTTP/1.1",
            "Host: a",
            "Connection: close",
            "Transfer-Encoding: chunked",
            f'_gr: ["1","{key}"]',
            f"_a: {action}",
            *lines,
            "",
        )
    ).encode()


def refusal_of(stream):
    """Status and code of what a stream is answered in its place."""
    try:
        stream.end()  # it may have come by then
        stream.read()
    except errors.StatusError as error:
        return error.status, error.code
    finally:
        stream.close()
    raise AssertionError("it was not refused")


class Peer(RawClient):
    """A caller in raw bytes."""

    def reply(self):
        status, _, body = self.read()
        return status, json.loads(body)

    def read_until(self, end):
        got = b""
        while not got.endswith(end):
            byte = self._file.read(1)
            assert byte, got
            got += byte
        return got

    def rest(self):
        return self._file.read()


def raw(worker):
    return Peer(worker.port)


BODY = b"5\r\nhello\r\n0\r\n\r\n"


def test_large_bodies_both_ways(stage):
    stage.stream(named("bounceStream"))
    stage.start()
    stream = stage.client.stream(NAME, "bounceStream")
    sent = MEGABYTE * 8

    def send():
        stream.write(sent)
        stream.end()

    sender = threading.Thread(target=send)
    sender.start()
    assert read_all(stream) == sent
    sender.join()
    stream.close()


def test_a_result_in_place_of_a_stream(stage):
    @stage.stream
    async def countStream(space, stream, unit: int, name: str = "?"):  # noqa: N802
        return [name, len(await stream.read()) // unit]

    worker = stage.start()
    stream = stage.client.stream(NAME, "countStream", [2, "x"])
    stream.write(b"1234567")
    stream.end()
    assert json.loads(read_all(stream))[1:] == [None, ["x", 3]]
    stream.close()
    with raw(worker) as client:  # arguments by name, as the {} of Node is made for
        client.send(head("countStream", '_ar: {"name": "y", "unit": 5}') + BODY)
        assert client.reply() == (200, ["1", None, ["y", 1]])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("[1, 2, 3]", "ERR_API_ARGS: at most 2 arguments, not 3"),
        ("[]", "ERR_API_ARGS: unit is missing"),
        ("{}", "ERR_API_ARGS: unit is missing"),
        ('["x"]', "ERR_API_ARGS: unit: "),
        ('{"unit": "x"}', "ERR_API_ARGS: unit: "),
        ('{"unit": 1, "stream": 2}', "ERR_API_ARGS: there is no stream"),
        ("5", "ERR_API_ARGS: args must be an array"),
    ],
)
def test_arguments_that_do_not_fit(stage, args, said):
    @stage.stream
    async def countStream(space, stream, unit: int, name: str = "?"):  # noqa: N802
        raise AssertionError("it must not be called")

    with raw(stage.start()) as client:
        client.send(head("countStream", f"_ar: {args}") + BODY)
        status, (rid, error, result) = client.reply()
    assert (status, rid, result) == (400, "1", None)
    assert error.startswith(said)
    eventually(lambda: stage.logged() == [("countStream", "ERR_API_ARGS")])


def test_what_is_refused_has_a_status_and_a_code(stage, caplog):
    @stage.stream
    async def refuseStream(space, stream):  # noqa: N802
        raise Refusal("ERR_FULL: no room", {"free": 0})

    @stage.stream
    async def crashStream(space, stream):  # noqa: N802
        raise KeyError("broken")

    @stage.stream
    async def oddStream(space, stream):  # noqa: N802
        return object()

    worker = stage.start()
    client = stage.client
    for action, status, code in (
        ("refuseStream", 400, "ERR_FULL"),
        ("crashStream", 500, "ERR_API_ACTION"),
        ("oddStream", 500, "ERR_API_ACTION"),
        ("noStream", 404, "ERR_API_ACTION_NOTFOUND"),
    ):
        stream = client.stream(NAME, action)
        assert refusal_of(stream) == (status, code)
    stage.actions.ready = False
    with raw(worker) as peer:
        peer.send(head("refuseStream") + BODY)
        assert peer.reply() == (503, ["1", "ERR_API_READY", None])
    stage.actions.ready = True
    with raw(worker) as peer:
        peer.send(head("refuseStream") + BODY)
        assert peer.reply() == (400, ["1", "ERR_FULL: no room", {"free": 0}])
    # A stream is no request, and a request no stream.
    with pytest.raises(errors.RemoteError, match="ERR_API_ACTION_NOTFOUND"):
        client.request(NAME, "refuseStream")


def test_one_that_raises_after_it_has_written_is_cut(stage, caplog):
    @stage.stream
    async def crashStream(space, stream):  # noqa: N802
        await stream.write(b"begun")
        raise KeyError("broken")

    @stage.stream
    async def doubleStream(space, stream):  # noqa: N802
        await stream.write(b"begun")
        return "and a result"

    stage.start()

    def failed(action):
        return (action, "ERR_API_ACTION") in stage.logged()

    for action in ("crashStream", "doubleStream"):
        stream = stage.client.stream(NAME, action)
        assert stream.read(5) == b"begun"
        with pytest.raises(errors.ConnectionLost):
            stream.read()
        stream.close()
        eventually(partial(failed, action))
        assert caplog.text.count("Traceback") == 1
        caplog.clear()


def test_a_caller_that_goes_is_logged_without_a_trace(stage, caplog):
    stage.stream(named("bounceStream"))
    with raw(stage.start()) as peer:
        peer.send(head("bounceStream") + b"5\r\nhello\r\n")
        peer.read_until(b"hello")
    eventually(lambda: stage.logged() == [("bounceStream", "ERR_REQUEST_GENERIC")])
    assert "Traceback" not in caplog.text


def test_the_twin_heeds_the_acl(stage, sec, pem):  # noqa: F811
    @stage.stream
    async def getStream(space, stream):  # noqa: N802
        await stream.write(space.certificate.common_name.encode())

    @stage.stream
    async def secretStream(space, stream):  # noqa: N802
        raise AssertionError("it must not be called")

    rights = json.loads((sec / "acl.json").read_text())
    (sec / "acl.json").write_text(json.dumps({name: ["getStream"] for name in rights}))
    stage.start(sec=load_sec(sec))
    secured = stage.flavour.client(stage.link, ssl=load_client_context(sec))
    client = action_client(stage.flavour, stage.link, sec=secured)
    stream = client.stream(f"sec:{NAME}", "getStream")
    stream.end()
    assert stream.read() == b"client"
    stream.close()
    for action in ("secretStream", "noStream"):  # which of them there is is not told
        stream = client.stream(f"sec:{NAME}", action)
        assert refusal_of(stream) == (403, "ERR_API_AUTH")


def test_one_that_stands_still_is_answered_or_cut(stage):
    @stage.stream
    async def waitStream(space, stream):  # noqa: N802
        await stream.read()

    @stage.stream
    async def stallStream(space, stream):  # noqa: N802
        await stream.write(b"begun")
        await stream.read()

    worker = stage.start(timeout=0.3)
    with raw(worker) as peer:
        peer.send(head("waitStream"))
        assert peer.reply() == (504, ["1", "ERR_TIMEOUT", None])
    with raw(worker) as peer:
        peer.send(head("stallStream"))
        peer.read_until(b"begun")
        assert peer.rest() == b"\r\n"  # cut: the last chunk never came
    eventually(lambda: stage.logged() == [("waitStream", "ERR_TIMEOUT"), ("stallStream", "ERR_TIMEOUT")])


def test_one_that_moves_is_not_timed_out(stage):
    stage.stream(named("bounceStream"))
    worker = stage.start(timeout=0.4)
    with raw(worker) as peer:
        peer.send(head("bounceStream"))
        pause = threading.Event()
        for _ in range(8):  # each well within the limit, all of them well beyond it
            peer.send(b"2\r\nhi\r\n")
            peer.read_until(b"hi")
            pause.wait(0.1)
        peer.send(b"0\r\n\r\n")
        assert peer.rest().endswith(b"0\r\n\r\n")


def test_the_deadline_of_the_caller(stage):
    told = []

    @stage.stream
    async def waitStream(space, stream):  # noqa: N802
        told.append(space.handler.remaining_s)
        await stream.read()

    worker = stage.start()
    with raw(worker) as peer:
        peer.send(head("waitStream", "grc-deadline-ms: 200"))
        assert peer.reply() == (504, ["1", "ERR_TIMEOUT", None])
    assert 0 < told[0] <= 0.2


def test_no_more_than_there_is_room_for(stage):
    stage.stream(named("bounceStream"))
    worker = stage.start(concurrency=2)
    with raw(worker) as one, raw(worker) as two, raw(worker) as three:
        for peer in (one, two):
            peer.send(head("bounceStream") + b"2\r\nhi\r\n")
            peer.read_until(b"hi")
        three.send(head("bounceStream"))
        assert three.reply() == (503, [None, "ERR_BUSY", None])


def test_byte_by_byte_and_after_requests(stage):
    stage.stream(named("bounceStream"))

    @stage.actions.export
    def ping(space):
        return "pong"

    worker = stage.start()
    body = b'["1","k",{"action":"ping","args":[]}]'
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    with raw(worker) as peer:
        for _ in range(2):  # the second time its head is known
            peer.send(request)
            assert peer.reply() == (200, ["1", None, "pong"])
        for byte in head("bounceStream") + BODY:
            peer.send(bytes((byte,)))
        peer.read_until(b"5\r\nhello\r\n0\r\n\r\n")
        assert peer.rest() == b""
    with raw(worker) as peer:  # all at once: what follows must be alone on its connection
        peer.send(request + head("bounceStream") + BODY)
        assert peer.reply() == (200, ["1", None, "pong"])
        assert peer.rest().startswith(b"HTTP/1.1 400 ")


def test_100_continue(stage):
    stage.stream(named("bounceStream"))
    with raw(stage.start()) as peer:
        peer.send(head("bounceStream", "Expect: 100-continue"))
        peer.read_until(b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(BODY)
        peer.read_until(b"5\r\nhello\r\n0\r\n\r\n")


def test_an_offer_of_another_protocol_is_passed_over(stage):
    stage.stream(named("bounceStream"))
    with raw(stage.start()) as peer:
        offer = head("bounceStream", "Upgrade: h2c").replace(b"close", b"Upgrade")
        peer.send(offer + BODY)
        peer.read_until(b"5\r\nhello\r\n0\r\n\r\n")


def test_streams_in_hand_have_time_to_end(stage):
    stage.stream(named("bounceStream"))
    worker = stage.start()
    with raw(worker) as peer:
        peer.send(head("bounceStream") + b"2\r\nhi\r\n")
        peer.read_until(b"hi")
        port = worker.port
        stopping = threading.Thread(target=lambda: worker.stop(drain=30))
        stopping.start()
        eventually(lambda: refused(port))
        peer.send(BODY)
        peer.read_until(b"5\r\nhello\r\n0\r\n\r\n")
        stopping.join(10)
        assert not stopping.is_alive()


def refused(port):
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def test_names_that_cannot_be(flavour):
    actions = Actions()
    for name, function in (("upload", bounce), ("_xStream", bounce), ("xStream", lambda space: None)):
        with pytest.raises(errors.ArgumentError):
            actions.stream(name)(function)
    actions.stream("xStream")(bounce)
    for export in (actions.stream, actions.export):
        with pytest.raises(errors.ArgumentError, match="exported already"):
            export("xStream")(bounce)
    client = action_client(flavour, flavour.link("http://127.0.0.1:1"))
    for name, action, args in ((NAME, "upload", []), (NAME, "xStream", 5), ("", "xStream", [])):
        with pytest.raises(errors.ArgumentError):
            client.stream(name, action, args)
    for options in ({"streams": len, "disable_buffered": True}, {"streams": "Stream"}):
        with pytest.raises(errors.ArgumentError, match="streams"):
            flavour.server(flavour.link("http://127.0.0.1:1"), **options)
