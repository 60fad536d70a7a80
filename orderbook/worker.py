"""A peer on a Grenache network: it announces its markets, serves other peers, and carries out the effects.

All IO of the protocol is here. Each market is one :class:`~orderbook.negotiation.Negotiator`; this runs on
one event loop and no step of it waits, so its steps follow each other: nothing changes the book in between.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from grenache_py.aio import Link, PeerRPCClient, PeerRPCServer
from grenache_py.errors import ConnectError, GrenacheError, LookupEmptyError, PeerError, RemoteError

from . import limits
from .effects import Beat, Confirm, Discover, DropTrades, Effect, Settled, Tell
from .entry import Amendment, NewOrder
from .errors import (
    InvalidFieldError,
    JournalError,
    OrderBookError,
    UnknownDoubtError,
    UnknownMarketError,
    UnknownOrderError,
    UnknownProofError,
)
from .events import Signed
from .journal.journal import Journal, MemoryJournal
from .journal.writer import open_journal
from .lines import Caller, Lines, Refusal
from .market import Market
from .messages import encode
from .model import Instrument, Order, Trade, check_name
from .negotiation import Answer, Negotiator
from .outbox import Outbox
from .selection import POLICIES, Policy
from .signing.channel import QUESTIONS, Channel, Question
from .signing.gate import Gate
from .signing.identity import Identity
from .signing.keyfile import kept_key, new_identity
from .signing.keyring import Allowed
from .signing.proofs import Proof
from .signing.seals import Sealed
from .terms import Routing

log = logging.getLogger(__name__)

ANNOUNCE_INTERVAL_S = 45.0
"""As Bitfinex's own workers: well within the 80 s after which a Grape may forget."""


KEPT_KEY = "peer.key"
"""Of a peer that was given no key: the file in the folder of its journals, for both belong together."""


def shared_name(market: str) -> str:
    """The service that all peers of a market announce."""
    return f"orderbook:{market}"


