"""The protocol between peers that have a session: what is signed nevertheless, and what may be said."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orderbook import limits
from orderbook.effects import Announce, Beat, Confirm, Effect, Tell
from orderbook.envelopes import encode
from orderbook.errors import ProtocolError
from orderbook.model import OrderStatus
from orderbook.signing.handshake import Opening, Sessions
from orderbook.signing.proofs import Party
from orderbook.signing.seals import Sealed
from tests.unit.orderbook.signing_peers import Clock, SigningPeer, only, proven, travelled


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Pair:
    """A taker that has opened a session with a maker."""

    def __init__(self, clock: Clock):
        self.taker, self.maker = SigningPeer("taker", clock, "maker"), SigningPeer("maker", clock)
        opening = Opening(self.taker.channel.gate, "maker", self.maker.signer.key, b"t" * 32)
        sessions = Sessions(self.maker.channel.gate, lambda: b"m" * 32)
        answer, self.theirs = sessions.accept(travelled(opening.request.message))
        self.ours = opening.answered(travelled(answer))

    def ask(self, data: bytes) -> bytes:
        """The maker's answer to what comes in the session."""
        answer = self.maker.channel.receive(self.theirs.unwrap(self.ours.wrap(data)), self.theirs)
        self.maker.negotiator.check()
        return self.ours.unwrap(self.theirs.wrap(encode(answer.content)))

    def told(self, effect: Any, request: Sealed, data: bytes) -> list[Effect]:
        effects = self.taker.channel.heard(effect, request, data, self.ours)
        self.taker.negotiator.check()
        return effects

    def offered(self, quantity: int = 4) -> Confirm:
        """The maker sells, the taker buys and has chosen."""
        self.maker.place("sell", 100, 10)
        _, effects = self.taker.place("buy", 105, quantity)
        announce = only(effects, Announce)
        request = self.taker.channel.seal(announce, self.ours)
        return only(self.told(announce, request, self.ask(request.data)), Confirm)


@pytest.fixture
def pair(clock: Clock) -> Pair:
    return Pair(clock)


def test_in_a_session_only_what_proves_the_trade_is_signed(pair: Pair) -> None:
    pair.maker.place("sell", 100, 10)
    order, effects = pair.taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    request = pair.taker.channel.seal(announce, pair.ours)
    offer = pair.ask(request.data)
    assert b'"sig"' not in request.data + offer
    assert b'"key"' not in request.data + offer
    confirm = only(pair.told(announce, request, offer), Confirm)
    assert confirm.key == pair.maker.signer.key, "as if the offer were signed"
    request = pair.taker.channel.seal(confirm, pair.ours)
    assert request.message["to"] == pair.maker.signer.key
    pair.told(confirm, request, pair.ask(request.data))
    assert order.status is OrderStatus.FILLED
    assert travelled(pair.taker.signed()) == travelled(pair.maker.signed())
    assert proven(pair.maker) == proven(pair.taker)
    assert proven(pair.taker).taker == Party("taker", pair.taker.signer.key)


def test_a_confirmation_without_a_signature_is_refused_in_a_session(pair: Pair) -> None:
    confirm = pair.offered()
    for data in (
        encode(confirm.payload),
        encode({**travelled(confirm.payload), "more": {"key": 1}}),
        encode({**travelled(confirm.payload), "key": pair.taker.signer.key}),
    ):
        with pytest.raises(ProtocolError):
            pair.ask(data)
    assert pair.maker.market.ledger.trade_count == 0
    request = pair.taker.channel.seal(confirm, pair.ours)
    assert json.loads(pair.ask(request.data))["status"] == "committed"


def test_a_commitment_without_a_signature_is_not_believed_in_a_session(pair: Pair) -> None:
    confirm = pair.offered()
    request = pair.taker.channel.seal(confirm, pair.ours)
    answer = json.loads(pair.ask(request.data))
    content = {name: value for name, value in answer.items() if name not in ("sig", "key", "request")}
    for said in (content, {"status": "rejected", "from": "maker"}, {**content, "sig": answer["sig"]}):
        with pytest.raises(ProtocolError, match=r"sig|required"):
            pair.told(confirm, request, encode(said))
        pair.taker.channel.refused(confirm, "no proof")
        assert (pair.taker.negotiator.in_doubt, pair.taker.market.ledger.trade_count) == (1, 0)
    pair.told(confirm, request, encode(answer))
    assert pair.taker.market.ledger.trade_count == 1


def test_a_doubt_from_a_session_ends_without_one_and_the_other_way_round(pair: Pair, clock: Clock) -> None:
    for session, later in ((pair.ours, None), (None, pair.ours)):
        confirm = pair.offered()
        request = pair.taker.channel.seal(confirm, session)
        pair.maker.answer(request.message)  # committed, and the answer is lost
        pair.taker.channel.failed(confirm)
        clock.now += 1.0
        again = only(pair.taker.negotiator.tick(), Confirm)
        request = pair.taker.channel.seal(again, later)
        answer = encode(pair.maker.answer(request.message)) if later is None else pair.ask(request.data)
        pair.taker.channel.heard(again, request, answer, later)
        assert pair.taker.negotiator.in_doubt == 0
    assert pair.taker.market.ledger.trades(0, 9) == pair.maker.market.ledger.trades(0, 9)
    assert travelled(pair.taker.signed()) != [], "each trade has its proof"
    assert len(pair.taker.signed()) == len(pair.maker.signed()) == 2


