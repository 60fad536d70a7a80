"""What clients ask for, checked: new orders and changes of orders. No IO."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple, TypeVar

from .engine import MarketState, Quote
from .errors import InvalidFieldError
from .model import Instrument, Order, Side, check_name
from .terms import GTC, PostOnly, SelfTrade, Terms, TimeInForce

TIME_MS_MAX = 2**53 - 1
"""The latest time that any reader of JSON keeps exactly."""


class NewOrder(NamedTuple):
    """What a client submits, unchecked. None: not given.

    Attributes:
        side: ``"buy"`` or ``"sell"``.
        price: The limit, a decimal string; None for a market order.
        quantity: A decimal string.
        owner: Whose order it is.
        client_order_id: The owner's own name for it.
        type: ``"limit"`` (also None), or ``"market"``: it takes any price there is, and never rests.
        time_in_force: ``"gtc"`` (a limit order without it), ``"gtd"``, ``"ioc"`` (a market order without it)
            or ``"fok"``: see :class:`~orderbook.terms.TimeInForce`, across the whole network.
        post_only: ``"reject"`` or ``"slide"``: it never takes a price.
        stop_price: A decimal string: the order waits until a trade of its peer reaches it.
        display: A decimal string: an iceberg shows so much at a time.
        expires_ms: When a ``"gtd"`` order ends, in milliseconds since the epoch.
        self_trade: What it does when it meets an older order of its owner, ``"cancel_newest"`` (also None),
            ``"cancel_oldest"``, ``"cancel_both"`` or ``"decrement"``.
    """

    side: object
    price: object
    quantity: object
    owner: object
    client_order_id: object = None
    type: object = None
    time_in_force: object = None
    post_only: object = None
    stop_price: object = None
    display: object = None
    expires_ms: object = None
    self_trade: object = None


_SIDES = {side.value: side for side in Side}
_FIRST_TERM = NewOrder._fields.index("time_in_force")
_NO_TERMS = (None,) * (len(NewOrder._fields) - _FIRST_TERM)


class Amendment(NamedTuple):
    """How a client wants an order changed, unchecked; None: as it is.

    Attributes:
        price: The new limit, a decimal string.
        quantity: The new quantity, a decimal string, of which what was filled is a part.
    """

    price: object = None
    quantity: object = None


class NewPair(NamedTuple):
    """Two orders of which one cancels the other (OCO), unchecked; both of one owner and side.

    Attributes:
        resting: One that can rest.
        stop: One with a stop price, which is not reached yet.
    """

    resting: NewOrder
    stop: NewOrder


class NewQuote(NamedTuple):
    """One order of a mass quote, unchecked.

    Attributes:
        client_order_id: The owner's own name for it: while an order of that name lives it is changed.
        side: ``"buy"`` or ``"sell"``.
        price: The limit, a decimal string; None where nothing shall be there.
        quantity: What shall be there from now on, a decimal string; ``"0"``: nothing.
    """

    client_order_id: object
    side: object
    price: object
    quantity: object


Word = TypeVar("Word", bound=Enum)


def order_of(new: NewOrder, instrument: Instrument, id: str, time_ms: int) -> Order:
    """The order that ``new`` describes. Raises InvalidFieldError, naming the field and the rule."""
    side = _SIDES.get(new.side) if type(new.side) is str else None
    if side is None:
        side = _word(new.side, "side", Side)
    if new.type not in (None, "limit", "market"):
        raise InvalidFieldError("type", 'must be "limit" or "market"')
    market = new.type == "market"
    if market and new.price is not None:
        raise InvalidFieldError("price", "must be left out of a market order")
    client_order_id = new.client_order_id
    if client_order_id is not None:
        client_order_id = check_name(client_order_id, "client_order_id")
    return Order(
        id=id,
        owner=check_name(new.owner, "owner"),
        side=side,
        price=0 if market else instrument.price(new.price),
        quantity=instrument.quantity(new.quantity),
        terms=_terms(new, instrument, market),
        time_ms=time_ms,
        client_order_id=client_order_id,
    )


def pair_of(new: NewPair, instrument: Instrument, ids: tuple[str, str], time_ms: int) -> tuple[Order, Order]:
    """The orders that ``new`` describes. Raises InvalidFieldError, naming order, field and rule."""
    orders = []
    for name, leg, id in zip(NewPair._fields, new, ids, strict=True):
        try:
            orders.append(order_of(leg, instrument, id, time_ms))
        except InvalidFieldError as error:
            raise InvalidFieldError(f"{name}.{error.field}", error.rule) from None
    resting, stop = orders
    resting.partner, stop.partner = stop.id, resting.id
    return resting, stop


def quote_of(new: NewQuote, instrument: Instrument, id: str, time_ms: int) -> Quote:
    """The quote that ``new`` describes, for the order ``id``. Raises InvalidFieldError."""
    side = _word(new.side, "side", Side)
    name = check_name(new.client_order_id, "client_order_id")
    if new.quantity == "0":
        price = 1 if new.price is None else instrument.price(new.price)
        return Quote(id, side, price, 0, time_ms, name)
    return Quote(id, side, instrument.price(new.price), instrument.quantity(new.quantity), time_ms, name)


def state_of(text: object) -> MarketState:
    """Raises InvalidFieldError."""
    return _word(text, "state", MarketState)


def _terms(new: NewOrder, instrument: Instrument, market: bool) -> Terms:
    if not market and new[_FIRST_TERM:] == _NO_TERMS:
        return GTC  # as most are
    force = _given(new.time_in_force, "time_in_force", TimeInForce)
    if force is None:
        force = TimeInForce.IOC if market else TimeInForce.GTC
    rests = not market and force in (TimeInForce.GTC, TimeInForce.GTD)
    if market and force in (TimeInForce.GTC, TimeInForce.GTD):
        raise InvalidFieldError(
            "time_in_force", 'must be "ioc" or "fok" for a market order, which never rests'
        )
    expires_ms = new.expires_ms
    if force is not TimeInForce.GTD and expires_ms is not None:
        raise InvalidFieldError("expires_ms", 'is only for orders with the time_in_force "gtd"')
    if force is TimeInForce.GTD and (type(expires_ms) is not int or not 0 < expires_ms <= TIME_MS_MAX):
        raise InvalidFieldError("expires_ms", "must be a whole number of milliseconds since the epoch")
    for name in ("post_only", "display"):
        if getattr(new, name) is not None and not rests:
            raise InvalidFieldError(name, "is only for orders that can rest")
    if new.post_only is not None and new.stop_price is not None:
        raise InvalidFieldError("post_only", "is not for stop orders")
    terms = Terms(
        force,
        market,
        post_only=_given(new.post_only, "post_only", PostOnly),
        stop_price=None if new.stop_price is None else instrument.price(new.stop_price, "stop_price"),
        display=None if new.display is None else instrument.quantity(new.display, "display"),
        expires_ms=expires_ms if type(expires_ms) is int else None,
        self_trade=_given(new.self_trade, "self_trade", SelfTrade) or SelfTrade.CANCEL_NEWEST,
    )
    return GTC if terms == GTC else terms  # a plain order is told by its identity


def _word(text: object, field: str, kind: type[Word]) -> Word:
    """The member of ``kind`` whose value is ``text``. Raises InvalidFieldError."""
    if isinstance(text, str):
        try:
            return kind(text)
        except ValueError:
            pass
    *words, last = (f'"{member.value}"' for member in kind)
    raise InvalidFieldError(field, f"must be {', '.join(words)} or {last}")


def _given(text: object, field: str, kind: type[Word]) -> Word | None:
    """As :func:`_word`; None for None."""
    return None if text is None else _word(text, field, kind)


def change_of(change: Amendment, instrument: Instrument) -> tuple[int | None, int | None]:
    """Price in ticks and quantity in lots, each None if it stays. Raises InvalidFieldError."""
    if change.price is None and change.quantity is None:
        raise InvalidFieldError("price", "or quantity must be given, or both")
    return (
        None if change.price is None else instrument.price(change.price),
        None if change.quantity is None else instrument.quantity(change.quantity),
    )
