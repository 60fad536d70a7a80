"""The journal's file: what was durable is there again, and a fault is told, never glossed over."""

from __future__ import annotations

import asyncio
import io
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import msgpack
import pytest

from orderbook import limits
from orderbook.errors import JournalError
from orderbook.events import (
    Accepted,
    Cancelled,
    Event,
    Executed,
    Intended,
    Refused,
    Signed,
    to_plain,
    unpack,
)
from orderbook.journal import upkeep
from orderbook.journal.archive import JournalArchive
from orderbook.journal.file import JournalFile
from orderbook.journal.schema import meta_checksum
from orderbook.journal.snapshotter import Snapshotter, add_up
from orderbook.journal.writer import SqliteJournal, open_journal
from orderbook.model import Instrument, Order
from orderbook.recovery import Recovered
from tests.harness import until

META = {"peer": "ann", "market": "SIM", "instrument": "x"}


def accepted(n: int, quantity: int = 10) -> Accepted:
    return Accepted(f"o{n}", "owner", "buy", 100, quantity, 1_000 + n, f"c{n}")


def executed(match_id: str, order_id: str, quantity: int) -> Executed:
    """Of our order as taker, with another peer's as maker."""
    return Executed(match_id, 100, quantity, "theirs", order_id, "bob", "ann", 5)


EVENTS: list[Event] = [
    accepted(1),
    accepted(2),
    Intended("m1", "o1", "bob", "b:1", "lock", (("theirs", 100, 3), ("theirs2", 100, 1))),
    executed("m1", "o1", 3),
    executed("m1", "o1", 1),
    Intended("m2", "o2", "bob", "b:1", "lock2", (("theirs", 100, 5),)),
    Cancelled("o1"),
    Intended("m3", "o2", "bob", "b:1", "lock3", (("theirs", 100, 2),)),
    Signed("m1", {"from": "ann"}, {"from": "bob"}),
    Refused("m3"),
]


def state(recovered: Recovered) -> object:
    def row(order: Order) -> object:
        return (order.id, order.open, order.reserved, order.filled, order.cancelled, order.client_order_id)

    orders = [row(order) for order in recovered.finish().orders.values()]
    return orders, recovered.trade_count, {id: c.intent(id) for id, c in recovered.confirmations.items()}


def write(path: Path, events: Sequence[Event]) -> None:
    file = JournalFile(path, create=META)
    for event in events:
        file.write([event])
    file.close()


def read(path: Path) -> Recovered:
    file = JournalFile(path)
    try:
        return file.recover()
    finally:
        file.close()


def verify(path: Path) -> None:
    file = JournalFile(path)
    try:
        file.check()
    finally:
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "SIM.journal"


@pytest.mark.parametrize("event", EVENTS)
def test_events_survive_the_way_to_the_disk(event: Event) -> None:
    assert unpack(msgpack.packb(to_plain(event))) == event


@pytest.mark.parametrize("plain", [None, {}, {"type": "nothing"}, {"type": "cancelled"}, [1]])
def test_what_is_no_event_is_refused(plain: object) -> None:
    with pytest.raises(JournalError):
        unpack(msgpack.packb(plain))


def test_a_file_gives_back_what_its_events_add_up_to(path: Path) -> None:
    write(path, EVENTS)
    recovered = read(path)
    expected = Recovered("ann", "SIM").apply(EVENTS)
    assert state(recovered) == state(expected)
    orders = recovered.orders
    assert (orders["o1"].filled, orders["o1"].cancelled, orders["o1"].open) == (4, 6, 0)
    assert (orders["o2"].reserved, orders["o2"].open) == (5, 5)
    assert list(recovered.confirmations) == ["m2"]


@pytest.mark.parametrize("cut", range(len(EVENTS) + 1))
def test_a_snapshot_anywhere_changes_nothing(path: Path, cut: int) -> None:
    write(path, EVENTS[:cut])
    file = JournalFile(path)
    file.compact()
    file.close()
    write(path, EVENTS[cut:])
    assert state(read(path)) == state(Recovered("ann", "SIM").apply(EVENTS))
    file = JournalFile(path)
    file.check()
    assert file.number == len(EVENTS)
    assert file.snapshot_number() == cut
    archive = JournalArchive(path, file.meta)
    assert archive.trades(0, 10) == Recovered("ann", "SIM").apply(EVENTS).trades
    archive.close()
    file.close()


