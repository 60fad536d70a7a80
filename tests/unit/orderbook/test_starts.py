"""A maker refuses only locks that its own journal would know of, had they led to a trade."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orderbook import limits
from orderbook.effects import Confirm
from orderbook.errors import JournalError, ProtocolError
from orderbook.journal.file import JournalFile
from orderbook.journal.writer import open_journal
from tests.unit.orderbook.negotiators import INSTRUMENT, Clock, Peer, confirmed, offered

# -- what a journal knows ----------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "SIM.journal"


def started(path: Path, durability: str = "full") -> list[str]:
    """The starts that a journal knows when a peer has opened it, and closed it again."""
    file, _ = open_journal(path, "alice", INSTRUMENT, durability)
    starts = file.starts
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
    assert reader.starts == second, "who only looks begins no start, and a snapshot loses none"
    reader.close()
    assert started(path, durability)[:2] == second


def test_only_the_newest_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "JOURNAL_STARTS", 3)
    lives = [started(path)[-1] for _ in range(5)]
    file = JournalFile(path)
    assert file.starts == lives[-3:]
    file.close()


def test_a_start_is_there_after_a_crash(path: Path, tmp_path: Path) -> None:
    """Also for who has the file alone: it is no longer in SQLite's log."""
    file, _ = open_journal(path, "alice", INSTRUMENT, "off")
    copy = tmp_path / "copy.journal"
    shutil.copy(path, copy)
    starts = file.starts
    file.close()
    left = JournalFile(copy)
    assert left.starts == starts != []
    left.close()


def test_journals_apart_and_copies_know_nothing_of_each_others_starts(path: Path, tmp_path: Path) -> None:
    before = started(path)
    copy = tmp_path / "copy.journal"
    shutil.copy(path, copy)
    one, other, new = started(path), started(copy), started(tmp_path / "new.journal")
    assert one[:-1] == other[:-1] == before
    assert len({one[-1], other[-1], new[-1]}) == 3


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
    assert file.starts == known
    file.close()


# -- what a maker says -------------------------------------------------------------------------------------


def maker_of(*starts: str) -> Peer:
    """A process called maker that sells 10, with a journal that knows ``starts``, or without any."""
    peer = Peer("maker", Clock())
    peer.market.starts = starts
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


@pytest.mark.parametrize("starts", [("b1",), ("a1", "b1"), ()], ids=["new", "copied before", "none"])
def test_who_has_another_journal_says_neither_yes_nor_no(taker: Peer, starts: tuple[str, ...]) -> None:
    first, second = maker_of("a1", "a2"), maker_of(*starts)
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
    before = maker_of("a1", "a2")
    confirm = asked(taker, before)
    again = maker_of("a1", "a2", "a3")
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
    assert ids == {f"0123456789abcdef.{n}" for n in (1, 2, 3)}