def own_name(market: str, peer: str) -> str:
    """The service that one peer of a market announces, to be addressed alone."""
    return f"orderbook:{market}:{peer}"


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)

    def time_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Worker:
    """One peer and its markets.

    Use it as an async context manager::

        async with Link(grape) as link, Worker(link, "alice", [Instrument("BTC-USD")]) as worker:
            order = await worker.submit("BTC-USD", NewOrder("buy", "78318.00", "0.5", "bob"))

    Args:
        link: To a Grape of the network.
        name: This peer's name, unique in the network.
        instruments: What it trades, one market each.
        policy: Chooses among offers of equal price.
        port: Where other peers reach it; 0: any free one.
        host: The address it listens on; None: all. Peers find it under its Grape's address.
        journals: The folder of its journals, a file for each market; None: all is forgotten in the end.
        durability: Of the journals, one of :data:`orderbook.journal.file.DURABILITIES`.
        identity: The key that signs what this peer says; None: the one kept in the folder of its journals, or
            where it has none a new one, which ends with it.
        allowed: The keys that may trade here, each with the only name that it may use or None; None: any key.
        unsigned: Whether peers that do not sign may trade here too, for learning: anybody can pose as one.
        routing: Whether orders trade with the peer's own book first, or wherever the price is best.
        signs: Whether this peer signs; where it does not it finds only peers that are ``unsigned``.

    Raises:
        IdentityError: The kept key can't be used.
    """

    def __init__(
        self,
        link: Link,
        name: str,
        instruments: Sequence[Instrument],
        *,
        policy: Policy = POLICIES["full-first"],
        routing: Routing = Routing.LOCAL_FIRST,
        port: int = 0,
        host: str | None = None,
        journals: Path | None = None,
        durability: str = "full",
        identity: Identity | None = None,
        allowed: Allowed | None = None,
        unsigned: bool = False,
        signs: bool = True,
    ):
        self.name = check_name(name, "name")
        self._link = link
        self._port = port
        self._host = host
        self._journals = journals
        self._announced: list[tuple[str, int]] = []
        self._durability = durability
        self._client = PeerRPCClient(link)
        self._server = PeerRPCServer(link)
        self._service = self._server.transport("server")
        self._service.on("request", self._serve)
        self._service.on("websocket", lambda channel, visitor: Caller(channel, self._serve_line))
        if identity is None:
            identity = new_identity() if journals is None else kept_key(journals / KEPT_KEY)
        self._identity = identity
        ids, clock = IdSource(), SystemClock()
        self.markets = {
            instrument.market: HostedMarket(
                Market(
                    name,
                    instrument,
                    clock=clock,
                    new_id=ids.next,
                    random=Random(secrets.randbits(64)),
                    policy=policy,
                    routing=routing,
                    websocket=True,
                ),
                Gate(
                    name,
                    instrument.market,
                    self._identity,
                    clock=clock,
                    new_nonce=new_nonce,
                    allowed=allowed,
                    unsigned=unsigned,
                    signs=signs,
                ),
                link,
                self._client,
            )
            for instrument in instruments
        }

    @property
    def key(self) -> str:
        """This peer's public key, as 64 hexadecimal digits."""
        return self._identity.key

    @property
    def port(self) -> int:
        """Where other peers reach this one."""
        return self._service.port

    async def __aenter__(self) -> Worker:
        try:
            if self._journals is not None:
                for hosted in self.markets.values():
                    await hosted.open_journal(self._journals, self._durability)
            await self._service.listen(self._port, self._host)
            for market, hosted in self.markets.items():
                for name in (shared_name(market), own_name(market, self.name)):
                    self._announced.append((name, self.port))
                    await self._link.start_announcing(name, self.port, interval=ANNOUNCE_INTERVAL_S)
                await hosted.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop announcing, let what is in hand end, close the connections."""
        for name, port in self._announced:
            await self._link.stop_announcing(name, port)
        for hosted in self.markets.values():
            await hosted.stop()
        await self._server.stop()
        await self._client.stop()
        for hosted in self.markets.values():
            await hosted.journal.close()

    # -- clients -----------------------------------------------------------------------------------------

    def market(self, name: object) -> Market:
        """Raises UnknownMarketError."""
        return self._hosted(name).market

    def market_of(self, order_id: str) -> Market:
        """The market that ``order_id`` was submitted to. Raises UnknownOrderError."""
        return self.hosted_of(order_id).market

    def hosted_of(self, order_id: str) -> HostedMarket:
        """As :meth:`market_of`."""
        for hosted in self.markets.values():
            if hosted.market.ledger.knows(order_id):
                return hosted
        raise UnknownOrderError(f"no order {order_id[: limits.NAME_LENGTH]!r} at {self.name}")

    async def submit(self, market: object, new: NewOrder) -> Order:
        """Submit an order; returns when its way through the network is over for now.

        Raises:
            OrderBookError: It was refused; nothing has changed.
        """
        return await self._hosted(market).submit(new)

    async def amend(self, order_id: str, change: Amendment) -> Order:
        """Change an order; returns as :meth:`submit`.

        Raises:
            OrderBookError: It was refused; nothing has changed.
        """
        return await self.hosted_of(order_id).amend(order_id, change)

    async def resolve(self, match_id: str, outcome: object, by: object) -> Order:
        """Settle a doubt by hand: see :meth:`Negotiator.resolve`. Returns the order that it is about."""
        hosted = self._in_doubt(match_id)
        return await hosted.settle_doubt(lambda: hosted.negotiator.resolve(match_id, outcome, by))

    async def prove(self, match_id: str, proof: Proof) -> Order:
        """Settle a doubt by the proof that its maker has kept: see :meth:`Channel.prove`."""
        hosted = self._in_doubt(match_id)
        return await hosted.settle_doubt(lambda: hosted.channel.prove(match_id, proof))

    def _in_doubt(self, match_id: str) -> HostedMarket:
        for hosted in self.markets.values():
            if hosted.negotiator.is_in_doubt(match_id):
                return hosted
        raise UnknownDoubtError(f"no doubt about match {match_id[: limits.NAME_LENGTH]!r} at {self.name}")

    async def cancel(self, order_id: str) -> Order:
        """Take an order back. Raises UnknownOrderError, OrderClosedError."""
        return await self.hosted_of(order_id).cancel(order_id)

    async def trades_of_order(self, order_id: str) -> Sequence[Trade]:
        """The newest :data:`limits.ORDER_TRADES` of an order, in order of execution.

        Raises UnknownOrderError, JournalError.
        """
        return await self.hosted_of(order_id).trades_of_order(order_id)

    async def trades(self, market: object, after: int, limit: int) -> tuple[Sequence[Trade], int | None]:
        """One page of trades in order of execution.

        Args:
            market: Whose.
            after: How many come before the page.
            limit: Trades at the most.

        Returns:
            The trades, and what to pass as ``after`` for the next page (None: this was the last).

        Raises:
            UnknownMarketError: No such market here.
            InvalidFieldError: There is no journal, and the trades after ``after`` are forgotten.
            JournalError: They can't be read.
        """
        return await self._hosted(market).trades(after, limit)

    async def signed(self, match_id: str, taker: str | None = None) -> Signed:
        """What both peers have signed of a match, which is its proof.

        Args:
            match_id: Of the match, as its taker has named it.
            taker: The peer that was its taker, in case several have used the same id.

        Raises:
            UnknownProofError: There is none here.
            InvalidFieldError: There are several; ``taker`` has to say which is meant.
            JournalError: It can't be read.
        """
        found: dict[str, Signed] = {}
        for hosted in self.markets.values():
            await hosted.durable()
            for signed in await hosted.journal.proofs(match_id):
                found.setdefault(signed.request["from"], signed)
        chosen = [signed for name, signed in found.items() if taker in (None, name)]
        if len(chosen) > 1:
            raise InvalidFieldError("taker", f"must be one of {', '.join(found)}: each has such a match")
        if chosen:
            return chosen[0]
        raise UnknownProofError(
            f"no proof of match {match_id[: limits.NAME_LENGTH]!r} here: only a trade between two peers that "
            "sign has one, and a peer without a journal keeps only the newest"
        )

    async def durable(self) -> None:
        """Wait until all that can be seen now survives a crash; what clients are told has to."""
        for hosted in self.markets.values():
            await hosted.durable()

    def _hosted(self, name: object) -> HostedMarket:
        hosted = self.markets.get(name) if isinstance(name, str) else None
        if hosted is None:
            raise UnknownMarketError(f"market must be one of {', '.join(self.markets)} at {self.name}")
        return hosted

    # -- other peers -------------------------------------------------------------------------------------

    def _serve(self, rid: Any, key: Any, payload: Any, handler: Any) -> None:
        try:
            hosted = self._hosted(market_of_key(key))
            hosted.serve(hosted.channel.handle, payload, lambda content: handler.reply(None, content))
        except OrderBookError as error:
            log.info("a peer's request is refused: %s", error)
            handler.reply(refusal(error))

    def _serve_line(self, key: str, payload: bytes, reply: Callable[[bytes], None]) -> None:
        try:
            hosted = self._hosted(market_of_key(key))
            hosted.serve(hosted.channel.receive, payload, lambda content: reply(encode(content)))
        except OrderBookError as error:
            log.info("a peer's request is refused: %s", error)
            raise refusal(error) from error


def market_of_key(key: object) -> str | None:
    """The market of a service that peers announce."""
    return key.split(":")[1] if isinstance(key, str) and key.startswith("orderbook:") else None


def refusal(error: OrderBookError) -> Refusal:
    """What a peer is told of an OrderBookError: ``ERR_ORDERBOOK_<CODE>: <text>``."""
    return Refusal(f"ERR_ORDERBOOK_{error.code.upper()}: {error}")


class IdSource:
    """Ids that are unique in the network and over restarts: a random start-up part and a count."""

    def __init__(self) -> None:
        self._start = secrets.token_hex(8)
        self._count = itertools.count(1)

    def next(self) -> str:
        return f"{self._start}-{next(self._count)}"


def new_nonce() -> str:
    return secrets.token_hex(16)


Asked = tuple[Question, Sealed]
"""A question to another peer, and the request that went out for it."""


def timeout_of(effect: Question) -> float:
    """For how long the answer is waited for, in seconds."""
    return limits.CONFIRM_TIMEOUT_S if isinstance(effect, Confirm) else limits.ANNOUNCE_TIMEOUT_S


class HostedMarket:
    """One market of a worker: its negotiator, its timer, and its calls to other peers."""

    def __init__(self, market: Market, gate: Gate, link: Link, client: PeerRPCClient):
        self.market = market
        self.negotiator = Negotiator(market)
        self.channel = Channel(self.negotiator, gate)
        self.journal: Journal = MemoryJournal()
        self._outbox = Outbox(market, self.journal, self._carry_out)
        self._key = shared_name(market.instrument.market)
        self._link = link
        self._client = client
        self._lines: Lines[Asked] = Lines(self._key, self._answered, self._failed)
        self._settling: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes = math.inf
        self._timer_due = False
        self._stopped = False
        self._discovery_wanted = asyncio.Event()

    async def open_journal(self, folder: Path, durability: str) -> None:
        """Go on where the journal of an earlier process ends. Raises JournalError."""
        market, loop = self.market, asyncio.get_running_loop()
        path = folder / f"{market.instrument.market}.journal"
        opened = partial(open_journal, path, market.peer, market.instrument, durability, loop)
        journal, recovered = await loop.run_in_executor(None, opened)
        self.journal, self._outbox = journal, Outbox(market, journal, self._carry_out)
        market.ledger.archive_in(journal.archive)
        self._after_step(self.negotiator.resume(recovered))

    async def start(self) -> None:
        """Meet the peers that are there already, so that the first order reaches them."""
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await self._lines.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for future in itertools.chain.from_iterable(self._settling.values()):
            future.cancel()

    # -- clients -----------------------------------------------------------------------------------------

    async def submit(self, new: NewOrder) -> Order:
        """Returns when the order's way through the network is over for now, and that is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no new orders: {self.journal.trouble}")
        order, effects = self.negotiator.submit(new)
        settled = self._settles(order.id)
        self._after_step(effects)
        await settled
        return order

    async def amend(self, order_id: str, change: Amendment) -> Order:
        """Returns as :meth:`submit`. An order that is on its way just now is changed when that is over."""
        if self.journal.trouble is not None:
            raise JournalError(f"no changes: {self.journal.trouble}")
        while self.negotiator.is_under_way(order_id):
            await self._settles(order_id)
        order, effects = self.negotiator.amend(order_id, change)
        settled = self._settles(order.id)
        self._after_step(effects)
        await settled
        return order

    async def settle_doubt(self, settle: Callable[[], tuple[Order, list[Effect]]]) -> Order:
        """Returns when what ``settle`` has done is durable."""
        if self.journal.trouble is not None:
            raise JournalError(f"no decisions: {self.journal.trouble}")
        order, effects = settle()
        self._after_step(effects)
        await self.durable()
        return order

    def _settles(self, order_id: str) -> asyncio.Future[None]:
        """Done when the order's way through the network is over for now, and that is durable."""
        settled = asyncio.get_running_loop().create_future()
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

    def serve(self, read: Callable[[Any], Answer], payload: Any, reply: Callable[[Any], None]) -> None:
        """Answer another peer's request, which ``read`` can read. Raises OrderBookError, having changed
        nothing."""
        try:
            answer = read(payload)
        except OrderBookError as error:
            self.market.counts["request", error.code] += 1
            raise
        self._after_step(answer.effects)
        if answer.promise:
            self._outbox.promise(lambda: reply(answer.content))
        else:
            reply(answer.content)

    # -- effects -----------------------------------------------------------------------------------------

    def _after_step(self, effects: Sequence[Effect]) -> None:
        self._outbox.after_step(effects)
        if not self._timer_due:
            self._timer_due = True
            asyncio.get_running_loop().call_soon(self._set_timer)  # once for all steps of a turn

    def _carry_out(self, effect: Effect) -> None:
        kind = type(effect)
        if kind in QUESTIONS:
            self._ask(effect, self.channel.seal(effect))  # type: ignore[arg-type]  # it is one
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
        self._timer_due = False
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

    def _ask(self, effect: Question, request: Sealed) -> None:
        """Send ``request``; the negotiation is told what comes of it."""
        line = self._lines.get(effect.destination)
        if line is None or line.full:
            self._spawn(self._ask_over_http(effect, request))
        elif isinstance(effect, Tell):
            line.tell(request.data)
        else:
            line.call(request.data, (effect, request), timeout_of(effect))

    async def _ask_over_http(self, effect: Question, request: Sealed) -> None:
        if not isinstance(effect, Beat):
            peer = self.market.roster.at(effect.destination)
            if peer is not None and peer.websocket:
                self._lines.wanted(effect.destination)  # for what comes after this
        try:
            answer = await self._client.request_to(
                effect.destination, self._key, msgspec.Raw(request.data), timeout=timeout_of(effect)
            )
        except PeerError as error:
            self._failed((effect, request), error)
        else:
            self._answered((effect, request), encode(answer))

    def _answered(self, asked: Asked, data: bytes) -> None:
        effect, request = asked
        try:
            effects = self.channel.heard(effect, request, data)
        except OrderBookError as error:
            log.warning("%s gives an answer not to be believed: %s", effect.destination, error)
            self.market.counts["answer", "not_believed"] += 1
            effects = self.channel.refused(effect, str(error))
        self._after_step(effects)
        self._look_for_doubt(effect)

    def _failed(self, asked: Asked, error: PeerError) -> None:
        effect, _ = asked
        if isinstance(error, RemoteError):
            log.warning("%s refuses a %s: %s", effect.destination, type(effect).__name__, error)
            effects = self.channel.refused(effect, error.message)
        else:
            log.info("no answer to a %s: %s", type(effect).__name__, error)
            if isinstance(error, ConnectError):
                self._after_step(self.negotiator.peer_lost(effect.destination))
            effects = self.channel.failed(effect)
        self._after_step(effects)
        self._look_for_doubt(effect)

    def _look_for_doubt(self, effect: Question) -> None:
        if isinstance(effect, Confirm) and self.negotiator.is_in_doubt(effect.match_id):
            log.warning("%s has not confirmed %s, which is now in doubt", effect.maker, effect.match_id)
            self._discovery_wanted.set()  # it may have moved

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
        self._after_step(self.negotiator.discovered(destinations))
