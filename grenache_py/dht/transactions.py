"""The queries under way, and those that wait for their turn. IO-free.

A datagram that is lost must not cost the whole time limit: a query is sent again once, early.

Node matches a reply by transaction id and IP address; here the port must be right too, for a reply from
elsewhere is a guess. Ids are two random bytes, because two bytes are all that Node reads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from .bounds import (
    IN_FLIGHT_PER_ADDRESS,
    PENDING_MAX,
    QUERY_TIMEOUT_S,
    QUEUED_MAX,
    RESEND_BURST,
    RESEND_MIN_S,
    RESEND_SHARE,
    RESEND_TICK_S,
)
from .counters import Counters
from .krpc import Address, encode_query
from .roundtrips import RoundTrips

Reply = dict[bytes, Any]
#: called once with the context of the query and its reply; or with no reply and the error that came instead,
#: ``None`` when nothing came
Done = Callable[[Any, Reply | None, tuple[int, str] | None], None]
_Query = tuple[Address, bytes, dict[bytes, Any], Done, Any, bool]


class Transactions:
    """Sends queries, a bounded number at once to each address, and finds the query that a reply belongs
    to.
    """

    def __init__(
        self,
        send: Callable[[bytes, Address], None],
        clock: Callable[[], float],
        call_later: Callable[[float, Callable[[], None]], object],
        random: Random,
        counters: Counters,
    ) -> None:
        self._send = send
        self._clock = clock
        self._call_later = call_later
        self._random_bits = random.getrandbits
        self._counters = counters
        # In the order they were sent first, which with one time limit for all is the order of expiry. At the
        # end is the datagram, as long as it may be sent again.
        self._pending: dict[bytes, tuple[Address, float, Done, Any, bytes | None]] = {}
        self._round_trips = RoundTrips()
        # How many may be sent again, and whether it will be looked whether any should.
        self._resends = RESEND_BURST
        self._looking = False
        self._in_flight: dict[Address, int] = {}
        self._queues: dict[Address, deque[_Query]] = {}
        self._queued = 0
        # Never sent, for want of room; they fail at the next tick, not within the call that made them.
        self._doomed: list[_Query] = []

    def __len__(self) -> int:
        """How many queries are under way."""
        return len(self._pending)

    def expects(self, address: Address) -> bool:
        """Whether a query to that address is under way."""
        return address in self._in_flight

    def query(
        self,
        address: Address,
        method: bytes,
        args: dict[bytes, Any],
        done: Done,
        context: Any,
        resend: bool = True,
    ) -> None:
        """Send a query, or queue it when many are under way there already.

        ``resend`` is false where a second datagram is of no use, or would be answered otherwise than the
        first.
        """
        in_flight = self._in_flight
        count = in_flight.get(address, 0)
        if count < IN_FLIGHT_PER_ADDRESS and len(self._pending) < PENDING_MAX:
            in_flight[address] = count + 1
            self._transmit(address, method, args, done, context, resend)
        elif count and self._queued < QUEUED_MAX:
            self._queues.setdefault(address, deque()).append((address, method, args, done, context, resend))
            self._queued += 1
        else:
            self._doomed.append((address, method, args, done, context, resend))

    def give_up(self, address: Address) -> None:
        """Nobody answers there: what waits for its turn is never sent."""
        queue = self._queues.pop(address, None)
        if queue is not None:
            self._queued -= len(queue)
            self._doomed.extend(queue)

    def take(self, transaction_id: Any, address: Address, now: float) -> tuple[Done, Any] | None:
        """End the query that this id and address answer; ``None`` when there is none."""
        if type(transaction_id) is not bytes:
            return None
        key = transaction_id[:2]
        pending = self._pending.get(key)
        if pending is None or pending[0] != address:
            return None
        del self._pending[key]
        _, sent, done, context, datagram = pending
        if datagram is not None:
            self._round_trips.measured(address, now - sent)
        in_flight = self._in_flight
        if in_flight[address] == 1 and not self._queued:
            del in_flight[address]
        else:
            self._release(address)
        return done, context

    def expire(self, now: float) -> list[tuple[Address, Done, Any]]:
        """End, without calling anything, the queries that have waited too long, oldest first."""
        expired = []
        while self._pending:
            key = next(iter(self._pending))
            address, sent, done, context, _ = self._pending[key]
            if now - sent < QUERY_TIMEOUT_S:
                break
            del self._pending[key]
            self._release(address)
            expired.append((address, done, context))
        return expired

    def take_doomed(self) -> list[tuple[Done, Any]]:
        """The queries that were never sent."""
        doomed, self._doomed = self._doomed, []
        return [(done, context) for _, _, _, done, context, _ in doomed]

    def _transmit(
        self,
        address: Address,
        method: bytes,
        args: dict[bytes, Any],
        done: Done,
        context: Any,
        resend: bool,
    ) -> None:
        pending = self._pending
        number = self._random_bits(16)
        key = number.to_bytes(2, "big")
        while key in pending or not number:  # 0 never matches in Node
            number = (number + 1) & 0xFFFF
            key = number.to_bytes(2, "big")
        datagram = encode_query(key, method, args)
        pending[key] = address, self._clock(), done, context, datagram if resend else None
        self._resends += RESEND_SHARE
        if not self._looking:
            self._looking = True
            self._call_later(RESEND_MIN_S, self._look)
        self._send(datagram, address)

    def _look(self) -> None:
        """Send again what was not answered in the time that its node needs."""
        self._resends = min(self._resends, RESEND_BURST)
        now = self._clock()
        due = []
        for key, (address, sent, _, _, datagram) in self._pending.items():
            if now - sent < RESEND_MIN_S:
                break
            if datagram is not None and now - sent >= self._round_trips.timeout_s(address):
                due.append(key)
        for key in due[: int(self._resends)]:
            address, sent, done, context, datagram = self._pending[key]
            self._pending[key] = address, sent, done, context, None
            if datagram is not None:
                self._resends -= 1.0
                self._counters.resent += 1
                self._round_trips.resent(address)
                self._send(datagram, address)
        self._looking = bool(self._pending)
        if self._looking:
            self._call_later(RESEND_TICK_S, self._look)

    def _release(self, address: Address) -> None:
        """A query to this address has ended: the next one that waits for it may go."""
        if self._queued:
            queue = self._queues.get(address)
            if queue is not None:
                query = queue.popleft()
                self._queued -= 1
                if not queue:
                    del self._queues[address]
                self._transmit(*query)
                return
        in_flight = self._in_flight
        count = in_flight.pop(address) - 1
        if count:
            in_flight[address] = count

    def check(self) -> None:
        """Assert what always holds; for tests."""
        per_address: dict[Address, int] = {}
        for address, _, _, _, _ in self._pending.values():
            per_address[address] = per_address.get(address, 0) + 1
        assert per_address == self._in_flight
        assert all(count <= IN_FLIGHT_PER_ADDRESS for count in per_address.values())
        assert self._queued == sum(map(len, self._queues.values()))
        assert all(self._queues.values())
        assert set(self._queues) <= set(self._in_flight)
