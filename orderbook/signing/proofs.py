"""The proof of a cross-peer trade: what its two peers have signed. Pure.

The taker has signed "execute these of what you reserved for me" to the maker's key; the maker has signed
"done" under the digest of that very message. Neither can deny the trade, nor say that it was another one:
market, side, price, quantity, both orders and both names are in what they signed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from ..envelopes import parse
from ..errors import ProofError, ProtocolError
from ..messages import CrossPeerMatch, MatchAnswer, TradeRecord
from .identity import Verify, verify
from .seals import SignedAnswer, SignedEnvelope, canonical, digest_of


class Proof(Struct, frozen=True):
    """Both messages, exactly as they travelled."""

    request: dict[str, Any]
    answer: dict[str, Any]


class Party(NamedTuple):
    """One side of a trade: the name that it used, and its key."""

    name: str
    key: str


class Proven(NamedTuple):
    """What a valid proof proves.

    Attributes:
        maker: Whose order rested.
        taker: Whose order arrived.
        side: ``"buy"`` or ``"sell"``: what the taker did.
        trades: One for each of the maker's orders.
    """

    maker: Party
    taker: Party
    side: str
    trades: list[TradeRecord]


def agree(proof: Proof) -> Proven:
    """What ``proof`` proves if its signatures are valid, which is not checked here.

    Raises:
        ProofError: The messages are no confirmation and its execution, or do not fit together.
    """
    try:
        request = parse(proof.request, SignedEnvelope)
        match = parse(request.payload, CrossPeerMatch)
        signed = parse(proof.answer, SignedAnswer)
        answer = parse(proof.answer, MatchAnswer)
    except ProtocolError as error:
        raise ProofError(str(error)) from error
    if request.type != CrossPeerMatch.__name__:
        raise ProofError(f"request is a {request.type}, not a {CrossPeerMatch.__name__}")
    check_fit(request.market, request.sender, request.to, match, signed, answer)
    assert match.side is not None
    return Proven(
        Party(signed.sender, signed.key), Party(request.sender, request.key), match.side.text, answer.trades
    )


def check_fit(
    market: str,
    taker: str,
    to: str | None,
    match: CrossPeerMatch,
    signed: SignedAnswer,
    answer: MatchAnswer,
) -> None:
    """Raises ProofError where the answer, which is ``signed``, is not the execution of ``match``.

    Args:
        market: Of the request.
        taker: Who has made it.
        to: The key to which it is addressed.
        match: What it asks for.
        signed: How the answer is signed.
        answer: What it says.
    """
    if to != signed.key:
        raise ProofError(f"request is addressed to key {to}, and {signed.key} has answered")
    if answer.status != "committed":
        raise ProofError(f"answer is {answer.status}: there was no trade")
    if match.side is None or match.order_id is None:
        raise ProofError("request does not say who bought, and with which order")
    wanted = sorted((fill.order_id, fill.price, fill.quantity) for fill in match.fills)
    if sorted((trade.maker_order_id, trade.price, trade.quantity) for trade in answer.trades) != wanted:
        raise ProofError("answer's trades are not the fills of the request")
    for trade in answer.trades:
        same = (
            trade.match_id == match.match_id
            and trade.market == market
            and trade.maker_peer == signed.sender
            and trade.taker_peer == taker
            and trade.side == match.side.text
            and trade.taker_order_id == match.order_id
        )
        if not same:
            raise ProofError("answer's trades are of another match, market, side, order or peers")


def check(proof: Proof, verify: Verify = verify) -> Proven:
    """What ``proof`` proves.

    Raises:
        ProofError: Nothing; the text says why.
    """
    proven = agree(proof)
    try:
        request, answer = canonical(proof.request), canonical(proof.answer)
    except ProtocolError as error:
        raise ProofError(str(error)) from error
    if proof.answer["request"] != digest_of(request):
        raise ProofError("answer is not to this request: its digest is another")
    if not verify(proven.taker.key, request, proof.request["sig"]):
        raise ProofError(f"request is not signed by {proven.taker.key}")
    if not verify(proven.maker.key, answer, proof.answer["sig"]):
        raise ProofError(f"answer is not signed by {proven.maker.key}")
    return proven
