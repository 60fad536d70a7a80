"""What is traded and by whom: instruments, orders, and the queue of orders at one price.

Prices and quantities are decimal strings outside and exact integers inside: a price is a count of *ticks*, a
quantity a count of *lots*. No float ever holds money. Nothing here does IO or reads a clock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import Final, Literal

from sortedcontainers import SortedKeyList

from . import limits
from .errors import InvalidFieldError
from .terms import GTC, Terms

_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", re.ASCII)


class Side(Enum):
    """The side of an order."""

    BUY = "buy"
    SELL = "sell"

    @property
    def text(self) -> Literal["buy", "sell"]:
        """Its ``value``, sooner than an enumeration gives it."""
        return "buy" if self is BUY else "sell"

    @property
    def opposite(self) -> Side:
        return SELL if self is BUY else BUY

    def crosses(self, price: int, other: int) -> bool:
        """Whether an order of this side limited at ``price`` can trade at ``other`` (both in ticks)."""
        return price >= other if self is BUY else price <= other


BUY: Final = Side.BUY
SELL: Final = Side.SELL
"""For where each order comes by: to ask an enumeration for a member takes as long as a call."""


class OrderStatus(Enum):
    """Where an order is in its life; derived from its quantities, never stored."""

    UNTRIGGERED = "untriggered"
    """A stop order that waits for its stop price."""
    OPEN = "open"
    PARTIALLY_FILLED = "partially_filled"
    PENDING_CANCEL = "pending_cancel"
    """Cancelled by its owner, while a reservation still holds part of it: that part either fills or is
    cancelled when its reservation ends."""
    FILLED = "filled"
    CANCELLED = "cancelled"

    @property
    def closed(self) -> bool:
        return self in (OrderStatus.FILLED, OrderStatus.CANCELLED)


def check_name(text: object, name: str) -> str:
    """A peer, owner, market or client order id: 1 to 64 letters, digits, ``_``, ``.`` and ``-``.

    Raises:
        InvalidFieldError: naming the field and the rule.
    """
    if not isinstance(text, str) or not (text in _names or _is_name(text)):
        raise InvalidFieldError(
            name,
            f"must be 1 to {limits.NAME_LENGTH} letters, digits, '_', '.' or '-', "
            "starting with a letter or digit",
        )
    return text


_names: Final[set[str]] = set()
"""Those seen lately: the same few come again and again."""


def _is_name(text: str) -> bool:
    if len(text) > limits.NAME_LENGTH or _NAME.fullmatch(text) is None:
        return False
    if len(_names) >= limits.TEXTS_REMEMBERED:
        _names.clear()
    _names.add(text)
    return True


class Unit:
    """A decimal step (a tick or a lot) that converts between text and whole counts of itself, exactly.

    Args:
        text: The step as a decimal, such as ``"0.01"``.
        name: The field that says so, for errors.
        most: The largest count allowed.
        trims: Write no trailing zeros.

    Attributes:
        counts: Of the texts that were parsed lately: the same ones come again and again.
        texts: As these were formatted.
    """

    __slots__ = ("_most", "_per_step", "_scale", "counts", "decimals", "text", "texts", "trims")

    def __init__(self, text: str, name: str, most: int, *, trims: bool):
        match = _DECIMAL.fullmatch(text) if isinstance(text, str) and len(text) <= 20 else None
        if match is None:
            raise InvalidFieldError(name, 'must be a positive decimal such as "0.01"')
        whole, fraction = match.group(1), match.group(2) or ""
        self.text = text
        self.trims = trims
        self.decimals = len(fraction)
        self._scale: int = 10**self.decimals
        self._per_step = int(whole + fraction)
        self._most = most
        self.counts: dict[str, int] = {}
        self.texts: dict[int, str] = {}
        if self._per_step == 0:
            raise InvalidFieldError(name, "must be more than zero")

    def parse(self, text: object, name: str) -> int:
        """The count of steps in ``text``.

        Args:
            text: A decimal such as ``"0.5"``: no sign, exponent or spaces.
            name: The field, for the error.

        Raises:
            InvalidFieldError: It is not such a decimal, not a whole count of steps, zero, or too large.
        """
        if not isinstance(text, str):
            raise InvalidFieldError(name, 'must be a decimal string such as "0.5", so that it stays exact')
        count = self._parse(text, name)
        if count > self._most:
            raise InvalidFieldError(name, f"must be at most {self.format(self._most)}")
        if len(self.counts) >= limits.TEXTS_REMEMBERED:
            self.counts.clear()
        self.counts[text] = count
        return count

    def _parse(self, text: str, name: str) -> int:
        match = _DECIMAL.fullmatch(text) if len(text) <= limits.DECIMAL_LENGTH else None
        if match is None:
            raise InvalidFieldError(name, 'must be a plain decimal such as "0.5"')
        fraction = (match.group(2) or "").rstrip("0")
        if len(fraction) > self.decimals:
            raise InvalidFieldError(name, f"must be a multiple of {self.text}")
        scaled = int(match.group(1)) * self._scale + int(fraction.ljust(self.decimals, "0") or "0")
        count, rest = divmod(scaled, self._per_step)
        if rest:
            raise InvalidFieldError(name, f"must be a multiple of {self.text}")
        if count == 0:
            raise InvalidFieldError(name, "must be more than zero")
        return count

    def format(self, count: int) -> str:
        """``count`` steps as a decimal: with all of the step's decimals, or none that are zero."""
        text = self._format(count)
        if len(self.texts) >= limits.TEXTS_REMEMBERED:
            self.texts.clear()
        self.texts[count] = text
        return text

    def _format(self, count: int) -> str:
        if not self.decimals:
            return str(count * self._per_step)
        whole, fraction = divmod(count * self._per_step, self._scale)
        digits = str(fraction).zfill(self.decimals)
        if self.trims:
            digits = digits.rstrip("0")
        return f"{whole}.{digits}" if digits else str(whole)


