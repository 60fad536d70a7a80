"""Broadcasts over connections that are there already, in both flavours and over both transports."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from grenache_py import errors, limits
from tests.flavours import Aio, Sync
from tests.unit.test_peer import grape_with
from tests.ws_flavours import AioWs, SyncWs


@pytest.fixture(params=[Sync, Aio, SyncWs, AioWs], ids=lambda cls: cls.__name__)
def any_flavour(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Either flavour over either transport; what it made is stopped after the test."""
    made = request.param()
    yield made
    made.close()


class Peers:
    """Services by what they do when they are asked to misbehave; otherwise each answers with its name."""

    KINDS = ("good", "late", "large", "refusing", "silent", "leaving")

    def __init__(self, flavour: Any):
        self.asked: list[str] = []
        self.leaving = threading.Event()
        self.unanswered: list[Any] = []
        self.services = {kind: flavour.service(self._handler(kind)) for kind in self.KINDS}

    def _handler(self, kind: str) -> Any:
        def handle(rid: Any, key: Any, payload: Any, handler: Any) -> None:
            self.asked.append(kind)
            if payload != "misbehave" or kind == "good":
                handler.reply(None, [kind, payload])
            elif kind == "late":
                threading.Timer(0.1, handler.reply, (None, "late")).start()
            elif kind == "large":
                handler.reply(None, "x" * 1_000_000)
            elif kind == "refusing":
                handler.reply("ERR_NO")
            elif kind == "leaving":
                self.leaving.set()
            else:
                self.unanswered.append(handler)

        return handle

    def place(self, kind: str) -> str:
        return f"127.0.0.1:{self.services[kind].port}"


def test_each_peer_has_its_outcome_whatever_the_others_do(any_flavour):
    peers = Peers(any_flavour)
    kinds = {peers.place(kind): kind for kind in peers.KINDS}

    def leave() -> None:
        peers.leaving.wait(10)
        peers.services["leaving"].stop(drain=0.001)

    leaver = threading.Thread(target=leave)
    leaver.start()
    with grape_with(*kinds) as grape:
        client = any_flavour.client(any_flavour.link(grape.url))
        for payload in ("first", "second", "x" * (limits.SENT_AT_ONCE_BYTES + 1)):
            results = client.map("rpc_test", payload)
            assert {kinds[result.destination]: result.payload for result in results} == {
                kind: [kind, payload] for kind in peers.KINDS
            }
        peers.asked.clear()
        started = time.monotonic()
        results = client.map("rpc_test", "misbehave", timeout=0.6)
        assert 0.59 < time.monotonic() - started < 5
        leaver.join()
        assert sorted(peers.asked) == sorted(peers.KINDS)
        assert [kinds[result.destination] for result in results][-2:] == ["late", "silent"]
        outcomes = {kinds[result.destination]: result for result in results}
        assert {kind: type(outcomes[kind].error) for kind in peers.KINDS} == {
            "good": type(None),
            "late": type(None),
            "large": type(None),
            "refusing": errors.RemoteError,
            "silent": errors.RequestTimeout,
            "leaving": errors.ConnectionLost,
        }
        assert outcomes["good"].payload == ["good", "misbehave"]
        assert outcomes["late"].payload == "late"
        assert outcomes["large"].payload == "x" * 1_000_000
        assert 0.1 <= outcomes["late"].elapsed_s < outcomes["silent"].elapsed_s
        # Who left is left out; who was silent is asked anew, and its reply of then is nobody's.
        for handler in peers.unanswered:
            handler.reply(None, "too late")
        results = client.map("rpc_test", "third")
        assert {kinds[result.destination]: result.payload for result in results} == {
            kind: [kind, "third"] for kind in peers.KINDS if kind != "leaving"
        }


def test_a_broadcast_ends_with_its_client(any_flavour):
    peers = Peers(any_flavour)
    with grape_with(*map(peers.place, ("good", "silent"))) as grape:
        client = any_flavour.client(any_flavour.link(grape.url))
        client.map("rpc_test", "first")
        ended: list[Any] = []

        def broadcast() -> None:
            try:
                ended.append([type(each.error) for each in client.map("rpc_test", "misbehave", timeout=1)])
            except errors.ClosedError as error:
                ended.append(type(error))

        thread = threading.Thread(target=broadcast)
        thread.start()
        while not peers.unanswered:
            time.sleep(0.001)
        client.stop()
        thread.join(10)
        # Over HTTP the synchronous flavour lets calls under way end within their limits.
        within = [type(None), errors.RequestTimeout]
        assert ended == [within if type(any_flavour) is Sync else errors.ClosedError]
        with pytest.raises(errors.ClosedError):
            client.map("rpc_test", "second")
