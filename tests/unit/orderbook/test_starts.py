"""A maker refuses only locks that its own journal would know of, had they led to a trade."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orderbook import limits
from orderbook.effects import Confirm
from orderbook.errors import JournalError, ProtocolError
from orderbook.events import Accepted, pack
from orderbook.journal.file import JournalFile
from orderbook.journal.redo import Record
from orderbook.journal.writer import open_journal
from orderbook.starts import Starts
from tests.unit.orderbook.negotiators import INSTRUMENT, Clock, Peer, confirmed, offered

# -- what a journal knows ----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "SIM.journal"


def started(path: Path, durability: str = "full", events: int = 0) -> list[str]:
    """The starts that a journal knows when a peer has opened it, has written some events, and is stopped."""
    file, _ = open_journal(path, "alice", INSTRUMENT, durability)
    starts = list(file.starts)
    first = file.number + 1
    file.write([Accepted(f"o{n}", "owner", "buy", 100, 10, 1_000) for n in range(first, first + events)])
    if durability == "full":
        file.end_redo()
    file.close()
    return starts


@pytest.mark.parametrize("durability", ["full", "normal", "off"])
def test_each_start_has_an_id_and_the_journal_keeps_them(path: Path, durability: str) -> None:
    first = started(path, durability)
    second = started(path, durability)
    assert len(second) == len(set(second)) == 2
    assert second[:1] == first
    reader = JournalFile(path)
    reader.compact()
    assert list(reader.starts) == second, "who only looks begins no start, and a snapshot loses none"
    reader.close()
    assert started(path, durability)[:2] == second


def test_a_journal_knows_what_each_start_has_left_in_it(path: Path) -> None:
    started(path, events=3)
    started(path, events=0)
    started(path, events=2)
    file = JournalFile(path)
    assert list(file.starts.values()) == [3, 3, 5]
    file.compact()
    assert list(file.starts.values()) == [3, 3, 5]
    file.close()


def test_only_the_newest_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_STARTS", 3)
    lives = [started(path)[-1] for _ in range(5)]
    file = JournalFile(path)
    assert list(file.starts) == lives[-3:]
    file.close()


def test_a_start_is_there_after_a_crash(path: Path, tmp_path: Path) -> None:
    """Also for who has the file alone: it is no longer in SQLite's log."""
    file, _ = open_journal(path, "alice", INSTRUMENT, "off")
    copy = tmp_path / "copy.journal"
    shutil.copy(path, copy)
    starts = file.starts
    file.close()
    left = JournalFile(copy)
    assert left.starts == starts != {}
    left.close()


def test_journals_apart_and_copies_know_nothing_of_each_others_starts(path: Path, tmp_path: Path) -> None:
    before = started(path)
    copy = tmp_path / "copy.journal"
    shutil.copy(path, copy)
    one, other, new = started(path), started(copy), started(tmp_path / "new.journal")
    assert one[:-1] == other[:-1] == before
    assert len({one[-1], other[-1], new[-1]}) == 3


def test_a_copy_of_a_running_peers_journal_knows_what_it_lacks(path: Path, tmp_path: Path) -> None:
    """All but the locks between the copy and the next write."""
    file, _ = open_journal(path, "alice", INSTRUMENT, "full")
    assert file.redo is not None
    written = [file.number]
    running = Starts(list(file.starts)[-1], {}, lambda: written[-1])
    locks = []
    for n in range(1, 5):
        file.redo.append(Record(n, 1, pack([Accepted(f"o{n}", "owner", "buy", 100, 10, 1_000)])))
        written.append(n)
        locks.append(running.new_lock_id())
        if n == 2:
            for ending in "", "-wal", "-redo":
                shutil.copy(f"{path}{ending}", tmp_path / f"copy.journal{ending}")
    file.close()

    def known(path: Path) -> list[bool]:
        left, _ = open_journal(path, "alice", INSTRUMENT, "off")
        *earlier, (own, _) = left.starts.items()
        left.close()
        starts = Starts(own, dict(earlier), lambda: 0)
        return [starts.has(lock) for lock in locks]

    assert known(tmp_path / "copy.journal") == [True, True, False, False]
    assert known(path) == [True] * 4


def test_a_start_whose_promises_may_be_missing_is_not_known(path: Path, tmp_path: Path) -> None:
    before = started(path)
    file, _ = open_journal(path, "alice", INSTRUMENT, "full")
    copy = tmp_path / "copy.journal"
    shutil.copy(path, copy)  # and not its redo log
    file.close()
    with pytest.raises(JournalError, match="accept-loss"):
        JournalFile(copy)
    left = JournalFile(copy, without_redo=True)
    left.accept_loss()
    left.close()
    assert started(copy)[:-1] == before


