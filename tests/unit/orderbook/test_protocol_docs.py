"""``docs/protocol.md`` names tests: every one of them exists, in the file that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PAGE = (TESTS.parent / "docs/protocol.md").read_text()
SHORT = {
    "neg": "unit/orderbook/test_negotiation.py",
    "les": "unit/orderbook/test_lessons.py",
    "sce": "simulation/test_scenarios.py",
    "sim": "simulation/test_markets.py",
    "gate": "unit/orderbook/test_gate.py",
    "chan": "unit/orderbook/test_channel.py",
    "crash": "e2e/test_crashes.py",
}
NAME = r"`([a-z0-9_]{8,}…?)`"


def named() -> list[tuple[str, str]]:
    """File (or "") and name of what stands in the tables, as the file that was last named."""
    found: list[tuple[str, str]] = []
    for row in (line for line in PAGE.splitlines() if line.startswith("|")):
        file = ""
        for short, path, name in re.findall(rf"\*(\w+)\*|`((?:\w+/)+\w+\.py)`|{NAME}", row):
            if short in SHORT or path:
                file = path or SHORT[short]
                found.append((file, ""))
            elif name and file:
                found.append((file, name))
    return found


def test_it_names_many() -> None:
    assert len({name for _, name in named() if name}) > 50


@pytest.mark.parametrize(("file", "name"), sorted(set(named())))
def test_what_is_named_exists(file: str, name: str) -> None:
    text = (TESTS / file).read_text()
    folder = "".join(path.read_text() for path in (TESTS / file).parent.glob("*.py"))
    defined = re.findall(r"def (?:test_)?(\w+)|class (\w+)", text + folder * file.startswith("simulation"))
    assert not name or any(one.startswith(name.rstrip("…")) for pair in defined for one in pair if one), name
