"""The protocol broken on purpose, in every way that we can think of: the simulation has to catch each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from orderbook import (
    book,
    confirmations,
    desk,
    ledger,
    maker,
    market,
    model,
    negotiation,
    outbox,
    recovery,
    starts,
    taker,
    trade,
    under_way,
)
from orderbook.effects import Effect, Settled, Traded
from orderbook.engine import Trigger, ladder
from orderbook.events import (
    Amended,
    Cancelled,
    Event,
    Executed,
    Intended,
    Refused,
    Requeued,
    Signed,
    Switched,
    Triggered,
)
from orderbook.messages import CrossPeerMatch, MatchAnswer, Offer
from orderbook.model import Order, Side
from orderbook.selection import Choice
from orderbook.signing import channel, gate, keyring
from orderbook.trade import Trade
from tests.simulation import peers
from tests.simulation.campaign import Scenario


def forget_releases(patch: pytest.MonkeyPatch) -> None:
    """The taker does not release what it did not choose: only leases free it."""
    patch.setattr(taker.Taker, "_release", lambda self, destination, lock_id: [])


def refuse_repeated_confirmations(patch: pytest.MonkeyPatch) -> None:
    """The maker does not remember what it committed."""
    patch.setattr(ledger.Ledger, "trades_of_match", lambda self, taker_peer, match_id: [])
    patch.setattr(ledger.Ledger, "archived_match", lambda self, taker_peer, match_id: [])


def refuse_locks_of_other_journals(patch: pytest.MonkeyPatch) -> None:
    """The maker says no to every lock that it does not hold, whoever has made it."""
    patch.setattr(maker.Maker, "_is_of_another_journal", lambda self, lock_id: False)


def forget_starts(patch: pytest.MonkeyPatch) -> None:
    """The maker says that it does not know of locks from before a restart."""

    patch.setattr(starts.Starts, "has", lambda self, lock_id: lock_id.startswith(self.own))


def count_events_that_are_not_durable(patch: pytest.MonkeyPatch) -> None:
    """A lock id says how much the journal will have, where all goes well."""
    new_lock_id = starts.Starts.new_lock_id

    def early(self: starts.Starts) -> str:
        start, number, count = new_lock_id(self).split(starts.MARK)
        return starts.MARK.join((start, str(int(number) + 3), count))

    patch.setattr(starts.Starts, "new_lock_id", early)


def forget_what_left_the_memory(patch: pytest.MonkeyPatch) -> None:
    """The maker does not look into its journal."""
    patch.setattr(ledger.Ledger, "archived_match", lambda self, taker_peer, match_id: [])


def drop_trades_before_they_are_durable(patch: pytest.MonkeyPatch) -> None:
    """A trade leaves the memory when it is not in the journal yet."""
    add_trades = ledger.Ledger.add_trades

    def add(self: ledger.Ledger, trades: Any, taker_key: str | None = None) -> None:
        add_trades(self, trades, taker_key)
        self.drop_trades(self.trade_count)

    patch.setattr(ledger.Ledger, "add_trades", add)


def give_up_in_doubt(patch: pytest.MonkeyPatch) -> None:
    """The taker never asks again."""
    patch.setattr(confirmations.Confirmations, "_ask_again", lambda self, match_id: [])


def take_silence_for_refusal(patch: pytest.MonkeyPatch) -> None:
    """The taker treats an unanswered confirmation as refused."""
    patch.setattr(
        taker.Taker,
        "match_failed",
        lambda self, match_id: self.match_answered(match_id, {"status": "rejected"}),
    )


def promise_before_durable(patch: pytest.MonkeyPatch) -> None:
    """Answers and confirmations go out before their events are on the disk."""

    def after_step(self: outbox.Outbox, effects: list[Effect]) -> None:
        self._journal.append(self._market.take_events())
        for effect in effects:
            self._carry_out(effect)

    patch.setattr(outbox.Outbox, "after_step", after_step)
    patch.setattr(outbox.Outbox, "promise", lambda self, tell: tell())


def without(kind: type[Event]) -> Callable[[pytest.MonkeyPatch], None]:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        note = market.Market.note
        patch.setattr(
            market.Market, "note", lambda self, event: None if isinstance(event, kind) else note(self, event)
        )

    return mutate


def reuse_ids_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """Lock ids are counted from one by each process: an old confirmation finds a new lock."""
    start = peers.SimPeer.start

    def restart(self: peers.SimPeer) -> None:
        self._ids = itertools.count()
        start(self)
        assert self.negotiator is not None
        self.negotiator.market.starts = starts.Starts(self.name, {}, lambda: 0)
        self.negotiator.market.new_id = lambda: f"{self.name}-{next(self._ids)}"

    patch.setattr(peers.SimPeer, "start", restart)


def ignore_limits(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares prices with limits."""
    patch.setattr(Side, "crosses", lambda self, price, other: True)
    patch.setattr(ladder.Ladder, "down_to", lambda self, limit: self.best_first())