@dataclass(frozen=True)
class Instrument:
    """What a market trades, and in which steps. Peers of one market must agree on it.

    Attributes:
        market: Its name, such as ``"BTC-USD"``.
        tick: The price step, a decimal string.
        lot: The quantity step, a decimal string.
        max_quantity: The largest quantity of one order, in lots.
        max_price: The highest price of an order, in ticks.
    """

    market: str
    tick: str = "0.01"
    lot: str = "0.00000001"
    max_quantity: int = limits.QUANTITY_LOTS
    max_price: int = limits.PRICE_TICKS
    _tick: Unit = field(init=False, repr=False, compare=False)
    _lot: Unit = field(init=False, repr=False, compare=False)
    fingerprint: str = field(init=False, repr=False, compare=False)
    """A short digest of all of the above; it travels with announcements and heartbeats."""

    def __post_init__(self) -> None:
        check_name(self.market, "market")
        object.__setattr__(self, "_tick", Unit(self.tick, "tick", self.max_price, trims=False))
        object.__setattr__(self, "_lot", Unit(self.lot, "lot", self.max_quantity, trims=True))
        terms = f"{self.market}|{self.tick}|{self.lot}|{self.max_quantity}|{self.max_price}"
        object.__setattr__(self, "fingerprint", hashlib.sha256(terms.encode()).hexdigest()[:16])

    def price(self, text: object, name: str = "price") -> int:
        """A price in ticks. Raises InvalidFieldError."""
        count = self._tick.counts.get(text) if type(text) is str else None
        return self._tick.parse(text, name) if count is None else count

    def quantity(self, text: object, name: str = "quantity") -> int:
        """A quantity in lots. Raises InvalidFieldError."""
        count = self._lot.counts.get(text) if type(text) is str else None
        return self._lot.parse(text, name) if count is None else count

    def price_text(self, ticks: int) -> str:
        """``ticks`` as a decimal string with the tick's decimals: ``"78318.00"``."""
        return self._tick.texts.get(ticks) or self._tick.format(ticks)

    def quantity_text(self, lots: int) -> str:
        """``lots`` as a decimal string without trailing zeros: ``"0.5"``."""
        return self._lot.texts.get(lots) or self._lot.format(lots)


