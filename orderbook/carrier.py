"""Carries out what the steps of a market ask for, and tells it what comes of that.

It sends questions over the lines to other peers, gives their answers and their own requests to the
negotiation, and wakes it when something is due. Nothing here waits: what does is in ``hosted``.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from grenache_py.errors import ConnectError, PeerError, RemoteError
from grenache_py.transports.busy_poll import BusyPoll

from . import limits
from .effects import Confirm, Discover, DropTrades, Duplicate, Effect, Question, Settled, Tell
from .envelopes import encode
from .errors import OrderBookError
from .journal.journal import Log
from .lines import Lines, Refusal
from .market import Market
from .negotiation import Answer, Negotiator
from .outbox import Outbox
from .signing.channel import Channel
from .signing.handshake import Opening
from .signing.seals import Sealed
from .signing.session import Session

log = logging.getLogger(__name__)

Asked = tuple[Question, Sealed, Session | None]
"""A question to another peer, the request that went out for it, and in which session."""


def timeout_of(effect: Question) -> float:
    """For how long the answer is waited for, in seconds."""
    return limits.CONFIRM_TIMEOUT_S if isinstance(effect, Confirm) else limits.ANNOUNCE_TIMEOUT_S


class Carrier:
    """Between the negotiation of one market and the event loop.

    Args:
        channel: What goes to other peers and comes from them passes here.
        journal: Where the market's events go.
        key: The service that other peers are called by.
        opening, poll: See :class:`~orderbook.lines.Lines`.
        ask_otherwise: Sends a request where there is no line, and tells :meth:`answered` or :meth:`failed`.
        discover: Wants the market looked up soon.

    Attributes:
        loop: Where who waits for an order does so; to be set before the first one.
        settling: Who waits until an order's way through the network is over for now, by order id.
        watchers: Set after every step, for those who look at the book then.
    """

    def __init__(
        self,
        market: Market,
        negotiator: Negotiator,
        channel: Channel,
        journal: Log,
        *,
        key: str,
        opening: Callable[[str], Opening | None],
        ask_otherwise: Callable[[Question, Sealed], None],
        discover: Callable[[], None],
        poll: Callable[[], BusyPoll | None] = lambda: None,
    ):
        self._market = market
        self._negotiator = negotiator
        self._channel = channel
        self._ask_otherwise = ask_otherwise
        self._discover = discover
        self.lines: Lines[Asked] = Lines(key, self.answered, self.failed, opening, poll)
        self.settling: dict[str, list[asyncio.Future[None]]] = {}
        self.watchers: set[asyncio.Event] = set()
        self.loop: asyncio.AbstractEventLoop  # to ask for it is a call of the system each time
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = math.inf
        self._timer_set: asyncio.TimerHandle | None = None
        self._stopped = False
        self.keep_in(journal)

    def keep_in(self, journal: Log) -> None:
        """From now on events go to ``journal``."""
        self._journal = journal
        self._outbox = Outbox(self._market, journal, self._carry_out)

    def stop(self) -> None:
        """Nothing wakes it any more."""
        self._stopped = True
        for timer in (self._timer, self._timer_set):
            if timer is not None:
                timer.cancel()

    # -- steps -------------------------------------------------------------------------------------------

    def after_step(self, effects: list[Effect]) -> None:
        """The negotiation has made a step; these are its effects."""
        self._outbox.after_step(effects)
        if self.watchers:  # mostly nobody
            for watcher in self.watchers:
                watcher.set()
        if self._timer_set is None:  # once for all steps of a while
            self._timer_set = asyncio.get_running_loop().call_later(limits.TIMER_SET_S, self._set_timer)

    def settles(self, order_id: str) -> asyncio.Future[None]:
        """Done when the order's way through the network is over for now, and that is durable."""
        settled: asyncio.Future[None] = self.loop.create_future()
        waiting = self.settling.get(order_id)
        if waiting is None:
            self.settling[order_id] = [settled]
        else:
            waiting.append(settled)
        return settled

    def way_of(self, order_id: str, effects: list[Effect]) -> asyncio.Future[None]:
        """As :meth:`settles`, of an order whose way begins with a step that has these ``effects``."""
        settled = self.settles(order_id)
        self.after_step(effects)
        return settled

    def promise(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once all that has happened so far is durable."""
        self._outbox.promise(tell)

    def tick(self) -> None:
        """Let the negotiation do what is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wakes = math.inf
        self.after_step(self._negotiator.tick())

    def _set_timer(self) -> None:
        self._timer_set = None
        if self._stopped:
            return
        due = self._negotiator.next_due()
        if due is None or self._wakes <= due:
            return  # it wakes early enough, and sets the next one then
        if self._timer is not None:
            self._timer.cancel()
        self._wakes = due
        self._timer = asyncio.get_running_loop().call_at(due, self.tick)

    def _carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Question):
            self._ask(effect)
        elif isinstance(effect, Settled):
            for settled in self.settling.pop(effect.order_id, ()):
                if not settled.done():
                    settled.set_result(None)
        elif isinstance(effect, Discover):
            self._discover()
        elif isinstance(effect, Duplicate):
            log.warning(
                "two processes speak as the peer %s, at %s and %s: stop one of them, or trades are lost",
                effect.name,
                effect.destination,
                effect.other,
            )
        elif isinstance(effect, DropTrades):
            self._drop_trades(effect.upto)

    def _drop_trades(self, upto: int) -> None:
        """As :meth:`Ledger.drop_trades`, little by little: what a second has brought takes milliseconds."""
        ledger = self._market.ledger
        ledger.drop_trades(min(upto, ledger.dropped + limits.TRADES_DROPPED))
        if ledger.excess and ledger.dropped < upto and not self._stopped:
            asyncio.get_running_loop().call_soon(self._drop_trades, upto)

    # -- our questions -----------------------------------------------------------------------------------

    def _ask(self, effect: Question) -> None:
        """Send its request; the negotiation is told what comes of it."""
        line = self.lines.get(effect.destination)
        if line is None or line.full:
            self._ask_otherwise(effect, self._channel.seal(effect))
            return
        session = line.session
        request = self._channel.seal(effect, session)
        if isinstance(effect, Tell):
            line.tell(request.data)
        else:
            alone = len(self.settling) < limits.GATHERED_ORDERS
            line.call(request.data, (effect, request, session), timeout_of(effect), alone=alone)

    def answered(self, asked: Asked, data: bytes) -> None:
        """A peer has answered with this JSON."""
        effect, request, session = asked
        try:
            effects = self._channel.heard(effect, request, data, session)
        except OrderBookError as error:
            log.warning("%s gives an answer not to be believed: %s", effect.destination, error)
            self._market.count("answer", "not_believed")
            effects = self._channel.refused(effect, str(error))
        self.after_step(effects)
        if isinstance(effect, Confirm):
            self._look_for_doubt(effect)

    def failed(self, asked: Asked, error: PeerError) -> None:
        """A peer has answered with an error, or not at all."""
        effect = asked[0]
        if isinstance(error, RemoteError):
            log.warning("%s refuses a %s: %s", effect.destination, type(effect).__name__, error)
            effects = self._channel.refused(effect, error.message)
        else:
            log.info("no answer to a %s: %s", type(effect).__name__, error)
            if isinstance(error, ConnectError):
                self.after_step(self._negotiator.peer_lost(effect.destination))
            effects = self._channel.failed(effect)
        self.after_step(effects)
        if isinstance(effect, Confirm):
            self._look_for_doubt(effect)

    def _look_for_doubt(self, effect: Confirm) -> None:
        if self._negotiator.is_in_doubt(effect.match_id):
            log.warning("%s has not confirmed %s, which is now in doubt", effect.maker, effect.match_id)
            self._discover()  # it may have moved

    # -- others' requests --------------------------------------------------------------------------------

    def serve(self, payload: Any, reply: Callable[[Any], None]) -> None:
        """Answer another peer's request, decoded JSON. Raises OrderBookError, having changed nothing."""
        try:
            answer = self._channel.handle(payload)
        except OrderBookError as error:
            self._refused(error)
            raise
        self._answer(answer, answer.content, reply)

    def serve_line(self, payload: bytes, session: Session | None, reply: Callable[[bytes], None]) -> None:
        """As :meth:`serve`, for a request that is still JSON, and an answer that is JSON too."""
        try:
            answer = self._channel.receive(payload, session)
        except OrderBookError as error:
            self._refused(error)
            raise
        self._answer(answer, encode(answer.content), reply)

    def _refused(self, error: OrderBookError) -> None:
        self._market.count("request", error.code)

    def _answer(self, answer: Answer, content: Any, reply: Callable[[Any], None]) -> None:
        self.after_step(answer.effects)
        if answer.promise and self._journal.waiting:
            self._outbox.promise(partial(reply, content))
        else:
            reply(content)


class Switchboard:
    """Gives each request that comes over a line to the market that it is about.

    Args:
        carriers: By the keys that peers call most.
        carrier_of: By any other key; raises OrderBookError where there is none.
    """

    def __init__(self, carriers: dict[str, Carrier], carrier_of: Callable[[str], Carrier]):
        self._carriers = carriers
        self._carrier_of = carrier_of

    def serve(
        self, key: str, payload: bytes, session: Session | None, reply: Callable[[bytes], None]
    ) -> None:
        """See :data:`~orderbook.lines.Serve`."""
        try:
            carrier = self._carriers.get(key)
            if carrier is None:
                carrier = self._carrier_of(key)
            carrier.serve_line(payload, session, reply)
        except OrderBookError as error:
            raise refusal(error) from error


def refusal(error: OrderBookError) -> Refusal:
    """What a peer is told of an OrderBookError, which is logged: ``ERR_ORDERBOOK_<CODE>: <text>``."""
    log.info("a peer's request is refused: %s", error)
    return Refusal(f"ERR_ORDERBOOK_{error.code.upper()}: {error}")
