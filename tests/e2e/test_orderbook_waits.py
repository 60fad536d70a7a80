"""Clients that wait until an order has closed or traded, at a real worker and at peers as processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from orderbook import client_calls
from orderbook.api import Api
from orderbook.client import Client, NotYetError, PeerFailedError, RefusedError
from orderbook.records import Placed
from tests.harness import until

MARKET = "SIM"


@pytest.fixture
async def client(api: Api) -> AsyncIterator[Client]:
    async with Client(api.url) as client:
        yield client


def waiting(api: Api) -> int:
    return len(api._waits.readers._tasks)


def watchers(api: Api) -> int:
    return len(api._worker.markets[MARKET].watchers)


async def begun(api: Api, *waits: asyncio.Future[Placed]) -> None:
    await until(lambda: waiting(api) == len(waits), what="the peer to know who waits")


async def buy(client: Client, quantity: str, **more: int) -> str:
    in_force = "gtd" if more else None
    placed = await client.submit(MARKET, "buy", quantity, "100", "ann", time_in_force=in_force, **more)
    return placed.order.id


async def test_who_waits_is_told_at_once_of_what_closes_an_order(api: Api, client: Client) -> None:
    filled, cancelled = await buy(client, "3"), await buy(client, "4")
    expired = await buy(client, "5", expires_ms=time.time_ns() // 1_000_000 + 1_000)
    waits = [asyncio.ensure_future(client.closed(id)) for id in (filled, cancelled, expired)]
    await begun(api, *waits)
    await client.submit(MARKET, "sell", "1", "100", "bob")
    await client.submit(MARKET, "sell", "2", "100", "bob")
    placed = await waits[0]
    assert (placed.order.status, [trade.quantity for trade in placed.trades]) == ("filled", ["1", "2"])
    await client.cancel(cancelled)
    assert (await waits[1]).order.reason == "requested"
    placed = await waits[2]
    assert (placed.order.status, placed.order.reason, placed.trades) == ("cancelled", "expired", [])
    assert (await client.closed(filled)).order.status == "filled", "it has closed before"
    await until(lambda: not watchers(api), what="nobody to be waiting")


async def test_who_waits_for_trades_is_told_of_each(api: Api, client: Client) -> None:
    id = await buy(client, "5")
    wait = asyncio.ensure_future(client.traded(id))
    await begun(api, wait)
    await client.submit(MARKET, "sell", "2", "100", "bob")
    assert (await wait).order.filled == "2"
    assert (await client.traded(id)).order.filled == "2", "more than 0 is filled"
    wait = asyncio.ensure_future(client.traded(id, "2"))
    await begun(api, wait)
    await client.cancel(id)
    assert (await wait).order.status == "cancelled", "it will not trade any more"


async def test_a_deadline_says_how_far_the_order_is(api: Api, client: Client) -> None:
    id = await buy(client, "5")
    await client.submit(MARKET, "sell", "2", "100", "bob")
    for timeout_s in (0.0, 0.2):
        began = time.monotonic()
        with pytest.raises(
            NotYetError, match=f"order {id} is partially_filled after .*: 2 of 5 filled"
        ) as caught:
            await client.closed(id, timeout_s=timeout_s)
        assert time.monotonic() - began >= timeout_s
        assert caught.value.placed.order.open == "3"
    with pytest.raises(NotYetError):
        await client.traded(id, "2", timeout_s=0.1)


async def test_a_wait_is_many_questions(api: Api, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_calls, "WAIT_S", 0.05)
    id = await buy(client, "5")
    wait = asyncio.ensure_future(client.closed(id))
    with pytest.raises(NotYetError):
        await client.closed(id, timeout_s=0.3)
    assert not wait.done()
    await client.cancel(id)
    assert (await wait).order.status == "cancelled"


async def test_waits_leave_the_connections_to_other_calls(api: Api) -> None:
    async with Client(api.url, connections=1) as client:
        id = await buy(client, "5")
        waits = [asyncio.ensure_future(client.closed(id)) for _ in range(10)]
        await begun(api, *waits)
        await client.cancel(id)
        assert {placed.order.status for placed in await asyncio.gather(*waits)} == {"cancelled"}


async def test_so_many_may_wait(api: Api, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api._waits.readers, "_most", 1)
    id = await buy(client, "5")
    wait = asyncio.ensure_future(client.closed(id))
    await begun(api, wait)
    with pytest.raises(RefusedError, match="1 readers that wait") as caught:
        await client.closed(id)
    assert caught.value.code == "busy"
    async with Client(api.url, retry_s=60) as patient:
        another = asyncio.ensure_future(patient.closed(id))
        await until(lambda: patient._calls._lasting is not None, what="it to ask")
        await client.cancel(id)
        for each in (wait, another):
            assert (await each).order.status == "cancelled"


async def test_who_has_gone_is_not_waited_for(api: Api, client: Client) -> None:
    id = await buy(client, "5")
    async with Client(api.url) as leaves:
        wait = asyncio.ensure_future(leaves.closed(id))
        await begun(api, wait)
        wait.cancel()
    await until(lambda: not waiting(api), what="the wait to end")
    assert not watchers(api)


async def test_what_can_not_be_waited_for_is_refused(client: Client) -> None:
    with pytest.raises(RefusedError) as caught:
        await client.closed("o1")
    assert caught.value.code == "unknown_order"
    id = await buy(client, "5")
    with pytest.raises(RefusedError, match="filled must be"):
        await client.traded(id, "much")


async def test_who_waits_at_a_peer_that_stops_is_told_so(api: Api, client: Client) -> None:
    id = await buy(client, "5")
    wait = asyncio.ensure_future(client.closed(id))
    await begun(api, wait)
    await api.__aexit__()
    with pytest.raises(PeerFailedError, match="has it stopped"):
        await wait
