"""The redo log: what was promised is read again whatever a crash has left, and a fault is told."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook import limits
from orderbook.errors import JournalError
from orderbook.events import Accepted, Event, Executed, Signed, pack, parts
from orderbook.journal import disk
from orderbook.journal.file import JournalFile
from orderbook.journal.redo import (
    HEADER_BYTES,
    Record,
    RedoFile,
    beyond,
    events_of,
    header,
    read,
    to_bytes,
    whole_records,
)
from orderbook.journal.writer import SqliteJournal, open_journal
from orderbook.model import Instrument
from tests.harness import until

INSTRUMENT = Instrument("SIM", tick="1", lot="1")
ID = b"journal1"


def accepted(n: int) -> Accepted:
    return Accepted(f"o{n}", "owner", "buy", 100, 10, 1_000 + n, f"c{n}")


def record_of(first: int, count: int) -> Record:
    return Record(first, count, pack([accepted(n) for n in range(first, first + count)]))


def rows(records: Sequence[Record]) -> list[tuple[int, int, bytes]]:
    return [(record.number, record.count, record.data) for record in records]


# -- what stands in it -------------------------------------------------------------------------------------


@st.composite
def logs(draw: st.DrawFn) -> tuple[bytes, int, list[Record], int]:
    """A log after some writing: its bytes, how far the tables are, what goes beyond them, and where its last
    record ends."""
    half = draw(st.integers(150, 600))
    halves = [bytearray(half), bytearray(half)]
    last, active, used, number, taken, end = [0, 0], 0, 0, 0, 0, 0
    records: list[Record] = []
    for count in draw(st.lists(st.integers(1, 4), max_size=30)):
        record = record_of(number + 1, count)
        data = to_bytes(record, ID)
        if len(data) > half:
            break
        if used + len(data) > half:
            taken = max(taken, last[1 - active])
            active, used = 1 - active, 0
        halves[active][used : used + len(data)] = data
        used += len(data)
        last[active] = number = record.last
        end = active * half + used
        records.append(record)
    taken = draw(st.sampled_from([taken, *(record.last for record in records if record.last >= taken)]))
    return bytes(halves[0] + halves[1]), taken, [each for each in records if each.number > taken], end


@given(logs())
def test_what_goes_beyond_the_tables_is_found_wherever_it_stands(
    log: tuple[bytes, int, list[Record], int],
) -> None:
    content, taken, expected, _ = log
    assert rows(beyond(whole_records(content, ID), taken)) == rows(expected)


@given(logs(), st.data())
def test_a_torn_last_record_is_forgotten_and_nothing_else(
    log: tuple[bytes, int, list[Record], int], data: st.DataObject
) -> None:
    content, taken, expected, end = log
    if not expected:
        return
    size = len(to_bytes(expected[-1], ID))
    torn = bytearray(content)
    hole = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - hole))
    start = end - size + hole
    old = data.draw(st.binary(min_size=length, max_size=length))
    torn[start : start + length] = old
    if bytes(torn) != content:
        assert rows(beyond(whole_records(bytes(torn), ID), taken)) == rows(expected[:-1])


@given(logs(), st.data())
def test_a_changed_byte_is_found_or_harmless(
    log: tuple[bytes, int, list[Record], int], data: st.DataObject
) -> None:
    content, taken, expected, _ = log
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    try:
        found = rows(beyond(whole_records(bytes(changed), ID), taken))
    except JournalError:
        return
    assert found in (rows(expected), rows(expected[:-1])), "as it was, or its last record was torn"


def test_what_others_have_us_write_passes_for_no_record() -> None:
    """Not even what would be one in another journal."""
    fake = to_bytes(record_of(100, 1), b"journal2").decode("latin-1")
    torn = to_bytes(Record(1, 1, pack([Accepted("o", fake, "buy", 1, 1, 1)])), ID)[:-1]
    assert whole_records(torn, ID) == []


def test_records_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(JournalError, match="event 3 is missing"):
        beyond([record_of(1, 2), record_of(2, 2)], 0)
    with pytest.raises(JournalError, match="event 3 is missing"):
        beyond([record_of(1, 4)], 2)


def test_a_record_has_as_many_events_as_it_says() -> None:
    events, packed = events_of(record_of(1, 3))
    assert events == [accepted(n) for n in (1, 2, 3)]
    assert packed == [pack(event) for event in events]
    for wrong in (Record(1, 4, record_of(1, 3).data), Record(1, 1, pack(accepted(1))), Record(1, 1, b"")):
        with pytest.raises(JournalError):
            events_of(wrong)


def test_a_half_is_written_anew_only_when_the_tables_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(to_bytes(record_of(1, 1), ID))
    monkeypatch.setattr(limits, "JOURNAL_REDO_HALF", 2 * size)
    redo = RedoFile(tmp_path / "redo", ID, 0)
    for n in (1, 2, 3, 4):
        assert redo.has_room(record_of(n, 1), 0)
        redo.append(record_of(n, 1))
    assert not redo.has_room(record_of(5, 1), 1)
    assert redo.has_room(record_of(5, 1), 2)
    redo.append(record_of(5, 1))
    assert [record.number for record in beyond(read(tmp_path / "redo", ID), 2)] == [3, 4, 5]
    assert not redo.has_room(record_of(6, 2), 3)
    assert redo.has_room(record_of(6, 2), 4)
    assert not redo.takes(record_of(6, 4))
    redo.close()


# -- what a start finds ------------------------------------------------------------------------------------


def redo_of(path: Path) -> Path:
    return path.with_name(path.name + "-redo")


def crashed(path: Path, *steps: int) -> list[Event]:
    """A journal as a crash leaves it, with so many events in each record of its redo log."""
    file, _ = open_journal(path, "alice", INSTRUMENT, "full")
    assert file.redo is not None
    first = number = file.number
    for count in steps:
        file.redo.append(record_of(number + 1, count))
        number += count
    file.close()
    return [accepted(n) for n in range(first + 1, number + 1)]


def events_in(path: Path) -> list[Event]:
    file = JournalFile(path)
    try:
        file.check()
        return [event for _, event in file.events()]
    finally:
        file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "SIM.journal"


def test_whoever_opens_the_journal_finds_what_a_crash_has_left(path: Path) -> None:
    left = crashed(path, 1, 3, 2)
    assert events_in(path) == left
    assert not redo_of(path).exists()
    assert events_in(path) == left
    left += crashed(path, 4)
    file, recovered = open_journal(path, "alice", INSTRUMENT, "off")
    assert len(recovered.orders) == len(left) == 10
    assert not redo_of(path).exists(), "nothing but full needs one"
    file.close()


def test_what_the_tables_have_already_is_not_taken_twice(path: Path, tmp_path: Path) -> None:
    left = crashed(path, 1, 3, 2)
    for taken in (1, 4, 6):
        again = tmp_path / f"after {taken}" / path.name
        again.parent.mkdir()
        for each in (path, redo_of(path)):
            shutil.copy(each, again.parent)
        redo_of(again).rename(again.with_name("aside"))
        file = JournalFile(again, without_redo=True)
        file.write(left[:taken])
        file.close()
        again.with_name("aside").rename(redo_of(again))
        assert events_in(again) == left


def damage(change: str, content: bytes) -> bytes:
    second = HEADER_BYTES + len(to_bytes(record_of(1, 2), ID))
    return {
        "shorter": content[:-1],
        "a part of its header": content[:100],
        "nothing": b"",
        "another size": content[:8] + b"\0\0\0\1" + content[12:],
        "no redo log": b"x" + content[1:],
        "of another journal": header(ID, limits.JOURNAL_REDO_HALF) + content[HEADER_BYTES:],
        "a record that is not the last": content[:second] + b"\0" * 8 + content[second + 8 :],
        "the first record": content[:HEADER_BYTES] + b"\0" + content[HEADER_BYTES + 1 :],
    }[change]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("shorter", "another size"),
        ("a part of its header", "too short"),
        ("nothing", "too short"),
        ("another size", "does not begin as"),
        ("no redo log", "does not begin as"),
        ("of another journal", "that of another journal"),
        ("a record that is not the last", "event 3 is missing"),
        ("the first record", "event 1 is missing"),
    ],
)
def test_a_damaged_one_is_said_and_left_as_it_is(path: Path, change: str, text: str) -> None:
    crashed(path, 2, 2, 2)
    redo, before = redo_of(path), redo_of(path).read_bytes()
    redo.write_bytes(damage(change, before))
    changed, journal = redo.read_bytes(), path.read_bytes()
    for create in (None, {"peer": "alice", "market": "SIM"}):
        with pytest.raises(JournalError, match=f"-redo is damaged .*{text}.*restore a copy of both"):
            JournalFile(path, create=create)
    assert (redo.read_bytes(), path.read_bytes()) == (changed, journal)
    redo.write_bytes(before)
    assert len(events_in(path)) == 6


def test_what_is_left_of_a_journal_that_is_gone_goes_into_no_new_one(path: Path) -> None:
    crashed(path, 2)
    path.unlink()
    with pytest.raises(JournalError, match="left of a journal that is gone"):
        open_journal(path, "alice", INSTRUMENT, "full")
    assert not path.exists()
    assert redo_of(path).exists()


def test_without_room_to_take_it_over_it_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = crashed(path, 1, 3)

    def no_room(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for method in ("write", "checkpoint"):
        with monkeypatch.context() as full:
            full.setattr(JournalFile, method, no_room)
            with pytest.raises(JournalError, match="can't be opened: database or disk is full"):
                open_journal(path, "alice", INSTRUMENT, "full")
        assert redo_of(path).exists()
    assert events_in(path) == left


def test_a_journal_of_version_2_becomes_one_of_version_3_when_a_peer_opens_it(path: Path) -> None:
    file, _ = open_journal(path, "alice", INSTRUMENT, "off")
    file.write([accepted(1)])
    with file._transaction():
        file._db.execute("PRAGMA user_version = 2")
        meta = {key: value for key, value in file.meta.items() if key != "id"}
        file._db.execute("DELETE FROM meta")
        file._insert_meta(meta)
    file.close()

    assert events_in(path) == [accepted(1)]
    assert version(path) == 2, "who only reads it changes nothing"
    left = crashed(path, 2)
    assert version(path) == 3, "durably, before there is a redo log"
    assert events_in(path) == [accepted(1), *left]


def test_a_copy_without_its_redo_log_does_not_pass_for_a_journal_that_was_stopped(
    path: Path, tmp_path: Path
) -> None:
    """Be it of the file alone or with SQLite's log, while a peer runs or after a crash."""
    file, _ = open_journal(path, "alice", INSTRUMENT, "full")
    assert file.redo is not None
    file.redo.append(record_of(1, 2))
    file.write([accepted(1), accepted(2)])
    file.redo.append(record_of(3, 2))
    whole = copied(path, tmp_path / "whole", "", "-wal", "-redo")
    alone = copied(path, tmp_path / "alone", "")
    with_log = copied(path, tmp_path / "with log", "", "-wal")
    file.close()
    after_crash = copied(path, tmp_path / "after a crash", "")
    assert events_in(whole) == [accepted(n) for n in (1, 2, 3, 4)]
    for copy, count in (alone, 0), (with_log, 2), (after_crash, 2):
        for create in (None, {"peer": "alice", "market": "SIM"}):
            for _ in range(2):
                with pytest.raises(
                    JournalError, match=r"parted from its redo log, .*-redo: .*put the log back"
                ):
                    JournalFile(copy, create=create)
        with pytest.raises(JournalError, match=r"may be missing.*accept-loss"):
            open_journal(copy, "alice", INSTRUMENT, "off")
        reader = JournalFile(copy, without_redo=True)
        assert reader.redo_missing is not None
        assert reader.number == count
        reader.close()
        shutil.copy(redo_of(path), redo_of(copy))  # it was found
        if count:
            assert events_in(copy) == [accepted(n) for n in (1, 2, 3, 4)]
        else:
            assert len(events_in(copy)) == 4, "the log alone had all of it"


