"""Who takes the name of a peer that is silent, with a key of its own, and says that all of it is its own.

That is allowed where nobody has a list of keys. An heir hears all that is said, since nothing is encrypted,
and asks for what was offered to others as well, in its own name. It never trades: whatever it can prove, and
whatever its answers make of others' doubts, is wrong.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from orderbook.signing.proofs import Proof
from orderbook.signing.seals import canonical, digest_of, seal
from tests.simulation.world import START_MS

if TYPE_CHECKING:
    from tests.simulation.markets import Exchange


class Heir:
    """One such peer, after the name ``poses_as``."""

    def __init__(self, exchange: Exchange, name: str, poses_as: str):
        self.exchange = exchange
        self.name = name
        self.poses_as = poses_as
        self.place = f"{name}:1"
        self._signer = exchange.keys.signer(name)
        self._random = Random(f"{exchange.seed} {name}")
        self._nonces = itertools.count()
        self._overheard: deque[tuple[str, Any]] = deque(maxlen=50)
        exchange.listeners.append(self._overhear)
        exchange.network.serve[self.place] = self._serve
        exchange.announce(self.place)
        exchange.world.after(1.0, self._act)

    def leave(self) -> None:
        self.exchange.network.serve.pop(self.place)
        self.exchange.listeners.remove(self._overhear)

    def _overhear(self, place: str, request: Any) -> None:
        """A confirmation goes by, on its way to ``place``: perhaps another one is there first."""
        if request["from"] == self.poses_as:
            self._overheard.append((place, request))
        if self._random.random() < 0.2:
            self._ask(place, self._request(place, self.name, request["payload"]))

    # -- as a taker ----------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Ask about a match of who had the name before."""
        if self.place not in self.exchange.network.serve:
            return
        if self._overheard:
            place, overheard = self._random.choice(self._overheard)
            self._ask(place, self._request(place, self.poses_as, overheard["payload"]))
        self.exchange.world.after(self._random.uniform(0.1, 0.5), self._act)

    def _ask(self, place: str, request: Any) -> None:
        def answered(text: str) -> None:
            self._note(request, json.loads(text))

        call, data = self.exchange.network.call, json.dumps(request)
        call(self.place, place, data, timeout_s=1.0, answered=answered, failed=lambda _: None)

    def _request(self, place: str, sender: str, payload: Any) -> Any:
        maker = self.exchange.keys.signer(place.partition(":")[0])
        message = {
            "type": "CrossPeerMatch",
            "from": sender,
            "payload": payload,
            "market": "SIM",
            "time": START_MS + int(1000 * self.exchange.world.now),
            "nonce": f"{self.name}-{next(self._nonces)}",
            "to": maker.key,
        }
        return seal(message, self._signer).message

    def _note(self, request: Any, answer: Any) -> None:
        self.exchange.claims.append(Proof(request, answer))
        refused = str(answer.get("error", ""))
        self.exchange.sights["heir not told of a match"] += refused.startswith("key must be")

    # -- as a maker ----------------------------------------------------------------------------------------

    def _serve(self, text: str, reply: Callable[[str], None]) -> None:
        request = json.loads(text)
        answer = self._answer(request)
        if answer is not None:
            answer["request"] = digest_of(canonical(request))
            answer = seal(answer, self._signer).message
        reply(json.dumps(answer))

    def _answer(self, request: Any) -> Any:
        if request["type"] == "Heartbeat":
            return {"sequence": int(1000 * self.exchange.world.now), "from": self.poses_as}
        if request["type"] != "CrossPeerMatch":
            return None
        self.exchange.sights["heir asked about a doubt"] += 1
        if self._random.random() < 0.5:
            return {"status": "rejected", "reason": "lock_gone: says its heir", "from": self.poses_as}
        match = request["payload"]
        trades = [
            {
                "match_id": match["match_id"],
                "market": "SIM",
                "price": fill["price"],
                "quantity": fill["quantity"],
                "maker_order_id": fill["order_id"],
                "taker_order_id": match["order_id"],
                "maker_peer": self.poses_as,
                "taker_peer": request["from"],
                "time": START_MS,
                "side": match["side"],
            }
            for fill in match["fills"]
        ]
        return {"status": "committed", "trades": trades, "from": self.poses_as}
