"""The RPC server, in both flavours, asked in raw bytes: as tolerant as the Node server, and never silent."""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import json
import logging
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grenache_py import errors
from tests.harness import eventually

NODE = json.loads((Path(__file__).parent / "data" / "node_rpc_server.json").read_text("utf-8"))["cases"]
NOBODY = "http://127.0.0.1:1"


class MyError(Exception):
    pass


def node_like(rid, key, payload, handler):
    """The handler of the Node server that the vectors were taken from."""
    if payload == "error":
        handler.reply(MyError("ERR_MY_ERROR"))
    elif payload == "error+res":
        handler.reply(MyError("ERR_MY_ERROR"), {"some": "data"})
    elif payload == "strerr":
        handler.reply("ERR_STRING")
    elif payload == "undef2":
        handler.reply()
    elif payload == "undef":
        handler.reply(None)
    elif payload != "noreply":
        handler.reply(None, payload)


class RawClient:
    """Bytes in, bytes out."""

    def __init__(self, port: int):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def post(self, body: bytes | str, headers: str = "") -> tuple[int, dict[str, str], bytes]:
        data = body.encode() if isinstance(body, str) else body
        self.send(
            f"POST / HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(data)}\r\n\r\n".encode() + data
        )
        return self.read()

    def read(self) -> tuple[int, dict[str, str], bytes]:
        status = int(self._file.readline().split()[1])
        headers = {}
        while (line := self._file.readline().decode().rstrip("\r\n")) != "":
            name, value = line.split(": ", 1)
            headers[name.lower()] = value
        body = self._file.read(int(headers["content-length"]))
        return status, headers, body

    def at_end(self) -> bool:
        return self._file.read(1) == b""


def post(service, body, headers=""):
    """Status and JSON of the reply to one request."""
    with RawClient(service.port) as client:
        status, _, reply = client.post(body, headers)
        return status, json.loads(reply)


def request_bytes(case) -> bytes:
    request = case["request"]
    return base64.b64decode(request["b64"]) if "b64" in request else request["text"].encode()


# Where we answer otherwise than Node, and why.
DIFFERENT = {
    "string as error": (200, ["11111111-1111-4111-8111-111111111111", "ERR_STRING", None]),
    "no reply from handler": (504, ["11111111-1111-4111-8111-111111111111", "ERR_TIMEOUT", None]),
}


@pytest.mark.parametrize("case", NODE, ids=[case["name"] for case in NODE])
def test_requests_that_a_node_server_was_sent(flavour, case):
    service = flavour.service(node_like, timeout=0.3)
    with RawClient(service.port) as client:
        client.send(request_bytes(case))
        status, headers, body = client.read()
    if case.get("gzip"):
        body = gzip.decompress(body)
    if case["name"] in DIFFERENT:
        assert (status, json.loads(body)) == DIFFERENT[case["name"]]
    elif case["reply"] is None:
        # Node never replies to these; its clients wait for their time limit.
        assert status == 400
        assert json.loads(body) == [None, "ERR_REQUEST_PAYLOAD_INVALID", None]
    else:
        assert status == case["status"]
        assert body.decode() == case["reply"]
    assert "transfer-encoding" not in headers
    assert "content-encoding" not in headers


def test_connections_are_kept_at_least_as_long_as_node_keeps_them(flavour):
    service = flavour.service(node_like)
    with RawClient(service.port) as client:
        for number in range(3):
            status, headers, body = client.post(f'["r{number}","k",{number}]')
            assert (status, body) == (200, f'["r{number}",null,{number}]'.encode())
            assert headers["connection"] == "keep-alive"
            assert headers["keep-alive"] == "timeout=5"


def test_replies_of_one_connection_stay_in_order(flavour):
    release = threading.Event()

    def handle(rid, key, payload, handler):
        def later() -> None:
            release.wait(10)
            handler.reply(None, payload)

        if payload == "slow":
            threading.Thread(target=later).start()
        else:
            handler.reply(None, payload)
            release.set()

    service = flavour.service(handle)
    with RawClient(service.port) as client:
        for payload in ("slow", "fast"):
            body = json.dumps([payload, "k", payload]).encode()
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert [json.loads(client.read()[2])[0] for _ in range(2)] == ["slow", "fast"]


