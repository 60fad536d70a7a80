"""WebSocket frames and the RPC messages in them, without any IO (RFC 6455).

A request is the text message ``[rid, key, payload]``, a reply ``[rid, error, result]``, both JSON. Mirrors
grenache-nodejs-ws 1.0.0 (lib/TransportRPCClient.js, lib/TransportRPCServer.js). Ours: a fourth element of a
request may hold headers, an object of texts.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from .. import limits
from ..checks import check_name
from ..codec import decode_json, encode_json
from ..errors import ArgumentError, RemoteError, StatusError
from ..wire import DEADLINE_HEADER, encode_deadline, extra_headers

# Opcodes, RFC 6455 section 5.2.
CONTINUATION = 0
TEXT = 1
BINARY = 2
CLOSE = 8
PING = 9
PONG = 10

_OPCODES = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

# Close codes, RFC 6455 section 7.4.1.
NORMAL = 1000
GOING_AWAY = 1001
PROTOCOL_ERROR = 1002
INVALID_TEXT = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011
TRY_AGAIN_LATER = 1013


# Up to here a payload is masked soonest as one large integer.
_ONE_INTEGER_BYTES = 2048


class FrameError(Exception):
    """A frame breaks a rule of the protocol; ``code`` is what the connection is closed with."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code
        self.message = message


class Frames:
    """Cuts what comes from a server into frames (RFC 6455 section 5.2), each of at most ``max_bytes``."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []  # of a frame that is not whole
        self._held = 0
        self._wanted = 0

    @property
    def missing(self) -> int:
        """How many bytes, at least, are still to come of the frame that is being read; 0 between frames."""
        return self._wanted - self._held if self._parts else 0

    def feed(self, data: bytes) -> list[tuple[int, bool, bytes]]:
        """The frames that are whole now: opcode, whether it ends its message, payload.

        Raises ``FrameError``; this is of no use after that.
        """
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._wanted:
                return []
            data, self._parts = b"".join(self._parts), []
        frames = []
        start, end = 0, len(data)
        while start < end:
            head_size, size = self._head(data, start, end)
            if end - start < head_size + size:
                self._parts, self._held, self._wanted = [data[start:]], end - start, head_size + size
                break
            payload = start + head_size
            first = data[start]
            start = payload + size
            frames.append((first & 0x0F, first >= 0x80, data[payload:start]))
        return frames

    def _head(self, data: bytes, start: int, end: int) -> tuple[int, int]:
        """The size of a frame's head and of its payload, as far as they are known."""
        if end - start < 2:
            return 2, 0
        first, size = data[start], data[start + 1]
        opcode = first & 0x0F
        if first & 0x70:
            raise FrameError(PROTOCOL_ERROR, "a frame of an extension that nobody asked for")
        if size & 0x80:
            raise FrameError(PROTOCOL_ERROR, "a masked frame from a server")
        if opcode not in _OPCODES or (opcode >= CLOSE and (size > 125 or first < 0x80)):
            raise FrameError(PROTOCOL_ERROR, "a frame of an unknown kind, or a control frame in parts")
        if size < 126:
            return 2, size
        head_size = 4 if size == 126 else 10
        if end - start < head_size:
            return head_size, 0
        size = int.from_bytes(data[start + 2 : start + head_size], "big")
        if size > self._max_bytes:
            raise FrameError(TOO_BIG, f"a message of more than {self._max_bytes} bytes")
        return head_size, size


