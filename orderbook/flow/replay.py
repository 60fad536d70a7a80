"""Replay order flow at peers: many requests at once, the rows of each order in their order.

    lane 0  ──▶ row, row, row ──▶ peer A        the rows of one order share a lane, and a lane a peer;
    lane 1  ──▶ row, row ──────▶ peer B         each lane has one request in flight at a time
    …

A ``change`` amends the order, so that it keeps its place in the queue where only its quantity went down. What
it says is how much shall be left, so what has been filled here is added. Where some of the order is reserved
for another peer at that moment, it is cancelled, and a new one placed.
"""

from __future__ import annotations

import asyncio
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..client import Client, RefusedError
from .files import Row, decimal_text

WINDOW = 64
"""Requests in flight by default, over all peers."""
RESERVED = ("price_reserved", "quantity_gone", "being_cancelled")
"""Codes of changes that are refused for what is reserved of the order."""
LANE_ROWS = 16
"""Rows that wait in one lane; the flow is read no further ahead."""


@dataclass
class Counts:
    """What a replay has done so far; it may be watched meanwhile.

    Attributes:
        rows: Taken from the flow.
        submitted: Orders sent, ``accepted`` of them, ``rejected`` by code.
        filled: Orders that traded in full before their submission was answered.
        cancels: Cancels sent: ``cancelled`` in time, ``too_late`` where the order had closed (it had traded:
            normal), the rest is in ``rejected``.
        orphans: Rows about an order that the flow did not place, or whose submission was rejected: not sent.
        amended: Changes made.
        replaced: Changes that were replayed as a cancel and a new order.
        elapsed_s: How long it took, or has taken up to now.
    """

    rows: int = 0
    submitted: int = 0
    accepted: int = 0
    filled: int = 0
    cancels: int = 0
    cancelled: int = 0
    too_late: int = 0
    orphans: int = 0
    amended: int = 0
    replaced: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    started: float | None = None
    ended: float | None = None

    @property
    def elapsed_s(self) -> float:
        if self.started is None:
            return 0.0
        return (self.ended or asyncio.get_running_loop().time()) - self.started

    @property
    def orders_per_s(self) -> float:
        """Orders, changes and cancels answered a second: what the peers got done."""
        answered = self.accepted + self.amended + self.cancelled + self.too_late + self.rejected.total()
        return answered / self.elapsed_s if self.elapsed_s else 0.0

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {
            "rows": self.rows,
            "submitted": self.submitted,
            "accepted": self.accepted,
            "filled": self.filled,
            "cancels": self.cancels,
            "cancelled": self.cancelled,
            "too_late": self.too_late,
            "orphans": self.orphans,
            "amended": self.amended,
            "replaced": self.replaced,
            "rejected": dict(self.rejected),
            "elapsed_s": round(self.elapsed_s, 3),
            "orders_per_s": round(self.orders_per_s, 1),
        }


async def replay(
    rows: Iterable[Row],
    clients: Sequence[Client],
    market: str,
    *,
    window: int = WINDOW,
    speed: float | None = None,
    counts: Counts | None = None,
) -> Counts:
    """Send ``rows`` to the peers of ``clients``.

    Each order goes to one peer, the same on every replay, with its id as the owner: so every order has an
    owner of its own, and none is kept from trading with another.

    Args:
        rows: Read as they are needed.
        clients: One for each peer, at least one.
        market: Where the orders are placed.
        window: Requests in flight at the most.
        speed: 2: twice as fast as the flow was; None: as fast as it goes.
        counts: To be updated; None: a new one.

    Returns:
        The counts.

    Raises:
        PeerFailedError: A peer does not answer as it should; nothing is sent after that.
        FlowError: The flow is broken; what came before it has been sent.
    """
    counts = counts or Counts()
    loop = asyncio.get_running_loop()
    counts.started, counts.ended = loop.time(), None
    lanes = [_Lane(market, counts) for _ in range(window)]
    work = [loop.create_task(lane.run()) for lane in lanes]
    work.append(loop.create_task(_feed(rows, clients, lanes, speed, counts)))
    try:
        done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    finally:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        counts.ended = loop.time()
    return counts


async def _feed(
    rows: Iterable[Row],
    clients: Sequence[Client],
    lanes: Sequence[_Lane],
    speed: float | None,
    counts: Counts,
) -> None:
    """Put each row into the lane of its order when its time has come, then end all lanes."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    for row in rows:
        if speed is not None:
            pause_s = start + row.elapsed_ms / 1000 / speed - loop.time()
            if pause_s > 0:
                await asyncio.sleep(pause_s)
        counts.rows += 1
        place = zlib.crc32(row.id.encode())
        await lanes[place % len(lanes)].queue.put((row, clients[place // len(lanes) % len(clients)]))
    for lane in lanes:
        await lane.queue.put(None)


class _Lane:
    """Replays its rows one after the other."""

    def __init__(self, market: str, counts: Counts):
        self.queue: asyncio.Queue[tuple[Row, Client] | None] = asyncio.Queue(LANE_ROWS)
        self._market = market
        self._counts = counts
        self._placed: dict[str, str] = {}  # the peer's order id by the flow's; gone with the cancel

    async def run(self) -> None:
        while (entry := await self.queue.get()) is not None:
            row, client = entry
            if row.action == "new":
                await self._submit(row, client)
            elif row.action == "cancel" or not row.quantity:
                await self._cancel(row, client)
            elif not await self._amend(row, client) and await self._cancel(row, client):
                self._counts.replaced += 1
                await self._submit(row, client)

    async def _submit(self, row: Row, client: Client) -> None:
        self._counts.submitted += 1
        quantity, price = decimal_text(row.quantity), decimal_text(row.price)
        try:
            placed = await client.submit(self._market, row.side, quantity, price, row.id)
        except RefusedError as error:
            self._counts.rejected[error.code] += 1
            return
        self._counts.accepted += 1
        self._counts.filled += placed.order.status == "filled"
        self._placed[row.id] = placed.order.id

    async def _amend(self, row: Row, client: Client) -> bool:
        """Whether nothing more is to be done about a change."""
        order_id = self._placed.get(row.id)
        if order_id is None:
            self._counts.orphans += 1
            return True
        try:
            filled = Decimal((await client.order(order_id)).order.filled)
            quantity, price = decimal_text(filled + row.quantity), decimal_text(row.price)
            await client.amend(order_id, price=price, quantity=quantity)
        except RefusedError as error:
            if error.code in RESERVED:
                return False
            if error.code == "order_closed":
                del self._placed[row.id]
                self._counts.too_late += 1
            else:
                self._counts.rejected[error.code] += 1
            return True
        self._counts.amended += 1
        return True

    async def _cancel(self, row: Row, client: Client) -> bool:
        """Whether there was something to take back."""
        order_id = self._placed.pop(row.id, None)
        if order_id is None:
            self._counts.orphans += 1
            return False
        self._counts.cancels += 1
        try:
            await client.cancel(order_id)
        except RefusedError as error:
            if error.code == "order_closed":
                self._counts.too_late += 1
            else:
                self._counts.rejected[error.code] += 1
            return False
        self._counts.cancelled += 1
        return True
