"""Proofs and old trades are found again: in memory for a while, in a journal for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from orderbook import limits
from orderbook.events import Accepted, Event, Executed, Refused, Signed
from orderbook.journal.file import JournalFile
from orderbook.journal.journal import Journal, MemoryJournal
from orderbook.journal.writer import SqliteJournal, open_journal
from orderbook.ledger import Ledger
from orderbook.model import Instrument

INSTRUMENT = Instrument("SIM", tick="1", lot="1")


def signed(match_id: str, taker: str = "bob") -> Signed:
    return Signed(match_id, {"from": taker, "payload": {"match_id": match_id}}, {"said": f"about {match_id}"})


def accepted(order_id: str) -> Accepted:
    return Accepted(order_id, "ann", "buy", 100, 1_000, 0)


def executed(match_id: str, maker_order: str, taker_order: str, taker: str = "alice") -> Executed:
    return Executed(match_id, 100, 1, maker_order, taker_order, "alice", taker, 5, "sell")


async def written(journal: Journal, events: Sequence[Event]) -> None:
    journal.append(events)
    durable = asyncio.Event()
    journal.when_durable(durable.set)
    await durable.wait()


def opened(folder: Path) -> SqliteJournal:
    file, _ = open_journal(folder / "SIM.journal", "alice", INSTRUMENT, "off")
    return SqliteJournal(file, asyncio.get_running_loop())


def compact(folder: Path) -> None:
    file = JournalFile(folder / "SIM.journal")
    file.compact()
    file.close()


async def test_memory_keeps_the_newest_proofs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROOFS_IN_MEMORY", 2)
    memory = MemoryJournal()
    await written(memory, [signed("m1"), Refused("m1"), signed("m2"), signed("m3")])
    assert [await memory.proofs(id) for id in ("m1", "m2", "m3")] == [[], [signed("m2")], [signed("m3")]]


async def test_a_journal_keeps_all_proofs_over_restarts_and_snapshots(tmp_path: Path) -> None:
    first = opened(tmp_path)
    assert await first.proofs("m1") == []
    await written(first, [signed(f"m{n}") for n in range(10)])
    assert await first.proofs("m9") == [signed("m9")]
    await first.close()
    compact(tmp_path)
    second = opened(tmp_path)
    await written(second, [signed(f"m{n}") for n in range(10, 20)] + [signed("m3", "eve")])
    for n in range(20):
        proofs = [signed(f"m{n}")] + ([signed("m3", "eve")] if n == 3 else [])
        assert await second.proofs(f"m{n}") == proofs, "match ids are their taker's"
    assert await second.proofs("m20") == []
    assert await second.proofs("m") == [], "a part of an id is none"
    assert await second.proofs("about m7") == [], "what a message says is no id"
    await second.close()


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_journal_tells_which_key_has_confirmed_a_match(tmp_path: Path, compacted: bool) -> None:
    def keyed(match_id: str, taker: str, key: str) -> Signed:
        return Signed(match_id, {"from": taker, "key": key, "payload": {"match_id": match_id}}, {})

    first = opened(tmp_path)
    await written(first, [accepted("o1"), executed("m1", "o1", "x", "bob"), keyed("m1", "bob", "bob's")])
    await written(first, [executed("m1", "o1", "x", "eve"), keyed("m1", "eve", "eve's")])
    await written(first, [executed("m2", "o1", "x", "bob")])
    await first.close()
    if compacted:
        compact(tmp_path)
    second = opened(tmp_path)
    ledger = Ledger("alice")
    ledger.archive_in(second.archive)
    keys = [ledger.taker_key(*match) for match in (("bob", "m1"), ("eve", "m1"), ("bob", "m2"), ("al", "m1"))]
    assert keys == ["bob's", "eve's", None, None]
    await second.close()


@pytest.mark.parametrize("compacted", [False, True])
async def test_a_journal_tells_of_every_trade(tmp_path: Path, compacted: bool) -> None:
    first = opened(tmp_path)
    await written(first, [accepted("o1"), accepted("o2")])
    await written(first, [executed(f"m{n}", "o1", "o2") for n in range(5)])
    await written(first, [executed("m3", "o1", "their-order", "bob"), executed("m3", "o2", "x", "bob")])
    await first.close()
    if compacted:
        compact(tmp_path)
    second = opened(tmp_path)
    await written(second, [executed("m8", "o2", "o1", "eve")])

    page = await second.trades(2, 3)
    assert [(trade.match_id, trade.taker_peer) for trade in page] == [
        ("m2", "alice"),
        ("m3", "alice"),
        ("m4", "alice"),
    ]
    assert len(await second.trades(0, 100)) == 8
    assert await second.trades(8, 5) == []

    match = second.archive.trades_of_match("m3")
    assert [(trade.taker_peer, trade.maker_order_id) for trade in match] == [
        ("alice", "o1"),
        ("bob", "o1"),
        ("bob", "o2"),
    ]
    assert list(second.archive.trades_of_match("m")) == []

    of_order = await second.trades_of_order("o1", 100)
    assert [trade.match_id for trade in of_order] == ["m0", "m1", "m2", "m3", "m4", "m3"]
    assert [trade.match_id for trade in await second.trades_of_order("o1", 2)] == ["m4", "m3"]
    assert await second.trades_of_order("their-order", 9) == [], "another peer's order is none of ours"
    assert [trade.match_id for trade in await second.trades_of_order("o2", 2)] == ["m3", "m8"]
    await second.close()


async def test_reading_and_writing_go_on_together(tmp_path: Path) -> None:
    kept = opened(tmp_path)
    await written(kept, [signed("first"), accepted("o1"), accepted("o2")])

    async def write() -> None:
        for n in range(100):
            await written(kept, [signed(f"m{n}"), executed(f"m{n}", "o1", "o2")])

    async def read() -> None:
        seen = 0
        for _ in range(30):
            assert await kept.proofs("first") == [signed("first")]
            trades = await kept.trades(0, 1_000)
            assert [trade.match_id for trade in trades] == [f"m{n}" for n in range(len(trades))]
            assert len(trades) >= seen
            seen = len(trades)

    await asyncio.gather(write(), read())
    await kept.close()
