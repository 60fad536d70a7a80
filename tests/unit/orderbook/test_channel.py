"""The protocol between peers that sign: what is kept as proof, and what forgeries come to."""

from __future__ import annotations

from typing import Any

import pytest

from orderbook import limits
from orderbook.effects import Announce, Beat, Confirm, Settled, Tell, Traded
from orderbook.entry import NewOrder
from orderbook.errors import OrderBookError, ProofError, ProtocolError, UnknownDoubtError
from orderbook.model import OrderStatus
from orderbook.signing.proofs import Party, Proof
from orderbook.signing.seals import Sealed, seal
from tests.unit.orderbook.signing_peers import Clock, SigningPeer, confirmation, only, proven, travelled


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def maker(clock: Clock) -> SigningPeer:
    return SigningPeer("maker", clock)


@pytest.fixture
def taker(clock: Clock) -> SigningPeer:
    return SigningPeer("taker", clock, "maker")


# -- trades ----------------------------------------------------------------------------------------------


def test_both_sides_of_a_trade_keep_what_both_have_signed(taker: SigningPeer, maker: SigningPeer) -> None:
    confirm, request = confirmation(taker, maker)
    assert confirm.key == request.message["to"] == maker.signer.key
    taker.told(confirm, request, maker.answer(request.message))
    (kept,) = maker.signed()
    assert taker.signed() == [kept]
    said = proven(maker)
    assert said.maker == Party("maker", maker.signer.key)
    assert said.taker == Party("taker", taker.signer.key)
    assert said.side == "buy"
    (trade,) = taker.market.ledger.trades_of_match("taker", confirm.match_id)
    assert said.trades == [taker.market.record(trade)]
    assert maker.market.ledger.trades_of_match("taker", confirm.match_id) == [trade]


def test_a_doubt_is_settled_by_the_proof_that_the_maker_has_kept(
    taker: SigningPeer, maker: SigningPeer
) -> None:
    confirm, request = confirmation(taker, maker)
    maker.answer(request.message)  # committed, and the answer is lost
    taker.channel.failed(confirm)
    (kept,) = maker.signed()
    proof = Proof(travelled(kept.request), travelled(kept.answer))
    order, _ = taker.channel.prove(confirm.match_id, proof)
    taker.negotiator.check()
    assert order.status is OrderStatus.FILLED
    assert travelled(taker.signed()) == travelled([kept])
    assert taker.market.ledger.trades(0, 9) == maker.market.ledger.trades(0, 9)
    with pytest.raises(UnknownDoubtError):
        taker.channel.prove(confirm.match_id, proof)


def test_the_proof_of_another_trade_settles_no_doubt(taker: SigningPeer, maker: SigningPeer) -> None:
    first, request = confirmation(taker, maker)
    taker.told(first, request, maker.answer(request.message))
    second, request = confirmation(taker, maker)
    maker.answer(request.message)
    taker.channel.failed(second)
    before, kept = (Proof(travelled(s.request), travelled(s.answer)) for s in maker.signed())
    forged = Proof(kept.request, {**kept.answer, "sig": before.answer["sig"]})
    for wrong in (before, forged):
        with pytest.raises(ProofError):
            taker.channel.prove(second.match_id, wrong)
    assert taker.negotiator.in_doubt == 1
    taker.channel.prove(second.match_id, kept)


def test_a_match_that_is_refused_or_repeated_adds_no_proof(
    taker: SigningPeer, maker: SigningPeer, clock: Clock
) -> None:
    confirm, request = confirmation(taker, maker)
    maker.answer(request.message)
    taker.channel.failed(confirm)
    clock.now += 1.0
    again = only(taker.negotiator.tick(), Confirm)
    repeated = taker.channel.seal(again)
    assert repeated.message["nonce"] != request.message["nonce"]
    taker.told(again, repeated, maker.answer(repeated.message))
    assert (len(maker.signed()), len(taker.signed())) == (1, 1)
    assert proven(taker) == proven(maker), "in other words, but the same"
    clock.now += limits.LEASE_S
    refused, late = confirmation(taker, maker)
    clock.now += limits.LEASE_S
    answer = maker.answer(late.message)
    assert answer["status"] == "rejected"
    taker.told(refused, late, answer)
    assert (len(maker.signed()), len(taker.signed())) == (1, 1)


def test_trades_between_own_orders_need_no_proof(maker: SigningPeer) -> None:
    maker.place("sell", 100, 10)
    maker.negotiator.submit(NewOrder("buy", "100", "10", "bob"))
    assert maker.market.ledger.trade_count == 1
    assert maker.signed() == []


