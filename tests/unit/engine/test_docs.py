"""The examples in the documentation run."""

from __future__ import annotations

import doctest
from pathlib import Path

import orderbook.engine.book
from orderbook.engine import Code, MarketState, Reason, Terms

DOCS = Path(__file__).parents[3] / "docs" / "engine.md"


def test_the_examples_of_the_engine_run() -> None:
    result = doctest.testmod(orderbook.engine.book)
    assert result.attempted > 5
    assert result.failed == 0


def test_the_examples_of_the_page_run() -> None:
    result = doctest.testfile(str(DOCS), module_relative=False)
    assert result.attempted > 10
    assert result.failed == 0


def test_the_page_names_everything_that_has_a_name() -> None:
    text = DOCS.read_text()
    missing = [
        word
        for word in (
            *(code.value for code in Code),
            *(reason.value for reason in Reason),
            *(state.value for state in MarketState),
            *Terms.__dataclass_fields__,
        )
        if f"`{word}`" not in text
    ]
    assert not missing
