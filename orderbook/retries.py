"""Orders that are announced again in a while, for somebody may have had something for them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import limits
from .effects import Effect
from .market import Agenda
from .model import Order


def pause_s(random: Random, tries: int) -> float:
    """How long to wait after so many ``tries``: ever longer, and jittered, so that of two that have met only
    one comes first."""
    shortest, longest = limits.CONTENDED_RETRY_S
    return random.uniform(0, 2 * min(longest, shortest * 2**tries))


class Retries:
    """When which order is announced again, by ``announce``."""

    def __init__(self, agenda: Agenda, random: Random, announce: Callable[[Order], list[Effect]]):
        self._agenda = agenda
        self._random = random
        self._announce = announce
        self._tries: dict[str, int] = {}
        self._waiting: set[str] = set()

    def later(self, order: Order) -> None:
        """Announce ``order`` after a pause; after some tries it is left to the heartbeat to find what still
        crosses."""
        if order.id in self._waiting or order.terms.post_only:
            return
        tries = self._tries.get(order.id, 0)
        if not order.open or tries == limits.CONTENDED_RETRIES:
            self._tries.pop(order.id, None)
            return
        self._tries[order.id] = tries + 1
        self._waiting.add(order.id)
        self._agenda.later(pause_s(self._random, tries), lambda: self._again(order))

    def _again(self, order: Order) -> list[Effect]:
        self._waiting.discard(order.id)
        return self._announce(order)

    def forget(self, order: Order) -> None:
        """The tries of ``order`` are over: it has closed, or has found all that there is."""
        self._tries.pop(order.id, None)
