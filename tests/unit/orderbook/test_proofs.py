"""What proves a trade, and that nothing else does."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from orderbook.errors import ProofError
from orderbook.signing import proofs
from orderbook.signing.identity import Identity
from orderbook.signing.proofs import Party, Proof
from orderbook.signing.seals import canonical, digest_of, seal

ALICE, BOB = Identity.from_seed(b"a" * 32), Identity.from_seed(b"b" * 32)


def signed_request(by: Identity = BOB, **changes: Any) -> Any:
    """Bob asks alice to execute two fills."""
    payload = {
        "match_id": "m",
        "lock_id": "l",
        "fills": [
            {"order_id": "a1", "price": "100", "quantity": "2"},
            {"order_id": "a2", "price": "101", "quantity": "3"},
        ],
        "side": "buy",
        "order_id": "b1",
    }
    request = {"type": "CrossPeerMatch", "from": "bob", "payload": payload, "market": "SIM", "time": 5}
    return seal({**request, "nonce": "n", "to": ALICE.key, **changes}, by).message


def signed_answer(request: Any, by: Identity = ALICE, **changes: Any) -> Any:
    trade: dict[str, Any] = {"match_id": "m", "market": "SIM", "taker_order_id": "b1", "maker_peer": "alice"}
    trade |= {"taker_peer": "bob", "time": 7, "side": "buy"}
    fills = [("a2", "101", "3"), ("a1", "100", "2")]
    trades = [{**trade, "maker_order_id": id, "price": p, "quantity": q} for id, p, q in fills]
    answer = {"status": "committed", "trades": trades, "from": "alice"}
    return seal({**answer, "request": digest_of(canonical(request)), **changes}, by).message


def proof(request: Any = None, **changes: Any) -> Proof:
    request = request or signed_request()
    return Proof(request, signed_answer(request, **changes))


def refusal(proof: Proof) -> str:
    with pytest.raises(ProofError) as caught:
        proofs.check(proof)
    return str(caught.value)


def test_a_valid_proof_names_both_sides_and_what_they_traded() -> None:
    said = proofs.check(proof())
    assert (said.maker, said.taker) == (Party("alice", ALICE.key), Party("bob", BOB.key))
    assert said.side == "buy"
    assert [(trade.maker_order_id, trade.price, trade.quantity) for trade in said.trades] == [
        ("a2", "101", "3"),
        ("a1", "100", "2"),
    ]


def paths(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """The path of each leaf in a message."""
    if isinstance(value, dict):
        return [found for name, inner in value.items() for found in paths(inner, *path, name)]
    if isinstance(value, list):
        return [found for place, inner in enumerate(value) for found in paths(inner, *path, place)]
    return [path]


VALID = proof()
LEAVES = [("request", *path) for path in paths(VALID.request)]
LEAVES += [("answer", *path) for path in paths(VALID.answer)]


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: ".".join(str(step) for step in path))
@pytest.mark.parametrize("change", ["replaced", "removed", "nulled"])
def test_a_proof_with_anything_changed_is_none(path: tuple[Any, ...], change: str) -> None:
    messages = copy.deepcopy({"request": VALID.request, "answer": VALID.answer})
    *above, last = path
    inner: Any = messages
    for step in above:
        inner = inner[step]
    if change == "removed" and isinstance(inner, dict):
        del inner[last]
    elif change == "replaced":
        inner[last] = {"buy": "sell", "SIM": "OTHER"}.get(inner[last], inner[last] * 2)
    else:
        inner[last] = None
    refusal(Proof(**messages))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (Proof({}, {}), "missing required field"),
        (Proof(VALID.answer, VALID.request), "missing required field"),
        (proof(signed_request(type="Heartbeat")), "request is a Heartbeat"),
        (proof(signed_request(to=BOB.key)), "request is addressed to key"),
        (proof(status="rejected"), "answer is rejected: there was no trade"),
        (proof(status="maybe"), "Invalid enum value"),
        (proof(trades=[]), "trades are not the fills"),
        (proof(trades=VALID.answer["trades"][:1]), "trades are not the fills"),
        (proof(trades=VALID.answer["trades"] * 2), "trades are not the fills"),
        (proof(**{"from": "carol"}), "of another match, market, side, order or peers"),
        (proof(signed_request(BOB, **{"from": "carol"})), "of another match, market, side, order or peers"),
        (proof(signed_request(market="OTHER")), "of another match, market, side, order or peers"),
        (proof(by=BOB), "request is addressed to key"),
        (Proof(signed_request(time=6), VALID.answer), "its digest is another"),
        (Proof({**VALID.request, "sig": "00" * 64}, VALID.answer), f"request is not signed by {BOB.key}"),
        (Proof(VALID.request, {**VALID.answer, "sig": "00" * 64}), f"answer is not signed by {ALICE.key}"),
    ],
)
def test_what_is_wrong_with_a_proof_is_said(wrong: Proof, reason: str) -> None:
    with pytest.raises(ProofError, match=reason):
        proofs.check(wrong)


def test_who_trades_with_its_own_key_proves_just_that() -> None:
    assert proofs.check(proof(signed_request(by=ALICE))).taker == Party("bob", ALICE.key)


def test_old_trades_without_a_side_prove_nothing() -> None:
    payload = {name: value for name, value in VALID.request["payload"].items() if name != "side"}
    assert "does not say who bought" in refusal(proof(signed_request(payload=payload)))


def test_a_proof_that_can_not_be_written_is_none() -> None:
    assert "can't be signed" in refusal(Proof({**VALID.request, "more": "\ud800"}, VALID.answer))
