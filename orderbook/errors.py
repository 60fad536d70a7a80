"""What the order book refuses, and why.

    OrderBookError                 code
    ├── InvalidFieldError          invalid_field     a field breaks a rule; ``field`` names it
    ├── UnknownMarketError         unknown_market    this peer does not trade it
    ├── UnknownOrderError          unknown_order     no such order here (or swept long after it closed)
    ├── OrderClosedError           order_closed      it is filled or cancelled already
    ├── OrderRefusedError          (the engine's)    a rule of the book forbids it; see docs/engine.md
    ├── UnderWayError              under_way         the order is on its way through the network
    ├── DuplicateOrderError        duplicate_order   the client order id was used for a different order
    ├── BusyError                  busy              a bound is reached; try again later
    ├── ProtocolError              protocol          a peer said what the protocol does not allow
    ├── IdentityError              identity          a key, or the file of one, can't be used
    ├── ProofError                 invalid_proof     a proof does not prove a trade
    ├── UnknownDoubtError          unknown_doubt     no confirmation of that match is in doubt here
    ├── UnknownProofError          unknown_proof     there is no proof of such a match here
    ├── HistoryLostError           history_lost      the trades after that place can't be told
    └── JournalError               journal           the journal can't be read or written; see its text

Every one changes nothing: what raised it left the book as it was.
"""

from __future__ import annotations


class OrderBookError(Exception):
    """The common base; ``code`` is stable and meant for programs, the text for people."""

    code = "error"


class InvalidFieldError(OrderBookError):
    """A field breaks a rule.

    Attributes:
        field: Its name as the client wrote it.
        rule: What it must be.
    """

    code = "invalid_field"

    def __init__(self, field: str, rule: str):
        super().__init__(f"{field} {rule}")
        self.field = field
        self.rule = rule


class UnknownMarketError(OrderBookError):
    code = "unknown_market"


class UnknownOrderError(OrderBookError):
    code = "unknown_order"


class OrderClosedError(OrderBookError):
    code = "order_closed"


class OrderRefusedError(OrderBookError):
    """The book refuses an order, or a change of one.

    Attributes:
        code: Why, the value of an :class:`orderbook.engine.Code`: ``"post_only_crosses"``, ….
    """

    def __init__(self, code: str, rule: str):
        super().__init__(rule)
        self.code = code


class UnderWayError(OrderBookError):
    code = "under_way"


class DuplicateOrderError(OrderBookError):
    code = "duplicate_order"


class BusyError(OrderBookError):
    code = "busy"


class ProtocolError(OrderBookError):
    code = "protocol"


class IdentityError(OrderBookError):
    code = "identity"


class ProofError(OrderBookError):
    code = "invalid_proof"


class UnknownProofError(OrderBookError):
    code = "unknown_proof"


class UnknownDoubtError(OrderBookError):
    code = "unknown_doubt"


class HistoryLostError(OrderBookError):
    """Which trades came after a place in the trades of a peer can't be told: they are forgotten, or the peer
    has begun anew since."""

    code = "history_lost"


class JournalError(OrderBookError):
    code = "journal"
