"""Why the engine refuses a command, and why it cancels a quantity: values for programs, rules for people."""

from __future__ import annotations

from enum import Enum

from .. import limits
from ..terms import Terms, TimeInForce


class Code(Enum):
    """The result of a command. Every code but ``OK`` says that nothing has changed."""

    rule: str

    def __new__(cls, value: str, rule: str) -> Code:
        member = object.__new__(cls)
        member._value_ = value
        member.rule = rule
        return member

    OK = "ok", "the command was carried out"

    # The market.
    CANCEL_ONLY = "cancel_only", "the market takes cancellations and reductions only"
    HALTED = "halted", "the market is halted"
    BOOK_FULL = "book_full", "the book holds as many orders as it may"

    # The fields of an order.
    DUPLICATE_ID = "duplicate_id", "id must not be that of a live order"
    INVALID_PRICE = (
        "invalid_price",
        "price must be a whole number of ticks, from 1 to the highest allowed, and 0 for a market order",
    )
    INVALID_QUANTITY = "invalid_quantity", "quantity must be a whole number of lots above zero"
    BELOW_MINIMUM = "below_minimum", "quantity must be at least the minimum"
    ABOVE_MAXIMUM = "above_maximum", "quantity must be at most the maximum"
    OUTSIDE_BAND = "outside_band", "price must be within the price band"
    INVALID_STOP_PRICE = (
        "invalid_stop_price",
        "stop_price must be a whole number of ticks, from 1 to the highest allowed",
    )
    INVALID_DISPLAY = (
        "invalid_display",
        f"display must be a whole number of lots that shows all of the order in {limits.ICEBERG_TIPS} tips",
    )
    INVALID_EXPIRY = "invalid_expiry", "expires_ms must be given for GTD orders, and for no others"
    EXPIRED = "expired", "expires_ms must be in the future"
    CONFLICTING_TERMS = (
        "conflicting_terms",
        "post_only, display and GTD are only for orders that can rest, and post_only not for stop orders",
    )

    # The book as it is.
    POST_ONLY_CROSSES = "post_only_crosses", "a post-only order must not take a price"
    UNFILLABLE = "unfillable", "a fill-or-kill order must be filled completely at once"

    # The order that a command names.
    UNKNOWN_ORDER = "unknown_order", "id must be that of a live order"
    NOT_OWNER = "not_owner", "the order belongs to another owner"
    BEING_CANCELLED = (
        "being_cancelled",
        "the order is cancelled, but for what a reservation still holds of it",
    )
    PRICE_RESERVED = "price_reserved", "the price must stay while part of the order is reserved at it"
    QUANTITY_GONE = (
        "quantity_gone",
        "quantity must leave something of the order: more than was filled, cancelled and is reserved",
    )

    # Orders that come together.
    TOO_MANY_QUOTES = "too_many_quotes", "a mass quote must not name more orders than allowed"
    DUPLICATE_QUOTE = "duplicate_quote", "a mass quote must name each order once"
    CROSSED_QUOTES = "crossed_quotes", "the bids of a mass quote must be below its asks"
    NOT_A_PAIR = (
        "not_a_pair",
        "a pair must be two orders of one owner and side: one can rest, the other waits for its stop price",
    )


class Reason(Enum):
    """Why quantity was cancelled."""

    REQUESTED = "requested"
    """Its owner wanted it: a cancellation, or a mass quote without it."""
    REMAINDER = "remainder"
    """What is left of an order that does not rest."""
    SELF_TRADE = "self_trade"
    """It would have traded with its own owner."""
    EXPIRED = "expired"
    """Its time had come."""
    PARTNER = "partner"
    """The other order of its pair has traded, was triggered or cancelled."""
    RELEASED = "released"
    """Its reservation has ended, after the order had been cancelled."""
    UNFILLABLE = "unfillable"
    """A fill-or-kill order could not be filled when its stop price came, or after its way through the
    network."""
    BROKEN = "broken"
    """What is left of a fill-or-kill order of which another peer had executed a part when a further one
    refused."""
    POST_ONLY = "post_only"
    """A post-only order that would have taken a price at another peer."""


def conflict_of(terms: Terms) -> Code:
    """Whether the instructions of ``terms`` go together.

    Returns:
        ``OK``, ``INVALID_EXPIRY`` or ``CONFLICTING_TERMS``.
    """
    force = terms.time_in_force
    expires = terms.expires_ms is not None
    if expires is not (force is TimeInForce.GTD) or (expires and type(terms.expires_ms) is not int):
        return Code.INVALID_EXPIRY
    only_for_resting = terms.post_only is not None or terms.display is not None or force is TimeInForce.GTD
    if only_for_resting and not terms.rests:
        return Code.CONFLICTING_TERMS
    if terms.post_only is not None and terms.stop_price is not None:
        return Code.CONFLICTING_TERMS
    return Code.OK
