"""Check the books of all peers against each other, from outside: from nothing but what their client APIs say.

Pure: :func:`check` takes one :class:`Snapshot` per peer, taken when the network was quiet, and returns what
does not hold. Nothing of the peers' own code for amounts is used, so that a fault there is not repeated here:
amounts are decimals, and an operation that would round one raises.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext
from typing import Any, NamedTuple

from .. import limits
from ..messages import TradeRecord
from ..records import MarketHealth, OrderRecord

RULES = {
    "reachable": "every peer that a trade names was asked",
    "healthy": "every peer says that it is well",
    "well_formed": "amounts are decimals; orders and trades are what and where they say",
    "conservation": "quantity = open + reserved + filled + cancelled for each order, none below zero",
    "status": "the status of each order is what its quantities say",
    "fills": "the trades of each order add up to what it says is filled",
    "pairs": "of two orders of which one cancels the other only one has traded",
    "local_trades": "each local trade is kept once, by its own peer",
    "both_sides": "each cross-peer trade is kept once by each of its peers, alike in every field",
    "limits": "each trade is within the limits of both orders, and these are of opposite sides",
    "maker_price": "each trade is at the price of the resting order",
    "no_self_trade": "nobody has traded with themselves",
    "uncrossed": "the best open bid of all peers is below the best open ask",
    "best_prices": "each peer's best prices are those of its open orders",
    "at_rest": "no reservation is left, nothing is under way or in doubt",
}
"""What is checked, by the name that findings carry."""

_EXACT = Context(prec=200, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Sums of amounts of up to 40 characters fit in many times over; what would not fit raises."""


@dataclass(frozen=True)
class Snapshot:
    """All that one peer says of its markets.

    Attributes:
        peer: What it calls itself.
        status: How it says that it is; ``"ok"`` or what is wrong.
        markets: The figures of each.
        orders: All that it lists, live and closed.
        trades: All that it keeps.
        time_ms: When this was read, in milliseconds since the epoch.
    """

    peer: str
    status: str
    markets: Mapping[str, MarketHealth]
    orders: Sequence[OrderRecord]
    trades: Sequence[TradeRecord]
    time_ms: int


class Finding(NamedTuple):
    """Something that does not hold.

    Attributes:
        rule: A key of :data:`RULES`.
        peer: Where.
        subject: The order, trade or market.
        text: What is wrong with it.
    """

    rule: str
    peer: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject} at {self.peer}: {self.text}"


@dataclass
class Report:
    """The outcome of :func:`check`.

    Attributes:
        findings: What does not hold; empty when all is well.
        checked: By rule, how many orders, trades, markets or peers it was checked on.
        peers, orders, open_orders, local_trades, cross_peer_trades: What there was; a cross-peer trade,
            kept by two peers, counts once.
        unchecked: Trades whose orders have been swept, long after they closed: only their two sides could be
            compared.
    """

    findings: list[Finding] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(RULES, 0))
    peers: int = 0
    orders: int = 0
    open_orders: int = 0
    local_trades: int = 0
    cross_peer_trades: int = 0
    unchecked: int = 0

    @property
    def ok(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.ok,
            "peers": self.peers,
            "orders": self.orders,
            "open_orders": self.open_orders,
            "local_trades": self.local_trades,
            "cross_peer_trades": self.cross_peer_trades,
            "unchecked": self.unchecked,
            "checked": self.checked,
            "findings": [finding._asdict() for finding in self.findings],
        }

    def broken(self) -> dict[str, int]:
        """Findings by rule."""
        counts: dict[str, int] = defaultdict(int)
        for finding in self.findings:
            counts[finding.rule] += 1
        return counts


def check(snapshots: Sequence[Snapshot]) -> Report:
    """Verify every one of :data:`RULES` on the ``snapshots`` of all peers of a quiet network."""
    with localcontext(_EXACT):
        return _Check(snapshots).run()


class _Order(NamedTuple):
    """An order with its amounts as numbers."""

    record: OrderRecord
    price: Decimal | None
    quantity: Decimal
    filled: Decimal
    open: Decimal
    reserved: Decimal
    cancelled: Decimal


class _Trade(NamedTuple):
    record: TradeRecord
    price: Decimal
    quantity: Decimal


TradeName = tuple[str, str, str]
"""(match id, maker's order, taker's order): what makes a trade one."""


