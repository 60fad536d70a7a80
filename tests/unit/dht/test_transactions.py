"""Queries under way: matching, time limits, queues."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from grenache_py.dht import bounds, transactions
from grenache_py.dht.counters import Counters
from grenache_py.dht.krpc import Address, decode
from grenache_py.dht.roundtrips import RoundTrips
from grenache_py.dht.transactions import Transactions

A, B = ("10.0.0.1", 4000), ("10.0.0.2", 4000)


class Wire:
    """What was sent, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[bytes, Address]] = []
        self.counters = Counters()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.transactions = Transactions(
            lambda datagram, address: self.sent.append((decode(datagram)[b"t"], address)),
            lambda: self.now,
            lambda delay_s, callback: self.timers.append((self.now + delay_s, callback)),
            Random(1),
            self.counters,
        )

    def query(self, address: Address, context: Any = None, resend: bool = True) -> bytes:
        """Returns the transaction id."""
        self.transactions.query(address, b"ping", {b"id": b"x" * 20}, self.done, context, resend)
        self.transactions.check()
        return self.sent[-1][0]

    def take(self, transaction_id: Any, address: Address) -> Any:
        return self.transactions.take(transaction_id, address, self.now)

    def run(self, seconds: float) -> list[tuple[bytes, Address]]:
        """Let time pass; returns what was sent meanwhile."""
        before = len(self.sent)
        end = self.now + seconds
        while self.timers and min(self.timers, key=lambda timer: timer[0])[0] <= end:
            self.timers.sort(key=lambda timer: timer[0])
            self.now, callback = self.timers.pop(0)
            callback()
            self.transactions.check()
        self.now = end
        return self.sent[before:]

    def answer_in(self, seconds: float, address: Address) -> None:
        """A query that is answered after so long, which is how this learns how long that takes."""
        transaction_id = self.query(address)
        self.run(seconds)
        assert self.take(transaction_id, address) is not None

    def done(self, context: Any, reply: Any, error: Any) -> None:
        raise AssertionError("transactions only return what they know")


def test_a_reply_is_matched_by_id_and_address_once() -> None:
    wire = Wire()
    wire.query(A, "a")
    wire.query(B, "b")
    (a, _), (b, _) = wire.sent
    assert len(a) == len(b) == 2
    take = wire.take
    assert take(a, B) is None
    assert take(a, (A[0], 4001)) is None
    for nonsense in (b"", a[:1], None, 7, [a], b"\0\0"):
        assert take(nonsense, A) is None
    assert take(a + b"more", A) == (wire.done, "a")  # Node looks at two bytes only
    assert take(a, A) is None
    assert take(b, B) == (wire.done, "b")
    assert len(wire.transactions) == 0
    wire.transactions.check()


def test_ids_are_never_shared() -> None:
    wire = Wire()
    for number in range(2000):
        wire.query((f"10.0.{number >> 8}.{number & 255}", 1))
    ids = [transaction_id for transaction_id, _ in wire.sent]
    assert len(set(ids)) == 2000


