"""The cases of ``cases.txt``, each on the engine and on the oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orderbook.engine import (
    Book,
    Code,
    MarketState,
    Order,
    PostOnly,
    Quote,
    Rules,
    SelfTrade,
    Side,
    Terms,
    TimeInForce,
)
from tests.unit.engine.twins import Command, Twins, plain

CASES = Path(__file__).with_name("cases.txt")
RULES = Rules(max_price=1000, max_quantity=1_000_000)

KEYWORDS: dict[str, dict[str, Any]] = {
    "ioc": {"time_in_force": TimeInForce.IOC},
    "fok": {"time_in_force": TimeInForce.FOK},
    "market": {"market": True},
    "post": {"post_only": PostOnly.REJECT},
    "slide": {"post_only": PostOnly.SLIDE},
    "newest": {"self_trade": SelfTrade.CANCEL_NEWEST},
    "oldest": {"self_trade": SelfTrade.CANCEL_OLDEST},
    "both": {"self_trade": SelfTrade.CANCEL_BOTH},
    "decrement": {"self_trade": SelfTrade.DECREMENT},
}
VALUES = {"stop": "stop_price", "show": "display", "gtd": "expires_ms"}


def cases() -> Iterator[tuple[str, list[tuple[int, str]]]]:
    """(title, numbered lines) of each case."""
    title, lines = "", []
    for number, text in enumerate(CASES.read_text().splitlines(), 1):
        if text.startswith("#"):
            continue
        if text and not title:
            title = text
        elif text:
            lines.append((number, text))
        elif title:
            yield title, lines
            title, lines = "", []
    yield title, lines


def terms_of(words: list[str]) -> Terms:
    terms = Terms()
    for word in words:
        key, _, value = word.partition("=")
        changes = {VALUES[key]: int(value)} if value else KEYWORDS[key]
        terms = replace(terms, **changes)
        if key == "gtd" and terms.time_in_force is TimeInForce.GTC:
            terms = replace(terms, time_in_force=TimeInForce.GTD)
    return terms


class Stage:
    """Carries the lines of a case out."""

    def __init__(self) -> None:
        self.twins = Twins(RULES)
        self.book: Book = self.twins.book
        self.code = Code.OK

    def do(self, text: str) -> None:
        word, *rest = text.split()
        perform: Callable[[list[str]], Command] | None = getattr(self, "_" + word.replace("-", "_"), None)
        command = self._order(word, rest) if perform is None else perform(rest)
        self.twins.do(command)
        self.code = self.twins.last_code

    def _order(self, side: str, words: list[str]) -> Command:
        id, owner, price, lots, *terms = words
        if price == "market":
            price, terms = "0", ["market", *terms]
        owner = "" if owner == "-" else owner
        return "submit", id, owner, Side(side), int(price), int(lots), terms_of(terms)

    def _pair(self, words: list[str]) -> Command:
        side, id, owner, price, lots, *rest = words
        slash = rest.index("/")
        stop_id, *stop = rest[slash + 1 :]
        *stop_terms, stop_price, stop_lots = stop
        return (
            "submit_pair",
            owner,
            Side(side),
            (id, int(price), int(lots), terms_of(rest[:slash])),
            (stop_id, int(stop_price), int(stop_lots), terms_of(stop_terms)),
        )

    def _cancel(self, words: list[str]) -> Command:
        return "cancel", words[0], words[1] if len(words) > 1 else None

    def _cancel_all(self, words: list[str]) -> Command:
        return "cancel_all", words[0]

    def _amend(self, words: list[str]) -> Command:
        named = {key: int(value) for key, value in (word.split("=") for word in words[1:])}
        return "amend", words[0], named.get("price"), named.get("quantity")

    def _quote(self, words: list[str]) -> Command:
        owner, *rest = words
        quotes = [quote.split() for quote in " ".join(rest).split(",")]
        return (
            "mass_quote",
            owner,
            [Quote(id, Side(side), int(price), int(lots)) for side, id, price, lots in quotes],
        )

    def _lock(self, words: list[str]) -> Command:
        """Everything that an order would get, under the name of the lock."""
        name, side, price, lots = words
        self.twins.next_lock = name
        return "reserve", Side(side), int(price), int(lots), None, 1.0

    def _commit(self, words: list[str]) -> Command:
        parts = {id: int(lots) for id, lots in (word.split("=") for word in words[1:])}
        return "commit", words[0], parts

    def _unlock(self, words: list[str]) -> Command:
        return "release", words[0]

    def _hold(self, words: list[str]) -> Command:
        """``hold ID``, or a new order that is held at once: ``hold ID SIDE OWNER PRICE LOTS``."""
        if len(words) > 1:
            id, side, *rest = words
            self.do(f"{side} {id} {' '.join(rest)}")
        return "hold", words[0]

    def _fill(self, words: list[str]) -> Command:
        return "fill_held", words[0], int(words[1]), int(words[2])

    def _release(self, words: list[str]) -> Command:
        return "release_held", words[0], int(words[1])

    def _rematch(self, words: list[str]) -> Command:
        return "rematch", words[0]

    def _time(self, words: list[str]) -> Command:
        return "expire_orders", int(words[0])

    def _trade(self, words: list[str]) -> Command:
        return "note_trade", int(words[0])

    def _band(self, words: list[str]) -> Command:
        return "set_band", int(words[0]), int(words[1])

    def _state(self, words: list[str]) -> Command:
        return "set_state", MarketState(words[0])

    # -- what can be seen --------------------------------------------------------------------------------

    def events(self) -> list[str]:
        return [self._event(*plain(event)) for event in self.book.events]

    @staticmethod
    def _event(kind: str, *fields: Any) -> str:
        if kind == "match":
            maker, taker, price, lots = fields
            return f"match {maker} {taker} {lots}@{price}"
        if kind == "execution":
            return f"execute {fields[0]} {fields[2]}@{fields[1]}"
        if kind == "cancel":
            return f"cancel {fields[0]} {fields[1]} {fields[2].value}"
        return f"{kind} {fields[0]}"

    def lines(self) -> list[str]:
        """The book as in the cases: every live order in its place, whether it can be matched or not."""
        lines = []
        for side, sign in ((Side.BUY, -1), (Side.SELL, 1)):
            levels: dict[int, list[Order]] = {}
            for order in sorted(self.book.orders.values(), key=lambda order: order.priority):
                if order.side is side and not order.untriggered:
                    levels.setdefault(order.price, []).append(order)
            for price in sorted(levels, key=lambda price: price * sign):
                lines.append(f"{side.value} {price}: {', '.join(map(self._entry, levels[price]))}")
        for name, orders in (("waiting", self.book.stops), ("reached", self.book._reached.values())):
            waiting = [f"{order.id} {order.open}" for order in orders]
            lines += [f"{name}: {', '.join(waiting)}"] if waiting else []
        return lines

    @staticmethod
    def _entry(order: Order) -> str:
        text = f"{order.id} {order.open - order.hidden}"
        text += f"+{order.hidden}" if order.hidden else ""
        return text + (f" ({order.reserved})" if order.reserved else "")


@pytest.mark.parametrize(("title", "lines"), [pytest.param(*case, id=case[0]) for case in cases()])
def test_case(title: str, lines: list[tuple[int, str]]) -> None:
    stage = Stage()
    lines = [*lines, (0, ">")]
    commanded = False
    expected: dict[str, list[str]] = {}
    for number, text in lines:
        mark, _, rest = text.partition(" ")
        if mark in ("!", "=", "|"):
            expected.setdefault(mark, []).append(rest)
            continue
        where = f"{CASES.name} before line {number}"
        if commanded:
            assert stage.code.value == expected.get("!", ["ok"])[0], where
            assert stage.events() == expected.get("=", []), where
            if "|" in expected:
                assert stage.lines() == [line for line in expected["|"] if line], where
        expected = {}
        commanded = mark == ">"
        if commanded and rest:
            stage.do(rest)
        elif not commanded:
            stage.do(text)
            assert stage.code is Code.OK, f"{CASES.name} line {number}: {stage.code}"


def test_every_order_type_has_cases() -> None:
    """A canary for the parser: it finds the cases, and they use every keyword."""
    found = list(cases())
    words = {word.partition("=")[0] for _, lines in found for _, text in lines for word in text.split()}
    assert len(found) > 90
    assert set(KEYWORDS) | set(VALUES) <= words
