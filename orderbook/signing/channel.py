"""Between a market's negotiation and the transport: everything that goes either way passes the gate. No IO.

The worker and the simulation send what :meth:`Channel.seal` makes of an effect, and tell one of
:meth:`~Channel.answered`, :meth:`~Channel.refused` and :meth:`~Channel.failed` what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..effects import Announce, Beat, Confirm, Effect, Question, Tell, Traded
from ..envelopes import (
    UNREAD,
    decode,
    encode,
    parse,
    parse_request,
    read_match_answer,
    read_offer,
    read_request,
)
from ..errors import ProofError, ProtocolError
from ..events import Signed, pack
from ..messages import CrossPeerMatch, Goodbye, MatchAnswer, Offer
from ..model import Order
from ..negotiation import Answer, Negotiator
from .gate import Gate
from .proofs import Proof, check_fit
from .seals import Sealed, SignedAnswer
from .session import Session

_READERS: Final[dict[type, Callable[[bytes], Offer | MatchAnswer | None]]] = {
    Announce: read_offer,
    Confirm: read_match_answer,
}
"""Of the answers that come often."""


class Channel:
    """Carries the messages of ``negotiator`` through ``gate``."""

    def __init__(self, negotiator: Negotiator, gate: Gate):
        self.gate = gate
        self._negotiator = negotiator
        self._sealed_last: tuple[Any, Sealed] | None = None
        self._plain_last: tuple[Any, Sealed] | None = None

    # -- others' requests --------------------------------------------------------------------------------

    def receive(self, data: bytes, session: Session | None = None) -> Answer:
        """As :meth:`handle`, for a request that is still JSON."""
        if self.gate.unsigned or session is not None:
            try:
                sender, message = read_request(data)
            except UNREAD:
                pass
            else:
                if session is None:
                    self.gate.check_unsigned(sender)
                    return self._negotiator.answer(sender, message)
                self.gate.check_in_session(session, sender)
                return self._answer_in_session(sender, message)
        return self.handle(decode(data), session)

    def handle(self, payload: object, session: Session | None = None) -> Answer:
        """Answer a request of another peer, as decoded from JSON, which has come in ``session`` if in any.

        Raises:
            OrderBookError: It is not to be taken; nothing has changed.
        """
        request = self.gate.open(payload, session)
        if request.key is None:
            if session is not None:
                return self._answer_in_session(*parse_request(payload))
            return self._negotiator.handle(payload)
        check_provable(request.message)
        answer = self._negotiator.handle(payload, request.key)
        content = self.gate.answer(request, answer.content)
        if answer.promise:
            self._keep_proof(answer.effects, Proof(request.message, content))
        if request.message["type"] == Goodbye.__name__:
            self.gate.keyring.left(request.message["from"])
        return Answer(content, answer.promise, answer.effects)

    def _answer_in_session(self, sender: str, message: Any) -> Answer:
        """Answer what is not signed, from who has a session. What others must be able to verify is signed
        nevertheless."""
        if type(message) is CrossPeerMatch:
            raise ProtocolError("sig is required in a confirmation, also in a session")
        answer = self._negotiator.answer(sender, message)
        if type(message) is Goodbye:
            self.gate.keyring.left(sender)
        return answer

    # -- our requests ------------------------------------------------------------------------------------

    def seal(self, effect: Question, session: Session | None = None) -> Sealed:
        """The request of ``effect``, to go out in ``session`` if in any: signed, unless the session will do.

        A broadcast, whose effects share one payload, is signed once for all.
        """
        if isinstance(effect, Confirm):
            return self.gate.seal(effect.payload, to=effect.key)
        if session is not None:
            if self._plain_last is None or self._plain_last[0] is not effect.payload:
                self._plain_last = effect.payload, Sealed(effect.payload, "", encode(effect.payload))
            return self._plain_last[1]
        if self._sealed_last is None or self._sealed_last[0] is not effect.payload:
            self._sealed_last = effect.payload, self.gate.seal(effect.payload)
        return self._sealed_last[1]

    def heard(
        self, effect: Question, request: Sealed, data: bytes, session: Session | None = None
    ) -> list[Effect]:
        """As :meth:`answered`, for an answer that is still JSON."""
        read = _READERS.get(type(effect))
        quick = self.gate.unsigned if session is None else isinstance(effect, Announce)
        if read is not None and quick:
            try:
                answer = read(data)
            except UNREAD:
                pass
            else:
                return self._unsigned_answered(effect, answer, session)
        return self.answered(effect, request, decode(data), session)

    def answered(
        self, effect: Question, request: Sealed, answer: object, session: Session | None = None
    ) -> list[Effect]:
        """The peer has answered ``request``, as :meth:`seal` returned it, with decoded JSON.

        Where the request has gone in a ``session``, the answer has come in it.

        Raises:
            OrderBookError: It must not be believed; say so by :meth:`refused`.
        """
        if isinstance(effect, Tell):
            return []
        key = effect.key if isinstance(effect, Confirm) else None
        signed = self.gate.check_answer(request, answer, key, session)
        if isinstance(effect, Confirm):
            return self._match_answered(effect, request, answer, signed)
        if isinstance(effect, Announce):
            if session is not None and isinstance(answer, dict):
                answer = {**answer, "key": session.key}
            return self._negotiator.offer_answered(effect.order_id, effect.round, effect.destination, answer)
        return self._negotiator.heartbeat_answered(effect.destination, answer)

    def _unsigned_answered(
        self, effect: Question, answer: Offer | MatchAnswer | None, session: Session | None
    ) -> list[Effect]:
        if answer is not None:
            sender = answer.sender
            if session is not None:
                self.gate.check_in_session(session, sender)
            elif sender is not None:
                self.gate.check_unsigned(sender)
        if isinstance(effect, Announce):
            if session is not None and isinstance(answer, Offer):
                answer.key = session.key  # as if it were signed: the confirmation is for this key alone
            return self._negotiator.offer_answered(effect.order_id, effect.round, effect.destination, answer)
        assert isinstance(effect, Confirm)
        if effect.key is not None:
            raise ProtocolError("sig is required: the answer of a peer that signs must be signed")
        return self._negotiator.match_answered(effect.match_id, answer)

    def refused(self, effect: Question, reason: str) -> list[Effect]:
        """The peer has answered with an error, or with what must not be believed."""
        if isinstance(effect, Beat):
            return self._negotiator.peer_refuses(effect.destination, reason)
        return self.failed(effect)

    def failed(self, effect: Question) -> list[Effect]:
        """There is no answer."""
        if isinstance(effect, Announce):
            return self._negotiator.offer_failed(effect.order_id, effect.round, effect.destination)
        if isinstance(effect, Confirm):
            return self._negotiator.match_failed(effect.match_id)
        return []

    def prove(self, match_id: str, proof: Proof) -> tuple[Order, list[Effect]]:
        """Settle the doubt about ``match_id`` by what both peers have signed, which the maker has kept.

        Raises:
            UnknownDoubtError: There is no such doubt.
            ProofError: It does not prove just that which the maker was asked for.
        """
        confirmation = self._negotiator.doubt(match_id)
        proven = self.gate.check_proof(proof)
        check_kept(proof.request)
        check_kept(proof.answer)
        instrument = self._negotiator.market.instrument
        asked = sorted(
            (fill.order_id, instrument.price_text(fill.price), instrument.quantity_text(fill.quantity))
            for fill in confirmation.fills
        )
        trades = sorted((trade.maker_order_id, trade.price, trade.quantity) for trade in proven.trades)
        same = (
            proof.request["payload"]["match_id"] == match_id
            and proven.maker == (confirmation.maker, confirmation.key)
            and proven.taker.name == self._negotiator.market.peer
            and trades == asked
        )
        if not same:
            raise ProofError(f"it proves another trade than what {confirmation.maker} was asked for")
        effects = self._negotiator.match_answered(match_id, proof.answer)
        self._keep_proof(effects, proof)
        return confirmation.order, effects

    def _match_answered(
        self, effect: Confirm, request: Sealed, answer: object, signed: SignedAnswer | None
    ) -> list[Effect]:
        """A signed commitment counts when it proves the trade, so that there is none that can't be proven."""
        if signed is None:
            return self._negotiator.match_answered(effect.match_id, answer)
        assert isinstance(answer, dict)
        said, asked = parse(answer, MatchAnswer), effect.payload
        if said.status == "committed":
            check_kept(answer)
            check_fit(self.gate.market, asked.sender, effect.key, asked.payload, signed, said)
        effects = self._negotiator.match_answered(effect.match_id, said)
        self._keep_proof(effects, Proof(request.message, answer))
        return effects

    def _keep_proof(self, effects: list[Effect], proof: Proof) -> None:
        """Note ``proof`` beside the trades of its match, if this step has executed them."""
        match_id = proof.request["payload"]["match_id"]
        traded = (effect.trades for effect in effects if isinstance(effect, Traded))
        if any(trade.match_id == match_id for trades in traded for trade in trades):
            self._negotiator.market.note(Signed(match_id, proof.request, proof.answer))


def check_provable(message: dict[str, Any]) -> None:
    """Raises ProtocolError for a signed confirmation that would not prove what it makes us do."""
    if message["type"] == CrossPeerMatch.__name__:
        content = message["payload"]
        if message.get("to") is None:
            raise ProtocolError("to is required in a signed confirmation: the key of whom it is for")
        for name in ("side", "order_id"):
            if isinstance(content, dict) and content.get(name) is None:
                raise ProtocolError(f"{name} is required in a signed confirmation")
        check_kept(message)


def check_kept(message: dict[str, Any]) -> None:
    """Raises ProtocolError for a signed message that no journal can keep, though it may be right: it is kept
    whole, with fields that we do not know."""
    try:
        pack(message)
    except (OverflowError, RecursionError) as error:
        raise ProtocolError(f"the message can't be kept as a proof: {error}") from error
