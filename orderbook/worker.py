"""A peer on a Grenache network: it announces its markets, and gives each request to the one it is about."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from grenache_py.aio import Link, PeerRPCClient, PeerRPCServer
from grenache_py.hosts import is_address, is_here
from grenache_py.limits import BUSY_POLL_US
from grenache_py.transports.busy_poll import busy_poll_on_demand

from . import limits
from .carrier import Switchboard, refusal
from .entry import Amendment, NewOrder, NewPair, NewQuote
from .envelopes import may_open_session
from .errors import (
    InvalidFieldError,
    OrderBookError,
    UnknownDoubtError,
    UnknownMarketError,
    UnknownOrderError,
    UnknownProofError,
)
from .events import Signed
from .hosted import HostedMarket
from .lines import Caller, Greeted
from .market import Market
from .model import Instrument, Order, check_name
from .names import market_of_key, own_name, shared_name
from .selection import POLICIES, Policy
from .signing.gate import Gate
from .signing.handshake import VERSION
from .signing.identity import Identity
from .signing.keyfile import kept_key, new_identity
from .signing.keyring import Allowed
from .signing.proofs import Proof
from .sources import IdSource, SystemClock, new_nonce
from .terms import Routing
from .trade import Trade

ANNOUNCE_INTERVAL_S = 45.0
"""As Bitfinex's own workers: well within the 80 s after which a Grape may forget."""
KEPT_KEY = "peer.key"
"""Of a peer that was given no key: the file in the folder of its journals, for both belong together."""


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
        durability: Of the journals, one of :data:`orderbook.journal.schema.DURABILITIES`.
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
        if identity is None:
            identity = new_identity() if journals is None else kept_key(journals / KEPT_KEY)
        self._identity = identity
        ids, clock = IdSource(), SystemClock()
        poll = busy_poll_on_demand(BUSY_POLL_US)  # one for all: what it may cost is counted there
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
                    session=VERSION if signs else 0,
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
                self._is_own,
                poll,
            )
            for instrument in instruments
        }
        carriers = {
            key: hosted.carrier
            for market, hosted in self.markets.items()
            for key in (shared_name(market), own_name(market, name))
        }
        board = Switchboard(carriers, lambda key: self._hosted(market_of_key(key)).carrier)
        self._service.on("websocket", lambda channel, visitor: Caller(channel, board.serve, self._greet))

    @property
    def key(self) -> str:
        """This peer's public key, as 64 hexadecimal digits."""
        return self._identity.key

    @property
    def port(self) -> int:
        """Where other peers reach this one."""
        return self._service.port

    def _is_own(self, destination: str) -> bool:
        """Whether ``destination`` is this worker, as far as this host can tell: look-ups find it, too."""
        host, _, port = destination.rpartition(":")
        if int(port) != self.port or not is_address(host):
            return False
        return host == self._host or (self._host is None and is_here([host]))

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

    def hosted_of(self, order_id: str) -> HostedMarket:
        """The market that ``order_id`` was submitted to. Raises UnknownOrderError."""
        for hosted in self.markets.values():
            if hosted.market.ledger.knows(order_id):
                return hosted
        raise UnknownOrderError(f"no order {order_id[: limits.NAME_LENGTH]!r} at {self.name}")

    async def submit(self, market: object, new: NewOrder) -> Order:
        """Submit an order; returns when its way through the network is over for now.

        Raises:
            OrderBookError: It was refused; nothing has changed.
        """
        order, way = self._hosted(market).submit(new)
        await way
        return order

    async def submit_pair(self, market: object, new: NewPair) -> tuple[Order, Order]:
        """Submit two orders of which one cancels the other; returns as :meth:`submit`.

        Raises:
            OrderBookError: They were refused; nothing has changed.
        """
        return await self._hosted(market).submit_pair(new)

    async def mass_quote(
        self, market: object, owner: object, quotes: Sequence[NewQuote]
    ) -> list[Order | None]:
        """Set many orders of ``owner`` at once, or none; returns as :meth:`submit`, when all are done.

        Raises:
            OrderBookError: One of them was refused; nothing has changed.
        """
        return await self._hosted(market).mass_quote(owner, quotes)

    async def amend(self, order_id: str, change: Amendment) -> Order:
        """Change an order; returns as :meth:`submit`.

        Raises:
            OrderBookError: It was refused; nothing has changed.
        """
        return await self.hosted_of(order_id).amend(order_id, change)

    async def set_state(self, market: object, state: object, by: object) -> None:
        """Open, restrict or halt a market at this peer: see :meth:`Desk.set_state`."""
        await self._hosted(market).set_state(state, by)

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
            HistoryLostError: There is no journal, and trades after ``after`` are forgotten.
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
            await hosted.journal.durable()
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

    async def readable(self) -> None:
        """As :meth:`durable`, for who only looks. Raises JournalError where it never will be."""
        for hosted in self.markets.values():
            await hosted.journal.durable()

    def _hosted(self, name: object) -> HostedMarket:
        hosted = self.markets.get(name) if isinstance(name, str) else None
        if hosted is None:
            raise UnknownMarketError(f"market must be one of {', '.join(self.markets)} at {self.name}")
        return hosted

    # -- other peers -------------------------------------------------------------------------------------

    def _serve(self, rid: Any, key: Any, payload: Any, handler: Any) -> None:
        try:
            hosted = self._hosted(market_of_key(key))
            hosted.carrier.serve(payload, lambda content: handler.reply(None, content))
        except OrderBookError as error:
            handler.reply(refusal(error))

    def _greet(self, key: str, payload: bytes) -> Greeted | None:
        if not may_open_session(payload):
            return None
        try:
            return self._hosted(market_of_key(key)).greet(payload)
        except OrderBookError as error:
            raise refusal(error) from error