def test_a_handler_that_raises_is_answered_for_and_logged(flavour, caplog):
    def handle(rid, key, payload, handler):
        raise MyError("it broke") if payload else MyError

    service = flavour.service(handle)
    with caplog.at_level(logging.ERROR, "grenache_py"):
        assert post(service, '["r","k",1]') == (200, ["r", "MyError: it broke", None])
        assert post(service, '["r","k",0]') == (200, ["r", "MyError", None])
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [MyError, MyError]


def test_an_error_text_that_cannot_be_sent_is_mended(flavour, monkeypatch):
    def handle(rid, key, payload, handler):
        raise MyError("half a pair: \ud800")

    # Its trace could not be written either.
    monkeypatch.setattr(logging.getLogger("grenache_py.transports.rpc_server"), "disabled", True)
    assert post(flavour.service(handle), '["r","k",1]') == (200, ["r", "MyError: half a pair: ?", None])


def test_a_handler_knows_how_long_its_caller_waits(flavour):
    service = flavour.service(lambda rid, key, payload, handler: handler.reply(None, handler.remaining_s))
    remaining = post(service, '["r","k",1]', "grc-deadline-ms: 60000\r\n")[1][2]
    assert 50 < remaining <= 60
    for nonsense in ("", "-1", "x", "1.5", "9" * 13, "²"):
        with RawClient(service.port) as client:
            client.send(
                f"POST / HTTP/1.1\r\nHost: x\r\ngrc-deadline-ms: {nonsense}\r\n".encode("latin-1")
                + b'Content-Length: 11\r\n\r\n["r","k",1]'
            )
            assert json.loads(client.read()[2])[2] is None


def test_work_ends_when_its_caller_has_given_up(flavour):
    service = flavour.service(lambda rid, key, payload, handler: None)
    with RawClient(service.port) as client:
        started = time.monotonic()
        status, _, body = client.post('["r","k",1]', "grc-deadline-ms: 100\r\n")
        assert (status, json.loads(body)) == (504, ["r", "ERR_TIMEOUT", None])
        assert 0.05 < time.monotonic() - started < 2


async def test_a_coroutine_is_cancelled_when_its_caller_has_given_up():
    from grenache_py.aio import Link, PeerRPCClient, PeerRPCServer

    cancelled = asyncio.Event()

    async def handle(rid, key, payload, handler):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with Link(NOBODY) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", handle)
        await service.listen(0, "127.0.0.1")
        client = PeerRPCClient(link, deadlines=True)
        with pytest.raises((errors.RequestTimeout, errors.StatusError)) as caught:
            await client.request_to(f"127.0.0.1:{service.port}", "k", 1, timeout=0.2)
        assert caught.value.code == "ERR_TIMEOUT"
        await asyncio.wait_for(cancelled.wait(), 5)


def test_a_request_whose_caller_has_gone_is_not_begun():
    from grenache_py import Link, PeerRPCServer

    begun, release = [], threading.Event()

    def handle(rid, key, payload, handler):
        begun.append(payload)
        release.wait(10)
        handler.reply(None, payload)

    with Link(NOBODY) as link:
        service = PeerRPCServer(link, threads=1).transport()
        service.on("request", handle)
        service.listen(0, "127.0.0.1")
        with RawClient(service.port) as first, RawClient(service.port) as second:
            first.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",1]')
            eventually(lambda: begun)
            assert second.post('["r","k",2]', "grc-deadline-ms: 50\r\n")[0] == 504
            release.set()
            assert json.loads(first.read()[2]) == ["r", None, 1]
            assert second.post('["r","k",3]')[0] == 200
        assert begun == [1, 3]


def test_a_second_reply_is_ignored_and_logged(flavour, caplog):
    def handle(rid, key, payload, handler):
        handler.reply(None, "one")
        handler.reply(None, "two")
        raise MyError("after the reply")

    service = flavour.service(handle)
    with caplog.at_level(logging.WARNING, "grenache_py"), RawClient(service.port) as client:
        assert client.post('["r","k",1]')[2] == b'["r",null,"one"]'
        assert client.post('["r","k",1]')[2] == b'["r",null,"one"]'
    assert any("second reply" in record.getMessage() for record in caplog.records)


def test_a_result_that_has_no_json_form_is_the_handlers_error(flavour):
    def handle(rid, key, payload, handler):
        try:
            handler.reply(None, object())
        except errors.ArgumentError as error:
            handler.reply(None, error.field)

    service = flavour.service(handle)
    assert post(service, '["r","k",1]') == (200, ["r", None, "result"])

    careless = flavour.service(lambda rid, key, payload, handler: handler.reply(None, object()))
    status, (rid, error, result) = post(careless, '["r","k",1]')
    assert (status, rid, result) == (200, "r", None)
    assert error.startswith("ArgumentError: result: must be encodable as JSON")