def test_what_is_told_in_a_session_counts(pair: Pair, clock: Clock) -> None:
    pair.maker.place("sell", 100, 10)
    _, effects = pair.taker.place("buy", 105, 4)
    offer = json.loads(pair.ask(pair.taker.channel.seal(only(effects, Announce), pair.ours).data))
    assert pair.maker.market.book.reservations
    release = {"type": "ReleaseLock", "from": "taker", "payload": {"lock_id": offer["lock_id"]}}
    assert json.loads(pair.ask(encode(release))) == {"released": True}
    assert not pair.maker.market.book.reservations
    farewell = pair.taker.channel.seal(only(pair.taker.negotiator.leave(), Tell), pair.ours)
    assert pair.ask(farewell.data) == b"null"
    heir = SigningPeer("taker", clock, "maker", key="mallory")
    _, effects = heir.place("buy", 105, 4)
    assert "lock_id" in pair.maker.answer(heir.channel.seal(only(effects, Announce)).message)
    with pytest.raises(ProtocolError, match="name of another key"):
        pair.ask(encode(release))


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"[]",
        b"no JSON",
        b'{"type":"ReleaseLock","from":"taker"}',
        b'{"type":"ReleaseLock","from":"taker","payload":{}}',
        b'{"type":"ReleaseLock","from":"maker","payload":{"lock_id":"l"}}',
        b'{"type":"OpenSession","from":"taker","payload":{}}',
        b'{"type":5,"from":"taker","payload":{}}',
        b'{"type":"Goodbye","from":"taker","payload":{},"sig":"' + b"00" * 64 + b'"}',
    ],
)
def test_what_is_no_message_is_refused_in_a_session_as_well(pair: Pair, data: bytes) -> None:
    confirm = pair.offered()
    with pytest.raises(ProtocolError):
        pair.ask(data)
    assert pair.maker.market.book.reservations
    request = pair.taker.channel.seal(confirm, pair.ours)
    assert json.loads(pair.ask(request.data))["status"] == "committed"


@pytest.mark.parametrize(
    ("answer", "believed"),
    [
        (b"null", True),
        (b'{"contended":true,"from":"maker"}', True),
        (b'{"contended":true,"from":"other"}', False),
        (b'{"contended":true}', False),
        (b"5", False),
        (b"no JSON", False),
    ],
)
def test_answers_in_a_session_are_from_who_has_it(pair: Pair, answer: bytes, believed: bool) -> None:
    _, effects = pair.taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    request = pair.taker.channel.seal(announce, pair.ours)
    if believed:
        assert pair.told(announce, request, answer)
    else:
        with pytest.raises(ProtocolError):
            pair.told(announce, request, answer)


def test_an_offer_in_a_session_that_names_another_key_is_not_believed(pair: Pair, clock: Clock) -> None:
    pair.maker.place("sell", 100, 10)
    _, effects = pair.taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    request = pair.taker.channel.seal(announce, pair.ours)
    offer = {**json.loads(pair.ask(request.data)), "key": SigningPeer("mallory", clock).signer.key}
    with pytest.raises(ProtocolError):
        pair.told(announce, request, encode(offer))


def test_a_broadcast_to_some_with_a_session_is_signed_once_and_written_once(pair: Pair, clock: Clock) -> None:
    taker = SigningPeer("taker", clock, "m1", "m2", "m3", "m4")
    _, effects = taker.place("buy", 105, 4)
    announces = [effect for effect in effects if isinstance(effect, Announce)]
    sessions = pair.ours, None, pair.ours, None
    requests = [taker.channel.seal(each, session) for each, session in zip(announces, sessions, strict=True)]
    assert requests[0] is requests[2]
    assert requests[1] is requests[3]
    assert "sig" in requests[1].message
    assert requests[0].data == encode(announces[0].payload)


def test_a_heartbeat_in_a_session_keeps_the_name(pair: Pair, clock: Clock) -> None:
    for _ in range(10):
        clock.now += limits.NAME_HELD_S - 1.0
        (beat,) = [effect for effect in pair.taker.negotiator.tick() if isinstance(effect, Beat)]
        request = pair.taker.channel.seal(beat, pair.ours)
        pair.told(beat, request, pair.ask(request.data))
        heir = SigningPeer("taker", clock, "maker", key="mallory")
        _, effects = heir.place("buy", 105, 4)
        with pytest.raises(ProtocolError, match="another key"):
            pair.maker.answer(heir.channel.seal(only(effects, Announce)).message)
