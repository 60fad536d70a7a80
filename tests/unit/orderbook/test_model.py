"""Prices and quantities: text to exact integers and back, with errors that name field and rule."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orderbook import limits
from orderbook.errors import InvalidFieldError
from orderbook.model import Instrument, Order, OrderStatus, Side
from tests.harness import IS_COMPILED

BTC = Instrument("BTC-USD")


@pytest.mark.parametrize(
    ("text", "ticks"),
    [("78318.00", 7_831_800), ("78318", 7_831_800), ("0.01", 1), ("0.010", 1), ("1.5", 150)],
)
def test_prices_count_ticks(text: str, ticks: int) -> None:
    assert BTC.price(text) == ticks


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "plain decimal"),
        ("-1", "plain decimal"),
        ("+1", "plain decimal"),
        ("1e5", "plain decimal"),
        ("1.", "plain decimal"),
        (".5", "plain decimal"),
        ("01", "plain decimal"),
        (" 1", "plain decimal"),
        ("1\n", "plain decimal"),
        ("1_000", "plain decimal"),
        ("NaN", "plain decimal"),
        ("\u0661", "plain decimal"),
        ("9" * 41, "plain decimal"),
        ("0", "more than zero"),
        ("0.00", "more than zero"),
        ("0.001", "multiple of 0.01"),
        ("99999999999999999999", "at most"),
        (1, "decimal string"),
        (1.5, "decimal string"),
        (None, "decimal string"),
        (True, "decimal string"),
        (["1"], "decimal string"),
    ],
)
def test_what_is_no_price_is_refused_with_the_rule(text: object, rule: str) -> None:
    with pytest.raises(InvalidFieldError, match=rule) as caught:
        BTC.price(text, "limit")
    assert caught.value.field == "limit"


def test_prices_keep_the_ticks_decimals_and_quantities_none_that_are_zero() -> None:
    assert BTC.price_text(7_831_800) == "78318.00"
    assert BTC.quantity_text(50_000_000) == "0.5"
    assert BTC.quantity_text(100_000_000) == "1"
    assert BTC.quantity_text(0) == "0"
    assert BTC.quantity_text(1) == "0.00000001"


STEPS = ["1", "5", "100", "0.1", "0.5", "0.25", "0.01", "0.00000001", "2.5"]


@given(st.sampled_from(STEPS), st.integers(1, limits.PRICE_TICKS))
def test_every_count_survives_the_way_out_and_back(tick: str, ticks: int) -> None:
    instrument = Instrument("X", tick=tick, lot=tick)
    assert instrument.price(instrument.price_text(ticks)) == ticks
    assert instrument.quantity(instrument.quantity_text(ticks)) == ticks
    assert Fraction(instrument.price_text(ticks)) == ticks * Fraction(tick)


@given(st.sampled_from(STEPS), st.text("0123456789.e-+ ", max_size=12))
def test_text_is_a_price_exactly_when_it_is_a_positive_multiple(tick: str, text: str) -> None:
    try:
        ticks = Instrument("X", tick=tick).price(text)
    except InvalidFieldError:
        return
    assert Fraction(text) == ticks * Fraction(tick)
    assert ticks > 0


@pytest.mark.parametrize("step", ["0", "0.0", "-1", "", "1e-2", "abc"])
def test_an_instrument_needs_real_steps(step: str) -> None:
    with pytest.raises(InvalidFieldError, match="tick must be"):
        Instrument("X", tick=step)


def test_the_fingerprint_tells_instruments_apart() -> None:
    variants = [
        Instrument("X"),
        Instrument("Y"),
        Instrument("X", tick="0.1"),
        Instrument("X", lot="0.1"),
        Instrument("X", max_quantity=5),
        Instrument("X", max_price=5),
    ]
    assert len({instrument.fingerprint for instrument in variants}) == len(variants)
    assert Instrument("X").fingerprint == variants[0].fingerprint


@pytest.mark.parametrize("name", ["", "-x", "a b", "x" * 65, "a:b", "ä", None, 5])
def test_bad_market_names(name: object) -> None:
    # Where it is compiled, what is no text gets no further than to the parameter.
    refusal = (InvalidFieldError, TypeError) if IS_COMPILED else InvalidFieldError
    with pytest.raises(refusal, match=r"market must be|str object expected"):
        Instrument(name)  # type: ignore[arg-type]


def test_sides_cross_within_their_limits() -> None:
    assert Side.BUY.crosses(100, 100)
    assert Side.BUY.crosses(100, 99)
    assert not Side.BUY.crosses(100, 101)
    assert Side.SELL.crosses(100, 100)
    assert Side.SELL.crosses(100, 101)
    assert not Side.SELL.crosses(100, 99)


def test_the_status_of_an_order_follows_its_quantities() -> None:
    order = Order("1", "ann", Side.BUY, 100, 10)
    assert order.status is OrderStatus.OPEN
    order.open, order.filled = 6, 4
    assert order.status is OrderStatus.PARTIALLY_FILLED
    order.open, order.reserved, order.cancel_requested = 0, 6, True
    assert order.status is OrderStatus.PENDING_CANCEL
    order.reserved, order.cancelled = 0, 6
    assert order.status is OrderStatus.CANCELLED
    order.cancelled, order.filled = 0, 10
    assert order.status is OrderStatus.FILLED
