"""Heads of requests that were parsed before: a client on a kept connection sends one and the same again.

What a head means depends on nothing but its bytes, once a message begins there; so one that ``httptools``
has accepted need not be parsed again.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from .http1_head import join_headers

_END: Final = b"\r\n\r\n"
_HEAD_BYTES_MAX: Final = 1024
# All are forgotten when there are so many: clients whose every head differs must not fill the memory.
_HEADS_MAX: Final = 256
# Whose body is not told by a plain Content-Length, or who wait before they send it.
_UNFIT: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class KnownHead(NamedTuple):
    method: str
    target: str
    headers: list[tuple[bytes, bytes]]
    header_map: Mapping[str, str]
    body_bytes: int


class KnownHeads:
    """Heads of requests that are framed by Content-Length and keep their connection; bounded."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, data: bytes) -> tuple[KnownHead, bytes] | None:
        """The known head and the body, when ``data`` is one whole request and nothing else."""
        end = data.find(_END) + len(_END)
        known = self._heads.get(data[:end])
        if known is None or len(data) - end != known.body_bytes:
            return None
        return known, data[end:]

    def learn(
        self, data: bytes, method: str, target: str, headers: list[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """``data`` was parsed as a request of these parts, after which the connection is kept."""
        end = data.find(_END) + len(_END)
        if end > _HEAD_BYTES_MAX or data[end:] != body or any(name.lower() in _UNFIT for name, _ in headers):
            return
        if len(self._heads) >= _HEADS_MAX:
            self._heads.clear()
        self._heads[data[:end]] = KnownHead(
            method, target, headers, MappingProxyType(join_headers(headers)), len(body)
        )
