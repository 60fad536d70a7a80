"""A market as a worker hosts it: what clients wait for, its journal, its look-ups, calls over HTTP.

It runs on one event loop and no step of the negotiation waits, so the steps follow each other: nothing
changes the book in between.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from grenache_py.aio import Link, PeerRPCClient
from grenache_py.errors import GrenacheError, LookupEmptyError, PeerError
from grenache_py.tasks import end_tasks
from grenache_py.transports.busy_poll import BusyPoll

from . import limits
from .carrier import Carrier, timeout_of
from .effects import Effect, Question
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .envelopes import decode, encode
from .errors import HistoryLostError, JournalError
from .journal.journal import Journal, MemoryJournal
from .journal.writer import SqliteJournal, open_journal
from .lines import Greeted
from .market import Market
from .model import Order
from .names import shared_name
from .negotiation import Negotiator
from .signing.channel import Channel
from .signing.gate import Gate
from .signing.handshake import Opening, Sessions
from .signing.seals import Sealed
from .sources import new_secret
from .starts import Starts
from .trade import Trade

log = logging.getLogger(__name__)


class HostedMarket:
    """One market of a worker.

    ``is_own`` tells whether a destination is known to be this worker's own; for ``poll`` see
    :class:`~orderbook.lines.Lines`.
    """

    def __init__(
        self,
        market: Market,
        gate: Gate,
        link: Link,
        client: PeerRPCClient,
        is_own: Callable[[str], bool] = lambda destination: False,
        poll: Callable[[], BusyPoll | None] = lambda: None,
    ):
        self.market = market
        self.sessions = Sessions(gate, new_secret)
        self.negotiator = Negotiator(market)
        self.channel = Channel(self.negotiator, gate)
        self.journal: Journal = MemoryJournal()
        market.journaled = False
        self._key = shared_name(market.instrument.market)
        self._link = link
        self._client = client
        self._is_own = is_own
        self._tasks: set[asyncio.Task[None]] = set()
        self._discovery_wanted = asyncio.Event()
        self.carrier = Carrier(
            market,
            self.negotiator,
            self.channel,
            self.journal,
            key=self._key,
            opening=self._opening,
            ask_otherwise=self._ask_otherwise,
            discover=self._discovery_wanted.set,
            poll=poll,
        )

    @property
    def watchers(self) -> set[asyncio.Event]:
        """Set after every step, for those who look at the book then."""
        return self.carrier.watchers

    async def open_journal(self, folder: Path, durability: str) -> None:
        """Go on where the journal of an earlier process ends. Raises JournalError."""
        market, loop = self.market, asyncio.get_running_loop()
        path = folder / f"{market.instrument.market}.journal"
        opened = partial(open_journal, path, market.peer, market.instrument, durability)
        file, recovered = await loop.run_in_executor(None, opened)
        journal = SqliteJournal(file, loop)
        self.journal, market.journaled = journal, True
        *earlier, (own, _) = file.starts.items()
        market.starts = Starts(own, dict(earlier), journal.last_durable)
        self.carrier.keep_in(journal)
        market.ledger.archive_in(journal.archive)
        self.carrier.after_step(self.negotiator.resume(recovered))

    async def start(self) -> None:
        """Meet the peers that are there already, so that the first order reaches them."""
        self.carrier.loop = asyncio.get_running_loop()
        await self._look_up()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limits.ANNOUNCE_TIMEOUT_S)
        self._spawn(self._discover())
        self.carrier.tick()

    async def stop(self) -> None:
        """Wait a while for orders that are under way, then end."""
        settling = self.carrier.settling
        if settling:
            await asyncio.wait(list(itertools.chain.from_iterable(settling.values())), timeout=limits.STOP_S)
        farewells = set(self._tasks)
        self.carrier.after_step(self.negotiator.leave())
        farewells = self._tasks - farewells
        if farewells:
            await asyncio.wait(farewells, timeout=limits.ANNOUNCE_TIMEOUT_S)
        self.carrier.stop()
        await self.carrier.lines.close()
        await end_tasks(self._tasks)
        for future in itertools.chain.from_iterable(settling.values()):
            future.cancel()

    # -- clients -----------------------------------------------------------------------------------------

    def submit(self, new: NewOrder) -> tuple[Order, asyncio.Future[None]]:
        """The order, and what is done when its way through the network is over for now, and that durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no new orders: {self.journal.trouble}")
        order, effects = self.negotiator.submit(new)
        return order, self.carrier.way_of(order.id, effects)

    async def submit_pair(self, new: NewPair) -> tuple[Order, Order]:
        """Returns when the way of the first one through the network is over for now, and that is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no new orders: {self.journal.trouble}")
        pair, effects = self.negotiator.submit_pair(new)
        await self.carrier.way_of(pair[0].id, effects)
        return pair

    async def amend(self, order_id: str, change: Amendment) -> Order:
        """Returns as :meth:`submit_pair`. An order that is on its way is changed when that is over."""
        if self.journal.trouble is not None:
            raise JournalError(f"no changes: {self.journal.trouble}")
        while self.negotiator.is_under_way(order_id):
            await self.carrier.settles(order_id)
        order, effects = self.negotiator.amend(order_id, change)
        await self.carrier.way_of(order.id, effects)
        return order

    async def mass_quote(self, owner: object, quotes: Sequence[NewQuote]) -> list[Order | None]:
        """Returns when the ways of all are over for now, and that is durable. Where one of the orders is on
        its way just now it waits until that is over."""
        if self.journal.trouble is not None:
            raise JournalError(f"no quotes: {self.journal.trouble}")
        while (busy := self.negotiator.quotes_under_way(owner, quotes)) is not None:
            await self.carrier.settles(busy)
        orders, effects = self.negotiator.mass_quote(owner, quotes)
        settled = [self.carrier.settles(order.id) for order in orders if order is not None]
        self.carrier.after_step(effects)
        await asyncio.gather(*settled)
        return orders

    async def settle_doubt(self, settle: Callable[[], tuple[Order, list[Effect]]]) -> Order:
        """Returns when what ``settle`` has done is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no decisions: {self.journal.trouble}")
        order, effects = settle()
        self.carrier.after_step(effects)
        await self.durable()
        return order

    async def set_state(self, state: object, by: object) -> None:
        """Returns when it is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no decisions: {self.journal.trouble}")
        self.carrier.after_step(self.negotiator.set_state(state, by))
        await self.durable()

    async def cancel(self, order_id: str) -> Order:
        """Returns when the cancellation is durable."""
        order, effects = self.negotiator.cancel(order_id)
        self.carrier.after_step(effects)
        await self.durable()
        return order

    async def trades(self, after: int, limit: int) -> tuple[Sequence[Trade], int | None]:
        """As :meth:`Worker.trades`."""
        ledger = self.market.ledger
        if after < ledger.forgotten:
            raise HistoryLostError(
                f"the first {ledger.forgotten} trades are forgotten, since this peer keeps no journal"
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
            await self.journal.durable()
            rows = await self.journal.trades_of_order(order_id, limits.ORDER_TRADES)
        return rows[-limits.ORDER_TRADES :]

    async def durable(self) -> None:
        """Wait until all that has happened so far is durable; for good, where a sync has failed: what changes
        something is not answered then, since it may have been kept or not."""
        durable = asyncio.Event()
        self.carrier.promise(durable.set)
        await durable.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a step of %s failed", self._key, exc_info=task.exception())

    # -- calls -------------------------------------------------------------------------------------------

    def _ask_otherwise(self, effect: Question, request: Sealed) -> None:
        self._spawn(self._ask_over_http(effect, request))

    async def _ask_over_http(self, effect: Question, request: Sealed) -> None:
        try:
            answer = await self._client.request_to(
                effect.destination, self._key, msgspec.Raw(request.data), timeout=timeout_of(effect)
            )
        except PeerError as error:
            self.carrier.failed((effect, request, None), error)
        else:
            self.carrier.answered((effect, request, None), encode(answer))
            peer = self.market.roster.at(effect.destination)
            if peer is not None and peer.websocket:
                self.carrier.lines.wanted(effect.destination)  # for what comes after this

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
        self.carrier.after_step(self.negotiator.discovered(others))
