"""PeerRPCClient among several peers, in both flavours: retries, broadcasts, dead peers, time limits."""

from __future__ import annotations

import json
import socket
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

import grenache_py.aio
from grenache_py import Link, PeerRPCClient, PeerRPCServer, errors, limits
from tests.harness import eventually, free_port
from tests.scripted import ScriptedServer, reply
from tests.unit.test_rpc_server import listens_on

NOBODY = "http://127.0.0.1:1"


def grape_with(*destinations: object) -> ScriptedServer:
    """A Grape at which these are announced: scripted servers, services, or ``host:port``."""
    places = [
        place if isinstance(place, str) else f"127.0.0.1:{place.port}"  # type: ignore[attr-defined]
        for place in destinations
    ]
    return ScriptedServer([reply(json.dumps(places))])


def echo(rid, key, payload, handler):
    handler.reply(None, {"key": key, "payload": payload})


def dead() -> str:
    return f"127.0.0.1:{free_port()}"


# --- request


def test_a_request_by_name(flavour):
    service = flavour.service(echo)
    with grape_with(service) as grape:
        client = flavour.client(flavour.link(grape.url))
        assert client.request("rpc_test", {"n": 1}) == {"key": "rpc_test", "payload": {"n": 1}}
        assert client.request("rpc_test", None, compress=True) == {"key": "rpc_test", "payload": None}
        assert client.request_to(f"127.0.0.1:{service.port}", "k", [1]) == {"key": "k", "payload": [1]}


def test_requests_are_spread_over_the_peers(flavour):
    seen: list[int] = []

    def numbered(n):
        def handle(rid, key, payload, handler):
            seen.append(n)
            handler.reply(None, n)

        return handle

    services = [flavour.service(numbered(n)) for n in range(3)]
    with grape_with(*services) as grape:
        client = flavour.client(flavour.link(grape.url))
        for _ in range(60):
            client.request("rpc_test", None)
    assert set(seen) == {0, 1, 2}


def test_nobody_is_announced(flavour):
    with ScriptedServer([reply("[]")]) as grape:
        client = flavour.client(flavour.link(grape.url))
        for call in (client.request, client.map):
            with pytest.raises(errors.LookupEmptyError) as caught:
                call("rpc_test", None)
            assert not caught.value.in_doubt


def test_a_grape_that_is_down_is_told_from_a_peer_that_is_down(flavour):
    client = flavour.client(flavour.link(f"http://{dead()}"))
    with pytest.raises(errors.GrapeUnreachableError):
        client.request("rpc_test", None)
    with grape_with(dead()) as grape:
        client = flavour.client(flavour.link(grape.url))
        with pytest.raises(errors.ConnectError):
            client.request("rpc_test", None)


def test_another_peer_is_tried(flavour):
    service = flavour.service(echo)
    gone = dead()
    with grape_with(gone, service) as grape:
        for _ in range(8):  # either may be chosen first
            link = flavour.link(grape.url)
            client = flavour.client(link)
            assert client.request("rpc_test", 1, retry=2)["payload"] == 1
        # Whoever hit the dead one does not choose it again.
        for _ in range(8):
            assert client.request("rpc_test", 1, retry=2)["payload"] == 1


def test_a_peer_that_refuses_is_followed_by_another_without_being_asked_for(flavour):
    service = flavour.service(echo)
    with grape_with(dead(), service, dead(), dead()) as grape:
        for _ in range(6):
            client = flavour.client(flavour.link(grape.url))
            assert client.request("rpc_test", 1)["payload"] == 1


def test_only_an_idempotent_request_is_taken_elsewhere_when_it_is_cut(flavour):
    service = flavour.service(echo)
    with ScriptedServer(["close"]) as rude, grape_with(rude, service) as grape:
        for _ in range(6):
            client = flavour.client(flavour.link(grape.url))
            assert client.request("rpc_test", 1, idempotent=True)["payload"] == 1
        failures: list[errors.PeerError] = []
        while not failures:  # until the rude one is chosen
            try:
                flavour.client(flavour.link(grape.url)).request("rpc_test", 1)
            except errors.ConnectionLost as error:
                failures.append(error)
        assert failures[0].in_doubt