class Order:
    """An order at the peer that owns it.

    At every instant ``quantity == open + reserved + filled + cancelled``, and none is negative. Only the book
    moves quantity between them.

    Attributes:
        id: Unique in the network.
        owner: The client it belongs to, a name that means something at its own peer only. The empty name is
            nobody's: it never counts as the same owner.
        side: Buy or sell.
        price: The limit, in ticks; of a market order (0 when it is submitted) the worst price it may take.
        quantity: What was ordered, in lots; the next four always add up to it.
        open: Free to be matched.
        reserved: Set aside: for a counterparty, for its own way through the network, or in-doubt.
        filled: Traded.
        cancelled: Taken back.
        hidden: How much of ``open`` an iceberg does not show.
        sequence: Its number in order of arrival, the age that makes one of two orders the maker.
        priority: Its place among the orders of its price: at first ``sequence``, later when it goes to the
            back; 0 while a stop order waits.
        terms: Its further instructions.
        time_ms: When it was accepted, in milliseconds since the epoch.
        client_order_id: The owner's own name for it, or None.
        partner: The id of the other order of its pair, or None; for whoever asks, as is the next one.
        reason: Why some of it was cancelled, or None; the book does not look at it.
        cancel_requested: What is released from now on is cancelled, not opened.
        level: Where the book keeps it for matching, or None while nothing of it can be matched.
        prev: Its neighbour there, older.
        next: Its neighbour there, newer.
    """

    __slots__ = (
        "cancel_requested",
        "cancelled",
        "client_order_id",
        "filled",
        "hidden",
        "id",
        "level",
        "next",
        "open",
        "owner",
        "partner",
        "prev",
        "price",
        "priority",
        "quantity",
        "reason",
        "reserved",
        "sequence",
        "side",
        "terms",
        "time_ms",
    )

    def __init__(
        self,
        id: str,
        owner: str,
        side: Side,
        price: int,
        quantity: int,
        terms: Terms = GTC,
        time_ms: int = 0,
        client_order_id: str | None = None,
    ):
        self.id = id
        self.owner = owner
        self.side = side
        self.price = price
        self.quantity = quantity
        self.terms = terms
        self.open = quantity
        self.reserved = 0
        self.filled = 0
        self.cancelled = 0
        self.hidden = 0
        self.sequence = 0
        self.priority = 0
        self.time_ms = time_ms
        self.client_order_id = client_order_id
        self.cancel_requested = False
        self.partner: str | None = None
        self.reason: str | None = None
        self.level: Level | None = None
        self.prev: Order | None = None
        self.next: Order | None = None

    @property
    def live(self) -> bool:
        """Whether anything of it can still trade."""
        return self.open > 0 or self.reserved > 0

    @property
    def rests(self) -> bool:
        """Whether what is left of it stays in the book once it has met everyone."""
        return self.terms.rests

    @property
    def untriggered(self) -> bool:
        """Whether it is a stop order that waits for its stop price."""
        return self.terms.stop_price is not None and not self.priority and self.live

    @property
    def status(self) -> OrderStatus:
        if self.untriggered:
            return OrderStatus.UNTRIGGERED
        if self.live:
            if self.cancel_requested:
                return OrderStatus.PENDING_CANCEL
            return OrderStatus.PARTIALLY_FILLED if self.filled else OrderStatus.OPEN
        return OrderStatus.CANCELLED if self.cancelled else OrderStatus.FILLED

    def __repr__(self) -> str:
        return (
            f"<Order {self.id} {self.side.value} {self.quantity}@{self.price} open={self.open} "
            f"reserved={self.reserved} filled={self.filled} cancelled={self.cancelled}>"
        )


class Level:
    """The orders at one price that can be matched, oldest first. It begins with its first one, and ends with
    its last one.

    Orders of which nothing is open leave it and come back to their place, so that matching never steps over
    them and the best price is always one that can be traded at. The queue is a doubly linked list through the
    orders themselves: joining at the back, leaving from anywhere and taking from the front are O(1). An order
    that comes back needs its place looked up: the first one to do so gives the level an index by priority,
    which it then keeps.

    Attributes:
        price: In ticks.
        key: The ladder's key of ``price``.
        head: The oldest order; None once the level has ended.
        tail: The newest order.
        count: Orders.
        open: Sum of their open quantities, in lots.
        hidden: How much of it icebergs do not show.
        index: The orders by priority, once one has come back.
    """

    __slots__ = ("count", "head", "hidden", "index", "key", "open", "price", "tail")

    def __init__(self, key: int, order: Order):
        self.price = order.price
        self.key = key
        self.head: Order | None = order
        self.tail: Order | None = order
        self.count = 1
        self.open = order.open
        self.hidden = order.hidden
        self.index: SortedKeyList | None = None
        order.level = self

    def __iter__(self) -> Iterator[Order]:
        """The orders, oldest first. The level must not change meanwhile."""
        order = self.head
        while order is not None:
            yield order
            order = order.next

    def append(self, order: Order) -> None:
        """Put ``order`` last. O(1); O(log n) with an index."""
        tail = self.tail
        assert tail is not None
        tail.next = order
        order.prev = tail
        self.tail = order
        order.level = self
        self.count += 1
        self.open += order.open
        if order.hidden:
            self.hidden += order.hidden
        if self.index is not None:
            self.index.add(order)

    def insert(self, order: Order) -> None:
        """Put ``order`` where its priority says. O(log n), and once O(n)."""
        assert self.tail is not None
        if self.tail.priority < order.priority:
            self.append(order)
            return
        if self.index is None:
            self.index = SortedKeyList(self, key=attrgetter("priority"))
        follower: Order = self.index[self.index.bisect_key(order.priority)]
        self.index.add(order)
        before = follower.prev
        order.prev, order.next = before, follower
        follower.prev = order
        if before is None:
            self.head = order
        else:
            before.next = order
        order.level = self
        self.count += 1
        self.open += order.open
        self.hidden += order.hidden

    def remove(self, order: Order) -> None:
        """Take ``order`` out, before its quantities change. O(1); O(log n) with an index."""
        if self.index is not None:
            self.index.remove(order)
        before, after = order.prev, order.next
        if before is None:
            self.head = after
        else:
            before.next = after
            order.prev = None
        if after is None:
            self.tail = before
        else:
            after.prev = before
            order.next = None
        order.level = None
        self.count -= 1
        self.open -= order.open
        if order.hidden:
            self.hidden -= order.hidden