def offer_the_newest_first(patch: pytest.MonkeyPatch) -> None:
    """The maker forgets time priority."""
    crossing = book.Book.crossing
    oldest_first = model.Level.__iter__

    def reversed_crossing(self: book.Book, *args: Any, **options: Any) -> book.Crossing:
        patch.setattr(model.Level, "__iter__", lambda level: reversed(list(oldest_first(level))))
        try:
            return crossing(self, *args, **options)
        finally:
            patch.setattr(model.Level, "__iter__", oldest_first)

    patch.setattr(book.Book, "crossing", reversed_crossing)


def announce_without_holding(patch: pytest.MonkeyPatch) -> None:
    """The order stays open while it is offered elsewhere: it can be filled twice."""
    patch.setattr(book.Book, "hold", lambda self, order: order.open)


def keep_what_was_not_confirmed(patch: pytest.MonkeyPatch) -> None:
    """A partial confirmation does not free the rest of its reservation."""
    give_back = book.Book._give_back
    commit = book.Book.commit

    def leaky(self: book.Book, *args: Any) -> Any:
        patch.setattr(book.Book, "_give_back", lambda *_: None)
        try:
            return commit(self, *args)
        finally:
            patch.setattr(book.Book, "_give_back", give_back)

    patch.setattr(book.Book, "commit", leaky)


def ignore_heartbeats(patch: pytest.MonkeyPatch) -> None:
    """Crossed prices that no announcement showed are never noticed."""
    patch.setattr(negotiation.Negotiator, "_compare", lambda *_: [])


def reopen_cancelled_orders(patch: pytest.MonkeyPatch) -> None:
    """What is released of a cancelled order opens again."""

    release_held = book.Book.release_held

    def reopen(self: book.Book, order: Order, quantity: int) -> None:
        order.cancel_requested = False
        release_held(self, order, quantity)

    patch.setattr(book.Book, "release_held", reopen)


def leave_released_orders_crossed(patch: pytest.MonkeyPatch) -> None:
    """What is released is not matched with what came meanwhile."""
    patch.setattr(market.Market, "rematch", lambda self, orders: [])


def let_leases_last(patch: pytest.MonkeyPatch) -> None:
    """Nobody sweeps leases that have run out."""
    patch.setattr(maker.Maker, "expire", lambda self, now: [])


def trust_ids_of_strangers(patch: pytest.MonkeyPatch) -> None:
    """A trade counts for every order whose id it names, whoever's that is."""
    patch.setattr(trade.Trade, "orders_of", lambda self, peer: [self.maker_order_id, self.taker_order_id])


def believe_any_signature(patch: pytest.MonkeyPatch) -> None:
    """Nobody verifies signatures while they trade."""
    patch.setattr(gate.Gate, "_check_signature", lambda *_: None)


def believe_any_key(patch: pytest.MonkeyPatch) -> None:
    """Whoever signs may use any name, and answer for anybody."""
    check_answer = gate.Gate.check_answer
    patch.setattr(keyring.Keyring, "check", lambda *_: None)
    patch.setattr(
        gate.Gate,
        "check_answer",
        lambda self, request, answer, key=None, session=None: check_answer(self, request, answer),
    )