def test_a_peer_that_is_too_busy_is_followed_by_another(flavour, monkeypatch):
    free = flavour.service(echo)
    busy = reply('[null, "ERR_BUSY", null]', "503 Service Unavailable")
    with ScriptedServer([busy]) as occupied, grape_with(occupied, free) as grape:
        client = flavour.client(flavour.link(grape.url))
        while not occupied.asked:
            assert client.request("rpc_test", 1)["payload"] == 1
        with pytest.raises(errors.StatusError) as caught:
            client.request_to(occupied.destination, "rpc_test", 1)
        assert caught.value.code == "ERR_BUSY"
        assert not caught.value.in_doubt


def test_the_least_loaded_peer_is_chosen(flavour):
    waiting, release = [], threading.Event()

    def handle(rid, key, payload, handler):
        def later() -> None:
            release.wait(10)
            handler.reply(None, payload)

        waiting.append(handler)
        threading.Thread(target=later).start()

    def are_asked(count):
        return len(waiting) == count

    services = [flavour.service(handle) for _ in range(2)]
    with grape_with(*services) as grape:
        client = flavour.client(flavour.link(grape.url), choice="least-loaded")
        threads = [threading.Thread(target=client.request, args=("rpc_test", n)) for n in range(4)]
        for number, thread in enumerate(threads, 1):
            thread.start()
            eventually(partial(are_asked, number))
        assert len({id(each._server) for each in waiting[:2]}) == 2
        assert len({id(each._server) for each in waiting[2:]}) == 2
        release.set()
        for thread in threads:
            thread.join()


def test_the_fastest_peer_is_chosen(flavour):
    asked = []

    def slow(rid, key, payload, handler):
        asked.append("slow")
        threading.Timer(0.2, handler.reply, (None, payload)).start()

    def fast(rid, key, payload, handler):
        asked.append("fast")
        handler.reply(None, payload)

    with grape_with(flavour.service(slow), flavour.service(fast)) as grape:
        client = flavour.client(flavour.link(grape.url), choice="fastest")
        for number in range(30):
            assert client.request("rpc_test", number) == number
        # Each is tried, the slow one then only by chance (one call in twenty goes to either).
        assert asked.count("fast") >= 20


def test_a_dead_peer_is_forgotten_at_once(flavour):
    service = flavour.service(echo)
    gone = dead()
    with grape_with(gone, service) as grape:
        link = flavour.link(grape.url)
        client = flavour.client(link)
        with pytest.raises(errors.ConnectError):
            client.request_to(gone, "rpc_test", 1)
        assert link.lookup("rpc_test") == [f"127.0.0.1:{service.port}"]
        for _ in range(10):
            client.request("rpc_test", 1)


def test_a_peer_that_hangs_up_is_forgotten_too(flavour):
    with ScriptedServer(["close"]) as rude, grape_with(rude) as grape:
        link = flavour.link(grape.url)
        client = flavour.client(link)
        with pytest.raises(errors.ConnectionLost):
            client.request("rpc_test", 1)
        assert link.known("rpc_test") is None


def test_retry_counts_attempts_as_in_node(flavour):
    with ScriptedServer(["close"]) as rude, grape_with(rude) as grape:
        client = flavour.client(flavour.link(grape.url))
        for retry in (1, 3):
            asked = len(rude.asked)
            with pytest.raises(errors.ConnectionLost):
                client.request("rpc_test", 1, retry=retry)
            assert len(rude.asked) - asked == retry


def test_what_a_handler_answered_is_final(flavour):
    asked = []

    def refuse(rid, key, payload, handler):
        asked.append(rid)
        handler.reply("ERR_NO", {"why": 1})

    with grape_with(flavour.service(refuse)) as grape:
        client = flavour.client(flavour.link(grape.url))
        with pytest.raises(errors.RemoteError) as caught:
            client.request("rpc_test", 1, retry=5)
        assert (caught.value.message, caught.value.result) == ("ERR_NO", {"why": 1})
        assert len(asked) == 1


def test_the_time_is_divided_among_the_attempts(flavour):
    service = flavour.service(echo)
    with ScriptedServer(["hold"]) as silent, grape_with(silent, service) as grape:
        client = flavour.client(flavour.link(grape.url))
        started = time.monotonic()
        while not silent.asked:  # until it was chosen first
            assert client.request("rpc_test", 1, retry=2, timeout=1)["payload"] == 1
        assert time.monotonic() - started < 5


