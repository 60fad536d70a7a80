"""Made-up flow: the same for a seed, and like real flow."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from itertools import islice

import pytest

from orderbook.flow.files import Row, read_flow, write_flow
from orderbook.flow.synthetic import synthesize
from orderbook.model import Instrument


def digest(rows: int, seed: int) -> str:
    text = io.StringIO()
    write_flow(synthesize(rows, seed), text)
    return hashlib.sha256(text.getvalue().encode()).hexdigest()


def test_a_seed_gives_the_same_rows_for_ever() -> None:
    assert digest(5000, 1) == digest(5000, 1)
    assert digest(5000, 1) != digest(5000, 2)
    assert digest(5000, 7)[:16] == "82b050a16c8c0a73"


def test_fewer_rows_are_the_beginning_of_more() -> None:
    assert list(synthesize(500, 3)) == list(islice(synthesize(5000, 3), 500))


@pytest.mark.parametrize("seed", range(5))
def test_rows_make_sense_one_after_the_other(seed: int) -> None:
    instrument = Instrument("BTC-USD")
    live: dict[str, Row] = {}
    used: set[str] = set()
    last_ms = 0
    for row in synthesize(5000, seed):
        assert row.elapsed_ms >= last_ms
        last_ms = row.elapsed_ms
        assert instrument.price(f"{row.price:f}") > 0
        assert instrument.quantity(f"{row.quantity:f}") > 0
        if row.action == "new":
            assert row.id not in used
            used.add(row.id)
            live[row.id] = row
        elif row.action == "change":
            assert live[row.id].side == row.side
            live[row.id] = row
        else:
            placed = live.pop(row.id)
            assert (row.side, row.price, row.quantity) == (placed.side, placed.price, placed.quantity)


def test_the_mix_is_that_of_an_exchange() -> None:
    rows = list(synthesize(20_000, 1))
    actions = Counter(row.action for row in rows)
    assert 0.35 < actions["cancel"] / len(rows) < 0.5
    assert 0 < actions["change"] / len(rows) < 0.01
    new = [row for row in rows if row.action == "new"]
    assert 0.45 < sum(row.side == "buy" for row in new) / len(new) < 0.55
    buys = sorted(row.price for row in new if row.side == "buy")
    sells = sorted(row.price for row in new if row.side == "sell")
    assert buys[len(buys) // 2] < sells[len(sells) // 2], "most orders rest"
    assert buys[-1] > sells[0], "some cross"
    assert len({row.price for row in new}) > 50


def test_what_is_made_up_can_be_read_as_a_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("flow") / "flow.csv"
    with path.open("w", newline="") as file:
        write_flow(synthesize(1000, 9), file)
    assert list(read_flow(path)) == list(synthesize(1000, 9))
