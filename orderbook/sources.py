"""Where a worker's time, ids and random numbers come from; everything below it is given them."""

from __future__ import annotations

import secrets
from time import monotonic, time_ns


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self.monotonic = monotonic  # itself, since it is asked for each message

    def time_ms(self) -> int:
        return time_ns() // 1_000_000


class IdSource:
    """Ids that are unique in the network and over restarts: a random start-up part and a count."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8)
        self._count = 0

    def next(self) -> str:
        self._count += 1
        return f"{self._start}-{self._count}"


def new_nonce() -> str:
    return secrets.token_hex(16)


def new_secret() -> bytes:
    return secrets.token_bytes(32)
