"""What an order costs with 10, 50 and 100 peers: the protocol of all of them in one process, without sockets.

One taker, and makers of which each has one large resting order at the same price: each order is announced to
all of them, filled by one and released by the others. Every message is made, signed where peers sign, written
as JSON, read and answered as between processes; what is left out is the network between them. So this is the
processor time of all peers together, not what one of them needs.

    python benchmarks/peers.py --orders 200 --json peers.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

from orderbook.effects import Effect, Question  # noqa: E402
from orderbook.entry import NewOrder  # noqa: E402
from orderbook.envelopes import encode  # noqa: E402
from orderbook.journal.journal import MemoryJournal  # noqa: E402
from orderbook.market import Market  # noqa: E402
from orderbook.model import Instrument  # noqa: E402
from orderbook.negotiation import Negotiator  # noqa: E402
from orderbook.outbox import Outbox  # noqa: E402
from orderbook.signing.channel import Channel  # noqa: E402
from orderbook.signing.gate import Gate  # noqa: E402
from orderbook.signing.identity import Identity  # noqa: E402
from orderbook.sources import SystemClock  # noqa: E402

INSTRUMENT = Instrument("BENCH", tick="1", lot="1")
PEERS = (10, 50, 100)


class Exchange:
    """Peers, and the messages between them that have not arrived yet."""

    def __init__(self, count: int, *, signs: bool):
        self.arriving: deque[Callable[[], None]] = deque()
        self.peers = {f"p{n}": Peer(self, f"p{n}", signs) for n in range(count)}
        for peer in self.peers.values():
            others = [name for name in self.peers if name != peer.name]
            peer.step(peer.negotiator.discovered(others))
        self.deliver()
        for name, peer in self.peers.items():
            assert len(peer.market.roster.trading()) == count - 1, name

    def deliver(self) -> None:
        while self.arriving:
            self.arriving.popleft()()


class Peer:
    """A market with its channel and outbox; where it is, is its name."""

    def __init__(self, exchange: Exchange, name: str, signs: bool):
        self.name = name
        self._exchange = exchange
        ids, clock = itertools.count(), SystemClock()
        self.market = Market(
            name, INSTRUMENT, clock=clock, new_id=lambda: f"{name}-{next(ids)}", random=Random(1)
        )
        self.negotiator = Negotiator(self.market)
        gate = Gate(
            name,
            INSTRUMENT.market,
            Identity.from_seed(name.encode().ljust(32)),
            clock=clock,
            new_nonce=lambda: f"{name}-{next(ids)}",
            unsigned=not signs,
            signs=signs,
        )
        self.channel = Channel(self.negotiator, gate)
        self._outbox = Outbox(self.market, MemoryJournal(), self._carry_out)

    def step(self, effects: list[Effect]) -> None:
        self._outbox.after_step(effects)

    def _carry_out(self, effect: Any) -> None:
        if isinstance(effect, Question):
            request = self.channel.seal(effect)
            self._exchange.arriving.append(lambda: self._ask(effect, request))

    def _ask(self, effect: Any, request: Any) -> None:
        other = self._exchange.peers[effect.destination]
        answer = other.channel.receive(request.data)
        other.step(answer.effects)
        data = encode(answer.content)
        self._exchange.arriving.append(lambda: self.step(self.channel.heard(effect, request, data)))

    def place(self, side: str, quantity: int) -> int:
        """How much of an order is filled when all messages have arrived."""
        order, effects = self.negotiator.submit(NewOrder(side, "100", str(quantity), "owner"))
        self.step(effects)
        self._exchange.deliver()
        return order.filled


def cost_us(peers: int, orders: int, *, signs: bool) -> float:
    """Processor time of an order, of all peers together, in microseconds."""
    exchange = Exchange(peers, signs=signs)
    taker, *makers = exchange.peers.values()
    for maker in makers:
        maker.place("sell", 10**12)

    def place(count: int) -> float:
        started = time.process_time()
        for _ in range(count):
            filled = taker.place("buy", 1)
            assert filled == 1, filled
        return (time.process_time() - started) / count * 1e6

    place(max(1, orders // 10))
    return place(orders)


def rows(orders: int) -> list[dict[str, Any]]:
    """Rows for the table of a benchmark: what an order costs, and that divided by the peers asked."""
    found = []
    for signs in (False, True):
        for peers in PEERS:
            cost = cost_us(peers, max(10, orders // peers), signs=signs)
            name = f"{peers} peers in one process, {'signed' if signs else 'unsigned'}"
            found.append({"name": name, "ours": cost, "each": cost / (peers - 1), "unit": "us an order"})
    return found


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'processor time of all peers':44}{'us an order':>12}{'us a peer':>12}"]
    lines += [f"{row['name']:44}{row['ours']:>12,.0f}{row['each']:>12.1f}" for row in found]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--orders", type=int, default=10_000, help="orders, divided by the number of peers")
    parser.add_argument("--json", metavar="FILE", help="write rows {name, ours, each, unit} there")
    options = parser.parse_args(argv)
    found = rows(options.orders)
    print(table(found))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
