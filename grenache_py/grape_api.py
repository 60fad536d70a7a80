"""The Grape's HTTP API from a caller's side, without any IO: request data, and what replies mean.

A request is ``POST /{lookup,announce,put,get}`` with a body ``{"rid": …, "data": …}``. A Grape reports most
errors as a JSON string with status 200 (grenache-grape/lib/Grape.js), so whether a text is a result depends
on the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import limits
from .checks import check_hash, is_destination, is_hash
from .codec import decode_json, encode_json
from .errors import AnnounceError, ArgumentError, GrapeReplyError, LookupEmptyError
from .put_report import PutReport, read_put_report
from .wire import HttpReply, plain_body

HEADERS = {"Content-Type": "application/json"}

WITHDRAW_TIMEOUT_S = 0.5
"""A Grape is told that a service has stopped, and not waited for longer than this."""

RENEWABLE = frozenset({"No nodes to query", "All queries failed"})
"""Replies to ``announce`` that a Grape may give because of its own outdated table, which a look-up renews."""


def encode_grape_request(rid: str, data: Any) -> bytes:
    """The body of ``POST /{lookup,announce,put,get}``: ``{"rid": …, "data": …}``."""
    return encode_json({"rid": rid, "data": data}, "data")


def decode_grape_reply(reply: HttpReply, grape: str, kind: str) -> Any:
    """The JSON in a Grape's reply, ``None`` for an empty body (a missing item).

    Raises ``GrapeReplyError`` for a status other than 2xx. Texts are returned: whether one is a result or
    an error depends on ``kind``, since Grapes report most errors as a JSON string with status 200.
    """
    try:
        body = plain_body(reply)
    except ValueError as error:
        raise GrapeReplyError(grape, kind, f"unreadable reply: {error}", reply.status) from None
    try:
        value = decode_json(body) if body else None
    except ValueError:
        value = body[: limits.ERROR_TEXT_MAX].decode("utf-8", "replace")
        if 200 <= reply.status < 300:
            raise GrapeReplyError(grape, kind, f"not JSON: {value}", reply.status) from None
    if not 200 <= reply.status < 300:
        raise GrapeReplyError(grape, kind, _short(value), reply.status)
    return value


def lookup_result(value: Any, grape: str, name: str) -> list[str]:
    """Destinations ``host:port`` from a reply to ``lookup``, at most ``limits.DESTINATIONS_MAX``.

    Entries that are none, and repeated ones, are left out. Raises ``LookupEmptyError`` when none is left,
    ``GrapeReplyError`` for an error text (which Node reports as an empty look-up), and for an array of other
    things, which is what a service answers.
    """
    if isinstance(value, list):
        unique = dict.fromkeys(entry for entry in value if is_destination(entry))
        destinations = list(unique)[: limits.DESTINATIONS_MAX]
        if destinations:
            return destinations
        if not all(isinstance(entry, str) for entry in value):
            raise GrapeReplyError(grape, "lookup", f"this is no Grape, its answer is {_short(value)}", 200)
    elif value is not None:
        raise GrapeReplyError(grape, "lookup", _short(value), 200)
    raise LookupEmptyError(grape, name)


def announce_result(value: Any, grape: str) -> int:
    """How many Grapes took an announcement. Raises ``AnnounceError`` for an error text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise AnnounceError(grape, "announce", _short(value), 200)


