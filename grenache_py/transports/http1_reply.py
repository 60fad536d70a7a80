"""Reads HTTP/1.1 replies, without any IO: bytes in, whole replies out. For the clients of both flavours.

``httptools`` parses; this decides where a reply ends, how long its connection may be kept, and when it is
too much. Message syntax and framing: RFC 9112.
"""

from __future__ import annotations

from typing import Any

import httptools

from .. import limits
from ..wire import HttpReply
from .http1_head import join_headers


class BrokenReplyError(Exception):
    """What came is no HTTP, or not one reply to one request."""


class OversizedReplyError(Exception):
    """More came than we are willing to hold."""


class ReplyParser:
    """Parses the replies of one connection, one at a time.

    ``feed`` what comes until it says that the reply is whole, then ``take`` it. ``max_bytes`` limits its
    body (``None``: the caller takes the ``body`` away as it comes).
    """

    def __init__(self, max_bytes: int | None):
        self._max_bytes = max_bytes
        self._parser: Any = httptools.HttpResponseParser(self)
        self._problem = ""
        self._begin()

    def _begin(self) -> None:
        #: pieces of the body, in order
        self.body: list[bytes] = []
        #: whether the head has come: the status and ``headers`` are known
        self.head_done = False
        #: for how many seconds the connection may be kept after this reply; not at all when it is not above 0
        self.keep_s = limits.IDLE_CONNECTION_S
        self._size = self._bytes = 0
        self._encoding = ""
        self._headers: list[tuple[bytes, bytes]] = []
        self._framed = self._whole = False

    @property
    def status(self) -> int:
        """Of the reply that is being read."""
        return int(self._parser.get_status_code())

    @property
    def headers(self) -> dict[str, str]:
        """Names in lower case; the values of a repeated one joined by ``", "``."""
        return join_headers(self._headers)

    def feed(self, data: bytes) -> bool:
        """Go on with ``data``; returns whether the reply is whole.

        Raises ``BrokenReplyError`` or ``OversizedReplyError``; the parser is of no use after that.
        """
        self._bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise BrokenReplyError("it switched to another protocol") from None
        except httptools.HttpParserError as error:
            raise BrokenReplyError(f"not HTTP: {error}") from None
        if self._max_bytes is not None and self._size > self._max_bytes:
            raise OversizedReplyError(f"a reply of more than {self._max_bytes} bytes")
        if self._problem:
            raise BrokenReplyError(self._problem)
        if self._whole:
            return True
        # Each byte of body may come with its own chunk size; beyond that it is endless headers, trailers or
        # chunk extensions.
        if self._bytes > limits.REPLY_HEAD_BYTES_MAX + 8 * self._size:
            raise OversizedReplyError(
                f"a reply with more than {limits.REPLY_HEAD_BYTES_MAX} bytes of headers"
            )
        return False

    def end(self) -> bool:
        """The connection has ended; returns whether that is how the reply ends (RFC 9112 section 6.3)."""
        self.keep_s = 0.0
        return self.head_done and not self._framed

    def take(self) -> HttpReply:
        """The whole reply; what is fed next belongs to another one."""
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        reply = HttpReply(self._parser.get_status_code(), self._encoding, body, self._headers)
        self._begin()
        return reply

    def close(self) -> None:
        """The parser holds our methods and we hold it: a cycle for the collector unless it is broken here."""
        self._parser = None

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self._whole:
            self._problem = "a second reply to one request"

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        size = len(name)
        if size == 10:
            if name.lower() == b"keep-alive":
                self._read_keep_alive(value)
        elif size == 14:
            if name.lower() == b"content-length":
                self._framed = True
        elif size == 16:
            if name.lower() == b"content-encoding":
                self._encoding = value.decode("latin-1").lower()
        elif size == 17 and name.lower() == b"transfer-encoding" and value.lower().endswith(b"chunked"):
            self._framed = True

    def _read_keep_alive(self, value: bytes) -> None:
        # "timeout=5, max=100": one second less than that, as Node's clients do.
        for part in value.split(b","):
            word, _, number = part.strip().partition(b"=")
            if word.lower() == b"timeout" and number.isdigit() and len(number) < 10:
                self.keep_s = min(self.keep_s, int(number) - 1)

    def on_headers_complete(self) -> None:
        self.head_done = self._parser.get_status_code() >= 200

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._max_bytes is None or self._size <= self._max_bytes:
            self.body.append(data)

    def on_message_complete(self) -> None:
        if self._problem:
            return
        if not self.head_done:
            self._begin()  # an interim reply (RFC 9110 section 15.2); the real one follows
            return
        self._whole = True
        if not self._parser.should_keep_alive():
            self.keep_s = 0.0
