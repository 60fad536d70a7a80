"""Trades leave the memory, and answers stay the same: told from the archive, or not at all."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orderbook import limits
from orderbook.effects import Confirm, DropTrades, Traded
from orderbook.envelopes import plain
from orderbook.errors import JournalError, ProtocolError
from orderbook.events import Signed
from orderbook.ledger import Ledger
from orderbook.maker import LOCK_MARK
from orderbook.model import Order
from orderbook.trade import Trade
from tests.unit.orderbook.negotiators import Clock, Peer, confirmed, offered, only


def trade(match_id: str, *, maker_order: str = "m", taker: str = "taker", n: int = 0) -> Trade:
    return Trade(match_id, "SIM", 100, 1, maker_order, f"t{n}", "maker", taker, n)


class Kept:
    """An archive of all trades, which nobody has signed."""

    def __init__(self, trades: Sequence[Trade]):
        self.all = list(trades)

    def proofs(self, match_id: str) -> list[Signed]:
        return []

    def trades_of_match(self, match_id: str) -> list[Trade]:
        return [trade for trade in self.all if trade.match_id == match_id]


def test_only_whole_matches_that_are_archived_leave() -> None:
    trades = [trade("a", n=1), trade("a", n=2), trade("b", n=3), trade("c", n=4), trade("c", n=5)]
    ledger = Ledger("maker")
    ledger.archive_in(Kept(trades), in_memory=2)
    for match_id in "abc":
        ledger.add_trades([each for each in trades if each.match_id == match_id])
    ledger.drop_trades(0)
    assert (ledger.excess, ledger.dropped, ledger.trade_count) == (3, 0, 5)
    ledger.drop_trades(1)
    assert ledger.dropped == 2, "half a match answers nothing"
    assert ledger.trades(2, 10) == trades[2:]
    ledger.drop_trades(5)
    assert (ledger.excess, ledger.dropped, ledger.forgotten) == (0, 3, 0)
    assert ledger.trades_of_match("taker", "a") == ()
    assert ledger.archived_match("taker", "a") == trades[:2]
    assert ledger.archived_match("another", "a") == [], "match ids are their taker's"
    assert ledger.trades_of_order("m") == trades[3:]
    assert ledger.trades(3, 1) == trades[3:4]


def test_an_id_that_a_taker_uses_again_costs_no_other_trade_its_place() -> None:
    """It can once the first match has left the memory; after a restart the newest trades may have both."""
    trades = [trade("a", n=1), trade("b", n=2), trade("a", n=3), trade("c", n=4)]
    ledger = Ledger("maker")
    ledger.archive_in(Kept(trades), in_memory=0)
    ledger.resume(0, 0, trades)
    for dropped in range(1, 5):
        ledger.drop_trades(dropped)
        assert ledger.trades(dropped, 9) == trades[dropped:]
    assert not ledger._by_match


def test_what_is_swept_and_dropped_leaves_nothing_behind() -> None:
    ledger = Ledger("maker")
    ledger.archive_in(Kept([]), in_memory=3)
    for n in range(1_000):
        ledger.add_trades([trade(f"x{n}", maker_order=f"o{n}")], "a key")
        ledger.drop_trades(ledger.trade_count)
    held = (ledger._trades, ledger._by_match, ledger._by_order, ledger._taker_keys)
    assert [len(container) for container in held] == [3, 3, 3, 3]


def traded(maker: Peer, taker: Peer, quantity: int) -> Confirm:
    """The confirmation of a match of the two, which has been executed and answered."""
    _, announce, offer = offered(taker, maker, "buy", 100, quantity)
    confirm = confirmed(taker, announce, offer)
    taker.match_answered(confirm.match_id, maker.answer(confirm))
    return confirm


@pytest.fixture
def maker() -> Peer:
    peer = Peer("maker", Clock())
    peer.place("sell", 100, 1_000, owner="bob")
    return peer


@pytest.fixture
def taker() -> Peer:
    return Peer("taker", Clock(), "maker")


def test_a_repeated_confirmation_of_long_ago_is_answered_from_the_archive(maker: Peer, taker: Peer) -> None:
    ledger = maker.market.ledger
    confirms = [traded(maker, taker, n) for n in range(1, 6)]
    answers = [maker.answer(confirm) for confirm in confirms]
    ledger.archive_in(Kept(ledger.trades(0, 100)), in_memory=1)
    ledger.drop_trades(4)
    assert ledger.dropped == 4
    assert [maker.answer(confirm) for confirm in confirms] == answers
    stolen = {**plain(confirms[0].payload), "from": "thief"}
    assert maker.told(stolen)["status"] == "rejected"


def test_an_archive_that_can_not_be_read_answers_nothing(maker: Peer, taker: Peer) -> None:
    class Damaged(Kept):
        def trades_of_match(self, match_id: str) -> list[Trade]:
            raise JournalError("it is damaged")

    confirm = traded(maker, taker, 1)
    traded(maker, taker, 1)
    maker.market.ledger.archive_in(Damaged([]), in_memory=1)
    maker.market.ledger.drop_trades(1)
    with pytest.raises(JournalError):
        maker.answer(confirm)


def test_without_a_journal_what_is_forgotten_is_neither_confirmed_nor_denied(
    maker: Peer, taker: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "TRADES_WITHOUT_JOURNAL", 2)
    ledger = maker.market.ledger
    ledger._trades_in_memory = 2
    old, *_, new = [traded(maker, taker, 1) for _ in range(5)]
    answer = maker.answer(new)
    clock = maker.market.clock
    assert isinstance(clock, Clock)
    clock.now += 2
    ledger.drop_trades(only(maker.tick(), DropTrades).upto)
    assert (ledger.dropped, ledger.forgotten, ledger.excess) == (3, 3, 0)

    with pytest.raises(ProtocolError, match="can tell of"):
        maker.answer(old)
    assert maker.answer(new) == answer
    _, announce, offer = offered(taker, maker, "buy", 100, 1)
    late = confirmed(taker, announce, offer)
    clock.now += limits.LEASE_S
    maker.tick()
    assert maker.answer(late)["status"] == "rejected", "its lock is younger than all that is forgotten"
    effects = taker.match_failed(late.match_id)
    assert not [effect for effect in effects if isinstance(effect, Traded)]


@pytest.mark.parametrize("lock_id", ["x", "x@", "x@y", "x@-1", "x@" + "9" * 30, "@", "x@٣", "x@²"])
def test_a_lock_id_that_no_peer_has_made_is_refused(maker: Peer, taker: Peer, lock_id: str) -> None:
    maker.market.ledger._trades_in_memory = 0
    traded(maker, taker, 1)
    maker.market.ledger.drop_trades(1)
    fill = {"order_id": "o", "price": "100", "quantity": "1"}
    match = maker.envelope("CrossPeerMatch", "taker", match_id="new", lock_id=lock_id, fills=[fill])
    assert maker.told(match)["status"] == "rejected"
    assert LOCK_MARK == "@"


# -- closed orders -------------------------------------------------------------------------------------


def closed_order(maker: Peer, name: str) -> Order:
    order, _ = maker.place("sell", 100, 1, client_order_id=name)
    maker.cancel(order.id)
    return order


def test_a_closed_order_can_be_asked_for_until_it_is_old() -> None:
    clock = Clock()
    maker = Peer("maker", clock)
    ledger, order = maker.market.ledger, closed_order(maker, "mine")
    resting, _ = maker.place("sell", 100, 1)
    clock.now += limits.CLOSED_ORDER_AGE_S - 1
    assert ledger.sweep(clock.now) == 0
    assert ledger.order(order.id) is order
    clock.now += 1
    assert ledger.sweep(clock.now) == 1
    assert not ledger.knows(order.id)
    assert ledger.order_of_client("ann", "mine") is None
    assert ledger.orders(None, 0, 9)[0] == [resting], "what is live stays"


def test_what_has_closed_long_ago_is_forgotten_little_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(limits, "ORDERS_SWEPT", 3)
    maker = Peer("maker", clock)
    for n in range(7):
        closed_order(maker, f"o{n}")
    clock.now += limits.CLOSED_ORDER_AGE_S
    left = []
    for _ in range(3):  # in one instant: they follow each other, and other things may come in between
        maker.tick()
        assert maker.next_due() is not None
        left.append(maker.market.ledger.order_count)
    assert left == [4, 1, 0]


def test_no_more_closed_orders_are_kept_than_there_may_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(limits, "CLOSED_ORDERS", 3)
    maker = Peer("maker", clock)
    orders = [closed_order(maker, f"o{n}") for n in range(5)]
    assert maker.market.ledger.sweep(clock.now) == 2
    assert maker.market.ledger.orders(None, 0, 9)[0] == orders[2:], "the oldest go"