def test_a_broadcast_is_signed_once(clock: Clock) -> None:
    taker = SigningPeer("taker", clock, "m1", "m2", "m3")
    _, effects = taker.place("buy", 105, 4)
    requests = [taker.channel.seal(effect) for effect in effects if isinstance(effect, Announce)]
    assert len(requests) == 3
    assert requests[0] is requests[1] is requests[2]
    _, effects = taker.place("buy", 105, 5)
    assert taker.channel.seal(only(effects[:1], Announce)) is not requests[0]


# -- forgeries -------------------------------------------------------------------------------------------


def test_a_stolen_confirmation_is_worth_nothing(taker: SigningPeer, maker: SigningPeer, clock: Clock) -> None:
    _, request = confirmation(taker, maker)
    thief = SigningPeer("thief", clock)
    stolen = {**request.message, "from": "thief", "nonce": "new", "key": thief.signer.key}
    del stolen["sig"]
    assert maker.answer(seal(stolen, thief.signer).message)["status"] == "rejected"
    with pytest.raises(ProtocolError, match="key is that of thief"):
        maker.answer({**request.message, "from": "accomplice", "key": thief.signer.key, "nonce": "newer"})
    assert maker.answer(request.message)["status"] == "committed"
    with pytest.raises(ProtocolError, match="repetition"):
        maker.answer(request.message)


@pytest.mark.parametrize("field", ["to", "side", "order_id"])
def test_a_confirmation_that_would_not_prove_the_trade_is_refused(
    taker: SigningPeer, maker: SigningPeer, field: str
) -> None:
    _, request = confirmation(taker, maker)
    message = {**request.message, "payload": dict(request.message["payload"]), "nonce": "new"}
    del message["sig"], (message if field == "to" else message["payload"])[field]
    with pytest.raises(ProtocolError, match=f"{field} is required in a signed confirmation"):
        maker.answer(seal(message, taker.signer).message)
    assert maker.answer(request.message)["status"] == "committed", "that has changed nothing"


@pytest.mark.parametrize("change", [{"side": "sell"}, {"order_id": "another"}])
def test_a_committed_match_can_not_be_turned_into_another(
    taker: SigningPeer, maker: SigningPeer, change: dict[str, str]
) -> None:
    _, request = confirmation(taker, maker)

    def changed(nonce: str) -> Any:
        message = {**request.message, "payload": {**request.message["payload"], **change}, "nonce": nonce}
        del message["sig"]
        return seal(message, taker.signer).message

    assert maker.answer(request.message)["status"] == "committed"
    with pytest.raises(ProtocolError, match="must be what it was"):
        maker.answer(changed("new"))


@pytest.mark.parametrize("change", [{"side": "sell"}, {"order_id": "another"}])
def test_an_order_that_was_not_announced_is_refused(
    taker: SigningPeer, maker: SigningPeer, change: dict[str, str]
) -> None:
    _, request = confirmation(taker, maker)
    message = {**request.message, "payload": {**request.message["payload"], **change}}
    del message["sig"]
    answer = maker.answer(seal(message, taker.signer).message)
    assert answer["status"] == "rejected"
    assert answer["reason"].startswith(f"not_reserved: {next(iter(change))} must be")


ALTERED_TRADE = [
    {"match_id": "another"},
    {"market": "OTHER"},
    {"price": "101"},
    {"quantity": "5"},
    {"maker_order_id": "another"},
    {"taker_order_id": "another"},
    {"maker_peer": "another"},
    {"taker_peer": "another"},
    {"side": "sell"},
    {"side": None},
]


@pytest.mark.parametrize("change", ALTERED_TRADE)
def test_a_maker_that_signs_another_trade_has_not_answered(
    taker: SigningPeer, maker: SigningPeer, change: dict[str, Any]
) -> None:
    confirm, request = confirmation(taker, maker)
    answer = maker.answer(request.message)
    content = {name: value for name, value in answer.items() if name != "sig"}
    content["trades"] = [{**answer["trades"][0], **change}]
    with pytest.raises(OrderBookError, match="trades"):
        taker.channel.answered(confirm, request, seal(content, maker.signer).message)
    taker.channel.refused(confirm, "")
    assert (taker.negotiator.in_doubt, taker.market.ledger.trade_count) == (1, 0)
    taker.told(confirm, request, answer)
    assert taker.market.ledger.trade_count == 1, "it can still mend its ways"


