"""Keeps promises back until they are durable. No IO of its own.

After each step its events go to the journal; effects that promise something (a confirmation, a trade, the
client's answer) follow once everything journaled so far is durable, the others at once. Trades leave the
memory once they are found in the archive. Every caller of a Negotiator goes through here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .effects import PROMISES, DropTrades, Effect
from .journal.journal import Log
from .market import Market


class Outbox:
    """Between the steps of a market and whoever carries out their effects.

    Args:
        market: Whose events are journaled.
        journal: Where to.
        carry_out: Is given each effect when its time has come.
    """

    def __init__(self, market: Market, journal: Log, carry_out: Callable[[Effect], None]):
        self._market = market
        self._journal = journal
        self._carry_out = carry_out

    def after_step(self, effects: list[Effect]) -> None:
        """A step has been made; these are its effects."""
        journal = self._journal
        events = self._market.take_events()
        if events:
            journal.append(events)
        if not effects:
            return
        waiting = journal.waiting
        held: list[Effect] = []
        for effect in effects:
            if type(effect) is DropTrades:
                journal.when_archived(partial(self._carry_out, effect))
            elif waiting and type(effect) in PROMISES:
                held.append(effect)
            else:
                self._carry_out(effect)
        if held:
            journal.when_durable(partial(self._carry_out_all, held))

    def _carry_out_all(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._carry_out(effect)

    def promise(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` once everything that has happened so far is durable."""
        self._journal.when_durable(tell)
