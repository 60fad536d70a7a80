"""``orderbook``, killed as by ``kill -9`` at the moments that matter, when told to.

A file ``maker`` in the folder ``DIES_WHEN`` makes it die when it has executed somebody's match and that is
durable, and nothing of its answer has left; a file ``taker`` when it has just asked somebody to execute.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from orderbook import hosted
from orderbook.cli import main
from orderbook.effects import Confirm, Effect, Traded
from orderbook.journal.journal import Journal
from orderbook.market import Market
from orderbook.outbox import Outbox

WHEN = Path(os.environ["DIES_WHEN"])


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingOutbox(Outbox):
    def __init__(self, market: Market, journal: Journal, carry_out: Callable[[Effect], None]):
        def carried_out(effect: Effect) -> None:
            carry_out(effect)
            if type(effect) is Confirm and (WHEN / "taker").exists():
                die()

        super().__init__(market, journal, carried_out)
        self._peer = market.peer
        self._executed = False

    def after_step(self, effects: Sequence[Effect]) -> None:
        trades = [trade for effect in effects if type(effect) is Traded for trade in effect.trades]
        self._executed = any(trade.cross_peer and trade.maker_peer == self._peer for trade in trades)
        super().after_step(effects)

    def promise(self, tell: Callable[[], None]) -> None:
        dies = self._executed and (WHEN / "maker").exists()
        self._executed = False
        super().promise(die if dies else tell)


if __name__ == "__main__":
    hosted.Outbox = DyingOutbox  # type: ignore[misc]
    main(prog_name="orderbook")
