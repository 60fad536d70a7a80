"""Whose locks a maker may refuse: those of the processes that went on with its journal. Pure.

Each such process, a *start*, has an id. The id of a lock names the start that made it, and the last event
that was durable then: a crash leaves both in the journal. So a journal that lacks one of the two is another
one, or a copy from before, and what came of the lock may be known elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

MARK: Final = "."
"""Between the parts of the id of such a lock: start, number of the event, how many locks it has made."""
DIGITS: Final = 19
"""Of a number at the most."""


class Starts:
    """What one process knows of its journal's starts.

    Args:
        own: The id of this one.
        earlier: The last event that each earlier start has left in the journal, by id.
        durable: Tells the number of the last event that is durable: a crash leaves all up to that one.
    """

    def __init__(self, own: str, earlier: Mapping[str, int], durable: Callable[[], int]):
        self.own = own
        self._earlier = earlier
        self._durable = durable
        self._locks = 0

    def new_lock_id(self) -> str:
        self._locks += 1
        return f"{self.own}{MARK}{self._durable()}{MARK}{self._locks}"

    def has(self, lock_id: str) -> bool:
        """Whether the journal has what came of a lock that :func:`is_kept`, if anything did."""
        start, _, rest = lock_id.partition(MARK)
        if start == self.own:
            return True
        last = self._earlier.get(start)
        number = rest.partition(MARK)[0]
        well_formed = number.isascii() and number.isdecimal() and len(number) <= DIGITS
        return last is not None and well_formed and int(number) <= last


def is_kept(lock_id: str) -> bool:
    """Whether a journal keeps what came of a lock."""
    return MARK in lock_id
