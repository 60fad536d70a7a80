"""Workers of actions and their clients, in both flavours: names, the ``sec:`` twin, rights, ends."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading

import pytest

from grenache_py import Actions, Grape, errors, limits
from grenache_py.acl import AclFile
from grenache_py.sec import Sec, load_client_context, load_sec
from grenache_py.tls import Certificate, client_context, server_context
from tests.harness import eventually
from tests.unit.tls_files import make_ca

NAME = "rest:util:net"


@pytest.fixture(scope="module")
def grape():
    with Grape(host="127.0.0.1") as running:
        yield running.url


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A folder ``sec`` as a Bitfinex worker has it, but for ``acl.json``."""
    return make_ca(tmp_path_factory.mktemp("sec"))


@pytest.fixture
def sec(pem):
    """The folder with an ACL that allows our client ``getIpInfo`` alone."""
    folder = pem.ca_file.parent
    rights = {
        Certificate(ssl.PEM_cert_to_DER_cert(pem.client_cert.read_text()), {}).fingerprint: ["getIpInfo"]
    }
    (folder / "acl.json").write_text(json.dumps(rights))
    return folder


@pytest.fixture
def actions():
    made = Actions()

    @made.export
    def getIpInfo(space, ip):  # noqa: N802
        return [ip, space.service, space.certificate and space.certificate.common_name]

    @made.export
    def ping(space):
        return "pong"

    return made


def action_client(flavour, link, **options):
    inner = flavour.client(link)
    return flavour.make("ActionClient", inner, **options)


def test_actions_are_called_by_name(flavour, grape, actions):
    link = flavour.link(grape)
    worker = flavour.make("Worker", link, [NAME, "other"], actions)
    worker.start(0, "127.0.0.1")
    client = action_client(flavour, link)
    assert client.request(NAME, "getIpInfo", ["8.8.8.8"]) == ["8.8.8.8", NAME, None]
    assert client.request("other", "getIpInfo", ["::1"], type=list) == ["::1", "other", None]
    assert [result.payload for result in client.map(NAME, "ping")] == ["pong"]
    assert [result.payload for result in client.map_stream(NAME, "ping", limit=1)] == ["pong"]
    with pytest.raises(errors.RemoteError, match="ERR_API_ACTION_NOTFOUND") as raised:
        client.request(NAME, "nonsense")
    assert raised.value.code == "ERR_API_ACTION_NOTFOUND"
    with pytest.raises(errors.ArgumentError, match="args: must be a list"):
        client.request(NAME, "ping", "x")
    with pytest.raises(errors.ArgumentError, match="sec: a client with a TLS context"):
        client.request(f"sec:{NAME}", "ping")
    with pytest.raises(RuntimeError):
        worker.sec_port  # noqa: B018
    with pytest.raises(RuntimeError, match="started already"):
        worker.start()


def test_the_sec_twin_heeds_the_acl(flavour, grape, actions, sec, tmp_path):
    log = tmp_path / "access.log"
    link = flavour.link(grape)
    worker = flavour.make("Worker", link, NAME, actions, sec=load_sec(sec), access_log=log)
    worker.start(0, "127.0.0.1")
    assert worker.sec_port != worker.port
    secured = flavour.client(link, ssl=load_client_context(sec))
    client = action_client(flavour, link, sec=secured)

    def is_logged(lines):
        # A line is written after its reply, and one of another thread may overtake it.
        eventually(lambda: log.read_bytes().count(b"\n") == lines)

    for lines, service, name in ((1, NAME, None), (2, f"sec:{NAME}", "client")):
        assert client.request(service, "getIpInfo", ["1.1.1.1"]) == ["1.1.1.1", service, name]
        is_logged(lines)
    assert client.request(NAME, "ping") == "pong"
    is_logged(3)
    for lines, action in ((4, "ping"), (5, "nonsense")):
        with pytest.raises(errors.RemoteError, match="ERR_API_AUTH"):
            client.request(f"sec:{NAME}", action)
        is_logged(lines)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["action"], line["outcome"], bool(line["fingerprint"])) for line in lines] == [
        ("getIpInfo", "ok", False),
        ("getIpInfo", "ok", True),
        ("ping", "ok", False),
        ("ping", "ERR_API_AUTH", True),
        ("nonsense", "ERR_API_AUTH", True),
    ]
    # Rights that are given while it runs.
    (sec / "acl.json").write_text('{"*": {"ping": true}}')

    def allowed():
        try:
            return client.request(f"sec:{NAME}", "ping") == "pong"
        except errors.RemoteError:
            return False

    eventually(allowed)
    with pytest.raises(errors.RemoteError, match="ERR_API_AUTH"):
        client.request(f"sec:{NAME}", "getIpInfo", ["1.1.1.1"])


