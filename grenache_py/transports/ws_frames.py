"""WebSocket frames, without any IO (RFC 6455)."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from functools import cache
from typing import Final

# Opcodes, RFC 6455 section 5.2.
CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_OPCODES: Final = frozenset({CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG})

# Close codes, RFC 6455 section 7.4.1.
NORMAL: Final = 1000
GOING_AWAY: Final = 1001
PROTOCOL_ERROR: Final = 1002
INVALID_TEXT: Final = 1007
POLICY_VIOLATION: Final = 1008
TOO_BIG: Final = 1009
INTERNAL_ERROR: Final = 1011
TRY_AGAIN_LATER: Final = 1013


# Up to here a payload is masked soonest as one large integer.
_ONE_INTEGER_BYTES: Final = 2048


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
