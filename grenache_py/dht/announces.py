"""What this node announced for its own callers, while it is fresh. IO-free.

A Node Grape forgets an announce that nobody was there to take. Here it is kept: a look-up at this node
finds it, and nodes that join later are told.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from .ages import age_s
from .bounds import OWN_ANNOUNCES_MAX, PEER_MAX_AGE_S, WELCOMES_MAX
from .krpc import Address

Announce = tuple[bytes, int]  # name, port


class OwnAnnounces:
    """Own announces, each for ``max_age_s`` after it was last made; the oldest goes when there are too
    many.
    """

    def __init__(self, max_age_s: float = PEER_MAX_AGE_S, max_announces: int = OWN_ANNOUNCES_MAX) -> None:
        self._max_age_s = max_age_s
        self._max_announces = max_announces
        self._deadlines: OrderedDict[Announce, float] = OrderedDict()
        self._ports: dict[bytes, set[int]] = {}
        # Until when others may still tell of an announce that was withdrawn here.
        self._withdrawn: OrderedDict[Announce, float] = OrderedDict()
        # Whom to tell of what.
        self._welcomes: deque[tuple[Address, Announce]] = deque(maxlen=WELCOMES_MAX)

    def __len__(self) -> int:
        return len(self._deadlines)

    def __contains__(self, announce: Announce) -> bool:
        return announce in self._deadlines

    def add(self, name: bytes, port: int, now: float) -> None:
        announce = name, port
        if self._withdrawn:
            self._withdrawn.pop(announce, None)
        if announce in self._deadlines:
            self._deadlines[announce] = now + self._max_age_s
            self._deadlines.move_to_end(announce)
            return
        self.purge(now)
        if len(self._deadlines) >= self._max_announces:
            self._drop(next(iter(self._deadlines)))
        self._deadlines[announce] = now + self._max_age_s
        self._ports.setdefault(name, set()).add(port)

    def withdraw(self, name: bytes, port: int, now: float) -> bool:
        """End an announce; returns whether there was one. Until the others forget it, it counts as
        withdrawn.
        """
        self.purge(now)
        if (name, port) not in self._deadlines:
            return False
        self._drop((name, port))
        self._withdrawn[name, port] = now + self._max_age_s
        if len(self._withdrawn) > self._max_announces:
            self._withdrawn.popitem(last=False)
        return True

    def withdrawn(self, name: bytes, now: float) -> list[int]:
        """The ports under a name that others may still tell of, though they were withdrawn here."""
        if not self._withdrawn:
            return []
        self.purge(now)
        return [port for known, port in self._withdrawn if known == name]

    def ports(self, name: bytes, now: float) -> list[int]:
        """The ports that were announced under a name."""
        if name not in self._ports:
            return []
        self.purge(now)
        return sorted(self._ports.get(name, ()))

    def dump(self, now: float) -> list[tuple[bytes, int, float]]:
        """All announces as (name, port, seconds since the last one), the oldest first."""
        return [
            (name, port, age_s(now, deadline, self._max_age_s))
            for (name, port), deadline in self._deadlines.items()
        ]

    def welcome(self, address: Address, now: float) -> None:
        """Remember to tell the node at ``address`` of every announce that is fresh."""
        self.purge(now)
        self._welcomes.extend((address, announce) for announce in self._deadlines)

    def take_welcomes(self, count: int, now: float) -> list[tuple[Address, Announce]]:
        """Up to ``count`` of what is to be told, still fresh."""
        self.purge(now)
        taken = [self._welcomes.popleft() for _ in range(min(count, len(self._welcomes)))]
        return [(address, announce) for address, announce in taken if announce in self._deadlines]

    def purge(self, now: float) -> None:
        """Forget what has expired."""
        while self._withdrawn and next(iter(self._withdrawn.values())) <= now:
            self._withdrawn.popitem(last=False)
        while self._deadlines:
            announce = next(iter(self._deadlines))
            if self._deadlines[announce] > now:
                return
            self._drop(announce)

    def _drop(self, announce: Announce) -> None:
        if self._deadlines.pop(announce, None) is None:
            return
        name, port = announce
        ports = self._ports[name]
        ports.discard(port)
        if not ports:
            del self._ports[name]
