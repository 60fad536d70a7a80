"""What docs/workers.md and docs/testing.md show runs as it is printed there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import grenache_py
from grenache_py import ActionClient, Actions, PeerRPCClient
from grenache_py.testing import Grapes

DOCS = Path(__file__).parents[2] / "docs"


def code(page: str) -> list[str]:
    """Its pieces of Python."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_a_worker_and_its_client(monkeypatch):
    serve, call = code("workers.md")[:2]
    with Grapes() as grapes:
        link = grenache_py.Link
        monkeypatch.setattr(grenache_py, "Link", lambda url: link(grapes.url))
        names: dict[str, Any] = {}

        def until_enter(prompt):
            exec(call.replace("client.request", "answer = client.request"), names)

        names["input"] = until_enter
        exec(serve.replace("7001", "0"), names)
        assert names["answer"] == ["8.8.8.8", {"country": "US"}]


@pytest.fixture
def shown():
    """What docs/testing.md defines, beside what a reader would have."""
    actions = Actions()

    @actions.export
    def add(space, *numbers: int):
        return sum(numbers)

    def my_country(link, ip):
        return ActionClient(PeerRPCClient(link)).request("rest:util:net", "getIpInfo", [ip])[1]

    names: dict[str, Any] = {"actions": actions, "my_country": my_country}
    [page] = code("testing.md")
    exec(page.replace('@pytest.fixture(scope="session")\n', ""), names)
    return names


@pytest.mark.parametrize("name", ["test_my_worker", "test_what_calls_others"])
def test_the_test_kit(shown, name):
    for grapes in shown["grapes"]():
        shown[name](grapes)
