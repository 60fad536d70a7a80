"""A Grape within the process of a Link, and the warning of a Link whose Grape is on another host."""

from __future__ import annotations

import logging
import os
import sys
import urllib.request

import pytest

from grenache_py import Grape, Link, aio, errors
from grenache_py.hosts import is_address, is_here
from tests.harness import eventually, free_port
from tests.scripted import ScriptedServer, reply


def test_a_service_is_found_through_the_embedded_grape(flavour):
    with Grape(host="127.0.0.1") as other:
        link = flavour.link("embedded", bootstrap=[other.dht_address])
        service = flavour.service(lambda rid, key, payload, handler: handler.reply(None, payload), link)
        assert link.start_announcing("rpc_test", service.port)
        assert link.grape.startswith("http://127.0.0.1:")
        assert link.grape != other.url
        elsewhere = flavour.client(flavour.link(other.url))
        assert elsewhere.request("rpc_test", {"n": 1}) == {"n": 1}
        # Its own Grape leaves a service out at once when it stops.
        link.stop_announcing("rpc_test", service.port)
        with pytest.raises(errors.LookupEmptyError):
            link.lookup("rpc_test", fresh=True)


def test_two_sidecars_find_each_other(flavour):
    with Grape(host="127.0.0.1") as seed:
        links = [flavour.link("embedded", bootstrap=[seed.dht_address]) for _ in range(2)]
        links[0].announce("a", 6001)
        links[1].announce("b", 6002)
        assert links[1].lookup("a") == ["127.0.0.1:6001"]
        assert links[0].lookup("b") == ["127.0.0.1:6002"]


def test_alone_it_is_a_network_of_its_own(flavour):
    link = flavour.link("embedded")
    assert link.announce("rpc_test", 6001) == 1
    assert link.lookup("rpc_test") == ["127.0.0.1:6001"]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as said:
            return said.status == 200
    except OSError:
        return False


def test_the_grape_ends_with_its_link(flavour):
    link = flavour.link("embedded")
    link.announce("rpc_test", 6001)
    url = link.grape
    assert answers(url)
    link.stop()
    assert not answers(url)
    with pytest.raises(errors.ClosedError):
        link.lookup("rpc_test", fresh=True)
    link.stop()


def test_a_dead_bootstrap_keeps_no_call_beyond_its_limit(flavour):
    # The sync flavour has waited when it is made; the other one does so within the limit of its calls.
    link = flavour.link("embedded", bootstrap=[f"127.0.0.1:{free_port()}"])
    if flavour.name == "aio":
        with pytest.raises(errors.GrapeUnreachableError) as raised:
            link.lookup("rpc_test", timeout=0.2)
        assert raised.value.code == "ERR_TIMEOUT"
    assert link.announce("rpc_test", 6001) == 1


async def test_stopped_while_it_starts():
    link = aio.Link("embedded", bootstrap=[f"127.0.0.1:{free_port()}"])
    with pytest.raises(errors.GrapeUnreachableError):
        await link.lookup("rpc_test", timeout=0.05)
    await link.stop()
    assert link._grapes._embedded is not None
    assert not link._grapes._embedded.running


async def test_entering_the_link_starts_it():
    async with aio.Link("embedded") as link:
        assert link.grape.startswith("http://")
    assert not answers(link.grape)


@pytest.mark.parametrize(
    ("grape", "bootstrap", "says"),
    [
        ("http://127.0.0.1:30001", ["127.0.0.1:20001"], "needs grape='embedded'"),
        ("embedded", "127.0.0.1:20001", "must be a list"),
        ("embedded", ["127.0.0.1"], "must be host:port"),
        ("embedded", [5], "must be host:port"),
        (["embedded", "http://127.0.0.1:30001"], [], "must be a URL"),
    ],
)
def test_arguments(flavour, grape, bootstrap, says):
    with pytest.raises(errors.ArgumentError, match=says):
        flavour.link(grape, bootstrap=bootstrap)


def test_a_grape_that_cannot_start(flavour, monkeypatch):
    def fail(self):
        raise PermissionError(1, "Operation not permitted")

    async def fail_later(self):
        fail(self)

    monkeypatch.setattr(Grape, "start", fail)
    monkeypatch.setattr(aio.Grape, "start", fail_later)
    with pytest.raises(errors.GrapeUnreachableError, match="cannot start: Operation not permitted"):
        flavour.link("embedded").lookup("rpc_test")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_leaves_the_grape_to_its_parent():
    with Link("embedded") as link:
        link.announce("rpc_test", 6001)
        child = os.fork()
        if not child:
            status = 1
            try:
                found = link.lookup("rpc_test", fresh=True)
                link.stop()
                status = 0 if found == ["127.0.0.1:6001"] else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert link.lookup("rpc_test", fresh=True) == ["127.0.0.1:6001"]


def test_hosts():
    assert is_here(["127.0.0.1"])
    assert is_here(["192.0.2.1", "::1"])
    assert is_here(["0.0.0.0"])
    assert not is_here(["192.0.2.1"])  # TEST-NET-1, nobody's
    assert not is_here(["2001:db8::1"])
    assert not is_here([])
    assert is_address("::1")
    assert is_address("fe80::1%eth0")
    assert not is_address("localhost")


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_grape_on_another_host_is_warned_of_once(flavour, caplog, monkeypatch):
    for module in ("grenache_py.link", "grenache_py.aio.link"):
        if module in sys.modules:
            monkeypatch.setattr(f"{module}.is_here", lambda addresses: "127.0.0.1" not in addresses)
    with ScriptedServer([reply("1")]) as grape:
        url = grape.url.replace("127.0.0.1", "localhost")
        link = flavour.link(url)
        link.announce("rpc_test", 6001)
        link.announce("rpc_test", 6002)
        link.start_announcing("other", 6003, interval=0.01)
        eventually(lambda: len(grape.asked) > 5)
    [said] = [text for text in warnings(caplog) if "another host" in text]
    assert f"the Grape {url} is on another host, so 'rpc_test' is announced" in said
    assert 'Link("embedded", bootstrap=["localhost:PORT"])' in said


def test_a_grape_on_this_host_is_not_warned_of(flavour, caplog):
    with ScriptedServer([reply("1")]) as grape:
        flavour.link(grape.url).announce("rpc_test", 6001)
        flavour.link(grape.url.replace("127.0.0.1", "localhost")).announce("rpc_test", 6001)
    assert not warnings(caplog)
