"""RPC messages over WebSocket, without any IO.

A request is the text message ``[rid, key, payload]``, a reply ``[rid, error, result]``, both JSON. Mirrors
grenache-nodejs-ws 1.0.0 (lib/TransportRPCClient.js, lib/TransportRPCServer.js). Ours: a fourth element of a
request may hold headers, an object of texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .. import limits
from ..checks import check_name
from ..codec import decode_json, encode_json
from ..errors import ArgumentError, RemoteError, StatusError
from ..rpc_frames import Answer
from ..wire import DEADLINE_HEADER, encode_deadline, extra_headers

HEADERS_OFFER = "grc-headers"
"""Ours: a header of a handshake, with which a client asks whether headers may go with each call, and of the
answer, with which a server says so; its value is 1.

It is no subprotocol: a Node server would agree to any that it is offered.
"""

# What says over HTTP how a body is to be read; a message says it all itself.
_NOT_IN_MESSAGES = frozenset({"_gr", "grc-compress"})
# Of the headers of a handshake, what speaks of a single request.
NOT_OF_HANDSHAKES = _NOT_IN_MESSAGES | {DEADLINE_HEADER, "traceparent", "tracestate", "baggage"}

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")


def encode_call(rid: str, key: object, payload: Any) -> bytes:
    """A request. Raises ``ArgumentError``."""
    return encode_json([rid, check_name(key, "key"), payload])


def encode_call_end(key: object, payload: Any) -> bytes:
    """What follows the rid in a request, for ``join_call``. Raises ``ArgumentError``."""
    return encode_json([check_name(key, "key"), payload])[1:]


def join_call(rid: str, end: bytes) -> bytes:
    """A request; ``rid`` is one of ``wire.rids``."""
    return b'["' + rid.encode() + b'",' + end


def encode_headers(extra: Mapping[str, Any] | None, deadline_s: float | None) -> bytes:
    """The headers of one call, as they stand in its message: none where nothing is to be said. Values that
    are no text are sent as JSON. ``deadline_s`` is what the server is told of the time. Raises
    ``ArgumentError``.
    """
    headers = {} if extra is None else {name.lower(): value for name, value in extra_headers(extra)}
    if deadline_s is not None:
        headers[DEADLINE_HEADER] = encode_deadline(deadline_s)
    if not _fit(headers):
        raise ArgumentError(
            "headers",
            f"must be at most {limits.MESSAGE_HEADERS_MAX}, of {limits.MESSAGE_HEADERS_BYTES} bytes in all",
        )
    return encode_json(headers) if headers else b""


def add_headers(request: bytes, headers: bytes) -> bytes:
    """A request with headers, as its fourth element."""
    return b"%b,%b]" % (request[:-1], headers)


def decode_headers(extra: Any) -> dict[str, str]:
    """The headers in the fourth element of a request, names in lower case. None are taken from what is not
    made as ours are, since other servers pass it over as well.
    """
    if not isinstance(extra, dict) or not all(isinstance(value, str) for value in extra.values()):
        return {}
    headers: dict[str, str] = {name.lower(): value for name, value in extra.items()}
    if not _fit(headers):
        return {}
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
            return {}
    return {name: value for name, value in headers.items() if name not in _NOT_IN_MESSAGES}


def _fit(headers: dict[str, str]) -> bool:
    return (
        len(headers) <= limits.MESSAGE_HEADERS_MAX
        and sum(map(len, headers)) + sum(map(len, headers.values())) <= limits.MESSAGE_HEADERS_BYTES
    )


_answers: Final = msgspec.json.Decoder(Answer)


def decode_answer(message: bytes) -> Answer | None:
    """A reply; ``None`` for whatever is none, which Node ignores as well (or ends its process)."""
    try:
        return _answers.decode(message)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # no reply, or what only decode_json takes
    try:
        frame = decode_json(message)
    except ValueError:
        return None
    if type(frame) is not list or not frame or type(frame[0]) is not str:
        return None
    return Answer(*frame[:3])


_STATUSES = {"ERR_BUSY": 503, "ERR_TIMEOUT": 504}


def result_of(answer: Answer, destination: str) -> Any:
    """The result in a reply; raises ``RemoteError`` when its error is truthy in the sense of JavaScript.

    ``ERR_BUSY`` and ``ERR_TIMEOUT``, which our servers say in a handler's place, are the ``StatusError`` that
    they are over HTTP, so that the call may go on to another peer.
    """
    error, result = answer.error, answer.result
    if error is None:
        return result
    if isinstance(error, str) and error in _STATUSES:
        failure = StatusError(destination, _STATUSES[error], error)
        failure.code = error
        failure.in_doubt = not failure.busy
        raise failure
    if error or isinstance(error, (list, dict)):
        text = error if isinstance(error, str) else encode_json(error).decode()
        raise RemoteError(destination, text, result)
    return result
