"""What must hold in a simulated market: at a peer after each of its steps, between all of them at the end.

``docs/protocol.md`` says what I1 to I7 are. A check that fails shows what it has found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from orderbook import limits
from orderbook.effects import Announce, Confirm, Effect, Traded
from orderbook.engine import MarketState
from orderbook.engine.stops import Stops
from orderbook.errors import ProofError
from orderbook.events import Accepted, Amended, Triggered
from orderbook.model import Order, Side
from orderbook.negotiation import Negotiator
from orderbook.recovery import Recovered
from orderbook.signing.proofs import agree, check
from orderbook.signing.session import Session
from orderbook.terms import Routing, TimeInForce
from orderbook.trade import Trade

if TYPE_CHECKING:
    from tests.simulation.markets import Exchange
    from tests.simulation.peers import SimPeer

# -- after every step of a peer ------------------------------------------------------------------------


def check_step(peer: SimPeer, effects: Sequence[Effect]) -> None:
    """``peer`` has made a step; these are its effects."""
    negotiator = running(peer)
    negotiator.check()
    check_leases(peer)
    check_fill_or_kill(negotiator, effects)
    check_pairs(peer)
    book = negotiator.market.book
    if book.state is not MarketState.OPEN:
        check_closed(effects)
    for stop in book.stops if book.state is MarketState.OPEN else ():
        assert not Stops.reached(stop, book.last_price), f"{stop} should have come alive"
    for effect in effects:
        if isinstance(effect, Announce):
            check_announced(peer, effect)
        elif isinstance(effect, Traded):
            check_trades(peer, effect)


def check_leases(peer: SimPeer) -> None:
    """I4: a reservation is gone by the first step after its lease."""
    if peer.exchange.world.now - peer.still_until < 0.01:
        return  # it does what it has missed while it stood still, and sweeping is among that
    for reservation in running(peer).market.book.reservations.values():
        late = peer.clock.monotonic() - reservation.expires
        assert late < 1.0, f"{peer.name} still holds {reservation.id}, {late:.3f} s after its lease"


def check_pairs(peer: SimPeer) -> None:
    """Never do both orders of a pair trade: when one has, nothing of the other can any more."""
    book, sights = running(peer).market.book, peer.exchange.sights
    for order in book.orders.values():
        if order.partner is None:
            continue
        partner = running(peer).market.ledger.order(order.partner)
        if partner.filled:
            assert not order.open, f"{order} is open, and {partner} of its pair has traded"
            assert not order.filled, f"{order} and {partner} have both traded"
    sights["a stop order waits for what is reserved of its partner"] += bool(book._reached)


def check_fill_or_kill(negotiator: Negotiator, effects: Sequence[Effect]) -> None:
    """Of a fill-or-kill order that has nothing yet, one maker is asked to execute at a time: the others can
    still be let go when that one says no."""
    orders = (effect.payload.payload.order_id for effect in effects if isinstance(effect, Confirm))
    for order_id, makers in Counter(orders).items():
        order = negotiator.market.ledger.order(order_id)
        alone = makers == 1 or order.filled or order.terms.time_in_force is not TimeInForce.FOK
        assert alone, f"{order} asks {makers} makers at once to fill or kill"


def check_closed(effects: Sequence[Effect]) -> None:
    """A peer whose market is not open begins nothing: what trades was reserved for others before."""
    for effect in effects:
        assert not isinstance(effect, Announce), f"{effect} by a peer whose market is not open"
        local = (
            [trade for trade in effect.trades if not trade.cross_peer] if isinstance(effect, Traded) else []
        )
        assert not local, f"{local} at a peer whose market is not open"


def check_announced(peer: SimPeer, effect: Announce) -> None:
    """What others learn of an order, and that our own book competes with them where it is to."""
    market = running(peer).market
    order, announced = market.ledger.order(effect.order_id), effect.payload.payload.order
    lots, price = int(announced.quantity), int(announced.price)
    assert order.terms.post_only is None, f"{order} asks for what it must not take"
    assert lots <= (order.terms.display or lots), f"{order} shows {lots} lots of an iceberg"
    if peer.routing is Routing.BEST_PRICE:
        ours = [r for r in market.book.reservations.values() if r.counterparty == peer.name]
        reserved = sum(r.quantity for r in ours if r.purpose == order.id)
        better = [
            other
            for other in market.book.orders.values()
            if other.side is not order.side and other.level is not None and other.owner != order.owner
            if other.price != price and order.side.crosses(price, other.price)
        ]
        assert reserved == lots or not better, f"{order} passes over {better} in its own book"
        peer.exchange.sights["our own book competes"] += bool(reserved)


def check_trades(peer: SimPeer, effect: Traded) -> None:
    """I3 for our own orders, as they are when they trade."""
    ledger = running(peer).market.ledger
    for trade in effect.trades:
        if trade.maker_peer == peer.name:
            maker = ledger.order(trade.maker_order_id)
            assert maker.rests, f"{maker} is no order to make a price: {trade}"
        if trade.taker_peer == peer.name:
            taker = ledger.order(trade.taker_order_id)
            assert taker.terms.post_only is None, f"{taker} has taken a price: {trade}"
            assert not taker.untriggered, f"{taker} has traded and waits: {trade}"


def check_sender(peer: SimPeer, message: Any, session: Session | None) -> None:
    """``peer`` has taken a request: its name is not that of a peer which was heard a moment ago."""
    name, key = message["from"], message.get("key", "" if session is None else session.key)
    owner, now = peer.exchange.peers.get(name), peer.clock.monotonic()
    if owner is None or name == peer.name or not key:
        return  # what it has said itself, through a liar, comes to nothing
    if message["type"] == "Goodbye":
        peer.owner_heard.pop(name, None)
        kept = [r for r in running(peer).market.book.reservations.values() if r.counterparty == name]
        assert not kept, f"{name} has left, and {peer.name} keeps {kept} for it"
    elif owner.signer.key == key:
        peer.owner_heard[name] = now
    else:
        silent_s = now - peer.owner_heard.get(name, -inf)
        assert silent_s >= limits.NAME_HELD_S, f"another key is {name}, heard {silent_s} s ago"


def check_told_peer(peer: SimPeer, message: Any, told: Any) -> None:
    """``peer`` executes for nobody what it has offered to another."""
    if message["type"] == "CrossPeerMatch" and told and told.get("status") == "committed":
        offered = peer.offered.get(message["payload"]["lock_id"])
        assert offered == message["from"], f"{message} is committed, and was offered to {offered}"


def check_offer(peer: SimPeer, announced: Any, offer: Any) -> None:
    """``peer`` has made this offer for the order that was announced."""
    assert running(peer).market.book.state is MarketState.OPEN, f"{offer}, and the market is not open"
    check_priority(running(peer), announced, offer)
    check_offered(peer, offer)


def check_priority(negotiator: Negotiator, announced: Any, offer: Any) -> None:
    """I7: nothing that is left open would have come before what was offered."""
    side = Side(announced["side"])
    sign = 1 if side is Side.BUY else -1
    book = negotiator.market.book
    offered = {fill["order_id"] for fill in offer["fills"]}
    last = max(
        (sign * book.orders[id].price, book.orders[id].priority) for id in offered if id in book.orders
    )
    for order in book.orders.values():
        if order.side is not side and order.level is not None and order.id not in offered:
            first = (sign * order.price, order.priority)
            assert first > last, f"{order} comes before what was offered: {offer['fills']}"


def check_offered(peer: SimPeer, offer: Any) -> None:
    """Nothing is offered that has run out, nor more of an iceberg than it shows."""
    market = running(peer).market
    for fill in offer["fills"]:
        order = market.ledger.order(fill["order_id"])
        expires_ms, display = order.terms.expires_ms, order.terms.display
        assert expires_ms is None or expires_ms > market.book.time_ms, f"{order} has run out"
        assert display is None or int(fill["quantity"]) <= display, f"{order} shows {fill}"
        peer.exchange.sights["tip of an iceberg offered"] += display is not None


# -- at the end, when all has healed and is at rest ----------------------------------------------------


def check_market(exchange: Exchange) -> None:
    """I1 to I3 and I6, from outside: on the orders and trades of all peers together."""
    orders: dict[tuple[str, str], Order] = {}
    kept: dict[Trade, list[str]] = {}
    for peer in exchange.processes:
        for order in running(peer).market.ledger.orders(None, 0, 10**9)[0]:
            check_conservation(order)
            check_terms(peer, order)
            orders[peer.name, order.id] = order
        for trade in peer.trades():
            kept.setdefault(trade, []).append(peer.name)
    filled = check_trades_kept(exchange, orders, kept)
    for key, order in orders.items():
        assert order.rests or order.untriggered or not order.open, f"{order} rests, and is not to"
        assert filled[key] == order.filled, f"{order} has trades of {filled[key]}"
    assert filled.keys() <= orders.keys(), "there are trades of no order"
    check_pairs_ended(exchange, orders)
    check_told(exchange, orders)
    for peer in exchange.processes:
        check_disk(peer)
    if exchange.signs:
        check_proofs(exchange)


def check_conservation(order: Order) -> None:
    """I1."""
    parts = (order.open, order.reserved, order.filled, order.cancelled)
    assert min(parts) >= 0, order
    assert sum(parts) == order.quantity, order


def check_trades_kept(
    exchange: Exchange, orders: dict[tuple[str, str], Order], kept: dict[Trade, list[str]]
) -> Counter[tuple[str, str]]:
    """Both peers of a trade keep it, once, and it is what its orders allow. Returns the lots that the orders
    of each peer have traded."""
    filled: Counter[tuple[str, str]] = Counter()
    for trade, keepers in kept.items():
        honest = {trade.maker_peer, trade.taker_peer} & exchange.peers.keys()
        honest -= {name for keeper in keepers for name in impostors(exchange, keeper, trade)}
        assert sorted(keepers) == sorted(honest), f"{trade} is kept by {keepers}, not by {honest}"
        # What an impostor calls its order may be the id of one of ours.
        maker = orders.get((trade.maker_peer, trade.maker_order_id)) if trade.maker_peer in honest else None
        taker = orders.get((trade.taker_peer, trade.taker_order_id)) if trade.taker_peer in honest else None
        if maker is not None:
            prices = prices_of(exchange.called(trade.maker_peer), maker)
            assert trade.price in prices, f"{trade} is not at the price of {maker}"
        if taker is not None and not taker.terms.market:
            prices = prices_of(exchange.called(trade.taker_peer), taker)
            inside = any(taker.side.crosses(price, trade.price) for price in prices)
            assert inside, f"{trade} is outside the limit of {taker}"
        if maker is not None and taker is not None:
            assert maker.side is taker.side.opposite, f"{trade}: {maker}, {taker}"
            assert maker.owner != taker.owner, f"{trade} is {taker.owner} with itself"
        for name in honest:
            for id in trade.orders_of(name):
                filled[name, id] += trade.quantity
    return filled


def impostors(exchange: Exchange, keeper: str, trade: Trade) -> list[str]:
    """Names of peers under which ``keeper`` has traded with a liar that used them before their owners."""
    if exchange.allowed is not None:
        return []
    liars = {liar.key for liar in exchange.liars}
    proven = [agree(proof) for peer in exchange.called(keeper) for proof in peer.proofs_of(trade.match_id)]
    parties = [party for proof in proven for party in (proof.maker, proof.taker)]
    names = (trade.maker_peer, trade.taker_peer)
    return [party.name for party in parties if party.key in liars and party.name in names]


def prices_of(peers: Sequence[SimPeer], order: Order) -> set[int]:
    """Every price that ``order``, which one of ``peers`` has, has ever had."""
    events = [event for peer in peers for event in peer.disk.durable]
    return {e.price for e in events if isinstance(e, Accepted | Amended) and e.order_id == order.id}


def check_terms(peer: SimPeer, order: Order) -> None:
    """What the instructions of an order at ``peer`` promise."""
    terms, exchange, sights = order.terms, peer.exchange, peer.exchange.sights
    sights["post-only order yielded"] += order.reason == "post_only"
    if terms.time_in_force is TimeInForce.FOK and not order.live and 0 < order.filled < order.quantity:
        sights[f"fill-or-kill in part: {order.reason}"] += 1
        known = order.reason in ("broken", "requested", "self_trade")
        assert known, f"{order} is filled in part, and says {order.reason}"
        calm = exchange.calm and order.reason == "broken"
        assert not calm, f"{order} is broken, and nothing had happened to anybody"
    if terms.expires_ms is not None and order.live:
        late_ms = peer.clock.time_ms() - terms.expires_ms
        assert late_ms < 2000 or not order.open, f"{order} is open, {late_ms} ms after its end"
    if terms.stop_price is not None and order.filled:
        assert Triggered(order.id) in peer.disk.durable, f"{order} has traded before it came alive"


def check_pairs_ended(exchange: Exchange, orders: dict[tuple[str, str], Order]) -> None:
    """Of a pair at most one order has traded; where only one is left it has cancelled the other, or was
    cancelled with it and is in doubt."""
    for (name, _), order in orders.items():
        if order.partner is None:
            continue
        partner = orders.get((name, order.partner))
        assert partner is not None, f"{order} has lost the other one of its pair"
        assert not (order.filled and partner.filled), f"{order} and {partner} have both traded"
        exchange.sights["one of a pair has traded"] += bool(order.filled)
        # A client has cancelled its partner, and it with that; what is left of it is in doubt.
        ended = order.reason == "partner" and not order.open
        alone = order.live and not partner.live and not ended
        assert not alone or partner.reason == "partner", f"{order} is left of a pair with {partner}"


def check_told(exchange: Exchange, orders: dict[tuple[str, str], Order]) -> None:
    """I6: what a client was told of its order is true still, or more of it."""
    for peer in exchange.processes:
        for told in peer.told.values():
            assert (peer.name, told.order_id) in orders, f"{told}, and it is gone"
            order = orders[peer.name, told.order_id]
            assert order.filled >= told.filled, f"{told}, and now {order}"
            assert not told.cancelled or not order.open, f"{told}, and now {order}"
            if not order.terms.market and (order.price, order.quantity) != (told.price, told.quantity):
                later = Amended(order.id, order.price, order.quantity) in peer.disk.durable
                assert later, f"{told}, and now {order}"


def check_disk(peer: SimPeer) -> None:
    """What a restart would make of its journal is what ``peer`` holds now."""
    market = running(peer).market
    recovered = Recovered(peer.name, market.instrument.market).apply(peer.disk.durable).finish()
    ledger = market.ledger
    live = {order.id: facts(order) for order in ledger.orders(None, 0, 10**9)[0]}
    assert {id: facts(order) for id, order in recovered.orders.items()} == live
    snapshot = Recovered(peer.name, market.instrument.market)
    snapshot.load(recovered.to_plain())
    assert {id: facts(order) for id, order in snapshot.finish().orders.items()} == live
    assert recovered.last_price == market.book.last_price == snapshot.last_price
    assert recovered.state is market.book.state is snapshot.state
    queue = queues(sorted(market.book.orders.values(), key=lambda order: order.priority))
    assert queues(recovered.orders.values()) == queues(snapshot.orders.values()) == queue
    trades = peer.trades()
    assert ledger.trade_count == recovered.trade_count == len(trades)
    assert ledger.trades(ledger.dropped, 10**9) == trades[ledger.dropped :]


def queues(orders: Iterable[Order]) -> dict[tuple[Side, int], list[str]]:
    """The ids of those ``orders`` that can be traded with, by side and price, in the order of ``orders``."""
    queues: dict[tuple[Side, int], list[str]] = {}
    for order in orders:
        if order.rests and not order.untriggered and not order.cancel_requested and order.live:
            queues.setdefault((order.side, order.price), []).append(order.id)
    return queues


def facts(order: Order) -> tuple[object, ...]:
    """All that a restart must know of an order."""
    price = 0 if order.terms.market else order.price
    # One that waits for an answer holds what is open of it, and does so again after a restart.
    live: object = (order.open, order.reserved) if order.rests else order.open + order.reserved
    cancelled: int | None = order.cancelled
    if order.cancel_requested and order.live and order.terms.time_in_force is TimeInForce.FOK:
        live = cancelled = None  # what no maker was asked for yet goes with the doubt, or with a restart
    return (
        price,
        order.quantity,
        live,
        order.filled,
        cancelled,
        order.terms,
        order.status,
        order.reason,
        order.time_ms,
    )


def check_proofs(exchange: Exchange) -> None:
    """Each peer can prove each of its cross-peer trades with what is on its disk alone."""
    for peer in exchange.processes:
        market = running(peer).market
        for trade in peer.trades():
            if trade.cross_peer:
                proofs = [check(proof, exchange.keys.verify) for proof in peer.proofs_of(trade.match_id)]
                proven = any(market.record(trade) in proof.trades for proof in proofs)
                assert proven, f"{peer.name} can't prove {trade}"


def check_claims(exchange: Exchange) -> None:
    """Nobody can prove a trade that its maker has not made with that key."""
    for claim in exchange.claims:
        try:
            proven = check(claim, exchange.keys.verify)
        except ProofError:
            continue
        match_id = claim.request["payload"]["match_id"]
        makers = [peer for peer in exchange.processes if peer.signer.key == proven.maker.key]
        takers = {agree(proof).taker for maker in makers for proof in maker.proofs_of(match_id)}
        assert not makers or proven.taker in takers, f"{proven.taker} can prove {proven.trades} of {takers}"


def running(peer: SimPeer) -> Negotiator:
    """The negotiator of a peer whose process runs."""
    assert peer.negotiator is not None
    return peer.negotiator
