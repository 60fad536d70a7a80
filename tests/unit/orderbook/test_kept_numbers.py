"""What a peer could say that no journal can keep, or no clock can count, is refused and changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from orderbook import limits
from orderbook.effects import Confirm
from orderbook.entry import NewOrder
from orderbook.errors import ProtocolError
from orderbook.events import pack
from orderbook.signing.seals import seal
from tests.unit.orderbook import negotiators
from tests.unit.orderbook.signing_peers import Clock, SigningPeer, confirmation, travelled

HUGE = 2**70


def said(taker: SigningPeer, clock: Clock, kind: str, payload: Any, **more: Any) -> Any:
    message = {"type": kind, "from": taker.name, "payload": payload, "market": "SIM"}
    message |= {"time": clock.time_ms(), "nonce": f"nonce-{next(SigningPeer.nonces)}", **more}
    return seal(message, taker.signer).message


def test_a_confirmation_that_no_journal_can_keep_trades_nothing() -> None:
    clock = Clock()
    maker, taker = SigningPeer("maker", clock), SigningPeer("taker", clock, "maker")
    confirm, _ = confirmation(taker, maker)
    sealed = taker.channel.gate.seal(confirm.payload, to=confirm.key)
    strange = seal({**sealed.message, "more": HUGE}, taker.signer).message
    with pytest.raises(ProtocolError, match="can't be kept"):
        maker.answer(strange)
    assert not maker.market.ledger.trade_count
    again = taker.channel.seal(confirm)
    assert maker.answer(again.message)["status"] == "committed"
    assert pack(maker.market.take_events())


@pytest.mark.parametrize("more", [{"more": HUGE}, {"trades": HUGE}])
def test_an_answer_that_no_journal_can_keep_leaves_the_doubt(more: dict[str, Any]) -> None:
    clock = Clock()
    maker, taker = SigningPeer("maker", clock), SigningPeer("taker", clock, "maker")
    confirm, sealed = confirmation(taker, maker)
    answer = maker.answer(sealed.message)
    signed = seal({name: value for name, value in {**answer, **more}.items() if name != "sig"}, maker.signer)
    with pytest.raises(ProtocolError):
        taker.told(confirm, sealed, travelled(signed.message))
    assert taker.negotiator.is_in_doubt(confirm.match_id)
    taker.told(confirm, sealed, answer)
    assert not taker.negotiator.is_in_doubt(confirm.match_id)
    assert pack(taker.market.take_events())


def test_a_time_that_no_journal_can_keep_leaves_the_doubt() -> None:
    clock = negotiators.Clock()
    maker, taker = negotiators.Peer("maker", clock), negotiators.Peer("taker", clock, "maker")
    maker.place("sell", 100, 5)
    order, announce, offer = negotiators.offered(taker, maker, "buy", 100, 5)
    confirm: Confirm = negotiators.confirmed(taker, announce, offer)
    answer = maker.answer(confirm)
    late = {**answer, "trades": [{**answer["trades"][0], "time": limits.WHOLE_NUMBER + 1}]}
    taker.match_answered(confirm.match_id, late)
    assert order.reserved == 5
    taker.match_answered(confirm.match_id, answer)
    assert order.filled == 5


def test_an_offer_with_a_lease_beyond_all_clocks_is_released_and_holds_nothing() -> None:
    clock = negotiators.Clock()
    maker, taker = negotiators.Peer("maker", clock), negotiators.Peer("taker", clock, "maker")
    maker.place("sell", 100, 5)
    order, announce, offer = negotiators.offered(taker, maker, "buy", 100, 5)
    taker.offer_answered(order.id, announce.round, "maker", {**offer, "lease": 10**400})
    assert (order.open, order.reserved) == (5, 0)


def test_the_answer_to_the_longest_and_strangest_ids_can_be_signed() -> None:
    clock, name = Clock(), "m" * limits.NAME_LENGTH
    maker = SigningPeer(name, clock, key="maker")
    taker = SigningPeer("t" * limits.NAME_LENGTH, clock, key="taker")
    numbers = itertools.count(10**40)
    maker.market.new_id = lambda: str(next(numbers))
    for _ in range(limits.OFFER_FILLS):
        maker.negotiator.submit(NewOrder("sell", "100", "1", "ann"))
    strange, quantity = "\x01" * limits.NAME_LENGTH, str(limits.OFFER_FILLS)
    order = {"id": strange, "market": "SIM", "side": "buy", "price": "100", "quantity": quantity}
    offer = maker.answer(said(taker, clock, "AnnounceOpenOrder", {"order": order, "round": 1}))
    match = {"match_id": strange, "lock_id": offer["lock_id"], "fills": offer["fills"]}
    match |= {"side": "buy", "order_id": strange}
    answer = maker.answer(said(taker, clock, "CrossPeerMatch", match, to=maker.signer.key))
    assert len(answer["trades"]) == limits.OFFER_FILLS
