"""What clients ask for, unchecked: new orders, changes of orders. ``entry_checks`` makes orders of them."""

from __future__ import annotations

from typing import NamedTuple


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