def test_what_a_handler_is_told(flavour):
    told = []

    def handle(rid, key, payload, handler):
        told.append((rid, key, payload, handler.peer, dict(handler.headers), handler.replied))
        handler.reply(None, None)

    service = flavour.service(handle)
    post(service, '["r","k",{"a":1}]', headers='_a: act\r\n_ar: {"b":2}\r\n')
    rid, key, payload, peer, headers, replied = told[0]
    assert (rid, key, payload, replied) == ("r", "k", {"a": 1}, False)
    assert peer[0] == "127.0.0.1"
    assert (headers["_a"], headers["_ar"]) == ("act", '{"b":2}')


def test_a_reply_may_come_from_any_thread_after_the_handler_returned(flavour):
    held = []
    service = flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with RawClient(service.port) as client:
        client.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",1]')
        eventually(lambda: held)
        assert not held[0].replied
        held[0].reply("ERR_LATE", {"n": 1})
        assert json.loads(client.read()[2]) == ["r", "ERR_LATE", {"n": 1}]
        eventually(lambda: held[0].replied)


def test_an_unanswered_request_is_answered_when_its_time_is_over(flavour, caplog):
    held = []
    service = flavour.service(lambda rid, key, payload, handler: held.append(handler), timeout=0.1)
    with caplog.at_level(logging.WARNING, "grenache_py"), RawClient(service.port) as client:
        started = time.monotonic()
        for _ in range(2):
            status, _, body = client.post('["r","k",1]')
            assert (status, json.loads(body)) == (504, ["r", "ERR_TIMEOUT", None])
        assert 0.15 < time.monotonic() - started < 2
        assert held[0].replied
        held[0].reply(None, "too late")
        assert client.post('["r","k",1]')[0] == 504  # the late reply did not go out
    assert any("not answered within 0.1 s" in record.getMessage() for record in caplog.records)


def test_too_many_unanswered_requests(flavour):
    held = {}
    service = flavour.service(
        lambda rid, key, payload, handler: held.update({payload: handler}), concurrency=2
    )
    with RawClient(service.port) as one, RawClient(service.port) as two, RawClient(service.port) as three:
        for number, client in enumerate((one, two)):
            client.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",%d]' % number)
        eventually(lambda: len(held) == 2)
        status, _, body = three.post('["r","k",2]')
        assert (status, json.loads(body)) == (503, ["r", "ERR_BUSY", None])
        held[0].reply(None, "room again")
        assert json.loads(one.read()[2]) == ["r", None, "room again"]
        three.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",3]')
        eventually(lambda: 3 in held)
        held[3].reply(None, None)
        held[1].reply(None, None)


@pytest.mark.parametrize("body", ["nonsense", "null", ""])
def test_request_error_tells_what_was_wrong(flavour, body):
    seen: list[Any] = []
    service = flavour.service(node_like)
    service.on("request-error", seen.append)
    assert post(service, body) == (400, [None, "ERR_REQUEST_PAYLOAD_INVALID", None])
    eventually(lambda: seen)
    assert isinstance(seen[0], errors.BadRequestError)
    assert seen[0].status == 400


def test_a_listener_of_request_error_that_raises_harms_nothing(flavour, caplog):
    def listener(error):
        raise MyError("in the listener")

    service = flavour.service(node_like)
    service.on("request-error", listener)
    with caplog.at_level(logging.ERROR, "grenache_py"):
        assert post(service, "nonsense")[0] == 400
        eventually(lambda: any(record.exc_info for record in caplog.records))
    assert post(service, '["r","k",1]') == (200, ["r", None, 1])


def test_bodies_that_are_too_large(flavour):
    service = flavour.service(node_like, max_body=1000)
    fits = '["r","k","' + "x" * 900 + '"]'
    assert post(service, fits)[0] == 200
    for body, headers in (
        ('["r","k","' + "x" * 1000 + '"]', ""),
        (gzip.compress(b'["r","k","' + b"x" * 1000 + b'"]'), "grc-compress: gzip\r\n"),
    ):
        assert post(service, body, headers) == (413, [None, "ERR_REQUEST_PAYLOAD_SIZE", None])