class _Check:
    def __init__(self, snapshots: Sequence[Snapshot]):
        self._asked = snapshots
        self._snapshots: dict[str, Snapshot] = {}
        self._report = Report(peers=len(snapshots))
        self._orders: dict[str, dict[str, _Order]] = {}
        self._trades: dict[str, list[_Trade]] = {}

    def run(self) -> Report:
        self._read()
        for snapshot in self._snapshots.values():
            self._check_healthy(snapshot)
            self._check_orders(snapshot.peer)
            self._check_at_rest(snapshot)
        self._check_trades()
        self._check_prices()
        return self._report

    def _find(self, rule: str, peer: str, subject: str, text: str) -> None:
        self._report.findings.append(Finding(rule, peer, subject, text))

    # -- reading -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        """File all orders and trades under their peer; what cannot be read is a finding and left out."""
        first_at: dict[str, str] = {}
        for snapshot in self._asked:
            peer = snapshot.peer
            if peer in self._snapshots:
                text = "was asked twice, or two peers have the same name"
                self._find("well_formed", peer, f"peer {peer}", text)
                continue
            self._snapshots[peer] = snapshot
            orders = self._orders[peer] = {}
            self._trades[peer] = []
            for record in snapshot.orders:
                if record.id in first_at:
                    text = f"is listed by {first_at[record.id]} already"
                    self._find("well_formed", peer, f"order {record.id}", text)
                    continue
                first_at[record.id] = peer
                order = self._order(peer, record)
                if order is not None:
                    orders[record.id] = order
            for trade_record in snapshot.trades:
                trade = self._trade(peer, trade_record)
                if trade is not None:
                    self._trades[peer].append(trade)

    def _order(self, peer: str, record: OrderRecord) -> _Order | None:
        self._report.checked["well_formed"] += 1
        try:
            amounts = [_number(getattr(record, name)) for name in _Order._fields[2:]]
            order = _Order(record, None if record.price is None else _number(record.price), *amounts)
        except ValueError as error:
            self._find("well_formed", peer, f"order {record.id}", str(error))
            return None
        priced = record.type == "market" if order.price is None else order.price > 0
        if record.side not in ("buy", "sell") or not priced or order.quantity <= 0:
            text = f"{record.side} {record.quantity} at {record.price} is no {record.type} order"
            self._find("well_formed", peer, f"order {record.id}", text)
            return None
        return order

    def _trade(self, peer: str, record: TradeRecord) -> _Trade | None:
        self._report.checked["well_formed"] += 1
        try:
            trade = _Trade(record, _number(record.price), _number(record.quantity))
        except ValueError as error:
            self._find("well_formed", peer, f"trade {record.match_id}", str(error))
            return None
        if trade.price <= 0 or trade.quantity <= 0:
            text = f"{record.quantity} at {record.price} is nothing"
            self._find("well_formed", peer, f"trade {record.match_id}", text)
            return None
        return trade

    # -- orders ------------------------------------------------------------------------------------------

    def _check_orders(self, peer: str) -> None:
        filled: dict[str, Decimal] = defaultdict(Decimal)
        for trade in self._trades[peer]:
            record = trade.record
            if record.maker_peer == peer:
                filled[record.maker_order_id] += trade.quantity
            if record.taker_peer == peer:
                filled[record.taker_order_id] += trade.quantity
        for id, order in self._orders[peer].items():
            self._report.orders += 1
            self._report.open_orders += order.open > 0
            self._check_order(peer, order, filled[id])
            self._check_pair(peer, order)

    def _check_order(self, peer: str, order: _Order, traded: Decimal) -> None:
        record = order.record
        checked, subject = self._report.checked, f"order {record.id}"
        parts = (order.open, order.reserved, order.filled, order.cancelled)
        checked["conservation"] += 1
        if min(parts) < 0 or sum(parts) != order.quantity:
            text = (
                f"quantity {record.quantity} is not open {record.open} + reserved {record.reserved} "
                f"+ filled {record.filled} + cancelled {record.cancelled}"
            )
            self._find("conservation", peer, subject, text)
        checked["status"] += 1
        if record.status not in _statuses(order):
            text = (
                f"is {record.status!r} with open {record.open}, reserved {record.reserved}, "
                f"filled {record.filled}, cancelled {record.cancelled}"
            )
            self._find("status", peer, subject, text)
        checked["fills"] += 1
        if traded != order.filled:
            text = f"says {record.filled} is filled, its trades add up to {traded:f}"
            self._find("fills", peer, subject, text)
        checked["at_rest"] += 1
        if order.reserved:
            self._find("at_rest", peer, subject, f"{record.reserved} of it is reserved")

    def _check_pair(self, peer: str, order: _Order) -> None:
        partner = self._orders[peer].get(order.record.partner or "")
        if partner is None:
            return  # it is none of a pair, or the other one is forgotten
        self._report.checked["pairs"] += 1
        if order.filled and partner.filled:
            text = f"has traded, and so has {partner.record.id}, the other one of its pair"
            self._find("pairs", peer, f"order {order.record.id}", text)

    def _check_healthy(self, snapshot: Snapshot) -> None:
        self._report.checked["healthy"] += 1
        if snapshot.status != "ok":
            self._find("healthy", snapshot.peer, f"peer {snapshot.peer}", f"says: {snapshot.status}")

    def _check_at_rest(self, snapshot: Snapshot) -> None:
        for market, health in snapshot.markets.items():
            self._report.checked["at_rest"] += 1
            left = {
                "reservations": health.reservations,
                "under way": health.under_way,
                "in doubt": health.in_doubt,
            }
            for name, count in left.items():
                if count:
                    self._find("at_rest", snapshot.peer, f"market {market}", f"{count} {name}")

    # -- trades ------------------------------------------------------------------------------------------

    def _check_trades(self) -> None:
        kept: dict[TradeName, list[tuple[str, _Trade]]] = defaultdict(list)
        for peer, trades in self._trades.items():
            for trade in trades:
                record = trade.record
                kept[record.match_id, record.maker_order_id, record.taker_order_id].append((peer, trade))
        unknown: set[str] = set()
        for copies in kept.values():
            record = copies[0][1].record
            subject = f"trade {record.match_id}"
            if record.maker_peer == record.taker_peer:
                self._report.local_trades += 1
                self._check_kept("local_trades", subject, copies, [record.maker_peer])
            else:
                self._report.cross_peer_trades += 1
                self._check_kept("both_sides", subject, copies, [record.maker_peer, record.taker_peer])
            unknown |= {record.maker_peer, record.taker_peer} - self._orders.keys()
            self._check_terms(subject, copies[0][1])
        self._report.checked["reachable"] += len(self._orders)
        for peer in sorted(unknown):
            text = "trades name it; ask it too (one more --api)"
            self._find("reachable", peer, f"peer {peer}", text)

    def _check_kept(
        self, rule: str, subject: str, copies: Sequence[tuple[str, _Trade]], owners: Sequence[str]
    ) -> None:
        """``copies`` are one for each of ``owners``, all alike."""
        self._report.checked[rule] += 1
        first_peer, first = copies[0]
        for peer, trade in copies[1:]:
            if differences := _differences(first.record, trade.record):
                self._find(rule, peer, subject, f"{differences}; the other value is that of {first_peer}")
        keepers = [peer for peer, _ in copies]
        for peer in dict.fromkeys(keepers):
            if peer not in owners:
                text = f"is kept here, but is between {' and '.join(owners)}"
                self._find(rule, peer, subject, text)
            if keepers.count(peer) > 1:
                self._find(rule, peer, subject, f"is kept {keepers.count(peer)} times")
        for peer in owners:
            if peer in self._orders and peer not in keepers:
                self._find(rule, peer, subject, f"is missing; {' and '.join(sorted(set(keepers)))} keeps it")

    def _check_terms(self, subject: str, trade: _Trade) -> None:
        """The trade is one that its two orders allow."""
        record = trade.record
        maker = self._order_of(subject, record, record.maker_peer, record.maker_order_id)
        taker = self._order_of(subject, record, record.taker_peer, record.taker_order_id)
        if maker is None or taker is None:
            return
        peer = record.maker_peer
        for order in (maker, taker):
            if order.record.market != record.market:
                text = f"is in {record.market}, its order {order.record.id} in {order.record.market}"
                self._find("well_formed", peer, subject, text)
        self._report.checked["limits"] += 1
        if maker.record.side == taker.record.side:
            self._find("limits", peer, subject, f"both orders {maker.record.side}")
        for order in (maker, taker):
            if order.price is None or order.record.amended:
                continue  # it takes any price, or had another one at the time
            outside = trade.price > order.price if order.record.side == "buy" else trade.price < order.price
            if outside:
                text = (
                    f"{record.price} is outside the limit {order.record.price} "
                    f"of {order.record.side} order {order.record.id}"
                )
                self._find("limits", peer, subject, text)
        self._report.checked["maker_price"] += 1
        if trade.price != maker.price and not maker.record.amended:
            text = f"{record.price} is not the maker's price {maker.record.price}"
            self._find("maker_price", peer, subject, text)
        self._report.checked["no_self_trade"] += 1
        same_peer = record.maker_peer == record.taker_peer
        if same_peer and maker.record.owner == taker.record.owner:
            self._find("no_self_trade", peer, subject, f"both orders belong to {maker.record.owner}")

    def _order_of(self, subject: str, record: TradeRecord, peer: str, order_id: str) -> _Order | None:
        """The order that a trade names; None where it cannot be had, which is a finding unless it may have
        been swept."""
        orders = self._orders.get(peer)
        if orders is None:
            return None  # its peer was not asked, which is a finding of its own
        order = orders.get(order_id)
        if order is None:
            if self._may_be_swept(peer, record):
                self._report.unchecked += 1
            else:
                self._find("fills", peer, subject, f"names order {order_id}, which is not listed")
        return order

    def _may_be_swept(self, peer: str, record: TradeRecord) -> bool:
        """Whether ``peer`` may have forgotten a closed order that traded in ``record``."""
        snapshot = self._snapshots[peer]
        old = snapshot.time_ms - record.time > limits.CLOSED_ORDER_AGE_S * 1000
        # A peer that was started again has the newest of a snapshot only.
        return old or len(snapshot.orders) >= limits.SNAPSHOT_CLOSED_ORDERS

    # -- prices ------------------------------------------------------------------------------------------

    def _check_prices(self) -> None:
        """Best prices of each peer and over all of them, but for markets that are not open."""
        overall: dict[str, list[_Best]] = defaultdict(list)
        for snapshot in self._snapshots.values():
            by_market: dict[str, list[_Order]] = defaultdict(list)
            for order in self._orders[snapshot.peer].values():
                by_market[order.record.market].append(order)
            closed = {name for name, health in snapshot.markets.items() if health.state != "open"}
            for market in sorted((by_market.keys() | snapshot.markets.keys()) - closed):
                best = _Best.of(snapshot.peer, by_market[market])
                overall[market].append(best)
                self._check_best(snapshot, market, best)
        for market, all_best in overall.items():
            self._report.checked["uncrossed"] += 1
            bids = [(best.bid, best.peer) for best in all_best if best.bid is not None]
            asks = [(best.ask, best.peer) for best in all_best if best.ask is not None]
            if bids and asks and max(bids)[0] >= min(asks)[0]:
                (bid, bidder), (ask, asker) = max(bids), min(asks)
                text = f"bid {bid:f} crosses ask {ask:f} of {asker}"
                self._find("uncrossed", bidder, f"market {market}", text)

    def _check_best(self, snapshot: Snapshot, market: str, best: _Best) -> None:
        health = snapshot.markets.get(market)
        if health is None:
            text = "has orders, but is not one of the peer's markets"
            self._find("well_formed", snapshot.peer, f"market {market}", text)
            return
        self._report.checked["best_prices"] += 1
        for name, said, found in (("bid", health.best_bid, best.bid), ("ask", health.best_ask, best.ask)):
            try:
                wrong = (None if said is None else _number(said)) != found
            except ValueError:
                wrong = True
            if wrong:
                listed = "none" if found is None else f"{found:f}"
                text = f"says its best {name} is {said or 'none'}, its best open order has {listed}"
                self._find("best_prices", snapshot.peer, f"market {market}", text)


