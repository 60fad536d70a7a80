"""Middleware around calls, in both flavours, over HTTP and WebSocket."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from grenache_py import Grape, errors
from grenache_py.errors import Refusal
from tests.flavours import Aio, Sync
from tests.harness import eventually, free_port
from tests.ws_flavours import AioWs, SyncWs

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(params=[Sync, Aio, SyncWs, AioWs], ids=["sync", "aio", "sync ws", "aio ws"])
def either(request):
    made = request.param()
    yield made
    made.close()


def over_http(flavour):
    return not isinstance(flavour, (SyncWs, AioWs))


def around(flavour, before=None, after=None):
    """A middleware of the flavour: ``before(call)``, the rest, ``after(call, result)``."""

    def begin(call):
        return None if before is None else before(call)

    def end(call, result):
        return result if after is None else after(call, result)

    if not isinstance(flavour, Aio):

        def plain(call, proceed):
            begin(call)
            return end(call, proceed(call))

        return plain

    async def coroutine(call, proceed):
        begin(call)
        return end(call, await proceed(call))

    return coroutine


def raising(flavour, error):
    def fail(call):
        raise error

    return around(flavour, fail)


def echo(rid, key, payload, handler):
    handler.reply(None, payload)


def place_of(service):
    return f"127.0.0.1:{service.port}"


def test_the_first_is_the_outermost_on_both_sides(either):
    seen = []

    def named(name):
        def leave(call, result):
            seen.append(f"{name} out")
            return result

        return around(either, lambda call: seen.append(f"{name} in"), leave)

    service = either.service(echo, middleware=[named("server 1"), named("server 2")])
    client = either.client(either.link(NOBODY), middleware=[named("client 1"), named("client 2")])
    assert client.request_to(place_of(service), "k", {"n": 1}) == {"n": 1}
    eventually(lambda: len(seen) == 8)
    inside = seen.index("server 1 in")
    for side in ("client", "server"):
        steps = [step for step in seen if side in step]
        assert steps == [f"{side} {step}" for step in ("1 in", "2 in", "2 out", "1 out")]
    assert seen[:inside] == ["client 1 in", "client 2 in"]


def test_a_client_may_look_and_change(either):
    seen = []

    def change(call):
        seen.append((call.destination, call.key, call.payload, call.compress, call.stream))
        assert 0 < call.ends - time.monotonic() <= 5
        call.payload = {"changed": call.payload}

    service = either.service(echo)
    client = either.client(
        either.link(NOBODY), middleware=[around(either, change, lambda call, result: [result, "more"])]
    )
    assert client.request_to(place_of(service), "k", 1, timeout=5) == [{"changed": 1}, "more"]
    assert seen == [(place_of(service), "k", 1, False, False)]


def test_headers_are_added_and_read(either):
    seen = []

    def tell(rid, key, payload, handler):
        handler.reply(None, handler.headers.get("x-user"))

    def add(call):
        call.headers["x-user"] = "ann"

    service = either.service(
        tell, middleware=[around(either, lambda call: seen.append(call.handler.headers.get("x-user")))]
    )
    client = either.client(either.link(NOBODY), middleware=[around(either, add)])
    assert client.request_to(place_of(service), "k", 1) == "ann"
    assert seen == ["ann"]
    mine = {"x-other": "1"}
    assert client.request_to(place_of(service), "k", 1, headers=mine) == "ann"
    assert mine == {"x-other": "1"}  # a copy was changed


def test_a_service_may_refuse(either, caplog):
    asked = []
    service = either.service(
        lambda rid, key, payload, handler: asked.append(payload),
        middleware=[raising(either, Refusal("ERR_NOT_YOU: go away", {"why": 1}))],
    )
    with pytest.raises(errors.RemoteError) as raised:
        either.client(either.link(NOBODY)).request_to(place_of(service), "k", 1)
    assert (raised.value.code, raised.value.message, raised.value.result) == (
        "ERR_NOT_YOU",
        "ERR_NOT_YOU: go away",
        {"why": 1},
    )
    assert not asked
    assert not caplog.records


def test_a_middleware_that_raises_is_as_a_handler_that_raises(either, caplog):
    service = either.service(echo, middleware=[raising(either, KeyError("oops"))])
    with pytest.raises(errors.RemoteError, match="KeyError: 'oops'"):
        either.client(either.link(NOBODY)).request_to(place_of(service), "k", 1)
    assert "Traceback" in caplog.text


def test_a_client_may_refuse_and_the_service_is_not_asked(either):
    asked = []
    service = either.service(lambda rid, key, payload, handler: asked.append(payload))
    client = either.client(either.link(NOBODY), middleware=[raising(either, Refusal("ERR_NOT_NOW"))])
    with pytest.raises(Refusal, match="ERR_NOT_NOW"):
        client.request_to(place_of(service), "k", 1)
    assert not asked


def test_a_middleware_may_answer_itself_or_change_what_the_listener_gets(either):
    def change(call):
        call.key, call.payload = "other", [call.payload]

    def tell(rid, key, payload, handler):
        handler.reply(None, [rid is not None, key, payload])

    service = either.service(tell, middleware=[around(either, change)])
    client = either.client(either.link(NOBODY))
    assert client.request_to(place_of(service), "k", 1) == [True, "other", [1]]

    def plain(call, proceed):
        call.handler.reply(None, "from the cache")

    async def coroutine(call, proceed):
        plain(call, proceed)

    cached = either.service(tell, middleware=[coroutine if isinstance(either, Aio) else plain])
    assert client.request_to(place_of(cached), "k", 1) == "from the cache"


def test_each_attempt_and_each_peer_of_a_map_is_a_call(either):
    calls, outcomes = [], []

    def plain(call, proceed):
        calls.append(call.destination)
        try:
            return proceed(call)
        except errors.PeerError as error:
            outcomes.append(error)
            raise

    async def coroutine(call, proceed):
        calls.append(call.destination)
        try:
            return await proceed(call)
        except errors.PeerError as error:
            outcomes.append(error)
            raise

    middleware = [coroutine if isinstance(either, Aio) else plain]
    with Grape(host="127.0.0.1") as grape:
        link = either.link(grape.url)
        service = either.service(echo, link)
        dead = free_port()
        for port in (service.port, dead):
            link.announce("rpc_test", port)
        client = either.client(either.link(grape.url), middleware=middleware)
        results = client.map("rpc_test", {"n": 1})
        assert sorted(calls) == sorted([place_of(service), f"127.0.0.1:{dead}"])
        assert sorted(result.ok for result in results) == [False, True]
        assert [type(error) for error in outcomes] == [errors.ConnectError]
        calls.clear()
        while f"127.0.0.1:{dead}" not in calls:  # until it is chosen first
            calls.clear()
            fresh = either.client(either.link(grape.url), middleware=middleware)
            assert fresh.request("rpc_test", 1) == 1
        assert calls == [f"127.0.0.1:{dead}", place_of(service)]


def test_the_reply_can_be_observed(either):
    held, seen = [], []

    def hold(rid, key, payload, handler):
        if payload == "raise":
            raise ValueError("so wrong")
        if payload == "refuse":
            raise Refusal("ERR_NO")
        if payload == "hold":
            held.append(handler)
        else:
            handler.reply(payload)

    def broken(error):
        seen.append(error)
        raise AssertionError("harms nobody")

    service = either.service(
        hold, timeout=0.3, middleware=[around(either, lambda call: call.handler.observe(broken))]
    )
    client = either.client(either.link(NOBODY))
    for payload in ("ERR_OWN", "raise", "refuse", "hold"):
        with pytest.raises(errors.PeerError):
            client.request_to(place_of(service), "k", payload)
    assert client.request_to(place_of(service), "k", None) is None
    eventually(lambda: len(seen) == 5)
    assert seen == ["ERR_OWN", "ValueError: so wrong", "ERR_NO", "ERR_TIMEOUT", None]
    held[0].reply(None, "too late")
    assert len(seen) == 5


def test_what_is_dropped_when_the_service_stops_is_observed(either):
    seen: list[Any] = []
    held: list[Any] = []
    service = either.service(
        lambda rid, key, payload, handler: held.append(handler),
        middleware=[around(either, lambda call: call.handler.observe(seen.append))],
    )
    client = either.client(either.link(NOBODY))

    def call():
        with pytest.raises(errors.PeerError):
            client.request_to(place_of(service), "k", 1)

    caller = threading.Thread(target=call)
    caller.start()
    eventually(lambda: held)
    service.stop(drain=0.05)
    caller.join(10)
    assert seen == ["ERR_CLOSED"]


def test_a_slow_middleware_leaves_less_time_for_the_call(either):
    service = either.service(lambda rid, key, payload, handler: None)
    client = either.client(either.link(NOBODY), middleware=[around(either, lambda call: time.sleep(0.2))])
    started = time.monotonic()
    with pytest.raises(errors.RequestTimeout):
        client.request_to(place_of(service), "k", 1, timeout=0.5)
    assert time.monotonic() - started < 0.6


def test_streams_pass_through_it_too(flavour):
    seen: list[Any] = []

    async def serve(rid, key, stream, handler):
        await stream.write(handler.headers["x-user"].encode())
        await stream.write(await stream.read())

    def incoming(call):
        seen.append((call.key, call.payload, call.stream is not None, call.handler.action))
        call.handler.observe(lambda error: seen.append(error))
        if call.handler.action == "forbidden":
            raise Refusal("ERR_FORBIDDEN_ACTION")

    def outgoing(call):
        seen.append((call.key, call.payload, call.stream))
        call.headers["x-user"] = "ann"

    service = flavour.streaming(serve, middleware=[around(flavour, incoming)])
    client = flavour.client(flavour.link(NOBODY), middleware=[around(flavour, outgoing)])
    stream = client.stream_to(place_of(service), "files", headers={"_a": "upload"})
    stream.write(b"123")
    stream.end()
    assert stream.read() == b"ann123"
    stream.close()
    eventually(lambda: len(seen) == 3)
    assert seen == [("files", None, True), ("files", None, True, "upload"), None]
    refused = client.stream_to(place_of(service), "files", headers={"_a": "forbidden"})
    assert b"ERR_FORBIDDEN_ACTION" in refused.read()
    refused.close()
    eventually(lambda: len(seen) == 6)
    assert seen[-1] == "ERR_FORBIDDEN_ACTION"


@pytest.mark.parametrize("middleware", [5, "abc", [5], lambda call, proceed: None])
def test_what_is_no_middleware(either, middleware):
    link = either.link(NOBODY)
    for make in (either.client, either.server):
        with pytest.raises(errors.ArgumentError, match="middleware: must be"):
            make(link, middleware=middleware)


def test_coroutines_need_the_other_flavour():
    async def coroutine(call, proceed):
        return await proceed(call)

    for flavour in (Sync(), SyncWs()):
        link = flavour.link(NOBODY)
        for make in (flavour.client, flavour.server):
            with pytest.raises(errors.ArgumentError, match=r"coroutines need grenache_py\.aio"):
                make(link, middleware=[coroutine])
        flavour.close()


def test_a_handler_may_refuse_without_middleware(either, caplog):
    def refuse(rid, key, payload, handler):
        raise Refusal("ERR_NO_SUCH_IP", [payload])

    service = either.service(refuse)
    with pytest.raises(errors.RemoteError, match="ERR_NO_SUCH_IP") as raised:
        either.client(either.link(NOBODY)).request_to(place_of(service), "k", 1)
    assert raised.value.result == [1]
    assert not caplog.records
    with pytest.raises(errors.ArgumentError):
        Refusal("")


def test_workers_have_middleware(flavour):
    from grenache_py import Actions

    actions = Actions()

    @actions.export
    def who(space):
        return space.service

    def rename(call):
        call.key = f"{call.key}!"

    with Grape(host="127.0.0.1") as grape:
        link = flavour.link(grape.url)
        flavour.make("Worker", link, "rpc_test", actions, middleware=[around(flavour, rename)]).start(
            0, "127.0.0.1"
        )
        client = flavour.make("ActionClient", flavour.client(link))
        assert client.request("rpc_test", "who") == "rpc_test!"
