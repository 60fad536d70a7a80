"""The journal while a market runs: nothing is told before the disk has it, and the loop goes on meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest

from orderbook import limits
from orderbook.errors import JournalError
from orderbook.events import Accepted, Event
from orderbook.journal import disk, syncer
from orderbook.journal.file import JournalFile
from orderbook.journal.redo import RECORD, RedoFile
from orderbook.journal.syncer import Synced
from orderbook.journal.writer import SqliteJournal, open_journal
from orderbook.model import Instrument
from tests.harness import until

META = {"peer": "ann", "market": "SIM", "instrument": "x"}


def accepted(n: int) -> Accepted:
    return Accepted(f"o{n}", "owner", "buy", 100, 10, 1_000 + n, f"c{n}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "SIM.journal"


class WatchedFile(JournalFile):
    """Tells which threads have written its tables, and how many events the loop has written at a time."""

    def __init__(self, path: Path, durability: str = "off"):
        super().__init__(path, durability=durability, create=META)
        self.writers: list[threading.Thread] = []
        self.sizes: list[int] = []
        self.error: str | None = None
        """Why its tables can't be written."""
        self.watched: WatchedRedo | None = None
        if durability == "full":
            self.begin_redo()

    def _make_redo(self) -> RedoFile:
        self.watched = WatchedRedo()
        self.sizes = self.watched.sizes
        return RedoFile(self._redo_path, self._id, self.number, self.watched.write)

    def write(self, events: Sequence[Event], packed: Sequence[bytes] | None = None) -> None:
        if self.error is not None:
            raise sqlite3.OperationalError(self.error)
        self.writers.append(threading.current_thread())
        if self.watched is None:
            self.sizes.append(len(events))
        super().write(events, packed)


class WatchedRedo:
    """Tells how many events were written to a redo log at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.error: str | None = None
        """Why it can't be written."""

    def write(self, descriptor: int, place: int, record: bytes) -> None:
        if self.error is not None:
            raise OSError(self.error)
        disk.write_at(descriptor, place, record)
        self.sizes.append(RECORD.unpack_from(record)[-1])


class HeldSyncer:
    """A disk that answers when it is told to.

    Attributes:
        asked: How many events were written when each sync began.
        then: Who waits for the one under way.
    """

    def __init__(self, file: WatchedFile):
        self._file = file
        self.asked: list[int] = []
        self.then: Synced | None = None
        self.closed = False

    def start(self, then: Synced) -> None:
        assert self.then is None, "one at a time"
        assert self._file.redo is not None
        self.asked.append(self._file.redo.number)
        self.then = then

    def answer(self, error: OSError | None = None) -> None:
        assert self.then is not None
        then, self.then = self.then, None
        then(error)

    def sync(self) -> None:
        raise AssertionError("it stops the loop")

    def close(self) -> None:
        assert self.then is None
        self.closed = True


