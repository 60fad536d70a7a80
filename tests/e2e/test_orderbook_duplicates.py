"""Two processes of one peer, with a copied key, are noticed: by each of the two, and by who hears both. And
neither denies what the other has executed."""

from __future__ import annotations

import shutil
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest
import requests

from grenache_py import Grape
from grenache_py.aio import Link
from grenache_py.testing import Grapes
from orderbook.model import Instrument
from orderbook.signing.identity import Identity
from orderbook.worker import Worker
from tests.e2e.test_orderbook_doubts import Peer, exported
from tests.harness import eventually, until

MARKET = "BTC-USD"


async def test_a_copied_key_is_noticed_by_all_who_hear_it() -> None:
    copied = Identity.from_seed(b"copied".ljust(32))
    async with AsyncExitStack() as stack:
        grapes = stack.enter_context(Grapes(1))

        async def start(name: str, identity: Identity | None = None) -> Worker:
            link = await stack.enter_async_context(Link(grapes.url))
            worker = Worker(link, name, [Instrument(MARKET)], host="127.0.0.1", identity=identity)
            return await stack.enter_async_context(worker)

        def found(worker: Worker) -> int:
            return sum(worker.market(MARKET).counts.get("duplicate", {}).values())

        first, bob = await start("alice", copied), await start("bob")
        await until(lambda: first.market(MARKET).roster.trading(), what="the peers to meet")
        assert (found(first), found(bob)) == (0, 0)
        second = await start("alice", copied)
        for worker in (first, second, bob):
            await until(lambda worker=worker: found(worker), 20.0, f"{worker.name} to notice")


@pytest.mark.parametrize("kept", [["peer.key"], ["peer.key", f"{MARKET}.journal"]], ids=["key", "journal"])
def test_what_one_process_has_executed_another_one_of_its_name_does_not_deny(
    tmp_path: Path, kept: list[str]
) -> None:
    """The second one has the key of the first, and no journal, or a copy of that one's from before."""
    with Grape(dht_port=0, api_port=0, host="127.0.0.1") as grape, ExitStack() as stack:

        def start(name: str, journals: str, module: str = "orderbook") -> Peer:
            peer = Peer(name, grape.url, tmp_path / journals, module=module)
            stack.callback(lambda: peer.process.stop())
            return peer

        first = start("maker", "first", "tests.e2e.dying_peer")
        assert first.process.stop() == 0
        (tmp_path / "second").mkdir()
        for file in kept:
            shutil.copy2(tmp_path / "first" / file, tmp_path / "second")
        first.start()
        taker = start("taker", "taker")
        for peer in (first, taker):
            eventually(lambda peer=peer: peer.market["peers"] == 1, 30.0, "the two to meet")
        first.submit("sell", "2")
        (tmp_path / "first" / "maker").touch()
        bought = taker.submit("buy", "2")
        first.process.wait(10)  # it has died, having executed
        eventually(lambda: taker.market["in_doubt"] == 1, 30.0, "the taker to be in doubt")

        second = start("maker", "second")

        def said_so() -> bool:
            metrics = requests.get(f"{second.api}/metrics", timeout=10).text
            found = [line for line in metrics.splitlines() if 'other_journal"' in line]
            return bool(found) and float(found[0].rpartition(" ")[2]) > 0

        eventually(said_so, 30.0, "the second maker to say that it does not know")
        order = taker.order(bought["id"])
        assert (order["filled"], order["open"], order["in_doubt"]) == ("0", "0", "2")

        (tmp_path / "first" / "maker").unlink()
        first.start()  # beside the second one
        eventually(lambda: taker.market["in_doubt"] == 0, 60.0, "the first maker to be asked")
        assert taker.order(bought["id"])["status"] == "filled"
        for peer in (first, second, taker):
            assert peer.process.stop() == 0
        kinds = ("match_id", "price", "quantity", "maker_order_id", "taker_order_id")
        trades = [
            [
                tuple(line[kind] for kind in kinds)
                for line in exported(peer.journal)
                if line["type"] == "executed"
            ]
            for peer in (first, second, taker)
        ]
        assert trades[0] == trades[2] != []
        assert trades[1] == []
