"""Whose name is whose, and which messages have been seen. No IO; times are passed in.

A name belongs to the key that uses it first, as long as that key is heard of; with a list of allowed keys
only those are taken, and a name that the list gives to a key is its own for good. What is remembered is
bounded in count and age.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

from .. import limits
from ..errors import ProtocolError

Allowed = Mapping[str, str | None]
"""The keys that may trade, each with the only name that it may use, or None for any."""


class Nonces:
    """Messages of one sender that could be repeated: all others are too old to be taken."""

    def __init__(self) -> None:
        self._floor_ms = 0
        self._seen: set[str] = set()
        self._by_time: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._seen)

    def check(self, nonce: str, time_ms: int) -> None:
        """Raises ProtocolError for a message that was seen, or that we no longer know whether it was."""
        if nonce in self._seen:
            raise ProtocolError("nonce was used before: the message is a repetition")
        if time_ms < self._floor_ms:
            raise ProtocolError("time is from before more messages than this peer remembers")

    def add(self, nonce: str, time_ms: int, now_ms: int) -> None:
        """``nonce`` was used at ``time_ms`` by the sender's clock."""
        self._seen.add(nonce)
        heapq.heappush(self._by_time, (time_ms, nonce))
        oldest = now_ms - round(limits.SIGNED_WINDOW_S * 1000)
        while self._by_time[0][0] < oldest or len(self._by_time) > limits.NONCES_PER_PEER:
            dropped_ms, dropped = heapq.heappop(self._by_time)
            self._seen.discard(dropped)
            self._floor_ms = max(self._floor_ms, dropped_ms + 1)


class Acquaintance:
    """A key, the name it uses, when it was last heard (on our monotonic clock), and whether it has left."""

    __slots__ = ("heard", "key", "left", "name", "nonces")

    def __init__(self, key: str, name: str, heard: float, nonces: Nonces):
        self.key = key
        self.name = name
        self.heard = heard
        self.nonces = nonces
        self.left = False

    def holds(self, now: float) -> bool:
        """Whether it keeps its name from others."""
        return not self.left and now - self.heard < limits.NAME_HELD_S


class Keyring:
    """The keys and names of one market's peers; at most :data:`limits.PEERS` of them.

    Args:
        own_name: Ours.
        own_key: Ours.
        allowed: Who may trade; None: anyone.
        started_ms: Messages from before this time are refused, since an earlier process may have taken them.
        started: The same time on our monotonic clock.
    """

    def __init__(self, own_name: str, own_key: str, allowed: Allowed | None, started_ms: int, started: float):
        self._own_name = own_name
        self._own_key = own_key
        self._allowed = allowed
        self._reserved = {name: key for key, name in (allowed or {}).items() if name is not None}
        self._started_ms = started_ms
        self._started = started
        self._by_key: dict[str, Acquaintance] = {}
        self._by_name: dict[str, Acquaintance] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def key_of(self, name: str) -> str | None:
        """The key that was last heard as ``name``."""
        known = self._by_name.get(name)
        return None if known is None else known.key

    def check(self, name: str, key: str, now: float) -> None:
        """Raises ProtocolError when ``key`` may not speak as ``name`` at the monotonic time ``now``."""
        if (name == self._own_name) != (key == self._own_key):
            if name == self._own_name:
                raise ProtocolError(f"from: {name} is the name of this peer: choose another")
            raise ProtocolError("key is the key of this peer: each peer needs a key of its own")
        if name == self._own_name:
            return
        if self._allowed is not None:
            if key not in self._allowed:
                raise ProtocolError(f"key {key} is not among those that this peer allows")
            only = self._allowed[key]
            if only is not None and only != name:
                raise ProtocolError(f"from: key {key} is allowed as {only} here, not as {name}")
            if self._reserved.get(name, key) != key:
                raise ProtocolError(f"from: {name} is the name of another key on this peer's list")
        holder = self._by_name.get(name)
        if holder is not None and holder.key != key and holder.holds(now):
            raise ProtocolError(
                f"from: {name} is the name of another key, {holder.key}: choose another name "
                f"(or, if that is your old key, wait until it was silent for {limits.NAME_HELD_S:g} s)"
            )
        known = self._by_key.get(key)
        if known is not None and known.name != name and known.holds(now):
            raise ProtocolError(f"key is that of {known.name}: each peer needs a key of its own")
        if known is None and not self._has_room(now):
            raise ProtocolError("this peer knows too many others: try again later")

    def knows(self, name: str) -> bool:
        """Whether ``name`` is ours, or belongs to a key or did."""
        return name == self._own_name or name in self._by_name

    def check_unsigned(self, name: str, now: float) -> None:
        """Raises ProtocolError when ``name`` belongs to a key."""
        holder = self._by_name.get(name)
        if name == self._own_name or (holder is not None and holder.holds(now)):
            raise ProtocolError(f"from: {name} is the name of a peer that signs: sign, or choose another")

    def check_new(self, key: str, nonce: str, time_ms: int, now: float) -> None:
        """Raises ProtocolError for a message of ``key`` that was seen, or of which we can't know that."""
        # Later nothing from before is recent anyway, unless our clock was wrong then, and has been set right.
        if time_ms < self._started_ms and now - self._started < 2 * limits.SIGNED_WINDOW_S:
            raise ProtocolError("time is from before this peer started")
        known = self._by_key.get(key)
        if known is not None:
            known.nonces.check(nonce, time_ms)

    def heard(self, name: str, key: str, now: float) -> Nonces:
        """``key`` has proven to be the one that speaks as ``name``; :meth:`check` has let it pass.

        Returns where its nonces are kept.
        """
        known = self._by_key.get(key)
        if known is None:
            known = Acquaintance(key, name, now, Nonces())
            self._by_key[key] = known
        elif known.name != name:
            if self._by_name.get(known.name) is known:
                del self._by_name[known.name]
            known.name = name
        known.heard, known.left = now, False
        self._by_name[name] = known
        return known.nonces

    def left(self, name: str) -> None:
        """The peer ``name`` has said goodbye: another key may have its name at once."""
        known = self._by_name.get(name)
        if known is not None:
            known.left = True

    def _has_room(self, now: float) -> bool:
        """Forget whom nobody could repeat any more where that is needed for one more."""
        if len(self._by_key) >= limits.PEERS:
            # A message may be dated that far ahead, and is remembered as long again.
            oldest = now - 2 * limits.SIGNED_WINDOW_S
            for known in [known for known in self._by_key.values() if known.heard < oldest]:
                del self._by_key[known.key]
                if self._by_name.get(known.name) is known:
                    del self._by_name[known.name]
        return len(self._by_key) < limits.PEERS
