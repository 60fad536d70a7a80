"""What clients send, read and checked field by field: the bodies of requests and their query. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from .. import limits
from ..entry import NewOrder, NewQuote
from ..errors import InvalidFieldError
from ..model import Instrument
from ..signing.proofs import Proof

ORDER_FIELDS = ("market", "side", "quantity", "owner")
COMMON_FIELDS = ("market", "side", "owner")
PAIR_LEGS = ("resting", "stop")
PAIR_FIELDS = COMMON_FIELDS + PAIR_LEGS
QUOTES_FIELDS = ("market", "owner", "quotes")
OPTIONAL_ORDER_FIELDS = tuple(name for name in NewOrder._fields if name not in ORDER_FIELDS)


def json_object(body: bytes) -> dict[str, Any]:
    """What a client has sent. Raises InvalidFieldError."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidFieldError("body", f"must be a JSON object: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidFieldError("body", "must be a JSON object")
    return fields


def proof_of(field: object) -> Proof:
    """Raises InvalidFieldError."""
    try:
        return msgspec.convert(field, Proof)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidFieldError(
            "proof", f"must be what GET /trades/{{match_id}}/proof gives: {error}"
        ) from None


def leg_of(fields: dict[str, Any], name: str) -> NewOrder:
    """One order of a pair, whose common fields stand beside it. Raises InvalidFieldError."""
    for field in PAIR_FIELDS:
        if field not in fields:
            raise InvalidFieldError(field, "is required")
    check_known(fields, PAIR_FIELDS, "a pair")
    leg = fields[name]
    if not isinstance(leg, dict):
        raise InvalidFieldError(name, "must be a JSON object")
    for field in COMMON_FIELDS:
        if field in leg:
            raise InvalidFieldError(f"{name}.{field}", "is that of the pair, and stands beside its orders")
    order = {**{field: fields[field] for field in COMMON_FIELDS}, **leg}
    check_order_fields(order, f"{name}.")
    return NewOrder(*(order.get(field) for field in NewOrder._fields))


def quotes_of(fields: dict[str, Any]) -> list[NewQuote]:
    """Raises InvalidFieldError."""
    for name in QUOTES_FIELDS:
        if name not in fields:
            raise InvalidFieldError(name, "is required")
    check_known(fields, QUOTES_FIELDS, "a mass quote")
    quotes = fields["quotes"]
    if not isinstance(quotes, list) or not 1 <= len(quotes) <= limits.MASS_QUOTE:
        raise InvalidFieldError("quotes", f"must be a list of 1 to {limits.MASS_QUOTE} quotes")
    for place, quote in enumerate(quotes):
        if not isinstance(quote, dict):
            raise InvalidFieldError(f"quotes[{place}]", "must be a JSON object")
        check_known(quote, NewQuote._fields, "a quote", f"quotes[{place}].")
    return [NewQuote(*(quote.get(name) for name in NewQuote._fields)) for quote in quotes]


def check_order_fields(fields: dict[str, Any], of: str = "") -> None:
    """Whether a new order has the fields that it needs, and no others. Raises InvalidFieldError, which names
    them after ``of``."""
    required = ORDER_FIELDS if fields.get("type") == "market" else (*ORDER_FIELDS, "price")
    for name in required:
        if name not in fields:
            raise InvalidFieldError(of + name, "is required")
    check_known(fields, ORDER_FIELDS + OPTIONAL_ORDER_FIELDS, "an order", of)


def check_known(fields: dict[str, Any], known: Sequence[str], what: str, of: str = "") -> None:
    """Whether ``fields`` are all among ``known``: a mistyped one is not silently left out."""
    for name in fields:
        if name not in known:
            names = ", ".join(known)
            raise InvalidFieldError(
                of + name[: limits.NAME_LENGTH], f"is no field of {what}; they are {names}"
            )


def page_of(query: Mapping[str, str]) -> tuple[int, int]:
    """``after`` and ``limit``. Raises InvalidFieldError."""
    return number(query, "after", 0, 0, 2**63), page_limit(query)


def page_limit(query: Mapping[str, str]) -> int:
    """Rows of a page at the most. Raises InvalidFieldError."""
    return number(query, "limit", limits.PAGE_DEFAULT, 1, limits.PAGE_MAX)


def filled_of(query: Mapping[str, str], instrument: Instrument) -> int | None:
    """``filled`` in lots, or None. Raises InvalidFieldError."""
    text = query.get("filled")
    return 0 if text == "0" else None if text is None else instrument.quantity(text, "filled")


def number(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
        return int(text)
    raise InvalidFieldError(name, f"must be a whole number from {least} to {most}")
