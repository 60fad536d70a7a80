"""The heads of HTTP/1.1 replies, as Node's ``http`` writes them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus

#: statuses whose replies have neither body nor Content-Length (RFC 9110 section 8.6)
NO_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})

_FRAMING_HEADERS = frozenset({"connection", "content-length", "date", "keep-alive", "transfer-encoding"})
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# Newer versions of Python give 413 another name.
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {413: "Payload Too Large"}


def join_headers(fields: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Names in lower case; the values of a repeated one joined by ``", "`` (RFC 9110 section 5.3)."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """Header lines. Raises ValueError for what would break the framing or is the server's own to say."""
    lines = []
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _FRAMING_HEADERS:
            raise ValueError(f"header name {name!r} is invalid or the server's own")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of header {name} has characters that headers cannot carry")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


class ReplyHeads:
    """Status line, Date and Connection: the same for all replies of one second, so they are made once."""

    def __init__(self, keep_alive_s: int) -> None:
        self._keep_alive_s = keep_alive_s
        self._heads: dict[tuple[int, bool], bytes] = {}
        self._second = 0

    def head(self, status: int, keep_alive: bool) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._heads.clear()
        head = self._heads.get((status, keep_alive))
        if head is None:
            kept = f"keep-alive\r\nKeep-Alive: timeout={self._keep_alive_s}" if keep_alive else "close"
            head = (
                f"HTTP/1.1 {status} {_PHRASES.get(status, 'unknown')}\r\n"
                f"Date: {formatdate(second, usegmt=True)}\r\n"
                f"Connection: {kept}\r\n"
            ).encode()
            self._heads[status, keep_alive] = head
        return head