def test_the_whole_call_ends_in_time(flavour):
    with ScriptedServer(["hold"]) as silent, grape_with(silent) as grape:
        client = flavour.client(flavour.link(grape.url))
        started = time.monotonic()
        with pytest.raises(errors.RequestTimeout):
            client.request("rpc_test", 1, retry=4, timeout=0.3)
        assert 0.25 < time.monotonic() - started < 1.5
        assert len(silent.asked) == 4
    with ScriptedServer(["hold"]) as silent_grape:
        client = flavour.client(flavour.link(silent_grape.url))
        started = time.monotonic()
        with pytest.raises(errors.GrapeUnreachableError) as caught:
            client.request("rpc_test", 1, timeout=0.3)
        assert time.monotonic() - started < 1.5
        assert caught.value.code == "ERR_TIMEOUT"


def test_the_doubt_of_an_earlier_attempt_is_not_lost(flavour):
    gone = dead()
    with ScriptedServer(["close"]) as rude, grape_with(rude, gone) as grape:
        outcomes: set[Any] = set()
        while len(outcomes) < 2:  # either may be chosen first
            client = flavour.client(flavour.link(grape.url))
            with pytest.raises((errors.ConnectError, errors.ConnectionLost)) as caught:
                client.request("rpc_test", 1, retry=2)
            # The rude one may have done the work, whichever attempt came last.
            assert caught.value.in_doubt
            outcomes.add(type(caught.value))
        assert outcomes == {errors.ConnectError, errors.ConnectionLost}


@pytest.mark.parametrize(
    ("method", "arguments", "options", "field"),
    [
        ("request", ["", 1], {}, "key"),
        ("request", ["k", 1], {"timeout": 0}, "timeout"),
        ("request", ["k", 1], {"retry": 0}, "retry"),
        ("request", ["k", object()], {}, "payload"),
        ("map", ["", 1], {}, "key"),
        ("map", ["k", 1], {"limit": 0}, "limit"),
        ("map", ["k", 1], {"timeout": "5"}, "timeout"),
        ("map", ["k", object()], {}, "payload"),
        ("map", ["k", 1], {"headers": {"Host": "x"}}, "headers"),
    ],
)
def test_bad_arguments_are_named_and_reach_no_peer(flavour, method, arguments, options, field):
    with ScriptedServer([reply("[]")]) as peer, grape_with(peer) as grape:
        client = flavour.client(flavour.link(grape.url))
        with pytest.raises(errors.ArgumentError) as caught:
            getattr(client, method)(*arguments, **options)
        assert caught.value.field == field
        assert peer.asked == []


# --- map


def test_calls_of_every_kind_say_how_long_they_will_wait(flavour):
    def tell(rid, key, payload, handler):
        left_s = handler.remaining_s
        handler.reply(None, None if left_s is None else payload - 1 < left_s <= payload)

    services = [flavour.service(tell) for _ in range(2)]
    with grape_with(*services) as grape:
        link = flavour.link(grape.url)
        for deadlines, told in ((True, True), (False, None)):
            client = flavour.client(link, deadlines=deadlines)
            assert client.request_to(f"127.0.0.1:{services[0].port}", "k", 8, timeout=8) is told
            assert client.request("rpc_test", 8, timeout=8) is told
            for _ in range(2):  # over new connections, and over those that were kept
                results = client.map("rpc_test", 8, timeout=8)
                assert [result.payload for result in results] == [told, told]
            results = list(client.map_stream("rpc_test", 8, timeout=8))
            assert [result.payload for result in results] == [told, told]


def test_map_asks_every_peer_at_the_same_time(flavour):
    inside = threading.Barrier(3)

    def handle(rid, key, payload, handler):
        def wait() -> None:
            inside.wait(10)
            handler.reply(None, payload)

        threading.Thread(target=wait).start()

    services = [flavour.service(handle) for _ in range(3)]
    with grape_with(*services) as grape:
        client = flavour.client(flavour.link(grape.url))
        results = client.map("rpc_test", {"n": 1})
    assert {result.destination for result in results} == {f"127.0.0.1:{each.port}" for each in services}
    assert all(result.ok and result.payload == {"n": 1} and result.error is None for result in results)
    assert all(0 < result.elapsed_s < 10 for result in results)