def test_old_closed_orders_leave_with_a_snapshot_and_their_trades_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SNAPSHOT_CLOSED_ORDERS", 1)
    write(path, [accepted(1), accepted(2), accepted(3), executed("m", "o1", 10), Cancelled("o2")])
    file = JournalFile(path)
    file.compact()
    recovered = file.recover()
    assert list(recovered.orders) == ["o2", "o3"]
    assert (recovered.archived_trades, recovered.archived_cross_peer, recovered.trades) == (1, 1, [])
    archive = JournalArchive(path, file.meta)
    assert [trade.match_id for trade in archive.trades_of_order("o1", 10)] == ["m"]
    archive.close()
    file.close()


@pytest.mark.parametrize(
    "events",
    [
        [Cancelled("nothing")],
        [Refused("nothing")],
        [executed("m", "nothing", 1)],
        [accepted(1), executed("m", "o1", 11)],
        [accepted(1), Intended("m", "o1", "bob", "b:1", "l", (("theirs", 100, 11),))],
    ],
)
def test_events_that_cannot_have_happened_are_refused(path: Path, events: list[Event]) -> None:
    write(path, events)
    file = JournalFile(path)
    with pytest.raises(JournalError):
        file.check()
    file.close()


# -- faults ------------------------------------------------------------------------------------------


def test_two_processes_cannot_open_one_journal(path: Path) -> None:
    write(path, EVENTS)
    file = JournalFile(path)
    program = (
        "import pathlib, sys; from orderbook.journal.file import JournalFile; "
        "JournalFile(pathlib.Path(sys.argv[1]))"
    )
    other = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert other.returncode != 0
    assert "in use by another process: stop it first" in other.stderr
    file.close()
    read(path)


def test_a_missing_journal_is_said_to_be_missing(path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal"):
        JournalFile(path)
    assert not path.exists()


@pytest.mark.parametrize("wrong", [b"hello", b"SQLite format 3\0" + b"\0" * 84, b"\0" * 5000])
def test_what_is_no_journal_is_left_as_it_is(path: Path, wrong: bytes) -> None:
    path.write_bytes(wrong)
    with pytest.raises(JournalError, match="left as it is"):
        JournalFile(path, create=META)
    assert path.read_bytes() == wrong


def test_another_programs_database_is_left_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE something (x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="another program"):
        JournalFile(path, create=META)
    assert path.read_bytes() == before


def test_a_newer_journal_is_left_as_it_is(path: Path) -> None:
    write(path, EVENTS)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="version 99, newer"):
        JournalFile(path, create=META)
    assert path.read_bytes() == before


def test_an_older_journal_is_left_as_it_is(path: Path) -> None:
    write(path, EVENTS)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    before = path.read_bytes()
    with pytest.raises(JournalError, match="version 1, older"):
        JournalFile(path, create=META)
    assert path.read_bytes() == before


def test_a_journal_of_version_2_becomes_one_of_today_with_its_doubts(path: Path) -> None:
    write(path, EVENTS)
    expected = state(read(path))
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 2")
        db.execute("DELETE FROM meta WHERE key IN ('id', 'starts')")
        db.execute("UPDATE meta SET value = ? WHERE key = 'checksum'", (meta_checksum(META),))
    db.close()
    verify(path)
    assert state(read(path)) == expected
    for _ in range(2):
        file = JournalFile(path, create=META)
        recovered = file.recover()
        file.close()
        assert recovered.confirmations.keys() == {"m2"}
        assert state(recovered) == expected
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM meta WHERE key = 'id'").fetchone() == (1,)
    db.close()
    verify(path)


def test_one_process_does_not_open_a_journal_twice(path: Path, tmp_path: Path) -> None:
    write(path, EVENTS)
    file = JournalFile(path)
    (tmp_path / "link").symlink_to(path)
    for name in (path, tmp_path / "link"):
        with pytest.raises(JournalError, match="in use by this process"):
            JournalFile(name)
    file.close()
    read(tmp_path / "link")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("UPDATE trades SET data = zeroblob(length(data)) WHERE number = 4", "row 4 of trades has changed"),
        ("DELETE FROM trades WHERE number = 4", "trade 1 is missing"),
        ("UPDATE proofs SET data = x'00'", "row 9 of proofs has changed"),
        ("UPDATE snapshot SET trades = 1", "event 11 is missing"),
        ("UPDATE snapshot SET trades = 3", "another number of trades"),
    ],
)
def test_damage_before_a_snapshot_is_found_too(path: Path, damage: str, text: str) -> None:
    write(path, EVENTS)
    file = JournalFile(path)
    file.compact()
    file.close()
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    file = JournalFile(path)
    with pytest.raises(JournalError, match=text):
        file.check()
    file.close()


