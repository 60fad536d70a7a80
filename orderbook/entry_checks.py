"""What clients ask for, checked. No IO."""

from __future__ import annotations

from enum import Enum
from typing import Final, TypeVar

from . import limits
from .engine import MarketState, Quote
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .errors import InvalidFieldError
from .model import Instrument, Order, Side, check_name
from .terms import GTC, PostOnly, SelfTrade, Terms, TimeInForce

_SIDES: Final = {side.value: side for side in Side}
_FIRST_TERM: Final = NewOrder._fields.index("time_in_force")
_NO_TERMS: Final = (None,) * (len(NewOrder._fields) - _FIRST_TERM)

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
    if resting.client_order_id is not None and resting.client_order_id == stop.client_order_id:
        raise InvalidFieldError("stop.client_order_id", "must not be that of the other order of the pair")
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
    valid = type(expires_ms) is int and 0 < expires_ms <= limits.WHOLE_NUMBER
    if force is TimeInForce.GTD and not valid:
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
