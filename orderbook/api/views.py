"""A peer's state as its clients see it: ``records`` made from its markets. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from msgspec.structs import asdict

from ..hosted import HostedMarket
from ..market import Market
from ..model import Order, Side
from ..records import (
    BookRecord,
    DoubtFill,
    DoubtRecord,
    MarketHealth,
    OrderRecord,
    OwnFill,
    PeerRecord,
    Placed,
    ReservationRecord,
    ReservedFill,
    TradeReport,
)
from ..trade import Trade


def order_record(market: Market, order: Order, in_doubt: int) -> OrderRecord:
    """``in_doubt``: so many lots of what is reserved are."""
    price_text, quantity_text = market.instrument.price_text, market.instrument.quantity_text
    terms = order.terms
    return OrderRecord(
        id=order.id,
        market=market.instrument.market,
        side=order.side.value,
        type="market" if terms.market else "limit",
        price=None if terms.market else price_text(order.price),
        quantity=quantity_text(order.quantity),
        filled=quantity_text(order.filled),
        open=quantity_text(order.open),
        reserved=quantity_text(order.reserved),
        in_doubt=quantity_text(in_doubt),
        cancelled=quantity_text(order.cancelled),
        status=order.status.value,
        reason=order.reason,
        owner=order.owner,
        client_order_id=order.client_order_id,
        time_in_force=terms.time_in_force.value,
        post_only=None if terms.post_only is None else terms.post_only.value,
        stop_price=None if terms.stop_price is None else price_text(terms.stop_price),
        display=None if terms.display is None else quantity_text(terms.display),
        expires_ms=terms.expires_ms,
        self_trade=terms.self_trade.value,
        partner=order.partner,
        amended=market.ledger.was_amended(order),
        time=order.time_ms,
    )


def order_records(hosted: HostedMarket, orders: Sequence[Order]) -> list[OrderRecord]:
    """Each of ``orders``, with what of it is in doubt now."""
    doubts = hosted.negotiator.lots_in_doubt()
    return [order_record(hosted.market, order, doubts.get(order.id, 0)) for order in orders]


def trade_report(market: Market, trade: Trade) -> TradeReport:
    """``trade``, and what it was for orders of this peer."""
    taker_side = trade.side
    maker_side = None if taker_side is None else taker_side.opposite
    fills = []
    if trade.maker_peer == market.peer:
        fills.append(_own_fill(market, trade.maker_order_id, "maker", maker_side))
    if trade.taker_peer == market.peer:
        fills.append(_own_fill(market, trade.taker_order_id, "taker", taker_side))
    return TradeReport(**asdict(market.record(trade)), fills=fills)


def _own_fill(market: Market, order_id: str, role: Literal["maker", "taker"], side: Side | None) -> OwnFill:
    order = market.ledger.order(order_id) if market.ledger.knows(order_id) else None
    return OwnFill(
        order_id=order_id,
        role=role,
        side=None if side is None else side.text,
        owner=None if order is None else order.owner,
        client_order_id=None if order is None else order.client_order_id,
    )


def placed(hosted: HostedMarket, order: Order, trades: Sequence[Trade]) -> Placed:
    """``order`` and its ``trades``."""
    reports = [trade_report(hosted.market, trade) for trade in trades]
    return Placed(order_records(hosted, [order])[0], reports)


def book_record(market: Market, levels: int) -> BookRecord:
    """The best ``levels`` prices of both sides."""
    price_text, quantity_text = market.instrument.price_text, market.instrument.quantity_text
    bids, asks = (
        [(price_text(price), quantity_text(quantity)) for price, quantity in market.book.depth(side, levels)]
        for side in (Side.BUY, Side.SELL)
    )
    return BookRecord(market.instrument.market, bids, asks)


def doubt_records(hosted: HostedMarket) -> list[DoubtRecord]:
    """Confirmations that have not been answered in time."""
    instrument = hosted.market.instrument
    return [
        DoubtRecord(
            match_id=match_id,
            market=instrument.market,
            order_id=doubt.order.id,
            side=doubt.order.side.value,
            quantity=instrument.quantity_text(doubt.quantity),
            maker=doubt.maker,
            key=doubt.key,
            destination=doubt.destination,
            asked=doubt.silences,
            fills=[
                DoubtFill(
                    fill.order_id, instrument.price_text(fill.price), instrument.quantity_text(fill.quantity)
                )
                for fill in doubt.fills
            ],
        )
        for match_id, doubt in hosted.negotiator.doubts()
    ]


def peer_records(hosted: HostedMarket) -> list[PeerRecord]:
    """The other peers of the market, those included that do not trade with this one."""
    now, keyring = hosted.market.clock.monotonic(), hosted.channel.gate.keyring
    return [
        PeerRecord(
            name=peer.name,
            key=None if peer.name is None else keyring.key_of(peer.name),
            destination=peer.destination,
            market=hosted.market.instrument.market,
            heard_s_ago=None if peer.heard is None else round(now - peer.heard, 3),
            refused=peer.refused,
        )
        for peer in hosted.market.roster.all()
    ]


def reservation_records(market: Market, most: int) -> list[ReservationRecord]:
    """What is set aside for other peers, and would be free again first, first; ``most`` of them."""
    now, instrument = market.clock.monotonic(), market.instrument
    held = sorted(market.book.reservations.values(), key=lambda reservation: reservation.expires)
    return [
        ReservationRecord(
            lock_id=reservation.id,
            peer=reservation.counterparty,
            for_order=reservation.purpose,
            market=instrument.market,
            expires_in_s=round(reservation.expires - now, 3),
            fills=[
                ReservedFill(
                    fill.order.id,
                    fill.order.side.value,
                    instrument.price_text(fill.order.price),
                    instrument.quantity_text(fill.quantity),
                )
                for fill in reservation.fills
            ],
        )
        for reservation in held[:most]
    ]


def market_health(hosted: HostedMarket) -> MarketHealth:
    """The figures that an operator watches."""
    market, negotiator = hosted.market, hosted.negotiator
    best_bid, best_ask = (
        None if price is None else market.instrument.price_text(price)
        for price in (market.book.best(Side.BUY), market.book.best(Side.SELL))
    )
    return MarketHealth(
        state=market.book.state.value,
        open_orders=len(market.book.orders),
        reservations=len(market.book.reservations),
        under_way=negotiator.under_way,
        in_doubt=negotiator.in_doubt,
        orders=market.ledger.order_count,
        trades=market.ledger.trade_count,
        cross_peer_trades=market.ledger.cross_peer_trades,
        journal_waiting=hosted.journal.waiting,
        peers=len(market.roster.trading()),
        best_bid=best_bid,
        best_ask=best_ask,
    )
