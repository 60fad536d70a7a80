"""How old something is that is kept by when it ends."""

from __future__ import annotations


def age_s(now: float, ends: float, max_age_s: float) -> float:
    """Seconds since what ends at ``ends`` was ``max_age_s`` away from that; never below 0, which the rounding
    of floats may make of what has just been kept."""
    return max(0.0, now - (ends - max_age_s))