def test_a_service_without_a_handler(flavour):
    service = flavour.server(flavour.link(NOBODY)).transport()
    service.listen(0, "127.0.0.1")
    assert post(service, '["r","k",1]') == (501, ["r", "ERR_SERVER_NO_HANDLER", None])


def test_on_is_a_decorator_too(flavour):
    service = flavour.server(flavour.link(NOBODY)).transport("server")

    def handle(rid, key, payload, handler):
        handler.reply(None, "decorated")

    assert service.on("request")(handle) is handle
    service.listen(0, "127.0.0.1")
    assert post(service, '["r","k",1]') == (200, ["r", None, "decorated"])


def test_a_port_that_is_taken(flavour):
    service = flavour.service(node_like)
    other = flavour.server(flavour.link(NOBODY)).transport()
    with pytest.raises(errors.ListenError) as caught:
        other.listen(service.port, "127.0.0.1")
    assert isinstance(caught.value, OSError)
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{service.port}: Address already in use; port 0 takes any free one"
    )
    assert caught.value.errno == errno.EADDRINUSE
    with pytest.raises(errors.ListenError, match="must be an address of this machine"):
        other.listen(0, "192.0.2.1")
    with pytest.raises(errors.ListenError):
        other.listen(0, "no-such-host.invalid")
    other.listen(0, "127.0.0.1")
    assert other.port != service.port


def test_all_interfaces_by_default(flavour):
    service = flavour.server(flavour.link(NOBODY)).transport()
    service.on("request", node_like)
    service.listen()
    assert post(service, '["r","k",1]')[0] == 200


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda service: service.on("stream", print), "event"),
        (lambda service: service.on("request", print), "event"),
        (lambda service: service.listen(-1), "port"),
        (lambda service: service.listen("80"), "port"),
    ],
)
def test_bad_arguments_are_named(flavour, call, field):
    service = flavour.server(flavour.link(NOBODY)).transport()
    service.on("request", node_like)
    with pytest.raises(errors.ArgumentError) as caught:
        call(service)
    assert caught.value.field == field
    with pytest.raises(errors.ArgumentError):
        flavour.server(flavour.link(NOBODY)).transport("client")
    with pytest.raises(errors.ArgumentError):
        flavour.server(flavour.link(NOBODY), timeout=0)


def test_stopping_answers_what_was_taken_and_takes_no_more(flavour):
    held = []
    service = flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with RawClient(service.port) as client, RawClient(service.port) as idle:
        client.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",1]')
        eventually(lambda: held)
        stopper = threading.Thread(target=lambda: service.stop(drain=10))
        stopper.start()
        assert idle.at_end()
        held[0].reply(None, "still answered")
        assert json.loads(client.read()[2]) == ["r", None, "still answered"]
        assert client.at_end()
        stopper.join(10)
    with pytest.raises(ConnectionRefusedError):
        RawClient(service.port)
    service.stop()


def test_a_service_can_be_started_again(flavour):
    service = flavour.service(node_like)
    port = service.port
    service.stop()
    eventually(lambda: listens_on(service, port))
    assert service.port == port
    assert post(service, '["r","k",1]') == (200, ["r", None, 1])


def listens_on(service, port: int) -> bool:
    try:
        service.listen(port, "127.0.0.1")
    except errors.ListenError:
        return False
    return True


def test_stopping_does_not_wait_for_ever(flavour):
    held = []
    service = flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with RawClient(service.port) as client:
        client.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",1]')
        eventually(lambda: held)
        started = time.monotonic()
        service.stop(drain=0.05)
        assert time.monotonic() - started < 2
        assert client.at_end()
    held[0].reply(None, "to nobody")  # goes nowhere, and says nothing


