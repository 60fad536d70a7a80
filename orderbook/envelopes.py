"""Messages put into envelopes, and JSON read as messages, validated. No IO."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct, defstruct, field

from grenache_py.codec import decode_json

from .errors import ProtocolError
from .messages import (
    AnnounceOpenOrder,
    CrossPeerMatch,
    Envelope,
    Goodbye,
    Heartbeat,
    MatchAnswer,
    Name,
    Offer,
    ReleaseLock,
)

REQUESTS: dict[str, type[Struct]] = {
    kind.__name__: kind for kind in (AnnounceOpenOrder, CrossPeerMatch, ReleaseLock, Heartbeat, Goodbye)
}
"""What each ``type`` of request has as its ``payload``."""

Message = TypeVar("Message", bound=Struct)


def parse(payload: object, kind: type[Message]) -> Message:
    """``payload``, decoded JSON, as a ``kind``, which it may be already.

    Raises:
        ProtocolError: It is not one; the text names the field and the rule.
    """
    if isinstance(payload, kind):
        return payload
    try:
        return msgspec.convert(payload, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise ProtocolError(f"{kind.__name__}: {error}") from error


def request(sender: str, message: Struct) -> Envelope:
    """The request that carries ``message`` from the peer ``sender``."""
    return Envelope(type(message).__name__, sender, message)


def parse_request(payload: object) -> tuple[str, Any]:
    """Sender and message of a request, decoded JSON. Raises ProtocolError."""
    envelope = parse(payload, Envelope)
    kind = REQUESTS.get(envelope.type)
    if kind is None:
        raise ProtocolError(f"type must be one of {', '.join(REQUESTS)}")
    return envelope.sender, parse(envelope.payload, kind)


def plain(message: Any) -> Any:
    """A message as plain dicts and lists."""
    return msgspec.to_builtins(message)


# -- JSON ----------------------------------------------------------------------------------------------------


def _envelope(kind: type[Struct]) -> type[Struct]:
    """An :class:`Envelope` of this kind alone, so that all of one is read in one go; without any field
    besides, such as those of a signature."""
    fields: list[Any] = [("sender", Name, field(name="from")), ("payload", kind)]
    name = kind.__name__
    return defstruct(f"{name}Envelope", fields, tag_field="type", tag=name, forbid_unknown_fields=True)


_envelopes: Any = reduce(or_, map(_envelope, REQUESTS.values()))
_read_envelope: Final = msgspec.json.Decoder(_envelopes).decode
UNREAD: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What is raised by the quick readers below: it is no such message, or one that is only read with care."""

encode: Final = msgspec.json.Encoder().encode
"""A message as JSON."""


def _unsigned(kind: type[Struct]) -> Any:
    """A ``kind`` without any field besides, such as those of a signature."""
    return defstruct(f"Unsigned{kind.__name__}", (), bases=(kind,), forbid_unknown_fields=True)


_read_offer: Final = msgspec.json.Decoder(_unsigned(Offer) | None).decode
_read_match_answer: Final = msgspec.json.Decoder(_unsigned(MatchAnswer)).decode


def decode(data: bytes) -> Any:
    """JSON as it came, read as tolerantly as what comes over HTTP. Raises ProtocolError."""
    try:
        return decode_json(data)
    except ValueError as error:
        raise ProtocolError(f"no JSON: {error}") from error


def read_request(data: bytes) -> tuple[str, Any]:
    """What :func:`parse_request` makes of the JSON ``data``, where that is without fault and not signed; else
    raises one of :data:`UNREAD`."""
    envelope = _read_envelope(data)
    return envelope.sender, envelope.payload


def may_open_session(data: bytes) -> bool:
    """Whether it has to be looked at whether a request is an :class:`OpenSession`."""
    return b'"OpenSession"' in data


def read_offer(data: bytes) -> Offer | None:
    """The JSON ``data`` as an answer to an AnnounceOpenOrder, where that is without fault, not signed and no
    :class:`NoOffer`; else raises one of :data:`UNREAD`."""
    offer: Offer | None = _read_offer(data)
    if offer is not None and offer.key is not None:
        raise msgspec.ValidationError("who names a key signs")
    return offer


def read_match_answer(data: bytes) -> MatchAnswer:
    """As :func:`read_offer`, of an answer to a CrossPeerMatch."""
    answer: MatchAnswer = _read_match_answer(data)
    return answer