@pytest.mark.parametrize(
    ("drawn", "ids"), [(0, [b"\0\1", b"\0\2"]), (0xFFFF, [b"\xff\xff", b"\0\1", b"\0\2"])]
)
def test_no_id_is_zero(drawn: int, ids: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire()
    monkeypatch.setattr(wire.transactions, "_random_bits", lambda count: drawn)
    assert [wire.query(A) for _ in ids] == ids


def test_the_oldest_expire_first_and_only_when_their_time_is_over() -> None:
    wire = Wire()
    wire.query(A, 1)
    wire.now = 1.0
    wire.query(B, 2)
    assert wire.transactions.expire(1.9) == []
    assert [(address, context) for address, _, context in wire.transactions.expire(2.0)] == [(A, 1)]
    assert not wire.transactions.expects(A)
    assert wire.transactions.expects(B)
    assert [context for _, _, context in wire.transactions.expire(99.0)] == [2]
    wire.transactions.check()


def test_many_queries_to_one_address_wait_for_each_other() -> None:
    wire = Wire()
    limit = bounds.IN_FLIGHT_PER_ADDRESS
    for number in range(limit + 10):
        wire.query(A, number)
    wire.query(B, "other")
    assert len(wire.sent) == limit + 1
    for number in range(10):
        assert wire.take(wire.sent[number][0], A) == (wire.done, number)
        wire.transactions.check()
    assert len(wire.sent) == limit + 11
    wire.now = 10.0
    wire.query(A, "late")
    assert len(wire.sent) == limit + 11
    # The first to expire make room for it, and it has its own full time.
    expired = wire.transactions.expire(10.0)
    assert len(expired) == limit + 1
    assert [context for _, _, context in wire.transactions.expire(11.9)] == []
    assert [context for _, _, context in wire.transactions.expire(12.0)] == ["late"]


def test_what_does_not_fit_fails_later_and_in_order() -> None:
    wire = Wire()
    for number in range(bounds.IN_FLIGHT_PER_ADDRESS + bounds.QUEUED_MAX + 3):
        wire.transactions.query(A, b"ping", {}, wire.done, number)
    doomed = wire.transactions.take_doomed()
    assert [context for _, context in doomed] == [
        bounds.IN_FLIGHT_PER_ADDRESS + bounds.QUEUED_MAX + number for number in range(3)
    ]
    assert wire.transactions.take_doomed() == []
    wire.transactions.check()


def test_no_more_are_under_way_than_there_are_ids_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bounds.PENDING_MAX < 65_535
    monkeypatch.setattr(transactions, "PENDING_MAX", 100)
    wire = Wire()
    for number in range(200):
        wire.query((f"10.1.0.{number}", 1), number)
    assert len(wire.transactions) == len(wire.sent) == 100
    assert [context for _, context in wire.transactions.take_doomed()] == list(range(100, 200))


def test_who_stays_silent_is_given_up_and_holds_up_nobody_else() -> None:
    wire = Wire()
    for number in range(bounds.IN_FLIGHT_PER_ADDRESS + bounds.QUEUED_MAX):
        wire.transactions.query(A, b"ping", {}, wire.done, number)
    # A full queue is for those who have too much under way; the others do not notice.
    wire.query(B, "other")
    assert wire.take(wire.sent[-1][0], B) == (wire.done, "other")
    wire.transactions.give_up(A)
    wire.transactions.give_up(B)
    assert len(wire.transactions.take_doomed()) == bounds.QUEUED_MAX
    assert len(wire.transactions) == bounds.IN_FLIGHT_PER_ADDRESS
    wire.transactions.check()


def test_what_is_not_answered_is_sent_again_once() -> None:
    wire = Wire()
    transaction_id = wire.query(A)
    assert wire.run(bounds.RESEND_UNKNOWN_S - 0.01) == []
    assert wire.run(bounds.RESEND_TICK_S) == [(transaction_id, A)]
    assert wire.run(10.0) == []
    assert wire.counters.resent == 1
    assert [address for address, _, _ in wire.transactions.expire(wire.now)] == [A]
    wire.run(1.0)
    assert wire.timers == []  # with nothing under way nothing is looked at


def test_one_that_must_not_come_twice_is_not_sent_again() -> None:
    wire = Wire()
    wire.query(A, resend=False)
    assert wire.run(1.9) == []


def test_the_time_that_a_node_is_given_is_the_one_it_takes() -> None:
    wire = Wire()
    for _ in range(20):
        wire.answer_in(0.2, A)
        wire.answer_in(0.001, B)
    slow, quick = wire.query(A), wire.query(B)
    assert wire.run(bounds.RESEND_MIN_S + bounds.RESEND_TICK_S) == [(quick, B)]
    assert wire.run(0.15) == [(slow, A)]
    assert wire.counters.resent == 2


def test_what_was_sent_twice_teaches_nothing_and_the_next_one_has_more_time() -> None:
    wire = Wire()
    for _ in range(20):
        wire.answer_in(0.001, A)
    # The node is now far away; its answers come after the query was sent again.
    resent = []
    for _ in range(4):
        transaction_id = wire.query(A)
        resent.append(len(wire.run(0.3)))
        assert wire.take(transaction_id, A) is not None
    assert resent == [1, 1, 0, 0]


def test_a_crowd_of_the_silent_gets_no_more_than_a_share() -> None:
    wire = Wire()
    for number in range(2000):
        wire.query((f"10.0.{number >> 8}.{number & 255}", 1))
    assert len(wire.run(0.3)) == bounds.RESEND_BURST
    wire.run(10.0)
    assert wire.counters.resent == bounds.RESEND_BURST
    # Later queries earn their own share.
    wire.transactions.expire(wire.now)
    for number in range(100):
        wire.query((f"10.1.0.{number}", 1))
    wire.run(1.0)
    assert wire.counters.resent == pytest.approx(bounds.RESEND_BURST + 100 * bounds.RESEND_SHARE, abs=1)


def test_round_trips_as_rfc_6298_smoothes_them() -> None:
    trips = RoundTrips()
    assert trips.timeout_s(A) == bounds.RESEND_UNKNOWN_S
    trips.measured(A, 0.2)
    assert trips.timeout_s(A) == pytest.approx(0.2 + 4 * 0.1)
    trips.measured(A, 0.4)
    assert trips.timeout_s(A) == pytest.approx(0.225 + 4 * 0.125)
    trips.resent(A)
    assert trips.timeout_s(A) == pytest.approx(2 * 0.725)
    trips.resent(A)
    assert trips.timeout_s(A) == bounds.QUERY_TIMEOUT_S
    for _ in range(50):
        trips.measured(A, 0.0001)
    assert trips.timeout_s(A) == bounds.RESEND_MIN_S
    trips.resent(B)
    trips.measured(B, 0.2)
    assert trips.timeout_s(B) == pytest.approx(0.2 + 4 * 0.1)


def test_round_trips_are_bounded() -> None:
    trips = RoundTrips(max_addresses=2)
    for address in (A, B, ("10.0.0.3", 1)):
        trips.measured(address, 0.5)
    assert len(trips) == 2
    assert trips.timeout_s(A) == bounds.RESEND_UNKNOWN_S