@pytest.mark.parametrize("key", META)
def test_a_journal_of_somebody_else_is_refused(path: Path, key: str) -> None:
    write(path, EVENTS)
    with pytest.raises(JournalError, match=f"journal of {key}"):
        JournalFile(path, create={**META, key: "other"})


def test_a_snapshot_is_given_up_without_a_word(
    path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by who comes before its process is there to be ended."""
    items = Snapshotter._items

    def given_up(self: Snapshotter) -> Iterator[object]:
        self._stopped = True
        return items(self)

    write(path, EVENTS)
    file = JournalFile(path)
    monkeypatch.setattr(Snapshotter, "_items", given_up)
    made: list[object] = []
    Snapshotter(path, META, file.number, file.trade_count, made.append)._thread.join()
    file.close()
    assert not made
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("UPDATE events SET data = zeroblob(length(data)) WHERE number = 6", "row 6 of events has changed"),
        ("UPDATE trades SET data = zeroblob(length(data)) WHERE number = 4", "row 4 of trades has changed"),
        ("UPDATE trades SET match_id = 'other' WHERE number = 4", "trade 1 is filed under what it is not"),
        ("UPDATE trades SET taker_order = 'o2' WHERE number = 4", "trade 1 is filed under what it is not"),
        ("UPDATE trades SET maker_order = 'o2' WHERE number = 4", "trade 1 is filed under what it is not"),
        ("DELETE FROM trades WHERE number = 4", "event 4 is missing"),
        ("DELETE FROM trades WHERE number = 5", "event 5 is missing"),
        ("UPDATE proofs SET match_id = 'm2'", "row 9 of proofs is filed under what it is not"),
        ("UPDATE proofs SET number = 11", "event 9 is missing"),
        ("DELETE FROM proofs", "event 9 is missing"),
        ("UPDATE trades SET number = 'x' WHERE number = 4", "a number in trades is none"),
        ("UPDATE events SET checksum = checksum + 1 WHERE number = 1", "row 1 of events has changed"),
        ("DELETE FROM events WHERE number = 3", "event 3 is missing"),
        ("UPDATE meta SET value = 'eve' WHERE key = 'peer'", "whose journal it is has changed"),
        ("UPDATE events SET number = 100 WHERE number = 10", "event 10 is missing"),
    ],
)
def test_damaged_rows_are_named(path: Path, damage: str, text: str) -> None:
    write(path, EVENTS)
    with sqlite3.connect(path) as db:
        db.execute(damage)
    db.close()
    with pytest.raises(JournalError, match=text):
        verify(path)


def test_flipped_bytes_never_pass_for_the_truth(path: Path) -> None:
    """Any byte of the file may change: what is read is the same, or an error is raised."""
    write(path, EVENTS)
    whole, truth, random = path.read_bytes(), state(read(path)), Random(5)
    seen = 0
    for _ in range(300):
        place = random.randrange(len(whole))
        path.write_bytes(
            whole[:place] + bytes([whole[place] ^ (1 << random.randrange(8))]) + whole[place + 1 :]
        )
        try:
            found = state(read(path))
        except JournalError:
            seen += 1
        else:
            assert found == truth
    assert seen > 20


def test_a_torn_tail_gives_a_beginning_that_has_all_that_was_durable(path: Path, tmp_path: Path) -> None:
    """Cut the write-ahead log anywhere, as a crash does: whole transactions remain."""
    file = JournalFile(path, create=META)
    sizes = []
    log = path.with_name(path.name + "-wal")
    for event in EVENTS:
        file.write([event])
        sizes.append(log.stat().st_size)
    whole = log.read_bytes()
    random = Random(6)
    for cut in [*sizes, *(random.randrange(len(whole)) for _ in range(60))]:
        copy = tmp_path / f"cut{cut}" / path.name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
        torn = whole[:cut] + random.randbytes(random.choice((0, 100)))
        copy.with_name(log.name).write_bytes(torn)
        durable = sum(size <= cut for size in sizes)
        found = JournalFile(copy)
        assert found.number == durable
        assert [event for _, event in found.events()] == EVENTS[:durable]
        found.close()
    file.close()


# -- snapshots while it is written ---------------------------------------------------------------------------


def busy(n: int) -> list[Event]:
    """Four events of an order that comes, trades and is done."""
    intended = Intended(f"m{n}", f"o{n}", "bob", "b:1", "lock", (("theirs", 100, 10),))
    signed = Signed(f"m{n}", {"from": "ann"}, {"from": "bob"})
    return [accepted(n), intended, executed(f"m{n}", f"o{n}", 10), signed]


def opened(path: Path) -> tuple[SqliteJournal, Recovered]:
    file, recovered = open_journal(path, "ann", Instrument("SIM"), "off")
    return SqliteJournal(file, asyncio.get_running_loop()), recovered


async def durable(journal: SqliteJournal) -> None:
    event = asyncio.Event()
    journal.when_durable(event.set)
    await event.wait()


async def test_a_journal_that_is_written_for_ever_stays_short(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_SNAPSHOT", 2_000)
    monkeypatch.setattr(limits, "SNAPSHOT_CLOSED_ORDERS", 10)
    monkeypatch.setattr(upkeep, "DROPPED_AT_A_TIME", 300)
    journal, _ = opened(path)
    written: list[Event] = []
    snapshots: set[int] = set()

    def enough() -> bool:
        for _ in range(20):
            events = busy(len(written))
            written.extend(events)
            journal.append(events)
        snapshots.add(journal._file.snapshot_number())
        return len(snapshots) > 3 and len(written) > 12_000

    await until(enough, 60.0, "three snapshots")
    resting = accepted(10**6)
    written.append(resting)
    journal.append([resting])
    await durable(journal)
    assert await journal.trades(0, 3) == Recovered("ann", "SIM").apply(written[:12]).trades
    await journal.close()

    file = JournalFile(path)
    file.check()
    assert file.number == len(written)
    whole, recovered = Recovered("ann", "SIM").apply(written), file.recover()
    assert recovered.trade_count == whole.trade_count
    assert recovered.archived_trades >= max(snapshots) // 4
    assert recovered.finish().orders[resting.order_id].live
    assert len(file._rows.select("SELECT 1 FROM events")) < len(written) // 2, (
        "the rest are trades and proofs"
    )
    file.close()
    again, recovered = opened(path)
    assert recovered.trade_count == whole.trade_count
    await again.close()


async def test_a_snapshot_that_can_not_be_made_stops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_SNAPSHOT", 10)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    journal, _ = opened(path)
    count = 0

    def told() -> bool:
        nonlocal count
        journal.append([accepted(count)])
        count += 1
        return "no snapshot: " in caplog.text

    await until(told, 20.0, "the warning")
    await journal.close()
    assert len(read(path).orders) == count


async def test_a_disk_without_room_for_a_snapshot_stops_no_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(limits, "JOURNAL_TAIL", 1)
    monkeypatch.setattr(JournalFile, "_install", no_room)
    journal, _ = opened(path)
    journal.append(EVENTS)
    await journal.close()
    journal, recovered = opened(path)
    assert "disk is full" in caplog.text
    assert state(recovered) == state(Recovered("ann", "SIM").apply(EVENTS))
    await journal.close()


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        ("UPDATE events SET data = zeroblob(length(data)) WHERE number = 6", "row 6 has changed"),
        ("DELETE FROM events WHERE number = 6", "event 6 is missing"),
        ("DELETE FROM trades WHERE number = 5", "event 5 is missing"),
        ("DELETE FROM proofs", "event 9 is missing"),
    ],
)
def test_what_is_damaged_becomes_no_snapshot(path: Path, damage: str, text: str) -> None:
    write(path, EVENTS)
    file = JournalFile(path)
    snapshotter = Snapshotter.__new__(Snapshotter)
    snapshotter.__dict__.update(_path=path, _meta=META, _number=file.number)

    def told() -> io.BytesIO:
        return io.BytesIO(b"".join(msgpack.packb(item) for item in snapshotter._items()))

    expected = Recovered("ann", "SIM").apply(EVENTS).to_plain()
    assert msgpack.unpackb(add_up(told())) == msgpack.unpackb(msgpack.packb(expected))
    file._db.execute(damage)
    with pytest.raises(JournalError, match=text):
        add_up(told())
    file.close()
