"""Engine and oracle as one state machine: hypothesis looks for the shortest way to make them disagree."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from orderbook.engine import MarketState, PostOnly, Quote, SelfTrade, Side, Terms, TimeInForce
from tests.unit.engine.twins import OWNERS, Twins

PRICES = st.integers(1, 12)
LOTS = st.integers(1, 20)
SIDES = st.sampled_from(list(Side))
OWNER = st.sampled_from(OWNERS)
WHICH = st.integers(0, 13)

RESTING = st.builds(
    Terms,
    post_only=st.sampled_from([None, None, *PostOnly]),
    display=st.none() | st.integers(1, 6),
    self_trade=st.sampled_from(SelfTrade),
)
TERMS = (
    st.just(Terms())
    | RESTING
    | st.builds(
        Terms,
        time_in_force=st.sampled_from(TimeInForce),
        market=st.booleans(),
        stop_price=st.none() | PRICES,
        expires_ms=st.none() | st.integers(1, 10),
        self_trade=st.sampled_from(SelfTrade),
    )
)


class EngineMachine(RuleBasedStateMachine):
    """Every command, on few prices and few orders; ``which`` picks one of the live orders."""

    def __init__(self) -> None:
        super().__init__()
        self.twins = Twins()
        self._ids = 0

    def _new_id(self) -> str:
        self._ids += 1
        return f"o{self._ids}"

    def _id(self, which: int) -> str:
        live = list(self.twins.book.orders)
        return live[which % len(live)] if live else "none"

    def _lock(self, which: int) -> str:
        locks = list(self.twins.book.reservations)
        return locks[which % len(locks)] if locks else "none"

    @rule(owner=OWNER, side=SIDES, price=PRICES, lots=LOTS, terms=TERMS)
    def submit(self, owner: str, side: Side, price: int, lots: int, terms: Terms) -> None:
        self.twins.do(("submit", self._new_id(), owner, side, 0 if terms.market else price, lots, terms))

    @rule(owner=OWNER, side=SIDES, limit=PRICES, price=PRICES, stop_price=PRICES, lots=LOTS, terms=RESTING)
    def submit_pair(
        self, owner: str, side: Side, limit: int, price: int, stop_price: int, lots: int, terms: Terms
    ) -> None:
        resting = (self._new_id(), limit, lots, terms)
        stop = (self._new_id(), price, lots, Terms(stop_price=stop_price))
        self.twins.do(("submit_pair", owner, side, resting, stop))

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        self.twins.do(("cancel", self._id(which), None))

    @rule(owner=OWNER)
    def cancel_all(self, owner: str) -> None:
        self.twins.do(("cancel_all", owner))

    @rule(which=WHICH, price=st.none() | PRICES, lots=st.none() | st.integers(1, 40))
    def amend(self, which: int, price: int | None, lots: int | None) -> None:
        self.twins.do(("amend", self._id(which), price, lots))

    @rule(owner=OWNER, bid=PRICES, ask=PRICES, lots=st.integers(0, 20))
    def mass_quote(self, owner: str, bid: int, ask: int, lots: int) -> None:
        quotes = [
            Quote(f"b-{owner}", Side.BUY, bid, lots),
            Quote(f"a-{owner}", Side.SELL, ask, lots),
        ]
        self.twins.do(("mass_quote", owner, quotes))

    @rule(side=SIDES, price=PRICES, lots=LOTS, most=st.none() | st.integers(1, 3), expires=st.integers(0, 9))
    def reserve(self, side: Side, price: int, lots: int, most: int | None, expires: int) -> None:
        self.twins.do(("reserve", side, price, lots, most, float(expires)))

    @rule(which=WHICH, lots=st.integers(0, 20))
    def commit(self, which: int, lots: int) -> None:
        parts = dict.fromkeys(self.twins.book.orders, lots)
        self.twins.do(("commit", self._lock(which), parts))

    @rule(which=WHICH)
    def release(self, which: int) -> None:
        self.twins.do(("release", self._lock(which)))

    @rule(now=st.integers(0, 9))
    def expire_lease(self, now: int) -> None:
        self.twins.do(("expire_lease", float(now)))

    @rule(which=WHICH)
    def hold(self, which: int) -> None:
        self.twins.do(("hold", self._id(which)))

    @rule(which=WHICH, lots=LOTS, price=PRICES)
    def fill_held(self, which: int, lots: int, price: int) -> None:
        self.twins.do(("fill_held", self._id(which), lots, price))

    @rule(which=WHICH, lots=LOTS)
    def release_held(self, which: int, lots: int) -> None:
        self.twins.do(("release_held", self._id(which), lots))

    @rule(which=WHICH)
    def rematch(self, which: int) -> None:
        freed = list(self.twins.book._freed)
        self.twins.do(("rematch", freed[which % len(freed)] if freed else "none"))

    @rule(time_ms=st.integers(0, 10))
    def expire_orders(self, time_ms: int) -> None:
        self.twins.do(("expire_orders", time_ms))

    @rule(price=PRICES)
    def note_trade(self, price: int) -> None:
        self.twins.do(("note_trade", price))

    @rule(state=st.sampled_from(MarketState))
    def set_state(self, state: MarketState) -> None:
        self.twins.do(("set_state", state))

    @rule(low=st.integers(1, 6), high=st.integers(6, 12))
    def set_band(self, low: int, high: int) -> None:
        self.twins.do(("set_band", low, high))

    @invariant()
    def nothing_is_broken(self) -> None:
        self.twins.book.check()


EngineMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, derandomize=True)
TestEngine = EngineMachine.TestCase