class Messages:
    """Joins frames into messages of at most ``max_bytes``. Control frames are not its business."""

    def __init__(self, max_bytes: int):
        self._max_bytes = max_bytes
        self._opcode = 0
        self._parts = bytearray()
        #: whether the last frame of a message is still to come
        self.begun = False

    def feed(self, opcode: int, fin: bool, payload: bytes) -> tuple[int, bytes] | None:
        """The message that this data frame ends, as its opcode and content; ``None`` while it goes on.

        Raises ``FrameError`` for what may not follow what came before, for messages that are too large, and
        for text that is not UTF-8. Of a message that comes in one frame nothing is copied.
        """
        if opcode and fin and not self.begun and len(payload) <= self._max_bytes:
            return _message(opcode, payload)  # as nearly all are
        if opcode == CONTINUATION:
            if not self.begun:
                raise FrameError(PROTOCOL_ERROR, "a continuation of nothing")
            opcode = self._opcode
        elif self.begun:
            raise FrameError(PROTOCOL_ERROR, "a new message within another")
        if len(self._parts) + len(payload) > self._max_bytes:
            raise FrameError(TOO_BIG, f"a message of more than {self._max_bytes} bytes")
        self._opcode, self.begun = opcode, not fin
        self._parts += payload
        if self.begun:
            return None
        whole, self._parts = bytes(self._parts), bytearray()
        return _message(opcode, whole)


def _message(opcode: int, payload: bytes) -> tuple[int, bytes]:
    if opcode == TEXT and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(INVALID_TEXT, "text that is not UTF-8") from None
    return opcode, payload


def encode_frame(opcode: int, payload: bytes, mask: bytes | None = None) -> bytes:
    """One whole message as a frame. A client gives a ``mask`` of 4 random bytes (RFC 6455 section 5.3)."""
    size = len(payload)
    start = 0x8000 | opcode << 8 | (0 if mask is None else 0x80)
    if size < 126:
        head = (start | size).to_bytes(2, "big")
    elif size < 0x10000:
        head = ((start | 126) << 16 | size).to_bytes(4, "big")
    else:
        head = ((start | 127) << 64 | size).to_bytes(10, "big")
    if mask is None:
        return head + payload
    if size > _ONE_INTEGER_BYTES:
        masked = bytearray(payload)
        for at, byte in enumerate(mask):
            masked[at::4] = payload[at::4].translate(_masked_by(byte))
        return head + mask + masked
    repeated = (mask * (size // 4 + 1))[:size]
    hidden = int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")
    return head + mask + hidden.to_bytes(size, "little")


@cache
def _masked_by(byte: int) -> bytes:
    """What each byte becomes, for ``bytes.translate``."""
    return bytes(byte ^ each for each in range(256))


def encode_close(code: int, reason: str = "") -> bytes:
    """The payload of a frame that ends a connection."""
    return code.to_bytes(2, "big") + reason.encode()[:123]


def masks(pool_bytes: int = 4096) -> Iterator[bytes]:
    """Masks, drawn from the system's randomness many at a time."""
    while True:
        pool = os.urandom(pool_bytes)
        for start in range(0, pool_bytes, 4):
            yield pool[start : start + 4]


def check_handshake(head: bytes, key: bytes) -> dict[bytes, bytes]:
    """The headers of the answer to a client's handshake, names in lower case; ``head`` is without its empty
    line (RFC 6455 section 4.1). Raises ``FrameError``.
    """
    status, *lines = head.split(b"\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    if not status.startswith(b"HTTP/1.1 101") or headers.get(b"sec-websocket-accept") != accept:
        raise FrameError(PROTOCOL_ERROR, "no WebSocket: the handshake was refused")
    if headers.get(b"sec-websocket-extensions"):
        raise FrameError(PROTOCOL_ERROR, "an extension that nobody asked for")
    return headers


# --- RPC

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


def encode_call(rid: str, key: str, payload: Any) -> bytes:
    """A request. Raises ``ArgumentError``."""
    return encode_json([rid, check_name(key, "key"), payload])


def encode_call_end(key: str, payload: Any) -> bytes:
    """What follows the rid in a request, for ``join_call``. Raises ``ArgumentError``."""
    return encode_json([check_name(key, "key"), payload])[1:]


def join_call(rid: str, end: bytes) -> bytes:
    """A request; ``rid`` is one of ``wire.rids``."""
    return b'["%b",%b' % (rid.encode(), end)


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


class Answer(msgspec.Struct, array_like=True, gc=False):
    """A reply."""

    rid: str
    error: Any = None
    result: Any = None


_answers = msgspec.json.Decoder(Answer)


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
