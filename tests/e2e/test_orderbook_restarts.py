"""Clients of peers that are killed and start again, as real processes."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from grenache_py import Grape
from orderbook.client import Client, ClientError, PeerFailedError, RefusedError
from orderbook.records import BookRecord
from orderbook.sync_client import SyncClient
from tests.harness import ROOT, Process, eventually, free_port

MARKET = "SIM"


class Peer:
    """A peer at one address for good, whose process is killed and started again."""

    def __init__(self, grape: str, journals: Path | None, name: str = "alice"):
        self.api = f"http://127.0.0.1:{free_port()}"
        command = [sys.executable, "-m", "orderbook", "peer", "--name", name, "--grape", grape]
        market = ["--market", MARKET, "--tick", "1", "--lot", "1", "--host", "127.0.0.1"]
        kept = [] if journals is None else ["--journal", str(journals)]
        self._argv = [*command, *market, *kept, "--api", self.api.partition("//")[2], "--ready-json"]
        self.start()

    def start(self) -> None:
        self.process = Process(self._argv)
        self.process.next_json()

    def start_again(self) -> None:
        """Without waiting until it is ready."""
        self.process = Process(self._argv)


@pytest.fixture
def grape() -> Iterator[str]:
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape:
        yield grape.url


@pytest.fixture
def alice(grape: str, tmp_path: Path) -> Iterator[Peer]:
    """With a journal."""
    alice = Peer(grape, tmp_path)
    yield alice
    alice.process.stop()


@pytest.fixture
def forgetful(grape: str) -> Iterator[Peer]:
    """Without."""
    alice = Peer(grape, None)
    yield alice
    alice.process.stop()


def the_other_side(api: str, quantity: str, name: str) -> None:
    """Somebody sells, as soon as the peer takes it."""
    with SyncClient(api, retry_s=60) as client:
        client.submit(MARKET, "sell", quantity, "100", "bob", name)


async def test_feeds_go_on_after_kill_9_without_a_gap_and_without_a_double(alice: Peer) -> None:
    breaks: list[ClientError] = []
    async with (
        Client(alice.api, retry_s=60) as client,
        aclosing(client.follow_trades(MARKET, after=0, on_break=breaks.append)) as pages,
        aclosing(client.follow(MARKET, on_break=breaks.append)) as books,
    ):
        await client.submit(MARKET, "buy", "100", "100", "ann", "ann-1")
        bought = []
        assert (await anext(pages)).trades == []
        for round in range(3):
            # Not yet read when the process dies: it must come all the same.
            await client.submit(MARKET, "sell", str(round + 1), "100", "bob", f"before-{round}")
            alice.process.kill()
            alice.start_again()
            await client.submit(MARKET, "sell", "10", "100", "bob", f"after-{round}")
            while len(bought) < 2 * (round + 1):
                page = await asyncio.wait_for(anext(pages), 60)
                bought += [trade.quantity for trade in page.trades]
        assert bought == ["1", "10", "2", "10", "3", "10"]
        async for book in books:
            if book == BookRecord(MARKET, [("100", "64")], []):
                break
        order = (await client.order(page.trades[-1].maker_order_id)).order
        assert order.filled == "36", "no sell order came to be twice"
    assert breaks
    assert all(isinstance(error, PeerFailedError) for error in breaks)


def test_the_synchronous_client_is_told_in_its_own_thread_and_may_call_there(alice: Peer) -> None:
    breaks = []

    def on_break(error: ClientError) -> None:
        if not breaks:
            alice.start()
            the_other_side(alice.api, "7", "bob-1")
            assert client.health().peer == "alice"
        breaks.append((threading.current_thread(), type(error)))

    with (
        SyncClient(alice.api) as client,
        closing(client.follow_trades(MARKET, on_break=on_break)) as pages,
    ):
        client.submit(MARKET, "buy", "100", "100", "ann")
        assert next(pages).trades == []
        alice.process.kill()
        assert [trade.quantity for trade in next(pages).trades] == ["7"]
    assert breaks[0] == (threading.current_thread(), PeerFailedError)


async def test_whoever_does_not_want_to_wait_ends_it(alice: Peer) -> None:
    def end(error: ClientError) -> None:
        raise error

    async with Client(alice.api) as client, aclosing(client.follow(MARKET, on_break=end)) as books:
        await anext(books)
        alice.process.kill()
        with pytest.raises(PeerFailedError, match="the connection broke"):
            await anext(books)
        with pytest.raises(PeerFailedError, match="cannot be reached: Connection refused; does a peer run"):
            await anext(client.follow(MARKET))


@pytest.mark.parametrize("trades_since", [0, 1, 2])
async def test_a_peer_that_has_begun_anew_is_not_taken_for_the_old_one(
    forgetful: Peer, trades_since: int
) -> None:
    """However many trades it has had since."""
    numbers = itertools.count()
    async with Client(forgetful.api, retry_s=60) as client:

        async def trade() -> None:
            # With names, since a kept connection may be one to the peer that was killed.
            await client.submit(MARKET, "buy", "1", "100", "ann", f"ann-{next(numbers)}")
            await client.submit(MARKET, "sell", "1", "100", "bob", f"bob-{next(numbers)}")

        await trade()
        async with aclosing(client.follow_trades(MARKET)) as pages:
            await anext(pages)
            forgetful.process.kill()
            forgetful.start()
            for _ in range(trades_since):
                await trade()
            with pytest.raises(RefusedError, match="it has begun anew") as caught:
                await anext(pages)
            assert caught.value.code == "history_lost"


async def test_an_order_with_a_name_survives_its_peer_and_one_without_is_not_sent_twice(alice: Peer) -> None:
    async with Client(alice.api, retry_s=60) as client:
        named = [
            asyncio.ensure_future(client.submit(MARKET, "buy", "1", "100", "ann", f"ann-{n}"))
            for n in range(50)
        ]
        await asyncio.wait(named, return_when=asyncio.FIRST_COMPLETED)
        alice.process.kill()
        async with Client(alice.api, retry_s=60) as other:
            unnamed = asyncio.ensure_future(other.submit(MARKET, "buy", "1", "99", "eve"))
            alice.start_again()
            await unnamed  # nobody was there to take it, so it was safe to go on
        ids = {(await each).order.client_order_id: (await each).order.id for each in named}
        placed = [order async for order in client.orders(owner="ann")]
        assert {order.client_order_id: order.id for order in placed} == ids
        assert len(placed) == 50, "each once"
        assert len([order async for order in client.orders(owner="eve")]) == 1
        [found] = (await client.orders_page(owner="ann", client_order_id="ann-7")).orders
        assert found.id == ids["ann-7"]
        assert not (await client.orders_page(owner="bob", client_order_id="ann-7")).orders
        with pytest.raises(RefusedError, match="owner must be given"):
            await client.orders_page(client_order_id="ann-7")


async def test_who_waits_for_an_order_does_so_over_kill_9_of_its_peer(alice: Peer) -> None:
    async with Client(alice.api, retry_s=60) as client:
        ids = [(await client.submit(MARKET, "buy", "5", "100", "ann", f"ann-{n}")).order.id for n in range(3)]
        waits = [asyncio.ensure_future(client.closed(id)) for id in ids]
        for round, wait in enumerate(waits):
            assert not wait.done()
            alice.process.kill()
            alice.start_again()
            await client.submit(MARKET, "sell", "5", "100", "bob", f"bob-{round}")
            placed = await asyncio.wait_for(wait, 60)
            assert (placed.order.status, [trade.quantity for trade in placed.trades]) == ("filled", ["5"])


async def test_who_waits_at_a_peer_that_has_forgotten_the_order_is_told_so(forgetful: Peer) -> None:
    async with Client(forgetful.api, retry_s=60) as client:
        wait = asyncio.ensure_future(
            client.closed((await client.submit(MARKET, "buy", "5", "100", "ann")).order.id)
        )
        await asyncio.wait([wait], timeout=0.2)
        forgetful.process.kill()
        forgetful.start()
        with pytest.raises(RefusedError) as caught:
            await wait
        assert caught.value.code == "unknown_order"


def test_a_bot_counts_right_over_kill_9_of_its_peer_and_of_itself(grape: str, tmp_path: Path) -> None:
    journals = [tmp_path / name for name in ("alice", "bob", "carol")]
    alice, *others = peers = [Peer(grape, folder, folder.name) for folder in journals]
    bot = [sys.executable, str(ROOT / "examples/orderbook_bot.py"), "--api", alice.api, "--market", MARKET]
    bot += ["--owner", "ann", "--buy", "50", "--first", "100", "--every", "0.2"]
    bot += ["--state", str(tmp_path / "ann.json"), "--highest"]
    processes = [Process([*bot, "100000"])]
    try:
        sold = 0

        def sell(at: Peer, quantity: int) -> None:
            nonlocal sold
            sold += quantity
            with SyncClient(at.api, retry_s=60) as client:
                client.submit(MARKET, "sell", str(quantity), "100", "bob", f"bob-{sold}")

        eventually(lambda: ordered(alice.api, "ann"), 30.0, "the bot to place its order")
        for peer in peers:
            sell(peer, 2)
        assert "bought 2 at" in processes[0].next_line()
        alice.process.kill()
        sell(others[0], 3)  # nobody is there to buy it
        alice.start()
        for peer in peers:
            sell(peer, 1)
        processes[0].kill()
        for peer in peers:
            sell(peer, 4)
        processes.append(Process([*bot, "100"]))  # which it bids already: the rest is cancelled
        assert processes[-1].wait(90) == 0, processes[-1].lines
        assert processes[-1].lines[-1] == f"position {sold}, as the order says: {sold}"
        with SyncClient(alice.api) as client:
            [order] = client.orders(owner="ann")
        assert (order.status, order.filled, order.cancelled) == ("cancelled", str(sold), str(50 - sold))
    finally:
        for process in (*processes, *(peer.process for peer in peers)):
            process.stop()


def ordered(api: str, owner: str) -> bool:
    with SyncClient(api) as client:
        return any(client.orders(owner=owner))