def put_request(
    value: str,
    *,
    k: bytes | None = None,
    sig: bytes | None = None,
    seq: int | None = None,
    salt: bytes | None = None,
    cas: int | None = None,
) -> dict[str, Any]:
    """The data of ``put``: ``{"v": …}``, and the fields of a mutable item (BEP 44) when ``k`` is given.

    Raises ``ArgumentError``. Only text can be stored: a Grape gives any other value back as text.
    """
    if not isinstance(value, str):
        raise ArgumentError("value", f"must be a text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ArgumentError("value", "must not contain half of a surrogate pair") from None
    if size > limits.VALUE_BYTES_MAX:
        raise ArgumentError("value", f"must be at most {limits.VALUE_BYTES_MAX} bytes of UTF-8, not {size}")
    mutable = {"k": k, "sig": sig, "seq": seq, "salt": salt, "cas": cas}
    if k is None:
        for field, given in mutable.items():
            if given is not None:
                raise ArgumentError(field, "belongs to a mutable item, which needs k")
        return {"v": value}
    for field, data, size in (("k", k, 32), ("sig", sig, 64)):
        if not isinstance(data, bytes) or len(data) != size:
            raise ArgumentError(field, f"must be {size} bytes")
    for field, number in (("seq", seq), ("cas", cas)):
        if number is None and field == "cas":
            continue
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise ArgumentError(field, f"must be an integer from 0, not {number!r}")
    request: dict[str, Any] = {"v": value, "k": k.hex(), "sig": sig.hex() if sig else None, "seq": seq}
    if salt is not None:
        if not isinstance(salt, bytes) or not 1 <= len(salt) <= 64:
            raise ArgumentError("salt", "must be 1 to 64 bytes")
        # Text would be tried as JSON by the Grape; this form is always taken as these bytes.
        request["salt"] = {"type": "Buffer", "data": list(salt)}
    if cas is not None:
        request["cas"] = cas
    return request


def decode_put_reply(reply: HttpReply, grape: str, kind: str = "put") -> tuple[str, PutReport | None]:
    """The key under which a value was stored (40 hex digits), and what the Grape reports.

    Raises ``GrapeReplyError``, with that report, for anything else.
    """
    report = read_put_report(reply.headers)
    try:
        value = decode_grape_reply(reply, grape, kind)
    except GrapeReplyError as error:
        raise GrapeReplyError(grape, kind, error.text, error.status, report) from None
    if is_hash(value):
        return value, report
    raise GrapeReplyError(grape, kind, _short(value), 200, report)


def as_reported(put: tuple[str, PutReport | None], grape: str) -> tuple[str, PutReport | None]:
    """What ``decode_put_reply`` has read is the result already."""
    return put


@dataclass(frozen=True)
class Item:
    """A stored value (BEP 44). ``value`` is its text; the rest is set for mutable items only.

    ``seq`` is its version, ``k`` the public key and ``sig`` the signature.
    """

    value: str
    seq: int | None = None
    k: bytes | None = None
    sig: bytes | None = None


def get_request(hash: str, salt: bytes | None = None, fresh: bool = False) -> Any:
    """The data of ``get``: the hash, or ``{"hash", "salt", "cache"}``. Raises ``ArgumentError``."""
    if salt is None and not fresh:
        return check_hash(hash)
    request: dict[str, Any] = {"hash": check_hash(hash)}
    if salt is not None:
        if not isinstance(salt, bytes) or not 1 <= len(salt) <= 64:
            raise ArgumentError("salt", "must be 1 to 64 bytes")
        request["salt"] = {"type": "Buffer", "data": list(salt)}
    if fresh:
        request["cache"] = False
    return request


def get_result(value: Any, grape: str) -> Item | None:
    """The item in a reply to ``get``, ``None`` when there is none. Raises ``GrapeReplyError`` for an error
    text.
    """
    if value is None:
        return None
    if isinstance(value, dict) and isinstance(value.get("v"), str):
        seq = value.get("seq")
        return Item(
            value["v"],
            seq if isinstance(seq, int) else None,
            _bytes(value.get("k")),
            _bytes(value.get("sig")),
        )
    raise GrapeReplyError(grape, "get", _short(value), 200)


def _bytes(value: Any) -> bytes | None:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _short(value: Any) -> str:
    """A reply as a text for an error message."""
    text = value if isinstance(value, str) else encode_json(value).decode()
    return text[: limits.ERROR_TEXT_MAX]