def test_one_peer_that_fails_spoils_nothing(flavour):
    service = flavour.service(echo)
    refusing = flavour.service(lambda rid, key, payload, handler: handler.reply("ERR_NO", {"partial": 1}))
    gone = dead()
    with (
        ScriptedServer(["hold"]) as silent,
        ScriptedServer(["close"]) as rude,
        ScriptedServer([reply("nonsense")]) as odd,
        grape_with(gone, silent, service, rude, odd, refusing) as grape,
    ):
        client = flavour.client(flavour.link(grape.url))
        results = {result.destination: result for result in client.map("rpc_test", 1, timeout=0.5)}
        assert len(results) == 6
        good = results[f"127.0.0.1:{service.port}"]
        assert good.ok
        assert good.payload == {"key": "rpc_test", "payload": 1}
        failed = {
            gone: errors.ConnectError,
            silent.destination: errors.RequestTimeout,
            rude.destination: errors.ConnectionLost,
            odd.destination: errors.ReplyError,
            f"127.0.0.1:{refusing.port}": errors.RemoteError,
        }
        for destination, error in failed.items():
            assert type(results[destination].error) is error
            assert results[destination].payload is None
            assert not results[destination].ok
            assert results[destination].error.destination == destination
        assert results[f"127.0.0.1:{refusing.port}"].error.result == {"partial": 1}
        # The next broadcast leaves out those that were dead.
        again = {result.destination for result in client.map("rpc_test", 1, timeout=0.2)}
        assert again == set(results) - {gone, rude.destination}


def test_results_of_a_broadcast_come_as_they_come(flavour):
    with ScriptedServer(["hold"]) as silent, grape_with(silent, flavour.service(echo), dead()) as grape:
        client = flavour.client(flavour.link(grape.url))
        results = list(client.map_stream("rpc_test", 1, timeout=0.5))
        assert sorted(type(result.error).__name__ for result in results) == [
            "ConnectError",
            "NoneType",
            "RequestTimeout",
        ]
        assert isinstance(results[-1].error, errors.RequestTimeout)


def test_the_first_result_of_a_broadcast_does_not_wait_for_the_last():
    with Link(NOBODY) as link, ScriptedServer(["hold"]) as silent:
        service = PeerRPCServer(link).transport()
        service.on("request", echo)
        service.listen(0, "127.0.0.1")
        with grape_with(silent, service) as grape, Link(grape.url) as calling:
            results = PeerRPCClient(calling).map_stream("rpc_test", 1, timeout=30)
            assert next(results).ok
            silent.close()  # it would have waited for this one's time limit
            assert isinstance(next(results).error, errors.ConnectionLost)


async def test_a_broadcast_with_asyncio_ends_with_its_iteration():
    async with grenache_py.aio.Link(NOBODY) as link:
        service = grenache_py.aio.PeerRPCServer(link).transport()
        service.on("request", echo)
        await service.listen(0, "127.0.0.1")
        with ScriptedServer(["hold"]) as silent, grape_with(silent, service) as grape:
            async with grenache_py.aio.Link(grape.url) as calling:
                client = grenache_py.aio.PeerRPCClient(calling)
                results: Any = client.map_stream("rpc_test", 1, timeout=30)
                started = time.monotonic()
                assert (await anext(results)).ok
                await results.aclose()
                await client.stop()
                assert time.monotonic() - started < 5


@dataclass
class Echoed:
    key: str
    payload: list[int]


def test_a_result_of_a_type(flavour):
    service = flavour.service(echo)
    with grape_with(service) as grape:
        client = flavour.client(flavour.link(grape.url))
        assert client.request("rpc_test", [1, 2], type=Echoed) == Echoed("rpc_test", [1, 2])
        place = f"127.0.0.1:{service.port}"
        assert client.request_to(place, "k", [], type=Echoed) == Echoed("k", [])
        for call in (
            lambda: client.request("k", ["x"], type=Echoed),
            lambda: client.request_to(place, "k", 1, type=int),
        ):
            with pytest.raises(errors.ReplyError) as caught:
                call()
            assert caught.value.code == "ERR_REPLY_TYPE"
            assert caught.value.in_doubt


