"""Peers that open sessions with each other, without a market behind them."""

from __future__ import annotations

import itertools

from orderbook.signing.gate import Gate
from orderbook.signing.handshake import Opening, Sessions
from orderbook.signing.identity import Identity
from orderbook.signing.keyring import Allowed
from orderbook.signing.session import Session
from tests.unit.orderbook.signing_peers import Clock, travelled

KEYS = {name: Identity.from_seed(name.encode().ljust(32)) for name in ("alice", "bob", "carol", "mallory")}
SECRETS = {name: (name + "'s ephemeral").encode().ljust(32) for name in KEYS}


class End:
    """A peer: its gate, and the sessions that others open with it."""

    nonces = itertools.count()

    def __init__(
        self, name: str, clock: Clock, *, market: str = "SIM", key: str = "", allowed: Allowed | None = None
    ):
        self.name = name
        self.clock = clock
        self.signer = KEYS[key or name]
        self.key = self.signer.key
        self.gate = Gate(
            name,
            market,
            self.signer,
            clock=clock,
            new_nonce=lambda: f"nonce {next(self.nonces)}",
            allowed=allowed,
        )
        self.secret = SECRETS[key or name]
        self.sessions = Sessions(self.gate, lambda: self.secret)

    def asks(self, other: End) -> Opening:
        return Opening(self.gate, other.name, other.key, self.secret)


def agreed(one: End, other: End) -> tuple[Session, Session]:
    """A session that ``one`` has opened with ``other``: both ends of it."""
    opening = one.asks(other)
    answer, theirs = other.sessions.accept(travelled(opening.request.message))
    return opening.answered(travelled(answer)), theirs