class _Best(NamedTuple):
    """The best open prices of a peer in one market."""

    peer: str
    bid: Decimal | None
    ask: Decimal | None

    @classmethod
    def of(cls, peer: str, orders: Iterable[_Order]) -> _Best:
        in_the_market = (order for order in orders if order.record.status != "untriggered")
        open_orders = [order for order in in_the_market if order.open > 0]
        priced = [(order.record.side, order.price) for order in open_orders if order.price is not None]
        bids = [price for side, price in priced if side == "buy"]
        asks = [price for side, price in priced if side == "sell"]
        return cls(peer, max(bids, default=None), min(asks, default=None))


def _number(text: str) -> Decimal:
    """An amount. Raises ValueError with the text of a finding."""
    try:
        number = Decimal(text) if len(text) <= limits.DECIMAL_LENGTH + 1 else None
    except InvalidOperation:
        number = None
    if number is None or not number.is_finite() or "e" in text.lower():
        raise ValueError(f"{text[: limits.DECIMAL_LENGTH]!r} is no decimal amount")
    return number


def _statuses(order: _Order) -> set[str]:
    """What the status may be, going by the quantities."""
    live = "partially_filled" if order.filled else "open"
    if order.open:
        # A stop order whose price has not been reached has not traded.
        return {live} if order.filled or order.reserved else {live, "untriggered"}
    if order.reserved:
        return {live, "pending_cancel"}
    return {"cancelled" if order.cancelled else "filled"}


def _differences(one: TradeRecord, other: TradeRecord) -> str:
    """The fields that both sides keep and in which their records differ: ``price is 10.00, not 10.01``."""
    names = (name for name in TradeRecord.__struct_fields__ if getattr(one, name) != getattr(other, name))
    return ", ".join(f"{name} is {getattr(other, name)}, not {getattr(one, name)}" for name in names)