def test_nobody_without_a_certificate_reaches_the_twin(flavour, grape, actions, sec, pem):
    # Even where the TLS context would let them connect.
    (sec / "acl.json").write_text('{"*": "*"}')
    lenient = server_context(pem.server_cert, pem.server_key, pem.ca_file, require_cert=False)
    link = flavour.link(grape)
    worker = flavour.make("Worker", link, NAME, actions, sec=Sec(lenient, AclFile(sec / "acl.json")))
    worker.start(0, "127.0.0.1")
    stranger = action_client(flavour, link, sec=flavour.client(link, ssl=client_context(pem.ca_file)))
    with pytest.raises(errors.RemoteError, match="ERR_API_AUTH"):
        stranger.request(f"sec:{NAME}", "ping")


def test_a_twin_needs_certificates(sec, pem):
    acl = AclFile(sec / "acl.json")
    for context in (None, server_context(pem.server_cert, pem.server_key)):
        with pytest.raises(errors.ArgumentError, match="asks clients for a certificate"):
            Sec(context, acl)


def test_the_twin_listens_above_its_worker(flavour, grape, actions, sec, monkeypatch):
    link = flavour.link(grape)
    first = flavour.make("Worker", link, NAME, actions, sec=load_sec(sec))
    first.start(0, "127.0.0.1")
    # The place of the twin of this one is taken: nothing is left listening.
    monkeypatch.setattr(limits, "SEC_PORT_OFFSET", first.sec_port - first.port)
    port = first.port
    first.stop()
    taken = flavour.make("Worker", link, "other", actions)
    taken.start(port + limits.SEC_PORT_OFFSET, "127.0.0.1")
    second = flavour.make("Worker", link, NAME, actions, sec=load_sec(sec))
    with pytest.raises(errors.ListenError):
        second.start(port, "127.0.0.1")
    taken.stop()
    second.start(port, "127.0.0.1")
    assert (second.port, second.sec_port) == (port, port + limits.SEC_PORT_OFFSET)


def test_a_worker_that_stops_is_withdrawn_and_answers_what_it_has(flavour, grape, sec):
    begun, go_on = threading.Event(), threading.Event()
    actions = Actions()
    if flavour.name == "sync":

        @actions.export
        def slow(space):
            begun.set()
            assert go_on.wait(10)
            return "done"

    else:

        @actions.export
        async def slow(space):
            begun.set()
            assert await asyncio.to_thread(go_on.wait, 10)
            return "done"

    link = flavour.link(grape)
    worker = flavour.make("Worker", link, NAME, actions, sec=load_sec(sec))
    worker.start(0, "127.0.0.1")
    client = action_client(flavour, flavour.link(grape))
    answers = []
    caller = threading.Thread(target=lambda: answers.append(client.request(NAME, "slow")))
    caller.start()
    assert begun.wait(10)
    stopper = threading.Thread(target=lambda: worker.stop(drain=10))
    stopper.start()

    def gone(name):
        try:
            link.lookup(name, fresh=True)
        except errors.LookupEmptyError:
            return True
        return False

    for name in (NAME, f"sec:{NAME}"):
        eventually(lambda name=name: gone(name))
    go_on.set()
    stopper.join(10)
    caller.join(10)
    assert answers == ["done"]
    worker.stop()  # changes nothing


def test_workers_announce_every_45_seconds(flavour, grape, actions, monkeypatch):
    link = flavour.link(grape)
    started = []
    inner = getattr(link, "inner", link)
    start = inner.start_announcing

    def record(name, port, *, interval):
        started.append((name, interval))
        return start(name, port, interval=interval)

    monkeypatch.setattr(inner, "start_announcing", record)
    flavour.make("Worker", link, NAME, actions).start(0, "127.0.0.1")
    flavour.make("Worker", link, NAME, actions, interval=3).start(0, "127.0.0.1")
    assert started == [(NAME, 45.0), (NAME, 3.0)]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"timeout": 0}, "timeout"),
        ({"interval": -1}, "interval"),
        ({"access_log": "/no/such/x"}, "access_log"),
    ],
)
def test_options_that_cannot_be(flavour, grape, actions, options, field):
    with pytest.raises(errors.ArgumentError, match=field):
        flavour.make("Worker", flavour.link(grape), NAME, actions, **options)


def test_a_worker_whose_certificate_names_no_address(sec):
    assert load_client_context(sec).check_hostname
    assert not load_client_context(sec, check_hostname=False).check_hostname
