"""Orders and trades as events, and back."""

from __future__ import annotations

from .events import Accepted, Executed
from .model import Order, Side
from .terms import GTC, IOC
from .trade import Trade


def accepted_event(order: Order) -> Accepted:
    return Accepted(
        order_id=order.id,
        owner=order.owner,
        side=order.side.text,
        price=order.price,
        quantity=order.quantity,
        time_ms=order.time_ms,
        client_order_id=order.client_order_id,
        terms=None if order.terms is GTC else order.terms,
        partner=order.partner,
    )


def order_of(event: Accepted) -> Order:
    """The order that was accepted, as it was then."""
    terms = event.terms or (GTC if event.rests else IOC)
    order = Order(
        id=event.order_id,
        owner=event.owner,
        side=Side(event.side),
        price=event.price,
        quantity=event.quantity,
        terms=terms,
        time_ms=event.time_ms,
        client_order_id=event.client_order_id,
    )
    order.partner = event.partner
    return order


def trade_event(trade: Trade) -> Executed:
    return Executed(
        match_id=trade.match_id,
        price=trade.price,
        quantity=trade.quantity,
        maker_order_id=trade.maker_order_id,
        taker_order_id=trade.taker_order_id,
        maker_peer=trade.maker_peer,
        taker_peer=trade.taker_peer,
        time_ms=trade.time_ms,
        side=None if trade.side is None else trade.side.text,
    )


def trade_of(event: Executed, market: str) -> Trade:
    """The trade that ``event`` records, of the journal's ``market``."""
    return Trade(
        match_id=event.match_id,
        market=market,
        price=event.price,
        quantity=event.quantity,
        maker_order_id=event.maker_order_id,
        taker_order_id=event.taker_order_id,
        maker_peer=event.maker_peer,
        taker_peer=event.taker_peer,
        time_ms=event.time_ms,
        side=None if event.side is None else Side(event.side),
    )
