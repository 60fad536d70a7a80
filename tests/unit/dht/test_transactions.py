"""Queries under way: matching, time limits, queues."""

from __future__ import annotations

from random import Random
from typing import Any

from grenache_py.dht import bounds
from grenache_py.dht.krpc import Address, decode
from grenache_py.dht.transactions import Transactions

A, B = ("10.0.0.1", 4000), ("10.0.0.2", 4000)


class Wire:
    """What was sent, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[tuple[bytes, Address]] = []
        self.transactions = Transactions(
            lambda datagram, address: self.sent.append((decode(datagram)[b"t"], address)),
            lambda: self.now,
            Random(1),
        )

    def query(self, address: Address, context: Any = None) -> None:
        self.transactions.query(address, b"ping", {b"id": b"x" * 20}, self.done, context)
        self.transactions.check()

    def done(self, context: Any, reply: Any, error: Any) -> None:
        raise AssertionError("transactions only return what they know")


def test_a_reply_is_matched_by_id_and_address_once() -> None:
    wire = Wire()
    wire.query(A, "a")
    wire.query(B, "b")
    (a, _), (b, _) = wire.sent
    assert len(a) == len(b) == 2
    take = wire.transactions.take
    assert take(a, B) is None
    assert take(a, (A[0], 4001)) is None
    for nonsense in (b"", a[:1], None, 7, [a], b"\0\0"):
        assert take(nonsense, A) is None
    assert take(a + b"more", A) == (wire.done, "a")  # Node looks at two bytes only
    assert take(a, A) is None
    assert take(b, B) == (wire.done, "b")
    assert len(wire.transactions) == 0
    wire.transactions.check()


def test_ids_are_never_zero_and_never_shared() -> None:
    wire = Wire()
    for number in range(2000):
        wire.query((f"10.0.{number >> 8}.{number & 255}", 1))
    ids = [transaction_id for transaction_id, _ in wire.sent]
    assert len(set(ids)) == 2000
    assert b"\0\0" not in ids


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
        assert wire.transactions.take(wire.sent[number][0], A) == (wire.done, number)
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


def test_who_stays_silent_is_given_up_and_holds_up_nobody_else() -> None:
    wire = Wire()
    for number in range(bounds.IN_FLIGHT_PER_ADDRESS + bounds.QUEUED_MAX):
        wire.transactions.query(A, b"ping", {}, wire.done, number)
    # A full queue is for those who have too much under way; the others do not notice.
    wire.query(B, "other")
    assert wire.transactions.take(wire.sent[-1][0], B) == (wire.done, "other")
    wire.transactions.give_up(A)
    wire.transactions.give_up(B)
    assert len(wire.transactions.take_doomed()) == bounds.QUEUED_MAX
    assert len(wire.transactions) == bounds.IN_FLIGHT_PER_ADDRESS
    wire.transactions.check()