def test_who_accepts_the_loss_goes_on(path: Path) -> None:
    left = crashed(path, 2)
    assert events_in(path) == left
    crashed(path, 3)
    redo_of(path).unlink()
    file = JournalFile(path, without_redo=True)
    file.accept_loss()
    assert file.redo_missing is None
    file.close()
    assert events_in(path) == left
    assert events_in(path) + crashed(path, 1) == events_in(path)


def test_every_moment_of_a_power_cut_leaves_what_can_be_opened(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written and not synced may be there or not, and so may a file that was removed."""
    monkeypatch.setattr(limits, "JOURNAL_REDO_HALF", 1_000)
    moments: list[tuple[Path, bytes]] = []
    checkpoint, remove = JournalFile.checkpoint, JournalFile._remove_redo

    def look(what: str) -> Path:
        log = redo_of(path).read_bytes() if redo_of(path).exists() else b""
        place = tmp_path / f"{len(moments)} {what}"
        moments.append((copied(path, place, "", "-wal"), log))
        return moments[-1][0]

    class Watched(JournalFile):
        def checkpoint(self) -> None:
            look("before a checkpoint, its transaction being in memory only")
            checkpoint(self)
            look("after it")

        def _remove_redo(self) -> None:
            look("before it is removed")
            remove(self)
            look("after it")

        def _make_redo(self) -> RedoFile:
            look("before there is one")
            made = super()._make_redo()
            look("it is made")
            return made

    monkeypatch.setattr("orderbook.journal.writer.JournalFile", Watched)
    for cut in range(2):
        file, _ = open_journal(path, "alice", INSTRUMENT, "full")
        assert file.redo is not None
        look("begun")
        if cut == 0:
            file.redo.append(record_of(1, 2))
            first_record = look("the first record")
            file.close()
            continue
        assert file.number == 2
        file.end_redo()
        look("ended")
        file.close()
        look("closed")
    assert len(moments) > 15
    promised = [each for each, _ in moments].index(first_record)
    last = b""
    for n, (moment, log) in enumerate(moments):
        last = log or last
        # What was removed came back or not, and SQLite's log is there or not.
        variants = itertools.product({log, last}, (True, False))
        for count, (kept, with_log) in enumerate(variants):
            copy = tmp_path / f"{n} {count}" / path.name
            shutil.copytree(moment.parent, copy.parent)
            if not with_log:
                copy.with_name(path.name + "-wal").unlink(missing_ok=True)
            if kept:
                redo_of(copy).write_bytes(kept)
            found = events_in(copy)
            assert found == [accepted(1), accepted(2)] if n >= promised else found == []


def copied(path: Path, folder: Path, *suffixes: str) -> Path:
    """A copy of the journal, or of some of its files."""
    folder.mkdir()
    for each in (path.with_name(path.name + suffix) for suffix in suffixes):
        if each.exists():
            shutil.copy(each, folder)
    return folder / path.name


def version(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[60:64], "big")


# -- while a market runs -----------------------------------------------------------------------------------


class Tables(JournalFile):
    """A journal's file whose tables can be without room."""

    full = False

    def write(self, events: Sequence[Event], packed: Sequence[bytes] | None = None) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().write(events, packed)


def opened(path: Path) -> tuple[Tables, SqliteJournal]:
    file = Tables(path, create={"peer": "alice", "market": "SIM"})
    file.begin_redo()
    return file, SqliteJournal(file, asyncio.get_running_loop())


async def written(journal: SqliteJournal, events: Sequence[Event]) -> None:
    journal.append(events)
    durable = asyncio.Event()
    journal.when_durable(durable.set)
    await asyncio.wait_for(durable.wait(), 10.0)


async def test_trades_may_leave_the_memory_when_the_tables_have_them(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 3_600.0)
    file, journal = opened(path)
    archived: list[int] = []
    journal.when_archived(lambda: archived.append(0))
    assert archived == [0], "there are none"
    await written(journal, [accepted(1), Executed("m", 100, 1, "o1", "x", "alice", "bob", 5)])
    journal.when_archived(lambda: archived.append(file.number))
    assert (archived, file.number) == ([0], 0), "durable, but not yet to be looked up"
    journal.append([accepted(3)])
    journal.when_archived(lambda: archived.append(file.number))
    assert len(await journal.trades_of_order("o1", 10)) == 1
    assert archived == [0, 3, 3]
    assert len(journal.archive.trades_of_match("m")) == 1
    await journal.close()


async def test_proofs_and_trades_of_an_order_are_found_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 3_600.0)
    _, journal = opened(path)
    for n in range(1, 20):
        signed = Signed(f"m{n}", {"from": "bob"}, {})
        journal.append([accepted(n), Executed(f"m{n}", 100, 1, f"o{n}", "x", "alice", "bob", 5), signed])
        looked_up = journal.proofs(f"m{n}"), journal.trades_of_order(f"o{n}", 10)
        proofs, trades = await asyncio.gather(*looked_up)
        assert (list(proofs), [trade.match_id for trade in trades]) == ([signed], [f"m{n}"])
    await journal.close()


