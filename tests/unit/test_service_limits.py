"""Services that have enough to do, and services that stop: in both flavours, over HTTP and WebSocket."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from grenache_py import Grape, errors
from tests.flavours import Aio, Sync
from tests.harness import eventually
from tests.ws_flavours import AioWs, SyncWs


@pytest.fixture(params=[Sync, Aio, SyncWs, AioWs], ids=["sync", "aio", "sync ws", "aio ws"])
def either(request):
    """Either flavour over either transport."""
    made = request.param()
    yield made
    made.close()


@pytest.fixture(scope="module")
def grape():
    with Grape(host="127.0.0.1") as running:
        yield running.url


def held_by(held):
    return lambda rid, key, payload, handler: held.append(handler)


def test_a_busy_service_says_so_at_once_and_others_are_asked(either, grape):
    name = f"busy_{type(either).__name__}"  # the Grape remembers the services of the other flavours
    held: list[Any] = []
    link = either.link(grape)
    busy = either.service(held_by(held), link, concurrency=1)
    free = either.service(lambda rid, key, payload, handler: handler.reply(None, "free"), link, concurrency=1)
    client = either.client(either.link(grape))
    place = f"127.0.0.1:{busy.port}"
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.request_to(place, name, 1)))
    caller.start()
    eventually(lambda: held)
    with pytest.raises(errors.StatusError) as raised:
        client.request_to(place, name, 2, timeout=5)
    assert (raised.value.code, raised.value.busy, raised.value.in_doubt) == ("ERR_BUSY", True, False)
    for service in (busy, free):
        link.announce(name, service.port)
    assert {client.request(name, 3, timeout=5) for _ in range(10)} == {"free"}
    # One outcome for each: who is busy does not spoil the broadcast.
    outcomes = {
        result.destination: result.payload if result.ok else result.error.code
        for result in client.map(name, 4, timeout=5)
    }
    assert outcomes == {place: "ERR_BUSY", f"127.0.0.1:{free.port}": "free"}
    held[0].reply(None, "done")
    caller.join(10)
    assert answers == ["done"]
    # There is room again.
    caller = threading.Thread(target=lambda: answers.append(client.request_to(place, name, 5)))
    caller.start()
    eventually(lambda: len(held) == 2)
    held[1].reply(None, "more")
    caller.join(10)
    assert answers == ["done", "more"]


def test_a_sync_handler_that_outlives_its_time_still_counts(grape):
    """What was answered ``ERR_TIMEOUT`` may go on in its thread: no more of them run than were allowed."""
    flavour = Sync()
    begun, go_on = threading.Semaphore(0), threading.Event()

    def slow(rid, key, payload, handler):
        begun.release()
        assert go_on.wait(10)
        handler.reply(None, None)

    try:
        service = flavour.service(slow, concurrency=1, timeout=0.1)
        place = f"127.0.0.1:{service.port}"
        client = flavour.client(flavour.link(grape))
        with pytest.raises(errors.StatusError) as raised:
            client.request_to(place, "k", 1)
        assert raised.value.code == "ERR_TIMEOUT"
        assert begun.acquire(timeout=5)
        with pytest.raises(errors.StatusError) as raised:
            client.request_to(place, "k", 2)
        assert raised.value.code == "ERR_BUSY"
        go_on.set()

        def answered():
            try:
                return client.request_to(place, "k", 3) is None
            except errors.StatusError:
                return False

        eventually(answered)
    finally:
        go_on.set()
        flavour.close()


@pytest.mark.parametrize("concurrency", [0, -1, 1.5, True, None])
def test_concurrency_is_a_count(either, concurrency):
    with pytest.raises(errors.ArgumentError, match="concurrency: must be an integer from 1"):
        either.server(either.link("http://127.0.0.1:1"), concurrency=concurrency)


def found(link, name):
    try:
        return link.lookup(name, fresh=True)
    except errors.LookupEmptyError:
        return []


def test_a_service_that_stops_is_withdrawn_then_drained(either, grape):
    held: list[Any] = []
    link = either.link(grape)
    service = either.service(held_by(held), link)
    other = either.service(held_by(held), link)
    port = service.port
    for name in ("first", "second"):
        link.start_announcing(name, port)
    link.start_announcing("first", other.port)
    client = either.client(either.link(grape))
    answers = []
    calling = lambda: answers.append(client.request_to(f"127.0.0.1:{port}", "first", 1))  # noqa: E731
    caller = threading.Thread(target=calling)
    caller.start()
    eventually(lambda: held)
    stopper = threading.Thread(target=lambda: service.stop(drain=10))
    stopper.start()
    eventually(lambda: not found(link, "second"))
    assert found(link, "first") == [f"127.0.0.1:{other.port}"]
    assert stopper.is_alive()  # it waits for the reply
    held[0].reply(None, "done")
    caller.join(10)
    stopper.join(10)
    assert answers == ["done"]
    assert not link.stop_announcing("first", port)
    assert link.stop_announcing("first", other.port)
    service.stop()  # changes nothing


def test_a_publisher_that_stops_is_withdrawn(ws_flavour, grape):
    link = ws_flavour.link(grape)
    service = ws_flavour.publisher(link)
    link.start_announcing("pub_test", service.port)
    assert found(link, "pub_test")
    service.stop()
    assert not found(link, "pub_test")


def test_a_service_that_never_listened_stops(either):
    either.server(either.link("http://127.0.0.1:1")).transport("server").stop()
