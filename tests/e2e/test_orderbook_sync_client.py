"""The client without asyncio, against a real peer in a process of its own."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from grenache_py import Grape
from grenache_py.errors import ClosedError
from orderbook.client import Client, NotYetError, PeerFailedError, RefusedError
from orderbook.errors import InvalidFieldError
from orderbook.records import BookRecord
from orderbook.sync_client import SyncClient
from tests.harness import Process

MARKET = "SIM"


@pytest.fixture(scope="module")
def api() -> Iterator[str]:
    """Where a peer's client API is."""
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:
        command = [sys.executable, "-m", "orderbook", "peer", "--name", "alice", "--grape", grape.url]
        market = ["--market", MARKET, "--tick", "1", "--lot", "1"]
        peer = Process([*command, *market, "--host", "127.0.0.1", "--api", "127.0.0.1:0", "--ready-json"])
        try:
            yield peer.next_json()["ready"]["api"]
        finally:
            peer.stop()


@pytest.fixture
def client(api: str) -> Iterator[SyncClient]:
    with SyncClient(api) as client:
        yield client
        for order in client.orders(status="live"):
            client.cancel(order.id)


def test_it_has_every_method_of_the_other_one_with_the_same_signature() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_") and name != "close":
            assert inspect.signature(getattr(SyncClient, name)) == inspect.signature(method), name
            assert getattr(SyncClient, name).__doc__ == method.__doc__


def test_orders_trades_and_the_book(client: SyncClient) -> None:
    sell = client.submit(MARKET, "sell", "5", "100", "ann").order
    buy = client.submit(MARKET, "buy", "2", "100", "ben")
    assert [trade.quantity for trade in buy.trades] == ["2"]
    assert client.book(MARKET) == BookRecord(MARKET, [], [("100", "3")])
    assert [order.id for order in client.orders(status="live")] == [sell.id]
    assert [trade.taker_order_id for trade in client.trades()][-1] == buy.order.id
    assert client.cancel(sell.id).cancelled == "3"
    assert client.health().markets[MARKET].open_orders == 0


def test_refusals_and_failures_are_the_same(client: SyncClient) -> None:
    with pytest.raises(RefusedError) as caught:
        client.submit(MARKET, "buy", "0.5", "100", "ann")
    assert caught.value.field == "quantity"
    with (
        SyncClient("http://127.0.0.1:1") as nobody,
        pytest.raises(PeerFailedError, match="cannot be reached"),
    ):
        nobody.health()
    with pytest.raises(InvalidFieldError):
        SyncClient("ftp://x")


def test_what_changes_is_followed_until_one_leaves(client: SyncClient) -> None:
    books = client.follow(MARKET)
    assert next(books) == BookRecord(MARKET, [], [])
    client.submit(MARKET, "buy", "1", "100", "ann")
    assert next(books) == BookRecord(MARKET, [("100", "1")], [])
    books.close()
    pages = client.follow_trades(MARKET)
    assert next(pages).trades == []
    client.submit(MARKET, "sell", "1", "100", "ben")
    assert [trade.quantity for trade in next(pages).trades] == ["1"]


def test_an_order_is_waited_for(client: SyncClient) -> None:
    id = client.submit(MARKET, "buy", "2", "100", "ann").order.id
    with pytest.raises(NotYetError, match="0 of 2 filled"):
        client.closed(id, timeout_s=0.1)
    with ThreadPoolExecutor(2) as threads:
        traded, closed = threads.submit(client.traded, id), threads.submit(client.closed, id)
        client.submit(MARKET, "sell", "1", "100", "ben")
        assert traded.result(10).order.filled == "1"
        client.submit(MARKET, "sell", "1", "100", "ben")
        assert closed.result(10).order.status == "filled"


def test_many_threads_share_one(client: SyncClient) -> None:
    with ThreadPoolExecutor(8) as threads:
        placed = list(
            threads.map(lambda n: client.submit(MARKET, "buy", "1", str(50 + n), f"owner{n}"), range(32))
        )
    assert len({each.order.id for each in placed}) == 32
    assert len(list(client.orders(status="live"))) == 32


def test_a_closed_one_says_so(api: str) -> None:
    client = SyncClient(api)
    books = client.follow(MARKET)
    next(books)
    client.close()
    client.close()
    for call in (client.health, lambda: next(books), lambda: next(client.orders())):
        with pytest.raises(ClosedError):
            call()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_parent_and_child_use_it_after_a_fork(client: SyncClient) -> None:
    assert client.health().peer == "alice"
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)  # nothing there may hang for ever
        try:
            os.write(write, client.health().peer.encode())
        except BaseException as error:
            os.write(write, repr(error).encode()[:1000])
        finally:
            os._exit(0)
    os.close(write)
    assert client.health().peer == "alice"
    with open(read, "rb") as pipe:
        assert pipe.read() == b"alice"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_ctrl_c_ends_a_wait(client: SyncClient) -> None:
    pages = client.follow_trades(MARKET)
    next(pages)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        next(pages)
    assert client.health().peer == "alice"
