"""Announces and puts on their way to several nodes, and who would take the next one. IO-free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .bounds import PATIENCE_FOUND_S, TABLE_MAX_AGE_S, TABLES_MAX
from .items import Item
from .krpc import Address, ErrorCode
from .routing import Routing
from .transactions import Reply, Transactions

#: nodes and their write tokens
Holders = list[tuple[Address, bytes]]


@dataclass
class StoreReport:
    """What became of an announce or a put at the nodes that were to store it."""

    asked: int = 0
    stored: int = 0
    #: code and text of each refusal
    refusals: list[tuple[int, str]] = field(default_factory=list)
    #: whether it was to replace a certain version and no other
    swap: bool = False

    @property
    def silent(self) -> int:
        return self.asked - self.stored - len(self.refusals)

    @property
    def taken(self) -> bool:
        """Whether it counts as stored: by one node at least.

        Of two swaps at the same time each may find nodes that have not heard of the other. So a swap must be
        stored by twice as many as refuse it because of its version: one of two at most is, as long as they
        have most of their nodes in common.
        """
        if not self.swap:
            return self.stored > 0
        clashes = sum(code in (ErrorCode.CAS_MISMATCH, ErrorCode.SEQ_TOO_OLD) for code, _ in self.refusals)
        return self.stored > 0 and self.stored >= 2 * clashes


class Store:
    """Adds the outcomes of ``count`` queries to a report; ``done`` gets it when all are known, at once when
    there are none. While it is not finished it is one of the ``waiting``.
    """

    __slots__ = ("_began", "_done", "_elsewhere", "_missing", "_report", "_waiting")

    def __init__(
        self,
        report: StoreReport,
        count: int,
        now: float,
        waiting: dict[Store, None],
        done: Callable[[StoreReport], None],
    ) -> None:
        report.asked += count
        self._report = report
        self._missing = count
        self._elsewhere = False
        self._began = now
        self._done = done
        self._waiting = waiting
        if count:
            waiting[self] = None
        else:
            done(report)

    def told(self, context: Any, reply: Reply | None, error: tuple[int, str] | None) -> None:
        """One outcome, as Transactions reports it."""
        if not self._missing:
            return
        if reply is not None:
            self._elsewhere = True
            self._report.stored += 1
        elif error is not None:
            self._report.refusals.append(error)
        self._missing -= 1
        if not self._missing:
            self._finish()

    def hurry(self, now: float) -> None:
        """Stop waiting for the silent when another node has stored it."""
        if self._missing and self._elsewhere and now - self._began >= PATIENCE_FOUND_S:
            self._missing = 0
            self._finish()

    def _finish(self) -> None:
        del self._waiting[self]
        self._done(self._report)


class Storing:
    """Sends announces and puts to their holders; each is reported once."""

    def __init__(self, routing: Routing, transactions: Transactions, clock: Callable[[], float]) -> None:
        self._routing = routing
        self._transactions = transactions
        self._clock = clock
        self._under_way: dict[Store, None] = {}

    def announce(self, holders: Holders, name: bytes, port: int, done: Callable[[StoreReport], None]) -> None:
        args = {b"id": self._routing.own_id, b"implied_port": 0, b"info_hash": name, b"port": port}
        store = Store(StoreReport(), len(holders), self._clock(), self._under_way, done)
        for address, token in holders:
            self._transactions.query(address, b"announce_peer", {**args, b"token": token}, store.told, None)

    def put(
        self,
        holders: Holders,
        item: Item,
        report: StoreReport,
        done: Callable[[StoreReport], None],
        versions: Mapping[Address, int] = MappingProxyType({}),
    ) -> None:
        """Put an item there, and add to a report what becomes of it. ``versions`` are those that it may
        replace: a node that holds another one refuses (``cas``).
        """
        args: dict[bytes, Any] = {b"id": self._routing.own_id, b"v": item.v}
        if item.mutable:
            args |= {b"k": item.k, b"seq": item.seq, b"sig": item.sig}
            if item.salt:
                args[b"salt"] = item.salt
        store = Store(report, len(holders), self._clock(), self._under_way, done)
        for address, token in holders:
            version = versions.get(address)
            more = {b"token": token} if version is None else {b"token": token, b"cas": version}
            # A version that comes twice is refused the second time.
            self._transactions.query(
                address, b"put", {**args, **more}, store.told, None, resend=not item.mutable
            )

    def hurry(self, now: float) -> None:
        """End the wait for the silent where somebody has stored it."""
        for store in list(self._under_way):
            store.hurry(now)


class HolderCache:
    """Where names were announced the last time, so that the next announce needs no walk.

    An entry lives as long as tokens do. One that is empty is not kept: the announce after it walks again,
    unlike a Node Grape's, which then fails for five minutes.
    """

    def __init__(self, max_names: int = TABLES_MAX) -> None:
        self._max_names = max_names
        self._names: OrderedDict[bytes, tuple[float, Holders]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def keep(self, name: bytes, holders: Holders, now: float) -> None:
        self._names.pop(name, None)
        if holders:
            self._names[name] = now + TABLE_MAX_AGE_S, holders
            if len(self._names) > self._max_names:
                self._names.popitem(last=False)

    def get(self, name: bytes, now: float) -> Holders:
        """The holders of a name; none when they are not known, or no longer good."""
        deadline, holders = self._names.get(name, (0.0, []))
        return holders if now < deadline else []
