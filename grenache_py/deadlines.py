"""Time limits of calls, as points on the clock of ``time.monotonic``."""

from __future__ import annotations

from time import monotonic

from .checks import check_seconds


def ends_at(timeout: object) -> float:
    """When a call that begins now has to end. Raises ``ArgumentError``."""
    return monotonic() + check_seconds(timeout)


def left_s(ends: float) -> float:
    """The seconds that are left until then; always a little."""
    left = ends - monotonic()
    return left if left > 0.001 else 0.001