class Held:
    """A journal on such a disk, after its first transaction."""

    def __init__(self, path: Path):
        self.file = WatchedFile(path, "full")
        self.disk = HeldSyncer(self.file)
        self.told: list[int] = []
        self.count = 0
        self.journal = SqliteJournal(self.file, asyncio.get_running_loop(), self._make_syncer)

    def _make_syncer(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> HeldSyncer:
        os.close(descriptor)
        return self.disk

    def step(self, events: int = 1) -> None:
        """Journal some events; it is noted when they are said to be durable."""
        self.journal.append([accepted(self.count + n) for n in range(events)])
        self.count += events
        self.journal.when_durable(lambda upto=self.count: self.told.append(upto))  # type: ignore[misc]

    async def asked(self, times: int) -> None:
        """Wait until the disk was asked so often to sync."""
        await until(lambda: len(self.disk.asked) >= times)
        assert len(self.disk.asked) == times

    async def answered(self) -> None:
        self.disk.answer()
        await until(lambda: not self.journal._jobs.busy)


@pytest.fixture
async def held(path: Path) -> Held:
    held = Held(path)
    held.step()
    await held.asked(1)
    await held.answered()
    held.told.clear()
    held.disk.asked.clear()
    held.file.sizes.clear()
    return held


async def test_nothing_is_told_before_a_sync_that_began_when_it_was_written(held: Held) -> None:
    held.step()
    assert held.told == []
    await held.asked(1)
    assert held.disk.asked == [2]
    held.step()  # comes too late for that one
    held.step()
    await asyncio.sleep(limits.JOURNAL_LINGER_S * 2)
    assert (held.told, held.disk.asked) == ([], [2])
    await held.answered()
    assert held.told == [2]
    await held.asked(2)
    assert held.disk.asked == [2, 4]
    assert held.file.sizes == [1, 2], "what came meanwhile shares a transaction"
    assert held.told == [2]
    await held.answered()
    assert held.told == [2, 3, 4]
    await held.journal.close()
    assert held.disk.closed


async def test_what_nobody_waits_for_follows_too_when_the_disk_was_busy(held: Held) -> None:
    held.step()
    await held.asked(1)
    held.journal.append([accepted(100)])
    await asyncio.sleep(limits.JOURNAL_LINGER_S * 2)
    assert held.disk.asked == [2]
    await held.answered()
    await held.asked(2)
    assert held.disk.asked == [2, 3]
    await held.answered()
    assert held.journal.waiting == 0
    await held.journal.close()


async def test_after_a_sync_that_failed_nothing_is_promised_any_more(
    held: Held, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one would say yes all the same: the operating system forgets what it could not write."""
    monkeypatch.setattr(limits, "JOURNAL_RETRY_S", 0.001)
    held.step()
    await held.asked(1)
    held.step()
    held.disk.answer(OSError(5, "Input/output error"))
    held.step()
    await asyncio.sleep(limits.JOURNAL_LINGER_S * 2)
    assert held.disk.asked == [2], "no other sync"
    assert held.file.sizes == [1], "and nothing more is written"
    trouble = held.journal.trouble
    assert trouble is not None
    assert "may be lost ([Errno 5] Input/output error): check the disk, then start again" in trouble
    await held.journal.close()
    assert held.told == []
    assert "ends without its last 3 events" in caplog.text
    file = JournalFile(path)
    assert file.number == 2, "what was written is there, as after a crash"
    file.close()


LOOKED_AT = {
    "proofs": lambda journal: journal.proofs("m"),
    "trades of an order": lambda journal: journal.trades_of_order("o1", 10),
    "what has just happened": lambda journal: journal.durable(),
}


@pytest.mark.parametrize("look", LOOKED_AT.values(), ids=LOOKED_AT)
async def test_who_looks_is_told_at_once_that_a_sync_has_failed(
    held: Held, look: Callable[[SqliteJournal], Coroutine[Any, Any, object]]
) -> None:
    held.step()
    await held.asked(1)
    waiting, gone = (asyncio.ensure_future(look(held.journal)) for _ in range(2))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    gone.cancel()
    await asyncio.sleep(0)
    held.disk.answer(OSError(5, "Input/output error"))
    for each in (waiting, look(held.journal)):
        with pytest.raises(JournalError, match=r"can't be read: .*Input/output error\): check the disk"):
            await asyncio.wait_for(each, 1.0)
    await held.journal.close()
    assert held.told == []


async def test_who_looks_while_it_closes_is_not_left_waiting(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = WatchedFile(path, "full")
    journal = SqliteJournal(file, asyncio.get_running_loop())
    file.error = "database or disk is full"
    journal.append([accepted(1)])
    waiting = [asyncio.ensure_future(look(journal)) for look in LOOKED_AT.values()]
    await asyncio.sleep(0)
    await asyncio.wait_for(journal.close(), 10.0)
    for each in (*waiting, *(look(journal) for look in LOOKED_AT.values()), journal.trades(0, 1)):
        with pytest.raises(JournalError, match="can't be read: "):
            await asyncio.wait_for(each, 1.0)
    assert "ends without its last 1 events: database or disk is full" in caplog.text


async def test_a_disk_that_hangs_is_said_while_the_loop_goes_on(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.step()
    await held.asked(1)
    assert held.journal.trouble is None
    monkeypatch.setattr(limits, "JOURNAL_HANGS_S", 0.01)
    await until(lambda: held.journal.trouble is not None)
    assert held.journal.trouble is not None
    assert "has not answered" in held.journal.trouble
    assert held.told == []
    await held.answered()
    assert held.journal.trouble is None
    assert held.told == [2]
    await held.journal.close()


async def test_closing_waits_for_the_disk_and_writes_what_is_left(held: Held, path: Path) -> None:
    held.step()
    await held.asked(1)
    held.step(3)
    closing = asyncio.ensure_future(held.journal.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    held.disk.answer()
    await closing
    assert held.told == [2, 5]
    assert held.disk.asked == [2]
    assert [each.name for each in path.parent.iterdir()] == [path.name], "a journal at rest is one file"
    file = JournalFile(path)
    assert file.number == 5
    file.close()


async def test_steps_are_never_parted(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_WRITE_EVENTS", 10)
    held.step()
    await held.asked(1)
    for size in (4, 4, 4, 25, 4, 8):
        held.step(size)
    for times in (2, 3, 4):
        await held.answered()
        await held.asked(times)
    await held.answered()
    assert held.file.sizes == [1, 12, 25, 12]
    assert held.told[-1] == held.count
    await held.journal.close()


@pytest.mark.parametrize("durability", ["normal", "off"])
async def test_with_less_durability_nothing_is_synced(path: Path, durability: str) -> None:
    def make_syncer(descriptor: int, loop: asyncio.AbstractEventLoop) -> HeldSyncer:
        raise AssertionError

    journal = SqliteJournal(WatchedFile(path, durability), asyncio.get_running_loop(), make_syncer)
    durable = asyncio.Event()
    journal.append([accepted(1)])
    journal.when_durable(durable.set)
    await durable.wait()
    assert journal.waiting == 0
    await journal.close()


@pytest.mark.parametrize("durability", ["full", "off"])
async def test_promises_come_in_order(path: Path, durability: str) -> None:
    file = WatchedFile(path, durability)
    journal = SqliteJournal(file, asyncio.get_running_loop())
    told: list[int] = []
    journal.when_durable(lambda: told.append(0))
    assert told == [0], "nothing to wait for"
    last = asyncio.Event()
    for n in range(1, 200):
        journal.append([accepted(n)])
        journal.when_durable(lambda n=n: told.append(n))  # type: ignore[misc]
    journal.when_durable(last.set)
    assert told == [0]
    await last.wait()
    assert told == list(range(200))
    assert file.sizes == [199], "the steps of one turn share a transaction"
    await journal.close()


async def test_what_comes_in_turns_of_the_loop_without_a_pause_shares_a_transaction(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_LINGER_S", 3_600.0)
    file, loop = WatchedFile(path), asyncio.get_running_loop()
    journal = SqliteJournal(file, loop)
    journal.append([accepted(0)])
    await durable(journal)
    await until(lambda: not journal._jobs.busy)  # after a start it looks for what a snapshot has replaced
    file.sizes.clear()
    last = asyncio.Event()

    def step(n: int) -> None:
        journal.append([accepted(n)])
        journal.when_durable(last.set if n == 100 else lambda: None)
        if n < 100:
            loop.call_soon(step, n + 1)

    step(1)
    await last.wait()
    assert sum(file.sizes) == 100
    least = limits.JOURNAL_GATHER_EVENTS
    assert all(least <= size <= least + 2 for size in file.sizes[:-1]), file.sizes
    await journal.close()


async def test_events_that_nobody_waits_for_are_written_all_the_same(path: Path) -> None:
    file = WatchedFile(path)
    journal = SqliteJournal(file, asyncio.get_running_loop())
    journal.append([accepted(1)])
    journal.append([accepted(2)])
    await until(lambda: not journal.waiting)
    assert file.sizes == [2]
    await journal.close()


@pytest.mark.parametrize("durability", ["full", "off"])
async def test_a_full_disk_is_said_and_nothing_is_promised_until_it_has_room(
    path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_RETRY_S", 0.01)
    disk = WatchedFile(path, durability)
    full = disk.watched or disk
    full.error = "database or disk is full"
    journal = SqliteJournal(disk, asyncio.get_running_loop())
    journal.append([accepted(1)])
    await told_when_there_is_room(journal, full)
    await journal.proofs("")  # then the tables have all
    assert [event for _, event in disk.events()] == [accepted(1)]
    await journal.close()


@pytest.mark.parametrize("durability", ["full", "off"])
async def test_a_disk_that_fills_up_in_between_is_tried_again(
    path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_RETRY_S", 0.01)
    disk = WatchedFile(path, durability)
    full = disk.watched or disk
    journal = SqliteJournal(disk, asyncio.get_running_loop())
    journal.append([accepted(1)])
    await durable(journal)
    await until(lambda: not journal._jobs.busy)
    full.error = "database or disk is full"
    journal.append([accepted(2)])
    await told_when_there_is_room(journal, full)
    await journal.proofs("")
    assert [event for _, event in disk.events()] == [accepted(1), accepted(2)]
    await journal.close()


async def test_a_full_disk_in_the_end_is_said(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = WatchedFile(path, "full")
    journal = SqliteJournal(disk, asyncio.get_running_loop())
    disk.error = "database or disk is full"
    told: list[int] = []
    journal.append([accepted(1)])
    journal.when_durable(lambda: told.append(1))
    await journal.close()
    assert told == []
    assert "ends without its last 1 events: database or disk is full" in caplog.text


async def test_the_log_stays_short(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_CHECKPOINT_WRITES", 10)
    file = WatchedFile(path)
    journal = SqliteJournal(file, asyncio.get_running_loop())
    for n in range(200):
        journal.append([accepted(n)])
        await durable(journal)
        await journal.trades(0, 1)
    assert wal(path).stat().st_size < 10 * 5 * 4096, "as much as ten transactions, not two hundred"
    by_thread = [n for n, writer in enumerate(file.writers) if writer is not threading.current_thread()]
    assert by_thread == list(range(0, 200, 10)), "what waits for the disk in SQLite"
    await journal.close()


async def test_behind_a_redo_log_it_stays_short_too_and_the_loop_never_writes_the_tables(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_CHECKPOINT_WRITES", 10)
    file = WatchedFile(path, "full")
    journal = SqliteJournal(file, asyncio.get_running_loop())
    for n in range(200):
        journal.append([accepted(n)])
        await journal.proofs("")
    assert len(file.writers) == 200
    assert threading.current_thread() not in file.writers
    assert wal(path).stat().st_size < 11 * 5 * 4096, "as much as ten transactions, not two hundred"
    await journal.close()


async def test_what_was_told_is_in_what_was_synced(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves of each file what its last sync has covered: that is kept aside each time."""
    monkeypatch.setattr(limits, "JOURNAL_CHECKPOINT_WRITES", 7)
    monkeypatch.setattr(limits, "JOURNAL_REDO_HALF", 400)
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 0.0)
    monkeypatch.setattr(syncer, "uring", None)
    left = tmp_path / "left"
    left.mkdir()
    threads: set[threading.Thread] = set()
    keeping_aside = threading.Lock()

    def sync(descriptor: int) -> None:
        os.fsync(descriptor)
        threads.add(threading.current_thread())
        of_redo = os.path.samestat(os.fstat(descriptor), redo(path).stat())
        with keeping_aside:
            for each in (redo(path),) if of_redo else (path, wal(path)):
                shutil.copy(each, left)

    monkeypatch.setattr(disk, "sync_data", sync)
    file, _ = open_journal(path, "ann", Instrument("SIM"), "full")
    for each in (path, wal(path), redo(path)):
        shutil.copy(each, left)
    journal = SqliteJournal(file, asyncio.get_running_loop())
    count = 0
    for n in range(1, 61):
        size = 30 if n % 20 == 0 else n % 3  # or it is too large for the redo log
        journal.append([accepted(count + each) for each in range(1, size + 1)])
        count += size
        await durable(journal)
        after_power_cut = tmp_path / str(n)
        with keeping_aside:
            shutil.copytree(left, after_power_cut)
        kept = JournalFile(after_power_cut / path.name)
        assert kept.check().orders.keys() == {f"o{each}" for each in range(1, count + 1)}
        kept.close()
    assert threading.current_thread() not in threads
    await journal.close()


def wal(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def redo(path: Path) -> Path:
    return path.with_name(path.name + "-redo")


def test_what_a_crash_has_left_is_durable_before_it_is_built_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its log may be in the memory of the operating system only."""
    instrument = Instrument("SIM")
    crashed, _ = open_journal(path, "ann", instrument, "normal")
    crashed.write([accepted(1), accepted(2)])
    left = tmp_path / "left"
    left.mkdir()
    for name in (path.name, path.name + "-wal"):
        shutil.copy(path.with_name(name), left)
    crashed.close()

    def no_room(self: JournalFile) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as full:
        full.setattr(JournalFile, "checkpoint", no_room)
        with pytest.raises(JournalError, match="can't be written: database or disk is full"):
            open_journal(left / path.name, "ann", instrument, "full")
    file, recovered = open_journal(left / path.name, "ann", instrument, "full")
    without_log = tmp_path / "without_log"
    shutil.copy(left / path.name, without_log)
    file.close()
    alone = JournalFile(without_log, without_redo=True)
    assert alone.recover().orders.keys() == recovered.orders.keys() == {"o1", "o2"}
    alone.close()


async def durable(journal: SqliteJournal) -> None:
    event = asyncio.Event()
    journal.when_durable(event.set)
    await event.wait()


async def told_when_there_is_room(journal: SqliteJournal, disk: WatchedFile | WatchedRedo) -> None:
    """The disk is full; what was appended is promised once it has room again, and not before."""
    told = asyncio.Event()
    journal.when_durable(told.set)
    await until(lambda: journal.trouble is not None)
    assert journal.trouble is not None
    assert "disk is full" in journal.trouble
    assert not told.is_set()
    disk.error = None
    await told.wait()
    assert journal.trouble is None
