"""Signatures of Node's crypto and of ours are the same, over the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orderbook.errors import ProtocolError
from orderbook.signing import proofs
from orderbook.signing.identity import Identity
from orderbook.signing.proofs import Party, Proof
from orderbook.signing.seals import canonical, digest_of, seal
from tests.harness import Process
from tests.unit.orderbook.signing_peers import Clock, SigningPeer, confirmation

NODE = Identity.from_seed(b"node".ljust(32))


@pytest.fixture
def node(node_script: Callable[..., tuple[Process, Any]]) -> Callable[[str, Any], Any]:
    """``node("sign", message)``: what Node makes of a message, with the key ``NODE`` from its PEM."""
    process, ready = node_script("signing.js", {"pem": NODE.to_pem().decode()})
    assert ready["key"] == NODE.key

    def call(name: str, message: Any) -> Any:
        process.send_json({"call": name, "message": message})
        return process.next_json()["res"]

    return call


NESTED = {
    "type": "Heartbeat",
    "payload": {"b": [1, {"z": None, "a": True}], "a": 9_007_199_254_740_991, "B": -1, "": "empty", "_": 0},
    "text": 'é😀ß\x7f"\\/\b\f\n\r\t\x00\x1f\u2028\u2029<&',
    "from": "node",
}


def test_the_same_bytes_are_signed(node: Callable[[str, Any], Any]) -> None:
    assert node("canonical", NESTED) == canonical(NESTED).decode()
    assert node("digest", NESTED) == digest_of(canonical(NESTED))
    assert node("sign", NESTED) == seal(NESTED, NODE).message
    ours = seal(NESTED, Identity.from_seed(b"ours".ljust(32))).message
    assert node("verify", ours) is True
    assert node("verify", {**ours, "from": "other"}) is False


def test_a_trade_with_a_peer_that_signs_with_node(node: Callable[[str, Any], Any]) -> None:
    maker, taker = SigningPeer("maker", Clock()), SigningPeer("node", Clock(), "maker")
    confirm, request = confirmation(taker, maker)
    unsigned = {name: value for name, value in request.message.items() if name not in ("key", "sig")}
    signed = node("sign", unsigned)
    with pytest.raises(ProtocolError, match="forged"):
        maker.answer({**signed, "nonce": "another"})
    answer = maker.answer(signed)
    assert answer["status"] == "committed"
    assert node("verify", answer) is True
    assert node("digest", signed) == answer["request"]
    taker.told(confirm, request, answer)
    said = proofs.check(Proof(signed, answer))
    assert (said.taker, said.maker) == (Party("node", NODE.key), Party("maker", maker.signer.key))
    (kept,) = maker.signed()
    assert json.dumps(kept.request, sort_keys=True) == json.dumps(signed, sort_keys=True)
