"""What a peer remembers of one market: its orders, also closed ones for a while, and the newest trades.

IO-free and bounded. Closed orders are swept by count and age, oldest first. Trades are also the answers to
repeated confirmations, so one leaves the memory only when the archive has it; without an archive it is
forgotten, and :attr:`Ledger.forgotten` says what can't be answered any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from itertools import islice
from sys import intern
from typing import Protocol

from . import limits
from .errors import UnknownOrderError
from .events import Signed
from .model import Order, OrderStatus
from .trade import Trade


class Archive(Protocol):
    """Where trades are that have left the memory."""

    def trades_of_match(self, match_id: str) -> Sequence[Trade]:
        """All of that id, whoever's, in order of execution. Raises JournalError."""

    def proofs(self, match_id: str) -> Sequence[Signed]:
        """What was signed about matches of that id, whoever's. Raises JournalError."""


class Ledger:
    """Orders by id in order of arrival, trades in order of execution."""

    def __init__(self, peer: str) -> None:
        self._peer = peer
        self._orders: dict[str, Order] = {}
        self._by_client_id: dict[tuple[str, str], str] = {}
        self._submitted: dict[str, tuple[int, int]] = {}
        self._closed: deque[tuple[float, str]] = deque()
        self._trades: deque[Trade] = deque()
        self._by_match: dict[tuple[str, str], list[Trade]] = {}
        self._taker_keys: dict[tuple[str, str], str] = {}
        self._by_order: dict[str, Trade | deque[Trade]] = {}  # most have one
        self._archive: Archive | None = None
        self._trades_in_memory = limits.TRADES_WITHOUT_JOURNAL
        self.trade_count = 0
        """Trades executed so far."""
        self.cross_peer_trades = 0
        """Of these, with other peers."""

    # -- orders ------------------------------------------------------------------------------------------

    def add_order(self, order: Order, submitted: tuple[int, int] | None = None) -> None:
        """``submitted``: its price and quantity at first, if they were others."""
        self._orders[order.id] = order
        if submitted is not None:
            self._submitted[order.id] = submitted
        if order.client_order_id is not None:
            self._by_client_id[order.owner, order.client_order_id] = order.id

    def amended(self, order: Order, price: int, quantity: int) -> None:
        """``order`` had this price and quantity until now."""
        self._submitted.setdefault(order.id, (price, quantity))

    def was_amended(self, order: Order) -> bool:
        """Whether its price or quantity has been another one."""
        return order.id in self._submitted

    def same(self, known: Order, order: Order) -> bool:
        """Whether ``order``, new from a client, is what ``known`` was when it was submitted."""
        price, quantity = self._submitted.get(known.id, (known.price, known.quantity))
        alike = (known.side, known.terms, quantity) == (order.side, order.terms, order.quantity)
        return alike and (known.terms.market or price == order.price)

    def knows(self, id: str) -> bool:
        return id in self._orders

    def order(self, id: str) -> Order:
        """Raises UnknownOrderError."""
        try:
            return self._orders[id]
        except KeyError:
            raise UnknownOrderError(f"no order {id[: limits.NAME_LENGTH]!r} here") from None

    def order_of_client(self, owner: str, client_order_id: str) -> Order | None:
        id = self._by_client_id.get((owner, client_order_id))
        return None if id is None else self._orders[id]

    def orders(
        self, statuses: Collection[OrderStatus] | None, after: int, limit: int, owner: str | None = None
    ) -> tuple[list[Order], int | None]:
        """One page of orders in order of arrival.

        Args:
            statuses: Only orders of one of these; None: all.
            after: The ``sequence`` that the page before ended with; 0: from the start.
            limit: Rows at the most.
            owner: Only orders of this one; None: of all.

        Returns:
            The rows, and what to pass as ``after`` for the next page (None: this was the last).
        """
        chosen = (
            order
            for order in self._orders.values()
            if order.sequence > after
            and (owner is None or order.owner == owner)
            and (statuses is None or order.status in statuses)
        )
        page = list(islice(chosen, limit + 1))
        return page[:limit], page[limit - 1].sequence if len(page) > limit else None

    def closed(self, order: Order, now: float) -> None:
        """``order`` has just closed; it can be asked for until :meth:`sweep` takes it."""
        self._closed.append((now, order.id))

    def sweep(self, now: float, most: int = limits.CLOSED_ORDERS) -> int:
        """Forget closed orders beyond the bounds in age and count, so many at the most. Returns how many."""
        swept = 0
        while self._closed and swept < most:
            closed, id = self._closed[0]
            if now - closed < limits.CLOSED_ORDER_AGE_S and len(self._closed) <= limits.CLOSED_ORDERS:
                break
            self._closed.popleft()
            order = self._orders.pop(id)
            if order.client_order_id is not None:
                named = order.owner, order.client_order_id
                if self._by_client_id.get(named) == id:  # else it names a newer quote
                    del self._by_client_id[named]
            self._by_order.pop(id, None)
            self._submitted.pop(id, None)
            swept += 1
        return swept

    # -- trades ------------------------------------------------------------------------------------------

    def archive_in(self, archive: Archive, *, in_memory: int = limits.TRADES_IN_MEMORY) -> None:
        """Keep only the newest ``in_memory`` trades, since ``archive`` has the older ones."""
        self._archive, self._trades_in_memory = archive, in_memory

    def resume(self, trade_count: int, cross_peer_trades: int, newest: list[Trade]) -> None:
        """Begin with the trades of an earlier process, of which the archive has all but the ``newest``."""
        self.trade_count, self.cross_peer_trades = trade_count, cross_peer_trades
        self.add_trades(newest)

    def add_trades(self, trades: list[Trade], taker_key: str | None = None) -> None:
        """Add ``trades``, all those of a match at once; ``taker_key`` is its taker's, where that signs."""
        for trade in trades:
            self._trades.append(trade)
            self.trade_count += 1
            maker, taker = trade.maker_peer, trade.taker_peer
            self.cross_peer_trades += maker != taker
            match = taker, trade.match_id
            of_match = self._by_match.get(match)
            if of_match is None:
                self._by_match[match] = [trade]
                if taker_key is not None:
                    self._taker_keys[match] = intern(taker_key)
            else:
                of_match.append(trade)
            if maker == self._peer:
                self._add_to_order(trade.maker_order_id, trade)
            if taker == self._peer:
                self._add_to_order(trade.taker_order_id, trade)

    def _add_to_order(self, order_id: str, trade: Trade) -> None:
        of_order = self._by_order.get(order_id)
        if of_order is None:
            self._by_order[order_id] = trade
        elif isinstance(of_order, Trade):
            self._by_order[order_id] = deque((of_order, trade))
        else:
            of_order.append(trade)

    def drop_trades(self, upto: int) -> None:
        """Drop the oldest of what is in excess, whole matches only.

        Args:
            upto: So many trades, from the first, are in the archive, if there is one.
        """
        last = min(upto, self.dropped + self.excess)
        while self.dropped < last:
            oldest = self._trades[0]
            name = oldest.taker_peer, oldest.match_id
            self._taker_keys.pop(name, None)
            of_match = self._by_match.pop(name)
            for index, trade in enumerate(of_match):
                if trade is not self._trades[0]:
                    self._by_match[name] = of_match[index:]  # its taker has used the id again, much later
                    break
                self._trades.popleft()
                for order_id in trade.orders_of(self._peer):
                    of_order = self._by_order.get(order_id)
                    if of_order is None:
                        continue  # its order has been swept
                    if not isinstance(of_order, Trade):
                        of_order.popleft()
                    if isinstance(of_order, Trade) or not of_order:
                        del self._by_order[order_id]

    @property
    def excess(self) -> int:
        """How many trades are in memory beyond what is to be."""
        return max(0, len(self._trades) - self._trades_in_memory)

    @property
    def dropped(self) -> int:
        """How many trades, from the first, are no longer in memory."""
        return self.trade_count - len(self._trades)

    @property
    def forgotten(self) -> int:
        """How many trades, from the first, nothing is known of any more."""
        return self.dropped if self._archive is None else 0

    def trades_of_match(self, taker_peer: str, match_id: str) -> Sequence[Trade]:
        """Those in memory. Match ids are their taker's: another peer's match of that id is another one."""
        return self._by_match.get((taker_peer, match_id), ())

    def archived_match(self, taker_peer: str, match_id: str) -> Sequence[Trade]:
        """As :meth:`trades_of_match`, from the archive. Raises JournalError."""
        if self._archive is None or not self.dropped:
            return ()
        return [trade for trade in self._archive.trades_of_match(match_id) if trade.taker_peer == taker_peer]

    def taker_key(self, taker_peer: str, match_id: str) -> str | None:
        """The key that has signed a match of ours as its taker; None: nobody has, or there is no such match.
        Raises JournalError."""
        key = self._taker_keys.get((taker_peer, match_id))
        if key is None and self._archive is not None:  # it may be from before a restart
            proofs = self._archive.proofs(match_id)
            key = next((p.request["key"] for p in proofs if p.request["from"] == taker_peer), None)
        return key

    def trades_of_order(self, order_id: str) -> list[Trade]:
        """Those in memory: all of them where their quantities add up to what is filled of the order."""
        of_order = self._by_order.get(order_id, ())
        return [of_order] if isinstance(of_order, Trade) else list(of_order)

    def trades(self, after: int, limit: int) -> list[Trade]:
        """At most ``limit`` trades in order of execution, from the one that ``after`` others come before,
        which must not have been dropped."""
        start = after - self.dropped
        return list(islice(self._trades, start, start + limit))

    @property
    def order_count(self) -> int:
        """Orders that can be asked for."""
        return len(self._orders)