async def test_tables_without_room_are_said_and_the_redo_log_keeps_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_RETRY_S", 0.01)
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 0.0)
    monkeypatch.setattr(limits, "JOURNAL_REDO_HALF", 1_000)
    file, journal = opened(path)
    file.full = True
    await written(journal, [accepted(1)])
    await until(lambda: journal.trouble is not None)
    assert "disk is full" in str(journal.trouble)
    for _ in range(2):  # waits until it is tried again, and no longer
        with pytest.raises(JournalError, match=r"can't be read: .*disk is full"):
            await asyncio.wait_for(journal.proofs("m"), 5.0)
    count = 1
    told: list[int] = []
    while not journal._room_wanted:
        count += 1
        journal.append([accepted(count)])
        journal.when_durable(lambda n=count: told.append(n))  # type: ignore[misc]
        await until(lambda: len(told) == count - 1 or journal._room_wanted)  # noqa: B023  it is awaited here
    before = len(told)
    assert before > 10, "there was room in the redo log"
    await asyncio.sleep(0.05)
    assert len(told) == before, "and now there is none"

    again = path.parent / "crashed" / path.name
    again.parent.mkdir()
    for each in path.parent.glob(path.name + "*"):
        shutil.copy(each, again.parent)
    assert len(events_in(again)) >= before, "what was promised"

    file.full = False
    await until(lambda: len(told) == count - 1)
    assert journal.trouble is None
    assert told == list(range(2, count + 1))
    await journal.close()
    assert events_in(path) == [accepted(n) for n in range(1, count + 1)]