def let_who_has_a_session_speak_for_others(patch: pytest.MonkeyPatch) -> None:
    """Nobody compares who speaks in a session with who has opened it."""
    patch.setattr(gate.Gate, "check_in_session", lambda *_: None)


def take_confirmations_without_signature_in_a_session(patch: pytest.MonkeyPatch) -> None:
    """What comes in a session needs no signature, whatever it is."""
    patch.setattr(
        channel.Channel,
        "_answer_in_session",
        lambda self, sender, message: self._negotiator.answer(sender, message),
    )


def take_commitments_without_proof(patch: pytest.MonkeyPatch) -> None:
    """The taker does not look whether what the maker has signed is the trade."""
    patch.setattr(channel, "check_fit", lambda *_: None)


def stamp_each_fill(patch: pytest.MonkeyPatch) -> None:
    """The maker reads its clock once for each fill of a match, the taker once for all."""
    trade = market.Market.trade

    def stamped(self: market.Market, *args: Any, **fields: Any) -> Any:
        return trade(self, *args, **{**fields, "time_ms": self.clock.time_ms()})

    patch.setattr(market.Market, "trade", stamped)


def confirm_part_of_fill_or_kill(patch: pytest.MonkeyPatch) -> None:
    """A fill-or-kill order takes what there is."""
    patch.setattr(under_way.Negotiation, "all_or_none", False)


def confirm_fill_or_kill_at_all_makers_at_once(patch: pytest.MonkeyPatch) -> None:
    """A fill-or-kill order asks every maker to execute before it has heard of the first."""

    def at_once(self: taker.Taker, way: under_way.Negotiation) -> list[Effect]:
        chosen, way.next = way.next, []
        return [effect for choice in chosen for effect in self._take_up(way, choice)]

    patch.setattr(taker.Taker, "_take_up_next", at_once)


def forget_expiry(patch: pytest.MonkeyPatch) -> None:
    """Orders that have run out stay."""
    patch.setattr(market.Market, "expire_orders", lambda self: [])


