"""What a journal's file holds, entry by entry, for people and programs. Blocking, and in memory is only the
snapshot.

A compacted journal begins with its old trades and their proofs, then comes what its snapshot says of orders
and unanswered confirmations, then the events since.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ..errors import InvalidFieldError, JournalError
from ..event_forms import accepted_event
from ..events import (
    Accepted,
    Amended,
    Cancelled,
    Event,
    Executed,
    Intended,
    Refused,
    Requeued,
    Resolved,
    Switched,
    Triggered,
    to_plain,
)
from ..journal.file import JournalFile
from ..model import Instrument, Order
from .views import printable, time_text

HEADING = f"{'number':>9}  {'time':23}  {'event':9}  {'id':24}  what"
FILLS_SHOWN = 3
OF_ORDERS = (Accepted, Amended, Triggered, Requeued, Cancelled)
"""Events of one of our orders; the others are those of a match."""


class Entry(NamedTuple):
    """One event.

    Attributes:
        number: Of the event; for what comes from the snapshot, that of the last event it stands for.
        event: What happened.
        order: From the snapshot, where ``event`` is its acceptance: the order with what became of it since.
        snapshot: Whether it comes from the snapshot.
    """

    number: int
    event: Event
    order: Order | None = None
    snapshot: bool = False


def instrument_of(file: JournalFile) -> Instrument:
    """What the journal's prices and quantities count. Raises JournalError when it does not say so."""
    try:
        return Instrument(file.meta["market"], tick=file.meta["tick"], lot=file.meta["lot"])
    except KeyError as error:
        raise JournalError(f"{file.path} does not name its {error.args[0]}") from None
    except InvalidFieldError as error:
        raise JournalError(f"{file.path}: {error}") from error


def entries(file: JournalFile) -> Iterator[Entry]:
    """All of ``file`` in order. Raises JournalError where it is damaged, after what comes before that."""
    for number, event in file.kept():
        yield Entry(number, event)
    snapshot, number = file.snapshot(), file.snapshot_number()
    for order in snapshot.orders.values():
        yield Entry(number, accepted_event(order), order, snapshot=True)
    for match_id, confirmation in snapshot.confirmations.items():
        yield Entry(number, confirmation.intent(match_id), snapshot=True)
    for number, event in file.events():
        yield Entry(number, event)


def about(order_id: str, source: Iterable[Entry]) -> Iterator[Entry]:
    """Those that concern the order ``order_id``: ours, or another peer's that one of ours met."""
    matches: set[str] = set()
    for entry in source:
        event = entry.event
        if isinstance(event, OF_ORDERS):
            concerned = event.order_id == order_id
        elif isinstance(event, Executed):
            concerned = order_id in (event.maker_order_id, event.taker_order_id)
            if concerned:
                matches.add(event.match_id)
        elif isinstance(event, Intended):
            concerned = order_id == event.order_id or any(order_id == fill[0] for fill in event.fills)
            if concerned:
                matches.add(event.match_id)
        else:
            concerned = not isinstance(event, Switched) and event.match_id in matches
        if concerned:
            yield entry


def record(entry: Entry, instrument: Instrument) -> dict[str, Any]:
    """``entry`` as plain JSON: the event's fields, with decimal strings for prices and quantities."""
    plain: dict[str, Any] = {"number": entry.number, **to_plain(entry.event)}
    if "price" in plain:
        plain["price"] = _price(plain["price"], instrument)
    if "quantity" in plain:
        plain["quantity"] = instrument.quantity_text(plain["quantity"])
    if "terms" in plain:
        terms = plain["terms"]
        if terms["stop_price"] is not None:
            terms["stop_price"] = instrument.price_text(terms["stop_price"])
        if terms["display"] is not None:
            terms["display"] = instrument.quantity_text(terms["display"])
    if "fills" in plain:
        plain["fills"] = [
            {
                "order_id": order_id,
                "price": instrument.price_text(price),
                "quantity": instrument.quantity_text(quantity),
            }
            for order_id, price, quantity in plain["fills"]
        ]
    if entry.snapshot:
        plain["snapshot"] = True
    if entry.order is not None:
        plain["filled"] = instrument.quantity_text(entry.order.filled)
        plain["cancel_requested"] = entry.order.cancel_requested
    return plain


