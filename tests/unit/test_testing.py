"""The test kit itself, in both flavours."""

from __future__ import annotations

import importlib
import inspect

import pytest

import grenache_py.aio.testing
import grenache_py.testing
from grenache_py import errors
from grenache_py.testing import Grapes, StubCall, Stubs
from tests.flavours import Aio, Awaited


@pytest.fixture
def make(flavour):
    """Makes what the test kit of the flavour has, by name; started, and stopped after the test."""
    home = "grenache_py.aio.testing" if isinstance(flavour, Aio) else "grenache_py.testing"
    kit = importlib.import_module(home)
    made = []

    def build(name, *args):
        thing = getattr(kit, name)(*args)
        if isinstance(flavour, Aio):
            thing = Awaited(thing, flavour.loop)
        thing.start()
        made.append(thing)
        return thing

    yield build
    while made:
        made.pop().stop()


def test_grapes_know_each_other_and_tell_when_a_service_is_announced(flavour, make):
    grapes = make("Grapes", 3)
    assert len(set(grapes.urls)) == 3
    assert grapes.url == grapes.urls[0]
    first, last = flavour.link(grapes.urls[0]), flavour.link(grapes.urls[2])
    first.announce("rpc_test", 6001)
    assert grapes.wait_for("rpc_test") == ["127.0.0.1:6001"]
    last.announce("rpc_test", 6002)
    assert grapes.wait_for("rpc_test", 2) == ["127.0.0.1:6001", "127.0.0.1:6002"]
    with pytest.raises(
        TimeoutError, match=r"'other' is not announced by 2 within 0\.1 s; the Grapes find \[\["
    ):
        grapes.wait_for("other", 2, timeout=0.1)
    with pytest.raises(errors.ArgumentError, match="count"):
        grapes.wait_for("other", 0)
    grapes.stop()
    grapes.stop()
    grapes.start()
    assert len(grapes.urls) == 3


def test_stubs_answer_as_told(flavour, make):
    def refuse(payload):
        raise errors.Refusal("ERR_NO", payload)

    services = {
        "rest:util:net": {"getIpInfo": lambda ip: [ip, "US"], "version": "1.0"},
        "echo": lambda payload: payload,
        "no": refuse,
    }
    grapes = make("Grapes")
    stubs = make("Stubs", grapes.urls[1], services)
    client = flavour.client(flavour.link(grapes.url))
    actions = flavour.make("ActionClient", client)
    assert actions.request("rest:util:net", "getIpInfo", ["8.8.8.8"]) == ["8.8.8.8", "US"]
    assert actions.request("rest:util:net", "version") == "1.0"
    assert client.request("echo", {"n": 1}) == {"n": 1}
    with pytest.raises(errors.RemoteError, match="ERR_NO"):
        client.request("no", 5)
    assert stubs.calls == [
        StubCall("rest:util:net", "getIpInfo", ["8.8.8.8"]),
        StubCall("rest:util:net", "version", []),
        StubCall("echo", None, [{"n": 1}]),
        StubCall("no", None, [5]),
    ]
    with pytest.raises(errors.RemoteError, match="ERR_API_ACTION_NOTFOUND"):
        actions.request("rest:util:net", "nonsense")
    [place] = grapes.wait_for("echo")
    with pytest.raises(errors.RemoteError, match="ERR_TEST_MISSING_STUB"):
        client.request_to(place, "other", 1)
    assert len(stubs.calls) == 4
    stubs.stop()
    with pytest.raises(errors.LookupEmptyError):
        flavour.link(grapes.urls[1]).lookup("echo")


async def test_coroutine_functions_as_stubs():
    from grenache_py.aio import Link, PeerRPCClient
    from grenache_py.aio.testing import Grapes, Stubs

    async def later(payload):
        return [payload]

    async with Grapes(1) as grapes, Stubs(grapes.url, {"later": later}), Link(grapes.url) as link:
        assert await PeerRPCClient(link).request("later", 1) == [1]


def test_what_is_no_answer():
    with pytest.raises(errors.ArgumentError, match="services: 'a' must be a function or have actions"):
        Stubs("http://127.0.0.1:1", {"a": 5})  # type: ignore[dict-item]
    with pytest.raises(errors.ArgumentError, match="count"):
        Grapes(0)


def test_stubs_that_cannot_be_announced_leave_nothing_behind():
    with pytest.raises(errors.GrapeUnreachableError):
        Stubs("http://127.0.0.1:1", {"a": {}}).start()


@pytest.mark.parametrize("cls_name", ["Grapes", "Stubs"])
def test_both_flavours_are_the_same(cls_name):
    sync, aio = (getattr(module, cls_name) for module in (grenache_py.testing, grenache_py.aio.testing))
    names = [name for name in vars(sync) if not name.startswith("_")]
    assert names == [name for name in vars(aio) if not name.startswith("_")]
    for name in ["__init__", *names]:
        member, twin = getattr(sync, name), getattr(aio, name)
        if callable(member):
            assert inspect.signature(member) == inspect.signature(twin), name