def sweep_expired_orders_only_now_and_then(patch: pytest.MonkeyPatch) -> None:
    """What has run out is offered until the next sweep."""
    announce = maker.Maker.announce

    def late(self: maker.Maker, *args: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(market.Market, "expire_orders", lambda self: [])
            self._book.time_ms = self._market.clock.time_ms()
            return announce(self, *args)

    patch.setattr(maker.Maker, "announce", late)


def announce_post_only_orders(patch: pytest.MonkeyPatch) -> None:
    """A post-only order that crosses asks for what it must not take."""
    begin = taker.Taker._begin

    def announce(self: taker.Taker, order: Order) -> list[Effect]:
        peers = self._market.roster.trading()
        if order.level is None or not peers or order.id in self.negotiations:
            return []
        return begin(self, under_way.Negotiation(order, self._book.hold(order)), peers)

    patch.setattr(taker.Taker, "announce", announce)


def nobody_yields(patch: pytest.MonkeyPatch) -> None:
    """Two post-only orders that cross at two peers both stay."""
    patch.setattr(negotiation.Negotiator, "_yield", lambda self, order, other: [])


def ignore_what_executions_cause(patch: pytest.MonkeyPatch) -> None:
    """What a commitment brings alive or makes trade is not recorded."""
    commit = book.Book.commit

    def silent(self: book.Book, *args: Any) -> Any:
        executed = commit(self, *args)
        self.events = []
        return executed

    patch.setattr(book.Book, "commit", silent)


def let_both_of_a_pair_trade(patch: pytest.MonkeyPatch) -> None:
    """What trades does not cancel the other one of its pair."""
    patch.setattr(book.Book, "_cancel_partners", lambda self, news: None)


def trigger_while_the_partner_is_reserved(patch: pytest.MonkeyPatch) -> None:
    """A stop order does not wait for what is reserved of its partner."""

    def at_once(self: book.Book, stop: Order) -> None:
        if stop.id in self.orders:
            self.events.append(Trigger(stop))
            self._enter(stop)

    patch.setattr(book.Book, "_come_alive", at_once)


def forget_pairs_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    """The orders of a pair come back as strangers."""
    patch.setattr(book.Book, "link", lambda self, stop, partner: None)


def trade_while_the_market_is_closed(patch: pytest.MonkeyPatch) -> None:
    """What an operator has closed asks other peers all the same."""
    patch.setattr(market.Market, "trades", True)


def announce_whole_icebergs(patch: pytest.MonkeyPatch) -> None:
    """An iceberg on its way asks for all of it at once."""
    ask = taker.Taker._ask

    def whole(self: taker.Taker, way: under_way.Negotiation, *args: Any) -> list[Effect]:
        terms = way.order.terms
        way.order.terms = replace(terms, display=None)
        try:
            return ask(self, way, *args)
        finally:
            way.order.terms = terms

    patch.setattr(taker.Taker, "_ask", whole)


def amend_orders_under_way(patch: pytest.MonkeyPatch) -> None:
    """An order that is held for its way can be changed."""
    patch.setattr(desk.Desk, "_is_under_way", lambda self, order: False)


def pass_over_our_own_book(patch: pytest.MonkeyPatch) -> None:
    """By best price, our own book does not compete."""
    patch.setattr(taker.Taker, "_offer_our_own", lambda self, way: None)


def let_market_orders_rest_on_their_way(patch: pytest.MonkeyPatch) -> None:
    """What does not rest is matched like what does when it comes back: it may set the price."""
    patch.setattr(book.Book, "_finish", lambda self, order: (self._come_back(order), self._uncross(order)))


def tell_whoever_has_the_name_of_a_match(patch: pytest.MonkeyPatch) -> None:
    """The maker tells of what it has executed to any key that speaks in the taker's name by now."""
    match = maker.Maker.match

    def tell(self: maker.Maker, sender: str, message: CrossPeerMatch, key: str | None) -> maker.Reply:
        kept = self._market.ledger.taker_key(sender, message.match_id)
        return match(self, sender, message, kept or key)

    patch.setattr(maker.Maker, "match", tell)


def ask_whoever_has_the_name_of_the_maker(patch: pytest.MonkeyPatch) -> None:
    """A doubt is settled by the answer of any key that speaks in the maker's name by now."""
    check_answer = gate.Gate.check_answer
    patch.setattr(
        gate.Gate,
        "check_answer",
        lambda self, request, answer, key=None, session=None: check_answer(
            self, request, answer, session=session
        ),
    )


def let_anybody_use_a_lock(patch: pytest.MonkeyPatch) -> None:
    """The maker does not look for whom it has reserved."""

    def held(self: maker.Maker, counterparty: str, lock_id: str) -> book.Reservation | None:
        self._standings.setdefault(counterparty, maker.Standing())
        return self._book.reservations.get(lock_id)

    patch.setattr(maker.Maker, "_held_by", held)


def let_names_change_hands_at_once(patch: pytest.MonkeyPatch) -> None:
    """A name is anybody's who signs, also while its owner is heard."""
    patch.setattr(keyring.Acquaintance, "holds", lambda self, now: False)


def keep_locks_of_who_has_left(patch: pytest.MonkeyPatch) -> None:
    """A goodbye ends no lease."""
    patch.setattr(maker.Maker, "forget", lambda self, counterparty: [])


def refuse_repeats_while_the_market_is_closed(patch: pytest.MonkeyPatch) -> None:
    """What an operator has closed says no to whatever it is asked, also to what it has said yes to."""
    match = maker.Maker.match

    def closed(self: maker.Maker, sender: str, message: CrossPeerMatch, key: str | None) -> maker.Reply:
        if self._market.trades:
            return match(self, sender, message, key)
        return self._rejected("closed", "the market is not open"), []

    patch.setattr(maker.Maker, "match", closed)


def name_matches_by_their_orders(patch: pytest.MonkeyPatch) -> None:
    """All that an order asks of one maker has one match id."""
    confirm = taker.Taker._confirm

    def named(self: taker.Taker, way: under_way.Negotiation, choice: Choice) -> Effect:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._market, "new_id", lambda: f"{way.order.id}-{choice.offer.peer}")
            return confirm(self, way, choice)

    patch.setattr(taker.Taker, "_confirm", named)


