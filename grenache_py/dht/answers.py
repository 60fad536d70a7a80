"""Answers to look-ups that are given again for a moment: a name in demand is not walked for each time.
IO-free.

Empty ones are never kept: who is announced is found at once.
"""

from __future__ import annotations

from random import Random

from .bounds import ANSWER_MAX_AGE_S, ANSWERS_MAX


class Answers:
    """Peers by name, bounded in count and age."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._answers: dict[bytes, tuple[float, list[bytes]]] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def keep(self, name: bytes, peers: list[bytes], now: float) -> None:
        if peers:
            if len(self._answers) >= ANSWERS_MAX:
                self._answers.clear()
            self._answers[name] = now + ANSWER_MAX_AGE_S, peers

    def get(self, name: bytes, now: float) -> list[bytes] | None:
        """The peers of a name in a new random order; ``None`` when they are to be looked up."""
        known = self._answers.get(name)
        if known is None:
            return None
        deadline, peers = known
        if now >= deadline:
            del self._answers[name]
            return None
        return peers if len(peers) == 1 else self._random.sample(peers, len(peers))

    def drop(self, name: bytes) -> None:
        """Something has changed under this name."""
        self._answers.pop(name, None)