def test_when_all_peers_fail_it_does_not_look_like_no_peers(flavour):
    with grape_with(dead(), dead()) as grape:
        results = flavour.client(flavour.link(grape.url)).map("rpc_test", 1)
        assert [type(result.error) for result in results] == [errors.ConnectError] * 2


def test_map_with_a_limit_chooses_at_random(flavour):
    services = [flavour.service(echo) for _ in range(4)]
    with grape_with(*services) as grape:
        client = flavour.client(flavour.link(grape.url))
        chosen = [
            frozenset(result.destination for result in client.map("rpc_test", 1, limit=2)) for _ in range(40)
        ]
        assert all(len(each) == 2 for each in chosen)
        assert len(set(chosen)) > 1
        assert len(client.map("rpc_test", 1, limit=50)) == 4


def test_map_to_as_many_silent_peers_as_a_lookup_may_return_ends_in_time(flavour):
    # Connections are made by the system, and nobody ever reads.
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(limits.DESTINATIONS_MAX)]
    places = [f"127.0.0.1:{listener.getsockname()[1]}" for listener in silent]
    with grape_with(*places) as grape:
        client = flavour.client(flavour.link(grape.url))
        started = time.monotonic()
        results = client.map("rpc_test", 1, timeout=0.7)
        assert time.monotonic() - started < 5
        assert {result.destination for result in results} == set(places)
        assert all(isinstance(result.error, TimeoutError) for result in results)
    for listener in silent:
        listener.close()


def test_map_compresses_too(flavour):
    with grape_with(flavour.service(echo)) as grape:
        client = flavour.client(flavour.link(grape.url))
        assert client.map("rpc_test", "x" * 1000, compress=True)[0].payload["payload"] == "x" * 1000


def test_many_threads_share_a_client(flavour):
    service = flavour.service(echo)
    with grape_with(service) as grape:
        client = flavour.client(flavour.link(grape.url))
        answers: list[object] = []

        def work(worker: int) -> None:
            for number in range(20):
                answers.append(client.request("rpc_test", [worker, number])["payload"] == [worker, number])

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [True] * 160
        assert len(grape.asked) == 1  # looked up once for all


def test_a_peer_that_comes_back_is_found_again(flavour):
    service = flavour.service(echo)
    port = service.port
    with grape_with(service) as grape:
        client = flavour.client(flavour.link(grape.url))
        client.request("rpc_test", 1)
        service.stop()
        with pytest.raises((errors.ConnectError, errors.ConnectionLost)):
            client.request("rpc_test", 1)
        again = flavour.server(flavour.link(grape.url)).transport()
        again.on("request", echo)
        eventually(lambda: listens_on(again, port))
        assert client.request("rpc_test", 1)["payload"] == 1


def test_the_first_example_of_the_documentation():
    from grenache_py import Grape

    with Grape(host="127.0.0.1") as grape, Link(grape=grape.url) as link:
        service = PeerRPCServer(link).transport("server")
        service.listen(0)

        @service.on("request")
        def handle(rid, key, payload, handler):
            handler.reply(None, {"echo": payload})

        link.start_announcing("rpc_test", service.port)

        client = PeerRPCClient(link)
        assert client.request("rpc_test", {"n": 1}, timeout=10) == {"echo": {"n": 1}}
        assert [result.payload for result in client.map("rpc_test", {"n": 1}, limit=5)] == [
            {"echo": {"n": 1}}
        ]


async def test_the_first_example_of_the_documentation_with_asyncio():
    from grenache_py.aio import Grape, Link, PeerRPCClient, PeerRPCServer

    async with Grape(host="127.0.0.1") as grape, Link(grape=grape.url) as link:
        service = PeerRPCServer(link).transport("server")
        await service.listen(0)

        @service.on("request")
        async def handle(rid, key, payload, handler):
            handler.reply(None, {"echo": payload})

        await link.start_announcing("rpc_test", service.port)

        client = PeerRPCClient(link)
        assert await client.request("rpc_test", {"n": 1}, timeout=10) == {"echo": {"n": 1}}
        results = await client.map("rpc_test", {"n": 1}, limit=5)
        assert [result.payload for result in results] == [{"echo": {"n": 1}}]
