"""A connection changes hands: what one protocol has accepted, another goes on with (RFC 9110 section 7.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any


def request_head(
    method: str, target: str, headers: Iterable[tuple[bytes, bytes]], version: str = "1.1"
) -> bytes:
    """The head of a request as it came, for who reads it again."""
    lines = [f"{method} {target} HTTP/{version}\r\n".encode("latin-1")]
    lines += [b"%b: %b\r\n" % header for header in headers]
    return b"".join((*lines, b"\r\n"))


def without_upgrade(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers of a request that stays with HTTP."""
    return [header for header in headers if header[0].lower() != b"upgrade"]


def move(transport: asyncio.Transport, protocol: asyncio.BaseProtocol, data: bytes) -> None:
    """Give a connection to another protocol, as if it had just been made and ``data`` had come on it."""
    transport.pause_reading()  # a loop may read differently for a protocol that has a buffer
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
    feed(transport, protocol, data)
    if not transport.is_closing():
        transport.resume_reading()


def feed(transport: asyncio.Transport, protocol: Any, data: bytes) -> None:
    """Give ``data`` to the protocol of a connection, as if it had come just now."""
    if not hasattr(protocol, "get_buffer"):  # uvloop's TLS is not of asyncio's classes
        if data:
            protocol.data_received(data)
        return
    view = memoryview(data)
    while view and not transport.is_closing():
        buffer = protocol.get_buffer(len(view))
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
