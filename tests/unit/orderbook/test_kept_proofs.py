"""Proofs are found again: in memory for a while, in a journal for good."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orderbook import journal, limits
from orderbook.events import Event, Refused, Signed
from orderbook.journal import Journal, JournalFile, MemoryJournal, SqliteJournal
from orderbook.model import Instrument

INSTRUMENT = Instrument("SIM", tick="1", lot="1")


def signed(match_id: str) -> Signed:
    return Signed(match_id, {"payload": {"match_id": match_id}}, {"said": f"about {match_id}"})


async def written(journal: Journal, events: list[Event]) -> None:
    journal.append(events)
    durable = asyncio.Event()
    journal.when_durable(durable.set)
    await durable.wait()


def opened(folder: Path) -> SqliteJournal:
    loop = asyncio.get_running_loop()
    return journal.open_journal(folder / "SIM.journal", "alice", INSTRUMENT, "off", loop)[0]


async def test_memory_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PROOFS_IN_MEMORY", 2)
    memory = MemoryJournal()
    await written(memory, [signed("m1"), Refused("m1"), signed("m2"), signed("m3")])
    assert [await memory.signed(id) for id in ("m1", "m2", "m3")] == [None, signed("m2"), signed("m3")]


async def test_a_journal_keeps_all_over_restarts_and_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEARCHED_ROWS", 3)
    first = opened(tmp_path)
    assert await first.signed("m1") is None
    await written(first, [signed(f"m{n}") for n in range(10)])
    assert await first.signed("m9") == signed("m9")
    await first.close()
    file = JournalFile(tmp_path / "SIM.journal")
    file.compact()
    file.close()
    second = opened(tmp_path)
    await written(second, [signed(f"m{n}") for n in range(10, 20)])
    for n in range(20):
        assert await second.signed(f"m{n}") == signed(f"m{n}")
    assert await second.signed("m20") is None
    assert await second.signed("m") is None, "a part of an id is none"
    assert await second.signed("about m7") is None, "what a message says is no id"
    await second.close()


async def test_searching_and_writing_go_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEARCHED_ROWS", 5)
    kept = opened(tmp_path)
    await written(kept, [signed("first")])

    async def write() -> None:
        for n in range(100):
            await written(kept, [signed(f"m{n}")])

    async def search() -> None:
        for _ in range(30):
            assert await kept.signed("first") == signed("first")
            assert await kept.signed("none") is None

    await asyncio.gather(write(), search())
    await kept.close()
