"""What carries out effects: here only what needs no other peer."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from orderbook import limits
from orderbook.carrier import Carrier
from orderbook.effects import DropTrades
from orderbook.journal.journal import MemoryJournal
from orderbook.market import Market
from orderbook.negotiation import Negotiator
from orderbook.signing.channel import Channel
from orderbook.signing.gate import Gate
from orderbook.signing.identity import Identity
from orderbook.trade import Trade
from tests.unit.orderbook.negotiators import INSTRUMENT, Clock


async def test_trades_leave_the_memory_little_by_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing else waits for long when a busy second has brought thousands."""
    monkeypatch.setattr(limits, "TRADES_DROPPED", 3)
    clock = Clock()
    market = Market("maker", INSTRUMENT, clock=clock, new_id=lambda: "id", random=Random(1))
    negotiator = Negotiator(market)
    gate = Gate("maker", "SIM", Identity.from_seed(bytes(32)), clock=clock, new_nonce=lambda: "nonce")
    carrier = Carrier(
        market,
        negotiator,
        Channel(negotiator, gate),
        MemoryJournal(),
        key="key",
        opening=lambda _: None,
        ask_otherwise=lambda effect, request: None,
        discover=lambda: None,
    )
    ledger = market.ledger
    ledger._trades_in_memory = 2
    for n in range(10):
        ledger.add_trades([Trade(f"m{n}", "SIM", 100, 1, "m", "t", "maker", "taker", n)])
    carrier.after_step([DropTrades(ledger.trade_count)])
    dropped = [ledger.dropped]
    while ledger.excess:
        await asyncio.sleep(0)
        dropped.append(ledger.dropped)
    assert dropped == [3, 6, 8]
    carrier.stop()
