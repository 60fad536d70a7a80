"""Peers that keep to no rule: they answer anything to anything, and confirm what they were never offered.

They sign what they say in their own name, so that it gets past the gates, and besides forge what others might
say. They can't sign as others: keys are what they do not have.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from orderbook.errors import ProtocolError
from orderbook.signing.gate import Gate
from orderbook.signing.handshake import Sessions
from orderbook.signing.proofs import Proof
from orderbook.signing.seals import canonical, digest_of, seal
from orderbook.signing.session import Session
from tests.simulation.lines import SimLines, stripped
from tests.simulation.world import START_MS

if TYPE_CHECKING:
    from tests.simulation.markets import Exchange

HONESTY = 0.5
"""How much of what a liar says is at least said in its own name."""
RELAYS = 0.1
"""How many requests it passes on to another peer, as a wire between the two would."""


class Liar:
    """One such peer, at its own place in the network."""

    def __init__(self, exchange: Exchange, name: str):
        self.exchange = exchange
        self.name = name
        self.place = f"{name}:1"
        self._signer = exchange.keys.signer(name)
        gate = Gate(
            name,
            "SIM",
            self._signer,
            clock=self,
            new_nonce=lambda: f"{name}-{next(self._nonces)}",
            verify=exchange.keys.verify,
        )
        self.key = self._signer.key
        self._random = Random(exchange.world.random.random())
        self._nonces = itertools.count()
        self._overheard: list[Any] = [{"id": "none", "lock_id": "none", "order_id": "none", "match_id": "m1"}]
        self._requests: deque[Any] = deque(maxlen=50)
        self._answers: deque[Any] = deque(maxlen=50)
        random = self._random
        self._gate = gate
        self._sessions = Sessions(gate, lambda: random.randbytes(32))
        self._lines = SimLines(
            exchange.world, exchange.network, self.place, self._sessions, self._serve_in_session
        )
        exchange.network.serve[self.place] = self._serve
        exchange.announce(self.place)
        exchange.world.after(1.0, self._act)

    def leave(self) -> None:
        self.exchange.network.serve.pop(self.place)
        self._lines.close()

    def monotonic(self) -> float:
        return self.exchange.world.now

    def time_ms(self) -> int:
        return START_MS + int(1000 * self.exchange.world.now)

    # -- answers -----------------------------------------------------------------------------------------

    def _serve(self, request: str, reply: Callable[[str], None]) -> None:
        message, random = json.loads(request), self._random
        self._requests.append(message)
        if random.random() < RELAYS:
            self._relay(message, reply)
            return
        name = self.name
        if random.random() >= HONESTY:
            name = message["payload"].get("lock_id", "").partition("-")[0] or self._other()
        answer = self._answer(message, name)
        if isinstance(answer, dict):
            answer = self._signed_answer(message, answer)
            if name != self.name:
                self.exchange.sights["forged answer"] += 1
                answer = self._forged(answer, message.get("to") or self._key_of(name))
        reply(json.dumps(answer))

    def _serve_in_session(self, request: str, reply: Callable[[str], None], session: Session) -> None:
        """As anywhere else, mostly without signatures, also where one is wanted."""
        bare = self._random.random() < (0.5 if '"CrossPeerMatch"' in request else 0.9)

        def stripping(answer: str) -> None:
            reply(json.dumps(stripped(json.loads(answer))) if bare else answer)

        self._serve(request, stripping)

    def _answer(self, message: Any, name: str) -> Any:
        """Something that ``name`` might say, or nobody would."""
        random, payload = self._random, message["payload"]
        if message["type"] == "Heartbeat":
            best = {"best_bid": str(random.randint(90, 110)), "best_ask": str(random.randint(90, 110))}
            return {"sequence": int(self.exchange.world.now * 1000), "from": name, **best, "session": 1}
        if message["type"] == "AnnounceOpenOrder":
            order = payload["order"]
            self._overheard.append(order)
            nothing: object = random.choice([None, {"contended": True, "from": name}, 5, []])
            plausible = self._plausible_offer(order, name)
            return random.choice([nothing, self._offer(order, name), plausible, plausible])
        if message["type"] == "CrossPeerMatch":
            self._overheard += [payload, *payload["fills"]]
            done = self._trades(message, name)
            trades = random.choice([[], "none", [{"time": -5}], payload["fills"], done[1:], done, done, done])
            status = random.choice(["committed", "committed", "rejected", "maybe"])
            return {"status": status, "trades": trades, "from": name}
        return None

    def _offer(self, order: Any, name: str) -> Any:
        random = self._random
        fill = {
            "order_id": random.choice([f"{name}-1", self._heard("order_id"), self._heard("id"), 7]),
            "price": random.choice([order["price"], order["price"], "1", "1000", "-1", 5]),
            "quantity": random.choice([order["quantity"], order["quantity"], "1", "1000", "0", None]),
        }
        return {
            "lock_id": random.choice([f"{name}-lock{random.randrange(100)}", self._heard("lock_id")]),
            "fills": random.choice([[fill], [fill], [fill, fill], []]),
            "quantity": order["quantity"],
            "fully_matched": True,
            "lease": random.choice([5000, -1, 10**9]),
            "from": random.choice([name, name, None]),
        }

    def _plausible_offer(self, order: Any, name: str) -> Any:
        """All that was asked for, of an order that nobody has, now and then just outside the limit."""
        number = self._random.randrange(10**6)
        worse = 1 if order["side"] == "buy" else -1
        price = int(order["price"]) + (worse if number % 4 == 0 else 0)
        fill = {"order_id": f"{name}-made-up", "price": str(price), "quantity": order["quantity"]}
        lock_id = f"{name}-lock{number}"
        whole = {"quantity": order["quantity"], "fully_matched": True, "lease": 5000}
        return {"lock_id": lock_id, "fills": [fill], **whole, "from": name}

    def _trades(self, message: Any, name: str) -> list[Any]:
        """What would prove the match, had ``name`` executed it; or almost that."""
        trades = [
            {
                "match_id": message["payload"]["match_id"],
                "market": "SIM",
                "price": fill["price"],
                "quantity": fill["quantity"],
                "maker_order_id": fill["order_id"],
                "taker_order_id": message["payload"].get("order_id"),
                "maker_peer": name,
                "taker_peer": message["from"],
                "time": START_MS,
                "side": message["payload"].get("side"),
            }
            for fill in message["payload"]["fills"]
            if isinstance(fill, dict)
        ]
        if self._random.random() < 0.5:
            wrong = {"price": "1", "quantity": "1", "side": "buy", "match_id": "m", "taker_order_id": "t"}
            field = self._random.choice(list(wrong))
            trades = [{**trade, field: wrong[field]} for trade in trades]
        return trades

    def _signed_answer(self, request: Any, answer: Any) -> Any:
        """``answer`` with our signature, whoever it says it is from."""
        try:
            digest = digest_of(canonical(request))
        except ProtocolError:
            return answer
        return seal({"from": self.name, **answer, "request": digest}, self._signer).message

    def _forged(self, signed: Any, key: str) -> Any:
        """What we have signed in another's name, perhaps as if with that other's ``key``."""
        kind = self._random.choice(["as we are", "unsigned", "with that key", "with that key"])
        if kind == "as we are":
            return signed
        if kind == "unsigned":
            return {name: value for name, value in signed.items() if name not in ("sig", "key")}
        return {**signed, "key": key}

    def _relay(self, message: Any, reply: Callable[[str], None]) -> None:
        """Let another peer answer, the one that is meant if any, and perhaps pass on something older."""
        meant = [name for name in self.exchange.peers if self._key_of(name) == message.get("to")]
        target = meant[0] if meant else self._other()

        def answered(text: str) -> None:
            older = [answer for answer in self._answers if answer.get("from") == target]
            self._note(json.loads(text))
            if older and self._random.random() < 0.5:
                text = json.dumps(self._random.choice(older))
            reply(text)

        self.exchange.sights["relayed request"] += 1
        self._send(target, message, answered)

    # -- requests ----------------------------------------------------------------------------------------

    def _act(self) -> None:
        """Say something uncalled for to somebody."""
        if self.place not in self.exchange.network.serve:
            return
        random = self._random
        fill = {"order_id": self._heard("id"), "price": str(random.randint(95, 105)), "quantity": "1"}
        side = random.choice(["buy", "sell"])
        order = {"market": "SIM", "side": side, "id": self._heard("id"), **fill}
        match = {"match_id": "m", "lock_id": self._heard("lock_id"), "fills": [fill]}
        kind, payload = random.choice(
            [
                ("ReleaseLock", {"lock_id": self._heard("lock_id")}),
                ("CrossPeerMatch", match),
                ("CrossPeerMatch", {"match_id": self._heard("id"), "lock_id": "", "fills": []}),
                *[("AnnounceOpenOrder", {"order": order, "round": 1})] * 4,
                ("Heartbeat", {"sequence": 1, "best_bid": "1000", "best_ask": "1"}),
            ]
        )
        target = self._other()
        if random.random() < HONESTY:
            self._say(target, self._signed_request(target, kind, payload))
        else:
            self.exchange.sights["forged request"] += 1
            self._say(target, self._forged_request(target, kind, payload))
        self.exchange.world.after(random.uniform(0.05, 0.5), self._act)

    def _say(self, target: str, message: Any) -> None:
        def answered(text: str) -> None:
            answer = json.loads(text)
            self._note(answer)
            if message["type"] == "CrossPeerMatch":
                self.exchange.claims.append(Proof(message, answer))
            if not isinstance(answer, dict) or "lock_id" not in answer:
                return
            if message["from"] != self.name:
                # We were taken for another: trade in its name.
                match = {"match_id": f"posed-{next(self._nonces)}", "lock_id": answer["lock_id"]}
                match |= {"fills": answer["fills"], "side": message["payload"]["order"]["side"]}
                match["order_id"] = message["payload"]["order"]["id"]
                self._say(target, self._signed_request(target, "CrossPeerMatch", match, message["from"]))
            else:
                fill, random = answer["fills"][0], self._random
                fill["quantity"] = random.choice([fill["quantity"], str(random.randint(0, 20))])
                own = f"{self.name}-match-{next(self._nonces)}"
                match_id = random.choice(["m1", own, self._heard("match_id")])
                match = {"match_id": match_id, "lock_id": answer["lock_id"], "fills": [fill]}
                if random.random() < 0.8:
                    match["side"] = message["payload"]["order"]["side"]
                    match["order_id"] = message["payload"]["order"]["id"]
                self._say(target, self._signed_request(target, "CrossPeerMatch", match))

        self._send(target, message, answered)

    def _send(self, target: str, message: Any, answered: Callable[[str], None]) -> None:
        place, random = self.exchange.peers[target].place, self._random
        session = self._lines.session(place)
        if self.exchange.sessions and session is None and random.random() < 0.5:
            # A liar knows everybody's key.
            self._gate.keyring.heard(target, self._key_of(target), self.monotonic())
            self._lines.wanted(place, target)
        if session is None or random.random() < 0.3:
            call: Callable[..., None] = partial(self.exchange.network.call, self.place)
        else:
            call = self._lines.call
            if random.random() < 0.05:
                session.wrap(b"a frame that is lost")
            if message["type"] != "CrossPeerMatch" or random.random() < 0.8:
                message = stripped(message)
        call(place, json.dumps(message), timeout_s=1.0, answered=answered, failed=lambda _: None)

    def _signed_request(self, target: str, kind: str, payload: Any, name: str | None = None) -> Any:
        """A request in our own name (or another's), in good order as far as our own key goes."""
        if kind == "CrossPeerMatch":
            payload = {"side": "buy", "order_id": self._heard("id"), **payload}
        message = {
            "type": kind,
            "from": name or self.name,
            "payload": payload,
            "market": "SIM",
            "time": self.time_ms(),
            "nonce": f"{self.name}-{next(self._nonces)}",
            "to": self._key_of(target),
        }
        return seal(message, self._signer).message

    def _forged_request(self, target: str, kind: str, payload: Any) -> Any:
        """One in another's name, or one that was overheard: as it was, or changed."""
        random = self._random
        signed = self._signed_request(target, kind, payload)
        if not self._requests or random.random() < 0.7:
            other = self._other(besides=target)
            return random.choice(
                [
                    self._signed_request(target, kind, payload, other),
                    {**signed, "from": other, "key": self._key_of(other)},
                    {**signed, "from": other},
                    {"type": kind, "from": other, "payload": payload},
                ]
            )
        overheard = random.choice(self._requests)
        field = random.choice(["none", "payload", "time", "nonce", "to", "market", "type"])
        return {**overheard, **({field: signed[field]} if field in signed else {})}

    # -- what is known -----------------------------------------------------------------------------------

    def _note(self, answer: Any) -> None:
        if isinstance(answer, dict):
            self._answers.append(answer)
            if "lock_id" in answer:
                self._overheard.append(answer)

    def _heard(self, key: str) -> str:
        return str(self._random.choice([said for said in self._overheard if key in said])[key])

    def _other(self, besides: str | None = None) -> str:
        return self._random.choice([name for name in self.exchange.peers if name != besides])

    def _key_of(self, name: str) -> str:
        return self.exchange.keys.signer(name).key