def test_where_nothing_can_be_written_no_start_begins(path: Path) -> None:
    known = started(path)
    file = JournalFile(path)
    file._db.execute("PRAGMA query_only = ON")
    with pytest.raises(JournalError, match="can't be written"):
        file.begin_start()
    assert list(file.starts) == known
    file.close()


# -- what a maker says -------------------------------------------------------------------------------------


def maker_of(own: str | None = None, durable: int = 7, **earlier: int) -> Peer:
    """A process called maker that sells 10, with a journal of so many events, or without any."""
    peer = Peer("maker", Clock())
    peer.market.starts = None if own is None else Starts(own, earlier, lambda: durable)
    peer.place("sell", 100, 10, owner="bob")
    return peer


@pytest.fixture
def taker() -> Peer:
    return Peer("taker", Clock(), "maker")


def asked(taker: Peer, maker: Peer) -> Confirm:
    """What ``taker`` confirms of an offer of ``maker``."""
    _, announce, offer = offered(taker, maker, "buy", 100, 3)
    return confirmed(taker, announce, offer)


def other_journal(peer: Peer) -> int:
    return peer.market.counts.get("confirmation", {}).get("other_journal", 0)


@pytest.mark.parametrize(
    "second",
    [maker_of("b1"), maker_of("b1", a1=3), maker_of("b1", a1=3, a2=6), maker_of()],
    ids=["new", "copied before", "copied meanwhile", "none"],
)
def test_who_has_another_journal_says_neither_yes_nor_no(taker: Peer, second: Peer) -> None:
    first = maker_of("a2", 7, a1=3)
    confirm = asked(taker, first)
    committed = first.answer(confirm)
    assert committed["status"] == "committed"
    taker.match_failed(confirm.match_id)  # the answer is lost, and the other process is asked
    for _ in range(2):
        with pytest.raises(ProtocolError, match="another process has its name, or its journal was replaced"):
            second.answer(confirm)
        taker.match_failed(confirm.match_id)
    assert (other_journal(first), other_journal(second)) == (0, 2)
    assert taker.in_doubt == 1
    taker.match_answered(confirm.match_id, first.answer(confirm))
    assert taker.in_doubt == 0
    assert taker.market.ledger.trades(0, 10) == first.market.ledger.trades(0, 10)


def test_locks_of_earlier_starts_of_its_own_journal_are_refused(taker: Peer) -> None:
    before = maker_of("a2", 7, a1=3)
    confirm = asked(taker, before)
    again = maker_of("a3", 7, a1=3, a2=7)
    assert again.answer(confirm)["reason"].startswith("lock_gone: ")
    assert other_journal(again) == 0


def test_what_ended_with_a_process_without_a_journal_is_refused(taker: Peer) -> None:
    """Nobody will ever know more, with a journal or without: so the doubt ends."""
    for later in maker_of(), maker_of("a1"):
        confirm = asked(taker, maker_of())
        assert "." not in confirm.payload.payload.lock_id
        assert later.answer(confirm)["reason"].startswith("lock_gone: ")


def test_lock_ids_of_versions_before_starts_are_refused(taker: Peer) -> None:
    maker = maker_of("a1")
    fill = {"order_id": "o", "price": "100", "quantity": "1"}
    match = maker.envelope(
        "CrossPeerMatch", "taker", match_id="m", lock_id="0123456789abcdef-7@3", fills=[fill]
    )
    assert maker.told(match)["status"] == "rejected"


def test_ids_of_locks_are_short_and_never_the_same(taker: Peer) -> None:
    maker = maker_of("0123456789abcdef")
    ids = {asked(taker, maker).payload.payload.lock_id for _ in range(3)}
    assert ids == {f"0123456789abcdef.7.{n}" for n in (1, 2, 3)}


@pytest.mark.parametrize(
    "lock_id", ["a1.", "a1.x.1", "a1.-1.1", "a1.٣.1", "a1." + "9" * 30 + ".1", ".1.1", "."]
)
def test_ids_that_no_maker_has_made_are_no_locks_of_ours(taker: Peer, lock_id: str) -> None:
    maker = maker_of("a2", 7, a1=3)
    fill = {"order_id": "o", "price": "100", "quantity": "1"}
    with pytest.raises(ProtocolError, match="lock_id"):
        maker.told(maker.envelope("CrossPeerMatch", "taker", match_id="m", lock_id=lock_id, fills=[fill]))