def test_a_forged_commitment_leaves_the_doubt(taker: SigningPeer, maker: SigningPeer, clock: Clock) -> None:
    confirm, request = confirmation(taker, maker)
    answer = maker.answer(request.message)
    mallory = SigningPeer("maker", clock, key="mallory")
    content = {name: value for name, value in answer.items() if name != "sig"}
    for forged in (
        content,
        {**content, "sig": "00" * 64},
        {**content, "key": mallory.signer.key, "sig": answer["sig"]},
        seal(content, mallory.signer).message,
        {"status": "rejected", "from": "maker"},
    ):
        with pytest.raises(ProtocolError):
            taker.channel.answered(confirm, request, forged)
        taker.channel.refused(confirm, "forged")
        assert taker.negotiator.in_doubt == 1
    taker.told(confirm, request, answer)
    assert taker.negotiator.in_doubt == 0


def test_the_answer_to_another_request_is_none(taker: SigningPeer, maker: SigningPeer) -> None:
    confirm, request = confirmation(taker, maker)
    other, other_request = confirmation(taker, maker, quantity=2)
    answer, other_answer = maker.answer(request.message), maker.answer(other_request.message)
    for effect, sent, got in ((confirm, request, other_answer), (other, other_request, answer)):
        with pytest.raises(ProtocolError, match="not the answer to ours"):
            taker.channel.answered(effect, sent, got)
    taker.told(confirm, request, answer)
    taker.told(other, other_request, other_answer)
    assert taker.market.ledger.trade_count == 2


def test_a_forged_offer_is_as_good_as_none(taker: SigningPeer, maker: SigningPeer) -> None:
    maker.place("sell", 100, 10)
    order, effects = taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    request = taker.channel.seal(announce)
    offer = maker.answer(request.message)
    with pytest.raises(ProtocolError, match="forged"):
        taker.channel.answered(announce, request, {**offer, "quantity": "3"})
    effects = taker.channel.refused(announce, "forged")
    assert only(effects, Settled).order_id == order.id
    assert (order.open, order.status) == (4, OrderStatus.OPEN)


def test_a_stranger_in_a_peers_name_is_named_as_refused(
    taker: SigningPeer, maker: SigningPeer, clock: Clock
) -> None:
    def beat(destination: str, peer: SigningPeer) -> str | None:
        (effect,) = taker.negotiator.discovered([destination])
        assert isinstance(effect, Beat)
        request = taker.channel.seal(effect)
        answer = peer.answer(request.message)
        try:
            taker.told(effect, request, answer)
        except OrderBookError as error:
            taker.channel.refused(effect, str(error))
        known = taker.market.roster.at(destination)
        assert known is not None
        return known.refused

    taker.market.roster.lost("maker")
    assert beat("first:1", maker) is None
    refused = beat("second:1", SigningPeer("maker", clock, key="mallory"))
    assert refused is not None
    assert "maker is the name of another key" in refused
    assert [peer.destination for peer in taker.market.roster.trading()] == ["first:1"]


# -- time passes -----------------------------------------------------------------------------------------


def test_in_doubt_means_the_key_and_not_the_name(
    taker: SigningPeer, maker: SigningPeer, clock: Clock
) -> None:
    confirm, request = confirmation(taker, maker)
    answer = maker.answer(request.message)
    taker.channel.failed(confirm)
    taker = taker.restarted(clock, "maker")
    clock.now += limits.NAME_HELD_S + 1.0
    heir = SigningPeer("maker", clock, key="mallory")
    again = only(taker.negotiator.tick(), Confirm)
    assert again.key == maker.signer.key
    repeated = taker.channel.seal(again)
    with pytest.raises(ProtocolError, match="not for this one"):
        heir.answer(repeated.message)
    posing = {"status": "rejected", "from": "maker", "request": repeated.digest}
    with pytest.raises(ProtocolError, match="key must be"):
        taker.channel.answered(again, repeated, seal(posing, heir.signer).message)
    taker.channel.refused(again, "forged")
    assert taker.negotiator.in_doubt == 1
    taker.told(again, repeated, maker.answer(repeated.message))
    assert taker.negotiator.in_doubt == 0
    assert proven(taker).maker == Party("maker", maker.signer.key)
    assert answer["status"] == "committed"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("heir_signs", [True, False])
