"""Announces and puts on their way to several nodes, and who would take the next one. IO-free."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .bounds import PATIENCE_FOUND_S, TABLE_MAX_AGE_S, TABLES_MAX
from .krpc import Address
from .routing import Routing
from .transactions import Reply, Transactions

#: nodes and their write tokens
Holders = list[tuple[Address, bytes]]


@dataclass
class StoreReport:
    """What became of an announce or a put at the nodes that were asked."""

    asked: int = 0
    stored: int = 0
    #: code and text of each refusal
    refusals: list[tuple[int, str]] = field(default_factory=list)

    @property
    def silent(self) -> int:
        return self.asked - self.stored - len(self.refusals)


class Store:
    """Counts the outcomes of ``asked`` queries; ``done`` gets the report of all, at once when there are
    none. While it is not finished it is one of the ``waiting``.
    """

    __slots__ = ("_began", "_done", "_missing", "_report", "_waiting")

    def __init__(
        self, asked: int, now: float, waiting: dict[Store, None], done: Callable[[StoreReport], None]
    ) -> None:
        self._report = StoreReport(asked)
        self._missing = asked
        self._began = now
        self._done = done
        self._waiting = waiting
        if asked:
            waiting[self] = None
        else:
            done(self._report)

    def told(self, context: Any, reply: Reply | None, error: tuple[int, str] | None) -> None:
        """One outcome, as Transactions reports it."""
        if not self._missing:
            return
        if reply is not None:
            self._report.stored += 1
        elif error is not None:
            self._report.refusals.append(error)
        self._missing -= 1
        if not self._missing:
            self._finish()

    def hurry(self, now: float) -> None:
        """Stop waiting for the silent when somebody has stored it."""
        if self._missing and self._report.stored and now - self._began >= PATIENCE_FOUND_S:
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
        self.store(holders, b"announce_peer", args, done)

    def store(
        self,
        holders: Holders,
        method: bytes,
        args: dict[bytes, Any],
        done: Callable[[StoreReport], None],
    ) -> None:
        store = Store(len(holders), self._clock(), self._under_way, done)
        for address, token in holders:
            self._transactions.query(address, method, {**args, b"token": token}, store.told, None)

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
