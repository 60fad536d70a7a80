"""A market as a worker hosts it: its effects carried out, its timer, its calls to other peers.

All IO of the protocol is here. It runs on one event loop and no step of the negotiation waits, so the steps
follow each other: nothing changes the book in between.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from grenache_py.aio import Link, PeerRPCClient
from grenache_py.errors import ConnectError, GrenacheError, LookupEmptyError, PeerError, RemoteError
from grenache_py.tasks import end_tasks

from . import limits
from .effects import Confirm, Discover, DropTrades, Effect, Settled, Tell
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .errors import InvalidFieldError, JournalError, OrderBookError
from .journal.journal import Journal, MemoryJournal
from .journal.writer import SqliteJournal, open_journal
from .lines import Greeted, Lines
from .market import Market
from .messages import decode, encode
from .model import Order, Trade
from .names import shared_name
from .negotiation import Answer, Negotiator
from .outbox import Outbox
from .signing.channel import QUESTIONS, Channel, Question
from .signing.gate import Gate
from .signing.handshake import Opening, Sessions
from .signing.seals import Sealed
from .signing.session import Session

log = logging.getLogger(__name__)

Asked = tuple[Question, Sealed, Session | None]
"""A question to another peer, the request that went out for it, and in which session."""


def new_secret() -> bytes:
    return secrets.token_bytes(32)


def timeout_of(effect: Question) -> float:
    """For how long the answer is waited for, in seconds."""
    return limits.CONFIRM_TIMEOUT_S if isinstance(effect, Confirm) else limits.ANNOUNCE_TIMEOUT_S


class HostedMarket:
    """One market of a worker: its negotiator, its timer, and its calls to other peers.

    ``is_own`` tells whether a destination is known to be this worker's own.
    """

    def __init__(
        self,
        market: Market,
        gate: Gate,
        link: Link,
        client: PeerRPCClient,
        is_own: Callable[[str], bool] = lambda destination: False,
    ):
        self.market = market
        self.sessions = Sessions(gate, new_secret)
        self.negotiator = Negotiator(market)
        self.channel = Channel(self.negotiator, gate)
        self.journal: Journal = MemoryJournal()
        self._outbox = Outbox(market, self.journal, self._carry_out)
        self._key = shared_name(market.instrument.market)
        self._link = link
        self._client = client
        self._is_own = is_own
        self._lines: Lines[Asked] = Lines(self._key, self._answered, self._failed, self._opening)
        self._loop: asyncio.AbstractEventLoop  # kept: to ask for it is a call of the system each time
        self._settling: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = math.inf
        self._timer_set: asyncio.TimerHandle | None = None
        self._stopped = False
        self._discovery_wanted = asyncio.Event()
        self.watchers: set[asyncio.Event] = set()
        """Set after every step, for those who look at the book then."""

    async def open_journal(self, folder: Path, durability: str) -> None:
        """Go on where the journal of an earlier process ends. Raises JournalError."""
        market, loop = self.market, asyncio.get_running_loop()
        path = folder / f"{market.instrument.market}.journal"
        opened = partial(open_journal, path, market.peer, market.instrument, durability)
        file, recovered = await loop.run_in_executor(None, opened)
        journal = SqliteJournal(file, loop)
        self.journal, self._outbox = journal, Outbox(market, journal, self._carry_out)
        market.ledger.archive_in(journal.archive)
        self._after_step(self.negotiator.resume(recovered))

    async def start(self) -> None:
        """Meet the peers that are there already, so that the first order reaches them."""
        self._loop = asyncio.get_running_loop()
        await self._look_up()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limits.ANNOUNCE_TIMEOUT_S)
        self._spawn(self._discover())
        self._tick()

    async def stop(self) -> None:
        """Wait a while for orders that are under way, then end."""
        if self._settling:
            await asyncio.wait(
                list(itertools.chain.from_iterable(self._settling.values())), timeout=limits.STOP_S
            )
        farewells = set(self._tasks)
        self._after_step(self.negotiator.leave())
        farewells = self._tasks - farewells
        if farewells:
            await asyncio.wait(farewells, timeout=limits.ANNOUNCE_TIMEOUT_S)
        self._stopped = True
        for timer in (self._timer, self._timer_set):
            if timer is not None:
                timer.cancel()
        await self._lines.close()
        await end_tasks(self._tasks)
        for future in itertools.chain.from_iterable(self._settling.values()):
            future.cancel()

    # -- clients -----------------------------------------------------------------------------------------

    async def submit(self, new: NewOrder) -> Order:
        """Returns when the order's way through the network is over for now, and that is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no new orders: {self.journal.trouble}")
        order, effects = self.negotiator.submit(new)
        await self._way_of(order, effects)
        return order

    async def submit_pair(self, new: NewPair) -> tuple[Order, Order]:
        """Returns as :meth:`submit`; the way is that of the first order."""
        if self.journal.trouble is not None:
            raise JournalError(f"no new orders: {self.journal.trouble}")
        pair, effects = self.negotiator.submit_pair(new)
        await self._way_of(pair[0], effects)
        return pair

    async def amend(self, order_id: str, change: Amendment) -> Order:
        """Returns as :meth:`submit`. An order that is on its way just now is changed when that is over."""
        if self.journal.trouble is not None:
            raise JournalError(f"no changes: {self.journal.trouble}")
        while self.negotiator.is_under_way(order_id):
            await self._settles(order_id)
        order, effects = self.negotiator.amend(order_id, change)
        await self._way_of(order, effects)
        return order

    async def mass_quote(self, owner: object, quotes: Sequence[NewQuote]) -> list[Order | None]:
        """Returns when the ways of all are over for now, and that is durable. Where one of the orders is on
        its way just now it waits until that is over."""
        if self.journal.trouble is not None:
            raise JournalError(f"no quotes: {self.journal.trouble}")
        while (busy := self.negotiator.quotes_under_way(owner, quotes)) is not None:
            await self._settles(busy)
        orders, effects = self.negotiator.mass_quote(owner, quotes)
        settled = [self._settles(order.id) for order in orders if order is not None]
        self._after_step(effects)
        await asyncio.gather(*settled)
        return orders

    def _way_of(self, order: Order, effects: Sequence[Effect]) -> asyncio.Future[None]:
        settled = self._settles(order.id)
        self._after_step(effects)
        return settled

    async def settle_doubt(self, settle: Callable[[], tuple[Order, list[Effect]]]) -> Order:
        """Returns when what ``settle`` has done is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no decisions: {self.journal.trouble}")
        order, effects = settle()
        self._after_step(effects)
        await self.durable()
        return order

    async def set_state(self, state: object, by: object) -> None:
        """Returns when it is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no decisions: {self.journal.trouble}")
        self._after_step(self.negotiator.set_state(state, by))
        await self.durable()

    def _settles(self, order_id: str) -> asyncio.Future[None]:
        """Done when the order's way through the network is over for now, and that is durable."""
        settled: asyncio.Future[None] = self._loop.create_future()
        self._settling.setdefault(order_id, []).append(settled)
        return settled

    async def cancel(self, order_id: str) -> Order:
        """Returns when the cancellation is durable."""
        order, effects = self.negotiator.cancel(order_id)
        self._after_step(effects)
        await self.durable()
        return order

    async def trades(self, after: int, limit: int) -> tuple[Sequence[Trade], int | None]:
        """As :meth:`Worker.trades`."""
        ledger = self.market.ledger
        if after < ledger.forgotten:
            raise InvalidFieldError(
                "after", f"must be at least {ledger.forgotten}: older trades are forgotten without a journal"
            )
        rows: Sequence[Trade]
        if after < ledger.dropped:
            rows = await self.journal.trades(after, min(limit, ledger.dropped - after))
        else:
            rows = ledger.trades(after, limit)
        end = after + len(rows)
        return rows, end if end < ledger.trade_count else None

    async def trades_of_order(self, order_id: str) -> Sequence[Trade]:
        """As :meth:`Worker.trades_of_order`."""
        ledger = self.market.ledger
        order = ledger.order(order_id)
        rows: Sequence[Trade] = ledger.trades_of_order(order_id)
        if not ledger.forgotten and sum(trade.quantity for trade in rows) < order.filled:
            await self.durable()
            rows = await self.journal.trades_of_order(order_id, limits.ORDER_TRADES)
        return rows[-limits.ORDER_TRADES :]

    async def durable(self) -> None:
        """Wait until all that has happened so far is durable."""
        durable = asyncio.Event()
        self._outbox.promise(durable.set)
        await durable.wait()

    def serve(self, payload: Any, reply: Callable[[Any], None]) -> None:
        """Answer another peer's request, decoded JSON. Raises OrderBookError, having changed nothing."""
        answer = self._understood(self.channel.handle, payload)
        self._answer(answer, answer.content, reply)

    def serve_line(self, payload: bytes, session: Session | None, reply: Callable[[bytes], None]) -> None:
        """As :meth:`serve`, for a request that is still JSON, and an answer that is JSON too."""
        answer = self._understood(self.channel.receive, payload, session)
        self._answer(answer, encode(answer.content), reply)

    def _understood(self, read: Callable[..., Answer], *request: Any) -> Answer:
        """The answer to a request; one that is refused is counted. Raises OrderBookError."""
        try:
            return read(*request)
        except OrderBookError as error:
            self.market.counts["request", error.code] += 1
            raise

    def _answer(self, answer: Answer, content: Any, reply: Callable[[Any], None]) -> None:
        self._after_step(answer.effects)
        if answer.promise:
            self._outbox.promise(partial(reply, content))
        else:
            reply(content)

    # -- effects -----------------------------------------------------------------------------------------

    def _after_step(self, effects: Sequence[Effect]) -> None:
        self._outbox.after_step(effects)
        for watcher in self.watchers:
            watcher.set()
        if self._timer_set is None:  # once for all steps of a while
            loop = asyncio.get_running_loop()
            self._timer_set = loop.call_later(limits.TIMER_SET_S, self._set_timer)

    def _carry_out(self, effect: Effect) -> None:
        kind = type(effect)
        if kind in QUESTIONS:
            self._ask(effect)  # type: ignore[arg-type]  # it is one
        elif isinstance(effect, Settled):
            for settled in self._settling.pop(effect.order_id, ()):
                if not settled.done():
                    settled.set_result(None)
        elif isinstance(effect, Discover):
            self._discovery_wanted.set()
        elif isinstance(effect, DropTrades):
            self.market.ledger.drop_trades(effect.upto)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a step of %s failed", self._key, exc_info=task.exception())

    def _set_timer(self) -> None:
        self._timer_set = None
        if self._stopped:
            return
        due = self.negotiator.next_due()
        if due is None or self._wakes <= due:
            return  # it wakes early enough, and sets the next one then
        if self._timer is not None:
            self._timer.cancel()
        self._wakes = due
        self._timer = asyncio.get_running_loop().call_at(due, self._tick)

    def _tick(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wakes = math.inf
        self._after_step(self.negotiator.tick())

    # -- calls -------------------------------------------------------------------------------------------

    def _ask(self, effect: Question) -> None:
        """Send its request; the negotiation is told what comes of it."""
        line = self._lines.get(effect.destination)
        if line is None or line.full:
            self._spawn(self._ask_over_http(effect, self.channel.seal(effect)))
            return
        session = line.session
        request = self.channel.seal(effect, session)
        if isinstance(effect, Tell):
            line.tell(request.data)
        else:
            alone = len(self._settling) < limits.GATHERED_ORDERS
            line.call(request.data, (effect, request, session), timeout_of(effect), alone=alone)

    async def _ask_over_http(self, effect: Question, request: Sealed) -> None:
        try:
            answer = await self._client.request_to(
                effect.destination, self._key, msgspec.Raw(request.data), timeout=timeout_of(effect)
            )
        except PeerError as error:
            self._failed((effect, request, None), error)
        else:
            self._answered((effect, request, None), encode(answer))
            peer = self.market.roster.at(effect.destination)
            if peer is not None and peer.websocket:
                self._lines.wanted(effect.destination)  # for what comes after this

    def _answered(self, asked: Asked, data: bytes) -> None:
        effect, request, session = asked
        try:
            effects = self.channel.heard(effect, request, data, session)
        except OrderBookError as error:
            log.warning("%s gives an answer not to be believed: %s", effect.destination, error)
            self.market.counts["answer", "not_believed"] += 1
            effects = self.channel.refused(effect, str(error))
        self._after_step(effects)
        if isinstance(effect, Confirm):
            self._look_for_doubt(effect)

    def _failed(self, asked: Asked, error: PeerError) -> None:
        effect = asked[0]
        if isinstance(error, RemoteError):
            log.warning("%s refuses a %s: %s", effect.destination, type(effect).__name__, error)
            effects = self.channel.refused(effect, error.message)
        else:
            log.info("no answer to a %s: %s", type(effect).__name__, error)
            if isinstance(error, ConnectError):
                self._after_step(self.negotiator.peer_lost(effect.destination))
            effects = self.channel.failed(effect)
        self._after_step(effects)
        if isinstance(effect, Confirm):
            self._look_for_doubt(effect)

    def _look_for_doubt(self, effect: Confirm) -> None:
        if self.negotiator.is_in_doubt(effect.match_id):
            log.warning("%s has not confirmed %s, which is now in doubt", effect.maker, effect.match_id)
            self._discovery_wanted.set()  # it may have moved

    # -- sessions ----------------------------------------------------------------------------------------

    def greet(self, payload: bytes) -> Greeted:
        """Open the session that another peer asks for. Raises OrderBookError."""
        answer, session = self.sessions.accept(decode(payload))
        return Greeted(encode(answer), session, partial(self.sessions.ended, session))

    def _opening(self, destination: str) -> Opening | None:
        """The session with which a line to ``destination`` begins, if both sides sign."""
        peer = self.market.roster.at(destination)
        return self.sessions.open(peer.name) if peer is not None and peer.name and peer.session else None

    # -- discovery ---------------------------------------------------------------------------------------

    async def _discover(self) -> None:
        """Keep the roster up to date with what is announced."""
        while True:
            try:
                await asyncio.wait_for(self._discovery_wanted.wait(), limits.DISCOVERY_S)
                await asyncio.sleep(limits.DISCOVERY_WANTED_S)
            except asyncio.TimeoutError:
                pass
            self._discovery_wanted.clear()
            await self._look_up()

    async def _look_up(self) -> None:
        try:
            destinations = await self._link.lookup(self._key, fresh=True)
        except LookupEmptyError:
            return
        except GrenacheError as error:
            log.warning("looking up %s: %s", self._key, error)
            return
        others = [each for each in destinations if not self._is_own(each)]
        self._after_step(self.negotiator.discovered(others))