def ask_before_the_intent_is_durable(patch: pytest.MonkeyPatch) -> None:
    """A confirmation leaves before what is intended is on the disk."""
    patch.setattr(outbox, "PROMISES", (Settled, Traded))


def stamp_repeated_answers_anew(patch: pytest.MonkeyPatch) -> None:
    """Each time that a match is told of its trades have the time of now."""
    committed = maker.Maker._committed

    def stamped(self: maker.Maker, trades: Sequence[Trade]) -> MatchAnswer:
        now_ms = self._market.clock.time_ms()
        return committed(self, [structs.replace(trade, time_ms=now_ms) for trade in trades])

    patch.setattr(maker.Maker, "_committed", stamped)


def take_anybodys_match_for_ours(patch: pytest.MonkeyPatch) -> None:
    """What replays a journal tells matches by their ids alone, which are their takers' to choose."""
    apply = recovery.Recovered._apply

    def by_id(self: recovery.Recovered, event: Event) -> None:
        match_id = event.match_id if isinstance(event, Executed) else ""
        if match_id in self.confirmations:
            self._answered(match_id)
        apply(self, event)

    patch.setattr(recovery.Recovered, "_apply", by_id)


def lose_doubts_in_snapshots(patch: pytest.MonkeyPatch) -> None:
    """A snapshot has no confirmations."""
    to_plain = recovery.Recovered.to_plain
    patch.setattr(recovery.Recovered, "to_plain", lambda self: {**to_plain(self), "confirmations": []})


def forget_whose_answer_counts_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    """A doubt comes back without the key of its maker."""

    def keyless(*args: Any) -> under_way.Confirmation:
        return under_way.Confirmation(*args[:5])

    patch.setattr(recovery, "Confirmation", keyless)


def trade_at_the_takers_limit(patch: pytest.MonkeyPatch) -> None:
    """The taker writes down its own price."""
    trades = confirmations.Confirmations.trades

    def dear(self: confirmations.Confirmations, match_id: str, asked: Any, said: Any) -> list[Trade]:
        limit = asked.order.price
        return [structs.replace(trade, price=limit) for trade in trades(self, match_id, asked, said)]

    patch.setattr(confirmations.Confirmations, "trades", dear)


def take_offers_outside_the_limit(patch: pytest.MonkeyPatch) -> None:
    """The taker does not look at the price of an offer."""
    take_offer = taker.Taker._take_offer

    def take(self: taker.Taker, under: under_way.Negotiation, destination: str, offer: Offer) -> None:
        limit, under.price = under.price, 10**6 if under.order.side is Side.BUY else 0
        try:
            take_offer(self, under, destination, offer)
        finally:
            under.price = limit

    patch.setattr(taker.Taker, "_take_offer", take)


