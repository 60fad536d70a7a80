"""What makers were asked to execute, until they have answered. Pure.

A confirmation without an answer is *in-doubt*: its quantity stays reserved, and the maker, who alone decides,
is asked again until it has answered.
"""

from __future__ import annotations

from . import limits
from .effects import Confirm, Effect
from .envelopes import parse, request
from .errors import ProtocolError
from .market import Market
from .messages import CrossPeerMatch, MatchAnswer, OfferedFill
from .trade import Trade
from .under_way import Confirmation


class Confirmations:
    """Those of one market that are not answered yet."""

    def __init__(self, market: Market):
        self._market = market
        self.unanswered: dict[str, Confirmation] = {}
        """By match id."""
        self.doubts: dict[str, int] = {}
        """By maker, how many of them it did not answer when it was asked."""

    def ask(self, match_id: str, confirmation: Confirmation) -> Confirm:
        """Ask the maker for the first time."""
        self.unanswered[match_id] = confirmation
        if self._market.journaled:
            self._market.note(confirmation.intent(match_id))
        return self._question(match_id, confirmation)

    def resume(self, match_id: str, confirmation: Confirmation) -> None:
        """After a restart: ask the maker again, soon."""
        self.unanswered[match_id] = confirmation
        self._count_silence(confirmation)
        self._ask_later(limits.IN_DOUBT_RETRY_S[0], match_id)

    def failed(self, match_id: str) -> Confirmation | None:
        """There is no answer: the maker is asked again in a while. None: it was answered before."""
        confirmation = self.unanswered.get(match_id)
        if confirmation is None:
            return None
        shortest, longest = limits.IN_DOUBT_RETRY_S
        pause = min(longest, shortest * 2 ** min(confirmation.silences, 16))
        self._count_silence(confirmation)
        self._market.count("match", "unanswered")
        self._ask_later(pause, match_id)
        return confirmation

    def _count_silence(self, confirmation: Confirmation) -> None:
        if not confirmation.silences:
            self.doubts[confirmation.maker] = self.doubts.get(confirmation.maker, 0) + 1
        confirmation.silences += 1

    def answered(self, match_id: str, answer: object) -> tuple[Confirmation, MatchAnswer] | None:
        """The maker has answered, perhaps a repeated question. None: it was answered before.

        Raises:
            ProtocolError: This is no valid answer, and the question is still open.
        """
        confirmation = self.unanswered.get(match_id)
        if confirmation is None:
            return None
        said = parse(answer, MatchAnswer)
        if said.sender not in (None, confirmation.maker):
            raise ProtocolError(f"from must be {confirmation.maker}: its address has changed hands")
        del self.unanswered[match_id]
        if confirmation.silences:
            self.doubts[confirmation.maker] -= 1
            if not self.doubts[confirmation.maker]:
                del self.doubts[confirmation.maker]
        self._market.count("match", said.status)
        return confirmation, said

    def trades(self, match_id: str, confirmation: Confirmation, said: MatchAnswer) -> list[Trade]:
        """What was committed. A maker executes exactly what it was asked for, or nothing: so the fills are
        ours to know."""
        market, order = self._market, confirmation.order
        time_ms = said.trades[0].time if said.trades else market.clock.time_ms()
        return [
            Trade(
                match_id=match_id,
                market=market.instrument.market,
                price=fill.price,
                quantity=fill.quantity,
                maker_order_id=fill.order_id,
                taker_order_id=order.id,
                maker_peer=confirmation.maker,
                taker_peer=market.peer,
                time_ms=time_ms,
                side=order.side,
            )
            for fill in confirmation.fills
        ]

    def _ask_later(self, pause_s: float, match_id: str) -> None:
        self._market.agenda.later_about(pause_s, lambda: self._ask_again(match_id))

    def _ask_again(self, match_id: str) -> list[Effect]:
        confirmation = self.unanswered.get(match_id)
        if confirmation is None:
            return []
        maker = self._market.roster.named(confirmation.maker)
        if maker is not None:
            confirmation.destination = maker.destination
        return [self._question(match_id, confirmation)]

    def _question(self, match_id: str, confirmation: Confirmation) -> Confirm:
        instrument = self._market.instrument
        fills = [
            OfferedFill(
                fill.order_id, instrument.price_text(fill.price), instrument.quantity_text(fill.quantity)
            )
            for fill in confirmation.fills
        ]
        order = confirmation.order
        message = CrossPeerMatch(match_id, confirmation.lock_id, fills, order.side, order.id)
        payload = request(self._market.peer, message)
        return Confirm(match_id, confirmation.maker, confirmation.destination, payload, confirmation.key)
