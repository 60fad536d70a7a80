"""Replay against fake peers: order, spread, counts, pace, and failures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path

import pytest
from aiohttp import web

from orderbook.client import Client, PeerFailedError
from orderbook.flow.files import FlowError, Row, read_flow
from orderbook.flow.replay import LANE_ROWS, Counts, replay
from orderbook.flow.synthetic import synthesize
from tests.unit.orderbook.fake_api import FakePeer, fake_peers, refusal


def row(action: str, id: str, quantity: str = "1", *, price: str = "10.0", elapsed_ms: int = 0) -> Row:
    return Row(elapsed_ms, action, id, "buy", Decimal(price), Decimal(quantity))


async def replay_at(peers: Sequence[FakePeer], rows: Sequence[Row], **options: object) -> Counts:
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(peer.api)) for peer in peers]
        return await replay(rows, clients, "BTC-USD", **options)  # type: ignore[arg-type]


class Gate:
    """Holds all requests until it is opened, and says when ``count`` have come."""

    def __init__(self, count: int):
        self.open = asyncio.Event()
        self.reached = asyncio.Event()
        self._missing = count

    async def __call__(self, request: web.Request) -> None:
        self._missing -= 1
        if not self._missing:
            self.reached.set()
        await self.open.wait()


async def test_orders_are_placed_as_the_flow_says_each_with_an_owner_of_its_own() -> None:
    async with fake_peers("alice") as [peer]:
        rows = [row("new", "17", "5e-05"), row("new", "18", "1.50", price="78318.5")]
        counts = await replay_at([peer], rows)
        assert sorted(peer.submitted, key=lambda fields: str(fields["owner"])) == [
            {"market": "BTC-USD", "side": "buy", "quantity": "0.00005", "price": "10.0", "owner": "17"},
            {"market": "BTC-USD", "side": "buy", "quantity": "1.50", "price": "78318.5", "owner": "18"},
        ]
        assert (counts.rows, counts.submitted, counts.accepted) == (2, 2, 2)


async def test_a_cancel_goes_to_the_peer_that_has_the_order_and_after_it() -> None:
    async with fake_peers("alice", "bob", "carol") as peers:
        rows = [row("new", str(n)) for n in range(60)] + [row("cancel", str(n)) for n in range(60)]
        counts = await replay_at(peers, rows)
        assert counts.cancelled == 60
        assert not counts.rejected
        for peer in peers:
            assert len(peer.submitted) > 5, "each peer gets its share"
            assert all(order["status"] == "cancelled" for order in peer.orders.values())


async def test_rows_of_one_order_never_overlap_while_others_run_side_by_side() -> None:
    async with fake_peers("alice", "bob") as peers:
        counts = await replay_at(peers, list(synthesize(1500, 3)), window=16)
        assert counts.rows == 1500
        assert counts.accepted == counts.submitted
        assert not any(peer.overlapping for peer in peers)
        assert 1 < max(peer.most_in_flight for peer in peers) <= 16


async def test_a_change_amends_the_order_to_what_shall_be_left_of_it() -> None:
    async with fake_peers("alice") as [peer]:
        rows = [row("new", "7", "3"), row("change", "7", "2", price="11"), row("cancel", "7", "0")]

        async def fill(request: web.Request) -> web.Response | None:
            if request.method == "GET":
                peer.orders["alice-1"]["filled"] = "0.5"
            return None

        peer.before = fill
        counts = await replay_at([peer], rows)
        order = peer.orders["alice-1"]
        assert (order["quantity"], order["price"], order["status"]) == ("2.5", "11", "cancelled")
        assert (counts.amended, counts.cancelled, counts.submitted) == (1, 1, 1)


async def test_a_change_of_what_is_reserved_is_a_cancel_and_a_new_order() -> None:
    async def reserved(request: web.Request) -> web.Response | None:
        return refusal("price_reserved", "the price must stay", 409) if request.method == "PATCH" else None

    async with fake_peers("alice") as [peer]:
        peer.before = reserved
        rows = [row("new", "7", "3"), row("change", "7", "2", price="11"), row("cancel", "7", "0")]
        counts = await replay_at([peer], rows)
        assert [(fields["quantity"], fields["price"]) for fields in peer.submitted] == [
            ("3", "10.0"),
            ("2", "11"),
        ]
        assert (counts.amended, counts.replaced, counts.cancelled, counts.submitted) == (0, 1, 2, 2)
        assert not counts.rejected


async def test_a_change_to_nothing_is_a_cancel() -> None:
    async with fake_peers("alice") as [peer]:
        counts = await replay_at([peer], [row("new", "7"), row("change", "7", "0")])
        assert (counts.cancelled, counts.replaced, len(peer.submitted)) == (1, 0, 1)


async def test_a_cancel_that_comes_too_late_is_counted_and_a_late_change_places_nothing() -> None:
    async with fake_peers("alice") as [peer]:
        peer.closed = {"alice-1"}
        counts = await replay_at([peer], [row("new", "7"), row("change", "7", "2"), row("cancel", "7")])
        assert (counts.too_late, counts.cancelled, counts.submitted) == (1, 0, 1)
        assert counts.orphans == 1, "the order was gone after the change"
        assert not counts.rejected


async def test_rows_of_orders_that_were_never_placed_are_not_sent() -> None:
    async def full(request: web.Request) -> web.Response | None:
        return refusal("busy", "the book is full", 503) if request.method == "POST" else None

    async with fake_peers("alice") as [peer]:
        peer.before = full
        counts = await replay_at([peer], [row("cancel", "1"), row("new", "2"), row("cancel", "2")])
        assert counts.orphans == 2
        assert counts.rejected == {"busy": 1}
        assert peer.log == [("POST", "/orders")]


async def test_a_rejected_cancel_is_counted_by_its_code() -> None:
    async def forget(request: web.Request) -> web.Response | None:
        return refusal("unknown_order", "swept", 404) if request.method == "DELETE" else None

    async with fake_peers("alice") as [peer]:
        peer.before = forget
        counts = await replay_at([peer], [row("new", "1"), row("cancel", "1")])
        assert (counts.cancels, counts.cancelled, counts.rejected) == (1, 0, {"unknown_order": 1})


async def test_a_peer_that_fails_ends_the_replay() -> None:
    async def fail(request: web.Request) -> web.Response | None:
        if len(peers[1].log) < 5:
            return None
        return refusal("internal", "a fault of the peer", 500)

    async with fake_peers("alice", "bob") as peers:
        peers[1].before = fail
        counts = Counts()
        rows = [row("new", str(n)) for n in range(5000)]
        with pytest.raises(PeerFailedError, match="a fault of the peer") as caught:
            await replay_at(peers, rows, window=4, counts=counts)
        assert caught.value.api == peers[1].api
        assert counts.ended is not None
        sent = len(peers[0].log) + len(peers[1].log)
        assert sent < 500, "the rest of the flow is not sent"


async def test_a_broken_flow_ends_the_replay(tmp_path: Path) -> None:
    path = tmp_path / "flow.csv"
    path.write_text("elapsed_ms,action,id,side,price,quantity\n0,new,1,buy,1,1\n0,new,2,buy,1,x\n")
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        with pytest.raises(FlowError, match="line 3: quantity"):
            await replay(read_flow(path), [client], "BTC-USD")


async def test_the_flow_is_read_no_further_than_the_lanes_hold() -> None:
    gate = Gate(2)
    taken = 0

    def rows() -> Iterator[Row]:
        nonlocal taken
        for n in range(500):
            taken += 1
            yield row("new", str(n))

    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = gate
        replaying = asyncio.create_task(replay(rows(), [client], "BTC-USD", window=2))
        await gate.reached.wait()
        assert taken <= 2 * (LANE_ROWS + 1) + 1
        gate.open.set()
        counts = await replaying
        assert counts.accepted == 500


async def test_a_cancelled_replay_sends_no_more() -> None:
    gate = Gate(3)
    async with fake_peers("alice") as [peer], Client(peer.api) as client:
        peer.before = gate
        rows = [row("new", str(n)) for n in range(100)]
        replaying = asyncio.create_task(replay(rows, [client], "BTC-USD", window=3))
        await gate.reached.wait()
        replaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replaying
        gate.open.set()
        assert len(peer.log) == 3


async def test_speed_keeps_the_times_of_the_flow() -> None:
    async with fake_peers("alice") as [peer]:
        rows = [row("new", "1", elapsed_ms=-5000), row("new", "2"), row("new", "3", elapsed_ms=300)]
        counts = await replay_at([peer], rows, speed=2.0)
        assert 0.15 <= counts.elapsed_s < 5


async def test_counts_for_programs_and_people() -> None:
    async with fake_peers("alice") as [peer]:
        counts = await replay_at([peer], [row("new", "1"), row("cancel", "1")])
        figures = counts.as_dict()
        assert figures["accepted"] == figures["cancelled"] == 1
        assert figures["orders_per_s"] > 0
        assert figures["elapsed_s"] >= 0
    assert Counts().elapsed_s == 0