async def test_closing_while_the_tables_have_no_room_leaves_the_redo_log(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 0.0)
    monkeypatch.setattr(limits, "JOURNAL_REDO_HALF", 300)
    file, journal = opened(path)
    file.full = True
    for n in (1, 2, 3, 4):
        await written(journal, [accepted(n)])
        await until(lambda: journal.trouble is not None)
    journal.append([accepted(5)])
    journal.when_durable(lambda: None)
    await until(lambda: journal._room_wanted)
    await asyncio.wait_for(journal.close(), 10.0)
    assert "ends without its last 1 events: database or disk is full" in caplog.text
    assert events_in(path) == [accepted(n) for n in (1, 2, 3, 4)]


async def test_the_tables_have_all_soon_also_when_nothing_follows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 0.001)
    file, journal = opened(path)
    for n in range(1, 51):
        await written(journal, [accepted(n)])
    await until(lambda: file.number == 50)
    await journal.close()


async def test_tables_that_can_not_be_made_durable_end_all_promises_and_the_redo_log_keeps_what_was_promised(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_TAKE_S", 0.0)
    file, journal = opened(path)
    number = os.fstat(file._log or 0).st_ino

    def fails(descriptor: int) -> None:
        if os.fstat(descriptor).st_ino == number:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "sync_data", fails)
    await written(journal, [accepted(1)])
    await until(lambda: journal.trouble is not None)
    assert "Input/output error): check the disk, then start again" in str(journal.trouble)
    told: list[int] = []
    journal.append([accepted(2)])
    journal.when_durable(lambda: told.append(2))
    with pytest.raises(JournalError, match=r"can't be read: .*check the disk"):
        await journal.proofs("m")
    await journal.close()
    assert told == []
    assert redo_of(path).exists()
    assert events_in(path) == [accepted(1)]


async def test_a_step_that_is_too_large_is_kept_as_well_and_in_its_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "JOURNAL_REDO_HALF", 500)
    _, journal = opened(path)
    count = 0
    for size in (1, 2, 50, 1, 50, 50, 3):
        await written(journal, [accepted(count + n) for n in range(1, size + 1)])
        count += size
    left = path.parent / "left" / path.name
    left.parent.mkdir()
    for each in path.parent.glob(path.name + "*"):
        shutil.copy(each, left.parent)
    await journal.close()
    for found in (left, path):
        assert events_in(found) == [accepted(n) for n in range(1, count + 1)]


def test_parts_are_what_was_packed() -> None:
    events: list[Event] = [accepted(1), Signed("m", {"a": [1, 2]}, {"b": {"c": "d"}})]
    assert parts(pack(events)) == [pack(event) for event in events]
    for wrong in (b"", pack(accepted(1)), pack(events)[:-1], pack(events) + b"\0"):
        with pytest.raises(JournalError, match="no events"):
            parts(wrong)