def line(entry: Entry, instrument: Instrument) -> str:
    """``entry`` as a line under :data:`HEADING`, with every string of the file made harmless."""
    event = entry.event
    time = time_text(event.time_ms) if isinstance(event, Accepted | Executed | Resolved | Switched) else ""
    id = getattr(event, "order_id" if isinstance(event, OF_ORDERS) else "match_id", "")
    what = _what(entry, instrument)
    name = type(event).__name__.lower()
    return printable(f"{entry.number:>9}  {time:23}  {name:9}  {id:24}  {what}").rstrip()


def _what(entry: Entry, instrument: Instrument) -> str:
    event = entry.event
    if isinstance(event, Accepted):
        said = f"{event.side} {_amount(event, instrument)} for {event.owner or 'nobody'}"
        said += _terms(event, instrument)
        if event.partner is not None:
            said += f", one of a pair with {event.partner}"
        if event.client_order_id is not None:
            said += f", who calls it {event.client_order_id}"
        if entry.order is not None:
            said += f"; by the snapshot {instrument.quantity_text(entry.order.filled)} filled"
            said += ", cancelled" if entry.order.cancel_requested else ""
        return said
    if isinstance(event, Amended):
        return f"it is {_amount(event, instrument)} now"
    if isinstance(event, Triggered):
        return "its stop price has come"
    if isinstance(event, Requeued):
        return "it is the last in the queue of its price now"
    if isinstance(event, Cancelled):
        part = "what is left" if event.quantity is None else instrument.quantity_text(event.quantity)
        return f"{part} of it is taken back" + (f": {event.reason}" if event.reason else "")
    if isinstance(event, Executed):
        return (
            f"{_amount(event, instrument)}: maker {event.maker_peer} {event.maker_order_id}, "
            f"taker {event.taker_peer} {event.taker_order_id}"
        )
    if isinstance(event, Intended):
        shown = [
            f"{instrument.quantity_text(quantity)} at {instrument.price_text(price)} of {order_id}"
            for order_id, price, quantity in event.fills[:FILLS_SHOWN]
        ]
        shown += [f"{len(event.fills) - FILLS_SHOWN} more"] if len(event.fills) > FILLS_SHOWN else []
        return f"{event.order_id} asks {event.maker} for {', '.join(shown)}"
    if isinstance(event, Refused):
        return "the maker says no"
    if isinstance(event, Resolved):
        return f"{event.by} says that it is {event.outcome}: the maker has not answered"
    if isinstance(event, Switched):
        return f"{event.by} says that the market is {event.state}"
    return "signed by both peers"


def _price(ticks: int, instrument: Instrument) -> str | None:
    """A price as text; None for that of a market order, which has none."""
    return instrument.price_text(ticks) if ticks else None


def _amount(event: Accepted | Amended | Executed, instrument: Instrument) -> str:
    price = _price(event.price, instrument)
    return f"{instrument.quantity_text(event.quantity)} at {price or 'any price'}"


def _terms(event: Accepted, instrument: Instrument) -> str:
    """The instructions of an order that is no plain one, in a few words."""
    terms = event.terms
    if terms is None:
        return "" if event.rests else ", ioc"
    words = [terms.time_in_force.value]
    if terms.post_only is not None:
        words.append("post-only")
    if terms.stop_price is not None:
        words.append(f"stop at {instrument.price_text(terms.stop_price)}")
    if terms.display is not None:
        words.append(f"showing {instrument.quantity_text(terms.display)}")
    if terms.expires_ms is not None:
        words.append(f"until {time_text(terms.expires_ms)}")
    return ", " + ", ".join(words)
