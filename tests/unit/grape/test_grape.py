"""The Grape itself, in both flavours: life, arguments, events, the same ports and id again."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from grenache_py.grape import Grape, aio
from grenache_py.grape.events import EVENTS, Events
from tests.harness import eventually


def call(grape: Grape | aio.Grape, kind: str, data: Any) -> Any:
    body = json.dumps({"rid": "r", "data": data}).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{grape.url}/{kind}", body), timeout=10) as reply:
        said = reply.read()
    return json.loads(said) if said else None


async def until(check: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + 10
    while not check():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


def test_two_grapes_find_each_other() -> None:
    with Grape() as first, Grape(bootstrap=[first.dht_address]) as second:
        assert call(second, "announce", ["svc", 6001]) == 1
        assert call(first, "lookup", "svc") == ["127.0.0.1:6001"]
        assert call(second, "lookup", "svc") == ["127.0.0.1:6001"]


def test_alone_it_keeps_what_is_announced_and_tells_a_later_one() -> None:
    with Grape() as first:
        assert call(first, "announce", ["svc", 6001]) == 1
        assert call(first, "lookup", "svc") == ["127.0.0.1:6001"]
        with Grape(bootstrap=[first.dht_address]) as second:
            eventually(lambda: call(second, "lookup", "svc") == ["127.0.0.1:6001"])


def test_it_comes_back_with_the_same_ports_and_id() -> None:
    grape = Grape(host="127.0.0.1")
    assert (grape.dht_port, grape.api_port, grape.running) == (0, 0, False)
    grape.start()
    ports, node_id = (grape.dht_port, grape.api_port), grape.node_id
    assert all(ports)
    assert len(node_id) == 20
    grape.start()  # nothing happens
    call(grape, "announce", ["svc", 6001])
    grape.stop()
    grape.stop()
    assert not grape.running
    with grape:
        assert ((grape.dht_port, grape.api_port), grape.node_id) == (ports, node_id)
        assert call(grape, "lookup", "svc") == []
    assert "stopped" in repr(grape)


def test_the_threads_end() -> None:
    before = threading.active_count()
    with Grape():
        assert threading.active_count() > before
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["dht_port", "api_port"])
def test_a_taken_port_is_an_error_and_leaves_nothing_behind(kind: str) -> None:
    with Grape(host="127.0.0.1") as first:
        before = threading.active_count()
        second = Grape(host="127.0.0.1", **{kind: getattr(first, kind)})
        with pytest.raises(OSError, match="in use"):
            second.start()
        assert not second.running
        assert threading.active_count() == before
        assert call(first, "lookup", "svc") == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"dht_port": -1},
        {"dht_port": 70_000},
        {"api_port": "30001"},
        {"bootstrap": "127.0.0.1:1"},
        {"bootstrap": ["127.0.0.1"]},
        {"bootstrap": ["127.0.0.1:0"]},
        {"bootstrap": [":20001"]},
        {"bootstrap": ["127.0.0.1:x"]},
        {"peer_max_age": 0},
        {"peer_max_age": None},
        {"node_liveness": -1.0},
        {"dht_max_tables": 0},
        {"dht_max_values": 0},
        {"dht_concurrency": 0},
        {"max_payload_size": 0},
        {"node_id": b"short"},
    ],
    ids=str,
)
def test_bad_arguments_are_named(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        Grape(**arguments)


def test_events() -> None:
    told: dict[str, list[Any]] = {event: [] for event in EVENTS}
    first = Grape(host="127.0.0.1")
    for event, seen in told.items():
        first.on(event, lambda *arguments, seen=seen: seen.append(arguments))
    with pytest.raises(ValueError, match="event must be one of"):
        first.on("nope", print)
    with first:
        assert told["listening"] == [()]
        assert told["ready"] == [()]
        with Grape(host="127.0.0.1", bootstrap=[first.dht_address]) as second:
            assert told["node"] == [(second.dht_address,)] or eventually(lambda: told["node"])
            call(second, "announce", ["sérvice", 6001])
            assert told["announce"] == [("sérvice",)]
            call(first, "lookup", "sérvice")
            assert told["peer"] == [("127.0.0.1:6001",)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"nonsense", ("127.0.0.1", first.dht_port))
            eventually(lambda: told["warning"])


def test_a_callback_that_fails_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    seen: list[str] = []

    def fail(text: str) -> None:
        raise LookupError("bug")

    events.on("warning", fail)
    events.on("warning", seen.append)
    events.emit("warning", "one")
    assert seen == ["one"]
    assert "bug" in caplog.text
    events.off("warning", seen.append)
    events.off("warning", fail)
    events.off("warning", fail)
    assert not events.wanted("warning")
    events.emit("warning", "two")
    assert seen == ["one"]


def test_a_bootstrap_name_that_nobody_knows_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    warnings: list[str] = []
    grape = Grape(bootstrap=["name.invalid:20001"])
    grape.on("warning", warnings.append)
    with grape:
        assert call(grape, "lookup", "svc") == []
    assert "name.invalid" in warnings[0]
    assert "name.invalid" in caplog.text


def test_a_bootstrap_name_may_come_to_mean_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[str, int]] = []

    async def resolve(names: Iterable[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[str]]:
        assert list(names) == [("grape-1", 20001)]
        return found, []

    with Grape(host="127.0.0.1") as other:
        monkeypatch.setattr(aio, "resolve", resolve)
        monkeypatch.setattr(aio, "_RESOLVE_S", 0.01)
        with Grape(host="127.0.0.1", bootstrap=["grape-1:20001"]) as grape:
            assert not grape._grape.node.routing
            found = [("127.0.0.1", other.dht_port)]
            eventually(lambda: len(grape._grape.node.routing) == 1)


def test_a_dead_bootstrap_does_not_keep_it_from_starting() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        with Grape(bootstrap=[f"127.0.0.1:{silent.getsockname()[1]}"]) as grape:
            assert call(grape, "lookup", "svc") == []


async def test_on_asyncio() -> None:
    async with aio.Grape(host="127.0.0.1") as first:
        second = aio.Grape(host="127.0.0.1", bootstrap=[first.dht_address])
        with pytest.raises(RuntimeError, match="not running"):
            assert second.node
        await second.start()
        await second.start()
        assert await asyncio.to_thread(call, second, "announce", ["svc", 6001]) == 1
        assert await asyncio.to_thread(call, first, "lookup", "svc") == ["127.0.0.1:6001"]
        assert len(second.node.routing) == 1
        await second.stop()
        await second.stop()


async def test_a_start_that_is_cancelled_leaves_nothing_behind() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        grape = aio.Grape(host="127.0.0.1", bootstrap=[f"127.0.0.1:{silent.getsockname()[1]}"])
        listening = asyncio.Event()
        grape.on("listening", listening.set)
        starting = asyncio.ensure_future(grape.start())
        await asyncio.wait_for(listening.wait(), 10)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert not grape.running
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
            again.bind(("127.0.0.1", grape.dht_port))


async def test_a_look_up_under_way_is_answered_when_the_grape_stops() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        grape = aio.Grape(host="127.0.0.1")
        await grape.start()
        # A contact that has answered once, and no longer does: a look-up waits for it.
        grape.node.routing.answered(b"x" * 20, silent.getsockname(), asyncio.get_running_loop().time())
        looking = asyncio.ensure_future(asyncio.to_thread(call, grape, "lookup", "svc"))
        await until(lambda: grape.node._walks)
        await grape.stop()
        assert await looking == []