def test_who_has_anothers_name_by_now_is_not_told_of_its_matches(
    taker: SigningPeer, maker: SigningPeer, clock: Clock, restarted: bool, heir_signs: bool
) -> None:
    """A signed answer to its own question would be the proof of a trade that it never made."""
    confirm, request = confirmation(taker, maker)
    maker.answer(request.message)
    taker.channel.failed(confirm)
    clock.now += limits.NAME_HELD_S + 1.0
    if restarted:
        maker = maker.restarted(clock)
    maker.channel.gate.unsigned = True
    heir = SigningPeer("taker", clock, key="mallory")
    asked: Any = confirm.payload
    if heir_signs:
        asked = heir.channel.gate.seal(confirm.payload, to=maker.signer.key).message
    with pytest.raises(ProtocolError, match=f"key must be {taker.signer.key}"):
        maker.answer(asked)
    assert len(maker.signed()) == (0 if restarted else 1)
    clock.now += limits.NAME_HELD_S + 1.0
    again = only(taker.negotiator.tick(), Confirm)
    repeated = taker.channel.seal(again)
    taker.told(again, repeated, maker.answer(repeated.message))
    assert proven(taker).taker == Party("taker", taker.signer.key)


def test_a_match_that_nobody_has_signed_is_proven_to_nobody(clock: Clock) -> None:
    maker, taker = SigningPeer("maker", clock, unsigned=True), SigningPeer("taker", clock, "maker")
    maker.place("sell", 100, 10)
    _, effects = taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    effects = taker.negotiator.offer_answered(
        announce.order_id, announce.round, "maker", maker.answer(announce.payload)
    )
    confirm = only(effects, Confirm)
    answer = maker.answer(confirm.payload)
    assert maker.answer(confirm.payload) == answer
    heir = SigningPeer("taker", clock, key="mallory")
    with pytest.raises(ProtocolError, match="key must be none"):
        maker.answer(heir.channel.gate.seal(confirm.payload, to=maker.signer.key).message)


def test_a_goodbye_frees_the_name_and_only_for_who_can_sign_it(
    taker: SigningPeer, maker: SigningPeer, clock: Clock
) -> None:
    confirmation(taker, maker)
    heir = SigningPeer("taker", clock, "maker", key="mallory")
    farewell = heir.channel.seal(only(heir.negotiator.leave(), Tell))
    with pytest.raises(ProtocolError, match="another key"):
        maker.answer(farewell.message)
    assert maker.market.book.reservations
    farewell = taker.channel.seal(only(taker.negotiator.leave(), Tell))
    assert maker.answer(farewell.message) is None
    assert not maker.market.book.reservations
    _, effects = heir.place("buy", 105, 4)
    assert "lock_id" in maker.answer(heir.channel.seal(only(effects, Announce)).message)


# -- with peers that do not sign -------------------------------------------------------------------------


def test_peers_that_do_not_sign_trade_with_open_ones_without_proof(clock: Clock) -> None:
    maker, taker = SigningPeer("maker", clock, unsigned=True), SigningPeer("taker", clock, "maker")
    resting, _ = maker.place("sell", 100, 10)
    _, effects = taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    offer = maker.answer(announce.payload)
    assert "sig" not in offer
    effects = taker.negotiator.offer_answered(announce.order_id, announce.round, "maker", offer)
    confirm = only(effects, Confirm)
    assert confirm.key is None
    answer = maker.answer(confirm.payload)
    assert (answer["status"], resting.filled) == ("committed", 4)
    assert maker.signed() == []


def test_an_open_peer_buys_of_one_that_does_not_sign(clock: Clock) -> None:
    maker, taker = SigningPeer("maker", clock), SigningPeer("taker", clock, "maker", unsigned=True)
    maker.place("sell", 100, 10)
    order, effects = taker.place("buy", 105, 4)
    announce = only(effects, Announce)
    plain_offer = maker.negotiator.handle(announce.payload).content
    confirm = only(taker.told(announce, taker.channel.seal(announce), plain_offer), Confirm)
    request = taker.channel.seal(confirm)
    assert (confirm.key, "to" in request.message) == (None, False)
    plain_answer = maker.negotiator.handle(confirm.payload).content
    effects = taker.told(confirm, request, plain_answer)
    assert only(effects, Traded).trades
    assert order.status is OrderStatus.FILLED
    assert taker.signed() == []


def test_own_messages_come_to_nothing(taker: SigningPeer) -> None:
    _, effects = taker.place("buy", 105, 4)
    assert taker.answer(taker.channel.seal(only(effects, Announce)).message) is None


def test_the_answer_to_what_needs_none_is_not_looked_at(taker: SigningPeer) -> None:
    tell = only(taker.negotiator.leave(), Tell)
    assert taker.channel.answered(tell, Sealed({}, "", b"{}"), {"junk": 1}) == []
    assert taker.channel.failed(tell) == taker.channel.refused(tell, "no") == []