def test_a_client_that_left_before_its_reply(flavour):
    held = []
    service = flavour.service(lambda rid, key, payload, handler: held.append(handler))
    with RawClient(service.port) as client:
        client.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",1]')
        eventually(lambda: held)
    held[0].reply(None, "to nobody")
    with RawClient(service.port) as client:
        client.send(b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n["r","k",2]')
        eventually(lambda: len(held) == 2)
        held[1].reply(None, "to somebody")
        assert json.loads(client.read()[2])[2] == "to somebody"


# --- what only one flavour has


def test_handlers_that_wait_do_not_stop_the_others_sync():
    from tests.flavours import Sync

    flavour = Sync()
    inside = threading.Barrier(3)

    def handle(rid, key, payload, handler):
        inside.wait(10)  # three at the same time, or never
        handler.reply(None, payload)

    try:
        service = flavour.service(handle, threads=3)
        replies = []
        threads = [
            threading.Thread(target=lambda: replies.append(post(service, '["r","k",1]'))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert replies == [(200, ["r", None, 1])] * 3
    finally:
        flavour.close()


def test_a_request_whose_time_passed_while_it_waited_for_a_thread_is_not_run_sync():
    from tests.flavours import Sync

    flavour = Sync()
    release = threading.Event()
    ran = []

    def handle(rid, key, payload, handler):
        ran.append(payload)
        release.wait(10)

    try:
        service = flavour.service(handle, threads=1, timeout=0.1)
        assert post(service, '["r","k","first"]')[0] == 504
        assert post(service, '["r","k","second"]')[0] == 504
        release.set()
        done = threading.Event()
        assert service._threads.submit(done.set)
        assert done.wait(10)
        assert ran == ["first"]
    finally:
        release.set()
        flavour.close()


def test_a_coroutine_function_is_no_handler_of_the_synchronous_flavour():
    from tests.flavours import Sync

    flavour = Sync()
    service = flavour.server(flavour.link(NOBODY)).transport()

    async def handle(rid, key, payload, handler):
        pass

    with pytest.raises(errors.ArgumentError, match=r"grenache_py\.aio"):
        service.on("request", handle)
    flavour.close()


async def test_coroutine_handlers_aio():
    import aiohttp

    from grenache_py.aio import Link, PeerRPCServer

    cancelled = asyncio.Event()

    async def handle(rid, key, payload, handler):
        if payload == "raise":
            raise MyError("in a coroutine")
        if payload == "hang":
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()
        await asyncio.sleep(0)
        handler.reply(None, payload)

    async with Link(NOBODY) as link, aiohttp.ClientSession() as session:
        service = PeerRPCServer(link, timeout=0.2).transport()
        service.on("request", handle)
        await service.listen(0, "127.0.0.1")

        async def ask(payload):
            url = f"http://127.0.0.1:{service.port}/"
            async with session.post(url, data=json.dumps(["r", "k", payload])) as response:
                return json.loads(await response.read())

        replies = await asyncio.gather(*[ask(number) for number in range(20)])
        assert replies == [["r", None, number] for number in range(20)]
        assert await ask("raise") == ["r", "MyError: in a coroutine", None]
        # Its time is over: it is cancelled, and its caller answered.
        assert await ask("hang") == ["r", "ERR_TIMEOUT", None]
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_stopping_cancels_coroutine_handlers_aio():
    from grenache_py.aio import Link, PeerRPCClient, PeerRPCServer

    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handle(rid, key, payload, handler):
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with Link(NOBODY) as link:
        service = PeerRPCServer(link).transport()
        service.on("request", handle)
        await service.listen(0, "127.0.0.1")
        client = PeerRPCClient(link)
        call = asyncio.ensure_future(client.request_to(f"127.0.0.1:{service.port}", "k", 1))
        await asyncio.wait_for(started.wait(), 5)
        await service.stop(drain=0)
        assert cancelled.is_set()
        with pytest.raises(errors.ConnectionLost):
            await call


@pytest.mark.parametrize("half", [False, True], ids=["closed", "half-closed"])
def test_who_goes_before_the_answer_is_told_of(flavour, half):
    held, gone = [], threading.Event()

    def hold(rid, key, payload, handler):
        handler.when_gone(gone.set)
        held.append(handler)

    service = flavour.service(hold)
    with RawClient(service.port) as client:
        body = b'["1","k",1]'
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        eventually(lambda: held)
        assert not gone.is_set()
        if half:
            client._socket.shutdown(socket.SHUT_WR)
            assert gone.wait(10)
            held[0].reply(None, "still here")
            assert client.read()[2] == b'["1",null,"still here"]'
    assert gone.wait(10)
    late = threading.Event()
    held[0].when_gone(late.set)  # as it was told already
    assert late.wait(10)


def test_who_was_answered_is_not_told_of(flavour):
    told = []

    def answer(rid, key, payload, handler):
        handler.when_gone(lambda: told.append(rid))
        handler.reply(None, payload)

    service = flavour.service(answer)
    for _ in range(3):
        post(service, '["1","k",1]')
    service.stop()
    assert told == []
