"""The examples in the documentation run."""

from __future__ import annotations

import ast
import doctest
from pathlib import Path

import orderbook.engine.book
from orderbook.engine import Code, MarketState, Reason, Terms

DOCS = Path(__file__).parents[3] / "docs" / "engine.md"


def test_the_examples_of_the_engine_run() -> None:
    """Of a compiled module doctest finds none: so they are taken from its source."""
    module = vars(orderbook.engine.book)
    source = ast.parse(Path(orderbook.engine.__file__).with_name("book.py").read_text())
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    runner, parser = doctest.DocTestRunner(), doctest.DocTestParser()
    for node in ast.walk(source):
        text = (ast.get_docstring(node) or "") if isinstance(node, kinds) else ""
        runner.run(parser.get_doctest(text, dict(module), getattr(node, "name", "book"), None, None))
    result = runner.summarize()
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