AMONG_LIARS = Scenario(11, 3, 60, "full-first", frozenset({"liars", "skew"}), listed=True, sessions=True)
AMONG_HEIRS = Scenario(1, 3, 60, "full-first", frozenset({"heirs"}), trades_in_memory=4)
AMONG_TWINS = Scenario(1, 3, 60, "full-first", frozenset({"twins", "loss"}))
SHOWN_BY = {
    "believe_any_signature": 334,
    "forget_expiry": 63,
    "forget_what_left_the_memory": 108,
    "give_up_in_doubt": 138,
    "ignore_limits": 67,
    "lose_doubts_in_snapshots": 8,
    "nobody_yields": 41,
    "promise_before_durable": 29,
    "sweep_expired_orders_only_now_and_then": 49,
    "trigger_while_the_partner_is_reserved": 112,
}
"""Seeds that show at once what others do not, or not so soon: they are tried first."""
STAGES = {
    "let_who_has_a_session_speak_for_others": AMONG_LIARS,
    "take_confirmations_without_signature_in_a_session": AMONG_LIARS,
    "refuse_locks_of_other_journals": AMONG_TWINS,
    "let_anybody_use_a_lock": AMONG_HEIRS,
    "let_names_change_hands_at_once": replace(AMONG_HEIRS, seed=44),
    "keep_locks_of_who_has_left": Scenario(2, 3, 60, "full-first", frozenset({"leaving"})),
    "refuse_repeats_while_the_market_is_closed": Scenario(
        12, 3, 60, "full-first", frozenset({"closings", "loss"})
    ),
    "ask_before_the_intent_is_durable": Scenario(1, 3, 60, "full-first", frozenset({"crash", "slow disks"})),
    "forget_whose_answer_counts_at_a_restart": Scenario(1, 3, 60, "full-first", frozenset({"crash", "loss"})),
    "take_anybodys_match_for_ours": Scenario(
        135, 3, 60, "full-first", frozenset({"liars", "crash"}), trades_in_memory=50
    ),
    "tell_whoever_has_the_name_of_a_match": AMONG_HEIRS,
    "ask_whoever_has_the_name_of_the_maker": replace(AMONG_HEIRS, seed=88),
    "drop_trades_before_they_are_durable": Scenario(
        10, 3, 60, "full-first", frozenset({"repeats", "reordering", "slow disks"}), trades_in_memory=1
    ),
}
"""Where a mutation takes conditions that hardly any seed draws: those, for its own seed and the others."""

MUTATIONS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    mutation.__name__: mutation
    for mutation in (
        forget_releases,
        refuse_repeated_confirmations,
        refuse_locks_of_other_journals,
        forget_starts,
        count_events_that_are_not_durable,
        forget_what_left_the_memory,
        drop_trades_before_they_are_durable,
        give_up_in_doubt,
        take_silence_for_refusal,
        promise_before_durable,
        reuse_ids_after_a_restart,
        ignore_limits,
        offer_the_newest_first,
        announce_without_holding,
        keep_what_was_not_confirmed,
        ignore_heartbeats,
        reopen_cancelled_orders,
        leave_released_orders_crossed,
        let_leases_last,
        trust_ids_of_strangers,
        stamp_each_fill,
        believe_any_signature,
        believe_any_key,
        let_who_has_a_session_speak_for_others,
        take_confirmations_without_signature_in_a_session,
        take_commitments_without_proof,
        confirm_part_of_fill_or_kill,
        confirm_fill_or_kill_at_all_makers_at_once,
        forget_expiry,
        sweep_expired_orders_only_now_and_then,
        announce_post_only_orders,
        nobody_yields,
        ignore_what_executions_cause,
        let_both_of_a_pair_trade,
        trigger_while_the_partner_is_reserved,
        forget_pairs_at_a_restart,
        trade_while_the_market_is_closed,
        announce_whole_icebergs,
        amend_orders_under_way,
        pass_over_our_own_book,
        let_market_orders_rest_on_their_way,
        tell_whoever_has_the_name_of_a_match,
        ask_whoever_has_the_name_of_the_maker,
        let_anybody_use_a_lock,
        let_names_change_hands_at_once,
        keep_locks_of_who_has_left,
        refuse_repeats_while_the_market_is_closed,
        name_matches_by_their_orders,
        ask_before_the_intent_is_durable,
        stamp_repeated_answers_anew,
        lose_doubts_in_snapshots,
        take_anybodys_match_for_ours,
        forget_whose_answer_counts_at_a_restart,
        trade_at_the_takers_limit,
        take_offers_outside_the_limit,
    )
} | {
    "lose_intents": without(Intended),
    "lose_cancellations": without(Cancelled),
    "lose_proofs": without(Signed),
    "lose_amendments": without(Amended),
    "lose_triggers": without(Triggered),
    "lose_places": without(Requeued),
    "lose_states": without(Switched),
    "lose_refusals": without(Refused),
}
"""By name."""
